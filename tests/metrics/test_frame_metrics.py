"""Roll metrics against mir_eval's multipitch module and by hand."""

import mir_eval
import numpy as np
import pytest

from polyamp import metrics
from polyamp.notes import Notes


def test_equal_to_mir_eval_multipitch():
    rng = np.random.default_rng(0)
    reference, estimate = rng.random((300, 88)) < 0.05, rng.random((300, 88)) < 0.04
    estimate |= reference & (rng.random((300, 88)) < 0.6)
    times = np.arange(300) * 0.01
    hertz = 440.0 * 2 ** ((np.arange(21, 109) - 69) / 12)
    expected = mir_eval.multipitch.metrics(times, [hertz[row] for row in reference], times, [hertz[row] for row in estimate])
    found = metrics.roll_metrics(reference, estimate, "frame")
    assert found["frame_precision"] == pytest.approx(expected[0]) and found["frame_recall"] == pytest.approx(expected[1])
    assert found["frame_f1"] == pytest.approx(2 * expected[0] * expected[1] / (expected[0] + expected[1]))


def test_empty_rolls_score_zero():
    nothing, something = np.zeros((4, 88), bool), np.eye(4, 88, dtype=bool)
    for reference, estimate in ((nothing, nothing), (nothing, something), (something, nothing)):
        assert set(metrics.roll_metrics(reference, estimate).values()) == {0.0}
    assert set(metrics.roll_metrics(something, something).values()) == {1.0}


def test_prefix_names_the_metrics():
    assert list(metrics.roll_metrics(np.ones((1, 1), bool), np.ones((1, 1), bool), "onset")) == [
        "onset_precision",
        "onset_recall",
        "onset_f1",
    ]


@pytest.mark.parametrize("estimate", [np.zeros((3, 88), bool), np.zeros((4, 88), np.float32)])
def test_other_shapes_and_types_are_errors(estimate):
    with pytest.raises(ValueError, match="rolls must"):
        metrics.roll_metrics(np.zeros((4, 88), bool), estimate)


def painted(notes, frames):
    """The convention again, as a loop: nearest frame of 32 ms, at least one."""
    roll = np.zeros((frames, 128), bool)
    for onset, offset, pitch in zip(notes.onset, notes.offset, notes.pitch, strict=True):
        first = int(round(onset / 0.032))
        roll[first : max(int(round(offset / 0.032)), first + 1), pitch] = True
    return roll


def test_frames_of_notes_follow_the_convention():
    rng = np.random.default_rng(1)
    first, second = (
        Notes.of(onset, onset + rng.exponential(0.2, 60), rng.integers(60, 70, 60))
        for onset in (rng.uniform(0, 4, 60), rng.uniform(0, 4, 60))
    )
    found = metrics.note_frame_metrics(first, second)
    reference, estimate = painted(first, 400), painted(second, 400)
    hits = (reference & estimate).sum()
    assert found["note_frame_f1"] == pytest.approx(2 * hits / (reference.sum() + estimate.sum()))
    assert found["note_frame_precision"] == pytest.approx(hits / estimate.sum())
    assert found["note_frame_recall"] == pytest.approx(hits / reference.sum())
    assert metrics.note_frame_metrics(Notes.empty(), Notes.empty())["note_frame_f1"] == 0
    assert metrics.note_frame_metrics(first, first)["note_frame_f1"] == 1
