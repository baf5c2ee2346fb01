"""Bases of our layers, so that each can be made again from its `get_config` without saying what is always so."""

from typing import Any

import keras


class FixedLayer(keras.layers.Layer):
    """A layer that has nothing to learn: takes the arguments of `keras.layers.Layer` but `trainable`."""

    def __init__(self, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "trainable"}


class Float32Layer(keras.layers.Layer):
    """A layer that computes in float32 whatever the precision of the model, as sums over time need: takes no `dtype`."""

    def __init__(self, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "dtype"}


class FixedFloat32Layer(FixedLayer, Float32Layer):
    """Both."""
