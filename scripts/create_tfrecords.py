#!/usr/bin/env python3
"""Turns a data set of recordings with their notes into TFRecords for training and evaluation.

  python scripts/create_tfrecords.py --dataset=maestro --input_dir=maestro-v3.0.0 --output_dir=tfrecords

writes, for each split, files like tfrecords/train.tfrecord-00000-of-00008. Recordings of "train" and "validation" are cut into
segments, at silences where there are any; those of "test" stay whole, as in Magenta's data sets. Data sets of single notes
(nsynth, notes) are written in NSynth's schema, 4 s each.
"""

import collections
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

if TYPE_CHECKING:
    from polyamp.data.recording import NoteFile, Recording

_DATASET = flags.DEFINE_enum(
    "dataset",
    None,
    ["maps", "maestro", "slakh", "folder", "nsynth", "notes"],
    "What is in --input_dir. Recordings: MAPS, MAESTRO (v1 to v3), Slakh (or what render_midi.py made; its drums are never "
    "labelled), or a folder of audio files with MIDI or tsv files (onset, offset, pitch, velocity) of the same names; "
    "subfolders named train, validation and test say the split there. Single notes, for TIMBRE: NSynth (folders with "
    "examples.json and audio/, or of files with its names; or what render_midi.py --single_notes made), or notes: a "
    "manifest.csv (file, family, instrument, source, pitch, onset_s) beside the files.",
    required=True,
)
_INPUT_DIR = flags.DEFINE_string("input_dir", None, "Folder of the data set, as distributed.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to write to; made if it is not there.", required=True)
_SPLIT = flags.DEFINE_list("split", [], "Splits to write, comma-separated, of train, validation, test; default: all there are.")
_HOLD_OUT = flags.DEFINE_list(
    "hold_out",
    [],
    "Pieces, or instruments of single notes, to move from train to validation, for data sets without such a split: those "
    "whose name has one of these comma-separated names in it as a whole word.",
)
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 8, "Files per split.", lower_bound=1)
_MIN_LENGTH = flags.DEFINE_float("min_length", 5.0, "Shortest segment, seconds.", lower_bound=0.0)
_MAX_LENGTH = flags.DEFINE_float(
    "max_length",
    20.0,
    "Longest segment, seconds; 0 keeps all recordings whole. The test split is always whole.",
    lower_bound=0.0,
)


def main(argv: Sequence[str]) -> int:
    """Writes the splits that the flags ask for; 1 with one line on stderr if they cannot be."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
    from polyamp import startup

    return startup.run_script(argv, _run)


def _run() -> None:
    from polyamp.data import note_files, recording, sources
    from polyamp.errors import DataError

    if 0 < _MAX_LENGTH.value < _MIN_LENGTH.value:
        raise DataError(f"--min_length={_MIN_LENGTH.value:g} is above --max_length={_MAX_LENGTH.value:g}.")
    found: dict[str, list[Any]] = {}
    if _DATASET.value in note_files.DATASETS:
        for note in recording.hold_out(note_files.find(_DATASET.value, _INPUT_DIR.value), _HOLD_OUT.value):
            found.setdefault(note.split, []).append(note)
        write_split: Callable[..., None] = _write_notes
    else:
        for one in recording.hold_out(sources.find(_DATASET.value, _INPUT_DIR.value), _HOLD_OUT.value):
            found.setdefault(one.split, []).append(one)
        write_split = _write_recordings
    for split in _SPLIT.value:
        if split not in found:
            raise DataError(f"--split: {_INPUT_DIR.value} has nothing in {split!r}; it has {', '.join(sorted(found))}.")
    output_dir = Path(_OUTPUT_DIR.value)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{output_dir}: cannot be made ({error.strerror}).") from error
    for split in dict.fromkeys(_SPLIT.value or sorted(found)):
        write_split(split, found[split], _paths(split, output_dir))


def _paths(split: str, output_dir: Path) -> list[Path]:
    """The files of a split; `DataError` if there are others of it."""
    from polyamp.errors import DataError

    paths = [output_dir / f"{split}.tfrecord-{index:05d}-of-{_NUM_SHARDS.value:05d}" for index in range(_NUM_SHARDS.value)]
    others = set(output_dir.glob(f"{split}.tfrecord-*-of-*")) - set(paths)
    if others:
        raise DataError(f"{min(others)}: from a run with another --num_shards, and would be mixed with this one; remove it.")
    return paths


def _write_recordings(split: str, recordings: Sequence["Recording"], paths: Sequence[Path]) -> None:
    from absl import logging
    from tqdm import tqdm

    from polyamp.data import records, sources, threads  # The first takes seconds to import.

    lengths = (0.0, 0.0) if split == "test" else (_MIN_LENGTH.value, _MAX_LENGTH.value)
    num_examples = num_notes = 0
    seconds = 0.0
    with records.shard_writer(paths) as write:
        converted = threads.ahead(lambda recording: sources.examples(recording, *lengths), recordings)
        for examples in tqdm(converted, total=len(recordings), desc=split, unit="recording"):
            for example in examples:
                write(example)
                num_examples += 1
                num_notes += int((example.notes.onset >= 0).sum())
                seconds += example.duration
    summary = (split, num_examples, len(recordings), seconds / 3600, num_notes, paths[0].parent)
    logging.info("%s: %d examples of %d recordings, %.2f h, %d notes, in %s", *summary)


def _write_notes(split: str, notes: Sequence["NoteFile"], paths: Sequence[Path]) -> None:
    from absl import logging
    from tqdm import tqdm

    from polyamp.data import note_files, nsynth, records, threads  # These take seconds to import.

    notes = random.Random(0).sample(notes, len(notes))  # Else neighbours would be of one instrument.
    with records.shard_writer(paths, nsynth.serialize) as write:
        for example in tqdm(threads.ahead(note_files.load, notes), total=len(notes), desc=split, unit="note"):
            write(example)
    families = collections.Counter(note.family for note in notes)
    counts = ", ".join(f"{family} {count}" for family, count in sorted(families.items()))
    instruments = len({note.instrument for note in notes})
    logging.info("%s: %d notes of %d instruments (%s), in %s", split, len(notes), instruments, counts, paths[0].parent)


if __name__ == "__main__":
    app.run(main)
