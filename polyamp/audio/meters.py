"""Measuring recordings of any length in one pass, frame by frame."""

import abc
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np


class FrameMeter(abc.ABC):
    """Hears a recording block by block, in frames that follow each other; the last one counts only if it is complete.

    Args:
        length: Of a frame, samples.
    """

    def __init__(self, length: int):
        self._length = length
        self._rest = np.zeros(0, np.float32)  # Of what has been added, what is no frame yet.

    def add(self, block: np.ndarray) -> None:
        """Hears what follows, float32 [samples]."""
        samples = np.concatenate([self._rest, block])
        whole = len(samples) // self._length * self._length
        self._hear(samples[:whole].reshape(-1, self._length))
        self._rest = samples[whole:].copy()  # No view, which would keep all of the block.

    @abc.abstractmethod
    def _hear(self, frames: np.ndarray) -> None:
        """Hears the frames that follow, `[frames, length]`, perhaps none."""


_Meter = TypeVar("_Meter", bound=FrameMeter)


def fed(meter: _Meter, blocks: Iterable[np.ndarray]) -> _Meter:
    """The meter after it has heard all blocks."""
    for _ in passed(meter, blocks):
        pass
    return meter


def passed(meter: FrameMeter, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks, each heard by the meter on its way."""
    for block in blocks:
        meter.add(block)
        yield block
