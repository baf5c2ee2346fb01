"""Crackle of old records: what is taken out, and what stays."""

from pathlib import Path

import numpy as np
import pytest

from polyamp.audio import clicks, level, reading

RATE = 16_000
RECORDING = Path(__file__).parents[1] / "data" / "handel_air.ogg"


def music(seconds=8.0, seed=0):
    """Chords of decaying harmonic tones, struck within three milliseconds, over a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 2) / RATE
    envelope = np.exp(-4 * time) * np.minimum(1.0, time / 0.003)
    parts = []
    for _ in range(int(seconds * 2)):
        hertz = 440 * 2 ** ((rng.integers(40, 80, 3) - 69) / 12)
        parts.append(sum(np.sin(2 * np.pi * k * f * time) / k for f in hertz for k in range(1, 8)) * envelope)
    samples = 0.1 * np.concatenate(parts) + 0.0005 * rng.standard_normal(len(parts) * len(time))
    return samples.astype(np.float32)


def crackling(samples, per_second, loudness=5.0, seed=1):
    """The samples with so many clicks of up to a millisecond in each second; and where they are."""
    rng = np.random.default_rng(seed)
    noisy, where = samples.copy(), np.zeros(len(samples), bool)
    for start in rng.integers(200, len(samples) - 200, int(per_second * len(samples) / RATE)):
        length = rng.integers(1, 16)
        noisy[start : start + length] += loudness * samples.std() * rng.choice([-1, 1]) * rng.uniform(0.5, 2.0)
        where[start : start + length] = True
    return noisy, where


def repaired(samples, size=30_000):
    blocks = [samples[start : start + size] for start in range(0, len(samples), size)]
    return np.concatenate([samples[:0], *clicks.repaired(lambda: blocks)()])


def crackles(samples):
    meter = clicks.Meter()
    for start in range(0, len(samples), 10_000):
        meter.add(samples[start : start + 10_000])
    return meter.crackles


@pytest.mark.parametrize("loudness", [5.0, 20.0, 100.0])
def test_clicks_are_replaced_by_what_was_there(loudness):
    clean = music()
    noisy, where = crackling(clean, 25, loudness)
    assert len(repaired(noisy)) == len(clean)
    before, after = np.square(noisy - clean), np.square(repaired(noisy) - clean)
    assert after.sum() < 0.1 * before.sum()


def test_small_clicks_are_found_beside_large_ones():
    """Loudness normally distributed around the recording's: those that hide beside others are found once these are gone."""
    clean = reading.read(RECORDING)
    rng = np.random.default_rng(3)
    noisy = clean.copy()
    for start in rng.integers(200, len(clean) - 200, 20 * len(clean) // RATE):
        length = rng.integers(1, 13)
        loudness = 6 * 10 ** (rng.normal(0, 6) / 20) * clean.std()
        noisy[start : start + length] += loudness * rng.normal(size=length)
    assert np.square(noisy - clean).sum() > 0.8 * np.square(clean).sum()
    assert np.square(repaired(noisy) - clean).sum() < 0.0135 * np.square(clean).sum()  # Found in one go: 0.019.


def test_what_has_hundreds_a_second_sounds_like_that():
    noisy, _ = crackling(music(), 200)
    assert not crackles(noisy)
    np.testing.assert_array_equal(repaired(noisy), noisy)


def test_a_predictable_sound_is_restored_and_all_else_stays():
    time = np.arange(4 * RATE) / RATE
    clean = (0.2 * np.sin(2 * np.pi * 300 * time) + 0.1 * np.sin(2 * np.pi * 1234 * time)).astype(np.float32)
    noisy = clean.copy()
    noisy[20_000:20_012] = 0.9
    assert np.abs(repaired(noisy) - clean).max() < 1e-3
    changed = np.flatnonzero(repaired(noisy) != noisy)
    assert 19_980 < changed.min() and changed.max() < 20_050


@pytest.mark.parametrize("size", [1_000, 4096, 7_777, 10**6])
def test_borders_of_blocks_do_not_matter(size):
    noisy, _ = crackling(music(), 20)
    np.testing.assert_array_equal(repaired(noisy, size), repaired(noisy, 25_000))


@pytest.mark.parametrize("per_second", [6, 25])
def test_crackle_is_told_from_music(per_second):
    assert crackles(crackling(music(), per_second)[0])
    assert not crackles(music())
    recording = reading.read(RECORDING)
    assert not crackles(recording)
    assert np.mean(repaired(recording) != recording) < 0.005
    assert crackles(crackling(recording, per_second, 3.0)[0])


def test_a_click_now_and_then_is_no_crackle():
    assert not crackles(crackling(music(20.0), 0.5)[0])


@pytest.mark.parametrize("pitch_hz", [35, 50, 80, 110, 220])
def test_pulses_of_a_synthesizer_are_no_clicks(pitch_hz):
    pulses = np.zeros(6 * RATE, np.float32)
    pulses[:: RATE // pitch_hz] = 0.5
    pulses += 0.001 * np.random.default_rng(0).standard_normal(len(pulses)).astype(np.float32)
    assert not crackles(pulses)
    np.testing.assert_array_equal(repaired(pulses), pulses)


@pytest.mark.parametrize("length", [0, 1, 100, 257, 4095, 4096, 4097, 7_679, 7_680, 12_000, 81_000])
def test_any_length_comes_out_again(length):
    noisy = crackling(music(), 20)[0][:length]
    assert len(repaired(noisy)) == length
    assert not crackles(noisy)  # Too short to tell.


@pytest.mark.parametrize("samples", [np.zeros(6 * RATE, np.float32), np.full(6 * RATE, 0.3, np.float32)])
def test_silence_and_a_constant_stay(samples):
    assert not crackles(samples)
    np.testing.assert_array_equal(repaired(samples), samples)


def test_sounds_that_begin_suddenly_are_no_clicks():
    samples = 0.0005 * np.random.default_rng(0).standard_normal(8 * RATE)
    for start in range(3000, len(samples) - 3000, 3200):  # Five a second, of a vibraphone or so.
        time = np.arange(2500) / RATE
        samples[start : start + 2500] += 0.3 * np.exp(-30 * time) * np.cos(2 * np.pi * 880 * time)
    assert not crackles(samples.astype(np.float32))


@pytest.mark.parametrize("place", [0, 1, 4095])
def test_lonely_samples_in_digital_silence_are_no_trouble(place):
    samples = np.zeros(12 * 4096, np.float32)
    samples[place::4096] = 0.9
    crackles(samples)
    assert len(repaired(samples)) == len(samples) and np.isfinite(repaired(samples)).all()


def test_clicks_in_digital_silence_are_no_trouble():
    noisy, _ = crackling(np.concatenate([music(3.0), np.zeros(3 * RATE, np.float32), music(3.0, 1)]), 20)
    assert np.isfinite(repaired(noisy)).all()


def test_level_and_tuning_are_measured_without_the_crackle():
    clean = music()
    noisy, _ = crackling(clean, 25, 50.0)
    measured = level.Measured(lambda: [noisy])
    assert measured.level > level.measure([clean]) + 3
    assert measured.without_clicks().level == pytest.approx(level.measure([clean]), abs=0.5)
    untouched = level.Measured(lambda: [clean])
    assert untouched.without_clicks() is untouched
