"""Times at which notes may end, and what rolls say of each: what `polyamp.notes.ends` chooses among."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from polyamp import constants
from polyamp.hparams import MelodicHParams
from polyamp.notes import evidence
from polyamp.notes.arrays import Notes
from polyamp.notes.growing_rolls import Roll, Rolls

NUM_HEARD = 19  # Numbers that say what is heard of a candidate.

_REACH = 6.0  # Seconds; a note's end is looked for so long after its onset, its likely end wherever it is.
_MOST_BEGINNINGS = 24  # Of other notes, the next ones, at which one may end.
_TOGETHER = 0.02  # Seconds; what begins so soon after another begins with it.
_DISTINCT = 0.035  # Seconds; what is as near to the likely end, or a peak to a beginning, is the same.
_SHORTEST, _NEXT = 0.03, 0.05  # Seconds that a note lasts, at least, and until another that it may end at begins.
_LEAST_OFFSET = 0.03  # Probability of a peak of the offset roll that is a candidate.
_OFFSET_WEIGHT = 12.0  # Of an offset beside the log odds of frames, as `predict_offset_weight`.
_LEAST = 1e-4  # Added to probabilities of which the log is taken.


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


def candidates(notes: Notes, rolls: Rolls, hparams: MelodicHParams) -> Candidates:
    """Times at which notes may end: as decoded, where one of the next notes begins, and where the offset roll has a peak.

    None is later than the next onset of the pitch, nor, but for those decoded, than `_REACH` seconds after its own.

    Args:
        notes: As decoded from the rolls.
        rolls: Probabilities "onset", "offset" and "frame", `[time, 88]`.
        hparams: The settings of the decoder.
    """
    nothing = Candidates(np.zeros(0, int), np.zeros(0), np.zeros((0, NUM_HEARD), np.float32))
    note, seconds, heard = map(np.concatenate, zip(nothing, *by_pitch(notes, rolls, hparams), strict=True))
    order = np.argsort(note, kind="stable")
    return Candidates(note[order], seconds[order], heard[order])


def by_pitch(notes: Notes, rolls: Rolls, hparams: MelodicHParams) -> Iterator[Candidates]:
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


def _of_all_pitches(rolls: Rolls) -> _OfAllPitches:
    """Sums and maxima over the pitches, one by one, as rolls may be large."""
    offsets, onset, onsets = np.zeros((3, len(rolls["onset"])), np.float32)
    for pitch in range(constants.NUM_PITCHES):
        ends, begins = _column(rolls["offset"], pitch), _column(rolls["onset"], pitch)
        offsets += ends
        onsets += begins
        np.maximum(onset, begins, out=onset)
    return _OfAllPitches(*map(_highest_of_three, (offsets, onset, onsets)))


def _column(roll: Roll, pitch: int) -> np.ndarray:
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
