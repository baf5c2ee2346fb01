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


@pytest.fixture
def badly_set(tmp_path):
    """The included Melodic weights, with a threshold so high that most notes are missed."""
    folder = checkpoint.folder(tmp_path, "MELODIC", "deaf")
    folder.mkdir(parents=True)
    included = checkpoint.folder(ROOT / "polyamp" / "checkpoints", "MELODIC", "melodic_compact")
    shutil.copy(next(included.glob("*.npz")), folder)
    settings = json.loads((included / checkpoint.HPARAMS_FILE).read_text())
    (folder / checkpoint.HPARAMS_FILE).write_text(json.dumps(settings | {"predict_onset_threshold": 0.9}))
    return tmp_path


def test_a_threshold_that_misses_notes_is_lowered(load, badly_set, tmp_path, capsys):
    audio = reading.read(DATA / "handel_air.ogg")
    reference = notes.read_midi(DATA / "handel_air_reference.mid")
    records.write(tmp_path / "held_out.tfrecord", [Example("handel_air", audio, reference, (1, 127))])
    script, _ = load(
        "tune_thresholds", model_dir=badly_set, load_id="deaf", examples_path=tmp_path / "held_out.tfrecord", rounds=1
    )

    script._tune()

    settings, scores = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(settings) == set(script._CANDIDATES)
    assert settings["predict_onset_threshold"] <= 0.5
    loaded = checkpoint.load_model("MELODIC", badly_set, "deaf")
    before = metrics.note_metrics(reference, script._heard(loaded, audio)(loaded.hparams))
    assert scores["note_onset_f1"] > before["note_onset_f1"] + 0.1


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
