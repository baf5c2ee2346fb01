"""Checkpoints: where they lie, finding and loading them.

`<model_dir>/<MODEL_TYPE>/<model_id>/` holds `ckpt-<step>.npz` (see `polyamp.checkpoint_file`), `best.npz`, `hparams.json` and
`metrics.jsonl`. The weights that ship with the package lie in `polyamp/checkpoints` the same way.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from polyamp import atomic, checkpoint_file
from polyamp import hparams as hparams_lib
from polyamp.errors import CheckpointError, HParamsError
from polyamp.hparams import MelodicHParams
from polyamp.naming import check_model_id
from polyamp.notes import ends, running_strikes, strikes

if TYPE_CHECKING:
    import keras

    from polyamp.light import LightModel
    from polyamp.state_stream import StateNetwork

EMBEDDED = Path(__file__).parent / "checkpoints"
HPARAMS_FILE, BEST_FILE = "hparams.json", "best.npz"
_NAME = re.compile(r"ckpt-(\d{8,})\.npz")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model with trained weights, the settings that it was trained with, and where it came from.

    Attributes:
        timbre_path: Of a Full model joined out of two checkpoints that of the Timbre one; `path` is that of the Melodic one.
    """

    model: "keras.Model | LightModel | StateNetwork"
    hparams: MelodicHParams
    path: Path
    step: int
    timbre_path: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All checkpoints that it came from."""
        return (self.path, self.timbre_path) if self.timbre_path else (self.path,)


def folder(model_dir: str | Path, model_type: str, model_id: str) -> Path:
    """Where the checkpoints of a model id lie."""
    return Path(model_dir) / model_type / model_id


def new_folder(model_dir: str | Path, model_type: str, model_id: str) -> Path:
    """Where a model of a new name shall lie; nothing is made yet.

    Raises:
        CheckpointError: There is one of that name.
        PolyampError: It is no name for a model.
    """
    directory = folder(model_dir, model_type, check_model_id(model_id))
    if directory.exists():
        raise CheckpointError(f"{directory} exists; give another --model_id.")
    return directory


def numbered(directory: Path) -> list[Path]:
    """The step-numbered checkpoints of one model id, oldest first."""
    named = [(match, path) for path in directory.glob("ckpt-*.npz") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, key=lambda one: int(one[0][1]))]


def step_path(directory: Path, step: int) -> Path:
    """The file of a step."""
    return directory / f"ckpt-{step:08d}.npz"


def save_as_new(directory: Path, model: "keras.Model", hparams: MelodicHParams, step: int) -> Path:
    """Makes a folder (see `new_folder`) with a model's weights, as of that step, and its settings; returns the checkpoint."""
    with atomic.new_folder(directory, "--model_id or --model_dir") as unfinished:
        atomic.write_text(unfinished / HPARAMS_FILE, hparams_lib.to_json(hparams))
        checkpoint_file.save(step_path(unfinished, step), model, {"step": step})
    return step_path(directory, step)


def find(model_dir: str | Path, model_type: str, load_id: str = "*", flag: str = "--load_id") -> Path:
    """The checkpoint that `load_id` means.

    Args:
        model_dir: Folder of all models.
        model_type: Which of them.
        load_id: An id (its latest step), `*` or a pattern (the most recently written of those), or `<id>/best`,
            `<id>/ckpt-00001000` for one file.
        flag: What the message calls it.

    Raises:
        CheckpointError: There is none; says where it looked and which ids there are.
    """
    root = Path(model_dir) / model_type
    if not load_id:
        raise CheckpointError(f"{flag}: is empty; give an id, or leave it out.")
    try:
        exact = root / f"{load_id.removesuffix('.npz')}.npz"
        if "*" not in load_id and exact.is_file():
            return exact
        latest = latest_of_each(root, load_id)
    except (NotImplementedError, ValueError, IndexError, OSError) as error:  # The first three are what pathlib's globs raise.
        raise CheckpointError(f"{flag}={load_id[:80]}: must be an id or a pattern below {root} ({error}).") from error
    if latest:
        return latest[0]
    ids = sorted(path.parent.name for path in latest_of_each(root))
    known = f"ids there: {', '.join(ids)}" if ids else f"no {model_type} checkpoint at all is there"
    raise CheckpointError(f"{root}: no checkpoint for {flag}={load_id}; {known}. Train one, or check --model_dir.")


def find_anywhere(model_dir: str | Path, model_type: str, load_id: str, flag: str = "--load_id") -> Path:
    """As `find`, but an id that is not there may be one of the package's: for what trainings start from or learn from."""
    try:
        return find(model_dir, model_type, load_id, flag)
    except CheckpointError:
        of_package = [path for path in latest_of_each(EMBEDDED / model_type) if path.parent.name == load_id]
        if not of_package:
            raise
        return of_package[0]


def latest_of_each(root: Path, pattern: str = "*") -> list[Path]:
    """The latest checkpoint of every id below `root` whose name matches `pattern`, the most recently written first."""
    there = [directory for directory in root.glob(pattern) if directory.is_dir()]
    directories = [directory for directory in there if not directory.name.startswith(".")]  # As of `atomic.new_folder`.
    latest = [numbered(directory)[-1] for directory in directories if numbered(directory)]
    return sorted(latest, key=lambda path: path.stat().st_mtime, reverse=True)


def load_model(
    model_type: str,
    model_dir: str | Path | None = None,
    load_id: str = "*",
    model_id: str | None = None,
    load_full: bool | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """A trained model with its own settings; decoding thresholds and the like may be overridden.

    Args:
        model_type: One of `constants.MODEL_TYPES`.
        model_dir: Folder of all models; None for the weights that ship with the package.
        load_id: See `find`; of the package's own weights `*` means the preset named "<model type>_compact".
        model_id: Preferred over a `load_id` of `*` if it has checkpoints; if it has none, a warning says what is taken.
        load_full: Take the weights from a Full model's checkpoint; False for FULL joins a Melodic and a Timbre one. Default: of
            the model type itself.
        overrides: Hyperparameters by name; those that the weights depend on must not differ.

    Raises:
        CheckpointError: No such checkpoint, or it does not fit.
        HParamsError: A bad override.
        PolyampError: `predict_ends` or `predict_strikes` is no network.
    """
    from polyamp import models

    hparams_lib.model_hparams(model_type)
    if model_type == "FULL" and load_full is False:
        return _joined(model_dir, load_id, model_id, overrides or {})
    path, resolved = locate(model_type, model_dir, load_id, model_id, load_full, overrides)
    model = models.build(model_type, resolved)
    meta = checkpoint_file.restore(path, model, part=type_of(path) != model_type)
    return Loaded(model, resolved, path, meta["step"])


def locate(
    model_type: str,
    model_dir: str | Path | None = None,
    load_id: str = "*",
    model_id: str | None = None,
    load_full: bool | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Path, MelodicHParams]:
    """The one checkpoint that `load_model` loads for these arguments, and the settings of its model; needs no Keras.

    Raises:
        CheckpointError, HParamsError, PolyampError: As `load_model`.
    """
    hparams_lib.model_hparams(model_type)
    stored_type = "FULL" if load_full or model_type == "FULL" else model_type
    path = _located(stored_type, model_dir, load_id, model_id)
    return path, _resolved(hparams_lib.part(model_type, stored_hparams(path)), overrides or {}, path)


def _resolved(stored: MelodicHParams, overrides: Mapping[str, Any], path: Path) -> MelodicHParams:
    """The settings of a checkpoint with others in the place of some.

    Raises:
        HParamsError: A bad override.
        PolyampError: `predict_ends` or `predict_strikes` is no network.
    """
    resolved = hparams_lib.merge(stored, overrides)
    require_same_structure(stored, resolved, path)
    of_states = isinstance(resolved, hparams_lib.AutoregressiveHParams)
    load_strikes = running_strikes.load if of_states else strikes.load
    for name, load in (("predict_ends", ends.load), ("predict_strikes", load_strikes)):
        if getattr(resolved, name) and name not in resolved.unused():
            load(getattr(resolved, name))  # Not only when a recording has been heard.
    return resolved


def _located(model_type: str, model_dir: str | Path | None, load_id: str, model_id: str | None) -> Path:
    """The checkpoint of that type that is meant by what `load_model` is told."""
    wanted = model_id if load_id == "*" else None
    if model_dir is None:
        root, pattern = EMBEDDED, f"{model_type.lower()}_compact" if load_id == "*" else load_id
    elif wanted and numbered(folder(model_dir, model_type, wanted)):
        root, pattern, wanted = Path(model_dir), wanted, None
    else:
        root, pattern = Path(model_dir), load_id
    path = find(root, model_type, pattern)
    if wanted:
        logging.warning("--model_id=%s: has no checkpoint; taking %s.", wanted, path)
    return path


def type_of(path: Path) -> str:
    """The model type of a checkpoint, by the folder that it lies in."""
    return path.parent.parent.name


def stored_hparams(path: Path) -> MelodicHParams:
    """The settings that a checkpoint was trained with; `CheckpointError` if they are missing."""
    if not (path.parent / HPARAMS_FILE).is_file():
        raise CheckpointError(f"{path.parent / HPARAMS_FILE}: missing; a checkpoint needs the settings of its training.")
    return hparams_lib.from_json(type_of(path), path.parent / HPARAMS_FILE)


def _joined(model_dir: str | Path | None, load_id: str, model_id: str | None, overrides: Mapping[str, Any]) -> Loaded:
    """A Full model out of the Melodic and the Timbre checkpoint that are meant."""
    from polyamp import models

    paths = [_located(kind, model_dir, load_id, model_id) for kind in ("MELODIC", "TIMBRE")]
    stored = hparams_lib.joined(*(stored_hparams(path) for path in paths))
    resolved = _resolved(stored, overrides, paths[0])
    model = models.build("FULL", resolved)
    metas = checkpoint_file.restore_parts(paths, model)
    return Loaded(model, resolved, paths[0], max(meta["step"] for meta in metas), paths[1])


def require_same_structure(stored: MelodicHParams, given: MelodicHParams, path: Path) -> None:
    """Raises `HParamsError`, naming the settings, if weights trained with `stored` can't be used with `given`."""
    changed = [f"{name} ({there} there, {here} here)" for name, (there, here) in hparams_lib.differing(stored, given).items()]
    if changed:
        raise HParamsError(f"{path}: was trained with other settings that its weights depend on: {'; '.join(changed[:4])}.")
