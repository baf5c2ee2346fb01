"""What small networks in numpy that see a note among others share: `polyamp.notes.ends` and `polyamp.notes.strike_network`."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from polyamp.errors import PolyampError
from polyamp.notes.arrays import Notes

NUM_AROUND = 5  # Numbers per note around a note.

_Network = TypeVar("_Network")


def around(notes: Notes, some: np.ndarray, before: int, after: int) -> np.ndarray:
    """The notes before and after each of some, whose indices are given, in the order of their onsets.

    Returns:
        float32 `[some, before + after, NUM_AROUND]`: seconds of onset and offset after the note's onset; semitones above it;
        how much louder, in 30 units of MIDI velocity; and 1, or 0 where there is no such note.
    """
    index = some[:, np.newaxis] + np.concatenate([np.arange(-before, 0), np.arange(1, after + 1)])
    there = (index >= 0) & (index < len(notes))
    return beside(_rows(notes, some), _rows(notes, np.clip(index, 0, len(notes) - 1)), there)


def _rows(notes: Notes, index: np.ndarray) -> np.ndarray:
    """Onset, offset, pitch and velocity of some notes, `[..., 4]`."""
    return np.stack([values[index] for values in (notes.onset, notes.offset, notes.pitch, notes.velocity)], axis=-1)


def beside(some: np.ndarray, others: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Notes seen from others, as of `around`.

    Args:
        some: Onset, offset, pitch and velocity of each, `[some, 4]`.
        others: Of the notes around, `[some, around, 4]`.
        there: Whether there is such a note, `[some, around]`.
    """
    differences = (others - some[:, np.newaxis, [0, 0, 2, 3]]) / [1, 1, 1, 30]
    return np.concatenate([differences, there[..., np.newaxis]], axis=-1).astype(np.float32)


def intervals(around: Any, most: int, maths: Any = np) -> Any:
    """The intervals of notes around, of at most so many semitones, as whole numbers from 0 to `2 * most`, of the same type.

    `maths` computes: numpy, or `keras.ops`.
    """
    return maths.clip(maths.round(around[..., 2]), -most, most) + most


def networks(weights: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The weights of each of several networks, in float32, from arrays that have the networks as their first axis.

    Raises:
        ValueError: There is none, not as many of all, or what is no number.
    """
    arrays = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    if not arrays or not all(array.ndim and len(array) for array in arrays.values()):
        raise ValueError("there is no network")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("not all of it are numbers")
    return [dict(zip(arrays, network, strict=True)) for network in zip(*arrays.values(), strict=True)]


def dense(values: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A dense layer with rectified answers, of values `[..., width]`."""
    answers = values @ weights[name]
    answers += weights[f"{name}_bias"]
    return np.maximum(answers, 0, out=answers)


def load(
    setting: str, which: str, name: str, kinds: tuple[str, ...], script: str, build: Callable[[dict[str, np.ndarray]], _Network]
) -> _Network:
    """Networks of a file beside this module, `<name>_<which>.npz`, or of another file.

    Args:
        setting: The name of the setting.
        which: One of the kinds, or the path of a file.
        name: What the files of those that ship are called.
        kinds: Those that ship.
        script: What writes such files.
        build: Makes networks of a file's arrays; if these do not fit together it raises ValueError, KeyError, IndexError or
            TypeError.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    try:
        with np.load(Path(__file__).with_name(f"{name}_{which}.npz") if which in kinds else which) as file:
            return build(dict(file))
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        neither = f"is neither {', '.join(kinds)} nor a file by {script}"
        raise PolyampError(f"{setting}={which}: {neither} ({error}).") from error
