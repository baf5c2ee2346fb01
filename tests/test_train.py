"""Training: it learns, resumes as if it had not stopped, keeps the best, stops in good order, and runs on another backend."""

import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from polyamp import assess, callbacks, checkpoint, checkpoint_file, hparams, models, notes, train
from polyamp.data import cache, nsynth, records
from polyamp.data.example import Example, NoteExample
from polyamp.errors import CheckpointError, DataError, HParamsError, PolyampError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes

ROOT = Path(__file__).parents[1]


def melody(seed, seconds=4.0):
    """An example of decaying harmonic tones with their notes."""
    rng = np.random.default_rng(seed)
    time_axis = np.arange(int(seconds * 16_000)) / 16_000
    onset = np.arange(0.2, seconds - 0.5, 0.4)
    pitch = rng.integers(50, 80, len(onset))
    audio = np.zeros_like(time_axis)
    for start, key in zip(onset, pitch, strict=True):
        since = time_axis - start
        envelope = np.where((since >= 0) & (since < 0.35), np.exp(-4 * np.maximum(since, 0)), 0)
        frequency = 440 * 2 ** ((key - 69) / 12)
        audio += 0.2 * envelope * sum(np.sin(2 * np.pi * k * frequency * since) / k for k in (1, 2, 3))
    notes = Notes.of(onset, onset + 0.35, pitch, np.full(len(onset), 90))
    return Example(f"melody-{seed}", audio.astype(np.float32), notes, (90, 90))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.tfrecord-00000-of-00001"
    records.write(path, [melody(seed) for seed in range(4)])
    return str(path)


def train_tiny(data, folder, **changes):
    """Calls `train.train` with the tiny preset; keyword arguments change its own, `hparams` is a dict."""
    settings = hparams.resolve("MELODIC", "tiny", {"augment_probability": 0, **changes.pop("hparams", {})})
    arguments = {
        "model_type": "MELODIC",
        "examples_path": data,
        "model_dir": folder / "models",
        "model_id": "a",
        "cache_dir": str(folder / "cache"),
        "num_steps": 2,
        "checkpoint_interval": 2,
    }
    return train.train(hparams=settings, **{**arguments, **changes})


@pytest.fixture
def run(data, tmp_path):
    """`train_tiny` in a folder of the test's own."""
    return functools.partial(train_tiny, data, tmp_path)


@pytest.fixture(scope="module")
def two_steps(data, tmp_path_factory):
    """A folder with what `run()` leaves."""
    folder = tmp_path_factory.mktemp("two_steps")
    train_tiny(data, folder)
    return folder


@pytest.fixture
def begun(two_steps, tmp_path):
    """The checkpoint of a training of two steps, as `run()` returns it."""
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    return checkpoint.step_path(tmp_path / "models" / "MELODIC" / "a", 2)


def logged(path):
    return [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]


def weights_of(path):
    return {name: array for name, array in checkpoint_file.read(path)[0].items() if name.startswith("weights/")}


def assert_same_weights(first, second, same=True, atol=0.0):
    first, second = weights_of(first), weights_of(second)
    assert first.keys() == second.keys()
    differs = [name for name in first if not np.allclose(first[name], second[name], rtol=0, atol=atol)]
    assert bool(differs) is not same, differs


def test_learns_to_find_the_onsets_of_a_simple_melody(run):
    path = run(num_steps=150, checkpoint_interval=150)
    losses = [line["onset_loss"] for line in logged(path) if "onset_loss" in line]
    assert losses[-1] < 0.5 * losses[0], losses
    rolls = checkpoint.load_model("MELODIC", path.parents[2]).model.predict_on_batch(melody(0).audio[None])
    onset, truth = rolls["onset"][0], melody(0).notes
    at_truth = onset[np.round(truth.onset * 31.25).astype(int), truth.pitch - 21].mean()
    assert at_truth > 10 * onset.mean()


def test_writes_numbered_checkpoints_settings_and_logs_and_keeps_few(run, monkeypatch):
    step, traced = keras.Model.train_step, []
    monkeypatch.setattr(keras.Model, "train_step", lambda self, batch: traced.append(self) or step(self, batch))
    path = run(num_steps=7, keep_checkpoint_max=2)
    assert len(traced) == 1  # Which takes longer than the seven steps.
    assert [p.name for p in checkpoint.numbered(path.parent)] == ["ckpt-00000006.npz", "ckpt-00000007.npz"]
    assert checkpoint.load_model("MELODIC", path.parents[2]).step == 7
    assert json.loads((path.parent / "hparams.json").read_text())["channels"] == 8
    assert list((path.parent / "tensorboard").rglob("*tfevents*"))


def test_a_line_of_the_log_is_the_mean_since_the_one_before(run, monkeypatch):
    def losses(model_id, every):
        monkeypatch.setattr(callbacks, "_LOG_EVERY", every)
        return [line["loss"] for line in logged(run(model_id=model_id, num_steps=4, checkpoint_interval=4, load_id=""))]

    single = losses("a", 1)
    assert len(single) == 4 and single[-1] < 0.99 * single[0]
    assert losses("b", 2) == pytest.approx([np.mean(single[:2]), np.mean(single[2:])], rel=1e-5)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run):
    whole = run(model_id="whole", num_steps=6, checkpoint_interval=3, load_id="")
    run(model_id="parts", num_steps=6, checkpoint_interval=3, load_id="")
    checkpoint.step_path(whole.parents[1] / "parts", 6).unlink()
    resumed = run(model_id="parts", num_steps=6, checkpoint_interval=3)
    assert_same_weights(whole, resumed, atol=1e-6)
    _, meta = checkpoint_file.read(resumed)
    assert meta["step"] == 6


def test_with_dropout_too(run):
    """Random numbers of layers follow from seed and step; resumed, the seed need not be given again."""
    published = {"architecture": "onsets_frames", "spec_type": "mel", "spec_n_bins": 32, "fc_dropout": 0.5, "fc_size": 8}
    published |= {"num_filters": [2], "temporal_sizes": [3], "freq_sizes": [3], "pool_sizes": [2], "conv_dropout": 0.25}
    published |= dict.fromkeys(("onset_lstm_units", "offset_lstm_units", "combined_lstm_units"), 0)  # Slow to compile.
    changes = {"num_steps": 4, "checkpoint_interval": 2, "load_id": "", "seed": 7, "hparams": published}
    whole = run(model_id="whole", **changes)
    run(model_id="parts", **changes)
    checkpoint.step_path(whole.parents[1] / "parts", 4).unlink()
    resumed = run(model_id="parts", **{**changes, "seed": 0})
    assert_same_weights(whole, resumed, atol=1e-6)
    other = run(model_id="other", **{**changes, "hparams": {**published, "fc_dropout": 0.0, "conv_dropout": 0.0}})
    assert_same_weights(whole, other, same=False, atol=1e-5)


def test_nothing_to_do_when_the_step_is_reached_already(run, begun):
    before = begun.stat().st_mtime_ns
    assert run() == begun
    assert begun.stat().st_mtime_ns == before


def test_load_id_starts_from_other_weights_and_empty_from_random(run, begun):
    from_a = run(model_id="b", load_id="a", hparams={"learning_rate": 0.0})
    fresh = run(model_id="c", load_id="", seed=5, hparams={"learning_rate": 0.0})
    trained = {name for name in weights_of(begun) if "moving" not in name}
    for name in trained:
        np.testing.assert_array_equal(weights_of(begun)[name], weights_of(from_a)[name])
    assert_same_weights(begun, fresh, same=False)


@pytest.mark.parametrize(
    "precision, flags, warns",
    [
        ("mixed_bfloat16", "flags : fpu avx2 avx512f", True),
        ("mixed_bfloat16", "flags : fpu avx2 avx512_bf16", False),
        ("mixed_bfloat16", "Features : fp asimd bf16", False),
        ("float32", "flags : fpu avx2", False),
    ],
)
def test_bfloat16_on_a_processor_without_it_is_warned_of(tmp_path, monkeypatch, precision, flags, warns):
    said = []
    monkeypatch.setattr(train.logging, "warning", lambda message, *args: said.append(message % args))

    def list_devices(kind):  # As on JAX.
        raise RuntimeError(f"Unknown backend: '{kind}' requested")

    monkeypatch.setattr(train.keras.distribution, "list_devices", list_devices)
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    train._warn_of_emulation(precision, tmp_path / "cpuinfo")
    assert bool(said) is warns
    train._warn_of_emulation(precision, tmp_path / "of another system")
    assert len(said) == warns


def test_only_the_named_layers_learn(run, begun):
    first = weights_of(begun)
    second = weights_of(run(model_id="b", load_id="a", hparams={"train_layers": "block2, heads"}))
    changed = {name for name in first if (first[name] != second[name]).any()}
    assert {name.split("/")[-2] for name in changed} == {"block2_conv", "block2_norm", "heads"}
    assert any("moving" in name for name in changed)


def test_layers_that_are_not_there_cannot_learn(run):
    with pytest.raises(HParamsError, match="begins with 'head5'; there are .*heads"):
        run(hparams={"train_layers": "heads,head5"})


def test_other_dimensions_are_refused_before_anything_is_overwritten(run, begun):
    with pytest.raises(HParamsError, match="channels"):
        run(hparams={"channels": 4}, num_steps=4)
    assert json.loads((begun.parent / "hparams.json").read_text())["channels"] == 8
    with pytest.raises(HParamsError, match="channels"):
        run(hparams={"channels": 4}, model_id="b", load_id="a")
    with pytest.raises(CheckpointError, match="nowhere"):
        run(model_id="c", load_id="nowhere")


def test_a_truncated_own_checkpoint_stops_the_run(run, begun):
    begun.write_bytes(begun.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        run(num_steps=4)


def test_two_trainings_of_one_id_at_once_are_told(run, begun, monkeypatch):
    original = cache.batch

    def meanwhile(spectra, settings, seed, step):
        if step == 3:
            shutil.copy(begun, checkpoint.step_path(begun.parent, 4))
        return original(spectra, settings, seed, step)

    monkeypatch.setattr(cache, "batch", meanwhile)
    with pytest.raises(PolyampError, match="ckpt-00000004.npz: has been written by another training of this --model_id"):
        run(num_steps=4)
    assert checkpoint.step_path(begun.parent, 4).read_bytes() == begun.read_bytes()


def test_no_examples_is_an_error_before_a_folder_is_made(run, tmp_path):
    with pytest.raises(DataError):
        run(examples_path=str(tmp_path / "none*"))
    assert not (tmp_path / "models").exists()


def test_recordings_without_any_note_are_warned_of(run, tmp_path, caplog):
    silent = Example("silent", np.zeros(64_000, np.float32), Notes.empty(), (90, 90))
    records.write(tmp_path / "silent.tfrecord", [silent])
    run(examples_path=str(tmp_path / "silent.tfrecord"))
    assert "silent.tfrecord: none of its recordings has a note" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_end_save_the_step_in_progress_first(run, tmp_path, monkeypatch, number):
    original = cache.batch

    def interrupting(spectra, settings, seed, step):
        if step == 30:
            signal.raise_signal(number)
        return original(spectra, settings, seed, step)

    monkeypatch.setattr(cache, "batch", interrupting)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # Tests in the background may have to ignore it.
    try:
        with pytest.raises(KeyboardInterrupt, match=r"stopped at step [23]\d of 5000; the same command goes on"):
            run(num_steps=5000, checkpoint_interval=5000)
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    (path,) = checkpoint.numbered(tmp_path / "models" / "MELODIC" / "a")
    _, meta = checkpoint_file.read(path)
    assert 0 < meta["step"] < 5000
    assert path == checkpoint.step_path(path.parent, meta["step"])


def test_a_signal_in_the_last_step_is_no_end_as_any_other(run, data, monkeypatch):
    original = callbacks.StepCounter.on_train_batch_end

    def interrupted(self, batch, logs=None):
        original(self, batch, logs)
        if self._progress.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="stopped at step 2 of 2"):
        patch.setattr(callbacks.StepCounter, "on_train_batch_end", interrupted)
        run(validation_examples_path=data)
    path = run(validation_examples_path=data)
    assert (path.parent / checkpoint.BEST_FILE).is_file()


def test_a_validation_that_was_interrupted_at_the_end_is_made_up_for(run, data, monkeypatch):
    def interrupted(self, examples):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks.Saver, "_validate", interrupted)
        run(num_steps=2, validation_examples_path=data)
    path = run(num_steps=2, validation_examples_path=data)
    assert [line["step"] for line in logged(path) if "val_note_onset_f1" in line] == [2]
    assert checkpoint_file.read(path)[1]["validated"] == 2
    assert_same_weights(path.parent / checkpoint.BEST_FILE, path)
    run(num_steps=2, validation_examples_path=data)
    assert len([line for line in logged(path) if "val_note_onset_f1" in line]) == 1  # Not once more.


def test_a_log_that_cannot_be_written_costs_no_training(run, tmp_path, caplog):
    (tmp_path / "models" / "MELODIC" / "a" / "metrics.jsonl").mkdir(parents=True)
    with caplog.at_level("WARNING"):
        assert checkpoint_file.read(run())[1]["step"] == 2
    assert "Step 2: its figures cannot be written" in caplog.text
    (tmp_path / "models" / "MELODIC" / "b").mkdir()
    (tmp_path / "models" / "MELODIC" / "b" / "tensorboard").touch()
    caplog.clear()
    with caplog.at_level("WARNING"):
        assert checkpoint_file.read(run(model_id="b"))[1]["step"] == 2
    assert "Step 2: its figures cannot be written" in caplog.text


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(run, monkeypatch):
    original = cache.batch

    def spoiled(spectra, settings, seed, step):
        spectrum, labels, weights = original(spectra, settings, seed, step)
        return spectrum * (np.nan if step >= 3 else 1), labels, weights

    monkeypatch.setattr(cache, "batch", spoiled)
    with pytest.raises(PolyampError, match="not finite"):
        run(num_steps=6)
    assert [path.name for path in checkpoint.numbered(train_folder(run))] == ["ckpt-00000002.npz"]


def train_folder(run):
    """The folder of model id "a", whose first two steps are saved."""
    return run(num_steps=2).parent


def test_validation_keeps_the_best(run, data):
    path = run(num_steps=4, validation_examples_path=data)
    scores = [line for line in logged(path) if "val_note_onset_f1" in line]
    assert [line["step"] for line in scores] == [2, 4]
    best = max(scores, key=lambda line: line["val_note_onset_f1"])
    _, meta = checkpoint_file.read(path.parent / checkpoint.BEST_FILE)
    assert meta["best"] == pytest.approx(best["val_note_onset_f1"])


def test_validation_scores_are_those_of_evaluation(run, tmp_path):
    """Also of a segment through which notes sound that begin before it and end after it."""
    whole = melody(7)
    held = Notes.of([0.0, *whole.notes.onset], [9.0, *whole.notes.offset], [40, *whole.notes.pitch], 90)
    segment = notes.crop(held, 1.0, 3.0, clip=False)
    path = tmp_path / "segment.tfrecord"
    records.write(path, [Example("segment", whole.audio[16_000:48_000], segment, (90, 90))])
    trained = run(validation_examples_path=str(path), hparams={"predict_frame_threshold": 0.01})
    scores = [line for line in logged(trained) if "val_frame_f1" in line][-1]
    loaded = checkpoint.load_model("MELODIC", trained.parents[2])
    (example,) = records.read([str(path)])
    expected = assess.assess_melodic(loaded.model, loaded.hparams, example).metrics
    assert 0 < expected["frame_precision"] < 1
    for name, value in expected.items():
        assert scores[f"val_{name}"] == pytest.approx(value, abs=1e-3), name


def test_a_validation_that_fails_costs_no_training(run, tmp_path):
    damaged = tmp_path / "damaged.tfrecord"
    records.write(damaged, [melody(0)])
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"damaged\.tfrecord: record 0"):
        run(validation_examples_path=str(damaged))
    assert checkpoint_file.read(checkpoint.step_path(tmp_path / "models" / "MELODIC" / "a", 2))[1]["step"] == 2


def test_weights_that_are_not_finite_are_not_saved(run, monkeypatch):
    """As after a step that spoils them, whose own loss was still a number."""
    before = callbacks.Saver.on_epoch_end

    def spoil(self, epoch, logs=None):
        if self._progress.step == 4:
            self._whole_model.weights[0].assign(np.full(self._whole_model.weights[0].shape, np.nan))
        before(self, epoch, logs)

    monkeypatch.setattr(callbacks.Saver, "on_epoch_end", spoil)
    with pytest.raises(PolyampError, match="weights are not finite any more at step 4, of which nothing is saved"):
        run(num_steps=6)
    assert [path.name for path in checkpoint.numbered(train_folder(run))] == ["ckpt-00000002.npz"]


def test_a_folder_that_cannot_be_read_keeps_nothing_from_starting(run, caplog):
    old = run(model_id="old")
    (old.parent / checkpoint.HPARAMS_FILE).unlink()
    assert checkpoint_file.read(run(model_id="new"))[1]["step"] == 2
    assert "Not considered as a start" in caplog.text and "hparams.json: missing" in caplog.text


def test_a_recent_checkpoint_that_does_not_fit_is_passed_over_and_one_that_does_is_taken(run, begun):
    run(model_id="other", hparams={"channels": 4})
    taken = run(model_id="b", hparams={"learning_rate": 0.0})
    for name in {name for name in weights_of(begun) if "moving" not in name}:
        np.testing.assert_array_equal(weights_of(begun)[name], weights_of(taken)[name])


def test_a_resumed_run_has_the_learning_rate_and_schedule_that_it_is_given(run, begun):
    path = run(num_steps=4, hparams={"learning_rate": 0.0})
    for name in {name for name in weights_of(path) if "moving" not in name}:
        np.testing.assert_array_equal(weights_of(begun)[name], weights_of(path)[name])
    assert checkpoint_file.read(run(num_steps=6, hparams={"lr_schedule": "one_cycle"}))[1]["step"] == 6


def test_settings_that_cannot_be_gone_on_with_change_nothing(run, begun):
    settings = (begun.parent / "hparams.json").read_text()
    with pytest.raises(
        PolyampError, match="Go on with the train_layers, melodic_trainable and optimizer of before, or .*--load_id=a"
    ):
        run(num_steps=4, hparams={"train_layers": "heads", "learning_rate": 0.5})
    assert (begun.parent / "hparams.json").read_text() == settings


def test_weights_alone_are_no_training_to_go_on_with(run, begun, tmp_path):
    loaded = checkpoint.load_model("MELODIC", begun.parents[2])
    mean = checkpoint.save_as_new(tmp_path / "models" / "MELODIC" / "mean", loaded.model, loaded.hparams, 2)
    settings = (mean.parent / "hparams.json").read_text()
    with pytest.raises(PolyampError, match="weights alone, .*--load_id=mean"):
        run(model_id="mean", num_steps=4, hparams={"learning_rate": 0.5})
    assert (mean.parent / "hparams.json").read_text() == settings
    assert run(model_id="b", load_id="mean", num_steps=4).is_file()


def test_what_load_full_asks_for_has_to_be_there(run):
    with pytest.raises(PolyampError, match="no FULL checkpoint that fits"):
        run(load_full=True)
    with pytest.raises(PolyampError, match="not for AUTOREGRESSIVE"):
        run(load_full=True, model_type="AUTOREGRESSIVE")


def test_a_seed_that_comes_too_late_is_said(run, caplog):
    run(seed=3)
    run(num_steps=3)
    assert "--seed" not in caplog.text
    run(num_steps=4, seed=5)
    assert "--seed=5 has no effect: this training began with 3" in caplog.text


def test_single_notes_are_no_recordings(run, tmp_path):
    sound, names = np.zeros(64_000, np.float32), ("guitar", "guitar_acoustic_000", "acoustic")
    note = NoteExample("guitar_acoustic_000-060-100", sound, 60, 100, *names, (), 0, 0)
    records.write(tmp_path / "notes.tfrecord", [note], nsynth.serialize)
    for name in ("examples_path", "validation_examples_path"):
        with pytest.raises(PolyampError, match="holds no recordings .*--dataset_type=nsynth"):
            run(**{name: str(tmp_path / "notes.tfrecord")})


def test_trains_from_audio_without_a_cache(run, monkeypatch):
    built, build = [], models.build
    monkeypatch.setattr(models, "build", lambda *arguments: built.append(build(*arguments)) or built[-1])
    path = run(cache_dir=None, hparams={"precision": "mixed_bfloat16"})
    assert "bfloat16" in {layer.compute_dtype for layer in built[0].get_layer("network").layers}
    assert checkpoint_file.read(path)[1]["step"] == 2


def test_optimizers_clip_and_follow_their_schedules():
    each = train.make_optimizer(hparams.resolve("MELODIC", "onsets_frames"), 100)
    assert each.clipnorm == 3.0 and each.global_clipnorm is None
    cycle = train.make_optimizer(hparams.resolve("MELODIC", "melodic_compact"), 100)
    rates = []
    for step in (0, 10, 100):
        cycle.iterations.assign(step)
        rates.append(float(cycle.learning_rate))
    assert rates == pytest.approx([0.006 / 25, 0.006, 0.006 * 1e-4], rel=1e-3)


def test_optimizers_forget_weights_but_no_biases_and_rates_fall():
    decaying = train.make_optimizer(MelodicHParams(optimizer="adamw", weight_decay=0.5, learning_rate=0.1), 10)
    assert decaying.weight_decay == 0.5
    kernel, bias = (keras.Variable(np.ones(2), name=name) for name in ("kernel", "bias"))
    decaying.build([kernel, bias])
    decaying.apply([np.zeros(2, np.float32), np.zeros(2, np.float32)])
    np.testing.assert_allclose(kernel, np.full(2, 1 - 0.5 * 0.1), rtol=1e-5)
    np.testing.assert_array_equal(bias, np.ones(2))
    falling = train.make_optimizer(MelodicHParams(learning_rate=0.1, decay_rate=0.5, decay_steps=10), 100)
    rates = []
    for step in (0, 9, 10, 25):
        falling.iterations.assign(step)
        rates.append(float(falling.learning_rate))
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.025])


def runner(*flags, **environment):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "polyamp_runner.py"), "--config=tiny", "--model_id=a", *flags],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_kill_9_and_a_second_start_with_the_same_id_resumes(data, tmp_path):
    flags = [f"--examples_path={data}", f"--model_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}"]
    directory = checkpoint.folder(tmp_path, "MELODIC", "a")
    killed = runner(*flags, "--num_steps=1000000", "--checkpoint_interval=5")
    deadline = time.monotonic() + 300
    while not checkpoint.numbered(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.kill()
    killed.communicate()
    reached = checkpoint_file.read(checkpoint.numbered(directory)[-1])[1]["step"]
    again = runner(*flags, f"--num_steps={reached + 5}", "--checkpoint_interval=5")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert f"Going on from {checkpoint.step_path(directory, reached)}" in output
    assert checkpoint.numbered(directory)[-1] == checkpoint.step_path(directory, reached + 5)
    # What the killed run may have been writing has another name and is never taken for a checkpoint.
    for path in checkpoint.numbered(directory):
        checkpoint_file.read(path)


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
@pytest.mark.skipif(os.name != "posix", reason="terminals of another kind")
def test_a_training_whose_terminal_is_closed_is_saved(data, tmp_path):
    master, slave = os.openpty()
    command = [sys.executable, "polyamp_runner.py", "--mode=train", "--model_type=MELODIC", "--config=tiny", "--model_id=a"]
    command += [f"--examples_path={data}", f"--model_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}", "--num_steps=100000"]
    command += ['--hparams={"batch_size":64,"augment_probability":0}']  # Steps so long that the bar is drawn after each.
    default = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL), "start_new_session": True}
    process = subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, **default)
    os.close(slave)
    said = b""
    while b"/step" not in said:  # Of the progress bar.
        said += os.read(master, 1000)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)  # From the kernel, and from the shell.
    assert process.wait(timeout=120) == 130
    (path,) = checkpoint.numbered(tmp_path / "MELODIC" / "a")
    assert checkpoint_file.read(path)[1]["step"] > 0


def test_a_reader_that_stops_does_not_end_a_training(data, tmp_path):
    flags = [f"--examples_path={data}", f"--model_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}", "--model_id=a"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "polyamp_runner.py"), "--config=tiny", *flags, "--num_steps=4", "--checkpoint_interval=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("model id: ")
    process.stdout.close()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Step 2: frame_loss " in errors and "Step 4: frame_loss " in errors and "Traceback" not in errors
    assert checkpoint.numbered(checkpoint.folder(tmp_path, "MELODIC", "a"))[-1].name == "ckpt-00000004.npz"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_the_tiny_preset_trains_on_the_jax_backend(data, tmp_path):
    flags = [f"--examples_path={data}", f"--model_dir={tmp_path}", f"--cache_dir={tmp_path / 'cache'}"]
    trained = runner(*flags, "--num_steps=3", "--checkpoint_interval=3", KERAS_BACKEND="jax", JAX_LOG_COMPILES="1")
    output, _ = trained.communicate(timeout=300)
    assert trained.returncode == 0, output
    assert output.count("Finished XLA compilation of jit(train_step)") == 1  # A step is one program, compiled once.
    # The weights are the same thing on every backend.
    assert checkpoint.load_model("MELODIC", tmp_path).step == 3
