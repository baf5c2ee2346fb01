"""Training on what other models answer besides the labels: a small network learns from large ones what labels leave out.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2: the loss is that of both
kinds of targets, which for a log loss is the loss of their mean. Several teachers answer with their mean, which is often better
than each. Of recordings whose notes nobody knows there are only the teachers' answers.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import keras
import numpy as np
from absl import logging

from polyamp import checkpoint
from polyamp.data.cache import Batch
from polyamp.errors import HParamsError


def find_teachers(model_dir: str | Path, teacher_ids: str) -> list[Path]:
    """The checkpoints of Melodic models.

    Args:
        model_dir: Folder of all models.
        teacher_ids: One or more, comma-separated: see `checkpoint.find_anywhere`.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    return [checkpoint.find_anywhere(model_dir, "MELODIC", each.strip(), "--teacher_id") for each in teacher_ids.split(",")]


def load_teachers(model_dir: str | Path, teacher_ids: str, front_end: keras.layers.Layer) -> list[keras.Model]:
    """The networks of trained Melodic models: spectra `[batch, time, bins]` to rolls, each `[batch, time, 88]`.

    They compute in the precision that Keras is set to.

    Args:
        model_dir, teacher_ids: See `find_teachers`.
        front_end: The spectrogram layer of the model that is to learn, whose spectra the teachers must hear, too.

    Raises:
        CheckpointError: No such checkpoint, or it does not fit.
        HParamsError: A teacher hears other spectra.
    """
    return [_network(path, front_end) for path in find_teachers(model_dir, teacher_ids)]


def _network(path: Path, front_end: keras.layers.Layer) -> keras.Model:
    """That of one teacher."""
    loaded = checkpoint.load_model("MELODIC", path.parents[2], f"{path.parent.name}/{path.stem}")
    teacher = cast("keras.Model", loaded.model)
    if _settings(teacher.get_layer("spectrogram")) != _settings(front_end):
        raise HParamsError(
            f"--teacher_id: {loaded.path} was trained on other spectrograms; a teacher needs the same "
            "spec_type, hop_length and the rest of them."
        )
    logging.info("A teacher is %s.", loaded.path)
    return teacher.get_layer("network")


def _settings(front_end: keras.layers.Layer) -> dict:
    """What its spectra depend on."""
    return {name: value for name, value in front_end.get_config().items() if name != "dtype"}


def taught(batches: Iterable[Batch], teachers: Sequence[keras.Model], share: float) -> Iterator[Batch]:
    """Batches whose labels are for a share in [0, 1] the teachers' mean answer, and wholly where they are NaN, so unknown.

    Spectra and weights stay.
    """
    for spectrum, labels, weights in batches:
        answers = [teacher.predict_on_batch(spectrum) for teacher in teachers]
        mixed = {roll: _mixed(label, [answer[roll] for answer in answers], share) for roll, label in labels.items()}
        yield spectrum, mixed, weights


def _mixed(label: np.ndarray, answers: Sequence[np.ndarray], share: float) -> np.ndarray:
    answer = np.mean([np.asarray(each, np.float32) for each in answers], axis=0)
    return np.where(np.isnan(label), answer, (1.0 - share) * label + share * answer).astype(np.float32)
