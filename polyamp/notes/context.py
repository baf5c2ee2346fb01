"""What small networks in numpy that see a note among others share: `polyamp.notes.ends` and `polyamp.notes.strikes`."""

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
    own = some[:, None]
    index = own + np.concatenate([np.arange(-before, 0), np.arange(1, after + 1)])
    there = (index >= 0) & (index < len(notes))
    index = np.clip(index, 0, len(notes) - 1)
    columns = [
        notes.onset[index] - notes.onset[own],
        notes.offset[index] - notes.onset[own],
        notes.pitch[index] - notes.pitch[own],
        (notes.velocity[index] - notes.velocity[own]) / 30,
        there,
    ]
    return np.stack(columns, axis=-1).astype(np.float32)


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
    setting: str, which: str, kinds: tuple[str, ...], script: str, build: Callable[[dict[str, np.ndarray]], _Network]
) -> _Network:
    """Networks of a file beside this module, `<what>_<which>.npz` for the setting `predict_<what>`, or of another file.

    Args:
        setting: The name of the setting.
        which: One of the kinds, or the path of a file.
        kinds: Those that ship.
        script: What writes such files.
        build: Makes networks of a file's arrays; if these do not fit together it raises ValueError, KeyError, IndexError or
            TypeError.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    shipped = f"{setting.removeprefix('predict_')}_{which}.npz"
    try:
        with np.load(Path(__file__).with_name(shipped) if which in kinds else which) as file:
            return build(dict(file))
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        neither = f"is neither {', '.join(kinds)} nor a file by {script}"
        raise PolyampError(f"{setting}={which}: {neither} ({error}).") from error
