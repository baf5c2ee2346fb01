"""One checkpoint in one file: a model's weights, an optimizer's state, step and seed as named arrays of an .npz; no pickle."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyamp import atomic
from polyamp.errors import CheckpointError

if TYPE_CHECKING:
    import keras

_WEIGHTS, _OPTIMIZER, _META = "weights/", "optimizer/", "meta"
_SEEDS = "seed_generator"


def save(
    path: str | Path,
    model: "keras.Model",
    meta: Mapping[str, Any],
    optimizer: "keras.optimizers.Optimizer | None" = None,
    dtype: str | None = None,
) -> None:
    """Writes weights, optimizer state and `meta` (step, seed and what else is worth keeping, as JSON) to one file, atomically.

    Args:
        path: The file, ending in .npz.
        model: A built model.
        meta: JSON values.
        optimizer: Written too, so that training can go on from this file.
        dtype: Store floats in this type, such as "float16" for weights that ship.

    Raises:
        CheckpointError: Some of it is not finite, or not in this type.
        PolyampError: The file cannot be written.
    """
    import keras

    named = _named(model, optimizer)
    arrays: dict[str, Any] = {name: keras.ops.convert_to_numpy(variable.value) for name, variable in named.items()}
    if dtype:
        with np.errstate(over="ignore"):
            arrays = {name: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a for name, a in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: not written, as {name} holds numbers that are not finite.")
    with atomic.replacing(path) as temporary:
        np.savez(temporary, **{**arrays, _META: np.array(json.dumps(dict(meta)))})


def checksum(path: Path) -> str:
    """Eight hexadecimal digits by which the contents of a file are told from others.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    try:
        return f"{zlib.crc32(path.read_bytes()):08x}"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays of a checkpoint file and its meta data.

    Raises:
        CheckpointError: It is missing or damaged, or holds numbers that are not finite, which no training here saves.
    """
    try:
        with open(path, "rb") as opened:
            if not zipfile.is_zipfile(opened):  # Of which numpy would say that it holds objects.
                raise ValueError("no archive of arrays")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop(_META)))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint.") from error
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint, perhaps truncated ({error}); remove it, or use another one."
        ) from error
    problem = _problem(arrays, meta)
    if problem:
        raise CheckpointError(f"{path}: not a usable checkpoint ({problem}); remove it, or use another one.")
    return arrays, meta


def _problem(arrays: Mapping[str, np.ndarray], meta: Any) -> str:
    """What nothing here has written, if there is anything."""
    given = meta if isinstance(meta, dict) else {}
    counts = [given.get("step"), given.get("seed", 0), given.get("validated", 0)]
    if not all(type(count) is int and count >= 0 for count in counts) or type(given.get("best", 0.0)) not in (int, float):
        return f"its {_META!r} is {str(meta)[:80]}"
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            return f"{name} holds no numbers"
        if not np.isfinite(array).all():
            return f"{name} holds numbers that are not finite"
    return ""


def restore(
    path: str | Path, model: "keras.Model", optimizer: "keras.optimizers.Optimizer | None" = None, part: bool = False
) -> dict[str, Any]:
    """Sets the variables of the model (and of the optimizer, if given) to those of a checkpoint, all of them or none.

    Args:
        path: The checkpoint.
        model: A built model.
        optimizer: Restored too, if given.
        part: The checkpoint may hold more than the model: that of a Full model for one of its parts.

    Returns:
        The checkpoint's meta data.

    Raises:
        CheckpointError: The file is missing or damaged, or its names or shapes differ; says which.
    """
    arrays, meta = read(path)
    if optimizer is not None:
        optimizer.build(model.trainable_variables)
    wanted = _named(model, optimizer)
    _assign(arrays if optimizer is not None else _weights_of(arrays), wanted, path, part)
    return meta


def restore_parts(paths: Sequence[Path], model: "keras.Model") -> list[dict[str, Any]]:
    """Sets the variables of a Full model to those of a Melodic and a Timbre checkpoint, all of them or none.

    Returns:
        The meta data of each.

    Raises:
        CheckpointError: A file is missing or damaged, or names or shapes differ.
    """
    contents = [read(path) for path in paths]
    arrays = {name: array for found, _ in contents for name, array in _weights_of(found).items()}
    _assign(arrays, _named(model, None), " and ".join(map(str, paths)), part=False)
    return [meta for _, meta in contents]


def has_optimizer(path: str | Path) -> bool:
    """Whether a checkpoint holds more than weights, so that its training can go on; `CheckpointError` as `read`."""
    return any(name.startswith(_OPTIMIZER) for name in read(path)[0])


def network_weights(path: str | Path) -> dict[str, np.ndarray]:
    """A checkpoint's weights by the names that they have in the model, without optimizer, floats as float32; needs no Keras.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    weights = _weights_of(read(path)[0])
    return {
        name.removeprefix(_WEIGHTS): array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in weights.items()
    }


def is_seed(variable: "keras.Variable") -> bool:
    """Whether it is the state of a layer's random numbers."""
    return variable.path.startswith(_SEEDS)


def _named(model: "keras.Model", optimizer: "keras.optimizers.Optimizer | None") -> "dict[str, keras.Variable]":
    """Every variable to save or restore under the name that it has in the file.

    Not the states of dropout's random numbers, which follow from seed and step: Keras numbers them through all models of a
    process, so their names say nothing.
    Nor a learning rate, which is no state: the settings have it.
    """
    of_all = [(_WEIGHTS + variable.path, variable) for variable in model.variables]
    # Without the optimizer's own name, which Keras numbers through.
    of_optimizer = optimizer.variables if optimizer is not None else []
    of_all += [(_OPTIMIZER + variable.path.partition("/")[2], variable) for variable in of_optimizer]
    kept = [(name, variable) for name, variable in of_all if _is_kept(name)]
    named = dict(kept)
    if len(named) != len(kept):
        raise ValueError("Two variables have one path; name every layer.")
    return named


def _is_kept(name: str) -> bool:
    """Whether what has that name in a file is saved and restored: see `_named`."""
    is_state = name.startswith(_WEIGHTS + _SEEDS)
    return not is_state and not (name.startswith(_OPTIMIZER) and name.endswith("/learning_rate"))


def _weights_of(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name.startswith(_WEIGHTS)}


def _assign(arrays: Mapping[str, np.ndarray], wanted: "Mapping[str, keras.Variable]", path: str | Path, part: bool) -> None:
    """Sets variables to the arrays of the same names, all of them or, with a `CheckpointError` from `path`, none."""
    arrays = {name: array for name, array in arrays.items() if _is_kept(name)}  # Earlier versions saved more.
    problems = [f"{name} is missing" for name in wanted if name not in arrays]
    problems += [f"{name} is not in the model" for name in arrays if name not in wanted and not part]
    problems += [
        f"{name} is {list(arrays[name].shape)} in the file and {list(variable.shape)} in the model"
        for name, variable in wanted.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(variable.shape)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: does not fit the model: {'; '.join(problems[:3])}{more}.")
    for name, variable in wanted.items():
        variable.assign(arrays[name])
