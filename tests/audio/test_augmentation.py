"""Waveform augmentation: each effect does what it says, and none of them moves an onset."""

import numpy as np
import pytest
import scipy.signal

from polyamp.audio import augmentation
from polyamp.hparams import MelodicHParams

RATE = 16_000
MOVING = ["pitch_semitones", "contrast", "eq_db", "reverb"]  # What could move an onset.
AMOUNTS = [*MOVING, "noise", "gain_db"]


def hparams(probability: float = 1.0, **amounts: float) -> MelodicHParams:
    """Only the named effects, at the given amounts."""
    fields = {f"augment_{name}": amounts.get(name, 0.0) for name in AMOUNTS}
    return MelodicHParams(augment_probability=probability, **fields)


def tone(frequency: float, seconds: float = 4.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def piano_like(onsets: np.ndarray, seconds: float = 6.0) -> np.ndarray:
    """Decaying notes of eight partials with sudden attacks, float32."""
    rng = np.random.default_rng(5)
    samples = np.zeros(round(seconds * RATE))
    for onset in onsets:
        time = np.arange(len(samples) - onset) / RATE
        frequency = 55.0 * 2 ** rng.uniform(0, 4)
        partials = [np.sin(2 * np.pi * frequency * k * time) * np.exp(-time * (2 + k)) / k for k in range(1, 9)]
        samples[onset:] += 0.2 * np.sum(partials, 0) * np.minimum(1.0, time / 0.002)
    return samples.astype(np.float32)


def changed_audio(*args) -> np.ndarray:
    return augmentation.augment(*args)[0]


def spectral_flux(samples: np.ndarray) -> np.ndarray:
    """Growth of the compressed spectrum, per half millisecond: peaks at attacks."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, 512)[::8] * np.hanning(512)
    magnitude = np.log1p(100 * np.abs(np.fft.rfft(windows)))
    return np.maximum(0.0, magnitude[8:] - magnitude[:-8]).sum(1)


def delay(before: np.ndarray, after: np.ndarray, reach: int = 50) -> float:
    """Milliseconds by which the attacks of `after` lie behind those of `before`."""
    before, after = spectral_flux(before), spectral_flux(after)
    before = before[reach:-reach] - before.mean()
    return (int(np.argmax(np.correlate(after - after.mean(), before, "valid"))) - reach) / 2


def test_it_is_off_by_default():
    audio = piano_like(np.array([1000]))
    rng = np.random.default_rng(0)
    assert all(changed_audio(audio, MelodicHParams(), rng) is audio for _ in range(20))


def test_probability_is_the_share_of_disturbed_crops_and_all_change_level():
    audio = np.full(100, 0.1, np.float32)
    rng = np.random.default_rng(0)
    crops = [changed_audio(audio, hparams(0.35, gain_db=6.0, noise=0.1), rng) for _ in range(2000)]
    assert np.mean([np.ptp(crop) > 1e-6 for crop in crops]) == pytest.approx(0.35, abs=0.04)
    levels = [20 * np.log10(crop[0] / 0.1) for crop in crops if np.ptp(crop) <= 1e-6]
    assert -6 <= min(levels) < -5 and 5 < max(levels) <= 6


def test_probability_zero_changes_nothing():
    audio = np.full(100, 0.1, np.float32)
    assert changed_audio(audio, hparams(0.0, gain_db=6.0), np.random.default_rng(0)) is audio


@pytest.mark.parametrize("samples", [1, 2, 100, 400, 16_000])
def test_any_length_is_kept_and_the_input_left_alone(samples):
    audio = np.random.default_rng(1).uniform(-1, 1, samples).astype(np.float32)
    original = audio.copy()
    for seed in range(5):
        changed = changed_audio(audio, MelodicHParams(augment_probability=1.0), np.random.default_rng(seed))
        assert changed.shape == audio.shape and changed.dtype == np.float32
        assert np.isfinite(changed).all() and np.abs(changed).max() <= 1.0
    np.testing.assert_array_equal(audio, original)
    assert changed_audio(audio[:0], MelodicHParams(augment_probability=1.0), np.random.default_rng(0)).shape == (0,)


def test_the_seed_decides():
    audio, settings = piano_like(np.array([1000])), MelodicHParams(augment_probability=1.0)
    first, second, other = (changed_audio(audio, settings, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("names", [[name] for name in MOVING] + [MOVING], ids="-".join)
def test_onsets_stay_within_a_millisecond(names):
    onsets = np.array([3000, 11_000, 20_500, 31_000, 40_000, 52_345, 64_000, 80_000])
    audio = piano_like(onsets)
    settings = hparams(**{name: getattr(MelodicHParams(), f"augment_{name}") for name in names})
    for seed in range(4):
        changed = changed_audio(audio, settings, np.random.default_rng(seed))
        delays = [delay(audio[onset - 1500 : onset + 1500], changed[onset - 1500 : onset + 1500]) for onset in onsets]
        assert np.abs(delays).max() <= 1.0


@pytest.mark.parametrize("semitones", [0.1, -0.1, 0.03])
@pytest.mark.parametrize("frequency", [55.0, 440.0, 3000.0])
def test_detuning_changes_the_pitch_and_not_the_level(frequency, semitones):
    detuned = augmentation.detune(tone(frequency, 10.0), semitones)
    inner = detuned[RATE:-RATE]
    phase = np.unwrap(np.angle(scipy.signal.hilbert(inner)))[1000:-1000]
    measured = np.polyfit(np.arange(len(phase)), phase, 1)[0] * RATE / (2 * np.pi)
    assert 12 * np.log2(measured / frequency) == pytest.approx(semitones, abs=0.005)
    assert np.ptp(np.abs(scipy.signal.hilbert(inner))[1000:-1000]) < 0.03


@pytest.mark.parametrize("semitones", [0.1, -0.1])
def test_detuning_leaves_clicks_sharp_and_in_place(semitones):
    clicks = np.arange(2000, 10 * RATE - 2000, 7001)
    audio = np.zeros(10 * RATE)
    audio[clicks] = 1.0
    detuned = np.abs(augmentation.detune(audio, semitones))
    for click in clicks:
        around = detuned[click - 400 : click + 400]
        assert around.max() > 0.4 and abs(int(np.argmax(around)) - 400) <= 16


def test_contrast_boosts_the_middle_and_keeps_the_ends():
    samples = np.linspace(-1, 1, 101)
    for amount in (0.0, 50.0, 100.0):
        shaped = augmentation.contrast(samples, amount)
        assert shaped[[0, 50, 100]] == pytest.approx([-1, 0, 1])
        assert (np.diff(shaped) > -1e-3).all() and np.abs(shaped).max() <= 1.0
    assert augmentation.contrast(np.array([0.1]), 100.0) > augmentation.contrast(np.array([0.1]), 0.0) > 0.1


@pytest.mark.parametrize("gain_db", [-10.0, 5.0])
def test_equalizer_acts_at_its_frequency_only(gain_db):
    for frequency, expected in ((1000.0, gain_db), (60.0, 0.0), (7000.0, 0.0)):
        ratio = np.std(augmentation.equalize(tone(frequency), 1000.0, gain_db)[RATE:]) / np.std(tone(frequency)[RATE:])
        assert 20 * np.log10(ratio) == pytest.approx(expected, abs=0.3)


def test_pink_noise_falls_three_decibels_per_octave():
    noise = augmentation.pink_noise(30 * RATE, np.random.default_rng(0))
    frequency, power = scipy.signal.welch(noise, RATE, nperseg=4096)
    used = (frequency > 50) & (frequency < 7000)
    assert np.polyfit(np.log2(frequency[used]), 10 * np.log10(power[used]), 1)[0] == pytest.approx(-3.0, abs=0.15)
    assert np.abs(noise).max() == pytest.approx(1.0)


def test_noise_has_the_amplitude_that_was_asked_for():
    silence, settings = np.zeros(RATE, np.float32), hparams(noise=0.04)
    peaks = [np.abs(changed_audio(silence, settings, np.random.default_rng(seed))).max() for seed in range(50)]
    assert 0.03 < max(peaks) <= 0.04 and min(peaks) < 0.01


def test_reverb_rings_longer_the_larger_and_keeps_the_direct_sound():
    impulse = np.zeros(4 * RATE)
    impulse[100] = 1.0
    lengths = []
    for reverberance in (0.0, 35.0, 70.0):
        wet = augmentation.reverberate(impulse, reverberance, np.random.default_rng(0))
        np.testing.assert_allclose(wet[:400], impulse[:400], atol=1e-9)
        energy = np.cumsum(np.square(wet[200:])[::-1])[::-1]
        lengths.append(np.argmax(energy < 1e-6 * energy[0]) / RATE)
    assert lengths[0] < 0.3 and 0.5 < lengths[1] < 1.2 < lengths[2]


def test_gain_stays_in_range_and_never_clips():
    quiet = np.full(10, 0.01, np.float32)
    gains = [changed_audio(quiet, hparams(gain_db=12.0), np.random.default_rng(seed))[0] / 0.01 for seed in range(200)]
    assert 10 ** (-12 / 20) <= min(gains) < 0.4 and 2.5 < max(gains) <= 10 ** (12 / 20)
    loud = tone(440.0).astype(np.float32) * 1.9
    for seed in range(20):
        changed = changed_audio(loud, hparams(gain_db=12.0), np.random.default_rng(seed))
        assert np.corrcoef(changed, loud)[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("amplitude", [0.01, 0.9])
def test_the_gain_that_comes_back_is_what_was_done(amplitude):
    audio = amplitude * tone(440.0).astype(np.float32)
    for seed in range(20):
        changed, gain_db = augmentation.augment(audio, hparams(0.01, gain_db=12.0), np.random.default_rng(seed))
        assert 20 * np.log10(np.std(changed) / np.std(audio)) == pytest.approx(gain_db, abs=1e-3)


def test_velocities_follow_the_level():
    settings = MelodicHParams(augment_velocity_per_db=4.0)
    velocity = np.array([1, 64, 120, 0])  # The last is not known.
    np.testing.assert_array_equal(augmentation.louder(velocity, 2.5, settings), [11, 74, 127, 0])
    np.testing.assert_array_equal(augmentation.louder(velocity, -2.5, settings), [1, 54, 110, 0])
    np.testing.assert_array_equal(augmentation.louder(velocity, 9.0, MelodicHParams()), velocity)
