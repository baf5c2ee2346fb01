"""How loud the bands of recordings are beside each other, and recordings balanced as is usual."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from polyamp.audio import balance, level, meters

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
    found = gains(whole)
    expected = joined(balance.equalized(lambda: [samples], found))
    np.testing.assert_allclose(joined(balance.equalized(lambda: in_blocks(samples, size), found)), expected, atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(10 * RATE, np.float32), noise(4.9), np.zeros(0, np.float32)])
def test_nothing_is_known_of_silence_and_of_single_notes(samples):
    found = balance.measure([samples])
    assert found is None and not gains(found).any()

    def blocks():
        return [samples]

    assert balance.equalized(blocks, gains(found)) is blocks


def usual(kind="pianos"):
    with np.load(Path(balance.__file__).with_name(f"balance_{kind}.npz")) as fitted:
        return fitted["usual"].astype(np.float64)


def gains(decibels, share=1.0, seconds=60.0, kind="pianos"):
    return balance.gains(decibels, seconds, share, kind)


def test_gains_take_out_a_share_and_are_limited():
    """Of what a band differs by, half or more is colour; of what all differ by, nothing is known to be."""
    slope = np.linspace(-3.0, 3.0, 23)
    whole = gains(usual() + slope)
    np.testing.assert_allclose(gains(usual() + slope, 0.5), 0.5 * whole, atol=1e-9)
    assert np.all(np.sign(whole[[0, 4, 18, 22]]) == -np.sign(slope[[0, 4, 18, 22]]))
    for band in range(4, 19):
        louder = np.where(np.arange(23) == band, 4.0, 0.0)
        assert -4.0 < gains(usual() + louder)[band] < -1.2
    np.testing.assert_allclose(gains(usual()), np.zeros(23), atol=1e-9)
    assert np.abs(gains(usual() + 40 * np.sign(slope))).max() == 12.0


def test_the_shorter_a_recording_is_the_less_is_told_of_its_colour():
    slope = np.linspace(-6.0, 6.0, 23)
    sizes = [np.linalg.norm(gains(usual() + slope, seconds=seconds)) for seconds in (5.0, 15.0, 60.0, 3600.0)]
    assert np.all(np.diff(sizes) > 0) and sizes[0] < 0.8 * sizes[-1]


def test_bands_are_left_as_they_are_unless_they_are_coloured_strongly():
    """As a telephone does: next to nothing below 300 and above 3,400 Hz."""
    mild = gains(usual("bands") + np.linspace(-5.0, 5.0, 23), kind="bands")
    assert np.abs(mild).max() < 0.5
    telephone = -30.0 * np.abs(np.log2(np.maximum(np.maximum(300.0 / CENTERS, CENTERS / 3400.0), 1.0)))
    found = gains(usual("bands") + telephone, kind="bands")
    assert np.all(found[:6] == 12.0) and found[-1] > 3.0 and np.abs(found[10:16]).max() < 6.0


def test_what_one_room_makes_louder_and_another_softer_comes_out_more_alike():
    samples = filtered(noise(60.0), usual())
    colour = 4 * np.sin(np.arange(23) / 3)
    rooms = [filtered(samples, sign * colour) for sign in (1, -1)]
    heard = [balance.equalized(lambda one=one: [one], gains(balance.measure([one]), seconds=3600.0))() for one in rooms]
    before, after = (
        np.subtract(*(balance.measure(blocks) for blocks in both))[4:-4] for both in ([[one] for one in rooms], heard)
    )
    assert np.abs(before).max() > 6.0 and np.std(after) < 0.6 * np.std(before)


def test_samples_come_out_when_they_came_in():
    click = np.zeros(6 * RATE, np.float32)
    click[[0, 40_000, len(click) - 1]] = 1.0
    out = joined(balance.equalized(lambda: in_blocks(click, 700), np.linspace(5, -5, 23)))
    assert len(out) == len(click)
    assert np.argmax(out[:1000]) == 0 and np.argmax(out[30_000:50_000]) == 10_000 and np.argmax(out[-1000:]) == 999


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_level_follows_without_another_look(offset):
    samples = filtered(noise(30.0), usual() + 10 * np.exp(-np.square((np.arange(23) - 7) / 3))) + np.float32(offset)
    asked = []

    def blocks():
        asked.append(1)
        return [samples]

    balanced = level.Measured(blocks).balanced(1.0, "pianos")
    found = balanced.level
    assert len(asked) == 1 and found == pytest.approx(level.measure(balanced()), abs=0.5)
    assert abs(found - level.measure([samples])) > 1.0


def test_what_is_brought_into_tune_is_balanced_without_another_look():
    time = np.arange(30 * RATE) / RATE
    chords = [sum(np.sin(2 * np.pi * k * 452 * 2 ** (n / 12) * time) / k for k in range(1, 6)) for n in (-9, 0, 3, 7)]
    samples, asked = (0.1 * sum(chords)).astype(np.float32) + 0.01 * noise(30.0), []

    def blocks():
        asked.append(1)
        return [samples]

    measured = level.Measured(blocks)
    in_tune, factor = measured.in_tune()
    assert factor != 1.0
    balanced = in_tune.balanced(1.0, "pianos")
    assert np.isfinite(balanced.level) and len(asked) == 1
    expected = balance.equalized(in_tune, meters.fed(balance.Meter(), [samples]).gains(1.0, "pianos"))
    np.testing.assert_array_equal(joined(balanced), joined(expected))
    assert np.abs(joined(balanced) - joined(in_tune)).max() > 0.01


def test_a_share_of_nothing_leaves_recordings_as_they_are():
    measured = level.Measured(lambda: [noise(2.0)])
    assert measured.balanced(1.0, "pianos") is measured


def test_rests_tell_nothing():
    music, rest = filtered(noise(20.0), usual() + 6 * np.sin(np.arange(23) / 3)), 1e-4 * noise(60.0, seed=1)
    alone, between = (meters.fed(balance.Meter(), [samples]) for samples in (music, np.concatenate([rest, music, rest])))
    assert alone.seconds == pytest.approx(20.0, abs=0.2) and between.seconds == pytest.approx(20.0, abs=0.4)
    np.testing.assert_allclose(between.gains(1.0, "pianos"), alone.gains(1.0, "pianos"), atol=0.3)
    assert balance.measure([np.concatenate([noise(4.0), rest])]) is None


def test_knocks_tell_nothing():
    music = 0.05 * filtered(noise(30.0), usual() + 6 * np.sin(np.arange(23) / 3))
    thump = 0.9 * np.sin(2 * np.pi * 60 * np.arange(round(0.3 * RATE)) / RATE).astype(np.float32)
    alone, knocked = (
        meters.fed(balance.Meter(), [s]) for s in (music, np.concatenate([music[: 15 * RATE], thump, music[15 * RATE :]]))
    )
    assert knocked.seconds > 25.0
    np.testing.assert_allclose(knocked.gains(1.0, "pianos"), alone.gains(1.0, "pianos"), atol=0.5)


@pytest.mark.parametrize("samples", [3e-5 * noise(20.0) / 0.1, np.full(8 * RATE, 0.1), np.full(8 * RATE, 1e-20)])
def test_noise_of_a_silent_room_and_offsets_tell_nothing(samples):
    assert balance.measure([samples.astype(np.float32)]) is None


def followed(follower, samples, size=512):
    return np.concatenate([follower(piece) for piece in in_blocks(samples, size)])


def test_what_is_played_is_balanced_after_a_while():
    colour = 8 * np.sin(np.arange(23) / 3)
    samples = filtered(noise(60.0), usual() + colour)
    heard = followed(balance.Follower(1.0, "pianos"), samples)
    assert len(heard) == len(samples)
    np.testing.assert_array_equal(heard[: 5 * RATE], samples[: 5 * RATE])
    expected = gains(balance.measure([samples[: 45 * RATE]]), seconds=45.0)
    found = balance.measure([heard[45 * RATE :]]) - balance.measure([samples[45 * RATE :]])
    difference = (found - expected)[2:-2]
    assert np.ptp(expected[2:-2]) > 8.0 and np.std(difference) < 0.7


def test_what_is_played_is_not_delayed():
    """Of a click most of what comes out comes within a millisecond, as of filters of minimal phase; SciPy's is the same."""
    follower = balance.Follower(1.0, "pianos")
    samples = filtered(noise(40.0), usual() + 8 * np.sin(np.arange(23) / 3))
    followed(follower, samples)
    follower(np.zeros(512, np.float32))
    click = np.zeros(512, np.float32)
    click[0] = 1.0
    out = follower(click)
    assert np.sum(np.square(out[:16])) > 0.8 * np.sum(np.square(out))
    response = np.abs(np.fft.rfft(out, 4096))
    linear = np.fft.irfft(np.square(response))
    minimal = scipy.signal.minimum_phase(np.fft.fftshift(linear)[1:], n_fft=1 << 16)
    np.testing.assert_allclose(out[:64], minimal[:64], atol=0.03)


def test_what_sounds_while_the_balance_changes_has_no_step():
    """A pure tone stays one, in which the second difference of samples is bounded by its frequency."""
    follower = balance.Follower(1.0, "pianos")
    coloured = filtered(noise(5.2), usual() + 10 * np.sin(np.arange(23) / 3))
    followed(follower, coloured[: 9 * 512 * 16])  # Within the fifth second.
    tone = (0.2 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    out = followed(follower, tone)[RATE // 8 :]
    assert np.abs(out - tone[RATE // 8 :]).max() > 0.02
    assert np.abs(np.diff(out, 2)).max() < 1.5 * np.abs(out).max() * (2 * np.pi * 220 / RATE) ** 2


def test_memory_of_a_follower_does_not_grow():
    follower, sizes = balance.Follower(1.0, "pianos"), []
    for _ in range(2):
        followed(follower, filtered(noise(10.0), usual() + np.linspace(9, -9, 23)))
        sizes.append(len(pickle.dumps(follower)))
    assert sizes[1] < 1.1 * sizes[0]
