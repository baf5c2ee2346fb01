"""When and how loud notes are struck, in the light of the notes around.

What is heard of one note is uncertain: rooms and instruments colour single pitches, other notes cover it, and mechanisms
strike what is soft early or late. What a score would say helps: what is written together begins together, chords have
one loudness, tunes are louder than what accompanies them. A small network that has read many transcriptions beside their
true notes (`scripts/fit_strikes.py`) moves every onset and velocity towards what the others make likely.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from polyamp import constants
from polyamp.hparams import MelodicHParams
from polyamp.notes import context
from polyamp.notes.arrays import Notes
from polyamp.notes.context import dense

BEFORE = AFTER = 20  # Notes around that count, in the order of their onsets.
NUM_OWN, NUM_KNOWN = 12, 12  # Numbers per note, and per note around one.
MAX_INTERVAL = 36  # Semitones; what is farther counts as that far.
HEADS = 4  # Weighted means of the notes around.
REACH = 5.0  # Units; onsets that are farther from a note's own count as that far.
UNIT = 30.0  # Milliseconds, or units of velocity, in which these means are.

_SHORTEST = 0.03  # Seconds that a note lasts at least, if its onset is moved.
_MOST = np.array([0.1, 30.0])  # Seconds and units of velocity by which a note is moved at most.
_PAIRS = 16_384  # Of notes and notes around, at a time, for the sake of memory.
_LEAST = 1e-3  # Probabilities count as at least that far from certain.


def around(notes: Notes) -> np.ndarray:
    """The notes around each: see `context.around`."""
    return context.around(notes, np.arange(len(notes)), BEFORE, AFTER)


def own(notes: Notes, rolls: Mapping[str, np.ndarray], hparams: MelodicHParams) -> np.ndarray:
    """What is known of each note by itself.

    Args:
        notes: As decoded from the rolls.
        rolls: Probabilities "onset" and "frame" and the roll "velocity", `[time, 88]`.
        hparams: The settings of the decoder.

    Returns:
        float32 `[notes, NUM_OWN]`, all of them about -2 to 2: velocity, duration, how much louder the velocity roll is around
        the onset, and log odds of onsets and frames there. (Where a note that `onset_bias_ms` would have moved below 0 began is
        not known any more: as if it were at 0 now.)
    """
    frame = np.rint((notes.onset + hparams.onset_bias_ms / 1000) * hparams.frames_per_second).astype(int)
    pitch = notes.pitch - constants.MIN_MIDI_PITCH

    def near(name: str, frames: int) -> np.ndarray:
        at = np.clip(frame + frames, 0, max(len(rolls[name]) - 1, 0))
        return np.clip(np.nan_to_num(rolls[name][at, pitch].astype(np.float32)), 0, 1)

    def log_odds(probability: np.ndarray) -> np.ndarray:
        clipped = np.clip(probability, _LEAST, 1 - _LEAST)
        return np.clip(np.log(clipped / (1 - clipped)) / 4, -2, 2)

    columns = [(notes.velocity - 60) / 30, np.clip(notes.offset - notes.onset, 0, 2)]
    columns += [(near("velocity", frames) * constants.MAX_MIDI_VELOCITY - notes.velocity) / 30 for frames in (-1, 0, 1, 2)]
    columns += [log_odds(near("onset", frames)) for frames in (-1, 0, 1)]
    columns += [log_odds(near("frame", frames)) for frames in (0, 1, 3)]
    return np.stack(columns, axis=-1).astype(np.float32)


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
            `[NUM_OWN, width]`, "pair" `[width, width]`, "counts" `[width, HEADS]`, "first", "second" and "answer"
            `[..., 1]`, and of these "<name>_bias".
    """

    def __init__(self, weights: Mapping[str, np.ndarray]):
        self._networks = context.networks(weights)
        if any(array.ndim < 2 or len(array) != 2 for network in self._networks for array in network.values()):
            raise ValueError("it is not about onsets and velocities")

    def moves(self, notes: Notes, own: np.ndarray) -> np.ndarray:
        """Seconds and units of MIDI velocity to be added to those of notes, float32 `[notes, 2]`.

        Args:
            notes: As decoded.
            own: See `own`.
        """
        moves = np.zeros((len(notes), 2), np.float32)
        for first in range(0, len(notes), step := _PAIRS // (BEFORE + AFTER)):
            rows = slice(first, first + step)
            inputs = _inputs(notes, np.arange(len(notes))[rows], own[rows])
            for side in range(2):
                some = ({name: array[side] for name, array in network.items()} for network in self._networks)
                moves[rows, side] = np.mean([_moves(weights, inputs, side) for weights in some], axis=0)
        return moves * np.array([1e-3, 1.0], np.float32)


class _Inputs(NamedTuple):
    """What networks take of some notes.

    Attributes:
        own: See `own`.
        interval: Of the notes around, from 0, `[notes, around]`.
        known: Of these, `[notes, around, NUM_KNOWN]`.
        there: Whether there is such a note, 0 or 1, `[notes, around, 1]`.
        values: See `values`.
    """

    own: np.ndarray
    interval: np.ndarray
    known: np.ndarray
    there: np.ndarray
    values: list[np.ndarray]


def _inputs(notes: Notes, some: np.ndarray, own: np.ndarray) -> _Inputs:
    """What all networks take alike of some notes, whose indices are given."""
    near = context.around(notes, some, BEFORE, AFTER)
    interval = context.intervals(near, MAX_INTERVAL).astype(int)
    return _Inputs(own, interval, np.stack(known(near), axis=-1), near[..., 4:], values(near))


def _moves(weights: Mapping[str, np.ndarray], inputs: _Inputs, side: int) -> np.ndarray:
    """What one network says of some notes: of onsets, in milliseconds (side 0), or of velocities (1)."""
    own, there = inputs.own, inputs.there
    pair = weights["interval"][inputs.interval] + inputs.known @ weights["known"]
    pair += (own @ weights["of_note"] + weights["of_note_bias"])[:, np.newaxis]
    pair = dense(np.maximum(pair, 0, out=pair), weights, "pair")
    counts = pair @ weights["counts"] + weights["counts_bias"] - 1e9 * (1 - there)
    highest = np.maximum(counts.max(axis=1, keepdims=True), 0)
    counts = np.exp(counts - highest)
    counts /= counts.sum(axis=1, keepdims=True) + np.exp(-highest)  # The note itself counts e⁰.
    means = (counts * inputs.values[side][..., np.newaxis]).sum(axis=1)
    pair *= there
    hidden = np.concatenate([own, means, counts.sum(axis=1), pair.sum(axis=1) / 10, pair.max(axis=1)], axis=-1)
    hidden = dense(dense(hidden, weights, "first"), weights, "second")
    return (10 * (hidden @ weights["answer"] + weights["answer_bias"]) + UNIT * (means @ weights["means"]))[:, 0]


def load(which: str) -> StrikeNetwork:
    """Networks that `scripts/fit_strikes.py` has written.

    Args:
        which: One of `constants.STRIKE_KINDS`, or the path of a file.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    return context.load("predict_strikes", which, constants.STRIKE_KINDS, "scripts/fit_strikes.py", _checked)


def _checked(weights: dict[str, np.ndarray]) -> StrikeNetwork:
    """Networks of weights that fit together: of two notes they say something."""
    network = StrikeNetwork(weights)
    if weights["interval"].shape[-2] != 2 * MAX_INTERVAL + 1:
        raise ValueError(f"it does not know {2 * MAX_INTERVAL + 1} intervals")
    network.moves(Notes.of([0.0, 0.0], [1.0, 1.0], [60, 64]), np.zeros((2, NUM_OWN), np.float32))
    return network


def as_struck(notes: Notes, rolls: Mapping[str, np.ndarray], hparams: MelodicHParams) -> Notes:
    """The notes that were decoded from rolls, beginning when and as loud as the network `predict_strikes` says.

    As it has learned what single notes are beside the others, on the whole they stay when and as loud as they were heard; and
    where there are not as many notes around as it has learned from, they are moved by so much less.

    Args:
        notes, rolls, hparams: As of `own`.

    Returns:
        Notes of the same pitches, sorted by onset; those of one pitch do not overlap, and none is shorter than `min_note_ms`
        that was not. Velocities are 1 to 127.

    Raises:
        PolyampError: See `load`.
    """
    network = load(hparams.predict_strikes)
    if not len(notes):
        return notes
    moves = network.moves(notes, own(notes, rolls, hparams)).astype(np.float64)
    moves -= [np.median(moves[:, 0]), moves[:, 1].mean()]
    later, louder = np.clip(moves, -_MOST, _MOST).T * min(1.0, (len(notes) - 1) / AFTER)
    velocity = np.clip(np.rint(notes.velocity + louder), 1, constants.MAX_MIDI_VELOCITY).astype(notes.velocity.dtype)
    onset, offset = notes.onset.copy(), notes.offset.copy()
    shortest = max(hparams.min_note_ms / 1000, _SHORTEST) + 1e-9  # So that rounding makes none shorter.
    for pitch in np.unique(notes.pitch):
        index = np.flatnonzero(notes.pitch == pitch)
        begin, end = onset[index], offset[index]
        # Of two in a row each keeps to its side of the middle, so that none becomes too short; what is too short stays.
        middle = (begin[1:] + begin[:-1]) / 2
        earliest = np.minimum(np.append(0.0, middle + shortest / 2), begin)
        latest = np.maximum(np.minimum(np.append(middle - shortest / 2, np.inf), end - shortest), begin)
        moved = np.clip(begin + later[index], earliest, latest)
        onset[index] = moved
        offset[index[:-1]] = np.where(end[:-1] == begin[1:], moved[1:], np.minimum(end[:-1], moved[1:]))
    return Notes.of(onset, offset, notes.pitch, velocity, notes.program)
