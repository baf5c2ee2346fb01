"""scripts/deepen_network.py: more blocks that change next to nothing and can learn."""

import keras
import numpy as np
import pytest

from polyamp import checkpoint, hparams, models
from polyamp.errors import CheckpointError, HParamsError


@pytest.fixture
def runs(tmp_path):
    """A model folder with Melodic models "shared" and "published", and a Full model "joint", at step 3."""
    published = {"architecture": "onsets_frames", "spec_type": "mel"}
    for seed, (kind, model_id, overrides) in enumerate(
        (("MELODIC", "shared", {}), ("MELODIC", "published", published), ("FULL", "joint", {}))
    ):
        settings = hparams.resolve(kind, "tiny", overrides)
        keras.utils.set_random_seed(seed)
        folder = checkpoint.folder(tmp_path, kind, model_id)
        folder.mkdir(parents=True)
        (folder / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
        checkpoint.save(checkpoint.step_path(folder, 3), models.build(kind, settings), {"step": 3})
    return tmp_path


def deepened(load, runs, **values):
    script, _ = load("deepen_network", model_dir=runs, model_id="deep", **values)
    script._deepen()
    return checkpoint.load_model("MELODIC", runs, "deep")


def test_the_deeper_network_hears_the_same_and_all_of_it_can_learn(load, runs):
    deep = deepened(load, runs, load_id="shared", temporal_dilations="4,1", mixing_after="4")
    assert (deep.step, deep.hparams.temporal_dilations, deep.hparams.mixing_after) == (3, (1, 2, 4, 1), (1, 4))
    audio = np.random.default_rng(1).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    before, after = checkpoint.load_model("MELODIC", runs, "shared").model(audio), deep.model(audio)
    for roll in before:
        np.testing.assert_allclose(before[roll], after[roll], atol=0.05)
    norm = deep.model.get_layer("network").get_layer("block4_norm")
    assert np.all(np.asarray(norm.gamma) > 0)  # At 0 nothing would come back through the ReLU.


def test_a_full_model_gives_its_melodic_part(load, runs):
    deep = deepened(load, runs, load_id="joint", load_full=True, temporal_dilations="1", mixing_after="")
    stored, _ = checkpoint.read(checkpoint.find(runs, "FULL", "joint"))
    kernel = deep.model.get_layer("network").get_layer("block2_conv").kernel
    assert any(array.shape == kernel.shape and np.array_equal(array, np.asarray(kernel)) for array in stored.values())


@pytest.mark.parametrize(
    ("load_id", "dilations", "mixing", "error", "message"),
    [
        ("published", "1", "", HParamsError, "architecture"),
        ("shared", "one", "", HParamsError, "whole numbers"),
        ("shared", "1", "2", HParamsError, "begin with 3"),
        ("shared", "1", "4", HParamsError, "mixing_after names block 4"),
        ("nowhere", "1", "", CheckpointError, "nowhere"),
    ],
)
def test_what_cannot_be_deepened_writes_nothing(load, runs, load_id, dilations, mixing, error, message):
    script, _ = load(
        "deepen_network", model_dir=runs, model_id="deep", load_id=load_id, temporal_dilations=dilations, mixing_after=mixing
    )
    before = sorted(runs.rglob("*"))
    with pytest.raises(error, match=message):
        script._deepen()
    assert sorted(runs.rglob("*")) == before
