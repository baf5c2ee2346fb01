"""Families: reports by hand, notes with families against mir_eval run on each family by itself."""

import mir_eval
import numpy as np
import pytest

from polyamp import constants, metrics
from polyamp.notes import Notes


def random_notes(seed, size=60):
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, 20, size)
    return Notes.of(onset, onset + rng.uniform(0.1, 1, size), rng.integers(50, 60, size), None, rng.choice([0, 33, 48], size))


def test_report_by_hand():
    confusion = metrics.confusion_matrix(np.array([0, 0, 0, 4]), np.array([0, 0, 4, 4]))
    report = metrics.family_report(confusion)
    assert report["families"]["bass"] == {
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }
    assert report["families"]["keyboard"]["f1"] == pytest.approx(2 / 3)
    assert report["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert report["weighted_f1"] == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)
    assert report["accuracy"] == 0.75


def test_hits_are_those_of_all_families_one_by_one():
    reference, noise = random_notes(0), random_notes(1)
    moved = Notes.of(reference.onset + 0.01, reference.offset, reference.pitch, None, np.roll(reference.program, 7))
    estimate = moved[::2]
    hits = 0
    for program in (0, 33, 48):
        one, other = reference[reference.program == program], estimate[estimate.program == program]
        pairs = [(np.stack([n.onset, n.offset], 1), 440 * 2 ** ((n.pitch - 69) / 12)) for n in (one, other)]
        hits += len(mir_eval.transcription.match_notes(*pairs[0], *pairs[1], offset_ratio=None))
    scores = metrics.family_note_metrics(reference, estimate)
    assert scores["family_onset_recall"] == pytest.approx(hits / len(reference))
    assert scores["family_onset_precision"] == pytest.approx(hits / len(estimate))
    assert 0 < scores["family_onset_f1"] < metrics.note_metrics(reference, estimate)["note_onset_f1"]
    longer = Notes.of(estimate.onset, estimate.onset + 3.0, estimate.pitch, None, estimate.program)
    assert metrics.family_note_metrics(reference, longer)["family_onset_f1"] == scores["family_onset_f1"]
    assert metrics.family_note_metrics(reference, longer)["family_offset_f1"] == 0.0 < scores["family_offset_f1"]
    assert metrics.family_note_metrics(reference, reference)["family_accuracy"] == 1.0
    assert metrics.family_note_metrics(reference, noise)["family_onset_f1"] < 0.3


def test_classes_are_groups_of_eight_programs():
    reference = Notes.of([0.0], [1.0], [60], None, [constants.FAMILY_PROGRAMS[0]])
    same_group = Notes.of([0.0], [1.0], [60], None, [39])  # Synth bass 2: both a bass and of the same eight.
    drum_like = Notes.of([0.0], [1.0], [60], None, [47])  # Timpani: a string in our table, and other eight.
    assert metrics.family_note_metrics(reference, same_group)["class_onset_f1"] == 1.0
    assert metrics.family_note_metrics(reference, drum_like)["class_onset_f1"] == 0.0


def test_frames_count_in_their_family_alone():
    """Ten frames of a piano, five of which are answered as a bass, beside five of a bass that are not answered."""
    frame = 0.032
    reference = Notes.of([0, 10 * frame], [10 * frame, 15 * frame], [60, 40], None, [0, 33])
    estimate = Notes.of([0, 5 * frame], [5 * frame, 10 * frame], [60, 60], None, [0, 33])
    scores = metrics.family_frame_metrics(reference, estimate)
    assert scores["family_frame_precision"] == pytest.approx(5 / 10)
    assert scores["family_frame_recall"] == pytest.approx(5 / 15)


def test_empty_sides_score_zero():
    scores = metrics.family_note_metrics(Notes.empty(), random_notes(2))
    assert set(scores.values()) == {0.0}
    assert metrics.family_frame_metrics(Notes.empty(), Notes.empty())["family_frame_f1"] == 0.0
