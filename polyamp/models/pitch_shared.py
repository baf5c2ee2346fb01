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


def _small() -> keras.initializers.Initializer:
    """Weights a third as strong as Keras draws them for these layers, as PyTorch does.

    Batch normalisation makes the size of convolution weights irrelevant to the output, but a step of Adam changes small ones
    by more: from Keras' own start the network learned a third slower (polyamp/checkpoints/README.md).
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _convolution(
    inputs: keras.KerasTensor, channels: int, dilation: int, is_causal: bool, name: str, rank: int = 0
) -> keras.KerasTensor:
    """3 x 3 convolution without bias, dilated in time: over frames on both sides or, `is_causal`, over the past only.

    With a `rank` it is two, over time to so many channels and over pitch from these, with `rank / (1.5 * channels)` times the
    multiplications (Jaderberg et al., "Speeding up convolutional neural networks with low rank expansions", BMVC 2014).
    """
    parts = [(rank, (3, 1), f"{name}_time"), (channels, (1, 3), f"{name}_pitch")] if rank else [(channels, (3, 3), name)]
    for filters, size, part in parts:
        if is_causal:
            inputs = layers.ZeroPadding2D(((dilation * (size[0] - 1), 0), (size[1] // 2,) * 2), name=f"{part}_past")(inputs)
        inputs = layers.Conv2D(
            filters,
            size,
            padding="valid" if is_causal else "same",
            dilation_rate=(dilation if size[0] > 1 else 1, 1),
            use_bias=False,
            kernel_initializer=_small(),
            name=part,
        )(inputs)
    return inputs


def residual_block(
    inputs: keras.KerasTensor, dilation: int, name: str, is_causal: bool = False, rank: int = 0
) -> keras.KerasTensor:
    """3 x 3 convolution (dilated in time, in two if it has a `rank`), batch normalisation, ReLU, added to its input.

    `[batch, time, 88, channels]`.
    """
    outputs = _convolution(inputs, inputs.shape[-1], dilation, is_causal, f"{name}_conv", rank)
    outputs = layers.BatchNormalization(name=f"{name}_norm")(outputs)
    outputs = layers.ReLU(name=f"{name}_relu")(outputs)
    return layers.Add(name=f"{name}_add")([inputs, outputs])


def mixing_block(inputs: keras.KerasTensor, channels: int, intervals: tuple[int, ...], name: str) -> keras.KerasTensor:
    """Reduces the channels, gathers them over musical intervals and adds what they say. `[batch, time, 88, channels]`."""
    outputs = layers.Dense(channels, activation="relu", kernel_initializer=_small(), name=f"{name}_reduce")(inputs)
    outputs = IntervalDense(channels, intervals, name=f"{name}_gather")(outputs)
    outputs = layers.ReLU(name=f"{name}_relu")(outputs)
    outputs = layers.Dense(inputs.shape[-1], kernel_initializer="zeros", name=f"{name}_expand")(outputs)  # Starts as identity.
    return layers.Add(name=f"{name}_add")([inputs, outputs])


def trunk(spectrum: keras.KerasTensor, hparams: MelodicHParams, is_causal: bool = False) -> keras.KerasTensor:
    """Features of a log-frequency spectrum, `[batch, time, 294]` to `[batch, time, 88, channels]`.

    The frames that a feature depends on lie on both sides of it or, `is_causal`, all before it.
    """
    x = HarmonicStack(hparams.harmonics, name="harmonics")(spectrum)  # [batch, time, pitch, harmonic]
    x = _convolution(x, hparams.channels, 1, is_causal, "stem_conv")
    x = PitchBias(name="stem_pitch_bias")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for number, dilation in enumerate(hparams.temporal_dilations, start=1):
        x = residual_block(x, dilation, f"block{number}", is_causal, hparams.conv_rank)
        if number in hparams.mixing_after:
            x = mixing_block(x, hparams.mixing_channels, hparams.mixing_intervals, f"mixing{number}")
    return x


def build_network(hparams: MelodicHParams) -> keras.Model:
    """Log-frequency spectrum `[batch, time, 294]` to a dict of probabilities, each `[batch, time, 88]` float32."""
    spectrum = keras.Input((None, NUM_BINS), dtype="float32", name="spectrum")
    x = trunk(spectrum, hparams)
    # One layer for all heads, as the features are large and four passes over them slow.
    start = keras.initializers.Constant([_PRIOR_LOGIT[roll] for roll in constants.ROLLS])
    heads = layers.Dense(
        len(constants.ROLLS), kernel_initializer=_small(), bias_initializer=start, dtype="float32", name="heads"
    )(x)  # [batch, time, pitch, roll]
    outputs = {
        roll: layers.Activation("sigmoid", dtype="float32", name=roll)(heads[..., index])
        for index, roll in enumerate(constants.ROLLS)
    }
    return keras.Model(spectrum, outputs, name="network")
