"""scripts/average_checkpoints.py: the mean of weights, of networks that have one."""

import keras
import numpy as np
import pytest

from polyamp import checkpoint, checkpoint_file, hparams, models
from polyamp.errors import CheckpointError, HParamsError, PolyampError


@pytest.fixture
def runs(tmp_path):
    """A model folder with "a" at step 3 and "b" at step 5, alike but for their weights, and "c", another network."""
    for seed, (model_id, step, units) in enumerate((("a", 3, 24), ("b", 5, 24), ("c", 5, 16))):
        settings = hparams.resolve("MELODIC", "tiny", {"channels": units})
        keras.utils.set_random_seed(seed)
        folder = checkpoint.folder(tmp_path, "MELODIC", model_id)
        folder.mkdir(parents=True)
        (folder / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
        checkpoint_file.save(checkpoint.step_path(folder, step), models.build("MELODIC", settings), {"step": step})
    return tmp_path


def weights(runs, model_id):
    return checkpoint.load_model("MELODIC", runs, model_id).model.get_weights()


def test_the_mean_of_every_weight_is_a_model_to_load(load, runs):
    script, _ = load("average_checkpoints", model_dir=runs, load_ids="a,b", model_id="mean")
    script._average()
    assert checkpoint.find(runs, "MELODIC", "mean").name == "ckpt-00000005.npz"
    arrays = list(zip(weights(runs, "mean"), weights(runs, "a"), weights(runs, "b"), strict=True))
    assert any(np.abs(a - b).max() > 0.1 for _, a, b in arrays)
    for mean, a, b in arrays:
        np.testing.assert_allclose(mean, (a + b) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("load_ids", "model_id", "error", "message"),
    [
        ("a,c", "mean", HParamsError, "channels"),
        ("a", "mean", CheckpointError, "nothing to average"),
        ("a,b", "c", CheckpointError, "another --model_id"),
        ("a,nowhere", "mean", CheckpointError, "nowhere"),
        ("a,b", "../mean", PolyampError, "use letters, digits"),
        ("a,b", "x" * 300, PolyampError, "use letters, digits"),
    ],
)
def test_what_has_no_mean_writes_nothing(load, runs, load_ids, model_id, error, message):
    script, _ = load("average_checkpoints", model_dir=runs, load_ids=load_ids, model_id=model_id)
    before = sorted(runs.rglob("*"))
    with pytest.raises(error, match=message):
        script._average()
    assert sorted(runs.rglob("*")) == before


def test_where_the_mean_cannot_be_written_nothing_is(load, runs, monkeypatch):
    def save(*_, **__):
        raise PolyampError("the disk is full.")

    script, _ = load("average_checkpoints", model_dir=runs, load_ids="a,b", model_id="mean")
    before = sorted(runs.rglob("*"))
    monkeypatch.setattr(checkpoint_file, "save", save)
    with pytest.raises(PolyampError, match="full"):
        script._average()
    assert sorted(runs.rglob("*")) == before
