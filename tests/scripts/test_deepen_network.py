"""scripts/deepen_network.py: more blocks that change next to nothing and can learn."""

import json
import shutil

import keras
import numpy as np
import pytest

from polyamp import checkpoint, checkpoint_file, hparams, models
from polyamp.errors import CheckpointError, HParamsError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model folder with Melodic models "shared" and "published", Timbre "alone", Full "joint" and Autoregressive
    "live", at step 3."""
    folder = tmp_path_factory.mktemp("runs")
    published = {"architecture": "onsets_frames", "spec_type": "mel", "num_filters": [2, 2, 4, 4], "fc_size": 8}
    published |= {"onset_lstm_units": 0, "offset_lstm_units": 0, "combined_lstm_units": 0}
    for seed, (kind, model_id, overrides) in enumerate(
        (
            ("MELODIC", "shared", {}),
            ("MELODIC", "published", published),
            ("TIMBRE", "alone", {"timbre_architecture": "pitch_shared"}),
            ("FULL", "joint", {}),
            ("AUTOREGRESSIVE", "live", {"architecture": "pitch_shared", "spec_type": "log_frequency"}),
        )
    ):
        settings = hparams.resolve(kind, "tiny", overrides)
        keras.utils.set_random_seed(seed)
        checkpoint.save_as_new(checkpoint.folder(folder, kind, model_id), models.build(kind, settings), settings, step=3)
    return folder


@pytest.fixture
def runs(written, tmp_path):
    """A copy of it."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


def deepened(load, runs, model_type="MELODIC", **values):
    changes = json.dumps(values.pop("changes"))
    script, _ = load("deepen_network", model_type=model_type, model_dir=runs, model_id="deep", hparams=changes, **values)
    script._deepen()
    return checkpoint.load_model(model_type, runs, "deep")


def test_the_deeper_network_hears_the_same_and_all_of_it_can_learn(load, runs):
    changes = {"temporal_dilations": [1, 2, 4, 1], "mixing_after": [1, 4]}
    deep = deepened(load, runs, load_id="shared", changes=changes)
    assert (deep.step, deep.hparams.temporal_dilations, deep.hparams.mixing_after) == (3, (1, 2, 4, 1), (1, 4))
    audio = np.random.default_rng(1).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    before, after = checkpoint.load_model("MELODIC", runs, "shared").model(audio), deep.model(audio)
    for roll in before:
        np.testing.assert_allclose(before[roll], after[roll], atol=0.05)
    norm = deep.model.get_layer("network").get_layer("block4_norm")
    assert np.all(np.asarray(norm.gamma) > 0)  # At 0 nothing would come back through the ReLU.


def test_a_timbre_model_answers_as_before(load, runs):
    deep = deepened(load, runs, "TIMBRE", load_id="alone", changes={"timbre_dilations": [1, 2, 4, 8, 1]})
    audio = np.random.default_rng(1).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    inputs = {"audio": audio, "notes": np.array([[[60, 0.1, 0.5], [64, 0.3, 0.8]]], np.float32)}
    before, after = checkpoint.load_model("TIMBRE", runs, "alone").model(inputs), deep.model(inputs)
    np.testing.assert_allclose(before["family"], after["family"], atol=0.05)
    assert deep.model.get_layer("network").get_layer("timbre_block5_conv")


def test_an_autoregressive_model_answers_as_before(load, runs):
    changes = {"temporal_dilations": [1, 2, 4], "mixing_after": [1, 3]}
    deep = deepened(load, runs, "AUTOREGRESSIVE", load_id="live", changes=changes)
    inputs = {
        "audio": np.random.default_rng(1).normal(0, 0.1, (1, 16_000)).astype(np.float32),
        "state": np.zeros((1, 32, 88), np.int32),
        "free_run": np.zeros(1, np.float32),
    }
    before, after = checkpoint.load_model("AUTOREGRESSIVE", runs, "live").model(inputs), deep.model(inputs)
    np.testing.assert_allclose(before["state"], after["state"], atol=0.05)
    assert deep.model.get_layer("network").get_layer("acoustic").get_layer("block3_conv")


def test_a_full_model_gives_its_melodic_part(load, runs):
    deep = deepened(load, runs, load_id="joint", load_full=True, changes={"temporal_dilations": [1, 2, 1]})
    stored, _ = checkpoint_file.read(checkpoint.find(runs, "FULL", "joint"))
    kernel = deep.model.get_layer("network").get_layer("block2_conv").kernel
    assert any(array.shape == kernel.shape and np.array_equal(array, np.asarray(kernel)) for array in stored.values())


@pytest.mark.parametrize(
    ("load_id", "changes", "error", "message"),
    [
        ("shared", {"temporal_dilations": [1, 2], "mixing_after": [1]}, HParamsError, "adds no layer"),
        ("published", {"temporal_dilations": [1, 2, 4, 8, 16, 32, 1, 1]}, HParamsError, "adds no layer"),
        (
            "published",
            {
                "num_filters": [2, 2, 4, 4, 4],
                "temporal_sizes": [3] * 5,
                "freq_sizes": [3] * 5,
                "pool_sizes": [1, 2, 2, 1, 1],
            },
            HParamsError,
            "only add blocks of pitch_shared",
        ),
        ("shared", {"temporal_dilations": [1]}, HParamsError, "temporal_dilations can only be added to"),
        ("shared", {"temporal_dilations": [2, 2, 1]}, HParamsError, "temporal_dilations can only be added to"),
        ("shared", {"channels": 12, "temporal_dilations": [1, 2, 1]}, HParamsError, "channels can only be added to"),
        ("shared", {"harmonics": [1, 2, 3, 4]}, HParamsError, "stem_conv would have another shape"),
        ("shared", {"temporal_dilations": [1, 2, 1], "mixing_after": [1, 4]}, HParamsError, "mixing_after names block 4"),
        ("shared", {"no_such_setting": 1}, HParamsError, "no_such_setting"),
        ("nowhere", {"temporal_dilations": [1, 2, 1]}, CheckpointError, "nowhere"),
    ],
)
def test_what_cannot_be_deepened_writes_nothing(load, runs, load_id, changes, error, message):
    before = sorted(runs.rglob("*"))
    with pytest.raises(error, match=message):
        deepened(load, runs, load_id=load_id, changes=changes)
    assert sorted(runs.rglob("*")) == before
