"""Precision, recall and F1 over the cells of boolean rolls."""

import numpy as np

from polyamp import constants
from polyamp.notes import Notes
from polyamp.notes.instruments import families_of

FRAME_SECONDS = 0.032  # The grid on which notes are compared frame by frame, whatever the hop of a model.


def roll_metrics(reference: np.ndarray, estimate: np.ndarray, prefix: str = "frame") -> dict[str, float]:
    """Precision, recall and F1 of the true cells.

    Args:
        reference: bool `[time, pitch]`.
        estimate: bool `[time, pitch]`, the same shape.
        prefix: What the names of the results begin with.

    Returns:
        `<prefix>_precision`, `<prefix>_recall`, `<prefix>_f1` in [0, 1]. As in mir_eval all are 0 where they are undefined:
        precision without estimated cells, recall without reference cells, F1 where nothing agrees (two empty rolls included).

    Raises:
        ValueError: Shapes or types differ.
    """
    reference, estimate = np.asarray(reference), np.asarray(estimate)
    if reference.dtype != bool or estimate.dtype != bool:
        raise ValueError(f"rolls must be bool; got {reference.dtype} and {estimate.dtype}.")
    if reference.shape != estimate.shape:
        raise ValueError(f"rolls must have one shape; got {reference.shape} and {estimate.shape}.")
    hits = int(np.count_nonzero(reference & estimate))
    return _scores(hits, int(np.count_nonzero(reference)), int(np.count_nonzero(estimate)), prefix)


def note_frame_metrics(reference: Notes, estimate: Notes, prefix: str = "note_frame") -> dict[str, float]:
    """`roll_metrics` of the frames in which notes sound, both on a grid of 32 ms with times rounded to the nearest frame."""
    num_frames = _num_frames(reference, estimate)
    return roll_metrics(_sounding(reference, num_frames), _sounding(estimate, num_frames), prefix)


def family_frame_metrics(reference: Notes, estimate: Notes) -> dict[str, float]:
    """`roll_metrics` as "family_frame", of the frames in which notes of each family sound, all families together."""
    num_frames = _num_frames(reference, estimate)

    def rolls(notes: Notes) -> np.ndarray:
        of_families = [_sounding(notes[families_of(notes) == family], num_frames) for family in range(constants.NUM_FAMILIES)]
        return np.concatenate(of_families, axis=1)  # [time, family * pitch]

    return roll_metrics(rolls(reference), rolls(estimate), "family_frame")


def _num_frames(*of: Notes) -> int:
    """How many frames hold all notes."""
    last = max((float(notes.offset.max()) for notes in of if len(notes)), default=0.0)
    return int(last / FRAME_SECONDS) + 2


def _sounding(notes: Notes, num_frames: int) -> np.ndarray:
    """bool `[num_frames, 128]`; every note has at least one frame."""
    start = np.rint(notes.onset / FRAME_SECONDS).astype(np.int64)
    end = np.maximum(np.rint(notes.offset / FRAME_SECONDS).astype(np.int64), start + 1)
    changes = np.zeros((num_frames + 1, 128), np.int32)
    np.add.at(changes, (start, notes.pitch), 1)
    np.add.at(changes, (end, notes.pitch), -1)
    return np.cumsum(changes, axis=0, dtype=np.int32)[:num_frames] > 0


def _scores(hits: int, num_reference: int, num_estimate: int, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}_precision": hits / num_estimate if num_estimate else 0.0,
        f"{prefix}_recall": hits / num_reference if num_reference else 0.0,
        f"{prefix}_f1": 2 * hits / (num_reference + num_estimate) if hits else 0.0,
    }
