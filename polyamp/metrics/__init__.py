"""Measures of transcriptions: pure functions from (reference, estimate) to a dict of floats, and their mean over pieces."""

from collections.abc import Sequence

import numpy as np

from polyamp.metrics.family import confusion_matrix, families_of, family_note_metrics, family_report, matched_families
from polyamp.metrics.frame import family_frame_metrics, note_frame_metrics, roll_metrics
from polyamp.metrics.note import note_metrics

__all__ = [
    "aggregate",
    "confusion_matrix",
    "families_of",
    "family_frame_metrics",
    "family_note_metrics",
    "family_report",
    "matched_families",
    "note_frame_metrics",
    "note_metrics",
    "roll_metrics",
]


def aggregate(pieces: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of every metric over the pieces, each piece counting the same; empty for no pieces.

    Raises:
        ValueError: The pieces do not have the same metrics.
    """
    if not pieces:
        return {}
    names = pieces[0].keys()
    if any(piece.keys() != names for piece in pieces):
        raise ValueError("pieces with different metrics cannot be averaged.")
    return {name: float(np.mean([piece[name] for piece in pieces])) for name in names}
