"""Choosing who plays what: the piece's other notes, bands that are known, rare families, notes of several instruments."""

import numpy as np
import pytest

from polyamp import constants, hparams
from polyamp.notes import Notes, instruments

BASS, GUITAR, KEYBOARD = (constants.FAMILIES.index(name) for name in ("bass", "guitar", "keyboard"))


def settings(**changes):
    return hparams.resolve("FULL", None, changes)


def probabilities(*rows):
    result = np.full((len(rows), 12), 1e-3)
    for row, chances in zip(result, rows, strict=True):
        for family, chance in chances.items():
            row[family] = chance
    return result


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
    posterior = instruments.choose_families(own, settings(present_instruments=["guitar", "bass"]))
    assert (posterior.argmax(axis=1) == GUITAR).all()
    assert not np.delete(posterior, [GUITAR, BASS], axis=1).any()


def test_a_rare_family_is_merged_into_the_likeliest_present_one():
    own = probabilities(*[{KEYBOARD: 0.9}] * 20, *[{BASS: 0.9}] * 20, {GUITAR: 0.9, BASS: 0.09})
    kept = instruments.choose_families(own, settings(family_prior_strength=0.2)).argmax(axis=1)
    assert kept[-1] == GUITAR
    merged = instruments.choose_families(own, settings(family_prior_strength=0.2, family_min_share=0.05)).argmax(axis=1)
    np.testing.assert_array_equal(merged, [KEYBOARD] * 20 + [BASS] * 21)


def test_no_notes_are_no_error():
    assert instruments.choose_families(np.zeros((0, 12)), settings(family_min_share=0.1)).shape == (0, 12)
    assert len(instruments.with_programs(Notes.empty(), np.zeros((0, 12)), settings())) == 0


@pytest.mark.parametrize(("use_all", "count"), [(False, 1), (True, 2)])
def test_a_note_of_two_instruments_is_written_twice_if_asked_for(use_all, count):
    posteriors = probabilities({KEYBOARD: 0.55, BASS: 0.45})
    changes = {"use_all_instruments": use_all, "multiple_instruments_threshold": 0.4}
    found = instruments.with_programs(Notes.of([0.0], [1.0], [60]), posteriors, settings(**changes))
    assert sorted(found.program.tolist()) == sorted(
        [constants.FAMILY_PROGRAMS[KEYBOARD], constants.FAMILY_PROGRAMS[BASS]][:count]
    )
