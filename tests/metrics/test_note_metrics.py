"""Note metrics by hand and against a matching written independently of mir_eval."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from polyamp import metrics
from polyamp.notes import Notes

REFERENCE = Notes.of([0.0, 1.0, 2.0, 3.0], [0.5, 2.0, 3.0, 3.1], [60, 62, 64, 65], [40, 60, 80, 100])


def test_perfect():
    assert set(metrics.note_metrics(REFERENCE, REFERENCE).values()) == {1.0}


def test_by_hand():
    estimate = Notes.of(
        [0.04, 1.0, 2.07, 3.0, 1.5],  # Near; exact; later than 50 but not than 100 ms; exact; a note too many.
        [0.5, 1.7, 3.0, 3.14, 1.6],  # In time; 30 % early; in time; 40 ms late on a short note.
        [60, 62, 64, 65, 50],
        [40, 60, 80, 100, 1],
    )
    found = metrics.note_metrics(REFERENCE, estimate)
    assert found["note_onset_precision"] == pytest.approx(3 / 5) and found["note_onset_recall"] == pytest.approx(3 / 4)
    assert found["note_onset_f1"] == pytest.approx(2 / 3)
    assert found["note_offset_f1"] == pytest.approx(4 / 9) and found["note_velocity_f1"] == pytest.approx(4 / 9)
    assert found["note_onset_100ms_f1"] == pytest.approx(8 / 9)


def test_velocities_count_after_a_linear_fit():
    softer = Notes.of(REFERENCE.onset, REFERENCE.offset, REFERENCE.pitch, REFERENCE.velocity // 2)
    assert metrics.note_metrics(REFERENCE, softer)["note_velocity_f1"] == 1
    wrong = Notes.of(REFERENCE.onset, REFERENCE.offset, REFERENCE.pitch, [40, 100, 20, 70])
    assert metrics.note_metrics(REFERENCE, wrong)["note_velocity_f1"] < 1


def test_onsets_against_another_matching():
    rng = np.random.default_rng(0)
    onset = rng.uniform(0, 3, 150)
    reference = Notes.of(onset, onset + 0.2, rng.integers(60, 64, 150))
    onset = rng.uniform(0, 3, 140)
    estimate = Notes.of(onset, onset + 0.2, rng.integers(60, 64, 140))
    near = np.abs(reference.onset[:, None] - estimate.onset) <= 0.05
    possible = near & (reference.pitch[:, None] == estimate.pitch)
    hits = possible[linear_sum_assignment(possible, maximize=True)].sum()
    found = metrics.note_metrics(reference, estimate)
    assert found["note_onset_precision"] == pytest.approx(hits / 140) and found["note_onset_recall"] == pytest.approx(
        hits / 150
    )


def test_nothing_scores_zero_and_notes_without_length_are_no_error():
    nothing = Notes.empty()
    for reference, estimate in ((nothing, nothing), (nothing, REFERENCE), (REFERENCE, nothing)):
        assert set(metrics.note_metrics(reference, estimate).values()) == {0.0}
    point = Notes.of([1.0], [1.0], [60])
    assert metrics.note_metrics(point, point)["note_offset_f1"] == 1


def test_aggregate_is_the_mean_over_pieces():
    assert metrics.aggregate([{"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}]) == {"a": 0.75, "b": 0.25}
    assert metrics.aggregate([]) == {}
    with pytest.raises(ValueError, match="different metrics"):
        metrics.aggregate([{"a": 1.0}, {"b": 1.0}])
