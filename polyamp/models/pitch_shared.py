"""The compact Melodic network: convolutions over time and pitch whose weights are shared over all 88 pitches.

A harmonic stack turns transposition into translation (Bittner et al. 2017; Wei et al. 2022, "HarmoF0"), so that one set of
small filters serves every pitch; layers that gather musical intervals stand in for the wide frequency context of dense layers.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import keras
from keras import layers

from polyamp import constants
from polyamp.audio.log_frequency import NUM_BINS
from polyamp.hparams import MelodicHParams
from polyamp.models.layers import HarmonicStack, IntervalDense, PitchBias

# Where the frames before the first and after the last one come from that a convolution over time needs: they are zeros on both
# sides, or all before the first, which makes it causal; or they are given, and the answer is shorter by them.
Ends: TypeAlias = Literal["zeros", "zeros_before", "given"]

# Logits of how often each roll is true, where training starts: events are rare.
_PRIOR_LOGIT = {"onset": -4.0, "offset": -4.0, "frame": -2.5, "velocity": 0.0}


def _small() -> keras.initializers.Initializer:
    """Weights a third as strong as Keras draws them for these layers, as PyTorch does.

    Batch normalisation makes the size of convolution weights irrelevant to the output, but a step of Adam changes small ones
    by more: from Keras' own start the network learned a third slower (polyamp/checkpoints/README.md).
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _convolution(
    inputs: keras.KerasTensor, channels: int, dilation: int, ends: Ends, name: str, rank: int = 0
) -> keras.KerasTensor:
    """3 x 3 convolution without bias, dilated in time. `2 * dilation` frames shorter than its input if the ends are given.

    With a `rank` it is two, over time to so many channels and over pitch from these, with `rank / (1.5 * channels)` times the
    multiplications (Jaderberg et al., "Speeding up convolutional neural networks with low rank expansions", BMVC 2014).
    """
    parts = [(rank, (3, 1), f"{name}_time"), (channels, (1, 3), f"{name}_pitch")] if rank else [(channels, (3, 3), name)]
    for filters, size, part in parts:
        if ends != "zeros":
            before = dilation * (size[0] - 1) if ends == "zeros_before" else 0
            inputs = layers.ZeroPadding2D(((before, 0), (size[1] // 2,) * 2), name=f"{part}_ends")(inputs)
        inputs = layers.Conv2D(
            filters,
            size,
            padding="same" if ends == "zeros" else "valid",
            dilation_rate=(dilation if size[0] > 1 else 1, 1),
            use_bias=False,
            kernel_initializer=_small(),
            name=part,
        )(inputs)
    return inputs


def residual_block(
    inputs: keras.KerasTensor, dilation: int, name: str, ends: Ends = "zeros", rank: int = 0
) -> keras.KerasTensor:
    """3 x 3 convolution (dilated in time, in two if it has a `rank`), batch normalisation, ReLU, added to its input.

    `[batch, time, 88, channels]`; `dilation` frames fewer on both sides if the ends are given.
    """
    outputs = _convolution(inputs, inputs.shape[-1], dilation, ends, f"{name}_conv", rank)
    outputs = layers.BatchNormalization(name=f"{name}_norm")(outputs)
    outputs = layers.ReLU(name=f"{name}_relu")(outputs)
    if ends == "given":
        inputs = inputs[:, dilation:-dilation]
    return layers.Add(name=f"{name}_add")([inputs, outputs])


def mixing_block(inputs: keras.KerasTensor, channels: int, intervals: tuple[int, ...], name: str) -> keras.KerasTensor:
    """Reduces the channels, gathers them over musical intervals and adds what they say. `[batch, time, 88, channels]`."""
    outputs = layers.Dense(channels, activation="relu", kernel_initializer=_small(), name=f"{name}_reduce")(inputs)
    outputs = IntervalDense(channels, intervals, name=f"{name}_gather")(outputs)
    outputs = layers.ReLU(name=f"{name}_relu")(outputs)
    outputs = layers.Dense(inputs.shape[-1], kernel_initializer="zeros", name=f"{name}_expand")(outputs)  # Starts as identity.
    return layers.Add(name=f"{name}_add")([inputs, outputs])


def trunk(
    spectrum: keras.KerasTensor,
    hparams: MelodicHParams,
    is_causal: bool = False,
    extend: Callable[[keras.KerasTensor, int, str], keras.KerasTensor] | None = None,
) -> keras.KerasTensor:
    """Features of a log-frequency spectrum, `[batch, time, 294]` to `[batch, time, 88, channels]`.

    Args:
        spectrum: The spectrum.
        hparams: The model's.
        is_causal: Whether the frames that a feature depends on lie all before it, instead of on both sides.
        extend: Called with what a convolution hears, its dilation and its block's name; gives the same with the `2 * dilation`
            frames more that it needs. By default they are zeros.
    """
    ends: Ends = "given" if extend is not None else "zeros_before" if is_causal else "zeros"
    extend = extend or (lambda inputs, dilation, block: inputs)
    x = HarmonicStack(hparams.harmonics, name="harmonics")(spectrum)  # [batch, time, pitch, harmonic]
    x = _convolution(extend(x, 1, "stem"), hparams.channels, 1, ends, "stem_conv")
    x = PitchBias(name="stem_pitch_bias")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for number, dilation in enumerate(hparams.temporal_dilations, start=1):
        x = residual_block(extend(x, dilation, f"block{number}"), dilation, f"block{number}", ends, hparams.conv_rank)
        if number in hparams.mixing_after:
            x = mixing_block(x, hparams.mixing_channels, hparams.mixing_intervals, f"mixing{number}")
    return x


def _heads(features: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
    """Probabilities by roll, each `[batch, time, 88]` float32."""
    # One layer for all heads, as the features are large and four passes over them slow.
    start = keras.initializers.Constant([_PRIOR_LOGIT[roll] for roll in constants.ROLLS])
    heads = layers.Dense(
        len(constants.ROLLS), kernel_initializer=_small(), bias_initializer=start, dtype="float32", name="heads"
    )(features)  # [batch, time, pitch, roll]
    return {
        roll: layers.Activation("sigmoid", dtype="float32", name=roll)(heads[..., index])
        for index, roll in enumerate(constants.ROLLS)
    }


def build_network(hparams: MelodicHParams) -> keras.Model:
    """Log-frequency spectrum `[batch, time, 294]` to a dict of probabilities, each `[batch, time, 88]` float32."""
    spectrum = keras.Input((None, NUM_BINS), dtype="float32", name="spectrum")
    return keras.Model(spectrum, _heads(trunk(spectrum, hparams)), name="network")


def stream_of(network: keras.Model, hparams: MelodicHParams, num_frames: int) -> keras.Model:
    """A network of `build_network` for a spectrum that comes in pieces, with the weights that it has now.

    What is answered is as many frames late as the network hears ahead. Nothing is computed twice, however short the pieces are.

    Args:
        network: The network.
        hparams: The model's.
        num_frames: Frames of a piece.

    Returns:
        A model of a dict of "spectrum", `[batch, num_frames, 294]`, and of what each block kept of the pieces before, to begin
        with zeros, to a dict of probabilities, `[batch, num_frames, 88]`, and of what is kept for the next piece, under the
        same names.
    """
    spectrum = keras.Input((num_frames, NUM_BINS), dtype="float32", name="spectrum")
    before: dict[str, keras.KerasTensor] = {}
    after: dict[str, keras.KerasTensor] = {}

    def extend(inputs: keras.KerasTensor, dilation: int, block: str) -> keras.KerasTensor:
        name = f"{block}_kept"
        before[name] = keras.Input((2 * dilation, *inputs.shape[2:]), dtype="float32", name=name)
        extended = layers.Concatenate(axis=1, name=f"{block}_extend")([before[name], inputs])
        after[name] = extended[:, -2 * dilation :]
        return extended

    features = trunk(spectrum, hparams, extend=extend)
    stream = keras.Model({"spectrum": spectrum, **before}, {**_heads(features), **after}, name="stream")
    for layer in stream.layers:
        if layer.weights:
            layer.set_weights(network.get_layer(layer.name).get_weights())
    return stream
