"""Clipping is told from loud music, and what was clipped comes back."""

import functools

import numpy as np
import pytest
import soxr

from polyamp.audio import clipping, level
from polyamp.audio.meters import fed

RATE = 16_000


@functools.cache  # It takes long.
def music(seconds=8.0, seed=0):
    """Chords whose partials decay, with peaks of 1."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(RATE * seconds)) / RATE
    samples = np.zeros(len(time))
    for onset in np.arange(0.0, seconds, 0.25):
        first = int(RATE * onset)
        rel = time[first:] - onset
        for pitch in rng.choice(np.arange(40, 84), 3, replace=False):
            envelope = np.exp(-rel * rng.uniform(1.0, 4.0)) * rng.uniform(0.2, 1.0)
            for partial in range(1, 9):
                frequency = 440 * 2 ** ((pitch - 69) / 12) * partial
                if frequency < 7000:
                    samples[first:] += envelope / partial * np.sin(2 * np.pi * frequency * rel + rng.uniform(0, 6))
    samples /= np.abs(samples).max()
    samples.flags.writeable = False
    return samples


def clipped(samples, share, rate=RATE):
    """So great a share of the samples cut off, at another sampling rate; and the level from which on they are."""
    there = soxr.resample(samples, RATE, rate)
    limit = np.quantile(np.abs(there), 1 - share)
    return soxr.resample(np.clip(there, -limit, limit), rate, RATE)[: len(samples)].astype(np.float32), limit


def limits_of(samples, blocks=1):
    return fed(clipping.Meter(), np.array_split(np.asarray(samples, np.float32), blocks)).limits


def repaired(samples, limits, blocks=1):
    pieces = np.array_split(np.asarray(samples, np.float32), blocks)
    return np.concatenate([np.zeros(0, np.float32), *clipping.repaired(lambda: pieces, limits)()])


def error_db(samples, truth):
    return 10 * np.log10(np.sum(np.square(samples - truth)) / np.sum(np.square(truth)))


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_the_limit_is_found_at_any_rate(share, rate):
    samples, limit = clipped(music(), share, rate)
    low, high = limits_of(samples)
    assert high == pytest.approx(limit, rel=0.1) and low == pytest.approx(-limit, rel=0.1)


@pytest.mark.parametrize("gain", [1e-3, 0.5, 20.0])
def test_the_limit_need_not_be_full_scale(gain):
    samples, limit = clipped(music(), 0.05)
    assert limits_of(gain * samples)[1] == pytest.approx(gain * limit, rel=0.1)


def test_halves_may_be_clipped_at_other_levels():
    samples = music()
    low, high = -np.quantile(-samples, 0.97), np.quantile(samples, 0.95)
    found = limits_of(np.clip(samples, low, high))
    assert found == (pytest.approx(low, rel=0.1), pytest.approx(high, rel=0.1))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_whole_is_not_taken_for_clipped(seed):
    rng = np.random.default_rng(seed)
    assert limits_of(music(seed=seed)) is None
    assert limits_of(rng.standard_normal(10 * RATE)) is None
    assert limits_of(np.zeros(10 * RATE)) is None and limits_of(np.full(10 * RATE, 0.3)) is None
    assert limits_of(np.clip(music(seed=seed), -1, 0.1)) is None  # One half alone: sounds have such shapes, recorders do not.


def test_what_is_short_may_have_any_shape():
    samples, _ = clipped(music(), 0.05)
    assert limits_of(samples[: 4 * RATE]) is None and limits_of(np.zeros(0)) is None


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_peaks_come_back(share, rate):
    truth = music()
    samples, _ = clipped(truth, share, rate)
    after = repaired(samples, limits_of(samples))
    assert after.dtype == np.float32 and len(after) == len(truth)
    assert error_db(after, truth) < error_db(samples, truth) - 7


def test_what_is_not_clipped_stays_to_the_bit():
    samples, limit = clipped(music(), 0.05)
    after = repaired(samples, (-limit, limit))
    is_whole = np.abs(samples) < 0.9 * limit
    np.testing.assert_array_equal(after[is_whole], samples[is_whole])
    assert (np.abs(after) >= np.abs(samples)).all()  # Nothing comes out softer than it was recorded.


@pytest.mark.parametrize("length", [0, 1, 300, 1024, 80_001])
def test_blocks_do_not_matter(length):
    samples, limit = clipped(music(), 0.05)
    samples = samples[:length]
    whole = repaired(samples, (-limit, limit))
    assert len(whole) == length
    np.testing.assert_array_equal(repaired(samples, (-limit, limit), blocks=7), whole)
    assert limits_of(samples) == limits_of(samples, blocks=7)


def test_a_square_and_a_sine_are_what_they_are():
    time = np.arange(10 * RATE) / RATE
    sine, square = np.sin(2 * np.pi * 220.5 * time), np.where(np.floor(time * 441) % 2, 0.5, -0.5).astype(np.float32)
    np.testing.assert_array_equal(repaired(square, (-0.5, 0.5)), square)
    assert error_db(repaired(sine, limits_of(sine) or (-1.0, 1.0)), sine) < -40


@pytest.mark.parametrize("silence", [0.0, -0.0])
def test_silence_does_not_hide_what_was_clipped(silence):
    samples, _ = clipped(music(), 0.03)
    padded = np.concatenate([samples, np.full(1200 * RATE, silence, np.float32)])
    assert limits_of(padded) == limits_of(samples)


@pytest.mark.parametrize("frequency", [50.0, 440.0, 3000.0])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_pure_tones_come_back_bounded(frequency, share):
    time = np.arange(6 * RATE) / RATE
    samples, limit = clipped(np.sin(2 * np.pi * frequency * time), share)
    after = repaired(samples, (-limit, limit))
    assert np.isfinite(after).all() and np.abs(after).max() < 5


def test_silence_around_what_was_clipped_is_no_trouble():
    samples, limit = clipped(music(), 0.1)
    samples[RATE : 2 * RATE] = 0.0
    samples[3 * RATE : 3 * RATE + 5] = limit
    samples[3 * RATE + 5 : 4 * RATE] = 0.0
    assert np.isfinite(repaired(samples, (-limit, limit))).all()


def test_a_recording_is_measured_as_it_was_before():
    truth = music()
    samples, _ = clipped(truth, 0.1)
    measured = level.Measured(lambda: [samples])
    assert measured.level < level.measure([truth]) - 0.5
    assert measured.without_clipping().level == pytest.approx(level.measure([truth]), abs=0.4)
    whole = level.Measured(lambda: [truth.astype(np.float32)])
    assert whole.without_clipping() is whole
