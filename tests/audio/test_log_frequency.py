"""The log-frequency front end: tuning, scale, timing, and independence from what lies outside the window."""

import keras
import librosa
import numpy as np
import pytest

from polyamp.audio import log_frequency
from polyamp.audio.log_frequency import bin_frequencies, compress, expand
from polyamp.audio.spectrogram import LogFrequencySpectrogram


def spectrum_of(audio):
    return keras.ops.convert_to_numpy(LogFrequencySpectrogram()(audio[None].astype(np.float32)))[0]


def sine(frequency, amplitude=1.0, seconds=1.0):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * 16_000)) / 16_000)


def test_middle_bin_of_every_pitch_is_its_frequency():
    np.testing.assert_allclose(bin_frequencies()[1 : 3 * 88 : 3], librosa.midi_to_hz(np.arange(21, 109)), rtol=1e-12)
    np.testing.assert_allclose(bin_frequencies(430.0) / bin_frequencies(), 430 / 440, rtol=1e-12)


@pytest.mark.parametrize("a4_hz", [420.0, 460.0])
def test_no_bin_is_lost_in_any_tuning(a4_hz):
    for windows in (log_frequency.WINDOWS, (2048, 1024)):
        assert sum(part.shape[1] for part in log_frequency.trimmed_filters(windows, a4_hz).values()) == log_frequency.NUM_BINS


@pytest.mark.parametrize("pitch", [45, 60, 72, 84, 96, 108])
def test_a_note_is_loudest_in_its_own_bin(pitch):
    frames = spectrum_of(sine(librosa.midi_to_hz(pitch)))
    middle = frames[8:-8].mean(axis=0)
    assert abs(int(np.argmax(middle)) - (3 * (pitch - 21) + 1)) <= 1


@pytest.mark.parametrize("frequency", [440.0, 3520.0])
def test_full_scale_sine_is_about_one_and_20_db_less_a_quarter_less(frequency):
    loud, quiet = (spectrum_of(sine(frequency, amplitude))[10].max() for amplitude in (1.0, 0.1))
    assert loud == pytest.approx(1.0, abs=0.04)
    assert loud - quiet == pytest.approx(0.25, abs=0.005)


def test_silence_is_zero():
    assert not spectrum_of(np.zeros(8000)).any()


def test_each_frame_is_centred_on_its_hop():
    click = np.zeros(16_000)
    click[512 * 12] = 1.0
    high = spectrum_of(click)[:, 200:].sum(axis=1)
    assert int(np.argmax(high)) == 12
    np.testing.assert_allclose(high[10:12], high[14:12:-1], atol=1e-3)


@pytest.mark.parametrize("samples", [1, 160, 512, 4096])
def test_any_length_gives_one_frame_per_hop(samples):
    assert spectrum_of(np.ones(samples)).shape == (1 + samples // 512, log_frequency.NUM_BINS)


def test_a_loud_moment_elsewhere_changes_nothing():
    quiet = sine(440, 0.01, seconds=2.0)
    loud = quiet.copy()
    loud[:2000] += 0.9
    np.testing.assert_array_equal(spectrum_of(quiet)[20:], spectrum_of(loud)[20:])


def test_a_window_of_a_file_gives_the_values_of_the_whole():
    audio = np.random.default_rng(0).normal(0, 0.1, 512 * 60)
    np.testing.assert_allclose(spectrum_of(audio)[24:36], spectrum_of(audio[512 * 20 : 512 * 40])[4:16], atol=1e-5)


@pytest.mark.parametrize("align_ends", [False, True])
def test_frames_of_a_part_are_those_of_the_whole(align_ends):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 12_000).astype(np.float32)
    whole = log_frequency.spectrogram(audio, 300, (2048, 1000), align_ends)
    part = log_frequency.frames(audio[300 * 10 - 1024 : 300 * 20 + 1024 + 299], 300, (2048, 1000), align_ends)
    assert part.shape == (11, log_frequency.NUM_BINS)
    np.testing.assert_allclose(part, whole[10:21], atol=1e-6)


def test_both_windows_together_cover_every_bin_once():
    longest = max(log_frequency.WINDOWS)
    filters = [log_frequency.filterbank(window, window == longest) for window in log_frequency.WINDOWS]
    covered = sum((weights > 0).any(axis=0).astype(int) for weights in filters)
    np.testing.assert_array_equal(covered, 1)


def test_expand_inverts_compress():
    power = np.array([0.0, 1e-9, 1e-4, 1.0])
    np.testing.assert_allclose(expand(compress(power)), power, rtol=1e-9, atol=1e-15)


def test_layer_survives_its_config():
    layer = LogFrequencySpectrogram(hop_length=256, name="front")
    again = LogFrequencySpectrogram.from_config(layer.get_config())
    assert (again.hop_length, again.name) == (256, "front")


@pytest.mark.parametrize("align_ends", [False, True])
@pytest.mark.parametrize("samples", [1, 700, 20_000])
def test_numpy_and_keras_agree(samples, align_ends):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    layer = LogFrequencySpectrogram(256, (2048, 1024), align_ends)
    of_layer = keras.ops.convert_to_numpy(layer(audio[None]))[0]
    found = log_frequency.spectrogram(audio, 256, (2048, 1024), align_ends)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, of_layer, atol=2e-5)
