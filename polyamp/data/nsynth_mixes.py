"""Training material for the Timbre model out of NSynth: several single notes mixed into one clip, as published.

Every clip has 1 to `timbre_training_max_instruments` notes, each beginning up to `timbre_max_start_offset` samples into it and
up to `timbre_gain_db` louder or softer than the others. How long a note sounds is estimated from its envelope, since NSynth
does not say. All notes of a clip are handled at once, in TensorFlow ops.
"""

import itertools
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from polyamp import constants
from polyamp.data import nsynth, pipeline, prepared, records
from polyamp.data.example import Example
from polyamp.errors import DataError, HParamsError
from polyamp.hparams import TimbreHParams
from polyamp.notes import Notes

_ENVELOPE_STEP = 256  # Samples.
_SILENCE = 10.0 ** (-40 / 20)  # Of the loudest moment of the envelope: below it a note has ended.
_SHUFFLE_BUFFER = 2048  # Notes of 256 kB each.


def crops(examples_path: str, hparams: TimbreHParams, seed: int) -> tf.data.Dataset:
    """Mixes without end, numbered, in the form of `pipeline.training_crops`.

    Args:
        examples_path: Comma-separated files and globs of TFRecords of NSynth's schema, or names such as `tfds:nsynth/full`
            (with a split: `tfds:nsynth/full:valid`) of data sets that tensorflow-datasets has prepared.
        hparams: Settings of mixes and crops.
        seed: Of all random choices.

    Raises:
        DataError: A file or data set is missing, or there is no single note in it.
        HParamsError: Mixing of whole crops is asked for, which only cached spectrograms can have.
    """
    if hparams.augment_mix_probability:
        raise HParamsError("augment_mix_probability: mixes of single notes are not mixed again; set it to 0.")
    if hparams.augment_probability and hparams.augment_transpose_semitones:
        logging.warning("augment_transpose_semitones has no effect on single notes.")
    notes = [_training_notes(part, seed) for part in records.parts(examples_path)]
    number = hparams.timbre_training_max_instruments
    mixed = tf.data.Dataset.sample_from_datasets(notes, seed=seed)
    mixed = mixed.batch(number, drop_remainder=True).enumerate()
    return mixed.map(lambda index, batch: (index, mix(batch, index, hparams, seed)), num_parallel_calls=tf.data.AUTOTUNE)


def _training_notes(part: str, seed: int) -> tf.data.Dataset:
    """The notes of one part of an `examples_path` without end, in random order, without damaged ones."""
    if part.startswith(prepared.PREFIX):
        return _notes(part).repeat().shuffle(_SHUFFLE_BUFFER, seed)
    paths = records.expand_paths(part)
    if next(nsynth.read(paths), None) is None:  # An error if the first is no note.
        raise DataError(f"{part}: no single note in these files; make them with scripts/create_tfrecords.py --dataset=nsynth.")
    return pipeline.shuffled(paths, nsynth.parse, seed).repeat()


def _notes(part: str) -> tf.data.Dataset:
    """The notes of one part of an `examples_path`, in order."""
    if part.startswith(prepared.PREFIX):
        return prepared.dataset(part).map(nsynth.from_tfds, num_parallel_calls=tf.data.AUTOTUNE)
    return tf.data.TFRecordDataset(records.expand_paths(part)).map(nsynth.parse, num_parallel_calls=tf.data.AUTOTUNE)


def single_notes(examples_path: str) -> Iterator[Example]:
    """Each note as a recording of its own, in order, for evaluation; those beyond the piano's range are left out.

    Args:
        examples_path: As for `crops`.

    Raises:
        DataError: A file or data set is missing, or holds something else.
    """
    try:
        for note in itertools.chain.from_iterable(_notes(part).as_numpy_iterator() for part in records.parts(examples_path)):
            if not constants.MIN_MIDI_PITCH <= note["pitch"] <= constants.MAX_MIDI_PITCH:
                continue
            length = sounding_seconds(tf.constant(note["audio"])[None]).numpy()
            velocity, program = int(note["velocity"]), constants.FAMILY_PROGRAMS[note["family"]]
            alone = Notes.of([0.0], length, [int(note["pitch"])], [velocity], [program])
            yield Example(note["id"].decode(), note["audio"], alone, (velocity, velocity))
    except tf.errors.OpError as error:
        reason = " ".join(str(error.message).split())[:200]
        is_damaged = isinstance(error, tf.errors.DataLossError)
        what = "is damaged" if is_damaged else "holds something else than single notes of NSynth's schema"
        raise DataError(f"{examples_path}: {what} ({reason}).") from error


def mix(batch: dict[str, tf.Tensor], index: tf.Tensor, hparams: TimbreHParams, seed: int) -> dict[str, tf.Tensor]:
    """One clip out of a batch of notes, of which a random number of the first is used.

    Args:
        batch: "audio" `[notes, 64000]`, "pitch", "velocity" and "family" `[notes]`, as `nsynth.parse` gives them.
        index: Number of the clip.
        hparams: Settings of mixes and crops.
        seed: Of the random choices, together with `index`.

    Returns:
        As `parsing.crop`: "audio" float32 of the crop's length in [-1, 1], "onset" and "offset" float64, "pitch", "velocity"
        and "program" int32, "total_time".
    """
    length, available = pipeline.crop_length(hparams), tf.shape(batch["pitch"])[0]
    seeds = tf.unstack(tf.random.split([tf.cast(seed, tf.int64), tf.cast(index, tf.int64)], 3))
    number = tf.random.stateless_uniform([], seeds[0], 1, available + 1, tf.int32)
    note = {name: values[:number] for name, values in batch.items() if name != "id"}
    latest = tf.cast(tf.minimum(hparams.timbre_max_start_offset, length / 2.0), tf.int32)
    start = tf.random.stateless_uniform([number], seeds[1], 0, latest + 1, tf.int32)
    gain = tf.random.stateless_uniform([number], seeds[2], -hparams.timbre_gain_db, hparams.timbre_gain_db)
    position = tf.range(length)[None, :] - start[:, None]  # In each note, [notes, length].
    size = tf.shape(note["audio"])[1]
    shifted = tf.gather(note["audio"], tf.clip_by_value(position, 0, size - 1), axis=1, batch_dims=1)
    shifted = tf.where((position >= 0) & (position < size), shifted, 0.0)
    audio = tf.reduce_sum(shifted * 10.0 ** (gain[:, None] / 20.0), axis=0)
    audio /= tf.maximum(1.0, tf.reduce_max(tf.abs(audio)))  # Turned down rather than clipped.
    onset = tf.cast(start, tf.float64) / constants.SAMPLE_RATE
    return {
        "audio": audio,
        "onset": onset,
        "offset": onset + sounding_seconds(note["audio"]),
        "pitch": note["pitch"],
        "velocity": note["velocity"],
        "program": tf.gather(tf.constant(constants.FAMILY_PROGRAMS), note["family"]),
        "total_time": tf.constant(length / constants.SAMPLE_RATE, tf.float64),
    }


def sounding_seconds(audio: tf.Tensor) -> tf.Tensor:
    """How long each note `[notes, samples]` is louder than 40 dB below its loudest moment: float64 `[notes]`, above 0."""
    steps = tf.shape(audio)[1] // _ENVELOPE_STEP
    blocks = tf.reshape(audio[:, : steps * _ENVELOPE_STEP], [-1, steps, _ENVELOPE_STEP])
    envelope = tf.sqrt(tf.reduce_mean(tf.square(blocks), axis=-1))
    loud = envelope > _SILENCE * tf.reduce_max(envelope, axis=1, keepdims=True)
    last = tf.reduce_max(tf.where(loud, tf.range(1, steps + 1)[None, :], 1), axis=1)
    return tf.cast(last * _ENVELOPE_STEP, tf.float64) / constants.SAMPLE_RATE
