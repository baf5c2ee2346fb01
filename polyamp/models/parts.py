"""The parts of Keras models: those that `polyamp.transcribe` runs one after the other, sharing the models' weights; layers."""

import weakref
from collections.abc import Callable
from typing import Any

import keras

from polyamp.hparams import MelodicHParams
from polyamp.models import autoregressive, full

# Parts that were made already, as a new one would be compiled again; they go with the models.
_MADE: "weakref.WeakKeyDictionary[keras.Model, dict[str, Any]]" = weakref.WeakKeyDictionary()


def part(model: keras.Model, name: str, hparams: MelodicHParams) -> Any:
    """A part of a model, the same one at every call, that predicts as `uses_xla` says.

    Args:
        model: A built model.
        name: "rolls", of a Melodic or Full model, takes audio `[batch, samples]` and answers four rolls `[batch, time, 88]`.
            "families", of a Timbre or Full model, takes "audio" and "notes" `[batch, notes, 3]` and answers "family", `[batch,
            notes, 12]`. "features" and "states", of an Autoregressive model, are `autoregressive.acoustic_part` and
            `autoregressive.RecurrentPart`.
        hparams: The model's.
    """
    if name in ("rolls", "families") and getattr(model, "name", None) != "full":
        found = model  # Has no other part.
    else:
        made = _MADE.setdefault(model, {})
        if name not in made:
            made[name] = _MAKERS[name](model)
        found = made[name]
    found.jit_compile = uses_xla(hparams)
    return found


def uses_xla(hparams: MelodicHParams) -> bool:
    """Whether XLA compiles models: on TensorFlow as the settings say, as that takes longer than most recordings.

    On JAX always: without it every operation is compiled and run by itself.
    """
    return hparams.jit_compile or keras.backend.backend() == "jax"


def weighted_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model, and of the models in it, that have weights."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += weighted_layers(layer)
        elif layer.weights:
            found.append(layer)
    return found


_MAKERS: dict[str, Callable[[keras.Model], Any]] = {
    "rolls": full.melodic_part,
    "families": full.timbre_part,
    "features": autoregressive.acoustic_part,
    "states": autoregressive.RecurrentPart,
}
