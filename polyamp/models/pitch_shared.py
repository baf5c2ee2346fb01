"""The compact Melodic network: convolutions over time and pitch whose weights are shared over all 88 pitches.

A harmonic stack turns transposition into translation (Bittner et al. 2017; Wei et al. 2022, "HarmoF0"), so that one set of
small filters serves every pitch; layers that gather musical intervals stand in for the wide frequency context of dense layers.
"""

import keras
from keras import layers

from polyamp import constants
from polyamp.audio.log_frequency import NUM_BINS
from polyamp.hparams import MelodicHParams
from polyamp.models.layers import HarmonicStack, IntervalDense, PitchBias

# Logits of how often each roll is true, where training starts: events are rare.
_PRIOR_LOGIT = {"onset": -4.0, "offset": -4.0, "frame": -2.5, "velocity": 0.0}


def residual_block(inputs: keras.KerasTensor, dilation: int, name: str) -> keras.KerasTensor:
    """3 x 3 convolution (dilated in time), batch normalisation, ReLU, added to its input. `[batch, time, 88, channels]`."""
    outputs = layers.Conv2D(
        inputs.shape[-1], 3, padding="same", dilation_rate=(dilation, 1), use_bias=False, name=f"{name}_conv"
    )(inputs)
    outputs = layers.BatchNormalization(name=f"{name}_norm")(outputs)
    outputs = layers.ReLU(name=f"{name}_relu")(outputs)
    return layers.Add(name=f"{name}_add")([inputs, outputs])


def mixing_block(inputs: keras.KerasTensor, channels: int, intervals: tuple[int, ...], name: str) -> keras.KerasTensor:
    """Reduces the channels, gathers them over musical intervals and adds what they say. `[batch, time, 88, channels]`."""
    outputs = layers.Dense(channels, activation="relu", name=f"{name}_reduce")(inputs)
    outputs = IntervalDense(channels, intervals, name=f"{name}_gather")(outputs)
    outputs = layers.ReLU(name=f"{name}_relu")(outputs)
    outputs = layers.Dense(inputs.shape[-1], kernel_initializer="zeros", name=f"{name}_expand")(outputs)  # Starts as identity.
    return layers.Add(name=f"{name}_add")([inputs, outputs])


def build_network(hparams: MelodicHParams) -> keras.Model:
    """Log-frequency spectrum `[batch, time, 294]` to a dict of probabilities, each `[batch, time, 88]` float32."""
    spectrum = keras.Input((None, NUM_BINS), dtype="float32", name="spectrum")
    x = HarmonicStack(hparams.harmonics, name="harmonics")(spectrum)  # [batch, time, pitch, harmonic]
    x = layers.Conv2D(hparams.channels, 3, padding="same", use_bias=False, name="stem_conv")(x)
    x = PitchBias(name="stem_pitch_bias")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for number, dilation in enumerate(hparams.temporal_dilations, start=1):
        x = residual_block(x, dilation, f"block{number}")
        if number in hparams.mixing_after:
            x = mixing_block(x, hparams.mixing_channels, hparams.mixing_intervals, f"mixing{number}")
    outputs = {}
    for head in constants.ROLLS:
        start = keras.initializers.Constant(_PRIOR_LOGIT[head])
        logits = layers.Dense(1, bias_initializer=start, dtype="float32", name=f"{head}_logit")(x)  # [batch, time, pitch, 1]
        rolls = layers.Reshape((-1, constants.NUM_PITCHES), name=f"{head}_roll")(logits)
        outputs[head] = layers.Activation("sigmoid", dtype="float32", name=head)(rolls)
    return keras.Model(spectrum, outputs, name="network")
