"""The network that `polyamp.notes.ends` runs in numpy, to be trained: scores of times at which notes may end."""

import keras
import numpy as np
from keras import layers, ops

from polyamp.notes import context, end_candidates, ends

_LAYERS = ("interval", "known", "between", "pair", "first", "second", "score")


def build(width: int, hidden: int, noise: float, dropout: float) -> keras.Model:
    """The network of `ends.EndNetwork`, over padded candidates.

    Args:
        width: Of the layers over pairs of a candidate and a note around.
        hidden: Of the layer after these; the next one has half of it.
        noise: Standard deviation of what is added to what is heard, in training.
        dropout: Share of the hidden layer's answers that training leaves out.

    Returns:
        From "heard", standardised, `[notes, candidates, NUM_HEARD]`, "seconds" after the note's onset, `[notes, candidates]`,
        and "around", `[notes, BEFORE + AFTER, NUM_AROUND]`, to scores `[notes, candidates]`.
    """
    heard = keras.Input((None, end_candidates.NUM_HEARD), name="heard")
    seconds = keras.Input((None,), name="seconds")
    around = keras.Input((ends.BEFORE + ends.AFTER, context.NUM_AROUND), name="around")
    onset, offset, there = (around[..., column] for column in (0, 1, 4))
    interval = ops.cast(context.intervals(around, ends.MAX_INTERVAL, ops), "int32")
    of_note = layers.Embedding(2 * ends.MAX_INTERVAL + 1, width, name="interval")(interval)
    of_note += layers.Dense(width, use_bias=False, name="known")(ops.stack(ends.known(around, ops), axis=-1))
    between = ends.between(seconds[:, :, None], onset[:, None], offset[:, None], ops)
    pair = layers.Dense(width, use_bias=False, name="between")(ops.stack(between, axis=-1)) + of_note[:, None]
    pair = layers.Dense(width, activation="relu", name="pair")(ops.relu(pair)) * there[:, None, :, None]
    answer = layers.GaussianNoise(noise)(heard)
    answer = ops.concatenate([answer, ops.sum(pair, axis=2) / 6, ops.max(pair, axis=2)], axis=-1)
    answer = layers.Dropout(dropout)(layers.Dense(hidden, activation="relu", name="first")(answer))
    answer = layers.Dense(hidden // 2, activation="relu", name="second")(answer)
    score = ops.squeeze(layers.Dense(1, name="score")(answer), axis=-1)
    return keras.Model({"heard": heard, "seconds": seconds, "around": around}, score)


def loss(truth: keras.KerasTensor, scores: keras.KerasTensor) -> keras.KerasTensor:
    """Minus the log of the probability, by a softmax over a note's candidates, of all that are right together.

    Args:
        truth: `[notes, candidates, 2]`: 1 for what is a candidate, and for what is right.
        scores: `[notes, candidates]`.
    """
    scores -= 1e9 * (1 - truth[..., 0])
    return ops.logsumexp(scores, axis=-1) - ops.logsumexp(scores - 1e9 * (1 - truth[..., 1]), axis=-1)


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """What `ends.EndNetwork` takes of a network of `build`: all but the mean and deviation of what is heard."""
    weights: dict[str, np.ndarray] = {}
    for name in _LAYERS:
        kernel, *bias = (np.asarray(weight) for weight in model.get_layer(name).get_weights())
        weights |= {name: kernel} | ({f"{name}_bias": bias[0]} if bias else {})
    return weights
