"""What trainings learn from: spectrograms in windows, against those of the whole recording."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from polyamp import hparams, training_data
from polyamp.audio.spectrogram import make_spectrogram
from polyamp.data import nsynth, records
from polyamp.data.example import Example, NoteExample
from polyamp.errors import DataError
from polyamp.notes import Notes

SETTINGS = {
    "log-frequency": ("MELODIC", "tiny", {}),
    "other hop": ("MELODIC", "tiny", {"hop_length": 300}),
    "aligned ends": ("AUTOREGRESSIVE", "autoregressive_tiny", {}),
    "mel": ("MELODIC", None, {"spec_type": "mel"}),
    "constant Q": ("MELODIC", None, {"spec_type": "cqt"}),
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS)
def front_end(request):
    model_type, preset, overrides = request.param
    return make_spectrogram(hparams.resolve(model_type, preset, overrides))


@pytest.mark.parametrize("seconds", [0.01, 4.9, 5.0, 19.97, 45.0])
def test_spectrograms_are_those_of_the_whole_recording(front_end, seconds):
    audio = np.random.default_rng(0).normal(0.0, 0.1, round(seconds * 16_000)).astype(np.float32)
    # What silence is around is the same for all; of mel bands the ends would be reflected otherwise.
    silence = 64 * front_end.hop_length
    whole = keras.ops.convert_to_numpy(front_end(np.pad(audio, silence)[np.newaxis]))[0]
    found = training_data.spectrum(front_end, audio)
    assert len(found) == 1 + len(audio) // front_end.hop_length
    np.testing.assert_allclose(found, whole[64 : 64 + len(found)], atol=2e-5)


def test_recordings_of_all_lengths_are_heard_in_few(monkeypatch):
    front_end = make_spectrogram(hparams.resolve("MELODIC", "tiny"))
    lengths, call = set(), front_end.call
    monkeypatch.setattr(front_end, "call", lambda audio: lengths.add(audio.shape[1]) or call(audio))
    for seconds in np.linspace(0.5, 50.0, 40):
        training_data.spectrum(front_end, np.zeros(round(seconds * 16_000), np.float32))
    assert len(lengths) <= 3 and max(lengths) < 25 * 16_000


@pytest.fixture
def files(tmp_path):
    """A recording, a single note, a file of neither, and those of which nothing can be told."""
    tone = np.sin(np.arange(64_000) / 10).astype(np.float32)
    records.write(tmp_path / "recording", [Example("a", tone, Notes.of([0.5], [1.0], [60], [90]), (90, 90))])
    note = NoteExample("organ-060-090", tone, 60, 90, "organ", "organ", "synthetic")
    records.write(tmp_path / "note", [note], nsynth.serialize)
    other = tf.train.Features(feature={"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b""]))})
    records.write(tmp_path / "image", [tf.train.Example(features=other)], tf.train.Example.SerializeToString)
    records.write(tmp_path / "empty", [])
    (tmp_path / "damaged").write_bytes(bytes(range(100)))
    return tmp_path


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["recording"], ["a"]),
        (["empty", "recording"], ["a"]),
        (["note"], ["organ-060-090"]),
        (["note", "empty"], ["organ-060-090"]),
        (["empty"], []),
    ],
)
def test_models_of_single_notes_are_validated_with_either(files, names, ids):
    read = training_data.validation_examples(",".join(str(files / name) for name in names), "nsynth")
    assert read is not None
    for _ in range(2):
        assert [example.id for example in read()] == ids


def test_what_is_neither_or_both_is_refused_before_training(files):
    with pytest.raises(DataError, match=r"recording holds recordings and .*note single notes"):
        training_data.validation_examples(f"{files}/recording,{files}/note", "nsynth")
    with pytest.raises(DataError, match="image: holds neither single notes"):
        training_data.validation_examples(f"{files}/note,{files}/image", "nsynth")
    damaged = training_data.validation_examples(f"{files}/damaged", "nsynth")
    with pytest.raises(DataError):
        list(damaged())
