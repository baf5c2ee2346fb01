"""How the ticks of a MIDI file follow seconds: at one tempo, or from beat to beat."""

import dataclasses
import math

import numpy as np

from polyamp.errors import PolyampError

_EARLIEST = 0.06  # Seconds; a beat before that counts as one at the start: to lead to it would take an absurd tempo.
_SHORTEST, _LONGEST = 0.05, 16.0  # Seconds between beats; a MIDI file has room for 16.7.
_PER_BEAT = 960  # Ticks from beat to beat: half a millisecond at 120 beats per minute.
_MOST_TICKS = 9_000_000  # Of a file; pretty_midi by itself refuses ten million.


@dataclasses.dataclass(frozen=True)
class Clock:
    """The tempos of a MIDI file.

    Attributes:
        ticks_per_quarter: The file's resolution.
        tempo: Microseconds per quarter note, int64 [tempos], each from its tick on.
        tick: Where they begin, int64 [tempos], ascending from 0.
    """

    ticks_per_quarter: int
    tempo: np.ndarray
    tick: np.ndarray

    def ticks(self, seconds: np.ndarray) -> np.ndarray:
        """The nearest tick to each time, int64 of the same shape."""
        seconds_per_tick = self.tempo / (1e6 * self.ticks_per_quarter)
        begin = np.concatenate([[0.0], np.cumsum(np.diff(self.tick) * seconds_per_tick[:-1])])
        index = np.searchsorted(begin, seconds, "right") - 1
        return self.tick[index] + np.rint((seconds - begin[index]) / seconds_per_tick[index]).astype(np.int64)


def at_tempo(qpm: float, last_time: float) -> Clock:
    """A clock of one tempo.

    It has the coarsest usual resolution (15 times a power of 2; below, any) whose ticks are short enough: up to 0.8 ms (times
    round by half of that at most), in files of more than 66 minutes up to two ten-millionths of them, as ticks may be half as
    long and pretty_midi refuses ten million.

    Args:
        qpm: Quarter notes per minute.
        last_time: Seconds that the file lasts.
    """
    tempo = round(60e6 / qpm)  # As stored: ticks are counted in the tempo that readers see.
    least = tempo / max(800.0, 0.2 * last_time)
    resolution = math.ceil(least) if least <= 15 else 15 * 2 ** math.ceil(math.log2(least / 15))
    return Clock(resolution, np.array([tempo]), np.array([0]))


def on_beats(beats: np.ndarray, last_time: float) -> Clock:
    """A clock in which every beat is at a quarter note.

    The first has as many quarter notes before it as are likely, at least one, unless it is in the first 0.06 s: then the start
    of the file takes its place.

    Args:
        beats: Seconds, ascending; at least two.
        last_time: Seconds that the file lasts.

    Raises:
        PolyampError: Some are less than 0.05 s from one to the next, or more than 16 s.
    """
    gaps = np.diff(beats)
    if beats[0] < 0 or not np.all((gaps >= _SHORTEST) & (gaps <= _LONGEST)):
        raise PolyampError(f"beats have to ascend from 0 on, by {_SHORTEST} to {_LONGEST:.0f} s.")
    period = beats[1] - beats[0]
    before = max(1, round(beats[0] / period), math.ceil(beats[0] / _LONGEST))
    if beats[0] < _EARLIEST:
        beats, before = np.concatenate([[0.0], beats[1:]]), 0
    after = max(0.0, last_time - beats[-1]) / (beats[-1] - beats[-2])
    resolution = _PER_BEAT
    while resolution * (before + len(beats) + after) > _MOST_TICKS:
        resolution //= 2
    quarter = np.concatenate([[0], before + np.arange(len(beats))])[0 if before else 1 :]
    times = np.concatenate([[0.0], beats])[0 if before else 1 :]
    tempo = np.rint(np.diff(np.rint(1e6 * times)) / np.diff(quarter)).astype(np.int64)  # So that roundings do not add up.
    return Clock(resolution, tempo, resolution * quarter[:-1])
