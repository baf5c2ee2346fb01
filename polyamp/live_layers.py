"""The Autoregressive model one frame at a time, in numpy: what its Keras layers compute, with ring buffers for the past.

A step of the compact network is some dozens of small products, for which calling a Keras function costs several times what they
cost, and Keras itself takes seconds to start. Batch normalisation is folded into the convolutions. Every object keeps its own
past and its memory never grows.

Weights are given by the names that they have in a checkpoint (`polyamp.checkpoint_file.network_weights`).
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from polyamp.audio import filters
from polyamp.audio.log_frequency import BINS_PER_SEMITONE, NUM_BINS, compress, harmonic_offsets, trimmed_filters
from polyamp.constants import NUM_PITCHES
from polyamp.hparams import AutoregressiveHParams
from polyamp.notes.states import NUM_STATES, OFF, OLDEST, ONSET, age_table, boosts

Step: TypeAlias = Callable[[np.ndarray], np.ndarray]  # Takes one frame and gives one, float32.
Weights: TypeAlias = Mapping[str, np.ndarray]  # float32

_NORM_EPSILON = 1e-3  # Of Keras' batch normalisation.
_POOLED = (2, 3)  # Convolutions of the published network that a pooling over frequency follows.


def spectrum_step(hparams: AutoregressiveHParams) -> tuple[int, Step]:
    """How many samples a frame of the spectrum is made of, and the function from these to its bins."""
    return hparams.window_length, (_mel if hparams.spec_type == "mel" else _log_frequency)(hparams)


def _power(samples: np.ndarray, window: np.ndarray) -> np.ndarray:
    bins = np.fft.rfft(samples * window)
    return (np.square(bins.real) + np.square(bins.imag)).astype(np.float32)


def _mel(hparams: AutoregressiveHParams) -> Step:
    """Of `polyamp.audio.spectrogram.MelSpectrogram`."""
    window = filters.hann(hparams.mel_window)
    filterbank = filters.mel_filterbank(hparams.spec_n_bins, hparams.mel_window, hparams.spec_fmin, hparams.mel_fmax)

    def step(samples: np.ndarray) -> np.ndarray:
        return filters.compress(_power(samples, window) @ filterbank, filters.MEL_FLOOR_DB).astype(np.float32)

    return step


def _log_frequency(hparams: AutoregressiveHParams) -> Step:
    """Of `polyamp.audio.spectrogram.LogFrequencySpectrogram` whose windows end together."""
    longest = max(hparams.spec_windows)
    parts = [
        (slice(longest - length, longest), filters.hann(length), weights)
        for length, weights in trimmed_filters(hparams.spec_windows, hparams.a4_hz).items()
    ]

    def step(samples: np.ndarray) -> np.ndarray:
        bands = [_power(samples[part], window)[: len(weights)] @ weights for part, window, weights in parts]
        return compress(np.concatenate(bands)).astype(np.float32)

    return step


def acoustic_step(weights: Weights, hparams: AutoregressiveHParams) -> Step:
    """The function from a frame's spectrum to features, of the frame as many frames earlier as the kernels look ahead."""
    steps = (_pitch_shared if hparams.architecture == "pitch_shared" else _conv_stack)(weights, hparams)

    def step(frame: np.ndarray) -> np.ndarray:
        for one in steps:
            frame = one(frame)
        return frame

    return step


def _kernel(weights: Weights, name: str) -> np.ndarray:
    """Of a convolution over time and pitch, `[frames, pitches, channels, filters]`, also if it is in two (`conv_rank`)."""
    if f"{name}/kernel" in weights:
        return weights[f"{name}/kernel"]
    return np.einsum("tir,pro->tpio", weights[f"{name}_time/kernel"][:, 0], weights[f"{name}_pitch/kernel"][0])


class Convolution:
    """A convolution over time and a second axis, whose ends are padded with zeros; then ReLU, and its input if `residual`.

    Batch normalisation, and a bias per pitch before it where there is one, are folded into kernel and bias. Frame `t` of the
    answer is the middle of the kernel where the convolution is not causal: `t` frames less half a kernel.

    Args:
        weights: Of the network.
        name: Its layers are called `<name>conv<number>` and so on, as in "block1_conv" or "acoustic_conv1".
        number: The last part of these names.
        dilation: In time.
        residual: Whether the input is added.
    """

    def __init__(self, weights: Weights, name: str, number: str = "", dilation: int = 1, residual: bool = False):
        gamma, beta, mean, variance = (
            weights[f"{name}_norm{number}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + _NORM_EPSILON)
        before = weights.get(f"{name}_pitch_bias/bias", np.float32(0.0))
        kernel = _kernel(weights, f"{name}_conv{number}") * scale
        frames, width, channels, num_filters = kernel.shape
        self._taps = kernel.reshape(frames, width * channels, num_filters).astype(np.float32)
        self._bias = ((before - mean) * scale + beta).astype(np.float32)
        self._width, self._residual = width, residual
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


def _pitch_shared(weights: Weights, hparams: AutoregressiveHParams) -> list[Step]:
    """Of `polyamp.models.pitch_shared.trunk`."""
    steps: list[Step] = [_harmonics(hparams), Convolution(weights, "stem")]
    for number, dilation in enumerate(hparams.temporal_dilations, start=1):
        steps.append(Convolution(weights, f"block{number}", dilation=dilation, residual=True))
        if number in hparams.mixing_after:
            steps.append(_mixing(weights, f"mixing{number}", hparams.mixing_intervals))
    return steps


def _harmonics(hparams: AutoregressiveHParams) -> Step:
    """Of `polyamp.models.layers.HarmonicStack`: `[294]` to `[88, 3 * harmonics]`."""
    lowest = np.arange(NUM_PITCHES)[:, None, None] * BINS_PER_SEMITONE
    bins = lowest + np.array(harmonic_offsets(hparams.harmonics))[:, None] + np.arange(BINS_PER_SEMITONE)
    index = np.where((bins >= 0) & (bins < NUM_BINS), bins, NUM_BINS).reshape(NUM_PITCHES, -1)
    padded = np.zeros(NUM_BINS + 1, np.float32)

    def step(spectrum: np.ndarray) -> np.ndarray:
        padded[:-1] = spectrum
        return padded[index]

    return step


def _mixing(weights: Weights, name: str, intervals: tuple[int, ...]) -> Step:
    """Of `polyamp.models.pitch_shared.mixing_block`, `[88, channels]` to the same."""
    (first, first_bias), (kernel, bias), (last, last_bias) = (
        (weights[f"{name}_{part}/kernel"], weights[f"{name}_{part}/bias"]) for part in ("reduce", "gather", "expand")
    )
    shifts = [0, *intervals, *(-interval for interval in intervals)]  # As `IntervalDense` has them.
    sources = np.arange(NUM_PITCHES)[:, None] + np.array(shifts)
    sources = np.where((sources >= 0) & (sources < NUM_PITCHES), sources, NUM_PITCHES)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    padded = np.zeros((NUM_PITCHES + 1, first.shape[1]), np.float32)

    def step(frame: np.ndarray) -> np.ndarray:
        np.maximum(frame @ first + first_bias, 0.0, out=padded[:-1])
        gathered = np.maximum(padded[sources].reshape(NUM_PITCHES, -1) @ kernel + bias, 0.0)
        return frame + (gathered @ last + last_bias)

    return step


def _conv_stack(weights: Weights, hparams: AutoregressiveHParams) -> list[Step]:
    """Of `polyamp.models.onsets_frames.conv_stack`: `[bins]` to `[fc_size]`."""
    kernel, bias = weights["acoustic_dense/kernel"], weights["acoustic_dense/bias"]
    steps: list[Step] = [lambda spectrum: spectrum[:, np.newaxis]]
    for number in range(1, 1 + len(hparams.acoustic_kernels)):
        steps.append(Convolution(weights, "acoustic", str(number)))
        if number in _POOLED:
            steps.append(_max_pool)
    return [*steps, lambda frame: np.maximum(frame.reshape(-1) @ kernel + bias, 0.0)]


def _max_pool(frame: np.ndarray) -> np.ndarray:
    """The larger of every two neighbours in frequency."""
    pairs = frame[: len(frame) // 2 * 2].reshape(len(frame) // 2, 2, -1)
    return np.maximum(pairs[:, 0], pairs[:, 1])


class RecurrenceStep:
    """Of `polyamp.models.recurrence.StateRecurrence.free_run`: features of a frame to its states, velocities and times."""

    def __init__(self, weights: Weights, hparams: AutoregressiveHParams):
        own = {name.removeprefix("recurrence/"): array for name, array in weights.items()}
        layers = range(1, 1 + hparams.recurrent_layers)
        per_pitch = hparams.architecture == "pitch_shared"
        self._rows = NUM_PITCHES if per_pitch else 1
        self._feature_kernel, self._embedding, self._context_kernel, self._head_kernel, self._head_bias = (
            own[name] for name in ("feature_kernel", "embedding", "context_kernel", "head_kernel", "head_bias")
        )
        self._kernels = [own[f"kernel{number}"] for number in layers[1:]]
        self._recurrent_kernels = [own[f"recurrent_kernel{number}"] for number in layers]
        self._biases = [own[f"bias{number}"] for number in layers]
        self._boosts, self._buckets = boosts(hparams.onset_boost, hparams.offset_boost), hparams.age_buckets
        self._steps_of_age = age_table(hparams.age_buckets)
        self._table = self._embedding @ self._context_kernel if per_pitch else None
        self._hidden = [np.zeros((self._rows, hparams.recurrent_units), np.float32) for _ in layers]
        self._cells = [np.zeros((self._rows, hparams.recurrent_units), np.float32) for _ in layers]
        self._state = np.full(NUM_PITCHES, OFF)
        self._age = np.full(NUM_PITCHES, OLDEST)

    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """States, velocities in [0, 1], times in frames and probabilities of onsets, each `[88]`."""
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
        onset = _probabilities(heads[:, :NUM_STATES])[:, ONSET:].sum(axis=1)
        return self._state, _sigmoid(heads[:, NUM_STATES]), heads[:, NUM_STATES + 1], onset


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Of each row."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # Never overflows.


def _lstm(gates: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    units = cell.shape[1]
    put_keep = _sigmoid(gates[:, : 2 * units])
    cell = put_keep[:, units:] * cell + put_keep[:, :units] * np.tanh(gates[:, 2 * units : 3 * units])
    return _sigmoid(gates[:, 3 * units :]) * np.tanh(cell), cell
