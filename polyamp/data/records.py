"""The TFRecord schema, Magenta's onsets-and-frames one, written and read side by side.

Features of a record: `id`, `sequence` (serialized NoteSequence, sustain pedal applied), `audio` (WAV bytes), `velocity_range`
(serialized VelocityRange). Segments of a recording have two more, which readers of the plain schema ignore: `seconds_before`
and `seconds_after` say for each note of the sequence how long it sounded before the segment's start and goes on after its
end. They are absent where no note is cut. Recordings whose notes nobody knows have an empty sequence, and 0 as `is_labelled`,
which is absent from all others.
"""

import contextlib
import dataclasses
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from polyamp import globs, notes
from polyamp.audio import reading
from polyamp.data import places, prepared, recording
from polyamp.data.example import Example
from polyamp.errors import AudioError, DataError
from polyamp.notes import Notes

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_FRAMING_BYTES = _LENGTH_BYTES + 2 * _CHECKSUM_BYTES  # A TFRecord: length, its checksum, the data, their checksum.
_READ_BUFFER = 256 * 1024  # Bytes.
_Parsed = TypeVar("_Parsed")


def serialize(example: Example) -> bytes:
    """The record that holds `example`; notes that begin after the end of its audio are left out."""
    from note_seq.protobuf import music_pb2

    inside = notes.crop(example.notes, 0.0, example.duration, clip=False)
    clipped = notes.crop(example.notes, 0.0, example.duration)
    # Both have the same notes, but cut onsets become 0 and may tie: bring the real times into the order of the file.
    cut = inside[np.lexsort((inside.pitch, np.maximum(inside.onset, 0.0)))]
    sequence = notes.to_sequence(clipped)
    sequence.total_time = example.duration
    low, high = example.velocity_range
    features = {
        "id": _bytes_feature(example.id.encode("utf-8")),
        "sequence": _bytes_feature(sequence.SerializeToString()),
        "audio": _bytes_feature(reading.write_wav_bytes(example.audio)),
        "velocity_range": _bytes_feature(music_pb2.VelocityRange(min=low, max=high).SerializeToString()),
    }
    before, after = clipped.onset - cut.onset, cut.offset - clipped.offset
    if before.any() or after.any():
        features["seconds_before"] = tf.train.Feature(float_list=tf.train.FloatList(value=before))
        features["seconds_after"] = tf.train.Feature(float_list=tf.train.FloatList(value=after))
    if not example.is_labelled:
        features["is_labelled"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _bytes_feature(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def parse(serialized: bytes) -> Example:
    """The example in a record, written by `serialize` or by Magenta.

    Raises:
        DataError: The record is not of this schema, or its audio or notes cannot be used.
    """
    from note_seq.protobuf import music_pb2

    try:
        features = tf.train.Example.FromString(serialized).features.feature
        values = {name: features[name].bytes_list.value[0] for name in ("id", "sequence", "audio", "velocity_range")}
        sequence = music_pb2.NoteSequence.FromString(values["sequence"])
        velocities = music_pb2.VelocityRange.FromString(values["velocity_range"])
    except (DecodeError, IndexError) as error:
        raise DataError("is not an onsets-and-frames example (id, sequence, audio, velocity_range)") from error
    try:
        audio = reading.decode_wav(values["audio"], "its audio")
        found = notes.from_sequence(sequence)
    except (AudioError, DataError) as error:
        raise DataError("cannot be used: " + str(error).rstrip(".")) from error
    before, after = (np.array(features[name].float_list.value) for name in ("seconds_before", "seconds_after"))
    if len(before) or len(after):
        found = _uncut(found, before, after)
    is_labelled = 0 not in features["is_labelled"].int64_list.value
    return Example(values["id"].decode("utf-8", "replace"), audio, found, (velocities.min, velocities.max), is_labelled)


def _uncut(clipped: Notes, before: np.ndarray, after: np.ndarray) -> Notes:
    """Gives cut notes their real times back."""
    if not len(clipped) == len(before) == len(after):
        raise DataError("has seconds_before and seconds_after for another number of notes than its sequence")
    moved = dataclasses.replace(clipped, onset=clipped.onset - before, offset=clipped.offset + after)
    return moved[np.lexsort((moved.pitch, moved.onset))]


def parts(examples_path: str) -> list[str]:
    """The comma-separated parts of an `--examples_path`; `DataError` if there is none."""
    found = [part.strip() for part in examples_path.split(",") if part.strip()]
    if not found:
        raise DataError("no TFRecord files are named; give them as a comma-separated list of files or globs.")
    return found


def expand_paths(examples_path: str) -> list[str]:
    """The files that `--examples_path` names: comma-separated, each part a file, a glob, or a name as in `prepared`.

    Returns:
        Paths in the order given, each once, those of a glob sorted.

    Raises:
        DataError: A part matches nothing, or no part is given.
    """
    paths: dict[str, None] = {}
    for part in parts(examples_path):
        if part.startswith(prepared.PREFIX):
            paths.update(dict.fromkeys(prepared.files(part)))
            continue
        found = [part] if os.path.isfile(part) else [path for path in globs.matching(part) if _may_be_records(path)]
        if not found:
            hint = f" It is a directory; did you mean {os.path.join(part, '*.tfrecord*')}?" if os.path.isdir(part) else ""
            raise DataError(f"{part}: no TFRecord file has this name or matches it.{hint}")
        paths.update(dict.fromkeys(found))
    return list(paths)


def _may_be_records(path: str) -> bool:
    """Whether what a glob finds is meant: not what create_tfrecords.py says of recordings that it could not use."""
    return os.path.isfile(path) and not path.endswith(recording.FAILURES)


def first_features(path: str) -> Mapping[str, Any]:
    """The features of a file's first record; none if it is empty or damaged, which is found where the records are read.

    Without an operation of TensorFlow's. `DataError` if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            length, _ = struct.unpack("<QI", file.read(_LENGTH_BYTES + _CHECKSUM_BYTES))
            return tf.train.Example.FromString(file.read(min(length, os.path.getsize(path)))).features.feature
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except (struct.error, DecodeError):
        return {}


def check_labelled(paths: Iterable[str]) -> None:
    """`DataError` if a file holds something else than recordings with their notes, as its first record tells if it can be read.

    Without an operation of TensorFlow's, before which several machines could not be joined any more.
    """
    check_recordings(paths, are_labelled=True)


def check_recordings(paths: Iterable[str], are_labelled: bool = False) -> None:
    """As `check_labelled`, of recordings whose notes may be unknown."""
    for path in paths:
        features = first_features(path)
        if not features:
            continue
        if "sequence" not in features:
            raise DataError(
                f"{path}: holds no recordings (id, sequence, audio, velocity_range); single notes are for "
                "--dataset_type=nsynth and --nsynth_examples_path."
            )
        if are_labelled and 0 in features["is_labelled"].int64_list.value:
            raise DataError(f"{path}: recordings without notes, from which MELODIC learns with --teacher_id, and nothing else.")


@contextlib.contextmanager
def writer(path: str | Path) -> Iterator[Callable[[bytes], None]]:
    """Gives a function that writes records to a new file.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        with tf.io.TFRecordWriter(os.fspath(path)) as file:
            yield file.write
    except tf.errors.OpError as error:
        raise DataError(f"{path}: TFRecords cannot be written there ({error.message}).") from error


def write(path: str | Path, examples: Iterable[Any], to_record: Callable[[Any], bytes] = serialize) -> None:
    """Writes one TFRecord file, under its name only when it is complete.

    Args:
        path: The file.
        examples: What it is to hold.
        to_record: The schema: what makes a record of an example.

    Raises:
        PolyampError: The file cannot be written.
    """
    with places.writing(os.fspath(path)) as temporary, writer(temporary) as write_record:
        for example in examples:
            write_record(to_record(example))


def record_offsets(path: str) -> np.ndarray:
    """Where the records of a file begin, found from their lengths alone.

    A damaged length hides everything after it; then the last offset is that of the damage, which will not be readable.

    Returns:
        int64 [records], bytes.
    """
    size = os.path.getsize(path)
    offsets, offset = [], 0
    with open(path, "rb") as file:
        while offset < size:
            offsets.append(offset)
            file.seek(offset)
            header = file.read(_LENGTH_BYTES)
            length = struct.unpack("<Q", header)[0] if len(header) == _LENGTH_BYTES else 0
            if length == 0:  # No example is empty: this is a hole in the file.
                break
            offset += length + _FRAMING_BYTES
    return np.array(offsets, np.int64)


def record_at(path: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
    """The one record of a file that begins at byte `offset`, with its checksums verified; for use inside functions only.

    Raises:
        tf.errors.OpError: The record is damaged; on reading it.
    """
    # `tf.data.TFRecordDataset` cannot start inside a file, and gives up all of a file's records after a damaged one.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_READ_BUFFER, byte_offsets=[offset]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)


def read(paths: Iterable[str], on_error: Literal["raise", "skip"] = "raise") -> Iterator[Example]:
    """Reads files record by record, in order.

    Args:
        paths: TFRecord files.
        on_error: What to do about a damaged record: stop, or log a warning with the count so far and go on.

    Raises:
        DataError: A record is damaged (names file and record, counted from 0), or a file cannot be read.
    """
    return read_with(parse, paths, on_error)


def read_with(
    from_record: Callable[[bytes], _Parsed], paths: Iterable[str], on_error: Literal["raise", "skip"]
) -> Iterator[_Parsed]:
    """As `read`, for records of any schema.

    Args:
        from_record: Parses a record; the message of its `DataError` continues "record 3 …".
        paths: As for `read`.
        on_error: As for `read`.
    """
    skipped = 0
    for path in paths:
        try:
            offsets = record_offsets(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
        for index, offset in enumerate(offsets):
            try:
                example = from_record(_bytes_of(path, offset))
            except DataError as error:
                if on_error == "raise":
                    raise DataError(f"{path}: record {index} {error}; make the file again.") from error
                skipped += 1
                logging.warning("%s: record %d %s; skipped (%d so far).", path, index, error, skipped)
                continue
            yield example


def _bytes_of(path: str, offset: int) -> bytes:
    """Reads one record; the message of its `DataError` continues "record 3 …"."""
    try:
        return _bytes_at(path, offset).numpy()
    except tf.errors.OpError as error:
        raise DataError("is damaged or truncated") from error


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
def _bytes_at(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    return record_at(path, offset).get_single_element()
