"""How loud a recording is, and the same recording as loud as those that a model was trained on."""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from polyamp.audio import balance, clicks, clipping, tuning
from polyamp.audio.meters import FrameMeter, fed
from polyamp.audio.reading import Blocks, Repeated

_STEP = 800  # Samples whose power counts as one: 50 ms.
_LOUD = 0.9  # Quantile of the powers of what is played.
_LOUDEST = 100  # How many stretches, five seconds in all, have to be as loud to be what is played, and not a bang or applause.
_RANGE = 40.0  # Decibels: what is this far below them is a rest, which does not count, however long and whatever its noise.
_MOST = 24.0  # Decibels by which a recording is amplified at most: silence with its noise stays silence.


class Meter(FrameMeter):
    """Measures a recording block by block: see `measure`."""

    def __init__(self) -> None:
        super().__init__(_STEP)
        self._powers: list[np.ndarray] = []

    def _hear(self, frames: np.ndarray) -> None:
        self._powers.append(np.var(frames, axis=1))

    @property
    def level(self) -> float:
        """As `measure`, of what has been heard."""
        found = np.concatenate(self._powers) if self._powers else np.zeros(0)
        if not len(found):
            found = np.var(self._rest, keepdims=True) if len(self._rest) else np.zeros(1)
        found = np.sort(found[found > 0])
        if not len(found):
            return -np.inf
        loudest = found[-max(1, min(_LOUDEST, len(found) // 10))]
        return 10 * np.log10(float(np.quantile(found[found >= loudest * 10 ** (-_RANGE / 10)], _LOUD)))


def measure(blocks: Iterable[np.ndarray]) -> float:
    """The level of the loud parts of a recording.

    Args:
        blocks: The audio, float32 [samples] in blocks of any length, whose borders do not matter.

    Returns:
        The ninth decile of the power, without any offset, of its stretches of 50 ms that are no rests, in decibels; 0 for a
        full-scale square wave, -inf for silence. Rests are 40 dB below the loudest five seconds, or the loudest tenth of what
        is shorter than fifty seconds. What the last, incomplete stretch holds counts only if there is no other.
    """
    return fed(Meter(), blocks).level


class _Meters(NamedTuple):
    """All that is measured of a recording in one pass."""

    level: Meter
    tuning: tuning.Meter
    balance: balance.Meter
    clicks: clicks.Meter
    clipping: clipping.Meter


class Measured:
    """A recording of which all that is asked for, level, tuning, balance, clicks and clipping, is found in one pass.

    Args:
        blocks: Gives the audio, as this does.
        level: Its level, if it is known.
        colour: How it is balanced, if that is known.
    """

    def __init__(self, blocks: Blocks, level: float | None = None, colour: balance.Meter | None = None):
        self._blocks, self._level, self._colour = blocks, level, colour

    def __call__(self) -> Iterable[np.ndarray]:
        return self._blocks()

    @functools.cached_property
    def _meters(self) -> _Meters:
        meters = _Meters(Meter(), tuning.Meter(), balance.Meter(), clicks.Meter(), clipping.Meter())
        for block in self._blocks():
            for meter in meters:
                meter.add(block)
        return meters

    @functools.cached_property
    def level(self) -> float:
        """As `measure`."""
        return self._meters.level.level if self._level is None else self._level

    @functools.cached_property
    def cents(self) -> float:
        """As `tuning.measure`."""
        return self._meters.tuning.cents

    def without_clipping(self) -> "Measured":
        """The recording as it should be heard if it has been clipped."""
        limits = self._meters.clipping.limits
        return Measured(Repeated(clipping.repaired(self._blocks, limits))) if limits else self

    def without_clicks(self) -> "Measured":
        """The recording as it should be heard if it crackles."""
        return Measured(Repeated(clicks.repaired(self._blocks))) if self._meters.clicks.crackles else self

    def balanced(self, share: float, kind: str) -> "Measured":
        """The recording as it should be heard without that share of the colour that it has for music of that kind."""
        colour = self._colour or self._meters.balance
        gains = colour.gains(share, kind)
        if not gains.any():
            return self
        return Measured(balance.equalized(self._blocks, gains), self.level + colour.louder(gains))

    def in_tune(self) -> "tuple[Measured, float]":
        """The recording as it should be heard if it is out of tune, and by which factor it lasts longer then."""
        factor = tuning.stretch_of(self.cents)
        if factor == 1.0:
            return self, factor
        return Measured(tuning.stretched(self._blocks, factor), self.level, self._meters.balance), factor


def brought_to(blocks: Blocks, target: float) -> Blocks:
    """A recording at another level, by one factor for all of it.

    Args:
        blocks: Gives the audio; it is called once more than what is returned, unless its level is known.
        target: The level that `measure` shall find, in decibels; 0: the recording stays as it is.

    Returns:
        Gives the audio at that level, or amplified by 24 dB where it is further below; it may be attenuated by any number.
    """
    if not target:
        return blocks
    found = blocks.level if isinstance(blocks, Measured) else measure(blocks())
    difference = min(target - found, _MOST)
    factor = np.float32(10 ** (difference / 20))

    def changed() -> Iterator[np.ndarray]:
        for block in blocks():
            yield block * factor

    return changed
