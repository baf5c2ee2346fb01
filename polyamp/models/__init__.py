"""Builds the model and names the losses of a model type; the only place that tells the types apart."""

from typing import Any

import keras

from polyamp.errors import HParamsError
from polyamp.hparams import MelodicHParams
from polyamp.models import melodic

_BUILDERS = {"MELODIC": melodic.build}
_LOSS_ARGUMENTS = {"MELODIC": melodic.loss_arguments}


def require_built(model_type: str) -> None:
    """Raises `HParamsError` for a model type that there is no model of."""
    if model_type not in _BUILDERS:
        raise HParamsError(f"model type {model_type!r} is not built yet; built so far: {', '.join(_BUILDERS)}.")


def build(model_type: str, hparams: MelodicHParams) -> keras.Model:
    """A model with random weights: audio `[batch, samples]` (16 kHz, [-1, 1]) to a dict of probability rolls.

    Its front end is the layer named "spectrogram"; all else is the nested model named "network".
    """
    require_built(model_type)
    return _BUILDERS[model_type](hparams)


def loss_arguments(model_type: str, hparams: MelodicHParams) -> dict[str, Any]:
    """The arguments of `keras.Model.compile` that say what is learned: "loss" and "loss_weights"."""
    require_built(model_type)
    return _LOSS_ARGUMENTS[model_type](hparams)
