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


@pytest.mark.slow
def test_what_two_processes_give(examples, tmp_path):
    output = tmp_path / "figures.json"
    settings = ('--hparams={"batch_size":2,"train_frames":25}', "--processes=2", "--seconds=0.5", "--model_steps=0")
    answer = run(f"--examples_path={examples}", *settings, f"--output={output}")
    assert answer.returncode == 0, answer.stderr
    (row,) = json.loads(output.read_text())["pipeline"]
    assert (row["name"], row["processes"]) == ("pipeline without augmentation", 2)
    # A crop has 25 frames of 32 ms.
    assert row["examples"] > 0 and row["audio_seconds"] == pytest.approx(row["examples"] * 0.8)


@pytest.mark.parametrize(("trained", "limit"), [(3.0, "model is the limit: the pipeline gives 2"), (12.0, "data is the limit")])
def test_the_pipeline_is_compared_with_training_steps(load, examples, tmp_path, monkeypatch, capsys, trained, limit):
    """Of what each gives: the least of augmented examples from the most processes."""
    output = tmp_path / "figures.json"
    settings = {"config": "tiny", "hparams": SMALL, "processes": "1,2", "model_steps": 7, "output": output}
    script, _ = load("benchmark_pipeline", examples_path=examples, **settings)
    rates = {(False, 1): 10.0, (False, 2): 20.0, (True, 1): 3.5, (True, 2): 6.0}

    def pipeline_rate(path, given, processes, seconds):
        assert path == str(examples) and seconds == 10.0
        return script.Rate.of(rates.pop((given.augment_probability > 0, processes)), given)

    monkeypatch.setattr(script, "pipeline_rate", pipeline_rate)
    monkeypatch.setattr(script, "model_rate", lambda path, given, steps: script.Rate.of(trained * steps / 7, given))
    script._benchmark()
    assert f"The {limit}" in capsys.readouterr().out and not rates
    rows = json.loads(output.read_text())["pipeline"]
    assert [(row["name"], row["processes"], row["examples"]) for row in rows] == [
        ("pipeline without augmentation", 1, 10.0),
        ("pipeline without augmentation", 2, 20.0),
        ("pipeline with augmentation", 1, 3.5),
        ("pipeline with augmentation", 2, 6.0),
        ("training steps", 1, trained),
    ]


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


@pytest.mark.slow
def test_an_error_in_a_process_is_one_line(tmp_path):
    (tmp_path / "bad.tfrecord").write_text("not a TFRecord")
    answer = run(f"--examples_path={tmp_path / 'bad.tfrecord'}", "--processes=2", "--seconds=0.5")
    assert answer.returncode == 1 and "bad.tfrecord" in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr
