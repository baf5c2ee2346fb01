"""scripts/factor_network.py: convolutions in two, exact at full rank, nearest below it, and what cannot be factored."""

import keras
import numpy as np
import pytest

from polyamp import checkpoint, hparams, models
from polyamp.errors import CheckpointError, HParamsError
from polyamp.models import parts

CHANNELS = 8  # Of the preset `tiny`.


@pytest.fixture
def runs(tmp_path):
    """A model folder, all at step 3: Melodic "shared", "published" and "fast", Autoregressive "live", Full "joint"."""
    published = {"architecture": "onsets_frames", "spec_type": "mel"}
    live = {"label_shift": 2}
    for seed, (kind, model_id, preset, overrides) in enumerate(
        (
            ("MELODIC", "shared", "tiny", {}),
            ("MELODIC", "published", "tiny", published),
            ("MELODIC", "fast", "tiny", {"conv_rank": 2}),
            ("AUTOREGRESSIVE", "live", "autoregressive_compact", live),
            ("FULL", "joint", "tiny", {}),
        )
    ):
        settings = hparams.resolve(kind, preset, overrides)
        keras.utils.set_random_seed(seed)
        folder = checkpoint.folder(tmp_path, kind, model_id)
        folder.mkdir(parents=True)
        (folder / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
        checkpoint.save(checkpoint.step_path(folder, 3), models.build(kind, settings), {"step": 3})
    return tmp_path


def factored(load, runs, load_id="shared", rank=3 * CHANNELS, model_type="MELODIC", **flags):
    names = {"model_type": model_type, "model_dir": runs, "load_id": load_id, "model_id": "two"}
    script, _ = load("factor_network", **names, rank=rank, **flags)
    script._factor()
    return checkpoint.load_model(model_type, runs, "two")


def test_at_full_rank_it_hears_the_same(load, runs):
    two = factored(load, runs)
    assert (two.step, two.hparams.conv_rank) == (3, 24)
    audio = np.random.default_rng(1).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    before, after = checkpoint.load_model("MELODIC", runs, "shared").model(audio), two.model(audio)
    for roll in before:
        np.testing.assert_allclose(before[roll], after[roll], atol=1e-5)


def test_below_full_rank_each_product_is_the_nearest_one(load, runs):
    script, _ = load("factor_network", model_dir=runs, load_id="shared", model_id="two")
    kernel = np.random.default_rng(2).normal(size=(3, 3, 5, 7))
    time, pitch, share = script._factors(kernel, 4)
    assert (time.shape, pitch.shape) == ((3, 1, 5, 4), (1, 3, 4, 7))
    product = np.einsum("tir,pro->tpio", time[:, 0], pitch[0])
    error = np.sum((kernel - product) ** 2)
    assert share == pytest.approx(1 - error / np.sum(kernel**2))
    # Eckart and Young: no product of that rank has a smaller error than the strengths left out, here by eigenvalues.
    matrix = kernel.transpose(0, 2, 1, 3).reshape(15, 21)
    assert error == pytest.approx(np.sort(np.linalg.eigvalsh(matrix @ matrix.T))[:-4].sum())


def test_an_autoregressive_network_hears_the_same(load, runs):
    two = factored(load, runs, "live", 96, "AUTOREGRESSIVE")
    audio = np.random.default_rng(3).normal(0, 0.1, (1, 16_000)).astype(np.float32)

    before, after = (
        keras.ops.convert_to_numpy(parts.part(loaded.model, "features").predict_on_batch(audio))
        for loaded in (checkpoint.load_model("AUTOREGRESSIVE", runs, "live"), two)
    )
    np.testing.assert_allclose(before, after, atol=1e-4)


def test_a_full_model_gives_its_melodic_part(load, runs):
    two = factored(load, runs, "joint", load_full=True)
    stored, _ = checkpoint.read(checkpoint.find(runs, "FULL", "joint"))
    kernel = two.model.get_layer("network").get_layer("stem_conv").kernel
    assert any(array.shape == kernel.shape and np.array_equal(array, np.asarray(kernel)) for array in stored.values())


@pytest.mark.parametrize(
    ("load_id", "rank", "error", "message"),
    [
        ("published", 4, HParamsError, "only networks of architecture pitch_shared that are not factored yet"),
        ("fast", 4, HParamsError, "only networks of architecture pitch_shared that are not factored yet"),
        ("shared", 25, HParamsError, "--rank=25: already 3 \\* 8"),
        ("nowhere", 4, CheckpointError, "nowhere"),
    ],
)
def test_what_cannot_be_factored_writes_nothing(load, runs, load_id, rank, error, message):
    before = sorted(runs.rglob("*"))
    with pytest.raises(error, match=message):
        factored(load, runs, load_id, rank)
    assert sorted(runs.rglob("*")) == before
