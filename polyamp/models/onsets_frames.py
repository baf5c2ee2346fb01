"""The published Melodic network: onset, offset and activation stacks and the frame stack that combines them.

Hawthorne et al. 2018 (arXiv 1710.11153) figure 1, with the offset stack of Hawthorne et al. 2019 (arXiv 1810.12247).
"""

import keras
from keras import layers, ops

from polyamp import constants
from polyamp.hparams import MelodicHParams


@keras.saving.register_keras_serializable(package="polyamp")
class StopGradient(keras.layers.Layer):
    """Passes its input on and lets no gradient back."""

    def call(self, inputs):
        return ops.stop_gradient(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


def conv_stack(spectrum: keras.KerasTensor, hparams: MelodicHParams, name: str) -> keras.KerasTensor:
    """Convolutions over time and frequency, pooled in frequency only, then a dense layer per frame.

    Args:
        spectrum: `[batch, time, bins, 1]`.
        hparams: Sizes; one layer per entry of `num_filters`.
        name: Prefix of the layers' names.

    Returns:
        `[batch, time, fc_size]`.
    """
    x = spectrum
    sizes = zip(hparams.num_filters, hparams.temporal_sizes, hparams.freq_sizes, hparams.pool_sizes, strict=True)
    for number, (filters, temporal, frequency, pool) in enumerate(sizes, start=1):
        normalise = hparams.use_batch_normalization
        x = layers.Conv2D(filters, (temporal, frequency), padding="same", use_bias=not normalise, name=f"{name}_conv{number}")(
            x
        )
        if normalise:
            x = layers.BatchNormalization(name=f"{name}_norm{number}")(x)
        x = layers.ReLU(name=f"{name}_relu{number}")(x)
        if pool > 1:
            x = layers.MaxPooling2D((1, pool), name=f"{name}_pool{number}")(x)
        # As published: after a pooling layer.
        if pool > 1 and hparams.conv_dropout:
            x = layers.Dropout(hparams.conv_dropout, name=f"{name}_dropout{number}")(x)
    x = layers.Reshape((-1, x.shape[2] * x.shape[3]), name=f"{name}_flat")(x)  # [batch, time, bin * filter]
    x = layers.Dense(hparams.fc_size, activation="relu", name=f"{name}_dense")(x)
    return layers.Dropout(hparams.fc_dropout, name=f"{name}_dense_dropout")(x) if hparams.fc_dropout else x


def _bilstm(x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
    """A bidirectional LSTM over time, `[batch, time, 2 * units]`; the input itself for 0 units."""
    return _named_bilstm(units, name)(x) if units else x


def _named_bilstm(units: int, name: str) -> keras.layers.Layer:
    """With a name for the inner layer too: Keras numbers those without one through all models of a process."""
    return layers.Bidirectional(layers.LSTM(units, return_sequences=True, name=f"{name}_lstm"), name=f"{name}_bilstm")


def _head(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Probabilities `[batch, time, 88]`, float32 whatever the precision of the rest."""
    return layers.Dense(constants.NUM_PITCHES, activation="sigmoid", dtype="float32", name=name)(x)


def build_network(hparams: MelodicHParams) -> keras.Model:
    """Spectrum `[batch, time, bins]` to a dict of probabilities, each `[batch, time, 88]` float32."""
    spectrum = keras.Input((None, hparams.spec_n_bins), dtype="float32", name="spectrum")
    image = layers.Reshape((-1, hparams.spec_n_bins, 1), name="image")(spectrum)  # [batch, time, bin, 1]
    names = ("onset", "offset", "activation", "velocity")
    if hparams.share_conv_features:
        shared = conv_stack(image, hparams, "shared")
        features = dict.fromkeys(names, shared)
    else:
        features = {name: conv_stack(image, hparams, name) for name in names}
    outputs = {
        "onset": _head(_bilstm(features["onset"], hparams.onset_lstm_units, "onset"), "onset"),
        "offset": _head(_bilstm(features["offset"], hparams.offset_lstm_units, "offset"), "offset"),
        "velocity": _head(features["velocity"], "velocity"),
    }
    activation = _head(_bilstm(features["activation"], hparams.frame_lstm_units, "activation"), "activation")
    evidence = [
        StopGradient(name=f"{name}_detached")(roll) if stop else roll
        for name, roll, stop in (
            ("onset", outputs["onset"], hparams.stop_onset_gradient),
            ("activation", activation, hparams.stop_activation_gradient),
            ("offset", outputs["offset"], hparams.stop_offset_gradient),
        )
    ]
    combined = layers.Concatenate(name="combined")(evidence)  # [batch, time, 3 * 88]
    outputs["frame"] = _head(_bilstm(combined, hparams.combined_lstm_units, "combined"), "frame")
    return keras.Model(spectrum, outputs, name="network")
