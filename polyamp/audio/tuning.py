"""How far from concert pitch a recording is, and the same recording in tune.

The models hear pitch on an axis that is fixed to A4 = 440 Hz. Old pianos, tapes, films and bands that tune by ear are off it by
up to a quarter tone, and from a fifth of a semitone on notes are missed for that.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from polyamp import constants
from polyamp.audio import filters
from polyamp.audio.log_frequency import A4_HZ
from polyamp.audio.meters import FrameMeter, fed
from polyamp.audio.reading import Blocks

_WINDOW = 4096  # Samples of a frame; one follows the other.
_BLOCK = 32  # Frames transformed at a time.
_LOWEST_HZ, _HIGHEST_HZ = 80.0, 2000.0  # Below, partials are not told apart; above, those of strings are sharp.
_LEAST_PEAK = 0.03  # Of the frame's highest magnitude.
_LEAST_AGREEMENT = 0.25  # Music has 0.3 to 0.9; bells by themselves 0.2, a voice or noise less than 0.1.
_LEAST_FRAMES = 20  # What is shorter, five seconds, may be a single note, which has no tuning.
_LEAST_CENTS = 10.0  # What is less off is heard as well, and stays as it is.
_WORTH_TELLING = 15.0  # Cents; 20 cost an Autoregressive model one or two in a hundred notes, 40 a third.


class Meter(FrameMeter):
    """Measures a recording block by block: see `measure`."""

    def __init__(self) -> None:
        super().__init__(_WINDOW)
        self._sum, self._weight, self._num_frames = 0j, 0.0, 0

    def _hear(self, frames: np.ndarray) -> None:
        for first in range(0, len(frames), _BLOCK):
            self._add_partials(frames[first : first + _BLOCK])

    def _add_partials(self, frames: np.ndarray) -> None:
        """Adds the partials of frames, `[time, samples]`: each a vector whose direction is how far it is from a semitone."""
        lowest, highest = (round(hertz * _WINDOW / constants.SAMPLE_RATE) for hertz in (_LOWEST_HZ, _HIGHEST_HZ))
        magnitude = np.abs(np.fft.rfft(frames * filters.hann(_WINDOW))[:, : highest + 1])
        below, here, above = magnitude[:, lowest - 1 : -2], magnitude[:, lowest:-1], magnitude[:, lowest + 1 :]
        is_peak = (here > below) & (here >= above) & (here > _LEAST_PEAK * magnitude[:, lowest:].max(axis=1, keepdims=True))
        left, top, right = (np.log(np.maximum(part[is_peak], 1e-12)) for part in (below, here, above))
        # A parabola through the logarithms has its vertex so far from the bin.
        offset = 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
        hertz = (np.nonzero(is_peak)[1] + lowest + offset) * constants.SAMPLE_RATE / _WINDOW
        weight = here[is_peak]
        self._sum += complex(np.sum(weight * np.exp(2j * np.pi * 12 * np.log2(hertz / A4_HZ))))
        self._weight += float(np.sum(weight))
        self._num_frames += len(frames)

    @property
    def cents(self) -> float:
        """As `measure`, of what has been heard."""
        if self._num_frames < _LEAST_FRAMES or abs(self._sum) <= _LEAST_AGREEMENT * self._weight:
            return 0.0
        return float(np.angle(self._sum)) / (2 * np.pi) * 100


def measure(blocks: Iterable[np.ndarray]) -> float:
    """How many cents (hundredths of a semitone) a recording is above the nearest equal temperament of A4 = 440 Hz.

    The mean direction of its partials on a circle of one semitone, by their magnitudes.

    Args:
        blocks: The audio, 16 kHz mono float32 [samples] in blocks of any length, whose borders do not matter.

    Returns:
        -50 to 50; 0 where partials do not agree, as of voices and of noise, and for less than about five seconds.
    """
    return fed(Meter(), blocks).cents


def stretch_of(cents: float) -> float:
    """By which factor a recording that is so many cents sharp has to last longer to be in tune; 1 if it is so well enough."""
    return 2 ** (cents / 1200) if abs(cents) >= _LEAST_CENTS else 1.0


def better_a4(cents: float, a4_hz: float | None) -> float | None:
    """The tuning, in Hz of A4, that a model should be told which hears a recording as of another.

    Args:
        cents: What `measure` says of the recording.
        a4_hz: The tuning that the model hears it in; None if it cannot be told of another.

    Returns:
        The nearest one that fits and can be told, to 0.1 Hz; None if nothing is known of the recording's, or it is that one
        well enough.
    """
    if not cents or a4_hz is None:
        return None
    off = (cents - 1200 * np.log2(a4_hz / A4_HZ) + 50) % 100 - 50
    if abs(off) < _WORTH_TELLING:
        return None
    candidates = [a4_hz * 2 ** (cents / 1200) for cents in sorted((off - 100, off, off + 100), key=abs)]
    lowest, highest = constants.A4_RANGE_HZ
    return next(round(float(hertz), 1) for hertz in candidates if lowest <= hertz <= highest)


def stretched(blocks: Blocks, factor: float) -> Blocks:
    """A recording that lasts `factor` times as long, its pitch the lower for it; the recording itself if that is 1."""
    if factor == 1.0:
        return blocks

    def slower() -> Iterator[np.ndarray]:
        resampler = soxr.ResampleStream(constants.SAMPLE_RATE, constants.SAMPLE_RATE * factor, 1, "float32", "HQ")
        for block in blocks():
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    return slower
