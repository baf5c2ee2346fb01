"""How loud the bands of recordings are beside each other, and recordings balanced as pianos usually are."""

from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from polyamp.audio import balance, level

RATE = 16_000
CENTERS = 50 * 2 ** (np.arange(23) / 3)  # Of thirds of an octave, Hz.


def noise(seconds=20.0, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def filtered(samples, decibels):
    """With bands that are louder by so many decibels, by a filter of its own."""
    spectrum = np.fft.rfft(samples)
    hertz = np.maximum(np.fft.rfftfreq(len(samples), 1 / RATE), 1.0)
    curve = np.interp(np.log(hertz), np.log(CENTERS), decibels)
    return np.fft.irfft(spectrum * 10 ** (curve / 20), len(samples)).astype(np.float32)


def in_blocks(samples, size):
    return [samples[first : first + size] for first in range(0, len(samples), size)]


def joined(blocks):
    return np.concatenate(list(blocks()))


def test_white_noise_is_as_loud_in_all_bands():
    np.testing.assert_allclose(balance.measure([noise(120.0)]), np.zeros(23), atol=0.6)


def test_bands_differ_as_the_power_spectral_density_does():
    coloured = filtered(noise(120.0), np.linspace(10, -30, 23))
    hertz, density = scipy.signal.welch(coloured, RATE, nperseg=8192)
    of_bands = [density[(hertz >= f / 2 ** (1 / 6)) & (hertz < f * 2 ** (1 / 6))].mean() for f in CENTERS]
    expected = 10 * np.log10(of_bands)
    found = balance.measure([coloured])
    np.testing.assert_allclose(found - found[10], expected - expected[10], atol=0.7)
    assert np.mean(found[(CENTERS > 200) & (CENTERS < 3000)]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("size", [1000, 2048, 12_345])
def test_borders_of_blocks_do_not_matter(size):
    samples = noise()
    whole = balance.measure([samples])
    np.testing.assert_allclose(balance.measure(in_blocks(samples, size)), whole, atol=1e-4)
    gains = balance.gains(whole, 1.0)
    expected = joined(balance.equalized(lambda: [samples], gains))
    np.testing.assert_allclose(joined(balance.equalized(lambda: in_blocks(samples, size), gains)), expected, atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(10 * RATE, np.float32), noise(4.9), np.zeros(0, np.float32)])
def test_nothing_is_known_of_silence_and_of_single_notes(samples):
    found = balance.measure([samples])
    assert found is None and not balance.gains(found, 1.0).any()

    def blocks():
        return [samples]

    assert balance.equalized(blocks, balance.gains(found, 1.0)) is blocks


def usual():
    with np.load(Path(balance.__file__).with_name("balance.npz")) as fitted:
        return fitted["usual"].astype(np.float64)


def test_gains_take_out_a_share_and_are_limited():
    """Of what a band differs by, half or more is colour; of what all differ by, nothing is known to be."""
    slope = np.linspace(-3.0, 3.0, 23)
    whole = balance.gains(usual() + slope, 1.0)
    np.testing.assert_allclose(balance.gains(usual() + slope, 0.5), 0.5 * whole, atol=1e-9)
    assert np.all(np.sign(whole[[0, 4, 18, 22]]) == -np.sign(slope[[0, 4, 18, 22]]))
    for band in range(4, 19):
        louder = np.where(np.arange(23) == band, 4.0, 0.0)
        assert -4.0 < balance.gains(usual() + louder, 1.0)[band] < -1.2
    np.testing.assert_allclose(balance.gains(usual(), 1.0), np.zeros(23), atol=1e-9)
    assert np.abs(balance.gains(usual() + 40 * np.sign(slope), 1.0)).max() == 12.0


def test_what_one_room_makes_louder_and_another_softer_comes_out_more_alike():
    samples = filtered(noise(60.0), usual())
    colour = 4 * np.sin(np.arange(23) / 3)
    rooms = [filtered(samples, sign * colour) for sign in (1, -1)]
    heard = [balance.equalized(lambda one=one: [one], balance.gains(balance.measure([one]), 1.0))() for one in rooms]
    before, after = (
        np.subtract(*(balance.measure(blocks) for blocks in both))[4:-4] for both in ([[one] for one in rooms], heard)
    )
    assert np.abs(before).max() > 6.0 and np.std(after) < 0.6 * np.std(before)


def test_samples_come_out_when_they_came_in():
    click = np.zeros(6 * RATE, np.float32)
    click[[0, 40_000, len(click) - 1]] = 1.0
    out = joined(balance.equalized(lambda: in_blocks(click, 700), balance.gains(np.linspace(5, -5, 23), 1.0)))
    assert len(out) == len(click)
    assert np.argmax(out[:1000]) == 0 and np.argmax(out[30_000:50_000]) == 10_000 and np.argmax(out[-1000:]) == 999


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_level_follows_without_another_look(offset):
    samples = filtered(noise(30.0), usual() + 10 * np.exp(-np.square((np.arange(23) - 7) / 3))) + np.float32(offset)
    asked = []

    def blocks():
        asked.append(1)
        return [samples]

    balanced = level.Measured(blocks).balanced(1.0)
    found = balanced.level
    assert len(asked) == 1 and found == pytest.approx(level.measure(balanced()), abs=0.5)
    assert abs(found - level.measure([samples])) > 1.0
    assert balanced.cents == level.Measured(blocks).cents


def test_a_share_of_nothing_leaves_recordings_as_they_are():
    measured = level.Measured(lambda: [noise(2.0)])
    assert measured.balanced(1.0) is measured
