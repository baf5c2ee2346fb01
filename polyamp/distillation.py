"""Training on what another model answers besides the labels: a small network learns from a large one what labels leave out.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2: the loss is that of both
kinds of targets, which for a log loss is the loss of their mean. Of recordings whose notes nobody knows there are only the
teacher's.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import keras
import numpy as np
from absl import logging

from polyamp import checkpoint
from polyamp.data.cache import Batch
from polyamp.errors import HParamsError


def load_teacher(model_dir: str | Path, teacher_id: str, front_end: keras.layers.Layer) -> keras.Model:
    """The network of a trained Melodic model: spectra `[batch, time, bins]` to rolls, each `[batch, time, 88]`.

    It computes in the precision that Keras is set to.

    Args:
        model_dir: Folder of all models.
        teacher_id: See `checkpoint.find_anywhere`.
        front_end: The spectrogram layer of the model that is to learn, whose spectra the teacher must hear, too.

    Raises:
        CheckpointError: No such checkpoint, or it does not fit.
        HParamsError: The teacher hears other spectra.
    """
    path = checkpoint.find_anywhere(model_dir, "MELODIC", teacher_id, "--teacher_id")
    loaded = checkpoint.load_model("MELODIC", path.parents[2], f"{path.parent.name}/{path.stem}")
    teacher = cast("keras.Model", loaded.model)
    if _settings(teacher.get_layer("spectrogram")) != _settings(front_end):
        raise HParamsError(
            f"--teacher_id={teacher_id}: {loaded.path} was trained on other spectrograms; a teacher needs the same "
            "spec_type, hop_length and the rest of them."
        )
    logging.info("The teacher is %s.", loaded.path)
    return teacher.get_layer("network")


def _settings(front_end: keras.layers.Layer) -> dict:
    """What its spectra depend on."""
    return {name: value for name, value in front_end.get_config().items() if name != "dtype"}


def taught(batches: Iterable[Batch], teacher: keras.Model, share: float) -> Iterator[Batch]:
    """Batches whose labels are for a share in [0, 1] what the teacher answers, and wholly where they are NaN, so unknown.

    Spectra and weights stay.
    """
    for spectrum, labels, weights in batches:
        answers = teacher.predict_on_batch(spectrum)
        yield spectrum, {roll: _mean(label, answers[roll], share) for roll, label in labels.items()}, weights


def _mean(label: np.ndarray, answer: np.ndarray, share: float) -> np.ndarray:
    answer = np.asarray(answer)
    return np.where(np.isnan(label), answer, (1.0 - share) * label + share * answer).astype(np.float32)
