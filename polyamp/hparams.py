"""Hyperparameters: what each model type has (one frozen dataclass, defined beside this module), and the strict JSON merge.

Resolution order: dataclass defaults -> preset (`--config`) -> `--hparams`. Nothing is changed after that; derived values are
properties. This module imports no TensorFlow, so that flag errors answer at once.
"""

import dataclasses
import difflib
import functools
import json
import math
import os
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from polyamp.autoregressive_hparams import AutoregressiveHParams
from polyamp.errors import HParamsError
from polyamp.model_hparams import FullHParams, MelodicHParams, TimbreHParams

HPARAMS: dict[str, type[MelodicHParams]] = {
    "MELODIC": MelodicHParams,
    "TIMBRE": TimbreHParams,
    "FULL": FullHParams,
    "AUTOREGRESSIVE": AutoregressiveHParams,
}

# Published spellings that mean one of ours.
ALIASES = {
    "frame_prediction_threshold": "predict_frame_threshold",
    "onset_prediction_threshold": "predict_onset_threshold",
    "offset_prediction_threshold": "predict_offset_threshold",
    "hop": "hop_length",
    "window": "mel_window",
}


def structure(hparams: MelodicHParams) -> dict[str, Any]:
    """The settings that trained weights depend on (spectrogram and architecture); all others may change between runs."""
    unused = set(hparams.unused())
    if type(hparams) is TimbreHParams:  # Its network has settings of its own.
        unused |= {field.name for field in dataclasses.fields(MelodicHParams)}
    names = [field.name for field in dataclasses.fields(hparams) if field.metadata["structural"] and field.name not in unused]
    found = {name: getattr(hparams, name) for name in names}
    if isinstance(hparams, TimbreHParams) and "timbre_spec_fmin" in found:
        found["timbre_spec_fmin"] = hparams.timbre_lowest_hz
    return found


def differing(stored: MelodicHParams, given: MelodicHParams) -> dict[str, tuple[Any, Any]]:
    """The settings of `structure` that both have and that differ, with both values."""
    before, after = structure(stored), structure(given)
    return {name: (before[name], after[name]) for name in before if name in after and before[name] != after[name]}


def part(model_type: str, hparams: MelodicHParams) -> MelodicHParams:
    """The settings of one part of a Full model, or the settings themselves if they are of that type.

    Raises:
        HParamsError: They have no such part.
    """
    kind = model_hparams(model_type)
    if not isinstance(hparams, kind):
        raise HParamsError(f"a Full model has a Melodic and a Timbre part, none for {model_type}; leave out --load_full.")
    return kind(**{field.name: getattr(hparams, field.name) for field in dataclasses.fields(kind)})


def joined(melodic: MelodicHParams, timbre: MelodicHParams) -> "FullHParams":
    """The settings of a Full model made of a Melodic and a Timbre one: what both have is the Melodic one's."""
    own = {field.name for field in dataclasses.fields(MelodicHParams)}
    of_timbre = {f.name: getattr(timbre, f.name) for f in dataclasses.fields(timbre) if f.name not in own}
    assert isinstance(timbre, TimbreHParams)
    of_timbre["timbre_spec_fmin"] = timbre.timbre_lowest_hz
    return FullHParams(**{name: getattr(melodic, name) for name in own}, **of_timbre)


def model_hparams(model_type: str) -> type[MelodicHParams]:
    """The dataclass of a model type; `HParamsError` where there is none."""
    if model_type not in HPARAMS:
        raise HParamsError(f"there is no model type {model_type!r}; there are {', '.join(HPARAMS)}.")
    return HPARAMS[model_type]


def merge(base: MelodicHParams, overrides: Mapping[str, Any], source: str = "--hparams") -> MelodicHParams:
    """Returns `base` with `overrides` applied, every name, type and range checked.

    Args:
        base: Settings to start from; not changed.
        overrides: Names (aliases allowed) and JSON values; lists become tuples, whole floats become ints where an int is due.
            Those that have no effect on this model are checked, and a warning says so.
        source: Where the overrides come from, for error messages.

    Raises:
        HParamsError: Names the field, its type and range, and for an unknown name the nearest known ones.
    """
    merged = _merged(base, overrides, source)
    _warn_of_unused(merged, overrides)
    return merged


def _merged(base: MelodicHParams, overrides: Mapping[str, Any], source: str) -> MelodicHParams:
    """As `merge`, without a word about what has no effect."""
    fields = {field.name: field for field in dataclasses.fields(base)}
    types = typing.get_type_hints(type(base))
    values = {}
    for given, value in overrides.items():
        name = ALIASES.get(given, given)
        other = _of_other_model(name) if name not in fields else None
        if other:
            _checked(*other, value, source)
            continue
        if name not in fields:
            near = difflib.get_close_matches(name, [*fields, *ALIASES], n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise HParamsError(f"{source}: {given!r} is not a hyperparameter of {type(base).__name__}.{hint}")
        if name in values:
            raise HParamsError(f"{source}: {name!r} is given twice (once as an alias); give it once.")
        values[name] = _checked(fields[name], types[name], value, source)
    return dataclasses.replace(base, **values)


def _warn_of_unused(merged: MelodicHParams, given: Iterable[str]) -> None:
    """Says which of the settings given, by name, have no effect as those are that they were merged into."""
    own, unused = {field.name for field in dataclasses.fields(merged)}, merged.unused()
    for name in sorted({ALIASES.get(name, name) for name in given}):
        if name not in own:
            _warn_once(f"{name} has no effect on {type(merged).__name__}.")
        elif name in unused:
            _warn_once(f"{name} has no effect {unused[name]}.")


@functools.cache
def _warn_once(message: str) -> None:
    """Not again where a model is looked for again, in Keras after the light runtime."""
    logging.warning("%s", message)


def _of_other_model(name: str) -> tuple[dataclasses.Field, Any] | None:
    """The field of that name, and its type, of any model: one command line may serve several model types."""
    for model in HPARAMS.values():
        for field in dataclasses.fields(model):
            if field.name == name:
                return field, typing.get_type_hints(model)[name]
    return None


def _describe(field: dataclasses.Field, kind: Any) -> str:
    """Type and range of a field in words, such as `float between 0.0 and 1.0`."""
    if typing.get_origin(kind) is tuple:
        words = f"list of {typing.get_args(kind)[0].__name__} (one or more)"
    else:
        words = kind.__name__
    meta = field.metadata
    if meta.get("choices"):
        return f"{words}, one of {', '.join(meta['choices'])}"
    return words if meta.get("low") is None else f"{words} between {meta['low']} and {meta['high']}"


def _checked(field: dataclasses.Field, kind: Any, value: Any, source: str) -> Any:
    """The value as the field's type, or an error that says what is due."""
    problem = HParamsError(f"{source}: {field.name} must be a {_describe(field, kind)}, not {value!r}.")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise problem
        return tuple(_checked_scalar(field, typing.get_args(kind)[0], item, problem) for item in value)
    return _checked_scalar(field, kind, value, problem)


def _checked_scalar(field: dataclasses.Field, kind: type, value: Any, problem: HParamsError) -> Any:
    if getattr(value, "shape", None) == ():  # A scalar of numpy's.
        value = value.item()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise problem
    if isinstance(value, float) and not math.isfinite(value):
        raise problem
    low, high, choices = field.metadata["low"], field.metadata["high"], field.metadata["choices"]
    if (low is not None and not low <= value <= high) or (choices and value not in choices):
        raise problem
    return value


def read_json(path: str | Path, source: str | None = None) -> dict[str, Any]:
    """Reads a JSON object of hyperparameters; `HParamsError` with the file's name if that is not what it holds."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise HParamsError(f"{source or path}: cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise HParamsError(f"{source or path}: must hold a JSON object of hyperparameters.")
    return value


def preset_path(config: str) -> Path:
    """The file of a preset: `config` itself if it is a path to a file, else `configs/<config>.json`.

    Raises:
        HParamsError: Neither exists; names the presets that do.
    """
    if os.path.isfile(config):  # Unlike Path's method it takes any text, such as misplaced JSON.
        return Path(config)
    folders = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
    for folder in folders:
        candidate = folder / f"{config.removesuffix('.json')}.json"
        if os.path.isfile(candidate):
            return candidate
    known = sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.json")})
    near = difflib.get_close_matches(config, known, n=3) or known
    raise HParamsError(f"--config: no file {config!r} and no preset of that name; presets: {', '.join(near)}.")


def resolve(model_type: str, config: str | None = None, overrides: Mapping[str, Any] | None = None) -> MelodicHParams:
    """Defaults of `model_type`, then the preset, then the overrides."""
    of_preset, preset = _of_preset(model_type, config)
    resolved = _merged(of_preset, overrides or {}, source="--hparams")
    # A preset's settings need no warning where the overrides are why they have no effect.
    excused = resolved.unused().keys() - of_preset.unused().keys()
    _warn_of_unused(resolved, preset - excused | set(overrides or {}))
    return resolved


def checked(model_type: str, config: str | None = None, overrides: Mapping[str, Any] | None = None) -> MelodicHParams:
    """As `resolve`, without a word about what has no effect."""
    return _merged(_of_preset(model_type, config)[0], overrides or {}, source="--hparams")


def _of_preset(model_type: str, config: str | None) -> tuple[MelodicHParams, set[str]]:
    """Defaults of `model_type` and then the preset, and the names that this has."""
    if not config:
        return model_hparams(model_type)(), set()
    path = preset_path(config)
    preset = read_json(path)
    return _merged(model_hparams(model_type)(), preset, source=str(path)), {ALIASES.get(name, name) for name in preset}


def to_json(hparams: MelodicHParams) -> str:
    """All settings as indented JSON, to be read back by `from_json`."""
    return json.dumps(dataclasses.asdict(hparams), indent=2) + "\n"


def from_json(model_type: str, path: str | Path) -> MelodicHParams:
    """Reads settings that `to_json` wrote; unknown names are errors, absent ones take their defaults."""
    return _merged(model_hparams(model_type)(), read_json(path), source=str(path))
