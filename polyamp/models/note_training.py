"""How the small networks that see a note among others are trained, and written: `models.note_ends`, `models.note_strikes`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import keras
import numpy as np
from absl import logging

from polyamp import atomic

_RATE = 2e-3  # Of learning, at first; it falls to 0.
_WEIGHT_DECAY = 1e-4


class Examples(Protocol):
    """Notes to learn from.

    Attributes:
        notes: Their numbers.
    """

    notes: np.ndarray

    def disturbed(self, notes: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What a network takes of some notes, and what it is to learn, other each time."""


def trained(
    build: Callable[[], keras.Model], loss: Callable[..., Any], examples: Examples, batch: int, epochs: int, seed: int
) -> keras.Model:
    """A network trained on examples.

    Args:
        build: Makes the network.
        loss: Of what it is to learn and what it answers.
        examples: What it learns from.
        batch: Notes per step, about.
        epochs: How often every note is learned from.
        seed: Of the network's first weights, and of what varies in training.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    steps = len(examples.notes) // batch or 1
    network = build()
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps * epochs)
    network.compile(keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY), loss)
    for epoch in range(1, epochs + 1):
        batches = np.array_split(rng.permutation(examples.notes), steps)
        losses = [network.train_on_batch(*examples.disturbed(one, rng)) for one in batches]
        logging.info("epoch %d of %d, loss %.4f", epoch, epochs, np.mean(losses))
    return network


def write(path: str | Path, networks: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Writes the weights of several networks of a kind as `notes.context.load` reads them, and returns what it has written."""
    weights = {name: np.stack([network[name] for network in networks]) for name in networks[0]}
    with atomic.replacing(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, **cast(dict[str, Any], weights))
    return weights
