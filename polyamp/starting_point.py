"""Where a training starts: its folder, and the weights that it goes on from or takes over."""

from pathlib import Path

import keras
from absl import logging

from polyamp import callbacks, checkpoint, checkpoint_file
from polyamp import hparams as hparams_lib
from polyamp.atomic import make_folder, write_text
from polyamp.errors import CheckpointError, HParamsError, PolyampError
from polyamp.hparams import MelodicHParams


def prepare_folder(directory: Path, hparams: MelodicHParams, is_chief: bool) -> None:
    """Makes the model id's folder, by the chief alone; refuses to change settings that existing weights depend on."""
    settings = directory / checkpoint.HPARAMS_FILE
    if checkpoint.numbered(directory) and settings.is_file():
        stored = hparams_lib.from_json(directory.parent.name, settings)
        checkpoint.require_same_structure(stored, hparams, directory)
    if is_chief:
        make_folder(directory, "--model_dir")


def write_settings(directory: Path, hparams: MelodicHParams) -> None:
    """Writes what a training's weights are to be read with, once it is known that there is one to go on or begin."""
    write_text(directory / checkpoint.HPARAMS_FILE, hparams_lib.to_json(hparams))


def restore(
    directory: Path,
    hparams: MelodicHParams,
    load_id: str,
    load_full: bool | None,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    seed: int,
) -> callbacks.Progress:
    """Restores the run in `directory`, or the weights that `load_id` means, and says where training stands.

    Raises:
        CheckpointError: What is to be restored does not fit, or nothing is there that `load_full` asks for.
        HParamsError: The weights that `load_id` names depend on other settings.
    """
    optimizer.build(model.trainable_variables)
    own = checkpoint.numbered(directory)
    if own:
        return _go_on(own[-1], model, optimizer, seed)
    paths = _to_take_over(directory, hparams, load_id, load_full)
    if paths:
        if len(paths) == 1:
            checkpoint_file.restore(paths[0], model, part=checkpoint.type_of(paths[0]) != directory.parent.name)
        else:
            checkpoint_file.restore_parts(paths, model)
        named = " and ".join(map(str, paths))
        logging.warning("Starting from the weights of %s; give --load_id= (empty) to start from random ones.", named)
    else:
        logging.info("Starting from random weights.")
    return callbacks.Progress(step=0, seed=seed, best=-1.0)


def _go_on(path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int) -> callbacks.Progress:
    """Restores a run's own last checkpoint."""
    if not checkpoint_file.has_optimizer(path):
        raise CheckpointError(
            f"{path}: weights alone, with no training to go on with; begin one from them with another --model_id and "
            f"--load_id={path.parent.name}."
        )
    try:
        meta = checkpoint_file.restore(path, model, optimizer)
    except CheckpointError as error:
        raise CheckpointError(
            f"{str(error).removesuffix('.')}. Go on with the train_layers, melodic_trainable and optimizer of before, or begin "
            f"another training from these weights with another --model_id and --load_id={path.parent.name}."
        ) from error
    logging.info("Going on from %s.", path)
    progress = callbacks.Progress.of(meta)
    if seed not in (0, progress.seed):
        logging.warning("--seed=%d has no effect: this training began with %d.", seed, progress.seed)
    return progress


def _to_take_over(directory: Path, hparams: MelodicHParams, load_id: str, load_full: bool | None) -> list[Path]:
    """The checkpoints whose weights a new run in `directory` takes over.

    The one that `load_id` means, which must fit; for `*` the most recent one that does, if any; for an empty `load_id` none.
    With `load_full` it is one of a Full model; without, a Full model takes two, a Melodic and a Timbre one. What neither asks
    for may be missing.
    """
    model_type, root = directory.parent.name, directory.parent.parent
    is_asked_for = load_full is not None
    load_full = model_type == "FULL" if load_full is None else load_full

    def differs(path: Path) -> list[str]:
        return list(hparams_lib.differing(checkpoint.stored_hparams(path), hparams))

    def fits(path: Path) -> bool:
        try:
            return not differs(path)
        except PolyampError as error:  # Of a model that nobody asked for.
            logging.warning("Not considered as a start: %s", error)
            return False

    if not load_id:
        return []
    types = ["FULL"] if load_full else ["MELODIC", "TIMBRE"] if model_type == "FULL" else [model_type]
    if load_id == "*":
        fitting = [next(filter(fits, checkpoint.latest_of_each(root / kind)), None) for kind in types]
        if all(fitting):
            return [path for path in fitting if path]
        if is_asked_for:
            missing = " or ".join(kind for kind, path in zip(types, fitting, strict=True) if not path)
            raise CheckpointError(
                f"{root}: no {missing} checkpoint that fits, as --load_full={load_full} asks for; leave it out."
            )
        return []
    paths = [checkpoint.find_anywhere(root, kind, load_id) for kind in types]
    for path in paths:
        if differs(path):
            raise HParamsError(
                f"--load_id={load_id}: {path} was trained with another {', '.join(differs(path))}; its weights don't fit."
            )
    return paths
