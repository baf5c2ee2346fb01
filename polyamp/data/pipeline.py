"""The one tf.data pipeline: from TFRecord files to batches of audio, label rolls and weights.

Order: references to records (file, number, byte offset) are shuffled, which costs no memory; records are read and parsed one
by one, so that a damaged one is skipped alone; each gives as many random crops as it is crops long, several in turn; crops are
shuffled again, augmented, labelled and batched. Every random choice derives from the seed and the number of the crop, so that
two runs see the same batches whatever the threads do.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from polyamp import constants
from polyamp.audio import augmentation
from polyamp.data import labels, parsing, records
from polyamp.data.example import Example
from polyamp.errors import DataError, HParamsError
from polyamp.hparams import MelodicHParams

_OPEN_FILES = 16  # Files whose records are listed in turn.
_REFERENCE_BUFFER = 16_384  # References that are shuffled at a time; some hundred bytes each.
_OPEN_EXAMPLES = 8  # Of which crops are taken in turn, so that those of a long recording do not make up whole batches.
_CROP_BUFFER = 64  # Crops that are shuffled at a time; 1.3 MB each at the default length.

# Audio, labels and weights, as Keras' `fit` takes them.
Batch = tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, tf.Tensor]]


def training_dataset(examples_path: str, hparams: MelodicHParams, seed: int) -> tf.data.Dataset:
    """Batches for training, without end: each epoch takes every record once, in another order.

    Args:
        examples_path: Comma-separated TFRecord files and globs.
        hparams: Settings of labels, crops, batches and augmentation.
        seed: What all random choices derive from; the same seed gives the same batches.

    Returns:
        A dataset of `(audio, labels, weights)`: audio float32 [batch, samples], of `train_frames` frames, silence after the end
        of a short example; labels "onset", "offset", "frame", "velocity" float32 [batch, time, 88]; weights of the same names
        and shape: 0 after the end of a short example, for "frame" the decaying weights if `decay_frame_weights`, for
        "velocity" 1 only where an onset is. Damaged records are skipped with a warning each.

    Raises:
        DataError: A file is missing, or no file has a readable record.
        HParamsError: Mixing is asked for, which only cached spectrograms can have. (So is transposition, without which
            presets that ask for it can do: it has no effect, which is said.)
    """
    crops = training_crops(examples_path, hparams, seed)
    labelled = crops.map(lambda number, crop: _labelled(crop, number, hparams, seed), num_parallel_calls=tf.data.AUTOTUNE)
    return labelled.batch(hparams.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def training_crops(examples_path: str, hparams: MelodicHParams, seed: int) -> tf.data.Dataset:
    """Numbered random crops without end, neither augmented nor labelled: what all training on recordings begins with.

    Returns:
        A dataset of a number, int64, and a crop as `parsing.crop` gives it. For arguments and errors see `training_dataset`.
    """
    if hparams.augment_probability and hparams.augment_transpose_semitones:
        logging.warning("augment_transpose_semitones has no effect: only cached spectrograms are transposed (--cache_dir).")
    if hparams.augment_mix_probability:
        raise HParamsError("augment_mix_probability: only cached spectrograms are mixed; set it to 0, or give --cache_dir.")
    paths = records.expand_paths(examples_path)
    if next(records.read(paths, on_error="skip"), None) is None:
        raise DataError(f"{examples_path}: no readable example in these files; make them with scripts/create_tfrecords.py.")
    examples = shuffled(paths, parsing.parse, seed).repeat()
    crops = examples.interleave(lambda example: _copies(example, hparams), cycle_length=_OPEN_EXAMPLES).enumerate()
    crops = crops.map(lambda number, example: _random_crop(example, number, hparams, seed), num_parallel_calls=tf.data.AUTOTUNE)
    return crops.shuffle(_CROP_BUFFER, seed=seed).enumerate()


def shuffled(paths: list[str], parse: Callable[[tf.Tensor], dict[str, tf.Tensor]], seed: int) -> tf.data.Dataset:
    """What all records hold, once, in another order whenever it is gone through; damaged ones are skipped with a warning each.

    Args:
        paths: TFRecord files.
        parse: What a record holds; `tf.errors.OpError` where it is not of its schema.
        seed: Of the order.
    """

    def read(reference: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]:
        """The reference, its parsed record and whether there is one."""
        parsed = records.record_at(reference["path"], reference["offset"]).map(parse).ignore_errors()
        none = {name: tf.zeros([size or 0 for size in spec.shape], spec.dtype) for name, spec in parsed.element_spec.items()}
        either = parsed.map(lambda record: (record, True)).concatenate(tf.data.Dataset.from_tensors((none, False)))
        return reference, *either.take(1).get_single_element()

    damage = _DamageLog()
    found = _references(paths, seed).map(read, num_parallel_calls=tf.data.AUTOTUNE).filter(damage.is_readable)
    return found.map(lambda reference, record, is_there: record)


def whole_examples(examples_path: str) -> Iterator[Example]:
    """Whole records in order, for scoring notes: with those that there are to find in each, `Example.begun`.

    Raises:
        DataError: A file is missing, or a record is damaged; names file and record.
    """
    for example in records.read(records.expand_paths(examples_path), on_error="raise"):
        yield dataclasses.replace(example, notes=example.begun)


@dataclasses.dataclass
class _DamageLog:
    """Counts the records that training skips."""

    count: int = 0

    def is_readable(self, reference: dict[str, tf.Tensor], record: dict[str, tf.Tensor], is_there: tf.Tensor) -> tf.Tensor:
        """A filter for what `shuffled` reads; only a damaged record leaves TensorFlow."""
        where = [reference["path"], reference["index"]]
        return tf.cond(
            is_there,
            lambda: tf.constant(True),
            lambda: tf.ensure_shape(tf.numpy_function(self._skip, where, tf.bool), []),
        )

    def _skip(self, path: bytes, index: np.int64) -> np.bool_:
        self.count += 1
        logging.warning("%s: record %d is damaged; skipped (%d so far).", path.decode(), index, self.count)
        return np.bool_(False)


def _references(paths: list[str], seed: int) -> tf.data.Dataset:
    """One epoch of shuffled references to records: path, index in the file, byte offset."""

    def in_file(path: tf.Tensor) -> tf.data.Dataset:
        offsets = tf.ensure_shape(tf.numpy_function(records.record_offsets, [path], tf.int64), [None])
        listed = tf.data.Dataset.from_tensor_slices(offsets).enumerate()
        return listed.map(lambda index, offset: {"path": path, "index": index, "offset": offset})

    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=seed)
    return files.interleave(in_file, cycle_length=_OPEN_FILES).shuffle(_REFERENCE_BUFFER, seed=seed)


def crop_length(hparams: MelodicHParams) -> int:
    """Samples whose centred frames are `train_frames`."""
    return (hparams.train_frames - 1) * hparams.hop_length


def _copies(example: dict[str, tf.Tensor], hparams: MelodicHParams) -> tf.data.Dataset:
    """The example as many times as crops shall be taken from it."""
    lengths = tf.round(tf.size(example["audio"]) / crop_length(hparams))
    return tf.data.Dataset.from_tensors(example).repeat(tf.maximum(tf.cast(lengths, tf.int64), 1))


def _random_crop(example: dict[str, tf.Tensor], number: tf.Tensor, hparams: MelodicHParams, seed: int) -> dict[str, tf.Tensor]:
    """A crop of training length from anywhere in the example, the whole of a shorter one."""
    length = crop_length(hparams)
    slack = tf.maximum(tf.size(example["audio"]) - length, 0)
    start = tf.random.stateless_uniform([], [seed, number], 0, slack + 1, tf.int32)
    return parsing.crop(example, start, length)


def _labelled(crop: dict[str, tf.Tensor], number: tf.Tensor, hparams: MelodicHParams, seed: int) -> Batch:
    """A crop as model input, targets and weights, padded to the training length."""
    num_frames = hparams.train_frames
    valid = tf.sequence_mask(1 + tf.size(crop["audio"]) // hparams.hop_length, num_frames, tf.float32)
    # Of every cell: Keras' losses divide by the sum of the weights as they are given.
    valid = tf.repeat(valid[:, None], constants.NUM_PITCHES, axis=1)  # [time, pitch]
    audio, velocity = training_audio(crop, number, hparams, seed)
    onset, offset, pitch = (crop[name] for name in ("onset", "offset", "pitch"))
    rolls = labels.to_rolls(onset, offset, pitch, velocity, num_frames, hparams, crop["total_time"])
    targets = {name: rolls[name] for name in constants.ROLLS}
    heard = tf.cast(rolls["velocity"] > 0, tf.float32)
    weights = {"onset": valid, "offset": valid, "frame": rolls["frame_weight"] * valid, "velocity": heard * valid}
    return audio, targets, weights


def training_audio(
    crop: dict[str, tf.Tensor], number: tf.Tensor, hparams: MelodicHParams, seed: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The audio of a crop, augmented as the settings say, with silence up to the training length; and its notes' velocities."""
    length = crop_length(hparams)
    audio, velocity = crop["audio"], crop["velocity"]
    if hparams.augment_probability > 0:
        audio, velocity = _augmented(audio, velocity, number, hparams, seed)
    return tf.ensure_shape(tf.pad(audio, [[0, length - tf.size(audio)]]), [length]), velocity


def _augmented(
    audio: tf.Tensor, velocity: tf.Tensor, number: tf.Tensor, hparams: MelodicHParams, seed: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The augmented audio, of the same length, and velocities; in numpy, so only called where augmentation is on."""

    def augment(samples: np.ndarray, velocities: np.ndarray, crop_number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        changed, gain_db = augmentation.augment(samples, hparams, np.random.default_rng([seed, int(crop_number)]))
        return changed, augmentation.louder(velocities, gain_db, hparams).astype(velocities.dtype)

    changed, velocities = tf.numpy_function(augment, [audio, velocity, number], [tf.float32, velocity.dtype])
    return tf.ensure_shape(changed, [None]), tf.ensure_shape(velocities, [None])
