"""scripts/benchmark_pipeline.py: counts what the pipeline gives, in processes of its own, and what preparation takes."""

import json
import os
import subprocess
import sys
import unittest.mock
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyamp import hparams, models, notes
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.errors import PolyampError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes

ROOT = Path(__file__).parents[2]
SMALL = '{"batch_size":2,"train_frames":25,"augment_probability":0.5}'


@pytest.fixture
def examples(tmp_path):
    """A TFRecord file with one example of 2.5 s."""
    audio = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    records.write(tmp_path / "x.tfrecord", [Example("x", audio, Notes.of([0.5], [1.0], [60], 80), (80, 80))])
    return tmp_path / "x.tfrecord"


def run(*arguments):
    """The script as a program, since its processes import it."""
    command = [sys.executable, str(ROOT / "scripts/benchmark_pipeline.py"), "--config=tiny", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})


def test_what_two_processes_give_and_a_step_takes(examples, tmp_path):
    output = tmp_path / "figures.json"
    settings = (f"--hparams={SMALL}", "--processes=2", "--seconds=0.5", "--model_steps=1", f"--output={output}")
    answer = run(f"--examples_path={examples}", *settings)
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(output.read_text())["pipeline"]
    assert [(row["name"], row["processes"]) for row in rows] == [
        ("pipeline without augmentation", 2),
        ("pipeline with augmentation", 2),
        ("training steps", 1),
    ]
    for row in rows:  # A crop has 25 frames of 32 ms.
        assert row["examples"] > 0 and row["audio_seconds"] == pytest.approx(row["examples"] * 0.8)
    limit = "model" if rows[2]["examples"] < rows[1]["examples"] else "data"
    assert f"The {limit} is the limit" in answer.stdout


def test_training_steps_compute_in_the_precision_that_is_asked_for(load, examples, monkeypatch):
    script, _ = load("benchmark_pipeline", model_type="MELODIC")
    built = []
    build = models.build
    monkeypatch.setattr(models, "build", lambda *arguments: built.append(build(*arguments)) or built[-1])
    settings = hparams.resolve("MELODIC", "tiny", json.loads(SMALL) | {"precision": "mixed_bfloat16"})
    assert script.model_rate(str(examples), settings, 1).examples > 0
    assert "bfloat16" in {layer.compute_dtype for layer in built[0].get_layer("network").layers}


def test_published_network_in_pytorch_where_it_is_installed(load):
    script, _ = load("benchmark_pipeline")
    small = MelodicHParams(train_frames=25, batch_size=2, num_filters=(4, 4, 8, 8), fc_size=16)
    with unittest.mock.patch.dict(sys.modules, torch=None):
        assert script.pytorch_rate(small, 1) is None
    pytest.importorskip("torch")
    rate = script.pytorch_rate(small, 1)
    assert rate.examples > 0 and rate.audio_seconds == pytest.approx(rate.examples * 0.8)


def test_preparation_counts_the_segments_that_tfrecords_get(load, tmp_path):
    folder, output = tmp_path / "set", tmp_path / "figures.json"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 16_000 * 21), 16_000)
        notes.write_midi(Notes.of([1.0, 15.0], [2.0, 16.0], [60, 64], 80), folder / f"{number}.mid")
    script, _ = load("benchmark_pipeline", dataset="folder", input_dir=folder, recordings=2, output=output)
    script._benchmark()
    row = json.loads(output.read_text())["preparation"][0]
    assert (row["name"], row["segments"]) == ("polyamp", 4)  # Of 21 s each, cut at 20 s at the latest.
    assert row["audio_seconds"] == pytest.approx(42.0 / row["cpu_seconds"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to measure"),
        ({"dataset": "maps"}, "go together"),
        ({"examples_path": "nowhere*"}, "nowhere"),
        ({"examples_path": "x.tfrecord", "processes": "1,0"}, "--processes=1,0"),
    ],
)
def test_what_cannot_be_measured_is_one_line(load, examples, monkeypatch, settings, message):
    monkeypatch.chdir(examples.parent)
    script, _ = load("benchmark_pipeline", **settings)
    with pytest.raises(PolyampError, match=message) as error:
        script._benchmark()
    assert "\n" not in str(error.value)


def test_an_error_in_a_process_is_one_line(tmp_path):
    (tmp_path / "bad.tfrecord").write_text("not a TFRecord")
    answer = run(f"--examples_path={tmp_path / 'bad.tfrecord'}", "--processes=2", "--seconds=0.5")
    assert answer.returncode == 1 and "bad.tfrecord" in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr
