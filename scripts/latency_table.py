#!/usr/bin/env python3
"""Trains or loads variants of the Autoregressive model and prints latency and accuracy in the form of the published table.

    python scripts/latency_table.py --variants=3-3-3:0:2048:512,1-3-3:1:2048:512 --model_dir=runs --num_steps=45000 \
        --examples_path='maestro/train.tfrecord-*' --test_examples_path='maestro/test.tfrecord-*'

A variant is KERNELS:SHIFT:WINDOW:HOP, or the id of a model in --model_dir; "published" stands for the table's 23. One that has
not reached --num_steps is trained, or trained further: an interrupted table goes on where it stopped. Without --examples_path
nothing is trained. Writes a CSV file with the published columns and one more, which model it was.
"""

import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

_VARIANTS = flags.DEFINE_list("variants", ["published"], "Variants, comma-separated.")
_MODEL_DIR = flags.DEFINE_string("model_dir", "runs", "Folder of all models.")
_EXAMPLES_PATH = flags.DEFINE_string("examples_path", None, "TFRecords to train on; nothing is trained without.")
_TEST_PATH = flags.DEFINE_string("test_examples_path", None, "TFRecords to evaluate on.", required=True)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 45_000, "Training steps of each.", lower_bound=1)
_CHECKPOINT_INTERVAL = flags.DEFINE_integer("checkpoint_interval", 1_000, "Steps between checkpoints.", lower_bound=1)
_CONFIG = flags.DEFINE_string("config", "autoregressive", "Preset that the variants are changes of.")
_HPARAMS = flags.DEFINE_multi_string("hparams", [], "Hyperparameters of all variants, as JSON.")
_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "As for polyamp_runner.py.")
_QUANTISED = flags.DEFINE_bool("quantised", False, "Compare times rounded to frames, as the published table does.")
_OUTPUT = flags.DEFINE_string("output", None, "CSV file to write as well.")

_PUBLISHED = (
    *("3-3-3:0:2048:512", "1-3-3:0:2048:512", "3-1-3:0:2048:512", "3-3-1:0:2048:512", "1-1-3:0:2048:512", "1-3-1:0:2048:512"),
    *("3-1-1:0:2048:512", "1-1-1:0:2048:512", "3-3-3:1:2048:512", "3-3-3:2:2048:512", "3-3-3:3:2048:512", "1-3-3:1:2048:512"),
    *("3-1-3:1:2048:512", "3-3-1:1:2048:512", "3-3-3:0:1024:512", "3-3-3:1:1024:512", "3-3-3:2:1024:512", "3-3-3:3:1024:512"),
    *("3-3-1:1:1024:512", "3-3-3:0:1024:256", "3-3-3:1:1024:256", "3-3-3:2:1024:256", "3-3-3:3:1024:256"),
)
_KINDS = (("onset", "note_onset"), ("offset", "note_offset"), ("frame", "note_frame"))
_COLUMNS = (
    *("kernels", "shift", "window", "hop", "latency_ms"),
    *(f"{kind}_{letter}" for kind, _ in _KINDS for letter in "prf"),
    "model",
)
_OF_VARIANT = ("acoustic_kernels", "label_shift", "mel_window", "hop_length")


def main(argv: Sequence[str]) -> int:
    """Prints the table; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _table)


def _table() -> None:
    from polyamp import atomic, checkpoint, startup
    from polyamp.errors import PolyampError
    from polyamp.overrides import parse_overrides

    # Mistakes are told before anything is trained.
    variants = [one for name in _VARIANTS.value for one in (_PUBLISHED if name == "published" else [name])]
    if not variants:
        raise PolyampError("--variants= names none.")
    overrides = parse_overrides(_HPARAMS.value)
    settings = {variant: _settings(variant, overrides) for variant in variants}
    for variant in variants:
        if settings[variant] is None or not _EXAMPLES_PATH.value:
            checkpoint.find(_MODEL_DIR.value, "AUTOREGRESSIVE", _model_id(variant))
    if _OUTPUT.value:
        atomic.check_replaceable(_OUTPUT.value)
    startup.start_keras()
    from polyamp.data import records

    records.check_labelled(records.expand_paths(_TEST_PATH.value))
    rows: list[dict[str, Any]] = []
    for variant in variants:
        rows.append(_row(variant, settings[variant], _of_all(overrides) if settings[variant] else overrides))
        logging.info("%s", _markdown(rows).splitlines()[-1])
    print(_markdown(rows))
    if _OUTPUT.value:
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic.write_text(_OUTPUT.value, text.getvalue())


def _settings(variant: str, overrides: dict[str, Any]) -> Any:
    """The settings of a variant; None for the id of a model."""
    from polyamp import hparams
    from polyamp.errors import HParamsError

    if ":" not in variant:
        return None
    if not re.fullmatch(r"\d+(-\d+)+:-?\d+:\d+:\d+", variant):
        raise HParamsError(f"{variant!r} is no variant; write KERNELS:SHIFT:WINDOW:HOP, such as 3-3-3:0:2048:512.")
    kernels, shift, window, hop = variant.split(":")
    of_variant = {
        "acoustic_kernels": [int(size) for size in kernels.split("-")],
        "label_shift": int(shift),
        "mel_window": int(window),
        "hop_length": int(hop),
    }
    return hparams.resolve("AUTOREGRESSIVE", _CONFIG.value, _of_all(overrides) | of_variant)


def _of_all(overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides without those that a variant says itself."""
    from polyamp import hparams

    return {name: value for name, value in overrides.items() if hparams.ALIASES.get(name, name) not in _OF_VARIANT}


def _model_id(variant: str) -> str:
    """Under which a variant is trained; an id is that itself."""
    return variant.replace(":", "_")


def _row(variant: str, settings: Any, overrides: dict[str, Any]) -> dict[str, Any]:
    """Trains what is left to train of a variant and evaluates it."""
    from polyamp import checkpoint, evaluate, train
    from polyamp.data import records

    model_id = _model_id(variant)
    directory = checkpoint.folder(_MODEL_DIR.value, "AUTOREGRESSIVE", model_id)
    if settings is not None and _EXAMPLES_PATH.value and not checkpoint.step_path(directory, _NUM_STEPS.value).is_file():
        logging.info("Training %s: latency %.0f ms.", variant, settings.latency_ms)
        train.train(
            model_type="AUTOREGRESSIVE",
            hparams=settings,
            examples_path=_EXAMPLES_PATH.value,
            model_dir=_MODEL_DIR.value,
            model_id=model_id,
            load_id="",
            num_steps=_NUM_STEPS.value,
            checkpoint_interval=_CHECKPOINT_INTERVAL.value,
            cache_dir=_CACHE_DIR.value,
        )
    loaded: Any = checkpoint.load_model("AUTOREGRESSIVE", _MODEL_DIR.value, model_id, overrides=overrides)
    examples = records.read(records.expand_paths(_TEST_PATH.value), on_error="raise")
    found = loaded.hparams
    scores = evaluate.evaluate(loaded, found, examples, directory, f"table-{found.variant}", suffix=f"-{model_id}")["mean"]
    row: dict[str, Any] = {
        "shift": found.label_shift,
        "window": found.window_length,
        "hop": found.hop_length,
        "model": model_id,
    }
    row |= {"kernels": found.variant.partition("-shift")[0], "latency_ms": round(found.latency_ms, 1)}
    prefix = "quantised_" if _QUANTISED.value else ""
    for kind, name in _KINDS:
        name = "frame" if _QUANTISED.value and kind == "frame" else name
        for letter, measure in (("p", "precision"), ("r", "recall"), ("f", "f1")):
            row[f"{kind}_{letter}"] = f"{scores[f'{prefix}{name}_{measure}']:.4f}"
    return row


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(str(row[name]) for name in _COLUMNS) + " |" for row in rows)])


if __name__ == "__main__":
    startup.run(main)
