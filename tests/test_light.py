"""Predictions without TensorFlow: the same answers as Keras', and Keras where they cannot be had."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from polyamp import checkpoint, checkpoint_file, hparams, light, models, notes, state_stream, train, transcribe
from polyamp.audio import reading
from polyamp.errors import CheckpointError
from polyamp.notes import Notes

ROOT = Path(__file__).parents[1]
RECORDING = Path(__file__).parent / "data" / "handel_air.ogg"


@pytest.fixture(scope="module")
def audio():
    return reading.read(RECORDING)


def equal(found: Notes, wanted: Notes) -> bool:
    same = all(np.array_equal(getattr(found, name), getattr(wanted, name)) for name in ("pitch", "program"))
    close = all(np.allclose(getattr(found, name), getattr(wanted, name), atol=1e-3) for name in ("onset", "offset"))
    return same and close and np.abs(found.velocity - wanted.velocity).max() <= 1


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL"])
def test_rolls_and_notes_are_those_of_keras(audio, model_type):
    fast, slow = light.load(model_type), checkpoint.load_model(model_type)
    assert fast is not None and (fast.hparams, fast.path, fast.step) == (slow.hparams, slow.path, slow.step)
    assert isinstance(fast.model, light.LightModel)
    of_fast, of_slow = (transcribe.rolls_of(of.model, lambda: [audio], of.hparams) for of in (fast, slow))
    assert of_fast.keys() == of_slow.keys()
    for name, roll in of_slow.items():
        np.testing.assert_allclose(of_fast[name], roll, atol=1e-3)
    found, wanted = (transcribe.transcribe(of.model, lambda: [audio], of.hparams) for of in (fast, slow))
    assert len(wanted) > 40 and equal(found, wanted)


def test_families_are_those_of_keras(audio):
    fast, slow = light.load("TIMBRE"), checkpoint.load_model("TIMBRE")
    assert fast is not None
    # No note begins or ends in the very middle of a frame, where rounding decides to which side it belongs.
    of = Notes.of([0.51, 1.02, 1.03, 3.04], [0.91, 1.23, 5.01, 3.52], [60, 64, 21, 108], [80, 80, 80, 80])
    given = [transcribe.predict_families(loaded.model, lambda: [audio], of, loaded.hparams) for loaded in (fast, slow)]
    np.testing.assert_allclose(given[0], given[1], atol=1e-3)
    np.testing.assert_allclose(given[0].sum(axis=1), 1.0, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 511, 16_000])
def test_clips_of_any_length(samples):
    loaded = light.load("MELODIC")
    assert loaded is not None
    rolls = transcribe.rolls_of(loaded.model, lambda: [np.zeros(samples, np.float32)], loaded.hparams)
    assert {roll.shape for roll in rolls.values()} == {(1 + samples // 512, 88)}


@pytest.mark.parametrize("load_id", ["autoregressive_compact", "autoregressive_low_latency"])
def test_states_and_notes_are_those_of_keras(audio, load_id):
    fast, slow = (load("AUTOREGRESSIVE", load_id=load_id) for load in (light.load, checkpoint.load_model))
    assert isinstance(fast.model, state_stream.StateNetwork) and (fast.path, fast.step) == (slow.path, slow.step)
    of_fast, of_slow = (transcribe.predict_states(of.model, [audio[:7], audio[7:]], of.hparams) for of in (fast, slow))
    assert of_fast["state"].shape == of_slow["state"].shape
    assert (of_fast["state"] != of_slow["state"]).mean() < 1e-4
    found, wanted = (transcribe.transcribe(of.model, lambda: [audio], of.hparams) for of in (fast, slow))
    assert len(wanted) > 40 and equal(found, wanted)


def test_the_published_autoregressive_network_is_left_to_keras(tmp_path):
    settings = hparams.resolve("AUTOREGRESSIVE", None, {"model_complexity": 2, "fc_size": 8, "recurrent_units": 8})
    folder = checkpoint.folder(tmp_path, "AUTOREGRESSIVE", "a")
    path = checkpoint.save_as_new(folder, models.build("AUTOREGRESSIVE", settings), settings, step=1)
    assert light.load("AUTOREGRESSIVE", tmp_path) is None
    assert state_stream.load(path, settings).predict([np.zeros(5000, np.float32)])["state"].shape == (10, 88)
    with pytest.raises(CheckpointError, match="does not fit"):
        state_stream.load(path, hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny"))


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL", "TIMBRE", "AUTOREGRESSIVE"])
def test_prediction_imports_nothing_that_takes_long(tmp_path, model_type):
    code = f"""
import sys, polyamp_runner
command = ["--mode=predict", "--model_type={model_type}", "--audio_filename={RECORDING}", "--output_dir={tmp_path}"]
assert polyamp_runner.main(["polyamp", *command]) == 0
print({{"keras", "tensorflow", "librosa", "note_seq", "scipy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert not done.stderr
    assert model_type == "TIMBRE" or len(notes.read_midi(tmp_path / "handel_air-polyamp.mid")) > 40


@pytest.mark.parametrize(
    "arguments",
    [
        {"overrides": {"predict_runtime": "keras"}},
        {"model_type": "FULL", "overrides": {"predict_window_seconds": 60.0}},  # Families of notes are told in windows.
        {"model_type": "AUTOREGRESSIVE", "overrides": {"predict_runtime": "keras"}},
        {"model_type": "FULL", "load_full": False},
    ],
)
def test_what_it_cannot_do_is_left_to_keras(arguments):
    assert light.load(**{"model_type": "MELODIC", **arguments}) is None


@pytest.mark.parametrize("missing", ["ai_edge_litert", "lzma"])
def test_keras_does_it_where_a_module_is_missing(monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    assert light.load("MELODIC") is None


@pytest.fixture
def copied(tmp_path):
    """The package's Melodic weights in a folder of their own: the checkpoint and the network beside it."""
    path = light.load("MELODIC").path
    shutil.copytree(path.parent, tmp_path / "MELODIC" / "x")
    return tmp_path / "MELODIC" / "x" / path.name


def test_a_network_of_other_weights_is_not_used(copied):
    model_dir = copied.parents[2]
    assert light.load("MELODIC", model_dir) is not None
    arrays, meta = checkpoint_file.read(copied)
    np.savez(copied, **{**arrays, "meta": np.array('{"step": 1}')})
    assert light.load("MELODIC", model_dir) is None
    assert checkpoint.load_model("MELODIC", model_dir).step == 1


def test_windows_may_be_of_any_length_where_pieces_are_heard(audio):
    short, long = (light.load("MELODIC", overrides={"predict_window_seconds": seconds}) for seconds in (1.0, 60.0))
    rolls = [transcribe.rolls_of(of.model, lambda: [audio], of.hparams) for of in (short, long)]
    for name, roll in rolls[0].items():
        np.testing.assert_array_equal(rolls[1][name], roll)


def test_a_network_of_an_older_version_is_left_to_keras(copied, monkeypatch, caplog):
    """It heard rolls in windows: the spectrum was all that it took."""
    shapes = {"spectrum": (1, 784, 294)}
    monkeypatch.setattr(light.LightModel, "_signature", lambda self, name: SimpleNamespace(shapes=shapes, num_frames=784))
    assert light.load("MELODIC", copied.parents[2]) is None
    assert "export_weights.py" in caplog.text


def test_hops_of_families_may_differ(tmp_path, audio):
    from polyamp import light_export

    small = {"timbre_channels": 4, "timbre_dilations": [1], "timbre_mixing_channels": 2, "timbre_note_units": [8]}
    settings = hparams.resolve("FULL", "tiny", {"timbre_architecture": "pitch_shared", "timbre_hop_length": 256, **small})
    assert light.is_possible("FULL", settings) and settings.hop_length == 512
    model = models.build("FULL", settings)
    path = checkpoint.save_as_new(checkpoint.folder(tmp_path, "FULL", "a"), model, settings, step=1)
    light_export.write(model, settings, path)
    loaded = light.load("FULL", tmp_path)
    of = Notes.of([0.51, 1.02], [0.91, 1.23], [60, 64], [80, 80])
    given = [transcribe.predict_families(one, lambda: [audio], of, settings) for one in (loaded.model, model)]
    np.testing.assert_allclose(given[0], given[1], atol=1e-4)


def test_a_damaged_network_is_named(copied):
    network = light.path_beside(copied)
    network.write_bytes(network.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=network.name):
        light.load("MELODIC", copied.parents[2])


def test_an_export_beside_other_steps_is_refused(load, tmp_path, capsys):
    settings = hparams.resolve("MELODIC", "tiny")
    model = models.build("MELODIC", settings)
    checkpoint.save_as_new(checkpoint.folder(tmp_path / "runs", "MELODIC", "a"), model, settings, step=3)
    old = checkpoint.save_as_new(checkpoint.folder(tmp_path / "out", "MELODIC", "a"), model, settings, step=5)
    folders = {"model_dir": tmp_path / "runs", "output_dir": tmp_path / "out"}
    script, _ = load("export_weights", **folders, load_id="a", model_id="a")
    assert script.main(["export_weights"]) == 1
    assert capsys.readouterr().err == f"error: {old}: is there already; remove it, or give another --model_id.\n"
    assert checkpoint.numbered(old.parent) == [old]


def test_an_export_without_tensorflow_is_refused_before_anything_is_written(tmp_path):
    pytest.importorskip("jax")
    script = [sys.executable, str(ROOT / "scripts/export_weights.py"), f"--model_dir={checkpoint.EMBEDDED}"]
    script += ["--load_id=melodic_compact", f"--output_dir={tmp_path / 'out'}", "--model_id=a"]
    environment = os.environ | {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(script, capture_output=True, text=True, timeout=120, env=environment)
    assert (result.returncode, result.stderr) == (
        1,
        "error: exporting needs TensorFlow, not KERAS_BACKEND=jax; leave that out.\n",
    )
    assert not (tmp_path / "out").exists()


def test_an_export_over_its_own_training_is_refused(load, tmp_path, capsys):
    settings = hparams.resolve("MELODIC", "tiny")
    model = models.build("MELODIC", settings)
    own = checkpoint.save_as_new(checkpoint.folder(tmp_path, "MELODIC", "a"), model, settings, step=3)
    optimizer = train.make_optimizer(settings, 4)
    optimizer.build(model.trainable_variables)
    checkpoint_file.save(own, model, {"step": 3, "seed": 1, "best": -1.0}, optimizer)
    before = own.read_bytes()
    script, _ = load("export_weights", model_dir=tmp_path, output_dir=tmp_path, load_id="a", model_id="a")
    assert script.main(["export_weights"]) == 1 and f"error: {own}: is there already" in capsys.readouterr().err
    assert own.read_bytes() == before and checkpoint.numbered(own.parent) == [own]


def test_an_exported_model_predicts_as_it_was_trained(tmp_path, audio):
    """Of any settings with this front end, not only of the weights that ship; and older networks of that name are removed."""
    import keras

    from polyamp import light_export, models

    keras.utils.set_random_seed(1)
    settings = hparams.resolve("MELODIC", "melodic_compact", {"channels": 8, "predict_window_seconds": 4.0})
    assert light.is_possible("MELODIC", settings) and not light.is_possible("MELODIC", hparams.resolve("MELODIC"))
    model = models.build("MELODIC", settings)
    path = checkpoint.save_as_new(checkpoint.folder(tmp_path, "MELODIC", "a"), model, settings, step=3)
    stale = path.parent / f"ckpt-00000003-00000000{light.SUFFIX}"
    stale.touch()
    written = light_export.write(model, settings, path)
    assert sorted(path.parent.glob(f"*{light.SUFFIX}")) == [written]
    loaded = light.load("MELODIC", tmp_path)
    assert loaded is not None
    of_fast = transcribe.rolls_of(loaded.model, lambda: [audio], settings)
    for name, roll in transcribe.rolls_of(model, lambda: [audio], settings).items():
        np.testing.assert_allclose(of_fast[name], roll, atol=1e-4)


@pytest.mark.parametrize("model_type", ["MELODIC", "TIMBRE"])
def test_a_part_of_the_full_model_in_the_package(audio, model_type):
    loaded, in_keras = (load(model_type, load_full=True) for load in (light.load, checkpoint.load_model))
    assert loaded is not None and loaded.path.parent.name == "full_compact"
    if model_type == "MELODIC":
        of_fast, of_keras = (transcribe.rolls_of(of.model, lambda: [audio], of.hparams) for of in (loaded, in_keras))
        for name, roll in of_keras.items():
            np.testing.assert_allclose(of_fast[name], roll, atol=1e-3)
    else:
        of = Notes.of([0.51, 1.02], [0.91, 1.23], [60, 64], [80, 80])
        given = [
            transcribe.predict_families(of_type.model, lambda: [audio], of, of_type.hparams) for of_type in (loaded, in_keras)
        ]
        np.testing.assert_allclose(*given, atol=1e-3)


def test_parts_can_be_asked_for_in_any_order(audio):
    loaded = light.load("FULL")
    assert loaded is not None
    of = Notes.of([0.51, 1.02], [0.91, 1.23], [60, 64], [80, 80])

    def families():
        return transcribe.predict_families(loaded.model, lambda: [audio], of, loaded.hparams)

    def rolls():
        return transcribe.rolls_of(loaded.model, lambda: [audio], loaded.hparams)

    first = families(), rolls()
    np.testing.assert_array_equal(families(), first[0])
    again = rolls()
    assert all(np.array_equal(again[name], roll) for name, roll in first[1].items())


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL"])
def test_how_loud_a_recording_is_does_not_matter(audio, model_type):
    loaded = light.load(model_type, overrides={"predict_level_db": -30.0})
    assert loaded is not None
    loud = transcribe.transcribe(loaded.model, lambda: [audio], loaded.hparams)
    soft = transcribe.transcribe(loaded.model, lambda: [audio * np.float32(0.2)], loaded.hparams)
    assert equal(soft, loud)


def test_threads_are_as_many_as_processors_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert light.num_threads() == processors
    for said, threads in (("3", 3), ("", processors), ("0", processors), ("many", processors)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert light.num_threads() == threads
