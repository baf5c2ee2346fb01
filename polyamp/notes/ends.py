"""Where notes end, in the light of when others begin.

Rolls tell where a sound ends, which is not always where a note does. Under a pedal keys are let go unheard, and what is soft is
covered before it ends. What a score would say helps then: a voice goes on from note to note, and what begins together often
ends together. A small network that has read many transcriptions beside their true ends (`scripts/fit_ends.py`) weighs what
is heard at each time at which a note may end, and all notes around.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from polyamp import constants
from polyamp.hparams import MelodicHParams
from polyamp.notes import context
from polyamp.notes.arrays import Notes
from polyamp.notes.context import dense
from polyamp.notes.end_candidates import NUM_HEARD, Candidates, by_pitch
from polyamp.notes.growing_rolls import Rolls

BEFORE, AFTER = 16, 32  # Notes around that count, in the order of their onsets.
NUM_KNOWN, NUM_BETWEEN = 5, 7  # Numbers per note around, and per pair of one and a candidate.
MAX_INTERVAL = 30  # Semitones; what is farther counts as that far.
_PAIRS = 16_384  # Of candidates and notes around, at a time, for the sake of memory.


def around(notes: Notes, some: np.ndarray) -> np.ndarray:
    """The notes around each of some, whose indices are given: see `context.around`."""
    return context.around(notes, some, BEFORE, AFTER)


def between(seconds: Any, onset: Any, offset: Any, maths: Any = np) -> list[Any]:
    """How times lie to the onsets and offsets of notes around; all broadcast. `NUM_BETWEEN` arrays from -1 to 1.

    `maths` computes: numpy, or `keras.ops`.
    """
    since, left = seconds - onset, seconds - offset
    return [
        maths.exp(-maths.square(since / 0.04)),
        *(maths.tanh(since / scale) for scale in (0.1, 0.5, 2.0)),
        maths.exp(-maths.square(left / 0.05)),
        *(maths.tanh(left / scale) for scale in (0.1, 0.5)),
    ]


def known(around: Any, maths: Any = np) -> list[Any]:
    """What is known of notes around whatever the candidate but their interval: `NUM_KNOWN` arrays `[..., around]`."""
    onset, offset, velocity = around[..., 0], around[..., 1], around[..., 3]
    return [*(maths.tanh(onset / scale) for scale in (0.05, 0.4, 2.0)), velocity, maths.tanh((offset - onset) / 0.3)]


def standardised(heard: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """What is heard as networks take it: beside what is usual, within five deviations."""
    return np.clip((heard - mean) / deviation, -5, 5)


class EndNetwork:
    """Scores candidates: the higher, the more likely a note ends there.

    Of every pair of a candidate and a note around a layer's answers are summed, and their highest taken; both, and what is
    heard, go through two layers more (Zaheer et al. 2017, "Deep Sets"). The mean of what several such networks say counts.

    Args:
        weights: By name, each with the networks as its first axis: "heard_mean" and "heard_deviation" `[NUM_HEARD]`; "interval"
            `[2 * MAX_INTERVAL + 1, width]`, "known" `[NUM_KNOWN, width]`, "between" `[NUM_BETWEEN, width]`; kernels "pair"
            `[width, width]`, "first", "second" and "score" `[..., 1]`, and of all four "<name>_bias".
    """

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self._networks = context.networks(weights)

    def scores(self, notes: Notes, found: Candidates) -> np.ndarray:
        """float32 `[candidates]`, comparable within each note."""
        scores = np.zeros(len(found.note), np.float32)
        for first in range(0, len(scores), step := _PAIRS // (BEFORE + AFTER)):
            rows = slice(first, first + step)
            inputs = _inputs(notes, Candidates(*(column[rows] for column in found)))
            scores[rows] = np.mean([_score(weights, inputs) for weights in self._networks], axis=0)
        return scores


class _Inputs(NamedTuple):
    """What networks take of some candidates.

    Attributes:
        heard: `[candidates, NUM_HEARD]`.
        note: Index of the candidate's note, `[candidates]`, among the notes of the next two.
        interval: Of the notes around, from 0, `[notes, around]`.
        known: Of these, `[notes, around, NUM_KNOWN]`.
        there: Whether there is such a note, 0 or 1, `[candidates, around]`.
        between: Of the pairs of candidates and notes around, `[NUM_BETWEEN, candidates * around]`.
    """

    heard: np.ndarray
    note: np.ndarray
    interval: np.ndarray
    known: np.ndarray
    there: np.ndarray
    between: np.ndarray


def _inputs(notes: Notes, found: Candidates) -> _Inputs:
    """What all networks take alike."""
    index, note = np.unique(found.note, return_inverse=True)
    near = around(notes, index)
    interval = context.intervals(near, MAX_INTERVAL).astype(int)
    seconds = (found.seconds - notes.onset[found.note]).astype(np.float32)[:, None]
    onset, offset, there = near[note][..., [0, 1, 4]].transpose(2, 0, 1)
    pairs = np.stack(between(seconds, onset, offset)).reshape(NUM_BETWEEN, -1)
    return _Inputs(found.heard, note, interval, np.stack(known(near), axis=-1), there, pairs)


def _score(weights: Mapping[str, np.ndarray], inputs: _Inputs) -> np.ndarray:
    """What one network says of some candidates."""
    of_note = weights["interval"][inputs.interval] + inputs.known @ weights["known"]
    pair = inputs.between.T @ weights["between"]
    pair += of_note[inputs.note].reshape(pair.shape)
    pair = dense(np.maximum(pair, 0, out=pair), weights, "pair") * inputs.there.reshape(-1, 1)
    pair = pair.reshape(*inputs.there.shape, -1)
    heard = standardised(inputs.heard, weights["heard_mean"], weights["heard_deviation"])
    hidden = np.concatenate([heard, pair.sum(axis=1) / 6, pair.max(axis=1)], axis=-1)
    hidden = dense(dense(hidden, weights, "first"), weights, "second")
    return (hidden @ weights["score"] + weights["score_bias"])[:, 0]


def load(which: str) -> EndNetwork:
    """Networks that `scripts/fit_ends.py` has written.

    Args:
        which: One of `constants.END_KINDS`, or the path of a file.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    return context.load("predict_ends", which, "ends", constants.END_KINDS, "scripts/fit_ends.py", _checked)


def _checked(weights: dict[str, np.ndarray]) -> EndNetwork:
    """Networks of weights that fit together: of two notes they say something."""
    network = EndNetwork(weights)
    if weights["interval"].shape[-2] != 2 * MAX_INTERVAL + 1:
        raise ValueError(f"it does not know {2 * MAX_INTERVAL + 1} intervals")
    candidates = Candidates(np.arange(2), np.ones(2), np.zeros((2, NUM_HEARD), np.float32))
    network.scores(Notes.of([0.0, 0.0], [1.0, 1.0], [60, 64]), candidates)
    return network


def likeliest(notes: Notes, may_end: Candidates, network: EndNetwork) -> tuple[np.ndarray, np.ndarray]:
    """The candidates with the highest scores, of equal ones the first: of which notes, ascending, and their seconds."""
    best = np.lexsort((-network.scores(notes, may_end), may_end.note))
    index, first = np.unique(may_end.note, return_index=True)
    return index, may_end.seconds[best[first]]


def with_likelier_ends(notes: Notes, rolls: Rolls, hparams: MelodicHParams) -> Notes:
    """The notes that were decoded from rolls, ending where the network `predict_ends` says.

    Args:
        notes, rolls, hparams: As of `end_candidates.candidates`.

    Returns:
        The same notes with other offsets; those of one pitch do not overlap.

    Raises:
        PolyampError: See `load`.
    """
    network, offset = load(hparams.predict_ends), notes.offset.copy()
    for may_end in by_pitch(notes, rolls, hparams):
        index, seconds = likeliest(notes, may_end, network)
        offset[index] = seconds
    return dataclasses.replace(notes, offset=offset)
