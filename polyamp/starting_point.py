"""Where a training starts: its folder, and the weights that it goes on from or takes over."""

from pathlib import Path

import keras
from absl import logging

from polyamp import callbacks, checkpoint
from polyamp import hparams as hparams_lib
from polyamp.atomic import make_folder, write_text
from polyamp.errors import HParamsError, PolyampError
from polyamp.hparams import MelodicHParams


def prepare_folder(directory: Path, hparams: MelodicHParams, writes: bool) -> None:
    """Makes the model id's folder and writes its settings; refuses to change those that existing weights depend on.

    A process that is not the chief only refuses.
    """
    settings = directory / checkpoint.HPARAMS_FILE
    if checkpoint.numbered(directory) and settings.is_file():
        stored = hparams_lib.from_json(directory.parent.name, settings)
        checkpoint.require_same_structure(stored, hparams, directory)
    if not writes:
        return
    make_folder(directory, "--model_dir")
    write_text(settings, hparams_lib.to_json(hparams))


def restore(
    directory: Path, load_id: str, load_full: bool, model: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int
) -> callbacks.Progress:
    """Restores the run in `directory`, or the weights that `load_id` means, and says where training stands."""
    optimizer.build(model.trainable_variables)
    own = checkpoint.numbered(directory)
    if own:
        meta = checkpoint.restore(own[-1], model, optimizer)
        logging.info("Going on from %s.", own[-1])
        return callbacks.Progress(step=int(meta["step"]), seed=int(meta["seed"]), best=float(meta["best"]))
    paths = _to_take_over(directory, load_id, load_full)
    if paths:
        if len(paths) == 1:
            checkpoint.restore(paths[0], model, part=checkpoint.type_of(paths[0]) != directory.parent.name)
        else:
            checkpoint.restore_parts(paths, model)
        named = " and ".join(map(str, paths))
        logging.warning("Starting from the weights of %s; give --load_id= (empty) to start from random ones.", named)
    else:
        logging.info("Starting from random weights.")
    return callbacks.Progress(step=0, seed=seed, best=-1.0)


def _to_take_over(directory: Path, load_id: str, load_full: bool) -> list[Path]:
    """The checkpoints whose weights a new run in `directory` takes over.

    The one that `load_id` means, which must fit; for `*` the most recent one that does, if any; for an empty `load_id` none.
    With `load_full` it is one of a Full model; without, a Full model takes two, a Melodic and a Timbre one.
    """
    model_type, root = directory.parent.name, directory.parent.parent
    wanted = hparams_lib.structure(hparams_lib.from_json(model_type, directory / checkpoint.HPARAMS_FILE))

    def differs(path: Path) -> list[str]:
        stored = hparams_lib.structure(checkpoint.stored_hparams(path))
        return [name for name in wanted if name in stored and stored[name] != wanted[name] and _is_of(path, name)]

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
        return [path for path in fitting if path] if all(fitting) else []
    paths = [checkpoint.find(root, kind, load_id) for kind in types]
    for path in paths:
        if differs(path):
            raise HParamsError(
                f"--load_id={load_id}: {path} was trained with another {', '.join(differs(path))}; its weights don't fit."
            )
    return paths


def _is_of(path: Path, name: str) -> bool:
    """Whether the weights in a checkpoint depend on that setting: those of a Timbre model not on the Melodic ones."""
    return checkpoint.type_of(path) != "TIMBRE" or name not in hparams_lib.structure(MelodicHParams())
