"""Training batches for the Timbre and Full models: audio (or cached spectrograms) and lists of notes, families, and rolls."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from polyamp import constants
from polyamp.data import cache, note_lists, nsynth_mixes, pipeline
from polyamp.errors import HParamsError
from polyamp.hparams import FullHParams, TimbreHParams
from polyamp.notes import Notes

_NSYNTH_SHARE = 0.25  # Of the training crops, where recordings and single notes are both given.
_FIELDS = ("onset", "offset", "pitch", "velocity", "program")

# What is given, targets and sample weights, each a dict, as Keras' `fit` takes them.
Batch = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def training_dataset(
    examples_path: str, hparams: TimbreHParams, seed: int, nsynth_examples_path: str | None = None, is_nsynth: bool = False
) -> tf.data.Dataset:
    """Batches for training, without end.

    Args:
        examples_path: TFRecords of recordings, or with `is_nsynth` of single notes.
        hparams: Of a Timbre model, or of a Full one, which also gets rolls.
        seed: What all random choices derive from.
        nsynth_examples_path: TFRecords of single notes, mixed into a quarter of the crops.
        is_nsynth: What `examples_path` holds.

    Returns:
        A dataset of inputs "audio" `[batch, samples]` and "notes" `[batch, notes, 3]`; targets "family" `[batch, notes, 12]`,
        for a Full model also those of `pipeline.training_dataset` and "instruments" `[batch, time, 88, 13]`; and weights.

    Raises:
        DataError: A file is missing, or no file has a readable record.
        HParamsError: Mixing is asked for, which only cached spectrograms can have.
    """
    if is_nsynth:
        crops = nsynth_mixes.crops(examples_path, hparams, seed)
    else:
        crops = pipeline.training_crops(examples_path, hparams, seed)
    if nsynth_examples_path:
        crops = tf.data.Dataset.sample_from_datasets(
            [_same(crops), _same(nsynth_mixes.crops(nsynth_examples_path, hparams, seed))],
            weights=[1 - _NSYNTH_SHARE, _NSYNTH_SHARE],
            seed=seed,
        )
    labelled = crops.map(lambda number, crop: _labelled(crop, number, hparams, seed), num_parallel_calls=tf.data.AUTOTUNE)
    return labelled.batch(hparams.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _same(crops: tf.data.Dataset) -> tf.data.Dataset:
    """Crops with the fields that all kinds have, in forms that can be sampled together."""
    names = ("audio", *_FIELDS, "total_time")

    def chosen(number: tf.Tensor, crop: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return number, {name: tf.ensure_shape(crop[name], [None] if name != "total_time" else []) for name in names}

    return crops.map(chosen)


def _labelled(crop: dict[str, tf.Tensor], number: tf.Tensor, hparams: TimbreHParams, seed: int) -> Batch:
    """A crop as inputs, targets and weights, padded to the training length."""
    frames, size = hparams.train_frames, hparams.timbre_max_notes
    length = 1 + tf.size(crop["audio"]) // hparams.hop_length
    audio, velocity = pipeline.training_audio(crop, number, hparams, seed)
    crop = {**crop, "velocity": velocity}
    names = _target_shapes(hparams)

    def label(onset, offset, pitch, velocity, program, heard, total_time, index):
        order = np.lexsort((pitch, onset))  # Mixes of single notes come in an order of their own.
        notes = Notes(onset, offset, *(np.asarray(column, np.int64) for column in (pitch, velocity, program)))[order]
        # The spectrum is computed by the model.
        whole = cache.Crop(np.zeros((frames, 0), np.float32), notes, min(int(heard), frames), float(total_time))
        found, weights = _targets(whole, hparams, np.random.default_rng([seed, int(index)]))
        return [found[name] for name in names] + [weights[name] for name in weighted]

    weighted = [name for name in names if name != "notes"]
    arguments = [*(crop[name] for name in _FIELDS), length, crop["total_time"], number]
    values = tf.numpy_function(label, arguments, [tf.float32] * (len(names) + len(weighted)))
    targets = {name: tf.ensure_shape(value, shape) for (name, shape), value in zip(names.items(), values, strict=False)}
    weights = {
        name: tf.ensure_shape(value, [size] if name == "family" else names[name])
        for name, value in zip(weighted, values[len(names) :], strict=True)
    }
    notes = tf.ensure_shape(targets.pop("notes"), [size, 3])
    return {"audio": audio, "notes": notes}, targets, weights


def _target_shapes(hparams: TimbreHParams) -> dict[str, list[int]]:
    """Names and shapes of what `_targets` gives, "notes" first."""
    frames, size = hparams.train_frames, hparams.timbre_max_notes
    shapes = {"notes": [size, 3], "family": [size, constants.NUM_FAMILIES]}
    if isinstance(hparams, FullHParams):
        shapes |= dict.fromkeys(constants.ROLLS, [frames, constants.NUM_PITCHES])
        shapes["instruments"] = [frames, constants.NUM_PITCHES, constants.NUM_FAMILIES + 1]
    return shapes


def _targets(
    crop: cache.Crop, hparams: TimbreHParams, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The list of notes and all targets of a crop, and the weights of those that are rolls."""
    frames = hparams.train_frames
    notes, family = note_lists.training_lists(crop.notes, crop.length / hparams.frames_per_second, hparams, rng)
    found = {"notes": notes, "family": family}
    weights = {"family": family.max(axis=-1)}  # 1 for notes whose family is learned: [note].
    if isinstance(hparams, FullHParams):
        rolls, of_rolls = crop.labelled(hparams)
        weights |= of_rolls
        found |= {name: rolls[name] for name in constants.ROLLS}
        found["instruments"] = note_lists.family_rolls(crop.notes, frames, hparams)
        heard = weights["onset"][..., None]  # Where the example has not ended: [time, pitch, 1].
        weights["instruments"] = np.broadcast_to(heard, found["instruments"].shape).copy()
    return found, weights


def cached_batches(spectra: cache.SpectrumCache, hparams: TimbreHParams, seed: int, first_step: int = 0) -> Iterator[Batch]:
    """Batches without end of cached spectrograms, inputs "spectrum" (and "timbre_spectrum", the same) instead of "audio".

    Raises:
        HParamsError: As `check_cacheable` and `cache.check_augmentation`.
    """
    check_cacheable(hparams)
    cache.check_augmentation(hparams)
    return (_cached_batch(spectra, hparams, seed, step) for step in itertools.count(first_step))


def _cached_batch(spectra: cache.SpectrumCache, hparams: TimbreHParams, seed: int, step: int) -> Batch:
    rng = np.random.default_rng([seed, step])
    crops = cache.random_crops(spectra, hparams, rng)
    labelled = [_targets(crop, hparams, rng) for crop in crops]
    targets = {name: np.stack([found[name] for found, _ in labelled]) for name in labelled[0][0]}
    weights = {name: np.stack([of_crop[name] for _, of_crop in labelled]) for name in labelled[0][1]}
    inputs = {"spectrum": np.stack([crop.spectrum for crop in crops]), "notes": targets.pop("notes")}
    if isinstance(hparams, FullHParams):
        inputs["timbre_spectrum"] = inputs["spectrum"]
    return inputs, targets, weights


def check_cacheable(hparams: TimbreHParams) -> None:
    """Raises `HParamsError` unless all parts of the model read one and the same spectrogram, the one that is cached."""
    if hparams.timbre_architecture == "filters" or hparams.timbre_hop_length != hparams.hop_length:
        raise HParamsError(
            'with timbre_architecture "filters", or with a timbre_hop_length other than hop_length, nothing can be cached; '
            "leave out --cache_dir."
        )
    if isinstance(hparams, FullHParams) and hparams.spec_type != "log_frequency":
        raise HParamsError(
            f"spec_type {hparams.spec_type!r} is not what the Timbre part reads, so nothing can be cached; leave out "
            '--cache_dir, or set it to "log_frequency".'
        )
