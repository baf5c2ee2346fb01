"""The front end of the pitch-shared models: log power on a log-frequency axis whose bins line up with the piano's pitches."""

from typing import Any

import keras
import numpy as np
from keras import ops

from polyamp import constants

BINS_PER_SEMITONE = 3
NUM_BINS = 98 * BINS_PER_SEMITONE  # From A0 up to 7.8 kHz, just below half the sample rate.
WINDOWS = (4096, 2048)  # Samples; the long one resolves low pitches, the short one times high ones. Those of most models.
CROSSOVER_HZ = 500.0
FLOOR_DB = -80.0  # Relative to a full-scale sine; maps to 0, the sine itself to 1.


def bin_frequencies() -> np.ndarray:
    """Centre frequencies in Hz, `[NUM_BINS]`: bin `3 p + 1` is pitch `MIN_MIDI_PITCH + p`, its neighbours 1/3 semitone off."""
    semitones = (np.arange(NUM_BINS) - 1) / BINS_PER_SEMITONE + constants.MIN_MIDI_PITCH
    return 440.0 * 2.0 ** ((semitones - 69) / 12)


def filterbank(window: int, is_long: bool) -> np.ndarray:
    """Triangular filters over the power spectrum of one window length, `[window / 2 + 1, NUM_BINS]` float32.

    A filter reaches to its neighbours' centres, or one FFT bin where those are nearer than the FFT can tell apart (there it
    interpolates). Filters on the other side of the crossover are zero, so that the sum over both windows, of which one
    `is_long`, covers every bin once.
    """
    centre = bin_frequencies()
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


def trimmed_filters(windows: tuple[int, ...]) -> dict[int, np.ndarray]:
    """For a longer and a shorter window its filters for its own bins, `[frequency, bin]`; frequencies above them left out."""
    return {window: _trimmed(filterbank(window, window == max(windows))) for window in windows}


_DYNAMICS = 10.0 ** (-FLOOR_DB / 10)


def compress(power: Any) -> Any:
    """Power relative to a full-scale sine to [0, 1]: logarithmic above the floor, linear below it. Numpy or Keras tensors."""
    log1p = np.log1p if isinstance(power, np.ndarray) else ops.log1p
    return log1p(power * _DYNAMICS) / float(np.log1p(_DYNAMICS))


def expand(compressed: np.ndarray) -> np.ndarray:
    """The inverse of `compress`."""
    return np.expm1(compressed.astype(np.float64) * np.log1p(_DYNAMICS)) / _DYNAMICS


@keras.saving.register_keras_serializable(package="polyamp")
class LogFrequencySpectrogram(keras.layers.Layer):
    """Audio to compressed log-frequency power, without weights.

    Input `[batch, samples]`, float32 in [-1, 1] at 16 kHz. Output `[batch, 1 + samples // hop, 294]`, float32, 0 for silence
    and 1 for a full-scale sine; frame `t` is centred on sample `t * hop`, with silence beyond both ends. With `align_ends` only
    the longer window is, and the shorter one ends with it: it hears what is newest. The value of a frame depends on the samples
    under its window alone, never on the loudness of the rest.
    """

    def __init__(self, hop_length: int = 512, windows: tuple[int, ...] = WINDOWS, align_ends: bool = False, **kwargs: Any):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.hop_length = hop_length
        self.windows = tuple(windows)
        self.align_ends = align_ends
        self._filters = trimmed_filters(self.windows)

    def call(self, audio: Any) -> Any:
        bands = []
        for window, weights in self._filters.items():
            half = window // 2
            later = max(self.windows) // 2 - half if self.align_ends else 0  # Samples.
            before, after = half - later, half + later
            padded = ops.pad(audio, [[0, 0], [max(before, 0), after]])[:, max(-before, 0) :]
            real, imaginary = ops.stft(padded, window, self.hop_length, window, window="hann", center=False)
            power = ops.square(real[..., : len(weights)]) + ops.square(imaginary[..., : len(weights)])
            bands.append(ops.matmul(power, weights))  # [batch, time, bins of this window]
        return compress(ops.concatenate(bands, axis=-1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        samples = input_shape[1]
        return (input_shape[0], None if samples is None else 1 + samples // self.hop_length, NUM_BINS)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["trainable"], config["dtype"]
        return {**config, "hop_length": self.hop_length, "windows": self.windows, "align_ends": self.align_ends}
