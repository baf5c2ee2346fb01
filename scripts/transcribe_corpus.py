#!/usr/bin/env python3
"""Transcribes all recordings of a corpus with Apache Beam: a MIDI and a JSON file of each, on as many machines as there are.

  python scripts/transcribe_corpus.py --input='corpus/**/*.flac' --output_dir=notes \
      --runner=DirectRunner --direct_num_workers=0 --direct_running_mode=multi_processing

Without --runner it runs in this process. Notes are those of polyamp_runner.py --mode=predict. Recordings that have both files
are left alone, so that the same command goes on where it was interrupted; files of another model are an error. Recordings that
cannot be transcribed are listed in failed.jsonl in the output folder and tried again by the next run. Recordings and folders
may be gs://, s3:// and the like.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import beam_options, startup  # noqa: E402

startup.limit_blas_threads()  # Of workers, too, which have this process' environment.

_INPUT = flags.DEFINE_list(
    "input",
    None,
    "Recordings: files, globs (** for folders in any depth) and lists (.txt files, one recording a line), comma-separated.",
    required=True,
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder to write to, in folders as below the part of a glob without wildcards.", required=True
)
_MODEL_TYPE = flags.DEFINE_string("model_type", "MELODIC", "MELODIC, FULL or AUTOREGRESSIVE.")
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of checkpoints, which workers see too; default: those in the package."
)
_LOAD_ID = flags.DEFINE_string("load_id", "*", "Which checkpoint, as for polyamp_runner.py.")
_LOAD_FULL = flags.DEFINE_bool("load_full", None, "As for polyamp_runner.py: True takes the part of a FULL model.")
_HPARAMS = flags.DEFINE_multi_string("hparams", [], "Decoding settings, as JSON.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Windows that a model gets at a time, at most.", lower_bound=1)
_AT_A_TIME = flags.DEFINE_integer(
    "at_a_time",
    64,
    "Recordings in work at a time. A local runner holds what the model answers for all of them, 2.6 MB for each minute; 0 is "
    "all, for runners that keep it on disk.",
    lower_bound=0,
)


def main(argv: Sequence[str]) -> int:
    """Transcribes; 1 with one line on stderr if nothing can be transcribed, or not all recordings."""
    return startup.run_script(argv[:1], lambda: _run(argv[1:]))


def _run(options: Sequence[str]) -> None:
    from absl import logging
    from tqdm import tqdm

    from polyamp import corpus, predict
    from polyamp.data import places
    from polyamp.errors import PolyampError
    from polyamp.overrides import parse_overrides

    if _MODEL_TYPE.value not in corpus.MODEL_TYPES:
        raise PolyampError(f"--model_type={_MODEL_TYPE.value}: what finds notes is {', '.join(corpus.MODEL_TYPES)}.")
    overrides = parse_overrides(_HPARAMS.value)
    weights = corpus.Weights(_MODEL_TYPE.value, _MODEL_DIR.value, _LOAD_ID.value, _LOAD_FULL.value, overrides)
    try:
        from polyamp import beam_corpus
    except ImportError as error:
        raise PolyampError(
            'transcribing a corpus needs Apache Beam: pip install -e ".[beam]"; or use --mode=predict.'
        ) from error
    jobs = corpus.plan(_INPUT.value, _OUTPUT_DIR.value)
    places.make_folder(_OUTPUT_DIR.value)
    missing = corpus.unfinished(jobs)
    if len(missing) < len(jobs):
        corpus.check_origins(jobs, beam_corpus.described(weights, predict.load(*weights.where)))
    if any("multi_processing" in option for option in options):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # Of each worker, of which there are enough.
    size = _AT_A_TIME.value or max(1, len(missing))
    counters: Counter[str] = Counter()
    with tqdm(total=len(missing), unit="recording", disable=None) as progress:
        for first in range(0, len(missing), size):
            part = missing[first : first + size]
            counters.update(beam_corpus.transcribe(part, weights, options or ["--runner=DirectRunner"], _BATCH_SIZE.value))
            progress.update(len(part))
    counters["done before"] = len(jobs) - len(missing)
    for name, value in sorted(counters.items()):
        logging.info("counter %s: %d", name, value)
    place = places.join(_OUTPUT_DIR.value, "failed.jsonl")
    failed = corpus.collect_failures(jobs, place)
    for one in failed:
        logging.warning("%s", one["error"])
    if failed:
        others = "; all others are" if len(failed) < len(jobs) else ""
        raise PolyampError(f"{len(failed)} of {len(jobs)} recordings could not be transcribed, see {place}{others}.")


if __name__ == "__main__":
    startup.run(main, beam_options.parse_flags)
