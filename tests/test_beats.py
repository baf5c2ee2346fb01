"""Beats found in notes, beside those that the notes were made from (mir_eval as the judge)."""

import mir_eval
import numpy as np
import pytest

from polyamp.notes import Notes, beats


def played(times, seed=0, jitter=0.01, missing=0.2):
    """A piece on beats at these times: a bass note and a chord on them in turn, and quavers between them, some missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, (begin, end) in enumerate(zip(times[:-1], times[1:], strict=True)):
        chord = [36 + rng.integers(12)] if number % 2 == 0 else (60 + rng.choice(12, 3, replace=False)).tolist()
        rows += [(begin, end - begin, pitch, 80) for pitch in chord]
        rows += [(begin + share * (end - begin), 0.5 * (end - begin), 72 + rng.integers(12), 60) for share in (0.0, 0.5)]
    found = np.array([row for row in rows if rng.random() >= missing])
    onset = np.maximum(found[:, 0] + rng.normal(0.0, jitter, len(found)), 0.0)
    return Notes.of(onset, onset + found[:, 1], found[:, 2], found[:, 3])


@pytest.mark.parametrize("tempo", [66, 84, 103.7, 120])
def test_a_steady_beat_is_found(tempo):
    true = 0.4 + np.arange(60) * 60 / tempo
    found = beats.track(played(true))
    assert mir_eval.beat.f_measure(true, found) > 0.95
    nearest = np.abs(found[found < true[-1]][:, None] - true).min(axis=1)
    assert np.median(nearest) < 0.008  # Between the instants at which beats are looked for.


def test_the_tempo_may_change():
    tempo = np.interp(np.arange(100), [0, 40, 60, 99], [84, 126, 126, 96])  # Faster and slower again, within a minute.
    true = 1.0 + np.concatenate([[0.0], np.cumsum(60 / tempo)])
    assert mir_eval.beat.f_measure(true, beats.track(played(true))) > 0.95


def test_a_pause_is_filled_with_beats():
    true = 0.5 + np.arange(80) * 0.5
    music = played(true, missing=0.0)
    found = beats.track(music[(music.onset < 15.0) | (music.onset > 19.2)])
    assert mir_eval.beat.f_measure(true, found) > 0.95
    assert np.diff(found).max() < 0.7


def test_the_order_of_notes_does_not_matter():
    music = played(0.4 + np.arange(40) * 0.55)
    shuffled = np.random.default_rng(3).permutation(len(music))
    np.testing.assert_allclose(beats.track(music[shuffled]), beats.track(music), atol=1e-9)


@pytest.mark.parametrize("onsets", [[], [1.0], [1.0, 1.0], [3.0, 3.01]])
def test_too_little_has_no_beat(onsets):
    assert len(beats.track(Notes.of(onsets, np.add(onsets, 0.5), np.full(len(onsets), 60)))) == 0


@pytest.mark.parametrize(
    ("onsets", "number"), [([0.0, 0.05], 1), ([0.0, 0.5, 1.0], 3), ([2.0, 300.0], 300), ([0.0, 7.0, 7.1], 8)]
)
@pytest.mark.parametrize("velocity", [0, 100])
def test_beats_of_few_notes_ascend_and_lie_within_them(onsets, number, velocity):
    count = len(onsets)
    found = beats.track(Notes.of(onsets, np.add(onsets, 0.5), np.full(count, 60), np.full(count, velocity)))
    assert len(found) >= number
    assert np.all(np.diff(found) > 0.2) and found[0] >= onsets[0] - 0.1 and found[-1] <= onsets[-1] + 0.1


@pytest.mark.parametrize(("pitch", "length", "velocity"), [(40, 0.2, 70), (70, 0.45, 70), (70, 0.2, 110)])
def test_low_long_and_loud_notes_are_on_the_beat(pitch, length, velocity):
    """Of quavers all alike but that every other is lower, longer or louder."""
    onset = 0.3 + np.arange(80) * 0.28
    off_beat = np.arange(80) % 2 == 0
    notes = Notes.of(
        onset,
        onset + np.where(off_beat, 0.2, length),
        np.where(off_beat, 70, pitch),
        np.where(off_beat, 70, velocity),
    )
    assert mir_eval.beat.f_measure(onset[1::2], beats.track(notes)) > 0.95


def test_of_tempos_with_as_much_evidence_the_usual_one_is_taken():
    for beat in (0.22, 0.26, 0.5):
        onset = 1.0 + np.arange(100) * beat
        found = beats.track(Notes.of(onset, onset + 0.2, np.full(100, 60)))
        assert 0.35 < np.median(np.diff(found)) < 0.8


@pytest.mark.parametrize("before", [0.013, 90.0, 1000.0])
def test_silence_before_the_music_does_not_matter(before):
    music = played(0.2 + np.arange(60) * 0.375)
    later = Notes.of(music.onset + before, music.offset + before, music.pitch, music.velocity)
    np.testing.assert_allclose(beats.track(later), beats.track(music) + before, atol=1e-6)
