"""Clicks, as the crackle of old records has them by the dozen a second: found and taken out.

A click is what linear prediction from the samples before fails at, for up to six milliseconds; so does a note that is struck,
but for longer. Its samples are replaced by those that fit the prediction best, given what lies on both sides
(`polyamp.audio.prediction`).
"""

import numpy as np

from polyamp.audio import prediction
from polyamp.audio.meters import FrameMeter
from polyamp.audio.reading import Blocks

_FRAME = 4096  # Samples that one prediction is fitted to.
_MARGIN = 128  # At both ends of a frame, where nothing is replaced: frames overlap by more than twice as much.
_HOP = _FRAME - 512
_ORDER = 24  # Samples that are predicted from.
_SURPRISE = 16.0  # Times the usual error of the prediction, from where on a sample may be of a click.
_LOUD = 4.0  # Times the median magnitude, to which samples are limited before the prediction is fitted.
_APART = 24  # Samples without surprise that end a click.
_LONGEST = 100  # Samples of a click.
_BEFORE, _AFTER = 2, 4  # Samples beside a click that are replaced as well.
_MOST = 18  # Clicks of a frame; what has more of them is no record but a synthesizer that sounds like that,
_REGULAR = 0.7  # as is what has this share of the times from click to click alike, within a tenth.
_LOUDER = 2.5  # What is so much louder after than before is a note that begins, however suddenly.
_ROUNDS = 4  # With the large clicks gone the prediction is better, and smaller ones are found.
_EVERY = 8  # Of so many frames one is looked at to tell whether a recording crackles,
_LEAST_FRAMES = 20  # in five seconds at least.
_LEAST_SHARE = 0.5  # Of those that sound so many have to have clicks: music, of drums and synthesizers most of all, has some.
_SILENCE = 1e-6  # Standard deviation.


class Meter(FrameMeter):
    """Tells whether a recording crackles all the time, as old records do, block by block."""

    def __init__(self) -> None:
        super().__init__(_FRAME)
        self._passed = self._sounding = self._with_clicks = 0

    def _hear(self, frames: np.ndarray) -> None:
        for frame in frames[-self._passed % _EVERY :: _EVERY].astype(np.float64):
            if frame.std() > _SILENCE:
                self._sounding += 1
                found = _clicks(frame, _prediction(frame))
                self._with_clicks += len(found) <= _MOST and any(not _is_attack(frame, *span) for span in found)
        self._passed += len(frames)

    @property
    def crackles(self) -> bool:
        """Whether most quarters of a second that have been heard have clicks; never for less than about five seconds."""
        return self._passed >= _LEAST_FRAMES and self._with_clicks > 0 and self._with_clicks >= _LEAST_SHARE * self._sounding


def repaired(blocks: Blocks) -> Blocks:
    """A recording without its clicks, of the same length; where there are none its samples stay as they are."""
    return prediction.by_frames(blocks, _FRAME, _HOP, _without_clicks)


def _without_clicks(frame: np.ndarray) -> np.ndarray:
    """Samples, float64 [up to `_FRAME`], with what fits in the place of clicks."""
    frame = frame.copy()
    for _ in range(_ROUNDS):
        if frame.std() <= _SILENCE:
            break
        predicting = _prediction(frame)
        found = _clicks(frame, predicting)
        if not 0 < len(found) <= _MOST:
            break
        for first, last in found:
            around = frame[first - _BEFORE - _ORDER : last + _AFTER + _ORDER + 1]  # All that they depend on.
            missing = np.arange(_ORDER, len(around) - _ORDER)
            around[missing] = prediction.filled(around, predicting, missing)
    return frame


def _prediction(frame: np.ndarray) -> np.ndarray:
    """As `prediction.fitted`, without loud clicks, or those would be what is predicted."""
    limit = _LOUD * np.median(np.abs(frame))
    return prediction.fitted(np.clip(frame, -limit, limit) if limit else frame, _ORDER)


def _clicks(frame: np.ndarray, predicting: np.ndarray) -> list[tuple[int, int]]:
    """First and last sample of each click that is not in the margins."""
    error = np.abs(np.convolve(frame, predicting)[_ORDER : len(frame)])
    surprising = np.flatnonzero(error > _SURPRISE * np.median(error) / 0.6745) + _ORDER  # The usual one if it were Gaussian.
    if not len(surprising):
        return []
    begins = np.flatnonzero(np.diff(surprising, prepend=-len(frame)) > _APART)
    first, last = surprising[begins], surprising[np.append(begins[1:], len(surprising)) - 1]
    short = (last - first < _LONGEST) & (first >= _MARGIN) & (last < len(frame) - _MARGIN)
    spans = zip(first[short].tolist(), last[short].tolist(), strict=True)
    return [] if _are_regular(first[short]) else list(spans)


def _is_attack(frame: np.ndarray, first: int, last: int) -> bool:
    """Whether the first sample is that of a note, in whose sudden beginning there may be something like a click."""
    before, after = frame[first - _MARGIN : first - _BEFORE], frame[last + _AFTER + 1 : last + _MARGIN]
    return bool(np.median(np.abs(after)) > _LOUDER * np.median(np.abs(before)))


def _are_regular(begins: np.ndarray) -> bool:
    """Whether they are the edges of a waveform, as a low note of a synthesizer has them."""
    gaps = np.diff(begins)
    return len(gaps) > 2 and bool(np.mean(np.abs(gaps - np.median(gaps)) <= 0.1 * np.median(gaps)) >= _REGULAR)
