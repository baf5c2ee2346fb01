"""The Autoregressive model one frame at a time, in numpy: what its Keras layers compute, with ring buffers for the past.

A step of the compact network is some dozens of small products, for which calling a Keras function costs several times what they
cost. Batch normalisation is folded into the convolutions. Every object keeps its own past and its memory never grows.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from polyamp.audio.log_frequency import BINS_PER_SEMITONE, NUM_BINS, compress, trimmed_filters
from polyamp.audio.spectrogram import LogFrequencySpectrogram, MelSpectrogram
from polyamp.constants import NUM_PITCHES
from polyamp.models.layers import HarmonicStack, IntervalDense
from polyamp.models.recurrence import OLDEST, StateRecurrence, age_table
from polyamp.notes.states import NUM_STATES, OFF, ONSET

Step = Callable[[np.ndarray], np.ndarray]  # Takes one frame and gives one, float32.


def spectrum_step(layer: keras.layers.Layer) -> tuple[int, Step]:
    """How many samples a frame of a spectrogram layer is made of, and the function from these to its bins."""
    if isinstance(layer, MelSpectrogram):
        return layer.window, _mel(layer)
    if isinstance(layer, LogFrequencySpectrogram):
        return max(layer.windows), _log_frequency(layer)
    raise TypeError(f"{type(layer).__name__} cannot be computed frame by frame.")


def _power(samples: np.ndarray, window: np.ndarray) -> np.ndarray:
    bins = np.fft.rfft(samples * window)
    return (np.square(bins.real) + np.square(bins.imag)).astype(np.float32)


def _hann(length: int) -> np.ndarray:
    return np.hanning(length + 1)[:-1].astype(np.float32)


def _mel(layer: MelSpectrogram) -> Step:
    window, filterbank = _hann(layer.window), np.asarray(layer.filterbank)

    def step(samples: np.ndarray) -> np.ndarray:
        return np.asarray(layer.compress(_power(samples, window) @ filterbank), np.float32)

    return step


def _log_frequency(layer: LogFrequencySpectrogram) -> Step:
    longest = max(layer.windows)
    parts = []
    for length, weights in trimmed_filters(layer.windows).items():
        end = longest if layer.align_ends else (longest + length) // 2
        parts.append((slice(end - length, end), _hann(length), weights))

    def step(samples: np.ndarray) -> np.ndarray:
        bands = [_power(samples[part], window)[: len(weights)] @ weights for part, window, weights in parts]
        return compress(np.concatenate(bands)).astype(np.float32)

    return step


def acoustic_step(acoustic: keras.Model) -> Step:
    """The function from a frame's spectrum to features, of the frame as many frames earlier as the kernels look ahead."""
    names = {layer.name for layer in acoustic.layers}
    return _chain(_pitch_shared(acoustic) if "harmonics" in names else _conv_stack(acoustic))


def _chain(steps: list[Step]) -> Step:
    def step(frame: np.ndarray) -> np.ndarray:
        for one in steps:
            frame = one(frame)
        return frame

    return step


class Convolution:
    """A convolution over time and a second axis, whose ends are padded with zeros; then ReLU, and its input if `residual`.

    Frame `t` of the answer is the middle of the kernel where the convolution is not causal: `t` frames less half a kernel.
    """

    def __init__(self, acoustic: keras.Model, name: str, norm: str, residual: bool = False, pitch_bias: str | None = None):
        layer = acoustic.get_layer(name)
        kernel, bias = _folded(layer, acoustic, norm, pitch_bias)
        dilation = layer.dilation_rate[0]
        frames, width, channels, filters = kernel.shape
        self._taps = kernel.reshape(frames, width * channels, filters)
        self._bias, self._width, self._residual = bias, width, residual
        self._delays = [(frames - 1 - tap) * dilation for tap in range(frames)]
        self._past: np.ndarray | None = None  # Frames with their neighbours in the second axis, as a ring.
        self._now = 0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        half, bins = self._width // 2, len(frame)
        if self._past is None:
            self._past = np.zeros((max(self._delays) + 1, bins, self._taps.shape[1]), np.float32)
            self._padded = np.zeros((bins + 2 * half, frame.shape[1]), np.float32)
        self._padded[half : half + bins] = frame
        channels = frame.shape[1]
        for offset in range(self._width):
            self._past[self._now, :, offset * channels : (offset + 1) * channels] = self._padded[offset : offset + bins]
        total = self._bias
        for tap, delay in zip(self._taps, self._delays, strict=True):
            total = total + self._past[self._now - delay] @ tap  # Negative indices count from the ring's end.
        self._now = (self._now + 1) % len(self._past)
        answer = np.maximum(total, 0.0)
        return answer + frame if self._residual else answer


def _folded(
    layer: keras.layers.Layer, acoustic: keras.Model, norm_name: str, pitch_bias: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution with the batch normalisation (and bias per pitch) that follows."""
    norm = acoustic.get_layer(norm_name)
    gamma, beta, mean, variance = (_array(v) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    scale = gamma / np.sqrt(variance + norm.epsilon)
    before = _array(acoustic.get_layer(pitch_bias).bias) if pitch_bias else 0.0
    return (_array(layer.kernel) * scale).astype(np.float32), ((before - mean) * scale + beta).astype(np.float32)


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)


def _pitch_shared(acoustic: keras.Model) -> list[Step]:
    """Of `polyamp.models.pitch_shared.trunk`."""
    names = [layer.name for layer in acoustic.layers]
    steps: list[Step] = [_harmonics(acoustic.get_layer("harmonics"))]
    steps.append(Convolution(acoustic, "stem_conv", "stem_norm", pitch_bias="stem_pitch_bias"))
    for number in range(1, 1 + sum(name.endswith("_conv") and name.startswith("block") for name in names)):
        steps.append(Convolution(acoustic, f"block{number}_conv", f"block{number}_norm", residual=True))
        if f"mixing{number}_gather" in names:
            steps.append(_mixing(acoustic, f"mixing{number}"))
    return steps


def _harmonics(layer: HarmonicStack) -> Step:
    """Of `polyamp.models.layers.HarmonicStack`: `[294]` to `[88, 3 * harmonics]`."""
    lowest = np.arange(NUM_PITCHES)[:, None, None] * BINS_PER_SEMITONE
    bins = lowest + np.array(layer.offsets)[:, None] + np.arange(BINS_PER_SEMITONE)
    index = np.where((bins >= 0) & (bins < NUM_BINS), bins, NUM_BINS).reshape(NUM_PITCHES, -1)
    padded = np.zeros(NUM_BINS + 1, np.float32)

    def step(spectrum: np.ndarray) -> np.ndarray:
        padded[:-1] = spectrum
        return padded[index]

    return step


def _mixing(acoustic: keras.Model, name: str) -> Step:
    """Of `polyamp.models.pitch_shared.mixing_block`, `[88, channels]` to the same."""
    reduce, expand = (acoustic.get_layer(f"{name}_{part}") for part in ("reduce", "expand"))
    gather: IntervalDense = acoustic.get_layer(f"{name}_gather")
    kernel, bias = _array(gather.kernel), _array(gather.bias)
    sources = np.arange(NUM_PITCHES)[:, None] + np.array(gather.shifts)
    sources = np.where((sources >= 0) & (sources < NUM_PITCHES), sources, NUM_PITCHES)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    first, first_bias, last, last_bias = (_array(v) for v in (reduce.kernel, reduce.bias, expand.kernel, expand.bias))
    padded = np.zeros((NUM_PITCHES + 1, first.shape[1]), np.float32)

    def step(frame: np.ndarray) -> np.ndarray:
        np.maximum(frame @ first + first_bias, 0.0, out=padded[:-1])
        gathered = np.maximum(padded[sources].reshape(NUM_PITCHES, -1) @ kernel + bias, 0.0)
        return frame + (gathered @ last + last_bias)

    return step


def _conv_stack(acoustic: keras.Model) -> list[Step]:
    """Of `polyamp.models.onsets_frames.conv_stack`: `[bins]` to `[fc_size]`."""
    dense = acoustic.get_layer("acoustic_dense")
    kernel, bias = _array(dense.kernel), _array(dense.bias)
    names = [layer.name for layer in acoustic.layers]
    steps: list[Step] = [lambda spectrum: spectrum[:, np.newaxis]]
    for number in range(1, 4):
        steps.append(Convolution(acoustic, f"acoustic_conv{number}", f"acoustic_norm{number}"))
        if f"acoustic_pool{number}" in names:
            steps.append(_max_pool)
    return [*steps, lambda frame: np.maximum(frame.reshape(-1) @ kernel + bias, 0.0)]


def _max_pool(frame: np.ndarray) -> np.ndarray:
    """The larger of every two neighbours in frequency."""
    pairs = frame[: len(frame) // 2 * 2].reshape(len(frame) // 2, 2, -1)
    return np.maximum(pairs[:, 0], pairs[:, 1])


class RecurrenceStep:
    """Of `polyamp.models.recurrence.StateRecurrence.free_run`: features of a frame to its states, velocities and times.

    Args:
        layer: Whose weights, and boosts where none are given.
        boosts: Added to the logits of the states, `[5]`.
    """

    def __init__(self, layer: StateRecurrence, boosts: np.ndarray | None = None):
        self._rows = NUM_PITCHES // layer.pitches_per_row
        self._feature_kernel, self._embedding = _array(layer.feature_kernel), _array(layer.embedding)
        self._context_kernel = _array(layer.context_kernel)
        self._kernels, self._recurrent_kernels, self._biases = (
            [_array(variable) for variable in of] for of in (layer.kernels, layer.recurrent_kernels, layer.biases)
        )
        self._head_kernel, self._head_bias = _array(layer.head_kernel), _array(layer.head_bias)
        self._boosts, self._buckets = layer.boosts if boosts is None else boosts, layer.age_buckets
        self._steps_of_age = age_table(layer.age_buckets)
        self._table = self._embedding @ self._context_kernel if layer.per_pitch else None
        self._hidden = [np.zeros((self._rows, layer.units), np.float32) for _ in self._biases]
        self._cells = [np.zeros((self._rows, layer.units), np.float32) for _ in self._biases]
        self._state = np.full(NUM_PITCHES, OFF)
        self._age = np.full(NUM_PITCHES, OLDEST)

    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States, velocities in [0, 1] and times in frames, each `[88]`."""
        context = self._state * self._buckets + self._steps_of_age[self._age]
        gates = features.reshape(self._rows, -1) @ self._feature_kernel + self._biases[0]
        if self._table is not None:
            gates += self._table[context]
        else:
            gates += self._embedding[context].reshape(self._rows, -1) @ self._context_kernel
        for number, recurrent in enumerate(self._recurrent_kernels):
            if number:
                gates = self._hidden[number - 1] @ self._kernels[number - 1] + self._biases[number]
            gates += self._hidden[number] @ recurrent
            self._hidden[number], self._cells[number] = _lstm(gates, self._cells[number])
        heads = (self._hidden[-1] @ self._head_kernel + self._head_bias).reshape(NUM_PITCHES, -1)
        self._state = np.argmax(heads[:, :NUM_STATES] + self._boosts, axis=1)
        self._age = np.where(self._state >= ONSET, 0, np.minimum(self._age + 1, OLDEST))
        return self._state, _sigmoid(heads[:, NUM_STATES]), heads[:, NUM_STATES + 1]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # Never overflows.


def _lstm(gates: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    units = cell.shape[1]
    put_keep = _sigmoid(gates[:, : 2 * units])
    cell = put_keep[:, units:] * cell + put_keep[:, :units] * np.tanh(gates[:, 2 * units : 3 * units])
    return _sigmoid(gates[:, 3 * units :]) * np.tanh(cell), cell
