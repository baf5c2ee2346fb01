"""Notes from and to files: NoteSequence protos, MIDI and tab-separated label files.

note-seq takes seconds to import (it loads plotting libraries), so the functions that need it import it themselves: prediction
never does.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polyamp import constants
from polyamp.errors import DataError
from polyamp.notes.arrays import Notes

if TYPE_CHECKING:
    from note_seq.protobuf import music_pb2


def from_sequence(sequence: "music_pb2.NoteSequence", apply_sustain: bool = True, use_drums: bool = False) -> Notes:
    """The notes of a NoteSequence.

    Args:
        sequence: Unquantized NoteSequence; not changed.
        apply_sustain: Let notes sound as long as the sustain pedal (controller 64, at 64 and above) holds them. Do it once,
            where labels are made.
        use_drums: Keep drum notes.

    Raises:
        DataError: A note has an impossible value.
    """
    if apply_sustain:
        from note_seq import sequences_lib

        sequence = sequences_lib.apply_sustain_control_changes(sequence)
    rows = [
        (note.start_time, note.end_time, note.pitch, note.velocity, note.program)
        for note in sequence.notes
        if use_drums or not note.is_drum
    ]
    return Notes.of(*np.array(rows, np.float64).reshape(-1, 5).T)


def to_sequence(notes: Notes, qpm: float = constants.DEFAULT_QPM) -> "music_pb2.NoteSequence":
    """A NoteSequence with one instrument per program; `qpm` is its tempo, times stay in seconds."""
    from note_seq.protobuf import music_pb2

    sequence = music_pb2.NoteSequence(ticks_per_quarter=220)
    sequence.tempos.add(qpm=qpm)
    instruments = {program: index for index, program in enumerate(np.unique(notes.program).tolist())}
    columns = (notes.onset, notes.offset, notes.pitch, notes.velocity, notes.program)
    for onset, offset, pitch, velocity, program in zip(*(column.tolist() for column in columns), strict=True):
        sequence.notes.add(
            start_time=onset,
            end_time=offset,
            pitch=pitch,
            velocity=velocity,
            program=program,
            instrument=instruments[program],
        )
    sequence.total_time = float(notes.offset.max()) if len(notes) else 0.0
    return sequence


def read_midi(path: str | os.PathLike, apply_sustain: bool = True, use_drums: bool = False) -> Notes:
    """The notes of a MIDI file; see `from_sequence`.

    Raises:
        DataError: The file cannot be read or is not MIDI.
    """
    from note_seq import midi_io

    try:
        sequence = midi_io.midi_to_note_sequence(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except midi_io.MIDIConversionError as error:
        raise DataError(f"{path}: is not a usable MIDI file ({error}).") from error
    return from_sequence(sequence, apply_sustain, use_drums)


def read_tsv(path: str | os.PathLike) -> Notes:
    """Notes from lines of `onset, offset, pitch, velocity` (seconds and MIDI numbers), separated by tabs or commas.

    Lines that are empty or start with `#` are skipped; an offset before its onset, as rounding makes them, counts as the onset.

    Raises:
        DataError: The file cannot be read or a line does not hold four numbers; names the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file of notes.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            onset, offset, pitch, velocity = (float(value) for value in line.replace("\t", ",").split(",")[:4])
        except ValueError as error:
            raise DataError(f"{path}, line {number}: expected onset, offset, pitch, velocity; got {line!r}.") from error
        rows.append((onset, max(onset, offset), pitch, velocity))
    try:
        return Notes.of(*np.array(rows, np.float64).reshape(-1, 4).T)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
