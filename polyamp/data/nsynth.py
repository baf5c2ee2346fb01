"""NSynth's published TFRecord schema, one note a record, written and read side by side.

Features: `note`, `instrument`, `pitch`, `velocity`, `sample_rate`, `instrument_family` and `instrument_source` (numbers),
`note_str`, `instrument_str`, `instrument_family_str` and `instrument_source_str` (the same as text), `qualities` (ten times 0
or 1), `qualities_str` (those that are 1) and `audio` (64000 floats). https://magenta.tensorflow.org/datasets/nsynth
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from polyamp import constants
from polyamp.data import records
from polyamp.data.example import NOTE_LENGTH, NOTE_QUALITIES, NOTE_SOURCES, NoteExample
from polyamp.errors import DataError

_FEATURES = {
    "note_str": tf.io.FixedLenFeature([], tf.string),
    "audio": tf.io.FixedLenFeature([NOTE_LENGTH], tf.float32),
    "pitch": tf.io.FixedLenFeature([], tf.int64),
    "velocity": tf.io.FixedLenFeature([], tf.int64),
    "instrument_family": tf.io.FixedLenFeature([], tf.int64),
}


def serialize(example: NoteExample) -> bytes:
    """The record that holds `example`.

    Raises:
        ValueError: Its audio is not of NSynth's length, or a name is unknown.
    """
    if example.audio.shape != (NOTE_LENGTH,):
        raise ValueError(f"audio of shape {example.audio.shape}, expected ({NOTE_LENGTH},)")
    numbers = {
        "note": [example.number],
        "instrument": [example.instrument_number],
        "pitch": [example.pitch],
        "velocity": [example.velocity],
        "sample_rate": [constants.SAMPLE_RATE],
        "qualities": [int(quality in example.qualities) for quality in NOTE_QUALITIES],
        "instrument_family": [constants.FAMILIES.index(example.family)],
        "instrument_source": [NOTE_SOURCES.index(example.source)],
    }
    texts = {
        "note_str": [example.id],
        "instrument_str": [example.instrument],
        "qualities_str": list(example.qualities),
        "instrument_family_str": [example.family],
        "instrument_source_str": [example.source],
    }
    features = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in numbers.items()}
    for name, value in texts.items():
        encoded = [text.encode("utf-8") for text in value]
        features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
    features["audio"] = tf.train.Feature(float_list=tf.train.FloatList(value=example.audio))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """The contents of one record, for the input pipeline.

    Args:
        serialized: String scalar, a record of NSynth or of `serialize`.

    Returns:
        "id" string, "audio" float32 [64000] at 16 kHz; "pitch", "velocity" and "family" (an index of `constants.FAMILIES`),
        int32 scalars.

    Raises:
        tf.errors.OpError: The record is not of this schema.
    """
    features = tf.io.parse_single_example(serialized, _FEATURES)
    numbers = {"pitch": features["pitch"], "velocity": features["velocity"], "family": features["instrument_family"]}
    return {
        "id": features["note_str"],
        "audio": features["audio"],
        **{name: tf.cast(value, tf.int32) for name, value in numbers.items()},
    }


def from_tfds(example: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """What `parse` gives, of an example that tensorflow-datasets read: its numbers of families are ours."""
    numbers = {"pitch": example["pitch"], "velocity": example["velocity"], "family": example["instrument"]["family"]}
    return {
        "id": example["id"],
        "audio": tf.ensure_shape(tf.cast(example["audio"], tf.float32), [NOTE_LENGTH]),
        **{name: tf.cast(value, tf.int32) for name, value in numbers.items()},
    }


def read(paths: Iterable[str], on_error: Literal["raise", "skip"] = "raise") -> Iterator[NoteExample]:
    """Reads files record by record, in order; for arguments and errors see `polyamp.data.records.read`."""
    return records.read_with(_to_example, paths, on_error)


def _to_example(serialized: bytes) -> NoteExample:
    """The note in a record; the message of its `DataError` continues "record 3 ..."."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
        numbers = {
            name: features[name].int64_list.value[0]
            for name in ("note", "instrument", "pitch", "velocity", "instrument_family", "instrument_source")
        }
        texts = {name: features[name].bytes_list.value[0].decode("utf-8") for name in ("note_str", "instrument_str")}
        family = constants.FAMILIES[numbers["instrument_family"]]
        source = NOTE_SOURCES[numbers["instrument_source"]]
    except (DecodeError, UnicodeDecodeError, IndexError) as error:
        raise DataError("is not an example of NSynth (note, note_str, instrument, pitch, velocity, audio ...)") from error
    audio = np.array(features["audio"].float_list.value, np.float32)
    if len(audio) != NOTE_LENGTH:
        raise DataError(f"has {len(audio)} samples of audio instead of {NOTE_LENGTH}")
    flags = features["qualities"].int64_list.value
    return NoteExample(
        id=texts["note_str"],
        audio=audio,
        pitch=numbers["pitch"],
        velocity=numbers["velocity"],
        family=family,
        instrument=texts["instrument_str"],
        source=source,
        qualities=tuple(name for name, flag in zip(NOTE_QUALITIES, flags, strict=False) if flag),
        number=numbers["note"],
        instrument_number=numbers["instrument"],
    )
