"""polyamp.distillation: what a small network learns from large ones' answers."""

import dataclasses

import keras
import numpy as np
import pytest

from polyamp import checkpoint, checkpoint_file, constants, distillation, hparams, models, train
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.errors import CheckpointError, DataError, HParamsError, PolyampError
from polyamp.notes import Notes


def saved(root, model_id, seed=0, **overrides):
    """A Melodic model of the tiny preset with random weights, in a model folder; returns its network."""
    settings = hparams.resolve("MELODIC", "tiny", overrides)
    keras.utils.set_random_seed(seed)
    model = models.build("MELODIC", settings)
    checkpoint.save_as_new(checkpoint.new_folder(root, "MELODIC", model_id), model, settings, 3)
    return model.get_layer("network")


@pytest.fixture
def front_end():
    return models.build("MELODIC", hparams.resolve("MELODIC", "tiny")).get_layer("spectrogram")


@pytest.fixture
def run(tmp_path):
    """Calls `train.train` with the tiny preset on noise without a single note, undisturbed; keyword arguments add to it."""
    noise = np.random.default_rng(5).normal(0, 0.1, 160_000).astype(np.float32)
    path = tmp_path / "noise.tfrecord"
    silent = Example("noise", noise, Notes.empty(), (0, 0))
    records.write(path, [silent])
    records.write(tmp_path / "unknown.tfrecord", [dataclasses.replace(silent, is_labelled=False)])

    def start(**changes):
        settings = hparams.resolve("MELODIC", "tiny", {"augment_probability": 0.0, **changes.pop("hparams", {})})
        steps = {"num_steps": 60, "checkpoint_interval": 60}
        places = {"model_dir": tmp_path / "runs", "model_id": "pupil", "load_id": "", "cache_dir": str(tmp_path / "cache")}
        return train.train(
            **{"model_type": "MELODIC", "hparams": settings, "examples_path": str(path), **places, **steps, **changes}
        )

    return start


def test_labels_are_the_mean_of_what_is_true_and_what_the_teacher_answers(tmp_path, front_end):
    network = saved(tmp_path, "large", channels=12)
    rng = np.random.default_rng(1)
    spectrum = rng.random((2, 16, 294)).astype(np.float32)
    labels = {roll: rng.random((2, 16, 88)).astype(np.float32) for roll in constants.ROLLS}
    weights = {roll: np.ones((2, 16, 88), np.float32) for roll in constants.ROLLS}
    answers = network(spectrum, training=False)
    teachers = distillation.load_teachers(tmp_path, "large", front_end)
    ((heard, mixed, weighed),) = distillation.taught([(spectrum, labels, weights)], teachers, 0.25)
    assert heard is spectrum and weighed is weights
    for roll in constants.ROLLS:
        assert mixed[roll].dtype == np.float32
        np.testing.assert_allclose(mixed[roll], 0.75 * labels[roll] + 0.25 * np.asarray(answers[roll]), atol=1e-5)
    unknown = {roll: np.stack([label[0], np.full_like(label[1], np.nan)]) for roll, label in labels.items()}
    ((_, completed, _),) = distillation.taught([(spectrum, unknown, weights)], teachers, 0.25)
    for roll in constants.ROLLS:
        np.testing.assert_array_equal(completed[roll][0], mixed[roll][0])
        np.testing.assert_allclose(completed[roll][1], answers[roll][1], atol=1e-5)


def test_of_several_teachers_the_mean_counts(tmp_path, front_end):
    spectrum = np.random.default_rng(1).random((2, 16, 294)).astype(np.float32)
    networks = [saved(tmp_path, "large", channels=12), saved(tmp_path, "other", seed=1)]
    answers = [network(spectrum, training=False) for network in networks]
    labels = {roll: np.full((2, 16, 88), np.nan, np.float32) for roll in constants.ROLLS}
    teachers = distillation.load_teachers(tmp_path, "large, other", front_end)
    ((_, mixed, _),) = distillation.taught([(spectrum, labels, labels)], teachers, 0.5)
    for roll in constants.ROLLS:
        large, other = (np.asarray(answer[roll]) for answer in answers)
        assert np.abs(large - other).max() > 0.01
        np.testing.assert_allclose(mixed[roll], (large + other) / 2, atol=1e-5)


def test_a_teacher_of_other_spectrograms_is_refused(tmp_path, front_end):
    saved(tmp_path, "slow", hop_length=1024)
    with pytest.raises(HParamsError, match="--teacher_id: .*slow.*same spec_type, hop_length"):
        distillation.load_teachers(tmp_path, "slow", front_end)


def test_it_is_so_before_anything_is_computed_or_written(run, tmp_path):
    saved(tmp_path / "runs", "slow", hop_length=1024)
    with pytest.raises(HParamsError, match="--teacher_id: .*slow"):
        run(teacher_id="slow")
    assert not (tmp_path / "cache").exists() and not (tmp_path / "runs" / "MELODIC" / "pupil" / "hparams.json").exists()


@pytest.mark.slow
def test_a_pupil_takes_over_what_no_label_says(run, tmp_path):
    """A teacher that always hears an onset, and labels that never have one."""
    saved(tmp_path / "runs", "teacher")
    teacher = checkpoint.load_model("MELODIC", tmp_path / "runs", "teacher")
    heads = teacher.model.get_layer("network").get_layer("heads")
    heads.kernel.assign(np.zeros(heads.kernel.shape))
    heads.bias.assign([3.0 if roll == "onset" else -3.0 for roll in constants.ROLLS])
    checkpoint_file.save(teacher.path, teacher.model, {"step": 3})

    def mean_onset(**changes):
        trained = run(**changes)
        audio = np.random.default_rng(6).normal(0, 0.1, (1, 32_000)).astype(np.float32)
        model = checkpoint.load_model("MELODIC", tmp_path / "runs", trained.parent.name).model
        return float(np.mean(model.predict_on_batch(audio)["onset"]))

    alone = mean_onset(model_id="alone")
    half = mean_onset(model_id="half", teacher_id="teacher")
    whole = mean_onset(model_id="whole", teacher_id="teacher", hparams={"teacher_share": 1.0})
    unknown = mean_onset(model_id="unknown", teacher_id="teacher", examples_path=str(tmp_path / "unknown.tfrecord"))
    # 0, 0.5 and 1 times sigmoid(3) = 0.95 are what the losses ask for; and all of it where no label is known.
    assert alone < 0.1 < half < 0.7 < min(whole, unknown)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"teacher_id": "x", "model_type": "TIMBRE"}, PolyampError, "--teacher_id is for MELODIC only"),
        ({"teacher_id": "x", "cache_dir": None}, PolyampError, "--teacher_id: .*give --cache_dir"),
        ({"teacher_id": "x"}, CheckpointError, "x"),
        ({"teacher_id": "melodic_compact,y"}, CheckpointError, "--teacher_id=y;"),
        ({"examples_path": "unknown.tfrecord"}, DataError, "unknown.tfrecord: recordings without notes"),
        ({"validation_examples_path": "unknown.tfrecord"}, DataError, "unknown.tfrecord: recordings without notes"),
    ],
)
def test_no_teacher_is_an_error_before_a_folder_is_made(run, tmp_path, monkeypatch, changes, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        run(**changes)
    assert not (tmp_path / "runs" / "MELODIC" / "pupil").exists()
