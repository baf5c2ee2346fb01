"""Notes from and to files: NoteSequence protos, MIDI and tab-separated label files.

note-seq takes seconds to import (it loads plotting libraries), so the functions that need it import it themselves: prediction
never does.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import mido
import numpy as np

from polyamp import atomic, constants
from polyamp.errors import DataError, PolyampError
from polyamp.notes import clock, midi_tracks
from polyamp.notes.arrays import DEFAULT_VELOCITY, UNKNOWN_VELOCITY, Notes, crop

if TYPE_CHECKING:
    from note_seq.protobuf import music_pb2

_ROUNDING = 0.002  # Seconds.
_DRUM_CHANNEL = 9  # Counted from 0.


def from_sequence(sequence: "music_pb2.NoteSequence", apply_sustain: bool = True, use_drums: bool = False) -> Notes:
    """The notes of a NoteSequence.

    Args:
        sequence: Unquantized NoteSequence; not changed.
        apply_sustain: Let notes sound as long as the sustain pedal (controller 64, at 64 and above) holds them. Do it once,
            where labels are made.
        use_drums: Keep drum notes, as notes of `constants.DRUM_PROGRAM`: their own program is the number of a kit.

    Raises:
        DataError: A note has an impossible value.
    """
    if apply_sustain:
        from note_seq import sequences_lib

        sequence = sequences_lib.apply_sustain_control_changes(sequence)
    rows = [
        (note.start_time, note.end_time, note.pitch, note.velocity, constants.DRUM_PROGRAM if note.is_drum else note.program)
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
    """The notes of a MIDI file, as it is played (see `midi_tracks`); see `from_sequence`.

    Raises:
        DataError: The file cannot be read, is not MIDI or holds an impossible note; names the file.
    """
    from note_seq import midi_io

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        sequence = midi_io.midi_to_note_sequence(midi_tracks.as_played(content))
    except Exception as error:  # mido raises whatever comes up.
        raise DataError(f"{path}: is not a usable MIDI file ({str(error) or 'it ends too soon'}).") from error
    try:
        return from_sequence(sequence, apply_sustain, use_drums)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_tsv(path: str | os.PathLike) -> Notes:
    """Notes from lines of `onset, offset, pitch, velocity` (seconds and MIDI numbers), separated by tabs or commas.

    Lines that are empty or start with `#` are skipped, and a first line that names the columns. Velocities may be missing, from
    all lines or some: they are 0, unknown, then. What rounding makes counts as what it was: an offset before its onset as the
    onset, an onset just before 0 as 0.

    Raises:
        DataError: The file cannot be read or a line does not hold three or four numbers; names the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file of notes.") from error
    rows = []
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    numbered = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if numbered and re.fullmatch(r"\D*(onset|start|time)\D*", numbered[0][1], re.IGNORECASE):
        del numbered[0]
    for number, line in numbered:
        try:
            onset, offset, pitch, *rest = (float(value) for value in line.replace("\t", ",").split(",")[:4])
        except ValueError as error:
            raise DataError(f"{path}, line {number}: expected onset, offset, pitch, velocity; got {line!r}.") from error
        onset = 0.0 if -_ROUNDING < onset < 0 else onset
        rows.append((onset, onset if offset < onset else offset, pitch, *(rest or [UNKNOWN_VELOCITY])))
    try:
        return Notes.of(*np.array(rows, np.float64).reshape(-1, 4).T)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write_midi(
    notes: Notes, path: str | os.PathLike, qpm: float = constants.DEFAULT_QPM, beats: np.ndarray | None = None
) -> None:
    """Writes a MIDI file in which every time in seconds is kept to 0.4 ms, whatever the tempo.

    In files of more than an hour it is a ten-millionth of their length, so to 1 ms in 2.8 hours; where the tempo follows beats,
    about a two-thousandth of a beat (of more than 9,000 beats twice as much, of 18,000 four times ...). Notes of one pitch that
    last for less than a millisecond and follow each other at once come later, each after the one before.

    One track per program, each on a channel of its own while there are any (never the drum channel); where there are several,
    they are named after their families. Also valid without notes. The file appears under its name when it is complete.

    Args:
        notes: Notes. Of one pitch and program they should not overlap, as in a MIDI file the first end would be that of all.
            Those that began before the file does, as in a crop, begin with it.
        path: File to write; its folder must exist.
        qpm: Tempo of the file in quarter notes per minute, 4 to 4000.
        beats: When the beats are, in seconds (`beats.track`): each is at a quarter note then (`clock.on_beats`), whatever
            `qpm`, unless there are less than two.

    Raises:
        PolyampError: The tempo or a beat is out of range, or the file cannot be written.
    """
    if not 4 <= qpm <= 4000:
        raise PolyampError(f"a tempo of {qpm} quarter notes per minute does not fit a MIDI file; use 4 to 4000.")
    if len(notes) and notes.onset.min() < 0:
        notes = crop(notes, 0.0, np.inf)
    last_time = float(notes.offset.max()) if len(notes) else 0.0
    if beats is not None and len(beats) > 1:
        when = clock.on_beats(beats, last_time)
    else:
        when = clock.at_tempo(qpm, last_time)
    midi = mido.MidiFile(type=1, ticks_per_beat=when.ticks_per_quarter)
    tempos = zip(when.tempo.tolist(), np.diff(when.tick, prepend=0).tolist(), strict=True)
    midi.tracks.append(mido.MidiTrack(mido.MetaMessage("set_tempo", tempo=tempo, time=wait) for tempo, wait in tempos))
    channels = [channel for channel in range(16) if channel != _DRUM_CHANNEL]
    programs = np.unique(notes.program).tolist()
    for index, program in enumerate(programs):
        track = _track(notes[notes.program == program], program, channels[index % len(channels)], when)
        if len(programs) > 1:
            track.insert(0, mido.MetaMessage("track_name", name=constants.FAMILIES[constants.PROGRAM_FAMILY[program]]))
        midi.tracks.append(track)
    with atomic.replacing(path) as temporary:
        midi.save(str(temporary))


def _ticks(notes: Notes, when: clock.Clock) -> tuple[np.ndarray, np.ndarray]:
    """Ticks of onsets and offsets; notes last for one at least, and those of a pitch that follow each other still do."""
    on = when.ticks(notes.onset)
    off = np.maximum(when.ticks(notes.offset), on + 1)
    before: dict[int, int] = {}  # Of each pitch its last note.
    for index, pitch in enumerate(notes.pitch.tolist()):
        last = before.get(pitch)
        if last is not None and on[index] < off[last] and notes.offset[last] <= notes.onset[index]:
            on[index] = off[last]
            off[index] = max(off[index], on[index] + 1)
        before[pitch] = index
    return on, off


def _track(notes: Notes, program: int, channel: int, when: clock.Clock) -> mido.MidiTrack:
    """A track of the notes of one program."""
    on, off = _ticks(notes, when)
    tick = np.concatenate([off, on])
    pitch = np.concatenate([notes.pitch, notes.pitch])
    loudness = np.where(notes.velocity == UNKNOWN_VELOCITY, DEFAULT_VELOCITY, notes.velocity)  # 0 would end the note.
    velocity = np.concatenate([np.zeros_like(loudness), loudness])
    starts = velocity > 0
    order = np.lexsort((pitch, starts, tick))  # At one tick notes end before others start.
    delta = np.diff(tick[order], prepend=0)
    track = mido.MidiTrack([mido.Message("program_change", program=program, channel=channel)])
    columns = (delta, starts[order], pitch[order], velocity[order])
    for wait, is_start, note, strength in zip(*(column.tolist() for column in columns), strict=True):
        kind = "note_on" if is_start else "note_off"
        track.append(mido.Message(kind, channel=channel, note=note, velocity=strength, time=wait))
    return track
