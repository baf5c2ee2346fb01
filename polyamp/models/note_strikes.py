"""The network that `polyamp.notes.strike_network` runs in numpy, to be trained: how much later and louder notes are."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from polyamp.notes import context, strike_network

_KINDS = ("onset", "velocity")
_LAYERS = ("interval", "known", "of_note", "pair", "counts", "first", "second", "answer", "means")


def build(width: int, hidden: int, dropout: float, num_own: int, num_around: int) -> keras.Model:
    """The network of `strike_network.StrikeNetwork`, of both kinds.

    Args:
        width: Of the layers over pairs of notes.
        hidden: Of the layer after these; the next one has half of it.
        dropout: Share of the hidden layer's answers that training leaves out.
        num_own: Numbers that are known of each note by itself.
        num_around: Notes around that count.

    Returns:
        From "own" `[notes, num_own]` and "around" `[notes, num_around, NUM_AROUND]` to milliseconds and units of velocity
        to be added, `[notes, 2]`.
    """
    own = keras.Input((num_own,), name="own")
    around = keras.Input((num_around, context.NUM_AROUND), name="around")
    values = zip(_KINDS, strike_network.values(around, ops), strict=True)
    answers = [_answer(own, around, value, kind, width, hidden, dropout) for kind, value in values]
    return keras.Model({"own": own, "around": around}, ops.concatenate(answers, axis=-1))


def _answer(
    own: keras.KerasTensor, around: keras.KerasTensor, value: keras.KerasTensor, kind: str, width: int, hidden: int, rate: float
) -> keras.KerasTensor:
    """What the network of one kind says, `[notes, 1]`, given one of `strike_network.values`; for the rest see `build`."""

    def dense(units: int, name: str, **settings: Any) -> layers.Dense:
        return layers.Dense(units, name=f"{kind}_{name}", **settings)

    there = around[..., 4:]
    interval = ops.cast(context.intervals(around, strike_network.MAX_INTERVAL, ops), "int32")
    pair = layers.Embedding(2 * strike_network.MAX_INTERVAL + 1, width, name=f"{kind}_interval")(interval)
    pair += dense(width, "known", use_bias=False)(ops.stack(strike_network.known(around, ops), axis=-1))
    pair += dense(width, "of_note")(own)[:, None]
    pair = dense(width, "pair", activation="relu")(ops.relu(pair))
    counts = dense(strike_network.HEADS, "counts")(pair) - 1e9 * (1 - there)
    counts = ops.softmax(ops.concatenate([counts, ops.zeros_like(counts[:, :1])], axis=1), axis=1)[:, :-1]
    means = ops.sum(counts * value[..., None], axis=1)
    pair *= there
    answer = ops.concatenate([own, means, ops.sum(counts, axis=1), ops.sum(pair, axis=1) / 10, ops.max(pair, axis=1)], axis=-1)
    answer = layers.Dropout(rate)(dense(hidden, "first", activation="relu")(answer))
    answer = dense(hidden // 2, "second", activation="relu")(answer)
    answer = 10 * dense(1, "answer", kernel_initializer="zeros")(answer)
    return answer + strike_network.UNIT * dense(1, "means", use_bias=False)(means)


def loss(truth: keras.KerasTensor, answer: keras.KerasTensor) -> keras.KerasTensor:
    """Of onsets and velocities: Huber's losses, quadratic up to 10 ms and 6 units of velocity, which is where both are 1/2.

    Args:
        truth, answer: `[notes, 2]`: milliseconds and units of velocity; of what is no number in truth nothing is lost.
    """
    error = ops.abs(ops.where(ops.isnan(truth), answer, truth) - answer) / np.array([10.0, 6.0], "float32")
    return ops.sum(ops.where(error < 1, ops.square(error) / 2, error - 0.5), axis=-1)


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """What `strike_network.StrikeNetwork` takes of a network of `build`."""
    weights: dict[str, np.ndarray] = {}
    for name in _LAYERS:
        kernel, *bias = (np.stack(of_both) for of_both in zip(*(_weights(model, kind, name) for kind in _KINDS), strict=True))
        weights |= {name: kernel} | ({f"{name}_bias": bias[0]} if bias else {})
    return weights


def _weights(model: keras.Model, kind: str, name: str) -> list[np.ndarray]:
    """Those of one layer."""
    return [np.asarray(weight) for weight in model.get_layer(f"{kind}_{name}").get_weights()]
