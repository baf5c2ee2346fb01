"""The small network that tells when and how loud a note is struck: `polyamp.notes.strikes`, `polyamp.notes.running_strikes`."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from polyamp.notes import context
from polyamp.notes.context import dense

NUM_KNOWN = 12  # Numbers per note around a note.
MAX_INTERVAL = 36  # Semitones; what is farther counts as that far.
HEADS = 4  # Weighted means of the notes around.
REACH = 5.0  # Units; onsets that are farther from a note's own count as that far.
UNIT = 30.0  # Milliseconds, or units of velocity, in which these means are.

_LEAST = 1e-3  # Probabilities count as at least that far from certain.


def log_odds(probability: np.ndarray) -> np.ndarray:
    """A quarter of the log odds: -1.7 to 1.7."""
    clipped = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.log(clipped / (1 - clipped)) / 4


def known(around: Any, maths: Any = np) -> list[Any]:
    """What is known of notes around but their interval: `NUM_KNOWN` arrays `[..., around]`.

    `maths` computes: numpy, or `keras.ops`.
    """
    onset, offset, velocity = around[..., 0], around[..., 1], around[..., 3]
    return [
        *(maths.exp(-maths.square(onset / scale)) for scale in (0.015, 0.03, 0.06, 0.12)),
        *(maths.tanh(onset / scale) for scale in (0.02, 0.05, 0.15, 0.5, 2.0)),
        maths.tanh((offset - onset) / 0.3),
        velocity,
        maths.abs(velocity),
    ]


def values(around: Any, maths: Any = np) -> list[Any]:
    """Of which means of the notes around are taken: their onsets and velocities, beside the note's own, in `UNIT`."""
    return [maths.clip(around[..., 0] * (1000 / UNIT), -REACH, REACH), around[..., 3] * (30 / UNIT)]


class StrikeNetwork:
    """Says how much later and louder than heard notes are struck.

    There are two of a kind, for onsets and for velocities. Layers over pairs of a note and one around answer how much the
    latter counts in weighted means of onsets (or velocities), a softmax in which the note itself has a place, too
    ("attention"; Bahdanau et al. 2015). These means, how much they count, and sum and maximum of the pairs' answers
    ("deep sets"; Zaheer et al. 2017) go with what is known of the note through two layers more. The mean of what several
    such networks say counts.

    Args:
        weights: By name, each with the networks as its first axis, and onset and velocity as its second: "interval"
            `[2 * MAX_INTERVAL + 1, width]`, "known" `[NUM_KNOWN, width]`, "means" `[HEADS, 1]`; kernels "of_note"
            `[own, width]`, "pair" `[width, width]`, "counts" `[width, HEADS]`, "first", "second" and "answer"
            `[..., 1]`, and of these "<name>_bias".
    """

    def __init__(self, weights: Mapping[str, np.ndarray]):
        networks = context.networks(weights)
        if any(array.ndim < 2 or len(array) != 2 for network in networks for array in network.values()):
            raise ValueError("it is not about onsets and velocities")
        self._weights = {name: np.stack([network[name] for network in networks]) for name in networks[0]}
        for name in self._weights:
            if name.endswith("_bias"):
                self._weights[name] = self._weights[name][:, :, np.newaxis]  # Of rows of values.

    def moves(self, own: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Seconds and units of MIDI velocity to be added to those of notes, of which there must be one: float32 `[notes, 2]`.

        Args:
            own: What is known of each note by itself, float32 `[notes, own]`.
            around: The notes around each, `[notes, around, NUM_AROUND]`: see `context.around`.
        """
        # Axes are network, side (onset or velocity), note, note around, number.
        weights, there = self._weights, around[..., 4:]
        interval = context.intervals(around, MAX_INTERVAL).astype(int)
        pair = weights["interval"][:, :, interval]
        width, of_pairs = pair.shape[-1], (*pair.shape[:2], interval.size, -1)
        pair += (np.stack(known(around), axis=-1).reshape(interval.size, -1) @ weights["known"]).reshape(pair.shape)
        pair += (own @ weights["of_note"] + weights["of_note_bias"])[:, :, :, np.newaxis]
        flat = dense(np.maximum(pair, 0, out=pair).reshape(of_pairs), weights, "pair")
        counts = (flat @ weights["counts"] + weights["counts_bias"]).reshape(*pair.shape[:-1], -1) - 1e9 * (1 - there)
        highest = np.maximum(counts.max(axis=3, keepdims=True), 0)
        counts = np.exp(counts - highest)
        counts /= counts.sum(axis=3, keepdims=True) + np.exp(-highest)  # The note itself counts e⁰.
        means = (counts * np.stack(values(around))[..., np.newaxis]).sum(axis=3)
        pair = flat.reshape(*pair.shape[:-1], width) * there
        of_all = np.broadcast_to(own, (*pair.shape[:2], *own.shape))
        hidden = np.concatenate([of_all, means, counts.sum(axis=3), pair.sum(axis=3) / 10, pair.max(axis=3)], axis=-1)
        hidden = dense(dense(hidden, weights, "first"), weights, "second")
        answer = 10 * (hidden @ weights["answer"] + weights["answer_bias"]) + UNIT * (means @ weights["means"])
        return answer[..., 0].mean(axis=0).T * np.array([1e-3, 1.0], np.float32)


def load(which: str, name: str, kinds: tuple[str, ...], num_own: int) -> StrikeNetwork:
    """Networks that `scripts/fit_strikes.py` has written.

    Args:
        which: One of the kinds, or the path of a file.
        name, kinds: Those that ship are called `<name>_<kind>.npz`.
        num_own: Numbers that are known of each note by itself.

    Raises:
        PolyampError: There is no such file, or it is another one, or its networks know other numbers.
    """
    build = functools.partial(_checked, num_own)
    return context.load("predict_strikes", which, name, kinds, "scripts/fit_strikes.py", build)


def _checked(num_own: int, weights: dict[str, np.ndarray]) -> StrikeNetwork:
    """Networks of weights that fit together: of two notes they say something."""
    network = StrikeNetwork(weights)
    if weights["interval"].shape[-2] != 2 * MAX_INTERVAL + 1:
        raise ValueError(f"it does not know {2 * MAX_INTERVAL + 1} intervals")
    network.moves(np.zeros((2, num_own), np.float32), np.zeros((2, 1, context.NUM_AROUND), np.float32))
    return network
