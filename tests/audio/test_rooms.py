"""Random rooms: labels stay where they are, reflections and tails come after the direct sound, as much as said."""

import numpy as np
import pytest

from polyamp import constants
from polyamp.audio import rooms

RATE = constants.SAMPLE_RATE


def tone(seconds=1.0, frequency=440.0):
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_the_direct_sound_comes_first_and_the_rest_decays():
    ratios, decays = [], []
    for seed in range(60):
        response = rooms.impulse_response(np.random.default_rng(seed))
        assert response[0] == 1.0
        assert not np.abs(response[1:20]).any()  # No reflection within the first millisecond.
        rest = np.square(response[1:])
        ratios.append(-10 * np.log10(rest.sum()))
        left = 10 * np.log10(np.cumsum(rest[::-1])[::-1] / rest.sum() + 1e-12)  # Schroeder's integral.
        start, end = np.argmax(left < -15), np.argmax(left < -35)
        decays.append(3 * (end - start) / RATE)  # From 20 dB to 60.
    assert -4.01 <= min(ratios) < -2 and 12 < max(ratios) <= 14.01
    assert 0.1 < min(decays) < 0.3 and 0.7 < max(decays) < 1.5


def test_loudness_and_length_stay_and_nothing_clips():
    for seed in range(20):
        wet = rooms.record(tone(), np.random.default_rng(seed))
        assert wet.dtype == np.float32 and wet.shape == (RATE,) and np.abs(wet).max() <= 1.0
        assert np.mean(np.square(wet)) == pytest.approx(0.045, rel=0.05)
    loud = rooms.record(3 * tone(), np.random.default_rng(0))
    assert np.abs(loud).max() == pytest.approx(1.0, abs=1e-6)


def test_onsets_stay_where_they_are():
    audio = np.concatenate([np.zeros(RATE // 2, np.float32), tone()])
    for seed in range(20):
        wet = rooms.record(audio, np.random.default_rng(seed))
        level = np.sqrt(np.convolve(np.square(wet.astype(np.float64)), np.full(80, 1 / 80), "valid"))  # Of 5 ms from there on.
        noise = level[: RATE // 2 - 80].max()
        assert level[RATE // 2 + 160] > 2 * noise  # 10 ms after the onset the tone is there, before it only noise.


def test_the_same_choices_for_the_same_seed_and_silence_stays():
    audio = tone()
    first, again, other = (rooms.record(audio, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01 and np.array_equal(audio, tone())
    assert not rooms.record(np.zeros(100, np.float32), np.random.default_rng(0)).any()


def test_sustained_tones_are_coloured_differently():
    """Neighbouring partials come through a room at different levels, unlike through an equaliser."""
    audio = sum(tone(2.0, frequency) for frequency in np.arange(300, 700, 20)) / 20
    rng = np.random.default_rng(5)
    wet = rooms.record(audio.astype(np.float32), rng)
    levels = [np.abs(np.fft.rfft(signal[RATE:]))[np.arange(300, 700, 20)] for signal in (audio, wet)]
    steps = np.diff(20 * np.log10(levels[1] / levels[0]))
    assert np.abs(steps).max() > 3
