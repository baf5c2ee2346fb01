"""Rolls of recordings of any length, in little memory."""

import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

_BLOCK = 8192  # Frames that are compressed together: four minutes of the compact presets, so that most recordings never are.
_STEPS = 65_535  # From 0 to 1.


class GrowingRoll:
    """A roll of probabilities, or what else is between 0 and 1, that grows at its end.

    Each cell is kept in two bytes, to the nearest 65,535th; what is outside as 0 or 1, and what is no number as 0. All but the
    last frames are compressed, pitch by pitch: in most cells nothing sounds, so probabilities take a quarter of that.

    It reads as a float32 array `[time, pitches]`: whole pitches as `roll[:, pitches]`, and all as `np.asarray(roll)`.

    Args:
        num_pitches: Its width.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, num_pitches: int):
        self._compressed: list[list[bytes]] = [[] for _ in range(num_pitches)]  # Of each pitch, blocks of `_BLOCK` frames.
        self._last = np.empty((num_pitches, 0), np.uint16)  # Not compressed yet, of which the first
        self._num_last = 0  # frames are there, the others room for what follows.

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and pitches."""
        return len(self._compressed[0]) * _BLOCK + self._num_last, len(self._compressed)

    def __len__(self) -> int:
        return self.shape[0]

    def add(self, frames: np.ndarray) -> None:
        """Adds frames that follow, `[time, pitches]`.

        Raises:
            ValueError: They are not.
        """
        if frames.shape[1:] != self.shape[1:]:
            raise ValueError(f"frames must be [time, {self.shape[1]}]; got {list(frames.shape)}.")
        steps = np.rint(np.clip(np.nan_to_num(frames), 0, 1) * np.float32(_STEPS)).T.astype(np.uint16)
        while steps.size:
            room = _BLOCK - self._num_last
            fitting, steps = steps[:, :room], steps[:, room:]
            first, self._num_last = self._num_last, self._num_last + fitting.shape[1]
            if self._num_last > self._last.shape[1]:
                larger = np.empty((self.shape[1], min(_BLOCK, 2 * self._num_last)), np.uint16)
                larger[:, :first] = self._last[:, :first]
                self._last = larger
            self._last[:, first : self._num_last] = fitting
            if self._num_last == _BLOCK:
                for blocks, row in zip(self._compressed, self._last, strict=True):
                    blocks.append(zlib.compress(row.tobytes(), 1))
                self._num_last = 0

    def __getitem__(self, cells: tuple[slice, int | slice]) -> np.ndarray:
        """All frames of a pitch, float32 `[time]`, or of several, `[time, pitches]`."""
        if not (isinstance(cells, tuple) and len(cells) == 2 and isinstance(cells[0], slice) and cells[0] == slice(None)):
            raise IndexError("of a GrowingRoll there are only whole pitches: roll[:, pitches].")
        chosen = range(self.shape[1])[cells[1]]
        if isinstance(chosen, int):
            return self._of(chosen)
        rows = np.empty((len(chosen), len(self)), np.float32)
        for row, pitch in zip(rows, chosen, strict=True):
            row[:] = self._of(pitch)
        return rows.T

    def _of(self, pitch: int) -> np.ndarray:
        """All frames of a pitch from 0 on, float32 `[time]`."""
        blocks = [np.frombuffer(zlib.decompress(block), np.uint16) for block in self._compressed[pitch]]
        return np.concatenate([*blocks, self._last[pitch, : self._num_last]]) / np.float32(_STEPS)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a GrowingRoll is no array of which there could be a view.")
        return self[:, :].astype(dtype or self.dtype, copy=False)


Roll: TypeAlias = np.ndarray | GrowingRoll
Rolls: TypeAlias = Mapping[str, Roll]


class GrowingRolls(dict[str, GrowingRoll]):
    """Rolls of the same frames, by name, that grow."""

    def add(self, rolls: Mapping[str, np.ndarray]) -> None:
        """Adds frames that follow, of all rolls."""
        for name, frames in rolls.items():
            if name not in self:
                self[name] = GrowingRoll(frames.shape[1])
            self[name].add(frames)
