"""How loud a recording is, and the same recording as loud as those that a model was trained on."""

import functools
from collections.abc import Iterable, Iterator

import numpy as np

from polyamp.audio.reading import Blocks

_STEP = 800  # Samples whose power counts as one: 50 ms.
_LOUD = 0.9  # Quantile of the powers of what is played.
_LOUDEST = 100  # How many stretches, five seconds in all, have to be as loud to be what is played, and not a bang or applause.
_RANGE = 40.0  # Decibels: what is this far below them is a rest, which does not count, however long and whatever its noise.
_MOST = 24.0  # Decibels by which a recording is amplified at most: silence with its noise stays silence.


def measure(blocks: Iterable[np.ndarray]) -> float:
    """The level of the loud parts of a recording.

    Args:
        blocks: The audio, float32 [samples] in blocks of any length, whose borders do not matter.

    Returns:
        The ninth decile of the power, without any offset, of its stretches of 50 ms that are no rests, in decibels; 0 for a
        full-scale square wave, -inf for silence. Rests are 40 dB below the loudest five seconds, or the loudest tenth of what
        is shorter than fifty seconds. What the last, incomplete stretch holds counts only if there is no other.
    """
    powers: list[np.ndarray] = []
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // _STEP * _STEP
        powers.append(np.var(rest[:whole].reshape(-1, _STEP), axis=1))
        rest = rest[whole:]
    found = np.concatenate(powers) if powers else np.zeros(0)
    if not len(found):
        found = np.var(rest, keepdims=True) if len(rest) else np.zeros(1)
    found = np.sort(found[found > 0])
    if not len(found):
        return -np.inf
    loudest = found[-max(1, min(_LOUDEST, len(found) // 10))]
    return 10 * np.log10(float(np.quantile(found[found >= loudest * 10 ** (-_RANGE / 10)], _LOUD)))


class Measured:
    """A recording whose level is measured once, when it is asked for, to whatever levels it is brought then.

    Args:
        blocks: Gives the audio, as this does.
    """

    def __init__(self, blocks: Blocks):
        self._blocks = blocks

    def __call__(self) -> Iterable[np.ndarray]:
        return self._blocks()

    @functools.cached_property
    def level(self) -> float:
        """As `measure`."""
        return measure(self._blocks())


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
