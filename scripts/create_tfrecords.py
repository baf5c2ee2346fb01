#!/usr/bin/env python3
"""Turns a data set of recordings with their notes into TFRecords for training and evaluation.

  python scripts/create_tfrecords.py --dataset=maestro --input_dir=maestro-v3.0.0 --output_dir=tfrecords

writes, for each split, files like tfrecords/train.tfrecord-00000-of-00008. Recordings of "train" and "validation" are cut into
segments, at silences where there are any; those of "test" stay whole, as in Magenta's data sets.
"""

import collections
import concurrent.futures
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

if TYPE_CHECKING:
    from polyamp.data.example import Example
    from polyamp.data.sources import Recording

_DATASET = flags.DEFINE_enum(
    "dataset",
    None,
    ["maps", "maestro", "slakh", "folder"],
    "What is in --input_dir: MAPS, MAESTRO (v1 to v3), Slakh (or what render_midi.py made), or a folder of audio files with "
    "MIDI or tsv files (onset, offset, pitch, velocity) of the same names; subfolders named train, validation and test say "
    "the split there.",
    required=True,
)
_INPUT_DIR = flags.DEFINE_string("input_dir", None, "Folder of the data set, as distributed.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to write to; made if it is not there.", required=True)
_SPLIT = flags.DEFINE_list("split", [], "Splits to write, comma-separated, of train, validation, test; default: all there are.")
_HOLD_OUT = flags.DEFINE_list(
    "hold_out",
    [],
    "Pieces to move from train to validation, for data sets without such a split: recordings whose id has one of these "
    "comma-separated names in it as a whole word.",
)
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 8, "Files per split.", lower_bound=1)
_MIN_LENGTH = flags.DEFINE_float("min_length", 5.0, "Shortest segment, seconds.", lower_bound=0.0)
_MAX_LENGTH = flags.DEFINE_float(
    "max_length",
    20.0,
    "Longest segment, seconds; 0 keeps all recordings whole. The test split is always whole.",
    lower_bound=0.0,
)

_MAX_WORKERS = 8  # Recordings that are in memory at the same time.


def main(argv: Sequence[str]) -> int:
    """Writes the splits that the flags ask for; 1 with one line on stderr if they cannot be."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
    from polyamp import startup

    return startup.run_script(argv, _run)


def _run() -> None:
    from polyamp.data import sources
    from polyamp.errors import DataError

    if 0 < _MAX_LENGTH.value < _MIN_LENGTH.value:
        raise DataError(f"--min_length={_MIN_LENGTH.value:g} is above --max_length={_MAX_LENGTH.value:g}.")
    found: dict[str, list[Recording]] = {}
    for recording in sources.hold_out(sources.find(_DATASET.value, _INPUT_DIR.value), _HOLD_OUT.value):
        found.setdefault(recording.split, []).append(recording)
    for split in _SPLIT.value:
        if split not in found:
            raise DataError(f"--split: {_INPUT_DIR.value} has no recordings in {split!r}; it has {', '.join(sorted(found))}.")
    output_dir = Path(_OUTPUT_DIR.value)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{output_dir}: cannot be made ({error.strerror}).") from error
    for split in dict.fromkeys(_SPLIT.value or sorted(found)):
        _write_split(split, found[split], output_dir)


def _write_split(split: str, recordings: Sequence["Recording"], output_dir: Path) -> None:
    from absl import logging
    from tqdm import tqdm

    from polyamp.errors import DataError

    paths = [output_dir / f"{split}.tfrecord-{index:05d}-of-{_NUM_SHARDS.value:05d}" for index in range(_NUM_SHARDS.value)]
    others = set(output_dir.glob(f"{split}.tfrecord-*-of-*")) - set(paths)
    if others:
        raise DataError(f"{min(others)}: from a run with another --num_shards, and would be mixed with this one; remove it.")

    from polyamp.data import records  # Takes seconds to import.

    num_examples = num_notes = 0
    seconds = 0.0
    with records.shard_writer(paths) as write:
        progress = tqdm(_converted(recordings, whole=split == "test"), total=len(recordings), desc=split, unit="recording")
        for examples in progress:
            for example in examples:
                write(example)
                num_examples += 1
                num_notes += int((example.notes.onset >= 0).sum())
                seconds += example.duration
    summary = (split, num_examples, len(recordings), seconds / 3600, num_notes, output_dir)
    logging.info("%s: %d examples of %d recordings, %.2f h, %d notes, in %s", *summary)


def _converted(recordings: Sequence["Recording"], whole: bool) -> Iterator[list["Example"]]:
    """The examples of each recording, in order, prepared by threads that keep a few recordings ahead."""
    from polyamp.data import sources

    lengths = (0.0, 0.0) if whole else (_MIN_LENGTH.value, _MAX_LENGTH.value)
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    pending: collections.deque[concurrent.futures.Future[list[Example]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for recording in recordings:
                pending.append(pool.submit(sources.examples, recording, *lengths))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


if __name__ == "__main__":
    app.run(main)
