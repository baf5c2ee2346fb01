"""Training batches for the Autoregressive model: audio (or cached spectrograms), states, and which examples run freely."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from polyamp import constants
from polyamp.data import cache, pipeline
from polyamp.hparams import AutoregressiveHParams
from polyamp.notes import Notes, states

# What is given, targets and sample weights, each a dict, as Keras' `fit` takes them.
Batch = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
_FIELDS = ("onset", "offset", "pitch", "velocity")
_TYPES = {"state": tf.int32, "velocity": tf.float32, "timing": tf.float32}


def training_dataset(
    examples_path: str, hparams: AutoregressiveHParams, seed: int, first_step: int, num_steps: int
) -> tf.data.Dataset:
    """Batches of audio for training, without end.

    Args:
        examples_path: TFRecords of recordings.
        hparams: Of an Autoregressive model.
        seed: What all random choices derive from, together with `first_step`.
        first_step: Steps that were trained before.
        num_steps: Steps of the whole training, by which free running rises.

    Returns:
        A dataset of inputs "audio" `[batch, samples]`, "state" int32 `[batch, time, 88]` and "free_run" `[batch]`; targets
        "state", "velocity" and "timing" (see `polyamp.notes.states.to_states`); and weights "state" `[batch, time]`.

    Raises:
        DataError, HParamsError: See `pipeline.training_crops`.
    """
    seed_of_crops = seed + first_step  # A resumed run draws new crops.
    crops = pipeline.training_crops(examples_path, hparams, seed_of_crops)
    labelled = crops.map(
        lambda number, crop: _labelled(crop, number, hparams, seed_of_crops), num_parallel_calls=tf.data.AUTOTUNE
    )
    batches = labelled.batch(hparams.batch_size, drop_remainder=True).enumerate(first_step)

    def with_free_run(step: tf.Tensor, batch: Batch) -> Batch:
        share = tf.numpy_function(lambda s: np.float32(runs_freely(hparams, seed, int(s), num_steps)), [step], tf.float32)
        inputs, targets, weights = batch
        return inputs | {"free_run": tf.fill([hparams.batch_size], tf.ensure_shape(share, []))}, targets, weights

    return batches.map(with_free_run).prefetch(tf.data.AUTOTUNE)


def _labelled(crop: dict[str, tf.Tensor], number: tf.Tensor, hparams: AutoregressiveHParams, seed: int) -> Batch:
    """A crop as inputs, targets and weights, padded to the training length."""
    frames = hparams.train_frames
    audio, velocity = pipeline.training_audio(crop, number, hparams, seed)
    crop = {**crop, "velocity": velocity}

    def label(onset, offset, pitch, velocity):
        notes = Notes(
            onset, offset, np.asarray(pitch, np.int64), np.asarray(velocity, np.int64), np.zeros(len(onset), np.int64)
        )
        of_crop = states.to_states(notes, frames, hparams.frames_per_second)
        return [of_crop[name] for name in _TYPES]

    values = tf.numpy_function(label, [crop[name] for name in _FIELDS], list(_TYPES.values()))
    shape = [frames, constants.NUM_PITCHES]
    targets = {name: tf.ensure_shape(value, shape) for name, value in zip(_TYPES, values, strict=True)}
    length = 1 + tf.size(crop["audio"]) // hparams.hop_length
    frame = tf.range(frames)
    weight = tf.cast((frame < length) & tf.constant(_is_taught(hparams)), tf.float32)
    return {"audio": audio, "state": targets["state"]}, targets, {"state": weight}


def cached_batches(
    spectra: cache.SpectrumCache, hparams: AutoregressiveHParams, seed: int, first_step: int, num_steps: int
) -> Iterator[Batch]:
    """Batches without end of cached spectrograms, input "spectrum" in place of "audio"; else as `training_dataset`.

    Raises:
        HParamsError: At once, as `cache.check_augmentation`.
    """
    cache.check_augmentation(hparams)
    return (_cached_batch(spectra, hparams, seed, step, num_steps) for step in itertools.count(first_step))


def _cached_batch(spectra: cache.SpectrumCache, hparams: AutoregressiveHParams, seed: int, step: int, num_steps: int) -> Batch:
    crops = cache.random_crops(spectra, hparams, np.random.default_rng([seed, step]))
    frames = hparams.train_frames
    labelled = [states.to_states(crop.notes, frames, hparams.frames_per_second) for crop in crops]
    targets = {name: np.stack([of_crop[name] for of_crop in labelled]) for name in _TYPES}
    weight = np.stack([(np.arange(frames) < crop.length) & _is_taught(hparams) for crop in crops])
    inputs = {
        "spectrum": np.stack([crop.spectrum for crop in crops]),
        "state": targets["state"],
        "free_run": np.full(len(crops), runs_freely(hparams, seed, step, num_steps), np.float32),
    }
    return inputs, targets, {"state": weight.astype(np.float32)}


def _is_taught(hparams: AutoregressiveHParams) -> np.ndarray:
    """Frames of a crop whose features have been heard: not those that the label shift fills up with zeros; bool [time]."""
    frame, shift = np.arange(hparams.train_frames), hparams.label_shift
    return (frame >= shift) & (frame < hparams.train_frames + shift)


def runs_freely(hparams: AutoregressiveHParams, seed: int, step: int, num_steps: int) -> bool:
    """Whether the context of a step's batch is what the model answers: scheduled sampling, by batches."""
    begun = hparams.free_running_after * num_steps
    share = hparams.free_running * np.clip((step - begun) / max(num_steps - begun, 1.0), 0.0, 1.0)
    return bool(np.random.default_rng([seed, step, 1]).random() < share)
