"""AUTOREGRESSIVE through the runner: trained, resumed, evaluated with the published names, predicted, streamed."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import polyamp_runner
from polyamp import checkpoint, checkpoint_file, hparams, notes, streaming, train
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.notes import Notes

TYPE = "--model_type=AUTOREGRESSIVE"


def piece(seed, seconds=4.0):
    """Decaying harmonic tones, one after the other, with their notes."""
    rng = np.random.default_rng(seed)
    time_axis = np.arange(int(seconds * 16_000)) / 16_000
    onset = np.arange(0.2, seconds - 0.5, 0.4)
    pitch = rng.choice([52, 57, 60, 64], len(onset))
    audio = np.zeros_like(time_axis)
    for start, key in zip(onset, pitch, strict=True):
        since = time_axis - start
        envelope = np.where((since >= 0) & (since < 0.35), np.exp(-4 * np.maximum(since, 0)), 0)
        audio += 0.2 * envelope * sum(np.sin(2 * np.pi * k * 440 * 2 ** ((key - 69) / 12) * since) / k for k in (1, 2, 3))
    return Example(f"piece-{seed}", audio.astype(np.float32), Notes.of(onset, onset + 0.35, pitch, 90), (90, 90))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, on whose model all tests of this module go on."""
    path = tmp_path_factory.mktemp("autoregressive")
    records.write(path / "train.tfrecord", [piece(seed) for seed in range(6)])
    records.write(path / "test.tfrecord", [piece(7), piece(8)])
    soundfile.write(path / "a.wav", piece(7).audio, 16_000)
    return path


def run(folder, *arguments):
    return polyamp_runner.main(["polyamp", TYPE, f"--model_dir={folder / 'models'}", "--log=error", *arguments])


def start(folder, steps, *more):
    return run(
        folder,
        f"--examples_path={folder / 'train.tfrecord'}",
        "--model_id=a",
        "--config=autoregressive_tiny",
        f"--iterations={steps}",
        "--checkpoint_interval=25",
        "--hparams={learning_rate:0.02,train_frames:100}",
        *more,
    )


def evaluate(folder, name, *more):
    paths = [f"--examples_path={folder / 'test.tfrecord'}", f"--output_dir={folder / name}"]
    return run(folder, "--mode=eval", "--load_id=a", *paths, *more)


@pytest.fixture(scope="module")
def trained(folder):
    assert start(folder, 50) == 0
    return folder


def test_trains_from_tfrecords_and_learns(trained):
    directory = trained / "models/AUTOREGRESSIVE/a"
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.5 * losses[0] or losses[-1] < 0.03
    assert [path.name for path in checkpoint.numbered(directory)] == ["ckpt-00000025.npz", "ckpt-00000050.npz"]
    assert hparams.from_json("AUTOREGRESSIVE", directory / "hparams.json").recurrent_units == 12


def test_resumes(trained):
    assert start(trained, 60, f"--validation_examples_path={trained / 'test.tfrecord'}") == 0
    directory = trained / "models/AUTOREGRESSIVE/a"
    assert checkpoint.numbered(directory)[-1].name == "ckpt-00000060.npz"
    assert any("val_note_onset_f1" in line for line in (directory / "metrics.jsonl").read_text().splitlines())


def test_eval_writes_the_published_names_midi_and_pictures(trained):
    pictures = trained / "pictures"
    arguments = [
        f"--examples_path={trained / 'test.tfrecord'}",
        f"--save-path={pictures}",
        f"--output_dir={trained / 'scores'}",
    ]
    assert run(trained, "--mode=eval", "--load_id=a", *arguments) == 0
    step = int(checkpoint.numbered(trained / "models/AUTOREGRESSIVE/a")[-1].stem.removeprefix("ckpt-"))
    path = trained / f"scores/causal-shift-1-{step}-a.csv"
    rows = list(csv.DictReader(path.open()))
    assert [row["id"] for row in rows] == ["piece-7", "piece-8", "MEAN"]
    for kind in ("note_onset", "note_offset", "note_velocity", "note_frame", "quantised_note_onset", "quantised_frame"):
        assert 0 <= float(rows[-1][f"{kind}_f1"]) <= 1
    assert {one.name for one in pictures.iterdir()} == {f"piece-{n}.{kind}" for n in (7, 8) for kind in ("mid", "png")}


def test_a_cached_run_resumes_as_if_it_had_not_stopped(folder, tmp_path):
    """Free-running batches included."""
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {"free_running": 1.0, "free_running_after": 0.0})

    def to(step, model_id):
        return train.train(
            model_type="AUTOREGRESSIVE",
            hparams=settings,
            examples_path=str(folder / "train.tfrecord"),
            model_dir=tmp_path,
            model_id=model_id,
            load_id="",
            num_steps=6,
            checkpoint_interval=step,
            cache_dir=str(tmp_path / "cache"),
        )

    whole = to(3, "whole")
    to(3, "parts")
    checkpoint.step_path(tmp_path / "AUTOREGRESSIVE/parts", 6).unlink()
    first, second = (checkpoint_file.read(path)[0] for path in (whole, to(3, "parts")))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-5, err_msg=name)


def test_predict_gives_the_notes_of_the_stream(trained):
    assert run(trained, "--mode=predict", "--load_id=a", f"--audio_filename={trained / 'a.wav'}") == 0
    written = notes.read_midi(trained / "a-polyamp.mid")
    transcriber = streaming.StreamingTranscriber.load(str(trained / "models"), "a")
    audio = soundfile.read(trained / "a.wav", dtype="float32")[0]
    events = [event for begin in range(0, len(audio), 700) for event in transcriber.push(audio[begin : begin + 700])]
    streamed = streaming.to_notes(events + transcriber.finish())
    assert len(written) == len(streamed)
    np.testing.assert_allclose(np.sort(written.onset), np.sort(streamed.onset), atol=1e-3)


def test_boosts_may_be_changed_at_run_time_and_structure_may_not(trained, capsys):
    assert evaluate(trained, "other", "--hparams={onset_boost:-20}") == 0
    scores = json.loads(next((trained / "other").glob("*.json")).read_text())
    assert scores["mean"]["note_onset_recall"] == 0
    assert evaluate(trained, "other", "--hparams={label_shift:0}") == 1
    assert "label_shift (-1 there, 0 here)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_trains_on_the_jax_backend(folder, tmp_path):
    flags = [f"--examples_path={folder / 'train.tfrecord'}", f"--model_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}"]
    steps = ["--config=autoregressive_tiny", "--num_steps=4", "--checkpoint_interval=4", "--hparams={free_running_after:0}"]
    command = [sys.executable, str(Path(__file__).parents[1] / "polyamp_runner.py"), TYPE, *flags, *steps]
    result = subprocess.run(
        command, env=os.environ | {"KERAS_BACKEND": "jax", "JAX_LOG_COMPILES": "1"}, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Finished XLA compilation of jit(train_step)") == 1  # A step is one program, compiled once.
    # The weights are the same thing on every backend.
    assert checkpoint.load_model("AUTOREGRESSIVE", tmp_path).step == 4
