"""Measures of instrument families: which notes got the right one, and notes found together with their family."""

import dataclasses
from typing import Any

import mir_eval
import numpy as np

from polyamp import constants
from polyamp.metrics.note import OFFSET_RATIO, ONSET_TOLERANCE, intervals_and_pitches
from polyamp.notes import Notes
from polyamp.notes.instruments import families_of


def confusion_matrix(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """`[12, 12]`: how many notes of family (row) were called family (column)."""
    matrix = np.zeros((constants.NUM_FAMILIES, constants.NUM_FAMILIES), np.int64)
    np.add.at(matrix, (reference, estimate), 1)
    return matrix


def family_report(confusion: np.ndarray) -> dict[str, Any]:
    """Precision, recall, F1 and support of every family, their means, and the share that is right.

    Args:
        confusion: As `confusion_matrix`.

    Returns:
        "families": name -> {"precision", "recall", "f1", "support"}; "macro_f1": the mean F1 of the families that the reference
        has; "weighted_f1": weighted by their notes; "accuracy". Undefined ones are 0.
    """
    hits, support, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = hits / np.maximum(called, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + called, 1)
    present, total = support > 0, max(int(support.sum()), 1)
    families = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(constants.FAMILIES, precision, recall, f1, support, strict=True)
    }
    return {
        "families": families,
        "macro_f1": float(f1[present].mean()) if present.any() else 0.0,
        "weighted_f1": float((f1 * support).sum() / total),
        "accuracy": float(hits.sum() / total),
    }


def family_note_metrics(reference: Notes, estimate: Notes) -> dict[str, float]:
    """Scores notes that also must have the right instrument.

    Args:
        reference: Reference notes with programs.
        estimate: Estimated notes with programs.

    Returns:
        `<kind>_precision`, `<kind>_recall`, `<kind>_f1` for the kinds "family_onset" (onset within 50 ms, same pitch and
        family), "family_offset" (also the offset, as in `note_metrics`) and "class_onset" (the same group of eight General MIDI
        programs instead of the family: the classes of MT3, Gardner et al. 2022); and "family_accuracy", the share of right
        families among the notes that were found whatever plays them.
    """
    scores: dict[str, float] = {}
    kinds = {
        "family_onset": (families_of, None),
        "family_offset": (families_of, OFFSET_RATIO),
        "class_onset": (lambda notes: notes.program // 8, None),
    }
    for kind, (labels, offset_ratio) in kinds.items():
        pairs = (*_labelled(reference, labels), *_labelled(estimate, labels))
        values = (0.0, 0.0, 0.0)
        if len(reference) and len(estimate):
            values = mir_eval.transcription.precision_recall_f1_overlap(
                *pairs, onset_tolerance=ONSET_TOLERANCE, offset_ratio=offset_ratio
            )[:3]
        names = (f"{kind}_precision", f"{kind}_recall", f"{kind}_f1")
        scores |= {name: float(value) for name, value in zip(names, values, strict=True)}
    same = matched_families(reference, estimate)
    return scores | {"family_accuracy": float(np.mean(same[0] == same[1])) if len(same[0]) else 0.0}


def matched_families(reference: Notes, estimate: Notes) -> tuple[np.ndarray, np.ndarray]:
    """True and estimated families of the notes that were found, whatever plays them."""
    if not len(reference) or not len(estimate):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    pairs = mir_eval.transcription.match_notes(
        *intervals_and_pitches(reference),
        *intervals_and_pitches(estimate),
        onset_tolerance=ONSET_TOLERANCE,
        offset_ratio=None,
    )
    index = np.array(pairs, np.int64).reshape(-1, 2)
    return families_of(reference)[index[:, 0]], families_of(estimate)[index[:, 1]]


def _labelled(notes: Notes, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Intervals and pitches that only agree where pitch and label do: each label's keyboard begins 128 semitones higher."""
    return intervals_and_pitches(dataclasses.replace(notes, pitch=notes.pitch + 128 * labels(notes)))
