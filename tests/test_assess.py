"""Scores over several examples."""

import numpy as np
import pytest

from polyamp import assess
from polyamp.hparams import MelodicHParams, TimbreHParams
from polyamp.notes import Notes


def single_note(true: int, told: int) -> assess.Assessment:
    """A note of one family that is told to be of one: right or wrong, whatever the metric."""
    scores = dict.fromkeys(("family_accuracy", "family_macro_f1", "family_weighted_f1"), float(true == told))
    return assess.Assessment(scores, Notes.empty(), Notes.empty(), (np.array([true]), np.array([told])))


def test_of_single_notes_a_rare_family_counts_as_much_as_a_frequent_one():
    notes = [single_note(0, 0)] * 8 + [single_note(1, 0)] * 2
    scores = assess.overall(TimbreHParams(), notes)
    assert scores["family_accuracy"] == pytest.approx(0.8)
    assert scores["family_macro_f1"] == pytest.approx((2 * 8 / (8 + 10) + 0) / 2)  # The second is never found.


def test_other_models_have_the_mean_over_examples():
    examples = [assess.Assessment({"note_onset_f1": f1}, Notes.empty(), Notes.empty()) for f1 in (0.5, 1.0)]
    assert assess.overall(MelodicHParams(), examples) == {"note_onset_f1": 0.75}
