"""Settings that are said to have no effect have none: training and notes are the same, to the bit, whatever they are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soxr

from polyamp import checkpoint, checkpoint_file, hparams, predict, recognize, train, transcribe
from polyamp.audio import reading
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes, from_rolls, to_rolls

RECORDING = Path(__file__).parent / "data" / "handel_air.ogg"
_SHARED = {"architecture": "pitch_shared", "spec_type": "log_frequency", "channels": 4, "harmonics": [1, 2]}
_SHARED |= {"temporal_dilations": [1, 2], "mixing_after": [1], "mixing_channels": 2, "mixing_intervals": [12]}
_RECURRENT = {"recurrent_units": 4, "recurrent_layers": 1, "model_complexity": 2, "fc_size": 8}
_SHORT = {"train_frames": 32, "batch_size": 2, "learning_rate": 0.01, "lr_schedule": "constant"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A TFRecord with a recording of noise bursts."""
    rng = np.random.default_rng(3)
    onset = np.arange(0.2, 3.5, 0.4)
    audio = 0.01 * rng.standard_normal(4 * 16_000)
    for start in onset:
        audio[int(16_000 * start) :][:4000] += 0.3 * rng.standard_normal(4000)
    truth = Notes.of(onset, onset + 0.25, np.arange(50, 50 + len(onset)), np.full(len(onset), 90), np.full(len(onset), 40))
    folder = tmp_path_factory.mktemp("data")
    records.write(folder / "train.tfrecord", [Example("a", audio.astype(np.float32), truth, (90, 90))])
    return folder


def other(field, value):
    """Another value that the field may have; lists keep their length, and odd numbers stay odd."""
    if isinstance(value, tuple):
        return tuple(other(field, item) for item in value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next((choice for choice in field.metadata["choices"] if choice != value), "pianos")  # As of `predict_ends`.
    high = field.metadata["high"]
    step = 2 if isinstance(value, int) else 0.25 * min(high or 1.0, 1.0)
    return value + step if value + step <= high else value - step


def others(settings):
    """Other values of all settings that are said to have no effect."""
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return {name: other(fields[name], getattr(settings, name)) for name in settings.unused()}


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("TIMBRE", {"timbre_architecture": "pitch_shared", "timbre_channels": 4, "timbre_dilations": [1]}),
        pytest.param("TIMBRE", {"timbre_architecture": "harmonics", "timbre_patch_units": [8]}, marks=pytest.mark.slow),
        pytest.param(
            "FULL",
            {**_SHARED, "timbre_architecture": "pitch_shared", "timbre_channels": 4, "timbre_dilations": [1]},
            marks=pytest.mark.slow,
        ),
        ("AUTOREGRESSIVE", {**_SHARED, **_RECURRENT}),
        pytest.param("AUTOREGRESSIVE", {**_RECURRENT, "spec_n_bins": 40}, marks=pytest.mark.slow),
    ],
)
def test_what_is_said_to_have_no_effect_has_none(model_type, settings, data, tmp_path):
    plain = hparams.resolve(model_type, None, _SHORT | settings)
    changed = others(plain)
    given = {"plain": plain, "changed": dataclasses.replace(plain, **changed)}
    assert len(changed) > 10 and all(value != getattr(plain, name) for name, value in changed.items())
    assert given["changed"].unused().keys() == plain.unused().keys()
    assert hparams.structure(given["changed"]) == hparams.structure(plain)
    weights = {}
    for name, settings_of in given.items():
        path = train.train(
            model_type=model_type,
            hparams=settings_of,
            examples_path=str(data / "train.tfrecord"),
            model_dir=tmp_path,
            model_id=name,
            num_steps=2,
            checkpoint_interval=2,
            load_id="",
            seed=5,
        )
        weights[name], _ = checkpoint_file.read(path)
    assert weights["plain"].keys() == weights["changed"].keys()
    for name, array in weights["plain"].items():
        np.testing.assert_array_equal(array, weights["changed"][name], err_msg=name)


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL", "AUTOREGRESSIVE"])
def test_nor_on_the_notes_that_are_found(model_type):
    plain = checkpoint.load_model(model_type)
    changed = checkpoint.load_model(model_type, overrides=others(plain.hparams))
    sharp = soxr.resample(reading.read(RECORDING), 2 ** (30 / 1200), 1)
    assert changed.hparams != plain.hparams
    first, second = (transcribe.transcribe(loaded.model, lambda: [sharp], loaded.hparams) for loaded in (plain, changed))
    assert len(first) > 20
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


def test_nor_on_families():
    plain, melodic = checkpoint.load_model("TIMBRE"), predict.load("MELODIC")
    changed = checkpoint.load_model("TIMBRE", overrides=others(plain.hparams))
    first, second = (
        recognize.recognize(loaded.model, melodic, reading.of_file(RECORDING), loaded.hparams) for loaded in (plain, changed)
    )
    assert first == second and len(first["notes"]) > 20


def differs(first, second):
    """Whether two dicts of rolls, or two lists of notes, differ."""
    if isinstance(first, dict):
        return any(not np.array_equal(first[name], second[name]) for name in first)
    return first != second


_LABELS = {"onset_length": 70.0, "offset_length": 70.0, "onset_window": 3, "onset_delay": 40.0, "decay_frame_weights": True}
_LABELS |= {"min_frame_occupancy_for_label": 0.6, "frame_weight_onset": 9.0}


@pytest.mark.parametrize("onset_mode", ["length_ms", "window", "triangle"])
@pytest.mark.parametrize("decays", [False, True])
def test_what_is_not_said_to_have_no_effect_on_labels_has_one(onset_mode, decays):
    rng = np.random.default_rng(2)
    onset = np.sort(rng.uniform(0.0, 3.0, 60))
    truth = Notes.of(onset, onset + rng.uniform(0.1, 0.5, 60), rng.integers(21, 109, 60), rng.integers(1, 128, 60))
    settings = MelodicHParams(onset_mode=onset_mode, decay_frame_weights=decays)
    plain = to_rolls(truth, 120, settings)
    for name, value in _LABELS.items():
        value = not decays if name == "decay_frame_weights" else value
        changed = to_rolls(truth, 120, dataclasses.replace(settings, **{name: value}))
        assert differs(plain, changed) is (name not in settings.unused()), name


_DECODING = {"predict_onset_threshold": 0.3, "predict_frame_threshold": 0.3, "predict_offset_threshold": 0.3}
_DECODING |= {"active_onset_threshold": 0.3, "predict_offset_weight": 7.0, "min_note_ms": 100.0, "onset_bias_ms": 5.0}
_DECODING |= {"onset_peak_picking": False, "onset_refinement": False, "velocity_smoothing": 0.3, "predict_ends": "pianos"}
_DECODING |= {"predict_strikes": "pianos"}


@pytest.mark.parametrize("weight", [0.0, 12.0])
@pytest.mark.parametrize("switched_off", ["", "predict_onset_threshold", "predict_frame_threshold", "predict_offset_threshold"])
def test_nor_on_decoding(weight, switched_off):
    rng = np.random.default_rng(3)
    rolls = {name: rng.uniform(0, 1, (200, 88)).astype(np.float32) for name in ("onset", "offset", "frame", "velocity")}
    settings = MelodicHParams(predict_offset_weight=weight, onset_peak_picking=True, onset_refinement=True)
    settings = dataclasses.replace(settings, **({switched_off: 0.0} if switched_off else {}))
    plain = from_rolls(rolls, settings)
    for name, value in _DECODING.items():
        value = 0.0 if name == "predict_offset_weight" and weight else value  # Of which the size may not matter.
        changed = from_rolls(rolls, dataclasses.replace(settings, **{name: value}))
        assert differs(plain, changed) is (name not in settings.unused()), name
