"""Layers that the models share."""

import keras
import numpy as np
from keras import ops

from polyamp import constants
from polyamp.audio.log_frequency import BINS_PER_SEMITONE, NUM_BINS, harmonic_offsets
from polyamp.layer_bases import FixedLayer


@keras.saving.register_keras_serializable(package="polyamp")
class HarmonicStack(FixedLayer):
    """Lines up, for every pitch, the spectrum at that pitch's harmonics (compare Bittner et al. 2017, "deep salience").

    Input `[batch, time, 294]` (see `polyamp.audio.log_frequency`), output `[batch, time, 88, 3 * len(harmonics)]`: for each
    harmonic the nearest bin and its two neighbours. Bins outside the spectrum read as silence.
    """

    def __init__(self, harmonics: tuple[float, ...], **kwargs):
        super().__init__(**kwargs)
        self.harmonics = tuple(harmonics)
        self.offsets = harmonic_offsets(self.harmonics)

    def call(self, spectrum):
        offsets = self.offsets
        below = max(0, -min(offsets))
        width = constants.NUM_PITCHES * BINS_PER_SEMITONE
        above = max(0, max(offsets) + width - NUM_BINS)
        padded = ops.pad(spectrum, [[0, 0], [0, 0], [below, above]])
        shape = ops.shape(spectrum)
        stacked = [
            ops.reshape(  # [batch, time, pitch, 3]
                padded[:, :, below + offset : below + offset + width],
                (shape[0], shape[1], constants.NUM_PITCHES, BINS_PER_SEMITONE),
            )
            for offset in offsets
        ]
        return ops.concatenate(stacked, axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], constants.NUM_PITCHES, BINS_PER_SEMITONE * len(self.harmonics))

    def get_config(self):
        return {**super().get_config(), "harmonics": self.harmonics}


@keras.saving.register_keras_serializable(package="polyamp")
class IntervalDense(keras.layers.Layer):
    """A dense layer over the channels of each pitch and of the pitches that lie given intervals above and below it.

    Input `[batch, time, 88, channels]`, output `[batch, time, 88, units]`; pitches off the keyboard read as zero. Octaves,
    twelfths and thirds are where a note's harmonics are mistaken for other notes. The weights are shared over pitch; they are
    laid out as one (block Toeplitz) matrix over all pitches, since one large product is ten times faster on a CPU than
    gathering the intervals.
    """

    def __init__(self, units: int, intervals: tuple[int, ...], **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.intervals = tuple(intervals)
        self.shifts = [0, *self.intervals, *(-interval for interval in self.intervals)]

    def build(self, input_shape):
        channels = input_shape[-1]
        fan_in = channels * len(self.shifts)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(len(self.shifts), channels, self.units),
            initializer=keras.initializers.RandomUniform(-((6 / fan_in) ** 0.5), (6 / fan_in) ** 0.5),  # He et al. 2015
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def _tap_of_pair(self) -> np.ndarray:
        """`[pitch in, pitch out]`: index into the kernel, or one past its end where the two pitches are not connected."""
        difference = np.arange(constants.NUM_PITCHES)[:, None] - np.arange(constants.NUM_PITCHES)[None, :]
        taps = np.full(difference.shape, len(self.shifts))
        for tap, shift in enumerate(self.shifts):
            taps[difference == shift] = tap
        return taps

    def call(self, inputs):
        pitches, channels = inputs.shape[-2:]
        blocks = ops.take(ops.pad(self.kernel, [[0, 1], [0, 0], [0, 0]]), self._tap_of_pair(), axis=0)  # [in, out, c, unit]
        matrix = ops.reshape(ops.transpose(blocks, (0, 2, 1, 3)), (pitches * channels, pitches * self.units))
        shape = ops.shape(inputs)
        flat = ops.reshape(inputs, (shape[0], shape[1], pitches * channels))  # [batch, time, pitch * channel]
        outputs = ops.reshape(ops.matmul(flat, matrix), (shape[0], shape[1], pitches, self.units))
        return outputs + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "intervals": self.intervals}


@keras.saving.register_keras_serializable(package="polyamp")
class PitchBias(keras.layers.Layer):
    """Adds a trained bias per pitch and channel to `[batch, time, 88, channels]`, where all else is shared over pitch."""

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=tuple(input_shape[2:]), initializer="zeros")

    def call(self, inputs):
        return inputs + self.bias

    def compute_output_shape(self, input_shape):
        return input_shape


def audio_input() -> keras.KerasTensor:
    """The input of every model: `[batch, samples]` audio."""
    return keras.Input((None,), dtype="float32", name="audio")
