"""Builds the model and names the losses of a model type; the only place that tells the types apart."""

from typing import Any

import keras

from polyamp.hparams import MelodicHParams, model_hparams
from polyamp.models import autoregressive, full, melodic, parts, timbre

_TYPES: dict[str, Any] = {"MELODIC": melodic, "TIMBRE": timbre, "FULL": full, "AUTOREGRESSIVE": autoregressive}


def build(model_type: str, hparams: MelodicHParams) -> keras.Model:
    """A model with random weights: audio `[batch, samples]` (16 kHz, [-1, 1]) to a dict of probability rolls.

    TIMBRE and FULL take a dict of "audio" and "notes" instead (see `polyamp.models.note_layers`), and answer families as well.
    AUTOREGRESSIVE takes a dict of "audio", "state" and "free_run", and answers states (see `polyamp.models.autoregressive`).
    The front end is the layer named "spectrogram"; all else is the nested model named "network".
    """
    model_hparams(model_type)  # An error for types that there are not.
    return _TYPES[model_type].build(hparams)


def compile_arguments(model_type: str, hparams: MelodicHParams) -> dict[str, Any]:
    """The arguments of `keras.Model.compile` but for the optimizer: what is learned, and whether XLA compiles the steps."""
    model_hparams(model_type)  # An error for types that there are not.
    return {"jit_compile": parts.uses_xla(hparams), **_TYPES[model_type].loss_arguments(hparams)}
