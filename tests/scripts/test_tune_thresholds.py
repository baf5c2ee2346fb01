"""scripts/tune_thresholds.py: finds settings that are better than those it starts from, on a real recording."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soxr

from polyamp import checkpoint, metrics, notes, transcribe
from polyamp.audio import reading
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.errors import PolyampError

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"


def deaf(directory, model_type, model_id, **changes):
    """The included weights, with settings with which most notes are missed."""
    folder = checkpoint.folder(directory, model_type, "deaf")
    folder.mkdir(parents=True)
    included = checkpoint.folder(ROOT / "polyamp" / "checkpoints", model_type, model_id)
    shutil.copy(next(included.glob("*.npz")), folder)
    settings = json.loads((included / checkpoint.HPARAMS_FILE).read_text())
    (folder / checkpoint.HPARAMS_FILE).write_text(json.dumps(settings | changes))
    return directory


@pytest.fixture
def badly_set(tmp_path):
    return deaf(tmp_path, "MELODIC", "melodic_compact", predict_onset_threshold=0.9)


@pytest.fixture
def held_out(tmp_path):
    """A recording of ten seconds: its TFRecords, audio and notes."""
    audio = reading.read(DATA / "handel_air.ogg")[: 10 * 16_000]
    reference = notes.crop(notes.read_midi(DATA / "handel_air_reference.mid"), 0.0, 10.0)
    records.write(tmp_path / "held_out.tfrecord", [Example("handel_air", audio, reference, (1, 127))])
    return tmp_path / "held_out.tfrecord", audio, reference


def test_a_threshold_that_misses_notes_is_lowered(load, badly_set, held_out, capsys):
    path, audio, reference = held_out
    script, _ = load("tune_thresholds", model_dir=badly_set, load_id="deaf", examples_path=path, rounds=1)

    script._tune()

    settings, scores = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(settings) == set(script._CANDIDATES)
    assert settings["predict_onset_threshold"] <= 0.5
    loaded = checkpoint.load_model("MELODIC", badly_set, "deaf")
    before = metrics.note_metrics(reference, script._heard(loaded, audio)(loaded.hparams))
    assert scores["note_onset_f1"] > before["note_onset_f1"] + 0.1


def test_onsets_of_an_autoregressive_model_are_made_likelier(load, held_out, tmp_path, capsys):
    path, audio, reference = held_out
    directory = deaf(tmp_path / "models", "AUTOREGRESSIVE", "autoregressive_compact", onset_boost=-6.0)
    script, _ = load(
        "tune_thresholds", model_type="AUTOREGRESSIVE", model_dir=directory, load_id="deaf", examples_path=path, rounds=1
    )

    script._tune()

    settings, scores = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(settings) == set(script._CANDIDATES_OF_STATES) and settings["onset_boost"] >= -1.0
    loaded = checkpoint.load_model("AUTOREGRESSIVE", directory, "deaf", overrides=settings)
    rolls = transcribe.predict_states(
        loaded.model, [audio], loaded.hparams
    )  # By Keras, where the script's recurrence is numpy.
    expected = metrics.note_metrics(reference, transcribe.notes_of_states(rolls, loaded.hparams))
    assert scores["note_onset_f1"] == pytest.approx(expected["note_onset_f1"], abs=0.01)


def test_each_example_is_heard_disturbed_as_well(load, badly_set, held_out, monkeypatch):
    path, audio, _ = held_out
    script, _ = load("tune_thresholds", model_dir=badly_set, load_id="deaf", examples_path=path, rounds=1, disturbed=True)
    heard = []

    def nothing(loaded, samples):
        heard.append(samples)
        return lambda settings: notes.Notes.empty()

    monkeypatch.setattr(script, "_heard", nothing)
    with pytest.raises(PolyampError, match="no note is found"):
        script._tune()
    assert len(heard) == 2 and len(heard[1]) == len(audio)
    assert np.abs(heard[0] - audio).max() < 1e-4  # As TFRecords hold it.
    assert np.abs(heard[1] - audio).max() > 0.01


def test_what_has_no_notes_to_find_is_refused(load, badly_set, tmp_path):
    (tmp_path / "empty.tfrecord").touch()
    unknown = Example("a", np.zeros(16_000, np.float32), notes.Notes.empty(), (0, 0), is_labelled=False)
    records.write(tmp_path / "unknown.tfrecord", [unknown])
    for flags, message in [
        ({"model_type": "TIMBRE"}, "finds no notes"),
        ({"examples_path": tmp_path / "empty.tfrecord"}, "holds no example"),
        ({"examples_path": tmp_path / "unknown.tfrecord"}, "recordings without notes"),
    ]:
        settings = {"model_dir": badly_set, "load_id": "deaf", "examples_path": tmp_path / "empty.tfrecord", **flags}
        script, _ = load("tune_thresholds", **settings)
        with pytest.raises(PolyampError, match=message):
            script._tune()


def test_a_recording_out_of_tune_is_heard_as_in_prediction(load):
    sharp = soxr.resample(reading.read(DATA / "handel_air.ogg"), 2 ** (35 / 1200), 1)
    loaded = checkpoint.load_model("MELODIC")
    script, _ = load("tune_thresholds", model_dir="x", load_id="x", examples_path="x")
    found = script._heard(loaded, sharp)(loaded.hparams)
    assert len(found) > 40 and found == transcribe.transcribe(loaded.model, lambda: [sharp], loaded.hparams)
