"""Precision, recall and F1 over notes, as mir_eval defines them."""

import mir_eval
import numpy as np

from polyamp.notes import Notes

ONSET_TOLERANCE = 0.05  # Seconds.
LOOSE_ONSET_TOLERANCE = 0.1
OFFSET_RATIO, OFFSET_TOLERANCE = 0.2, 0.05  # Of the reference note's length, but at least so many seconds.
VELOCITY_TOLERANCE = 0.1  # After velocities are fitted to the reference's range.
_SHORTEST = 1e-3  # Seconds; mir_eval takes no notes without length.


def note_metrics(reference: Notes, estimate: Notes) -> dict[str, float]:
    """Scores matched notes; a match has the same pitch and an onset within 50 ms.

    Args:
        reference: Reference notes; programs are ignored.
        estimate: Estimated notes.

    Returns:
        `<kind>_precision`, `<kind>_recall`, `<kind>_f1` in [0, 1] for the kinds "note_onset", "note_offset" (also an offset
        within the larger of 50 ms and 20 % of the note), "note_velocity" (also a velocity within 0.1) and "note_onset_100ms".
        As in mir_eval all are 0 where either side has no notes.
    """
    reference_pair, estimate_pair = intervals_and_pitches(reference), intervals_and_pitches(estimate)

    def score(onset_tolerance: float, offset_ratio: float | None) -> tuple[float, float, float]:
        return mir_eval.transcription.precision_recall_f1_overlap(
            *reference_pair, *estimate_pair, onset_tolerance=onset_tolerance, offset_ratio=offset_ratio
        )[:3]

    kinds = dict.fromkeys(("note_onset", "note_offset", "note_velocity", "note_onset_100ms"), (0.0, 0.0, 0.0))
    if len(reference) and len(estimate):
        kinds["note_onset"] = score(ONSET_TOLERANCE, None)
        kinds["note_offset"] = score(ONSET_TOLERANCE, OFFSET_RATIO)
        kinds["note_velocity"] = mir_eval.transcription_velocity.precision_recall_f1_overlap(
            *reference_pair,
            reference.velocity,
            *estimate_pair,
            estimate.velocity,
            onset_tolerance=ONSET_TOLERANCE,
            offset_ratio=OFFSET_RATIO,
            velocity_tolerance=VELOCITY_TOLERANCE,
        )[:3]
        kinds["note_onset_100ms"] = score(LOOSE_ONSET_TOLERANCE, None)
    measures = ("precision", "recall", "f1")
    return {
        f"{kind}_{measure}": float(value)
        for kind, values in kinds.items()
        for measure, value in zip(measures, values, strict=True)
    }


def intervals_and_pitches(notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    """Intervals in seconds `[notes, 2]` and pitches in Hz `[notes]`, as mir_eval wants them."""
    intervals = np.stack([notes.onset, np.maximum(notes.offset, notes.onset + _SHORTEST)], axis=1)
    return intervals, mir_eval.util.midi_to_hz(notes.pitch.astype(np.float64))
