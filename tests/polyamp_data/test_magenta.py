"""Both ways between this package and the published code of Onsets and Frames: see `magenta_driver.py`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds
from note_seq.protobuf import music_pb2

from polyamp import hparams, notes, train
from polyamp.data import parsing, records, sources
from polyamp.data.example import Example
from polyamp.data.tfds import maestro_dataset_builder

pytest.importorskip("magenta.models.onsets_frames_transcription.data", reason="see scripts/install_magenta.sh")
pytest.importorskip("apache_beam")

ROOT = Path(__file__).parents[2]
RECORDING, NOTES = (ROOT / "tests" / "data" / name for name in ("handel_air.ogg", "handel_air_reference.mid"))
RATES = {"train": 22_050, "validation": 16_000, "test": 16_000}


@pytest.fixture(scope="module")
def maestro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAESTRO's layout: a recording of 11 s in each split, transposed so that they differ, with its pedal."""
    folder = tmp_path_factory.mktemp("maestro")
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    columns: dict[str, dict[str, str]] = {"split": {}, "audio_filename": {}, "midi_filename": {}}
    for number, split in enumerate(RATES):
        score = pretty_midi.PrettyMIDI(str(NOTES))
        for note in score.instruments[0].notes:
            note.pitch += number
        score.write(str(folder / f"{split}.midi"))
        soundfile.write(folder / f"{split}.wav", samples[:, 0][:: rate // RATES[split]], RATES[split])
        for name, value in zip(columns, (split, f"{split}.wav", f"{split}.midi"), strict=True):
            columns[name][str(number)] = value
    (folder / "maestro-v3.0.0.json").write_text(json.dumps(columns))
    rows = [",".join(columns), *(",".join(column[str(number)] for column in columns.values()) for number in range(3))]
    (folder / "maestro-v3.0.0.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def ours(maestro: Path) -> list[Example]:
    """The recordings as this package has them: train cut, the others whole."""
    found = sources.find("maestro", maestro)
    return [one for recording in found for one in sources.examples(recording, 3.0, 5.0 if recording.split == "train" else 0.0)]


@pytest.fixture(scope="module")
def driven(maestro: Path, ours: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what Magenta's code wrote; it read ours.tfrecord, and what tensorflow-datasets prepared here."""
    output = tmp_path_factory.mktemp("magenta")
    records.write(output / "ours.tfrecord", ours)
    builder = maestro_dataset_builder.Builder(config="full", data_dir=output / "tfds")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=maestro))
    ours_too = str(builder.info.splits["train"].filepaths[0])
    command = [sys.executable, str(Path(__file__).with_name("magenta_driver.py"))]
    # Its models, which its settings import, are written for Keras 2.
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""}
    arguments = [str(maestro), str(output), str(output / "ours.tfrecord"), ours_too]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


@pytest.mark.parametrize("folder", ["whole", "cut"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_notes_of_whole_recordings_are_ours(driven: Path, ours: list[Example], folder: str, split: str):
    (found,) = records.read([str(driven / folder / f"{split}.tfrecord-00000-of-00001")])
    (expected,) = (one for one in ours if one.id == split)
    assert split in found.id
    for name in ("onset", "offset", "pitch", "velocity"):
        np.testing.assert_allclose(getattr(found.notes, name), getattr(expected.notes, name), rtol=0, atol=1e-9, err_msg=name)
    assert found.velocity_range == expected.velocity_range
    # The second pipeline scales the audio to its peak.
    scale = np.abs(expected.audio).max() if folder == "cut" else 1.0
    np.testing.assert_allclose(found.audio[: len(expected.audio)], expected.audio / scale, rtol=0, atol=1e-4)


def test_notes_of_segments_are_those_of_the_recording(driven: Path, maestro: Path):
    path = str(driven / "cut" / "train.tfrecord-00000-of-00001")
    expected = sources.read_labels(maestro / "train.midi")
    begun = []
    for record, found in zip(tf.data.TFRecordDataset(path).as_numpy_iterator(), records.read([path]), strict=True):
        feature = tf.train.Example.FromString(record).features.feature
        stored = music_pb2.NoteSequence.FromString(feature["sequence"].bytes_list.value[0])
        start = stored.subsequence_info.start_time_offset
        assert 1.9 < found.duration < 4.1
        parsed = parsing.parse(tf.constant(record))
        np.testing.assert_array_equal(parsed["audio"], found.audio)
        np.testing.assert_array_equal(np.sort(parsed["onset"]), found.notes.onset)
        fresh = found.notes.onset > 0  # The rest is what the cut left of notes before.
        begun.append(np.stack([found.notes.onset + start, found.notes.pitch, found.notes.velocity], axis=-1)[fresh])
    assert len(begun) > 2
    rows = np.concatenate(begun)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0].round(6)))]
    order = np.lexsort((expected.pitch, expected.onset.round(6)))
    wanted = np.stack([expected.onset, expected.pitch, expected.velocity], axis=-1)[order]
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-6)


def test_its_files_are_trained_on(driven: Path, tmp_path: Path):
    saved = train.train(
        model_type="MELODIC",
        hparams=hparams.resolve("MELODIC", "tiny", {"augment_probability": 0}),
        examples_path=f"{driven}/cut/train.tfrecord-*,{driven}/whole/train.tfrecord-*",
        validation_examples_path=f"{driven}/cut/validation.tfrecord-*",
        model_dir=tmp_path,
        model_id="on-magenta",
        load_id="",
        num_steps=2,
        checkpoint_interval=2,
    )
    trained, validated = (json.loads(line) for line in (saved.parent / "metrics.jsonl").read_text().splitlines())
    assert trained["step"] == 2 and np.isfinite(trained["loss"]) and "val_note_onset_f1" in validated


def test_it_reads_our_files_in_batches(driven: Path, ours: list[Example]):
    assert len(ours) > 4 and any((one.notes.onset < 0).any() for one in ours)
    _assert_batch(np.load(driven / "batch-0.npz"), ours)


def test_it_reads_what_tensorflow_datasets_prepared(driven: Path):
    (path,) = (driven / "tfds").rglob("maestro-train.tfrecord-*")
    _assert_batch(np.load(driven / "batch-1.npz"), list(records.read([str(path)])))


def _assert_batch(batch: Mapping[str, np.ndarray], examples: list[Example]) -> None:
    """What `provide_batch` gave is these examples with the rolls that we make."""
    settings = hparams.MelodicHParams(onset_mode="length_ms", onset_length=32, offset_length=32)
    assert len(batch["sequence_id"]) == len(examples)
    for index, example in enumerate(examples):
        assert bytes.fromhex(batch["sequence_id"][index]).decode() == example.id
        length = batch["length"][index]
        assert length == int(example.duration * 31.25)
        sequence = music_pb2.NoteSequence.FromString(bytes.fromhex(batch["note_sequence"][index]))
        assert notes.from_sequence(sequence) == notes.crop(example.notes, 0.0, length / 31.25)  # It has whole frames only.
        theirs = {name: batch[name][index, :length] for name in ("labels", "onsets", "offsets", "velocities")}
        rolls = notes.to_rolls(example.notes, length, settings, total_time=example.duration)
        np.testing.assert_array_equal(theirs["labels"], rolls["frame"])
        if (example.notes.onset < 0).any() or (example.notes.offset > example.duration).any():
            # Where a cut crosses a note it sees an onset or offset at the cut, not knowing the real times.
            assert theirs["onsets"][rolls["onset"] > 0].all()
            continue
        np.testing.assert_array_equal(theirs["onsets"], rolls["onset"])
        np.testing.assert_array_equal(theirs["offsets"], rolls["offset"])
        velocity = rolls["velocity"] * 127 / example.velocity_range[1]  # It scales by the recording's highest.
        np.testing.assert_allclose(theirs["velocities"], velocity, atol=1e-6)
