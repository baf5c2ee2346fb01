"""The front end of the pitch-shared models: log power on a log-frequency axis whose bins line up with the piano's pitches.

Numpy only, for what runs without Keras; `polyamp.audio.spectrogram.LogFrequencySpectrogram` is the layer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyamp import constants
from polyamp.audio.filters import hann

A4_HZ = 440.0  # Concert pitch.
BINS_PER_SEMITONE = 3
NUM_BINS = 98 * BINS_PER_SEMITONE  # From A0 up to 7.8 kHz, just below half the sample rate.
WINDOWS = (4096, 2048)  # Samples; the long one resolves low pitches, the short one times high ones. Those of most models.
CROSSOVER_HZ = 500.0
_BLOCK = 32  # Frames transformed at a time: what fits into a processor's cache, and no more memory for long audio.
FLOOR_DB = -80.0  # Relative to a full-scale sine; maps to 0, the sine itself to 1.


def bin_frequencies(a4_hz: float = A4_HZ) -> np.ndarray:
    """Centre frequencies in Hz, `[NUM_BINS]`: bin `3 p + 1` is pitch `MIN_MIDI_PITCH + p`, its neighbours 1/3 semitone off."""
    semitones = (np.arange(NUM_BINS) - 1) / BINS_PER_SEMITONE + constants.MIN_MIDI_PITCH
    return a4_hz * 2.0 ** ((semitones - 69) / 12)


def harmonic_offsets(harmonics: Sequence[float]) -> list[int]:
    """Bins from a pitch's lowest bin to the same of each of its harmonics."""
    return [int(round(12 * BINS_PER_SEMITONE * np.log2(harmonic))) for harmonic in harmonics]


def filterbank(window: int, is_long: bool, a4_hz: float = A4_HZ) -> np.ndarray:
    """Triangular filters over the power spectrum of one window length, `[window / 2 + 1, NUM_BINS]` float32.

    A filter reaches to its neighbours' centres, or one FFT bin where those are nearer than the FFT can tell apart (there it
    interpolates). Filters on the other side of the crossover are zero, so that the sum over both windows, of which one
    `is_long`, covers every bin once.
    """
    centre = bin_frequencies(a4_hz)
    fft_step = constants.SAMPLE_RATE / window
    step = centre * (2.0 ** (1 / (12 * BINS_PER_SEMITONE)) - 1)
    half_width = np.maximum(step, fft_step)
    frequency = np.arange(window // 2 + 1) * fft_step
    weights = np.maximum(0.0, 1.0 - np.abs(frequency[:, None] - centre[None, :]) / half_width[None, :])
    weights *= (2.0 / np.hanning(window + 1)[:-1].sum()) ** 2  # The power of a full-scale sine is then 1.
    mine = centre < CROSSOVER_HZ if is_long else centre >= CROSSOVER_HZ
    return (weights * mine).astype(np.float32)


def _trimmed(weights: np.ndarray) -> np.ndarray:
    """Without the bins (columns) that belong to another window and the high frequencies (rows) that no bin reads."""
    weights = weights[:, weights.any(axis=0)]
    return weights[: np.flatnonzero(weights.any(axis=1))[-1] + 1]


@functools.cache
def trimmed_filters(windows: tuple[int, ...], a4_hz: float = A4_HZ) -> dict[int, np.ndarray]:
    """For a longer and a shorter window its filters for its own bins, `[frequency, bin]`; frequencies above them left out."""
    return {window: _trimmed(filterbank(window, window == max(windows), a4_hz)) for window in windows}


def paddings(windows: tuple[int, ...], align_ends: bool) -> dict[int, tuple[int, int]]:
    """Samples of silence to put before and after the audio for each window, so that frame `t` is where it should be.

    The windows of a frame are centred on the same sample; or, with `align_ends`, end at the same one. Less than none: the first
    samples are left out.
    """
    later = {window: (max(windows) - window) // 2 if align_ends else 0 for window in windows}
    return {window: (window // 2 - later[window], window // 2 + later[window]) for window in windows}


_DYNAMICS = 10.0 ** (-FLOOR_DB / 10)


def compress(power: Any, log1p: Callable[[Any], Any] = np.log1p) -> Any:
    """Power relative to a full-scale sine to [0, 1]: logarithmic above the floor, linear below it.

    Args:
        power: Of any shape; for tensors give their own `log1p`, such as `keras.ops.log1p`.
        log1p: log(1 + x).
    """
    return log1p(power * _DYNAMICS) / float(np.log1p(_DYNAMICS))


def expand(compressed: np.ndarray) -> np.ndarray:
    """The inverse of `compress`."""
    return np.expm1(compressed.astype(np.float64) * np.log1p(_DYNAMICS)) / _DYNAMICS


def spectrogram(audio: np.ndarray, hop_length: int, windows: tuple[int, ...] = WINDOWS, align_ends: bool = False) -> np.ndarray:
    """What the layer `LogFrequencySpectrogram` gives, without Keras.

    Args:
        audio: float32 [samples] in [-1, 1] at 16 kHz.
        hop_length, windows, align_ends: As for the layer.

    Returns:
        float32 `[1 + samples // hop_length, 294]`.
    """
    return frames(np.pad(audio, max(windows) // 2), hop_length, windows, align_ends)


def frames(samples: np.ndarray, hop_length: int, windows: tuple[int, ...] = WINDOWS, align_ends: bool = False) -> np.ndarray:
    """The spectrogram of a part of a recording that begins with the first sample under its first frame's windows.

    Args:
        samples: float32 [samples] in [-1, 1] at 16 kHz, at least the longest window.
        hop_length, windows, align_ends: As for the layer.

    Returns:
        float32 `[1 + (samples - longest window) // hop_length, 294]`.
    """
    longest = max(windows)
    num_frames = 1 + (len(samples) - longest) // hop_length
    bands = []
    for window, (before, _) in paddings(windows, align_ends).items():
        views = np.lib.stride_tricks.sliding_window_view(samples[longest // 2 - before :], window)[::hop_length][:num_frames]
        filters = trimmed_filters(windows)[window]
        band = np.empty((num_frames, filters.shape[1]), np.float32)
        for first in range(0, num_frames, _BLOCK):
            spectrum = np.fft.rfft(views[first : first + _BLOCK] * hann(window))[:, : len(filters)]
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            band[first : first + _BLOCK] = power.astype(np.float32, copy=False) @ filters
        bands.append(band)
    return compress(np.concatenate(bands, axis=1)).astype(np.float32, copy=False)
