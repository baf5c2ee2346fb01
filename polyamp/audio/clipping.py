"""Clipping: the peaks that a recording has lost where it was louder than whatever recorded it could take, and what they were.

A clipped sample says that the sound was at least as far from zero. Between the samples that are whole it is what linear
prediction from these makes it (`polyamp.audio.prediction`), or as far from zero as it was recorded where that is further.
"""

import numpy as np

from polyamp.audio import prediction
from polyamp.audio.meters import FrameMeter
from polyamp.audio.reading import Blocks

_LEAST_SAMPLES = 80_000  # Five seconds: a single note may have a shape of its own.
# Magnitudes are counted by the first bits of their floating point numbers, of which those of a step differ by 1 to 1.6 %.
_SHIFT = 17
_SIGNS = 2
_STEPS = 2 ** (31 - _SHIFT)
_INFINITE = 0x7F800000 >> _SHIFT  # The step of what is no number any more.
_WIDTH = 0.06  # Resampling and lossy formats leave samples that were at the limit around it, by so much.
_BELOW = (0.83, 0.94)  # Times a level: what is compared with those around it.
_LEAST_SHARE, _MOST_SHARE = 5e-4, 0.4  # Of all samples of a sign so many have to be at the limit: of a square wave more are,
_LEAST_RATIO = 1.1  # so many times as many as below it, where otherwise the louder the fewer,
_MOST_ABOVE = 0.15  # and of those so many above it.
_FROM = 0.92  # Times the limit: samples from there on have been clipped.
_FRAME = 2048  # Samples that one prediction is fitted to.
_HOP = 1536
_ORDER = 128  # Samples that are predicted from: 8 ms.
_ROUNDS = 2  # Predictions of what has been filled in once are better.
_MOST = 0.6  # Share of a frame above which nothing can be told.


class Meter(FrameMeter):
    """Tells whether a recording has been clipped, and at which levels, block by block.

    The louder samples are, the fewer there are of them; in a clipped recording most of the loudest are at the limit.
    """

    def __init__(self) -> None:
        super().__init__(_FRAME)
        self._counts = np.zeros(_SIGNS * _STEPS, np.int64)

    def _hear(self, frames: np.ndarray) -> None:
        bits = np.ascontiguousarray(frames, np.float32).reshape(-1).view(np.uint32)
        self._counts += np.bincount(bits >> _SHIFT, minlength=len(self._counts))

    @property
    def limits(self) -> tuple[float, float] | None:
        """The samples, below 0 and above, where the recording was cut off; None if it was not, or is too short to tell."""
        if self._counts.sum() < _LEAST_SAMPLES:
            return None
        above, below = (_limit(counts) for counts in self._counts.reshape(_SIGNS, _STEPS))
        return (-below, above) if above and below else None


def _limit(counts: np.ndarray) -> float:
    """The level at which samples of one sign pile up; 0 if they do not.

    Args:
        counts: How many samples there are of each step.
    """
    counts = np.concatenate([[0], counts[1:]])  # Digital silence is of neither sign.
    levels = (np.arange(_INFINITE, dtype=np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
    total = np.concatenate([[0], np.cumsum(counts)])

    def up_to(factor: float) -> np.ndarray:
        """How many are below so many times each level."""
        return total[np.searchsorted(levels, factor * levels)]

    at = up_to(1 + _WIDTH) - up_to(1 - _WIDTH)
    below = up_to(_BELOW[1]) - up_to(_BELOW[0])
    over = total[-1] - up_to(1 + _WIDTH)
    piles = (at >= max(1.0, _LEAST_SHARE * total[-1])) & (at <= _MOST_SHARE * total[-1]) & (over <= _MOST_ABOVE * at)
    ratios = np.where(piles, at / np.maximum(below, 1), 0.0)
    return float(levels[ratios.argmax()]) if ratios.max() >= _LEAST_RATIO else 0.0


def repaired(blocks: Blocks, limits: tuple[float, float]) -> Blocks:
    """A recording as it was before it was clipped, of the same length; what has not been clipped stays as it is.

    Args:
        blocks: Gives the audio.
        limits: As `Meter` finds them.
    """
    low, high = _FROM * limits[0], _FROM * limits[1]
    return prediction.by_frames(blocks, _FRAME, _HOP, lambda frame: _restored(frame, low, high))


def _restored(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    """Samples, float64 [up to `_FRAME`], with the peaks that were clipped, which are what is outside of `low` and `high`."""
    clipped = np.flatnonzero((frame <= low) | (frame >= high))
    if not 0 < len(clipped) <= _MOST * len(frame):
        return frame
    restored, recorded = frame.copy(), frame[clipped]
    for _ in range(_ROUNDS):
        found = prediction.filled(restored, prediction.fitted(restored, _ORDER), clipped)
        restored[clipped] = np.where(recorded > 0, np.maximum(found, recorded), np.minimum(found, recorded))
    return restored
