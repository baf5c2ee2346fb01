"""Records to tensors in TensorFlow ops: what `polyamp.data.records.parse` does, for the input pipeline."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2
from note_seq import sequences_lib
from note_seq.protobuf import music_pb2

from polyamp import constants
from polyamp.audio import reading

_FEATURES = {
    "sequence": tf.io.FixedLenFeature([], tf.string),
    "audio": tf.io.FixedLenFeature([], tf.string),
    "seconds_before": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    "seconds_after": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
}

# Fields of a note, the name that this package has for each, and the type that it is decoded to.
_NOTE_FIELDS = {
    "start_time": ("onset", tf.float64),
    "end_time": ("offset", tf.float64),
    "pitch": ("pitch", tf.int32),
    "velocity": ("velocity", tf.int32),
    "program": ("program", tf.int32),
    "is_drum": ("is_drum", tf.bool),
}

# Where the first bytes of a WAV file say 16-bit PCM, 16 kHz: position and value. TensorFlow decodes nothing else.
_PLAIN_WAV = {0: b"RIFF", 12: b"fmt ", 20: b"\x01\x00", 24: b"\x80\x3e\x00\x00", 34: b"\x10\x00"}


def _descriptor_source() -> bytes:
    """The NoteSequence schema as `tf.io.decode_proto` takes it."""
    files = descriptor_pb2.FileDescriptorSet()
    music_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    return b"bytes://" + files.SerializeToString()


_SCHEMA = _descriptor_source()


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """The contents of one record.

    Args:
        serialized: String scalar, a record of the schema in `polyamp.data.records`, written here or by Magenta.

    Returns:
        "audio" float32 [samples] at 16 kHz; "onset" and "offset" float64 [notes], seconds, the sustain pedal applied, beyond
        the ends of the audio where a segment's borders cut the note; "pitch", "velocity" and "program" int32 [notes].

    Raises:
        tf.errors.OpError: The record is not of this schema, or its audio or notes cannot be decoded.
    """
    features = tf.io.parse_single_example(serialized, _FEATURES)
    parsed = _decode_notes(features["sequence"])
    for name, sign, seconds in (("onset", -1.0, features["seconds_before"]), ("offset", 1.0, features["seconds_after"])):
        # Empty where nothing is cut, else one per note: anything else is an error of the addition.
        change = tf.cond(tf.size(seconds) > 0, lambda s=seconds: s, lambda n=parsed[name]: tf.zeros_like(n, tf.float32))
        parsed[name] += sign * tf.cast(change, tf.float64)
    is_drum = parsed.pop("is_drum")
    parsed = {name: tf.boolean_mask(values, ~is_drum) for name, values in parsed.items()}
    return parsed | {"audio": decode_audio(features["audio"])}


def decode_audio(data: tf.Tensor) -> tf.Tensor:
    """The bytes of a WAV file as float32 [samples]; formats that TensorFlow has no op for take the way through Python."""
    is_plain = tf.reduce_all([tf.strings.substr(data, at, len(value)) == value for at, value in _PLAIN_WAV.items()])
    audio = tf.cond(
        is_plain,
        lambda: tf.reduce_mean(tf.audio.decode_wav(data).audio, axis=-1),
        lambda: _call(reading.decode_wav, data, tf.float32),
    )
    return tf.ensure_shape(audio, [None])


def _decode_notes(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
    """The notes of a serialized NoteSequence, one tensor [notes] per field."""
    # Our files hold no pedal; Magenta's hold it although it is applied, and those of others may need it.
    num_changes = _decode(sequence, "NoteSequence", ["control_changes"], [tf.string]).sizes[0]
    sequence = tf.cond(
        num_changes > 0,
        lambda: tf.ensure_shape(_call(_apply_sustain, sequence, tf.string), []),
        lambda: sequence,
    )
    notes = _decode(sequence, "NoteSequence", ["notes"], [tf.string])
    names, types = zip(*_NOTE_FIELDS.values(), strict=True)
    # Where there are no notes the op still gives one empty message, and wants one: it is cut off at the end.
    fields = _decode(notes.values[0], "NoteSequence.Note", list(_NOTE_FIELDS), list(types)).values  # [notes, 1] each
    return {name: values[: notes.sizes[0], 0] for name, values in zip(names, fields, strict=True)}


def _decode(data: tf.Tensor, message: str, fields: list[str], types: list[tf.DType]) -> Any:
    """The `values` of a message's fields, `data`'s shape and one more dimension for repetitions, and how many: `sizes`."""
    name = f"{music_pb2.DESCRIPTOR.package}.{message}"
    return tf.io.decode_proto(data, name, fields, types, descriptor_source=_SCHEMA)


def _call(function: Callable[[bytes], Any], data: tf.Tensor, result_type: tf.DType) -> tf.Tensor:
    """A Python function of some bytes as an op."""
    # Eagerly, `numpy_function` hands over an array instead of the bytes.
    return tf.numpy_function(lambda value: function(np.asarray(value).item()), [data], result_type, stateful=False)


def _apply_sustain(sequence: bytes) -> bytes:
    """A serialized NoteSequence with the sustain pedal turned into longer notes."""
    parsed = sequences_lib.apply_sustain_control_changes(music_pb2.NoteSequence.FromString(sequence))
    del parsed.control_changes[:]
    return parsed.SerializeToString()


def crop(example: dict[str, tf.Tensor], start: tf.Tensor, length: int | tf.Tensor) -> dict[str, tf.Tensor]:
    """A part of an example: at most `length` samples from sample `start` on, and the notes that sound in it.

    Returns:
        As `parse`, times relative to `start` and not clipped, and "total_time", float64: where the whole example ends.
    """
    audio = example["audio"][start : start + length]
    begin = tf.cast(start, tf.float64) / constants.SAMPLE_RATE
    end = begin + tf.cast(tf.size(audio), tf.float64) / constants.SAMPLE_RATE
    onset, offset = example["onset"], example["offset"]
    sounding = (onset < end) & ((offset > begin) | (onset >= begin))
    cropped = {name: tf.boolean_mask(values, sounding) for name, values in example.items() if name != "audio"}
    cropped["onset"] -= begin
    cropped["offset"] -= begin
    total_time = tf.cast(tf.size(example["audio"]), tf.float64) / constants.SAMPLE_RATE - begin
    return cropped | {"audio": audio, "total_time": total_time}
