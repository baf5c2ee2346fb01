"""Spectrogram layers without weights, for any Keras backend: HTK mel bands and the constant-Q transform, both as in librosa,
and the log-frequency spectrogram of the pitch-shared models."""

from typing import Any

import keras
import numpy as np
from keras import ops

from polyamp import constants
from polyamp.audio import filters, log_frequency
from polyamp.errors import HParamsError
from polyamp.hparams import AutoregressiveHParams, MelodicHParams
from polyamp.layer_bases import FixedFloat32Layer

_HALVING_BLOCK = 96  # Samples that one step of the rate-halving convolution takes; the fastest on a CPU.


class _DecibelSpectrogram(FixedFloat32Layer):
    """Audio `[batch, samples]` to compressed power `[batch, 1 + samples // hop_length, bins]`, float32.

    Audio is 16 kHz mono in [-1, 1]; frame `t` is centred on sample `t * hop_length`. The power in dB is raised to the absolute
    floor and scaled so that the floor is 0 and 100 dB above it 1. A value depends on the samples under the frame's window
    alone: the loudest moment of a recording has no say, and a window cut out of it gives what the whole gives.
    """

    floor_db: float  # Of the linear power, about where the noise of 16-bit recordings lies.
    num_bins: int

    def __init__(self, hop_length: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.hop_length = hop_length

    def linear(self, audio: Any) -> Any:
        """The spectrogram before compression, [batch, time, bins] float32, as librosa defines it."""
        raise NotImplementedError

    def compress(self, power: Any) -> Any:
        """Decibels above the floor, in units of 100."""
        return filters.compress(power, self.floor_db, ops)

    def num_frames(self, samples: Any) -> Any:
        """Frames of a clip; an int, or a scalar tensor where the length is not known when the graph is built."""
        return 1 + samples // self.hop_length

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, samples = input_shape
        return (batch, None if samples is None else self.num_frames(samples), self.num_bins)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hop_length": self.hop_length}


@keras.saving.register_keras_serializable(package="polyamp")
class MelSpectrogram(_DecibelSpectrogram):
    """Power in HTK mel bands, as `librosa.feature.melspectrogram(htk=True, norm=None, pad_mode="reflect")`.

    Clips shorter than half a window, which cannot be reflected, are taken to go on in silence.
    """

    floor_db = filters.MEL_FLOOR_DB

    def __init__(
        self,
        num_bins: int = 229,
        hop_length: int = 512,
        window: int = 2048,
        fmin: float = 30.0,
        fmax: float = 8000.0,
        **kwargs: Any,
    ):
        super().__init__(hop_length, **kwargs)
        self.num_bins = num_bins
        self.window = window
        self.fmin = fmin
        self.fmax = fmax
        self._hann = filters.hann(window)
        self.filterbank = filters.mel_filterbank(num_bins, window, fmin, fmax)

    def linear(self, audio: Any) -> Any:
        """Power in mel bands, [batch, time, bins]."""
        half = self.window // 2
        samples = ops.shape(audio)[1]
        if isinstance(samples, int) and samples <= half:
            audio = ops.pad(audio, [[0, 0], [0, half + 1 - samples]])
        audio = ops.pad(audio, [[0, 0], [half, half]], mode="reflect")
        real, imaginary = ops.stft(audio, self.window, self.hop_length, self.window, window=self._hann, center=False)
        power = ops.square(real) + ops.square(imaginary)  # [batch, time, frequency]
        return ops.matmul(power, self.filterbank)[:, : self.num_frames(samples)]

    def call(self, audio: Any) -> Any:
        return self.compress(self.linear(audio))

    def get_config(self) -> dict[str, Any]:
        own = {"num_bins": self.num_bins, "window": self.window, "fmin": self.fmin, "fmax": self.fmax}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="polyamp")
class CQT(_DecibelSpectrogram):
    """Constant-Q power, with the magnitude of `librosa.cqt` at its defaults (and `tuning=0`), silence beyond both ends.

    The recursive scheme of Schörkhuber and Klapuri (2010), "Constant-Q transform toolbox for music processing": the audio is
    halved in rate from octave to octave, and each octave is one strided convolution with kernels of the same length.
    Parity with librosa holds for a highest bin above 2 kHz; for lower ones librosa starts by downsampling, which rounds the
    lengths of its kernels differently.
    """

    floor_db = -80.0  # White noise of power p gives 1.5 p in every bin: 19 dB above the rounding noise of 16-bit audio.

    def __init__(
        self,
        num_bins: int = 229,
        bins_per_octave: int = 28,
        hop_length: int = 512,
        fmin: float = 27.5,
        **kwargs: Any,
    ):
        super().__init__(hop_length, **kwargs)
        self.num_bins = num_bins
        self.bins_per_octave = bins_per_octave
        self.fmin = fmin
        frequencies = filters.cqt_frequencies(num_bins, bins_per_octave, fmin)
        highest = frequencies[-1] * (1 + 0.75 / filters.cqt_quality(bins_per_octave))  # Half a Hann bandwidth above the centre.
        if highest > constants.SAMPLE_RATE / 2:
            raise HParamsError(
                f"{num_bins} constant-Q bins, {bins_per_octave} an octave from {fmin} Hz on, reach {highest:.0f} Hz, but audio "
                f"of 16 kHz ends at {constants.SAMPLE_RATE // 2} Hz; take fewer (spec_n_bins; of families timbre_spec_n_bins)."
            )
        even_hops = (hop_length & -hop_length).bit_length() - 1  # How often the hop can be halved.
        self._octaves = []  # (halvings, kernel [taps, 1, 2 * bins]), the highest octave first.
        for octave, stop in enumerate(range(num_bins, 0, -bins_per_octave)):
            halvings = min(octave, even_hops)
            kernel = filters.cqt_kernels(frequencies[max(0, stop - bins_per_octave) : stop], bins_per_octave, halvings)
            parts = np.concatenate([kernel.real, kernel.imag], axis=1).astype(np.float32)
            self._octaves.append((halvings, parts[:, None]))
        self._halving = filters.blockwise_halving(_HALVING_BLOCK)

    def linear(self, audio: Any) -> Any:
        """Magnitudes of `librosa.cqt`, [batch, time, bins]."""
        return ops.sqrt(self._power(audio))

    def call(self, audio: Any) -> Any:
        return self.compress(self._power(audio))

    def _power(self, audio: Any) -> Any:
        """Squared magnitudes, [batch, time, bins]."""
        frames = self.num_frames(ops.shape(audio)[1])
        powers, done = [], 0
        for halvings, kernel in self._octaves:
            if halvings > done:
                audio = self._halve_rate(audio)
                done += 1
            half, bins = kernel.shape[0] // 2, kernel.shape[2] // 2
            padded = ops.pad(audio, [[0, 0], [half, half]])[..., None]
            parts = ops.conv(padded, kernel, strides=self.hop_length >> done, data_format="channels_last")
            parts = ops.square(parts[:, :frames])  # [batch, time, real and imaginary parts]
            powers.append(parts[..., :bins] + parts[..., bins:])
        return ops.concatenate(powers[::-1], axis=-1)

    def _halve_rate(self, audio: Any) -> Any:
        """[batch, samples] to [batch, ceil(samples / 2)]."""
        batch, samples = ops.shape(audio)
        blocks = (samples + _HALVING_BLOCK - 1) // _HALVING_BLOCK
        padded = ops.pad(audio, [[0, 0], [0, _HALVING_BLOCK - 1]])[:, : blocks * _HALVING_BLOCK]
        padded = ops.reshape(padded, (batch, blocks, _HALVING_BLOCK))
        halved = ops.conv(padded, self._halving, padding="same", data_format="channels_last")
        # The filter rings on beyond the end; librosa cuts that off.
        return ops.reshape(halved, (batch, blocks * _HALVING_BLOCK // 2))[:, : (samples + 1) // 2]

    def get_config(self) -> dict[str, Any]:
        own = {"num_bins": self.num_bins, "bins_per_octave": self.bins_per_octave, "fmin": self.fmin}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="polyamp")
class LogFrequencySpectrogram(FixedFloat32Layer):
    """Audio to compressed log-frequency power, without weights.

    Input `[batch, samples]`, float32 in [-1, 1] at 16 kHz. Output `[batch, 1 + samples // hop, 294]`, float32, 0 for silence
    and 1 for a full-scale sine; frame `t` is centred on sample `t * hop`, with silence beyond both ends. With `align_ends` only
    the longer window is, and the shorter one ends with it: it hears what is newest. The value of a frame depends on the samples
    under its window alone, never on the loudness of the rest. The bins are those of instruments whose A4 is `a4_hz`.
    """

    def __init__(
        self,
        hop_length: int = 512,
        windows: tuple[int, ...] = log_frequency.WINDOWS,
        align_ends: bool = False,
        a4_hz: float = log_frequency.A4_HZ,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hop_length = hop_length
        self.windows = tuple(windows)
        self.align_ends = align_ends
        self.a4_hz = a4_hz
        self._filters = log_frequency.trimmed_filters(self.windows, a4_hz)

    def call(self, audio: Any) -> Any:
        bands = []
        for window, (before, after) in log_frequency.paddings(self.windows, self.align_ends).items():
            weights = self._filters[window]
            padded = ops.pad(audio, [[0, 0], [max(before, 0), after]])[:, max(-before, 0) :]
            real, imaginary = ops.stft(padded, window, self.hop_length, window, window="hann", center=False)
            power = ops.square(real[..., : len(weights)]) + ops.square(imaginary[..., : len(weights)])
            bands.append(ops.matmul(power, weights))  # [batch, time, bins of this window]
        return log_frequency.compress(ops.concatenate(bands, axis=-1), ops.log1p)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        samples = input_shape[1]
        return (input_shape[0], None if samples is None else 1 + samples // self.hop_length, log_frequency.NUM_BINS)

    def get_config(self) -> dict[str, Any]:
        own = {"hop_length": self.hop_length, "windows": self.windows, "align_ends": self.align_ends}
        # Left out where it is concert pitch: caches of spectrograms from before there was this are still what they should be.
        tuning = {} if self.a4_hz == log_frequency.A4_HZ else {"a4_hz": self.a4_hz}
        return {**super().get_config(), **own, **tuning}


def make_spectrogram(hparams: MelodicHParams, name: str = "spectrogram") -> keras.layers.Layer:
    """The layer that `hparams.spec_type` asks for.

    Args:
        hparams: Settings of any model.
        name: The layer's name.

    Returns:
        A layer from audio [batch, samples] to [batch, 1 + samples // hparams.hop_length, bins], float32.
    """
    if hparams.spec_type == "log_frequency":
        if isinstance(hparams, AutoregressiveHParams):
            return LogFrequencySpectrogram(hparams.hop_length, hparams.spec_windows, True, hparams.a4_hz, name=name)
        return LogFrequencySpectrogram(hparams.hop_length, name=name)
    if hparams.spec_type == "mel":
        return MelSpectrogram(
            num_bins=hparams.spec_n_bins,
            hop_length=hparams.hop_length,
            window=hparams.mel_window,
            fmin=hparams.spec_fmin,
            fmax=hparams.mel_fmax,
            name=name,
        )
    return CQT(
        num_bins=hparams.spec_n_bins,
        bins_per_octave=hparams.cqt_bins_per_octave,
        hop_length=hparams.hop_length,
        fmin=hparams.spec_fmin,
        name=name,
    )
