"""Beats of the music, found in its notes: so that a MIDI file can have a tempo that follows them.

Of all sequences of beats the one with the most evidence is found by dynamic programming, as by Ellis (2007, "Beat tracking by
dynamic programming"), but over time and period together, so that the tempo may change from beat to beat.
"""

import numpy as np

from polyamp.notes.arrays import Notes

_RATE = 50  # Instants per second at which beats may be.
_SLOWEST, _USUAL, _FASTEST = 45.0, 120.0, 215.0  # Beats per minute.
_SPREAD = 0.6  # Octaves of tempo around the usual one that are as good as it.
_STEADINESS = 50.0  # What a change of tempo costs for each factor of e.
_GAIN, _EXPECTED = 3.0, 0.15  # What the strength of an onset counts on a beat, beyond that which it should have there.
_TEMPO_WEIGHT = 0.5  # What the tempo by itself counts, beat by beat.
_LONGEST = 1.0  # Seconds of a note that count: long notes rather begin on beats.
_LOW_PITCH, _LOW_WEIGHT = 55, 1.5  # Below that pitch notes say more of the beat.
_WITHIN = 0.05  # Seconds from a beat of the notes that are played on it.
_AROUND = 4.0  # Seconds on both sides with which the strength of an onset is compared.


def track(notes: Notes) -> np.ndarray:
    """When the beats are, in seconds, ascending: where one would tap, which need not be the written quarter notes.

    Args:
        notes: In any order.

    Returns:
        float64 [beats] from the first note to the last; none where all begin within 0.04 s.
    """
    first = notes.onset.min(initial=np.inf)
    if not notes.onset.max(initial=0.0) - first >= 2 / _RATE:
        return np.zeros(0)
    weight = _weight(notes)
    beats = first + _best_sequence(_strength(notes.onset - first, weight)) / _RATE
    return _onto_notes(beats, notes.onset, weight)


def _weight(notes: Notes) -> np.ndarray:
    """How much each note's onset says about the beat."""
    length = np.minimum(notes.offset - notes.onset, _LONGEST)
    return np.maximum(notes.velocity, 1) / 127 * (0.3 + length) * np.where(notes.pitch < _LOW_PITCH, _LOW_WEIGHT, 1.0)


def _strength(onset: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """How strong the onsets around each instant are among those of the seconds around, 0 to 1, `[instants]`."""
    position = onset * _RATE
    count = int(position.max()) + 2
    before = position.astype(np.int64)
    share = position - before
    onsets = np.bincount(before, weight * (1 - share), count) + np.bincount(before + 1, weight * share, count)
    near = np.exp(-0.5 * np.square(np.arange(-3, 4)))
    onsets = np.convolve(onsets, near, "same") if count > len(near) else onsets
    around = np.concatenate([[0.0], np.cumsum(np.square(onsets))])
    reach = round(_AROUND * _RATE)
    first, last = np.maximum(np.arange(count) - reach, 0), np.minimum(np.arange(count) + reach, count)
    usual = np.sqrt((around[last] - around[first]) / (2 * reach))
    return np.tanh(0.3 * onsets / np.maximum(usual, 1e-3))


def _best_sequence(strength: np.ndarray) -> np.ndarray:
    """The instants of the best beats.

    The best score of beats up to one at an instant, the last period being a given one, is what that beat itself counts and the
    best that can come before it: one at the instant a period before, whatever its own period, less what the change costs.
    """
    periods = np.arange(round(60 * _RATE / _FASTEST), round(60 * _RATE / _SLOWEST) + 1)
    tempo = np.log2(60 * _RATE / periods / _USUAL)
    of_tempo = -0.5 * _TEMPO_WEIGHT * np.square(tempo / _SPREAD)
    # Slow beats are fewer, so each has to count more, or fast ones would always win.
    counts = _GAIN * np.sqrt(periods / (60 * _RATE / _USUAL))
    change = -_STEADINESS * np.abs(np.log(periods[:, None] / periods))  # [period, period before]
    rows = np.arange(len(periods))
    longest = periods[-1]
    score = np.zeros((longest + len(strength), len(periods)), np.float32)  # Nothing yet in the period before the first instant.
    chosen = np.zeros(score.shape, np.uint8)
    for instant, found in enumerate(strength, start=longest):
        before = score[instant - periods] + change
        chosen[instant] = best = before.argmax(axis=1)
        score[instant] = before[rows, best] + counts * (found - _EXPECTED) + of_tempo
    last, period = divmod(int(score[-longest:].argmax()), len(periods))
    instant = len(strength) + last
    beats = []
    while instant >= longest:
        beats.append(instant - longest)
        instant, period = instant - int(periods[period]), int(chosen[instant, period])
    return np.array(beats[::-1])


def _onto_notes(beats: np.ndarray, onset: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Beats moved to the mean of the onsets close to them; those between them where no note begins stay in proportion."""
    nearest = np.searchsorted((beats[1:] + beats[:-1]) / 2, onset)
    distance = onset - beats[nearest]
    close = np.abs(distance) <= _WITHIN
    total = np.bincount(nearest[close], weight[close], len(beats))
    played = np.flatnonzero(total)
    if not len(played):
        return beats
    moved = np.bincount(nearest[close], (weight * distance)[close], len(beats))[played] / total[played]
    return np.maximum(beats + np.interp(np.arange(len(beats)), played, moved), 0.0)
