"""Checkpoints: exact round trips, finding by id, and errors instead of silent random weights."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest

from polyamp import checkpoint, checkpoint_file, hparams, models
from polyamp.errors import CheckpointError, HParamsError
from polyamp.models import parts


def tiny(**overrides):
    return hparams.resolve("MELODIC", "tiny", overrides)


def arrays_of(variables):
    return {variable.path: keras.ops.convert_to_numpy(variable.value) for variable in variables}


def write(directory, step=1, settings=None, seed=0):
    """A checkpoint of a random tiny model, with its settings; returns the model."""
    settings = settings or tiny()
    keras.utils.set_random_seed(seed)
    model = models.build("MELODIC", settings)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
    checkpoint_file.save(checkpoint.step_path(directory, step), model, {"step": step, "seed": 0, "best": -1.0})
    return model


@pytest.fixture
def folder(tmp_path):
    return checkpoint.folder(tmp_path, "MELODIC", "a")


def test_weights_come_back_exactly(tmp_path, folder):
    model = write(folder, step=12, seed=4)
    loaded = checkpoint.load_model("MELODIC", tmp_path)
    assert (loaded.step, loaded.path.name) == (12, "ckpt-00000012.npz")
    before, after = arrays_of(model.variables), arrays_of(loaded.model.variables)
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path])


def test_optimizer_state_comes_back_exactly(folder):
    def compiled():
        network = models.build("MELODIC", tiny()).get_layer("network")
        network.compile(keras.optimizers.AdamW(0.01), **models.compile_arguments("MELODIC", tiny()), run_eagerly=True)
        return network

    rng = np.random.default_rng(0)
    labels = {roll: rng.random((2, 8, 88), np.float32) for roll in ("onset", "offset", "frame", "velocity")}
    spectrum = rng.random((2, 8, 294), np.float32)
    first, second = compiled(), compiled()
    first.train_on_batch(spectrum, labels, labels)
    folder.mkdir(parents=True)
    path = checkpoint.step_path(folder, 1)
    checkpoint_file.save(path, first, {"step": 1, "seed": 7, "best": -1.0}, first.optimizer)
    assert checkpoint_file.restore(path, second, second.optimizer)["seed"] == 7
    # The same next step shows that weights, moments and step count are all there.
    for network in (first, second):
        network.train_on_batch(spectrum, labels, labels)
    after_first, after_second = arrays_of(first.variables), arrays_of(second.variables)
    for name, value in after_first.items():
        np.testing.assert_allclose(value, after_second[name], atol=1e-7)
    assert int(second.optimizer.iterations) == 2


def test_a_learning_rate_is_that_of_the_settings_not_of_the_file(folder):
    def optimizer_of(rate):
        optimizer = keras.optimizers.AdamW(rate)
        optimizer.build(model.trainable_variables)
        return optimizer

    model, path = write(folder), checkpoint.step_path(folder, 5)
    checkpoint_file.save(path, model, {"step": 5}, optimizer_of(0.01))
    lower = optimizer_of(0.002)
    checkpoint_file.restore(path, model, lower)
    assert float(lower.learning_rate) == pytest.approx(0.002)
    arrays, meta = checkpoint_file.read(path)
    np.savez(
        path, **arrays, meta=np.array(json.dumps(meta)), **{"optimizer/learning_rate": 0.01}
    )  # As earlier versions have it.
    checkpoint_file.restore(path, model, lower)
    assert float(lower.learning_rate) == pytest.approx(0.002)


def test_half_precision_file_is_half_the_size_and_close(tmp_path, folder):
    model = write(folder)
    whole = checkpoint.step_path(folder, 1).stat().st_size
    checkpoint_file.save(checkpoint.step_path(folder, 2), model, {"step": 2}, dtype="float16")
    arrays, _ = checkpoint_file.read(checkpoint.step_path(folder, 2))
    assert all(array.dtype == np.float16 for array in arrays.values() if np.issubdtype(array.dtype, np.floating))
    assert checkpoint.step_path(folder, 2).stat().st_size < whole
    loaded = checkpoint.load_model("MELODIC", tmp_path)
    for path, value in arrays_of(model.variables).items():
        np.testing.assert_allclose(value, arrays_of(loaded.model.variables)[path], rtol=1e-3, atol=1e-4)


def test_latest_step_of_an_id_and_most_recent_of_all(tmp_path):
    a, b = (checkpoint.folder(tmp_path, "MELODIC", name) for name in "ab")
    write(a, step=2)
    write(a, step=10)
    write(b, step=1)
    os.utime(checkpoint.step_path(a, 10), (1e9, 1e9))
    assert checkpoint.find(tmp_path, "MELODIC", "a") == checkpoint.step_path(a, 10)
    assert checkpoint.find(tmp_path, "MELODIC", "*") == checkpoint.step_path(b, 1)
    assert checkpoint.find(tmp_path, "MELODIC", "a/ckpt-00000002") == checkpoint.step_path(a, 2)
    assert checkpoint.load_model("MELODIC", tmp_path, model_id="a").step == 10


def test_a_model_id_without_checkpoints_is_warned_of(tmp_path, caplog):
    write(checkpoint.folder(tmp_path, "MELODIC", "a"))
    assert checkpoint.locate("MELODIC", tmp_path, model_id="a")[0].parent.name == "a" and not caplog.text
    assert checkpoint.locate("MELODIC", tmp_path, model_id="aa")[0].parent.name == "a"
    assert "--model_id=aa: has no checkpoint; taking" in caplog.text


@pytest.mark.parametrize("load_id", ["*", "other"])
def test_no_checkpoint_says_where_it_looked_and_what_there_is(tmp_path, load_id):
    with pytest.raises(CheckpointError, match="no MELODIC checkpoint at all"):
        checkpoint.load_model("MELODIC", tmp_path, load_id)
    write(checkpoint.folder(tmp_path, "MELODIC", "mine"))
    with pytest.raises(CheckpointError, match="ids there: mine"):
        checkpoint.load_model("MELODIC", tmp_path, "another")


@pytest.mark.parametrize("load_id", ["", ".", "..", "/there", "x" * 300, "[", "a/../.."])
def test_ids_that_cannot_be_any_are_one_line(tmp_path, folder, load_id):
    write(folder)
    with pytest.raises(CheckpointError, match="--load_id"):
        checkpoint.find(tmp_path, "MELODIC", load_id)
    with pytest.raises(CheckpointError, match="--teacher_id"):
        checkpoint.find_anywhere(tmp_path, "MELODIC", load_id, "--teacher_id")


@pytest.mark.parametrize(
    "meta",
    [
        {},
        [],
        "x",
        {"step": "2"},
        {"step": None},
        {"step": -5},
        {"step": 1, "seed": -1},
        {"step": 1, "best": "x"},
        {"step": True},
    ],
)
def test_meta_data_that_nothing_here_wrote_are_an_error(folder, meta):
    write(folder)
    path = checkpoint.step_path(folder, 1)
    arrays, _ = checkpoint_file.read(path)
    np.savez(path, **arrays, meta=np.array(json.dumps(meta)))
    with pytest.raises(CheckpointError, match="'meta' is"):
        checkpoint.load_model("MELODIC", folder.parents[1])


@pytest.mark.parametrize(
    "value, message", [(np.nan, "not finite"), (-np.inf, "not finite"), ("1", "no numbers"), (1j, "no numbers")]
)
def test_weights_that_are_no_finite_numbers_are_an_error(folder, value, message):
    write(folder)
    path = checkpoint.step_path(folder, 1)
    arrays, meta = checkpoint_file.read(path)
    name = next(name for name in arrays if name.startswith("weights/"))
    np.savez(path, **{**arrays, name: np.full(arrays[name].shape, value)}, meta=np.array(json.dumps(meta)))
    with pytest.raises(CheckpointError, match=f"ckpt-00000001.npz: .*{message}"):
        checkpoint.load_model("MELODIC", folder.parents[1])
    with pytest.raises(CheckpointError, match=message):
        checkpoint_file.network_weights(path)  # What the light runtime takes.


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
def test_truncated_file_is_an_error_that_names_it(tmp_path, folder, keep):
    write(folder)
    path = checkpoint.step_path(folder, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match="ckpt-00000001.npz.*truncated"):
        checkpoint.load_model("MELODIC", tmp_path)


def test_flipped_bits_are_noticed(tmp_path, folder):
    write(folder)
    path = checkpoint.step_path(folder, 1)
    damaged = bytearray(path.read_bytes())
    damaged[400] ^= 0xFF  # Inside the first array.
    path.write_bytes(bytes(damaged))
    with pytest.raises(CheckpointError, match="ckpt-00000001.npz"):
        checkpoint.load_model("MELODIC", tmp_path)


def test_other_dimensions_name_both_sides_and_change_nothing(folder):
    write(folder, settings=tiny(channels=6))
    model = models.build("MELODIC", tiny(channels=8))
    before = arrays_of(model.variables)
    with pytest.raises(
        CheckpointError, match=r"stem_conv/kernel is \[3, 3, 9, 6\] in the file and \[3, 3, 9, 8\] in the model"
    ):
        checkpoint_file.restore(checkpoint.step_path(folder, 1), model)
    for path, value in arrays_of(model.variables).items():
        np.testing.assert_array_equal(value, before[path])


def test_missing_layers_are_named(folder):
    write(folder, settings=tiny(temporal_dilations=[1], mixing_after=[1]))
    with pytest.raises(CheckpointError, match="block2_conv/kernel is missing"):
        checkpoint_file.restore(checkpoint.step_path(folder, 1), models.build("MELODIC", tiny()))


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL"])
def test_surplus_layers_are_named(tmp_path, model_type):
    settings = {
        dilations: hparams.resolve(model_type, "tiny", {"temporal_dilations": dilations}) for dilations in ((1,), (1, 2))
    }
    deep, flat = settings[(1, 2)], settings[(1,)]
    path = checkpoint.save_as_new(checkpoint.folder(tmp_path, model_type, "a"), models.build(model_type, deep), deep, 1)
    (path.parent / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(flat))
    with pytest.raises(CheckpointError, match="block2_conv/kernel is not in the model"):
        checkpoint.load_model(model_type, tmp_path)


def test_parts_of_the_models_in_the_package():
    melodic = checkpoint.load_model("MELODIC", load_full=True)
    assert melodic.path.parent.name == "full_compact"
    joined = checkpoint.load_model("FULL", load_full=False)
    assert [path.parent.name for path in joined.paths] == ["melodic_compact", "timbre_compact"]
    assert joined.hparams.temporal_dilations == checkpoint.stored_hparams(joined.path).temporal_dilations
    with pytest.raises(HParamsError, match="none for AUTOREGRESSIVE"):
        checkpoint.load_model("AUTOREGRESSIVE", load_full=True)


def test_a_joined_model_takes_the_parts_of_the_model_id(tmp_path, caplog):
    for model_type in ("MELODIC", "TIMBRE"):
        settings = hparams.resolve(model_type, "tiny")
        for model_id in ("first", "second"):
            directory = checkpoint.folder(tmp_path, model_type, model_id)
            if (model_type, model_id) != ("TIMBRE", "first"):
                checkpoint.save_as_new(directory, models.build(model_type, settings), settings, 1)
    both = checkpoint.load_model("FULL", tmp_path, model_id="second", load_full=False)
    assert [path.parent.name for path in both.paths] == ["second", "second"] and "--model_id" not in caplog.text
    one = checkpoint.load_model("FULL", tmp_path, model_id="first", load_full=False)
    assert [path.parent.name for path in one.paths] == ["first", "second"]
    assert caplog.text.count("--model_id=first: has no checkpoint; taking") == 1


def test_missing_settings_are_an_error(tmp_path, folder):
    write(folder)
    (folder / checkpoint.HPARAMS_FILE).unlink()
    with pytest.raises(CheckpointError, match="hparams.json: missing"):
        checkpoint.load_model("MELODIC", tmp_path)


def test_thresholds_may_be_overridden_and_structure_may_not(tmp_path, folder):
    write(folder)
    overrides = {"frame_prediction_threshold": 0.2}
    assert checkpoint.load_model("MELODIC", tmp_path, overrides=overrides).hparams.predict_frame_threshold == 0.2
    with pytest.raises(HParamsError, match=r"channels \(8 there, 4 here\)"):
        checkpoint.load_model("MELODIC", tmp_path, overrides={"channels": 4})


def test_weights_of_another_dropout_may_be_taken(tmp_path):
    small = {"num_filters": [2, 2, 2, 2], "fc_size": 8, "onset_lstm_units": 0, "offset_lstm_units": 0, "combined_lstm_units": 0}
    settings = hparams.resolve("MELODIC", "melodic", small)
    folder = checkpoint.folder(tmp_path, "MELODIC", "a")
    folder.mkdir(parents=True)
    (folder / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
    model = models.build("MELODIC", settings)
    checkpoint_file.save(checkpoint.step_path(folder, 1), model, {"step": 1})
    changes = {"conv_dropout": 0.0, "fc_dropout": 0.9, "stop_onset_gradient": False}
    loaded = checkpoint.load_model("MELODIC", tmp_path, overrides=changes)
    audio = np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    for name, roll in model.predict_on_batch(audio).items():
        np.testing.assert_allclose(loaded.model.predict_on_batch(audio)[name], roll, atol=1e-6)


def test_what_is_not_finite_is_not_saved(folder):
    write(folder)
    model, path = models.build("MELODIC", tiny()), checkpoint.step_path(folder, 1)
    before = path.read_bytes()
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    optimizer.variables[-1].assign(np.full(optimizer.variables[-1].shape, np.inf))  # Of which the weights know nothing yet.
    with pytest.raises(CheckpointError, match="not written, as optimizer/.* not finite"):
        checkpoint_file.save(path, model, {"step": 1}, optimizer)
    model.weights[0].assign(np.full(model.weights[0].shape, 70_000.0))
    with pytest.raises(CheckpointError, match="not written, as weights/.* not finite"):
        checkpoint_file.save(path, model, {"step": 1}, dtype="float16")
    assert path.read_bytes() == before and len(list(folder.iterdir())) == 2
    checkpoint_file.save(path, model, {"step": 1})


def test_large_archives_are_read(folder, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # Instead of 2 GB: another kind of directory at the end.
    model = write(folder)
    arrays, _ = checkpoint_file.read(checkpoint.step_path(folder, 1))
    assert len(arrays) == len(model.weights)


def test_a_failed_save_leaves_the_old_file(folder, monkeypatch):
    model = write(folder)
    path = checkpoint.step_path(folder, 1)
    before = path.read_bytes()

    def full(file, **arrays):
        open(file, "wb").write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(Exception, match="No space left"):
        checkpoint_file.save(path, model, {"step": 1})
    assert path.read_bytes() == before
    assert [entry.name for entry in folder.iterdir() if "tmp" in entry.name] == []


def test_steps_are_in_the_order_of_numbers(folder):
    folder.mkdir(parents=True)
    for step in (99_999_999, 100_000_000, 5):
        checkpoint.step_path(folder, step).touch()
    assert [path.name for path in checkpoint.numbered(folder)] == [
        "ckpt-00000005.npz",
        "ckpt-99999999.npz",
        "ckpt-100000000.npz",
    ]


def test_a_published_timbre_model_hears_in_a_full_one_what_it_was_trained_on(tmp_path):
    """Whatever the lowest frequency of the Melodic model beside it."""
    small = {"timbre_num_filters": [2, 2], "timbre_temporal_filters": [2, 2, 2], "timbre_spec_n_bins": 200}
    published = {"architecture": "onsets_frames", "spec_type": "mel", "spec_fmin": 30.0, "num_filters": [2] * 4, "fc_size": 8}
    published |= {"onset_lstm_units": 0, "offset_lstm_units": 0, "combined_lstm_units": 0}
    for kind, settings in (
        ("MELODIC", hparams.resolve("MELODIC", "tiny", published)),
        ("TIMBRE", hparams.resolve("TIMBRE", None, small)),
    ):
        keras.utils.set_random_seed(3)
        checkpoint.save_as_new(checkpoint.folder(tmp_path, kind, "a"), models.build(kind, settings), settings, step=1)
    alone, joined = (
        checkpoint.load_model(kind, tmp_path, "a", load_full=full) for kind, full in (("TIMBRE", None), ("FULL", False))
    )
    given = {
        "audio": np.random.default_rng(0).normal(0, 0.1, (1, 32_000)).astype(np.float32),
        "notes": np.array([[[60, 0.2, 0.9], [72, 0.5, 1.5]]], np.float32),
    }
    of_joined = parts.part(joined.model, "families", joined.hparams).predict_on_batch(given)["family"]
    np.testing.assert_allclose(of_joined, alone.model.predict_on_batch(given)["family"], atol=1e-5)


@pytest.mark.parametrize("model_type", ["MELODIC", "TIMBRE", "FULL", "AUTOREGRESSIVE"])
def test_an_id_of_the_package_is_there_for_trainings_too_unless_there_is_one_of_that_name(tmp_path, model_type):
    name = f"{model_type.lower()}_compact"
    embedded = checkpoint.find_anywhere(tmp_path, model_type, name)
    assert embedded.parent == checkpoint.EMBEDDED / model_type / name
    own = tmp_path / model_type / name / "ckpt-00000001.npz"
    own.parent.mkdir(parents=True)
    own.touch()
    assert checkpoint.find_anywhere(tmp_path, model_type, name) == own
    own.unlink()
    for pattern in ("*", f"{name[:-1]}?", f"{name[:-1]}[t]", f"{name}/best"):
        with pytest.raises(CheckpointError, match="no checkpoint for --load_id"):
            checkpoint.find_anywhere(tmp_path, model_type, pattern)
    with pytest.raises(CheckpointError, match=f"no checkpoint for --load_id={name}"):  # Elsewhere --model_dir is what it says.
        checkpoint.find(tmp_path, model_type, name)
