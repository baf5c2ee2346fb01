"""Cuts one recording into segments for training; pure, so that anything that maps over recordings can call it."""

import numpy as np

from polyamp import constants, notes
from polyamp.data.example import Example, velocity_range
from polyamp.errors import DataError
from polyamp.notes import Notes

_SHORTEST_GAP = 0.02  # Seconds; moments of less than this between two notes are no good place to cut.


def examples(recording_id: str, audio: np.ndarray, labels: Notes, min_length: float, max_length: float) -> list[Example]:
    """The segments of a recording as examples.

    Args:
        recording_id: What the examples are called, together with where they begin.
        audio: float32 [samples] at 16 kHz.
        labels: Notes of the recording, the sustain pedal applied.
        min_length: See `cut_points`.
        max_length: See `cut_points`; 0 gives the whole recording as one example.

    Returns:
        Examples that together hold all of the audio once. A note that a cut crosses is in all segments in which it sounds, with
        its real times (see `Example.notes`), so that it starts and ends only once.

    Raises:
        DataError: The lengths make no sense.
    """
    points = cut_points(audio, labels, min_length, max_length) if max_length else np.array([0, len(audio)])
    velocities = velocity_range(labels)
    cut = []
    for start, end in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        inside = notes.crop(labels, start / constants.SAMPLE_RATE, end / constants.SAMPLE_RATE, clip=False)
        name = f"{recording_id}@{start / constants.SAMPLE_RATE:.3f}" if len(points) > 2 else recording_id
        cut.append(Example(name, audio[start:end], inside, velocities))
    return cut


def cut_points(audio: np.ndarray, labels: Notes, min_length: float, max_length: float) -> np.ndarray:
    """Where to cut: at silences if there are any in reach, else where the fewest notes sound; at a zero crossing if possible.

    Args:
        audio: float32 [samples] at 16 kHz.
        labels: Notes of the recording, the sustain pedal applied.
        min_length: Seconds that a segment has at least. A shorter recording is one segment; the last segment may be shorter
            where `max_length` is less than twice this.
        max_length: Seconds that a segment has at most.

    Returns:
        int64 [segments + 1], samples, ascending from 0 to the length of the audio.

    Raises:
        DataError: `min_length` is negative or above `max_length`.
    """
    if not 0 <= min_length <= max_length:
        raise DataError(f"segments cannot be {min_length:g} to {max_length:g} s long; give 0 <= min_length <= max_length.")
    shortest = max(1, round(min_length * constants.SAMPLE_RATE))
    longest = max(1, round(max_length * constants.SAMPLE_RATE))
    onsets, offsets = np.sort(labels.onset), np.sort(labels.offset)
    points = [0]
    while len(audio) - points[-1] > longest:
        low, high = points[-1] + shortest, points[-1] + longest
        if len(audio) - high < shortest:  # Leave enough for the last segment.
            high = max(low, len(audio) - shortest)
        start, end = _quietest_gap(onsets, offsets, low / constants.SAMPLE_RATE, high / constants.SAMPLE_RATE)
        first, last = round(start * constants.SAMPLE_RATE), round(end * constants.SAMPLE_RATE)
        points.append(_zero_crossing(audio, max(first, low), min(last, high)))
    return np.array([*points, len(audio)], np.int64)


def _quietest_gap(onsets: np.ndarray, offsets: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The latest stretch of time within [low, high] seconds in which the fewest notes sound; both arrays are sorted."""
    changes = np.concatenate([_between(onsets, low, high), _between(offsets, low, high)])
    edges = np.concatenate([[low], np.unique(changes), [high]])
    starts, ends = edges[:-1], edges[1:]
    sounding = np.searchsorted(onsets, starts, "right") - np.searchsorted(offsets, starts, "right")
    too_short = ends - starts < _SHORTEST_GAP
    if not too_short.all():
        starts, ends, sounding = starts[~too_short], ends[~too_short], sounding[~too_short]
    best = np.flatnonzero(sounding == sounding.min())[-1]
    return float(starts[best]), float(ends[best])


def _between(ordered: np.ndarray, low: float, high: float) -> np.ndarray:
    """The values strictly inside (low, high)."""
    return ordered[np.searchsorted(ordered, low, "right") : np.searchsorted(ordered, high, "left")]


def _zero_crossing(audio: np.ndarray, first: int, last: int) -> int:
    """The sample in [first, last] nearest to the middle where the sign changes, the middle itself if it nowhere does."""
    middle = (first + last) // 2
    part = audio[first - 1 : last + 1]
    crossings = first + np.flatnonzero(part[:-1] * part[1:] <= 0)
    return int(crossings[np.argmin(np.abs(crossings - middle))]) if len(crossings) else middle
