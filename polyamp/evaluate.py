"""Runs a model over examples and scores it: one row of metrics per example, their mean, and on request what it heard."""

import csv
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from polyamp import atomic, constants, metrics, notes, plots
from polyamp.assess import Assess, Assessment, assessor, can_score
from polyamp.errors import DataError
from polyamp.hparams import MelodicHParams

if TYPE_CHECKING:
    from polyamp.checkpoint import Loaded
    from polyamp.data.records import Example

# What the printed table shows of each example; the files hold everything.
TABLE_COLUMNS = (
    *("frame_f1", "onset_f1", "offset_f1", "note_onset_f1", "note_offset_f1", "note_velocity_f1"),
    *("family_onset_f1", "family_accuracy", "family_macro_f1"),
)
_ID_WIDTH = 48  # Characters of an id in the table.


def evaluate(
    loaded_model: "Loaded",
    hparams: MelodicHParams,
    examples: Iterable["Example"],
    output_dir: str | Path,
    eval_name: str,
    num_steps: int | None = None,
    save_path: str | Path | None = None,
    assess: Assess | None = None,
    suffix: str = "",
) -> dict[str, Any]:
    """Scores a model and writes `<eval_name>-<step><suffix>.json` and `.csv`.

    Args:
        loaded_model: Model and the step that it was saved at.
        hparams: Resolved settings; decoding thresholds may differ from those saved with the model.
        examples: Examples with reference notes; read once, one at a time. For a model that says something of given notes, those
            without any are left out.
        output_dir: Folder of the two files, made if need be.
        eval_name: Name of this evaluation.
        num_steps: How many examples at most; None is all.
        save_path: Folder for each example's predicted MIDI and piano-roll picture; None is no such files.
        assess: How one example is scored; as the settings' model type is where absent.
        suffix: Ends the files' names.

    Returns:
        "eval_name", "step", "num_examples", "mean" (metric -> float), "examples" (a list of dicts, "id" and metrics), "table"
        (text to print), "json" and "csv" (paths). For models that answer families also "families"
        (see `metrics.family_report`), over the notes of all examples together, with "confusion", and a picture of it beside the
        files.

    Raises:
        DataError: There are no examples.
        PolyampError: A file cannot be written.
    """
    assess = assess or assessor(hparams)
    output_dir = atomic.make_folder(output_dir, "--output_dir")
    pictures = atomic.make_folder(save_path, "--save_path") if save_path else None
    assessed = functools.partial(assess, loaded_model.model, hparams)
    rows, confusion = _score(assessed, itertools.islice(examples, num_steps), pictures, hparams)
    mean = metrics.aggregate([row for _, row in rows])
    base = f"{_file_name(eval_name, set())}-{loaded_model.step}{_file_name(suffix, set()) if suffix else ''}"
    result = {
        "eval_name": eval_name,
        "step": loaded_model.step,
        "num_examples": len(rows),
        "mean": mean,
        "examples": [{"id": name, **row} for name, row in rows],
    }
    text = table(rows, mean)
    if confusion.any():
        report = metrics.family_report(confusion)
        result["families"] = report | {"names": list(constants.FAMILIES), "confusion": confusion.tolist()}
        text += "\n\n" + family_table(report)
        plots.save_confusion(confusion, output_dir / f"{base}-confusion.png", f"{eval_name}: families of notes")
    json_path, csv_path = output_dir / f"{base}.json", output_dir / f"{base}.csv"
    atomic.write_text(json_path, json.dumps(result, indent=2) + "\n")
    atomic.write_text(csv_path, _csv(rows, mean))
    return result | {"table": text, "json": str(json_path), "csv": str(csv_path)}


def _score(
    assess: Callable[["Example"], Assessment], examples: Iterable["Example"], pictures: Path | None, hparams: MelodicHParams
) -> tuple[list[tuple[str, dict[str, float]]], np.ndarray]:
    """The id and metrics of each example, and which family was taken for which, `[12, 12]`, over all notes.

    Examples that models of these settings cannot be scored on are left out.
    """
    rows: list[tuple[str, dict[str, float]]] = []
    names: set[str] = set()
    confusion = np.zeros((constants.NUM_FAMILIES, constants.NUM_FAMILIES), np.int64)
    for example in examples:
        if not example.is_labelled:
            raise DataError(f"{example.id}: a recording without notes; there is nothing to compare with.")
        if not can_score(hparams, example):
            logging.warning("%s: has no notes whose families could be told; left out.", example.id)
            continue
        assessment = assess(example)
        if assessment.families is not None:
            confusion += metrics.confusion_matrix(*assessment.families)
        rows.append((example.id, assessment.metrics))
        logging.info("Evaluated %d: %s.", len(rows), example.id)
        if pictures:
            _save(assessment, example.id, pictures / _file_name(example.id, names))
    if not rows:
        raise DataError("there are no examples to evaluate.")
    return rows, confusion


def table(rows: Sequence[tuple[str, dict[str, float]]], mean: dict[str, float]) -> str:
    """Aligned text: the chosen columns for each example and the mean, then every metric's mean as precision, recall and F1."""
    columns = [name for name in TABLE_COLUMNS if name in mean]
    lines = [" ".join(["example".ljust(_ID_WIDTH), *columns])]
    for name, row in [*rows, (f"MEAN of {len(rows)}", mean)]:
        cells = (f"{row[column]:.4f}".rjust(len(column)) for column in columns)
        lines.append(" ".join([name[-_ID_WIDTH:].ljust(_ID_WIDTH), *cells]))
    kinds = [name.removesuffix("_precision") for name in mean if name.endswith("_precision")]
    if kinds:
        lines += ["", " ".join(["mean".ljust(_ID_WIDTH), "precision", "   recall", "       f1"])]
    for kind in kinds:
        cells = (f"{mean[f'{kind}_{measure}']:.4f}".rjust(9) for measure in ("precision", "recall", "f1"))
        lines.append(" ".join([kind.ljust(_ID_WIDTH), *cells]))
    return "\n".join(lines)


def family_table(report: dict[str, Any]) -> str:
    """Aligned text: precision, recall, F1 and support of every family that has notes, and the means."""
    lines = [" ".join(["family".ljust(_ID_WIDTH), "precision", "   recall", "       f1", "  support"])]
    for name, row in report["families"].items():
        if row["support"]:
            cells = (f"{row[measure]:.4f}".rjust(9) for measure in ("precision", "recall", "f1"))
            lines.append(" ".join([name.ljust(_ID_WIDTH), *cells, str(row["support"]).rjust(9)]))
    for name in ("macro_f1", "weighted_f1", "accuracy"):
        lines.append(f"{name.ljust(_ID_WIDTH)} {report[name]:9.4f}")
    return "\n".join(lines)


def _csv(rows: Sequence[tuple[str, dict[str, float]]], mean: dict[str, float]) -> str:
    """One line per example and a last line "MEAN"."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *mean])
    for name, row in [*rows, ("MEAN", mean)]:
        writer.writerow([name, *(f"{row[column]:.6f}" for column in mean)])
    return text.getvalue()


def _file_name(text: str, used: set[str]) -> str:
    """`text` as a file name that is not in `used`, and now is: segments of a recording may share an id."""
    name = base = re.sub(r"[^\w.+-]+", "_", text).strip(".")[-120:] or "example"
    for number in itertools.count(2):
        if name not in used:
            break
        name = f"{base}-{number}"
    used.add(name)
    return name


def _save(assessment: Assessment, title: str, base: Path) -> None:
    """Writes the predicted notes as MIDI and both rolls as a picture."""
    notes.write_midi(assessment.estimate, f"{base}.mid", constants.DEFAULT_QPM)
    plots.save_piano_rolls(assessment.reference, assessment.estimate, f"{base}.png", title)
