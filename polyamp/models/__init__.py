"""Builds the model and names the losses of a model type; the only place that tells the types apart."""

from typing import Any

import keras

from polyamp.hparams import MelodicHParams, model_hparams
from polyamp.models import melodic

_BUILDERS = {"MELODIC": melodic.build}
_LOSS_ARGUMENTS = {"MELODIC": melodic.loss_arguments}


def build(model_type: str, hparams: MelodicHParams) -> keras.Model:
    """A model with random weights: audio `[batch, samples]` (16 kHz, [-1, 1]) to a dict of probability rolls.

    Its front end is the layer named "spectrogram"; all else is the nested model named "network".
    """
    model_hparams(model_type)  # An error for types that are not built yet.
    return _BUILDERS[model_type](hparams)


def loss_arguments(model_type: str, hparams: MelodicHParams) -> dict[str, Any]:
    """The arguments of `keras.Model.compile` that say what is learned: "loss" and "loss_weights"."""
    model_hparams(model_type)  # An error for types that are not built yet.
    return _LOSS_ARGUMENTS[model_type](hparams)
