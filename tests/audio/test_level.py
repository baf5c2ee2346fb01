"""How loud a recording is, and the same recording at another level."""

import numpy as np
import pytest

from polyamp.audio import level

RATE = 16_000


def decibels(power: float) -> float:
    return 10 * np.log10(power)


def square(amplitude: float, length: int) -> np.ndarray:
    return np.where(np.arange(length) % 20 < 10, amplitude, -amplitude).astype(np.float32)


def in_blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[first : first + size] for first in range(0, len(samples), size)]


def test_the_level_of_a_sine_is_its_power():
    sine = 0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    assert level.measure([sine]) == pytest.approx(decibels(0.2**2 / 2), abs=0.01)


def test_rests_do_not_count_and_neither_does_one_bang():
    loud, bang = square(0.1, 3 * RATE), square(0.9, RATE // 10)
    assert level.measure([np.zeros(7 * RATE, np.float32), loud, bang]) == pytest.approx(-20.0, abs=0.01)


@pytest.mark.parametrize("seconds", [0.9, 1.5, 4.0])
def test_applause_is_not_what_is_played(seconds):
    rng = np.random.default_rng(4)
    music = 0.002 * np.sin(np.arange(60 * RATE) * 0.2).astype(np.float32)
    applause = rng.normal(0, 0.3, round(seconds * RATE)).astype(np.float32)
    assert level.measure([applause, music]) == pytest.approx(level.measure([music]), abs=0.1)


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-4])
def test_long_silence_around_music_does_not_count(noise):
    rng = np.random.default_rng(3)
    music = np.repeat(rng.uniform(0.02, 0.3, 40), RATE // 5) * np.sin(np.arange(8 * RATE) * 0.2)
    silence = noise * rng.normal(size=60 * RATE)
    heard = np.concatenate([silence, music, silence]).astype(np.float32)
    assert level.measure([heard]) == pytest.approx(level.measure([music.astype(np.float32)]), abs=0.01)


@pytest.mark.parametrize("size", [1, 799, 800, 12_345])
def test_borders_of_blocks_do_not_matter(size):
    noise = np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32) * np.linspace(0, 1, 9000, dtype=np.float32)
    assert level.measure(in_blocks(noise, size)) == pytest.approx(level.measure([noise]), abs=1e-4)


@pytest.mark.parametrize("offset", [0.1, -0.5])
def test_an_offset_is_not_heard(offset):
    noise = np.random.default_rng(5).normal(0, 0.003, 3 * RATE).astype(np.float32)
    assert level.measure([noise + np.float32(offset)]) == pytest.approx(level.measure([noise]), abs=0.05)
    assert level.measure([np.full(RATE, offset, np.float32)]) < -100  # Of which rounding leaves a little.


def test_less_than_a_stretch_and_silence():
    assert level.measure([square(0.1, 20)]) == pytest.approx(-20.0, abs=0.01)
    assert level.measure([np.zeros(RATE, np.float32)]) == level.measure([]) == -np.inf


@pytest.mark.parametrize("gain", [0.2, 1.0, 3.0, 32768.0])  # The last: floats as large as 16-bit integers.
def test_recordings_of_any_level_come_out_at_one(gain):
    noise = np.random.default_rng(1).normal(0, 0.05, 3 * RATE).astype(np.float32)
    heard = np.concatenate(list(level.brought_to(lambda: in_blocks(noise * np.float32(gain), 5000), -30.0)()))
    assert level.measure([heard]) == pytest.approx(-30.0, abs=1e-3)
    np.testing.assert_allclose(heard / noise, heard[0] / noise[0], rtol=1e-4)  # One factor for all of it.


def test_silence_is_not_made_into_noise():
    hiss = np.random.default_rng(2).normal(0, 1e-5, RATE).astype(np.float32)
    heard = np.concatenate(list(level.brought_to(lambda: [hiss], -30.0)()))
    assert level.measure([heard]) == pytest.approx(level.measure([hiss]) + 24.0, abs=1e-3)
    nothing = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(np.concatenate(list(level.brought_to(lambda: [nothing], -30.0)())), nothing)


def test_zero_leaves_recordings_as_they_are():
    def blocks():
        raise AssertionError("was read")

    assert level.brought_to(blocks, 0.0) is blocks


def test_what_is_brought_to_several_levels_is_measured_once():
    asked = []

    def blocks():
        asked.append(1)
        return [noise]

    noise = np.random.default_rng(0).normal(0.0, 0.1, 16_000).astype(np.float32)
    measured = level.Measured(blocks)
    found = [level.measure(level.brought_to(measured, target)()) for target in (-30.0, -40.0)]
    np.testing.assert_allclose(found, [-30.0, -40.0], atol=1e-3)
    assert len(asked) == 3 and np.array_equal(measured()[0], noise)
