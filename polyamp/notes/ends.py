"""Where notes end, in the light of when others begin.

Rolls tell where a sound ends, which is not always where a note does. Under a pedal keys are let go unheard, and what is soft is
covered before it ends. What a score would say helps then: a voice goes on from note to note, and what begins together often
ends together. A small network that has read many transcriptions beside their true ends (`scripts/fit_ends.py`) weighs what
is heard at each time at which a note may end, and all notes around.
"""

import dataclasses
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyamp import constants
from polyamp.errors import PolyampError
from polyamp.hparams import MelodicHParams
from polyamp.notes import evidence
from polyamp.notes.arrays import Notes

BEFORE, AFTER = 16, 32  # Notes around that count, in the order of their onsets.
NUM_HEARD, NUM_AROUND, NUM_BETWEEN = 19, 5, 7  # Numbers per candidate, per note around, and per pair of both.
MAX_INTERVAL = 30  # Semitones; what is farther counts as that far.

_REACH = 6.0  # Seconds; a note's end is looked for so long after its onset, its likely end wherever it is.
_MOST_BEGINNINGS = 24  # Of other notes, the next ones, at which one may end.
_TOGETHER = 0.02  # Seconds; what begins so soon after another begins with it.
_DISTINCT = 0.035  # Seconds; what is as near to the likely end, or a peak to a beginning, is the same.
_SHORTEST, _NEXT = 0.03, 0.05  # Seconds that a note lasts, at least, and until another that it may end at begins.
_LEAST_OFFSET = 0.03  # Probability of a peak of the offset roll that is a candidate.
_OFFSET_WEIGHT = 12.0  # Of an offset beside the log odds of frames, as `predict_offset_weight`.
_LEAST = 1e-4  # Added to probabilities of which the log is taken.
_PAIRS = 16_384  # Of candidates and notes around, at a time, for the sake of memory.


class Candidates(NamedTuple):
    """Times at which notes may end, those of one note one after the other, its likely end first.

    Attributes:
        note: Index of the note, ascending, `[candidates]`; every note has one candidate or more.
        seconds: `[candidates]`.
        heard: What the rolls say of a note that would end there, float32 `[candidates, NUM_HEARD]`.
    """

    note: np.ndarray
    seconds: np.ndarray
    heard: np.ndarray


def candidates(notes: Notes, rolls: Mapping[str, np.ndarray], hparams: MelodicHParams) -> Candidates:
    """Times at which notes may end: as decoded, where one of the next notes begins, and where the offset roll has a peak.

    None is later than the next onset of the pitch, nor, but for those decoded, than `_REACH` seconds after its own.

    Args:
        notes: As decoded from the rolls.
        rolls: Probabilities "onset", "offset" and "frame", `[time, 88]`.
        hparams: The settings of the decoder.
    """
    nothing = Candidates(np.zeros(0, int), np.zeros(0), np.zeros((0, NUM_HEARD), np.float32))
    note, seconds, heard = map(np.concatenate, zip(nothing, *_by_pitch(notes, rolls, hparams), strict=True))
    order = np.argsort(note, kind="stable")
    return Candidates(note[order], seconds[order], heard[order])


def _by_pitch(notes: Notes, rolls: Mapping[str, np.ndarray], hparams: MelodicHParams) -> Iterator[Candidates]:
    """The candidates of one pitch after the other."""
    if not len(notes):
        return
    beginnings = notes.onset[np.diff(notes.onset, prepend=-np.inf) > _TOGETHER]
    of_all = _of_all_pitches(rolls)
    for pitch in np.unique(notes.pitch):
        index = np.flatnonzero(notes.pitch == pitch)
        column = {name: _column(rolls[name], pitch - constants.MIN_MIDI_PITCH) for name in ("offset", "frame")}
        note, seconds = _times(notes[index], column["offset"], beginnings, hparams)
        yield Candidates(index[note], seconds, _heard(notes[index], note, seconds, column, of_all, hparams))


class _OfAllPitches(NamedTuple):
    """What rolls say of all pitches together, the highest of three frames, `[time]`."""

    offsets: np.ndarray
    onset: np.ndarray
    onsets: np.ndarray


def _of_all_pitches(rolls: Mapping[str, np.ndarray]) -> _OfAllPitches:
    """Sums and maxima over the pitches, one by one, as rolls may be large."""
    offsets, onset, onsets = np.zeros((3, len(rolls["onset"])), np.float32)
    for pitch in range(constants.NUM_PITCHES):
        ends, begins = _column(rolls["offset"], pitch), _column(rolls["onset"], pitch)
        offsets += ends
        onsets += begins
        np.maximum(onset, begins, out=onset)
    return _OfAllPitches(*map(_highest_of_three, (offsets, onset, onsets)))


def _column(roll: np.ndarray, pitch: int) -> np.ndarray:
    """The probabilities of one pitch, float32 `[time]`; what is no number is no evidence of anything."""
    return np.nan_to_num(roll[:, pitch].astype(np.float32))


def _times(notes: Notes, offset: np.ndarray, beginnings: np.ndarray, hparams: MelodicHParams) -> tuple[np.ndarray, np.ndarray]:
    """When the notes of one pitch may end: index of the note, and seconds.

    Args:
        notes: All of that pitch.
        offset: The pitch's offset roll, `[time]`.
        beginnings: When notes of any pitch begin, seconds, ascending.
        hparams: As of `candidates`.
    """
    rate, bias = hparams.frames_per_second, hparams.onset_bias_ms / 1000
    limit = np.append(notes.onset[1:], np.inf)
    last = np.minimum(np.minimum(limit, notes.onset + _REACH), len(offset) / rate - bias)
    first = np.searchsorted(beginnings, notes.onset + _NEXT)
    beyond = np.minimum(np.searchsorted(beginnings, last, side="right"), first + _MOST_BEGINNINGS)
    at_beginning, beginning = _ranges(first, beyond)

    is_peak = (offset > _LEAST_OFFSET) & (offset > np.append(0, offset[:-1])) & (offset >= np.append(offset[1:], 0))
    peaks = np.flatnonzero(is_peak) / rate - bias
    at_peak, peak = _ranges(*np.searchsorted(peaks, [notes.onset, last]))
    nearest, distance = _nearest(peaks, beginnings)
    is_beginning = (distance <= _DISTINCT)[peak] & (first[at_peak] <= nearest[peak]) & (nearest[peak] < beyond[at_peak])

    note = np.concatenate([np.arange(len(notes)), at_beginning, at_peak[~is_beginning]])
    seconds = np.concatenate([notes.offset, beginnings[beginning], peaks[peak[~is_beginning]]])
    shortest = max(hparams.min_note_ms / 1000, _SHORTEST)
    kept = (seconds > notes.onset[note] + shortest) & (np.abs(seconds - notes.offset[note]) > _DISTINCT)
    kept[: len(notes)] = True
    order = np.argsort(note[kept], kind="stable")
    return note[kept][order], seconds[kept][order]


def _heard(
    notes: Notes,
    note: np.ndarray,
    seconds: np.ndarray,
    column: Mapping[str, np.ndarray],
    of_all: _OfAllPitches,
    hparams: MelodicHParams,
) -> np.ndarray:
    """What the rolls say of candidates, float32 `[candidates, NUM_HEARD]`.

    Args:
        notes: All of one pitch.
        note, seconds: The candidates: see `_times`.
        column: The pitch's rolls, `[time]`, by name.
        of_all: What rolls say of all pitches.
        hparams: As of `candidates`.
    """
    num_frames = len(column["frame"])
    offset = np.append(column["offset"], 0).astype(np.float64)  # A note may end after the last frame.
    frame = np.append(column["frame"], np.zeros(4)).astype(np.float64)
    at, likely = (
        np.clip(np.rint((time + hparams.onset_bias_ms / 1000) * hparams.frames_per_second).astype(int), 1, num_frames)
        for time in (seconds, notes.offset[note])
    )
    odds = evidence.of_frames(column["frame"])
    of_end = _highest_of_three(odds + _OFFSET_WEIGHT * evidence.of_offsets(column["offset"]))[at]
    best = np.maximum.reduceat(of_end, np.searchsorted(note, np.arange(len(notes))))
    lasts = np.maximum(seconds - notes.onset[note], _SHORTEST)
    next_onset = np.append(notes.onset[1:], np.inf)[note]
    heard = [
        of_end - best[note],
        np.log(_highest_of_three(offset)[at] + _LEAST),
        *(frame[np.maximum(at + distance, 0)] for distance in (-4, -2, -1, 0, 1, 3)),
        np.clip((odds[at] - odds[likely]) / 10, -10, 10),
        *(roll[np.minimum(at, num_frames - 1)] for roll in of_all),
        lasts,
        np.log(lasts),
        np.clip(next_onset - seconds, 0, 5),
        notes.velocity[note],
        notes.pitch[note],
        np.clip(seconds - notes.offset[note], -4, 4),
        seconds == notes.offset[note],
    ]
    return np.stack(heard, axis=1).astype(np.float32)


def _ranges(first: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All indices from `first` to before `beyond`, pair by pair, and beside each of which pair it is."""
    count = np.maximum(beyond - first, 0)
    of = np.repeat(np.arange(len(first)), count)
    return of, np.arange(len(of)) - (np.cumsum(count) - count - first)[of]


def _highest_of_three(values: np.ndarray) -> np.ndarray:
    """The highest of each frame and its neighbours, of values `[time]`."""
    padded = np.pad(values, 1, "edge")
    return np.maximum(np.maximum(padded[:-2], values), padded[2:])


def _nearest(times: np.ndarray, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each time, which of others is the nearest, and how far that is."""
    after = np.searchsorted(ascending, times)
    around = np.stack([np.maximum(after - 1, 0), np.minimum(after, len(ascending) - 1)])
    distance = np.abs(ascending[around] - times)
    nearer = np.argmin(distance, axis=0)[np.newaxis]
    return np.take_along_axis(around, nearer, 0)[0], np.take_along_axis(distance, nearer, 0)[0]


def around(notes: Notes, some: np.ndarray) -> np.ndarray:
    """The notes before and after each of some, whose indices are given, in the order of their onsets.

    Returns:
        float32 `[some, BEFORE + AFTER, NUM_AROUND]`: seconds of onset and offset after the note's onset; semitones above it;
        how much louder, in 30 units of MIDI velocity; and 1, or 0 where there is no such note.
    """
    own = some[:, None]
    index = own + np.concatenate([np.arange(-BEFORE, 0), np.arange(1, AFTER + 1)])
    there = (index >= 0) & (index < len(notes))
    index = np.clip(index, 0, len(notes) - 1)
    columns = [
        notes.onset[index] - notes.onset[own],
        notes.offset[index] - notes.onset[own],
        notes.pitch[index] - notes.pitch[own],
        (notes.velocity[index] - notes.velocity[own]) / 30,
        there,
    ]
    return np.stack(columns, axis=-1).astype(np.float32)


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
    """What is known of notes around whatever the candidate but their interval: `NUM_AROUND` arrays `[..., around]`."""
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
            `[2 * MAX_INTERVAL + 1, width]`, "known" `[NUM_AROUND, width]`, "between" `[NUM_BETWEEN, width]`; kernels "pair"
            `[width, width]`, "first", "second" and "score" `[..., 1]`, and of all four "<name>_bias".
    """

    def __init__(self, weights: Mapping[str, np.ndarray]):
        arrays = {name: np.asarray(array, np.float32) for name, array in weights.items()}
        if not arrays or not all(array.ndim and len(array) for array in arrays.values()):
            raise ValueError("there is no network")
        self._networks = [dict(zip(arrays, network, strict=True)) for network in zip(*arrays.values(), strict=True)]

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
        known: Of these, `[notes, around, NUM_AROUND]`.
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
    interval = np.clip(np.rint(near[..., 2]).astype(int), -MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL
    seconds = (found.seconds - notes.onset[found.note]).astype(np.float32)[:, None]
    onset, offset, there = near[note][..., [0, 1, 4]].transpose(2, 0, 1)
    pairs = np.stack(between(seconds, onset, offset)).reshape(NUM_BETWEEN, -1)
    return _Inputs(found.heard, note, interval, np.stack(known(near), axis=-1), there, pairs)


def _score(weights: Mapping[str, np.ndarray], inputs: _Inputs) -> np.ndarray:
    """What one network says of some candidates."""
    of_note = weights["interval"][inputs.interval] + inputs.known @ weights["known"]
    pair = inputs.between.T @ weights["between"]
    pair += of_note[inputs.note].reshape(pair.shape)
    pair = _dense(np.maximum(pair, 0, out=pair), weights, "pair") * inputs.there.reshape(-1, 1)
    pair = pair.reshape(*inputs.there.shape, -1)
    heard = standardised(inputs.heard, weights["heard_mean"], weights["heard_deviation"])
    hidden = np.concatenate([heard, pair.sum(axis=1) / 6, pair.max(axis=1)], axis=-1)
    hidden = _dense(_dense(hidden, weights, "first"), weights, "second")
    return (hidden @ weights["score"] + weights["score_bias"])[:, 0]


def _dense(values: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A dense layer with rectified answers, of values `[..., width]`."""
    answers = values @ weights[name]
    answers += weights[f"{name}_bias"]
    return np.maximum(answers, 0, out=answers)


def load(which: str) -> EndNetwork:
    """Networks that `scripts/fit_ends.py` has written.

    Args:
        which: One of `constants.END_KINDS`, or the path of a file.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    path = Path(__file__).with_name(f"ends_{which}.npz") if which in constants.END_KINDS else Path(which)
    try:
        with np.load(path) as file:
            network = EndNetwork(dict(file))
        # What does not fit together shall be found out here: intervals of all sizes, and what is no number.
        notes = Notes.of([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [21, 21 + MAX_INTERVAL, 108])
        candidates = Candidates(np.arange(3), np.ones(3), np.zeros((3, NUM_HEARD), np.float32))
        if not np.isfinite(network.scores(notes, candidates)).all():
            raise ValueError("not all of it are numbers")
        return network
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        kinds = ", ".join(constants.END_KINDS)
        raise PolyampError(f"predict_ends={which}: is neither {kinds} nor a file by scripts/fit_ends.py ({error}).") from error


def likeliest(notes: Notes, may_end: Candidates, network: EndNetwork) -> tuple[np.ndarray, np.ndarray]:
    """The candidates with the highest scores, of equal ones the first: of which notes, ascending, and their seconds."""
    best = np.lexsort((-network.scores(notes, may_end), may_end.note))
    index, first = np.unique(may_end.note, return_index=True)
    return index, may_end.seconds[best[first]]


def with_likelier_ends(notes: Notes, rolls: Mapping[str, np.ndarray], hparams: MelodicHParams) -> Notes:
    """The notes that were decoded from rolls, ending where the network `predict_ends` says.

    Args:
        notes, rolls, hparams: As of `candidates`.

    Returns:
        The same notes with other offsets; those of one pitch do not overlap.

    Raises:
        PolyampError: See `load`.
    """
    network, offset = load(hparams.predict_ends), notes.offset.copy()
    for may_end in _by_pitch(notes, rolls, hparams):
        index, seconds = likeliest(notes, may_end, network)
        offset[index] = seconds
    return dataclasses.replace(notes, offset=offset)
