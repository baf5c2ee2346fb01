"""The TFRecord schema: round trips, damage, and both ways between this package and Magenta."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from note_seq import sequences_lib
from note_seq.protobuf import music_pb2

from polyamp import notes
from polyamp.audio import reading
from polyamp.data import parsing, records
from polyamp.data.example import Example
from polyamp.errors import DataError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes

MakeExample = Callable[..., Example]


def _assert_same(one: Example, other: Example, tolerance: float = 0.0) -> None:
    assert (one.id, one.velocity_range) == (other.id, other.velocity_range)
    np.testing.assert_array_equal(one.audio, other.audio)
    for name in ("onset", "offset", "pitch", "velocity", "program"):
        np.testing.assert_allclose(getattr(one.notes, name), getattr(other.notes, name), rtol=0, atol=tolerance, err_msg=name)


def _assert_tensors_hold(parsed: dict[str, tf.Tensor], example: Example, tolerance: float = 0.0) -> None:
    order = np.lexsort((parsed["pitch"], parsed["onset"]))
    np.testing.assert_array_equal(parsed["audio"], example.audio)
    for name in ("onset", "offset", "pitch", "velocity", "program"):
        expected = getattr(example.notes, name)
        np.testing.assert_allclose(parsed[name].numpy()[order], expected, rtol=0, atol=tolerance, err_msg=name)


def test_round_trip_in_python_and_in_tensorflow(make_example: MakeExample):
    example = make_example(1)
    serialized = records.serialize(example)
    _assert_same(records.parse(serialized), example)
    _assert_tensors_hold(parsing.parse(serialized), example)
    assert parsing.parse(records.serialize(Example("", np.zeros(9, np.float32), Notes.empty(), (0, 0))))["onset"].shape == (0,)


def test_recordings_without_notes_say_so(make_example: MakeExample, tmp_path: Path):
    known, silent = make_example(1), dataclasses.replace(make_example(2), notes=Notes.empty())
    unknown = dataclasses.replace(silent, is_labelled=False)
    assert [records.parse(records.serialize(one)).is_labelled for one in (known, silent, unknown)] == [True, True, False]
    assert parsing.parse(records.serialize(unknown))["onset"].shape == (0,)
    for name, one in (("known", known), ("silent", silent), ("unknown", unknown)):
        records.write(tmp_path / name, [one])
    records.check_labelled([str(tmp_path / "known"), str(tmp_path / "silent")])
    with pytest.raises(DataError, match="unknown: recordings without notes, from which MELODIC learns with --teacher_id"):
        records.check_labelled([str(tmp_path / "known"), str(tmp_path / "unknown")])


def test_cut_notes_keep_their_times_but_the_sequence_is_clipped(make_example: MakeExample):
    whole = make_example(2, seconds=6.0, notes_per_second=30)
    part = notes.crop(whole.notes, 2.0, 4.0, clip=False)
    assert (part.onset < 0).sum() > 1 and (part.offset > 2).sum() > 1
    example = Example("part", whole.audio[32_000:64_000], part, whole.velocity_range)
    serialized = records.serialize(example)
    _assert_same(records.parse(serialized), example, tolerance=1e-6)
    _assert_tensors_hold(parsing.parse(serialized), example, tolerance=1e-6)
    feature = tf.train.Example.FromString(serialized).features.feature
    sequence = music_pb2.NoteSequence.FromString(feature["sequence"].bytes_list.value[0])
    assert notes.from_sequence(sequence) == notes.crop(whole.notes, 2.0, 4.0)
    assert sequence.total_time == 2.0


def test_only_pedalled_records_leave_tensorflow(make_example: MakeExample, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tf, "numpy_function", lambda *args, **kwargs: tf.debugging.Assert(False, ["left TensorFlow"]))
    parsing.parse(records.serialize(make_example(1)))


def test_the_pedal_in_a_foreign_record_is_applied_and_drums_are_left_out():
    sequence = notes.to_sequence(Notes.of([0.1, 0.5], [0.3, 0.6], [60, 64]))
    sequence.control_changes.add(time=0.2, control_number=64, control_value=127)
    sequence.control_changes.add(time=0.9, control_number=64, control_value=0)
    sequence.notes.add(start_time=0.0, end_time=0.1, pitch=40, velocity=80, is_drum=True)
    feature = tf.train.Example.FromString(records.serialize(Example("x", np.zeros(16_000, np.float32), Notes.empty(), (0, 0))))
    feature.features.feature["sequence"].bytes_list.value[0] = sequence.SerializeToString()
    serialized = feature.SerializeToString()
    np.testing.assert_allclose(records.parse(serialized).notes.offset, [0.9, 0.9])
    parsed = parsing.parse(serialized)
    np.testing.assert_allclose(parsed["offset"], [0.9, 0.9])
    np.testing.assert_array_equal(parsed["pitch"], [60, 64])


def test_audio_of_another_rate_and_format_is_converted(make_example: MakeExample):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(44_100) * 0.05) * 0.5, 44_100, format="FLAC")
    feature = tf.train.Example.FromString(records.serialize(make_example(1)))
    feature.features.feature["audio"].bytes_list.value[0] = buffer.getvalue()
    parsed = parsing.parse(feature.SerializeToString())
    np.testing.assert_array_equal(parsed["audio"], reading.decode_wav(buffer.getvalue()))
    assert len(parsed["audio"]) == 16_000


def _damaged_file(folder: Path, make_example: MakeExample, damage: str) -> str:
    """A file of five records, number 2 damaged."""
    path = str(folder / f"{damage}.tfrecord")
    records.write(path, [make_example(number, seconds=0.5) for number in range(5)])
    offsets = records.record_offsets(path)
    data = bytearray(Path(path).read_bytes())
    if damage == "flipped bit":
        data[offsets[2] + 5000] ^= 1
    elif damage == "truncated":
        del data[offsets[2] + 5000 :]
    elif damage == "truncated length":
        del data[offsets[2] + 5 :]
    elif damage == "wrong length":
        data[offsets[2] + 5] = 255
    elif damage == "hole":
        data[offsets[2] :] = bytes(len(data) - offsets[2])
    else:
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(5):
                writer.write(b"not an example" if number == 2 else records.serialize(make_example(number, seconds=0.5)))
        return path
    Path(path).write_bytes(data)
    return path


DAMAGES = {"flipped bit": 4, "not an example": 4, "truncated": 2, "truncated length": 2, "wrong length": 2, "hole": 2}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_an_error_that_names_file_and_record_or_is_skipped(
    damage: str, tmp_path: Path, make_example: MakeExample, caplog: pytest.LogCaptureFixture
):
    path = _damaged_file(tmp_path, make_example, damage)
    found = records.read([path])
    assert [next(found).id, next(found).id] == ["example 0", "example 1"]
    with pytest.raises(DataError, match=f"{damage}.tfrecord: record 2 is "):
        next(found)
    with caplog.at_level("WARNING"):
        kept = [example.id for example in records.read([path], on_error="skip")]
    expected = [0, 1, 3, 4] if DAMAGES[damage] == 4 else [0, 1]
    assert kept == [f"example {number}" for number in expected]
    assert "skipped (1 so far)" in caplog.text


def test_files_appear_only_when_complete(tmp_path: Path, make_example: MakeExample):
    def failing():
        yield make_example(0)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        records.write(tmp_path / "a.tfrecord", failing())
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="cannot be written"):
        records.write(tmp_path / "absent" / "a.tfrecord", [make_example(0)])


def test_expand_paths(tmp_path: Path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.tfrecord").touch()
    a, b, c = (str(tmp_path / f"{name}.tfrecord") for name in "abc")
    assert records.expand_paths(f"{c}, {tmp_path}/*.tfrecord") == [c, a, b]
    with pytest.raises(DataError, match="no.tfrecord"):
        records.expand_paths(f"{a},{tmp_path}/no.tfrecord")
    with pytest.raises(DataError, match="directory"):
        records.expand_paths(str(tmp_path))
    with pytest.raises(DataError, match="no TFRecord files are named"):
        records.expand_paths(" ,")


def test_magenta_reads_our_files(tmp_path: Path, make_example: MakeExample):
    magenta_data = pytest.importorskip("magenta.models.onsets_frames_transcription.data")
    example = make_example(3, seconds=2.0)
    records.write(tmp_path / "ours.tfrecord", [example])
    hparams = SimpleNamespace(
        sample_rate=16_000, spec_type="mel", spec_hop_length=512, min_frame_occupancy_for_label=0.0,
        onset_mode="length_ms", onset_length=32, offset_length=32, onset_delay=0,
    )  # fmt: skip

    def read_as_magenta_does(serialized: tf.Tensor):
        record = magenta_data.parse_example(serialized)
        return record, magenta_data.sequence_to_pianoroll_op(record["sequence"], record["velocity_range"], hparams)

    dataset = tf.data.TFRecordDataset(str(tmp_path / "ours.tfrecord")).map(read_as_magenta_does)
    ((record, (roll, _, onsets, offsets, _)),) = dataset.as_numpy_iterator()
    assert record["id"].decode() == example.id
    ours = notes.to_rolls(example.notes, len(roll), MelodicHParams(), total_time=2.0)
    np.testing.assert_array_equal(roll, ours["frame"])
    np.testing.assert_array_equal(onsets, ours["onset"])
    np.testing.assert_array_equal(offsets, ours["offset"])
    assert magenta_data.wav_to_num_frames(record["audio"], 31.25) == 62  # Of 2 s.


def test_we_read_files_of_magenta(tmp_path: Path, make_example: MakeExample):
    label_data = pytest.importorskip("magenta.models.onsets_frames_transcription.audio_label_data_utils")
    example = make_example(4, seconds=9.0)
    sequence = notes.to_sequence(example.notes)
    sequence.control_changes.add(time=1.0, control_number=64, control_value=127)
    sequence.control_changes.add(time=2.0, control_number=64, control_value=0)
    wav = reading.write_wav_bytes(example.audio)
    made = list(label_data.process_record(wav, sequence, "magenta", min_length=2, max_length=4))
    assert len(made) > 1
    path = str(tmp_path / "magenta.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for one in made:
            writer.write(one.SerializeToString())
    for one, found in zip(made, records.read([path]), strict=True):
        stored = music_pb2.NoteSequence.FromString(one.features.feature["sequence"].bytes_list.value[0])
        expected = sequences_lib.apply_sustain_control_changes(stored)
        assert found.id == "magenta" and found.velocity_range == example.velocity_range
        np.testing.assert_allclose(np.sort(found.notes.onset), np.sort([note.start_time for note in expected.notes]))
        np.testing.assert_allclose(np.sort(found.notes.offset), np.sort([note.end_time for note in expected.notes]))
        assert abs(found.duration - stored.total_time) < 0.1
        _assert_tensors_hold(parsing.parse(one.SerializeToString()), found)
