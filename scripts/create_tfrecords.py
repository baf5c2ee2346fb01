#!/usr/bin/env python3
"""Turns a data set of recordings with their notes into TFRecords for training and evaluation.

  python scripts/create_tfrecords.py --dataset=maestro --input_dir=maestro-v3.0.0 --output_dir=tfrecords

writes, for each split, files like tfrecords/train.tfrecord-00000-of-00008. Recordings of "train" and "validation" are cut into
segments, at silences where there are any; those of "test" stay whole, as in Magenta's data sets. Data sets of single notes
(nsynth, notes) are written in NSynth's schema, 4 s each. Recordings that cannot be read are listed in <split>.failed.jsonl.

An interrupted run goes on with the files that are missing. With --runner and other options of Apache Beam, the files are
written by the workers of any engine that Beam knows, and the folders may be gs://, s3:// and the like:

  python scripts/create_tfrecords.py --dataset=maestro --input_dir=maestro-v3.0.0 --output_dir=tfrecords --num_shards=64 \
      --runner=DirectRunner --direct_num_workers=0 --direct_running_mode=multi_processing
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import beam_options, constants, startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.data.sharding import Shard, SplitSum


_DATASET = flags.DEFINE_enum(
    "dataset",
    None,
    ["maps", "maestro", "slakh", "folder", "audio", "nsynth", "notes"],
    "What is in --input_dir. Recordings: MAPS, MAESTRO (v1 to v3), Slakh (or what render_midi.py made), or a folder of audio "
    "files with MIDI or tsv files (onset, offset, pitch, velocity) of the same names; subfolders named train, validation and "
    "test say the split there. Audio: a folder of recordings whose notes nobody knows, for training with --teacher_id. Single "
    "notes, for TIMBRE: NSynth (folders with examples.json and audio/, or of files with its names; or what render_midi.py "
    "--single_notes made), or notes: a manifest.csv (file, family, instrument, source, pitch, onset_s) beside the files.",
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
_ROOM_COPIES = flags.DEFINE_integer(
    "room_copies",
    0,
    "How often each training recording follows as if recorded in a random room: for synthesized and close recordings, so that "
    "what is trained on them works for others.",
    lower_bound=0,
)
_LEVEL_DB = flags.DEFINE_float(
    "level_db",
    0.0,
    "Bring every recording to this level first, in dB as predict_level_db and timbre_level_db: for training at the level at "
    "which a model will be asked. What is beyond full scale then is clipped. 0: as loud as it is.",
    lower_bound=-80.0,
    upper_bound=0.0,
)
_BALANCE = flags.DEFINE_float(
    "balance",
    0.0,
    "How much of what room and microphone colour is taken out of training recordings and their copies: what the model will "
    "have as predict_balance.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_BALANCE_OF = flags.DEFINE_enum(
    "balance_of", "pianos", constants.BALANCE_KINDS, "What is recorded, for --balance: as predict_balance_of."
)
_USE_DRUMS = flags.DEFINE_bool("use_drums", False, 'Label drum notes too, as notes of the family "other".')


def main(argv: Sequence[str]) -> int:
    """Writes the splits that the flags ask for; 1 with one line on stderr if they cannot be, or not all of them."""
    return startup.run_script(argv[:1], lambda: _run(argv[1:]))


def _run(beam_options: Sequence[str]) -> None:
    from polyamp.data import places, sharding
    from polyamp.errors import DataError

    if beam_options and importlib.util.find_spec("apache_beam") is None:
        raise DataError(f'{beam_options[0]} needs Apache Beam: pip install -e ".[beam]"; without it, leave it out.')
    if 0 < _MAX_LENGTH.value < _MIN_LENGTH.value:
        raise DataError(f"--min_length={_MIN_LENGTH.value:g} is above --max_length={_MAX_LENGTH.value:g}.")
    if _BALANCE_OF.present and not _BALANCE.value:
        raise DataError("--balance_of says what --balance goes by, and has no effect without it; give both, or neither.")
    settings = sharding.Settings(
        min_length=_MIN_LENGTH.value,
        max_length=_MAX_LENGTH.value,
        use_drums=_USE_DRUMS.value,
        room_copies=_ROOM_COPIES.value,
        level_db=_LEVEL_DB.value,
        balance=_BALANCE.value,
        balance_of=_BALANCE_OF.value,
    )
    with sharding.shadow_of(_INPUT_DIR.value) as shadow:
        shards = sharding.plan(
            dataset=_DATASET.value,
            input_dir=_INPUT_DIR.value,
            output_dir=_OUTPUT_DIR.value,
            settings=settings,
            splits=_SPLIT.value,
            hold_out=_HOLD_OUT.value,
            num_shards=_NUM_SHARDS.value,
            shadow=shadow,
        )
    places.make_folder(_OUTPUT_DIR.value)
    missing = sharding.missing(shards)
    if missing:
        startup.start_keras()  # Only now: mistakes are told at once.
    if beam_options:
        _write_with_beam(missing, beam_options)
    else:
        _write_here(missing)
    _report(sharding.sum_up(shards))


def _write_here(shards: "Sequence[Shard]") -> None:
    from tqdm import tqdm

    from polyamp.data import preparation

    with tqdm(total=sum(len(shard.items) for shard in shards), unit="item", disable=None) as progress:
        for shard in shards:
            progress.set_description(shard.split)
            preparation.write(shard, progress.update)


def _write_with_beam(shards: "Sequence[Shard]", options: Sequence[str]) -> None:
    from absl import logging

    from polyamp.data import beam_preparation

    for name, value in sorted(beam_preparation.write(shards, options).items()):
        logging.info("counter %s: %d", name, value)


def _report(sums: "Sequence[SplitSum]") -> None:
    """Says what there is of each split; `DataError` if recordings are missing."""
    from absl import logging

    from polyamp.errors import DataError

    for one in sums:
        given = (one.split, one.counts["examples"], one.counts["recordings"], one.counts["seconds"] / 3600, one.counts["notes"])
        logging.info("%s: %d examples of %d recordings, %.2f h, %d notes", *given)
        for failure in one.failures:
            logging.warning("%s", failure["error"])
    failed = [one for one in sums if one.failures]
    if failed:
        number = sum(len(one.failures) for one in failed)
        lists = ", ".join(one.failures_place for one in failed)
        raise DataError(f"{number} of the recordings could not be used, see {lists}; all others are written.")


if __name__ == "__main__":
    startup.run(main, beam_options.parse_flags)
