"""Mixes of single notes: out of tensorflow-datasets, and what is in a mix."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from polyamp import constants, hparams
from polyamp.data import nsynth, nsynth_mixes, records
from polyamp.data.example import Example, NoteExample
from polyamp.errors import DataError, HParamsError
from polyamp.notes import Notes

PITCHES = (45, 57, 69)


class LittleNotes(tfds.core.GeneratorBasedBuilder):
    """Three guitar notes with the keys of tensorflow-datasets' nsynth."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        numbers = {"pitch": tfds.features.Scalar(tf.int64), "velocity": tfds.features.Scalar(tf.int64)}
        family = tfds.features.ClassLabel(names=constants.FAMILIES[:-1])
        features = {"id": tf.string, "audio": tfds.features.Audio(shape=(None,), dtype=tf.float32)}
        features = tfds.features.FeaturesDict({**features, **numbers, "instrument": {"family": family}})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"valid": self._generate_examples()}

    def _generate_examples(self):
        for pitch in PITCHES:
            time = np.arange(64_000) / 16_000
            audio = 0.3 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) * (time < 1.5)
            example = {"id": f"n{pitch}", "audio": audio.astype(np.float32), "pitch": pitch, "velocity": 90}
            yield pitch, {**example, "instrument": {"family": "guitar"}}


@pytest.fixture
def prepared(tmp_path):
    """What `tfds build` leaves, in a folder that tensorflow-datasets looks into."""
    LittleNotes(data_dir=tmp_path).download_and_prepare()
    tfds.core.add_data_dir(tmp_path)
    return "tfds:little_notes:valid"


def test_notes_of_tensorflow_datasets_are_mixed(prepared):
    settings = hparams.resolve("TIMBRE", "tiny", {"timbre_training_max_instruments": 3, "train_frames": 120})
    numbers, seen = [], set()
    for _, crop in nsynth_mixes.crops(prepared, settings, seed=4).take(12).as_numpy_iterator():
        numbers.append(len(crop["pitch"]))
        seen |= set(crop["pitch"].tolist())
        assert set(crop["program"].tolist()) == {constants.FAMILY_PROGRAMS[constants.FAMILIES.index("guitar")]}
        np.testing.assert_allclose(crop["offset"] - crop["onset"], 1.5, atol=0.02)
        assert crop["onset"].max() <= 1.0
        spectrum = np.abs(np.fft.rfft(crop["audio"][:48_000] * np.hanning(48_000)))
        strength = {pitch: spectrum[round(3 * 440 * 2 ** ((pitch - 69) / 12))] for pitch in PITCHES}
        absent = [strength[pitch] for pitch in PITCHES if pitch not in crop["pitch"]]
        assert min(strength[pitch] for pitch in crop["pitch"]) > 10 * max(absent, default=0.0)
    assert set(numbers) == {1, 2, 3} and seen == set(PITCHES)


@pytest.mark.parametrize("name", ["tfds:there_is_no_such_set", "tfds:little_notes:no_such_split"])
def test_what_tensorflow_datasets_lacks_is_one_line(prepared, name):
    with pytest.raises(DataError, match=f"{name}: .*prepare it with `tfds build`") as caught:
        nsynth_mixes.crops(name, hparams.resolve("TIMBRE", "tiny", {}), seed=0)
    assert "\n" not in str(caught.value)


def test_mixing_of_mixes_is_refused_rather_than_left_out(tmp_path):
    with pytest.raises(HParamsError, match="augment_mix_probability"):
        nsynth_mixes.crops(str(tmp_path / "notes"), hparams.TimbreHParams(augment_mix_probability=0.5), 1)


def write_notes(path, number=6):
    """A file of notes of NSynth's schema, whose pitches are 60, 61 ...; the notes."""
    rng = np.random.default_rng(0)
    notes = [
        NoteExample(
            id=f"guitar_acoustic_000-{60 + index:03d}-100",
            audio=rng.uniform(-0.5, 0.5, 64_000).astype(np.float32),
            pitch=60 + index,
            velocity=100,
            family="guitar",
            instrument="guitar_acoustic_000",
            source="acoustic",
            qualities=(),
            number=index,
            instrument_number=0,
        )
        for index in range(number)
    ]
    records.write(path, notes, nsynth.serialize)
    return notes


def test_a_damaged_note_is_skipped_and_the_others_are_mixed(tmp_path, caplog):
    path = tmp_path / "notes.tfrecord"
    write_notes(path)
    content = bytearray(path.read_bytes())
    third = int(records.record_offsets(str(path))[2])
    content[third + 1000] ^= 1
    path.write_bytes(content)
    settings = hparams.resolve("TIMBRE", "tiny", {"timbre_training_max_instruments": 2})
    mixes = nsynth_mixes.crops(str(path), settings, seed=0).take(30)
    assert {pitch for _, crop in mixes.as_numpy_iterator() for pitch in crop["pitch"].tolist()} == {60, 61, 63, 64, 65}
    assert "record 2 is damaged; skipped" in caplog.text
    with pytest.raises(DataError, match="is damaged"):
        list(nsynth_mixes.single_notes(str(path)))


def test_files_without_notes_are_errors(tmp_path):
    settings = hparams.resolve("TIMBRE", "tiny", {})
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(DataError, match="no single note"):
        nsynth_mixes.crops(str(tmp_path / "empty.tfrecord"), settings, seed=0)
    recording = Example("a", np.zeros(16_000, np.float32), Notes.empty(), (0, 0))
    records.write(tmp_path / "recordings.tfrecord", [recording])
    with pytest.raises(DataError, match="record 0 is not an example of NSynth"):
        nsynth_mixes.crops(str(tmp_path / "recordings.tfrecord"), settings, seed=0)
    with pytest.raises(DataError, match="something else than single notes"):
        list(nsynth_mixes.single_notes(str(tmp_path / "recordings.tfrecord")))
