"""Choosing who plays what: the piece's other notes, bands that are known, rare families, notes of several instruments."""

import numpy as np
import pytest

from polyamp import constants, hparams
from polyamp.notes import Notes, instruments, neighbours
from polyamp.notes.arrays import concatenate

BASS, GUITAR, KEYBOARD = (constants.FAMILIES.index(name) for name in ("bass", "guitar", "keyboard"))


def settings(**changes):
    return hparams.resolve("FULL", None, changes)


def probabilities(*rows):
    result = np.full((len(rows), 12), 1e-3)
    for row, chances in zip(result, rows, strict=True):
        for family, chance in chances.items():
            row[family] = chance
    return result


def anywhere(own: np.ndarray) -> Notes:
    """As many notes as there are rows."""
    onset = np.arange(len(own), dtype=float)
    return Notes.of(onset, onset + 0.5, [60] * len(own))


def test_strength_0_leaves_each_note_to_itself():
    own = probabilities({BASS: 0.6, GUITAR: 0.4}, {GUITAR: 0.9})
    np.testing.assert_allclose(instruments.piece_posteriors(own, 0), own / own.sum(axis=1, keepdims=True))


def test_a_doubtful_note_goes_with_the_rest_of_the_piece():
    own = probabilities(*[{KEYBOARD: 0.8, GUITAR: 0.1}] * 9, {KEYBOARD: 0.4, GUITAR: 0.5})
    chosen = instruments.piece_posteriors(own, 1.0).argmax(axis=1)
    assert (chosen == KEYBOARD).all()


def test_two_instruments_that_are_clearly_there_both_stay():
    own = probabilities(*[{KEYBOARD: 0.9}] * 8, *[{BASS: 0.9}] * 4)
    chosen = instruments.piece_posteriors(own, 1.0).argmax(axis=1)
    np.testing.assert_array_equal(chosen, [KEYBOARD] * 8 + [BASS] * 4)


def test_only_present_instruments_are_answered():
    own = probabilities(*[{KEYBOARD: 0.9, GUITAR: 0.05}] * 3)
    posterior = instruments.choose_families(own, anywhere(own), settings(present_instruments=["guitar", "bass"]))
    assert (posterior.argmax(axis=1) == GUITAR).all()
    assert not np.delete(posterior, [GUITAR, BASS], axis=1).any()
    for strength in (0.0, 1.0):
        chosen = settings(present_instruments=["vocal"], family_prior_strength=strength)
        np.testing.assert_allclose(instruments.choose_families(own, anywhere(own), chosen).sum(axis=1), 1.0)


def test_a_rare_family_is_merged_into_the_likeliest_present_one():
    own = probabilities(*[{KEYBOARD: 0.9}] * 20, *[{BASS: 0.9}] * 20, {GUITAR: 0.9, BASS: 0.09})
    of = anywhere(own)
    kept = instruments.choose_families(own, of, settings(family_prior_strength=0.2)).argmax(axis=1)
    assert kept[-1] == GUITAR
    merged = instruments.choose_families(own, of, settings(family_prior_strength=0.2, family_min_share=0.05)).argmax(axis=1)
    np.testing.assert_array_equal(merged, [KEYBOARD] * 20 + [BASS] * 21)


def test_no_notes_are_no_error():
    assert instruments.choose_families(np.zeros((0, 12)), Notes.empty(), settings(family_min_share=0.1)).shape == (0, 12)
    assert len(instruments.with_programs(Notes.empty(), np.zeros((0, 12)), settings())) == 0


@pytest.mark.parametrize(("use_all", "count"), [(False, 1), (True, 2)])
def test_a_note_of_two_instruments_is_written_twice_if_asked_for(use_all, count):
    posteriors = probabilities({KEYBOARD: 0.55, BASS: 0.45})
    changes = {"use_all_instruments": use_all, "multiple_instruments_threshold": 0.4}
    found = instruments.with_programs(Notes.of([0.0], [1.0], [60]), posteriors, settings(**changes))
    assert sorted(found.program.tolist()) == sorted(
        [constants.FAMILY_PROGRAMS[KEYBOARD], constants.FAMILY_PROGRAMS[BASS]][:count]
    )


class TestAgreed:
    """What neighbours in time, pitch and sound do to a note."""

    def line(self, count=9, pitch=60, start=0.0):
        onset = start + 0.5 * np.arange(count)
        return Notes.of(onset, onset + 0.4, [pitch] * count)

    def test_a_doubtful_note_goes_with_the_notes_around_it(self):
        sure = [{KEYBOARD: 0.8, GUITAR: 0.2}] * 4
        own = probabilities(*sure, {KEYBOARD: 0.4, GUITAR: 0.6}, *sure)
        assert instruments.agreed(own, self.line(), 0.0).argmax(axis=1)[4] == GUITAR
        smooth = instruments.agreed(own, self.line(), 0.8)
        assert (smooth.argmax(axis=1) == KEYBOARD).all()
        np.testing.assert_allclose(smooth.sum(axis=1), 1.0)

    @pytest.mark.parametrize("moved", [{"pitch": 90}, {"start": 60.0}])
    def test_not_with_those_far_away(self, moved):
        of = concatenate([self.line(8), self.line(1, **moved)])
        is_far = (of.pitch == 90) | (of.onset >= 60)
        own = probabilities(*[{KEYBOARD: 0.4, GUITAR: 0.6} if far else {KEYBOARD: 0.8, GUITAR: 0.2} for far in is_far])
        np.testing.assert_array_equal(instruments.agreed(own, of, 0.8).argmax(axis=1), np.where(is_far, GUITAR, KEYBOARD))

    def test_two_instruments_that_alternate_stay_apart(self):
        own = probabilities(*[{KEYBOARD: 0.98}, {BASS: 0.98}] * 10)
        found = instruments.agreed(own, self.line(20), 0.8).argmax(axis=1)
        np.testing.assert_array_equal(found, [KEYBOARD, BASS] * 10)

    def test_is_the_mean_of_logarithms_by_hand(self):
        own = np.full((2, 12), 0.1 / 11)
        own[0, BASS] = own[1, GUITAR] = 0.9
        of = Notes.of([0.0, 2.0], [1.0, 3.0], [60, 64])
        distance = 2 * (np.sqrt(0.9) - np.sqrt(0.1 / 11)) ** 2
        weight = np.exp(-0.5) * np.exp(-0.5) * np.exp(-distance / 0.5)
        expected = np.log(own[0]) * 0.3 + 0.7 * (np.log(own[0]) + weight * np.log(own[1])) / (1 + weight)
        expected = np.exp(expected) / np.exp(expected).sum()
        np.testing.assert_allclose(instruments.agreed(own, of, 0.7)[0], expected, rtol=1e-9)

    def test_a_note_that_was_not_heard_takes_its_neighbours_family_and_gives_none(self):
        own = probabilities(*[{KEYBOARD: 0.9}] * 9)
        own[4] = 0
        smooth = instruments.agreed(own, self.line(), 0.8)
        assert smooth.argmax(axis=1)[4] == KEYBOARD
        alone = instruments.agreed(np.delete(own, 4, axis=0), self.line()[np.arange(9) != 4], 0.8)
        np.testing.assert_allclose(np.delete(smooth, 4, axis=0), alone)

    def test_order_and_size_do_not_matter(self, monkeypatch):
        rng = np.random.default_rng(0)
        onset = rng.uniform(0, 100, 700)
        of = Notes.of(onset, onset + 0.3, rng.integers(40, 80, 700))
        own = rng.dirichlet(np.full(12, 0.3), 700)
        smooth = instruments.agreed(own, of, 0.6)
        order = rng.permutation(700)
        np.testing.assert_allclose(instruments.agreed(own[order], of[order], 0.6), smooth[order], atol=1e-12)
        monkeypatch.setattr(neighbours, "_ROWS", 7)
        np.testing.assert_allclose(instruments.agreed(own, of, 0.6), smooth, atol=1e-12)
