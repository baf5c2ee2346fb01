"""What spectrograms are made of: windows, mel filterbank, constant-Q kernels, decimation filters and decibels, in numpy."""

import functools
import math
from typing import Any

import numpy as np

from polyamp import constants

# The "HQ" low-pass of libsoxr for halving a sample rate: this Kaiser-windowed sinc, to 1e-5.
_HALVING_HALF_LENGTH = 183  # Taps on each side of the middle one.
_HALVING_CUTOFF = 0.239218  # Cycles per sample before the halving; 0.25 is the new Nyquist frequency.
_HALVING_BETA = 11.56

MEL_FLOOR_DB = -50.0  # 104 dB below a full-scale sine, whose power is (window / 4) ** 2.
_RANGE_DB = 100.0  # Above the floor: maps to 1, about what a full-scale sine reaches.


@functools.cache
def hann(length: int) -> np.ndarray:
    """A periodic Hann window, float32 `[length]`, read-only, as all that ask for one share it."""
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    window.flags.writeable = False
    return window


def compress(power: Any, floor_db: float, ops: Any = np) -> Any:
    """Decibels above a floor, in units of 100; 0 below it.

    Args:
        power: Of any shape; for tensors give the module `keras.ops` as `ops`.
        floor_db: Of the power, about where the noise of 16-bit recordings lies.
        ops: Has `log` and `maximum`.
    """
    above_floor = ops.maximum(power * 10.0 ** (-floor_db / 10.0), 1.0)
    return ops.log(above_floor) * (10.0 / math.log(10.0) / _RANGE_DB)


def mel_filterbank(num_bins: int, fft_length: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangular filters of height 1, equally spaced on the HTK mel scale.

    Equal to `librosa.filters.mel(htk=True, norm=None)`.

    Args:
        num_bins: Number of filters.
        fft_length: Samples; the filters apply to its `fft_length // 2 + 1` non-negative frequencies.
        fmin: Lower edge of the first filter in Hz.
        fmax: Upper edge of the last filter in Hz.

    Returns:
        float32 [fft_length // 2 + 1, num_bins].
    """
    low, high = (2595.0 * math.log10(1.0 + edge / 700.0) for edge in (fmin, fmax))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, num_bins + 2) / 2595.0) - 1.0)
    frequency = np.arange(fft_length // 2 + 1)[:, None] * (constants.SAMPLE_RATE / fft_length)
    rising = (frequency - edges[:-2]) / np.diff(edges[:-1])
    falling = (edges[2:] - frequency) / np.diff(edges[1:])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def cqt_frequencies(num_bins: int, bins_per_octave: int, fmin: float) -> np.ndarray:
    """Centre frequencies of the constant-Q bins in Hz, float64 [num_bins]."""
    return fmin * 2.0 ** (np.arange(num_bins) / bins_per_octave)


def cqt_quality(bins_per_octave: int) -> float:
    """Centre frequency over bandwidth of librosa's constant-Q filters."""
    step = 2.0 ** (2.0 / bins_per_octave)
    return (step + 1.0) / (step - 1.0)


def cqt_kernels(frequencies: np.ndarray, bins_per_octave: int, halvings: int) -> np.ndarray:
    """Time-domain kernels of one octave of `librosa.cqt`.

    librosa multiplies spectra with a frequency-domain basis from which it has dropped the smallest values; the kernels are that
    basis, transformed back.

    Args:
        frequencies: Hz, ascending, [bins].
        bins_per_octave: Of the whole transform; sets the bandwidth.
        halvings: How often the sample rate of the audio has been halved for this octave.

    Returns:
        complex128 [2 * half, bins]; row `half` weighs the sample at the frame's centre. The magnitude of the product is that of
        librosa with its default `norm=1, sparsity=0.01, scale=True`.
    """
    rate = constants.SAMPLE_RATE / 2**halvings
    lengths = cqt_quality(bins_per_octave) * rate / frequencies  # Samples, not integers.
    size = 2 ** math.ceil(math.log2(lengths.max()))
    waves = [_wavelet(frequency / rate, length, size) for frequency, length in zip(frequencies, lengths, strict=True)]
    basis = np.stack(waves) * lengths[:, None] / size
    spectrum = _sparsify(np.fft.fft(basis)[:, : size // 2 + 1], 0.01)
    kernels = np.fft.fft(spectrum, size)  # The frame's DFT and the product with the basis, as one linear map.
    # librosa scales resampled audio and basis by the root of the rates' ratio each, the result by that of the full-rate length.
    kernels *= 2.0**halvings / np.sqrt(lengths * 2**halvings)[:, None]
    return kernels.T


def _wavelet(frequency: float, length: float, size: int) -> np.ndarray:
    """A complex exponential under a periodic Hann window, of sum 1 in magnitude, in the middle of `size` samples."""
    before, after = math.ceil(length / 2), math.floor(length / 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(before + after) / (before + after))
    wave = window / window.sum() * np.exp(2j * np.pi * frequency * np.arange(-before, after))
    start = (size - len(wave)) // 2
    return np.pad(wave, (start, size - len(wave) - start))


def _sparsify(spectrum: np.ndarray, quantile: float) -> np.ndarray:
    """Zeroes the smallest values of each row which together make up less than `quantile` of the row's sum of magnitudes."""
    magnitude = np.abs(spectrum)
    ascending = np.sort(magnitude, axis=1)
    share = np.cumsum(ascending, axis=1) / ascending.sum(axis=1, keepdims=True)
    first_kept = np.argmax(share >= quantile, axis=1)
    threshold = np.take_along_axis(ascending, first_kept[:, None], axis=1)
    return np.where(magnitude >= threshold, spectrum, 0.0)


def halving_filter() -> np.ndarray:
    """The low-pass that librosa's constant-Q transform applies before it drops every second sample.

    It is not flat up to the new Nyquist frequency: librosa loses 3 dB in the second and 18 dB in the highest of 28 bins of
    every octave but the top one. Agreement with librosa includes that.

    Returns:
        float64 [367], symmetrical, of sum 1.
    """
    half = _HALVING_HALF_LENGTH
    taps = np.sinc(2 * _HALVING_CUTOFF * np.arange(-half, half + 1)) * np.kaiser(2 * half + 1, _HALVING_BETA)
    return taps / taps.sum()


def blockwise_halving(block: int) -> np.ndarray:
    """Filtering with `halving_filter` and dropping every second sample, as a convolution over blocks of samples.

    Convolving single samples would leave a processor's vector units idle.

    Args:
        block: Samples per block, even.

    Returns:
        float32 [blocks, samples in the block, block / 2 samples out]; the middle block is the one whose samples come out.
    """
    taps = halving_filter()
    half = len(taps) // 2
    sides = math.ceil(half / block)
    kernel = np.zeros(((2 * sides + 1) * block, block // 2), np.float32)
    for output in range(block // 2):
        start = sides * block + 2 * output - half
        kernel[start : start + len(taps), output] = taps
    return kernel.reshape(2 * sides + 1, block, block // 2)
