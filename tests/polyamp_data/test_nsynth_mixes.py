"""Mixes of single notes: out of tensorflow-datasets, and what is in a mix."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from polyamp import constants, hparams
from polyamp.data import nsynth_mixes
from polyamp.errors import DataError, HParamsError

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
