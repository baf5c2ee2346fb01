"""scripts/slim_network.py: exact where nothing is lost, nearest where something is, and what cannot be made smaller."""

import shutil

import keras
import numpy as np
import pytest

from polyamp import checkpoint, hparams, models
from polyamp.data import nsynth, records
from polyamp.data.example import NoteExample
from polyamp.data.records import Example
from polyamp.errors import CheckpointError, DataError, HParamsError
from polyamp.notes import Notes

MIXED = {"mixing_channels": 4}  # As the preset `tiny`, which has 8 channels in all.
SILENT = [0, 2]  # Of them, in "shared" and "joint".


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Melodic models "shared", "published" and "small" and Full "joint", at step 3, and a recording to listen to."""
    root = tmp_path_factory.mktemp("made")
    published = {"architecture": "onsets_frames", "spec_type": "mel", "num_filters": [2, 2, 4, 4], "fc_size": 8}
    published |= {"onset_lstm_units": 0, "offset_lstm_units": 0, "combined_lstm_units": 0}
    for seed, (kind, model_id, overrides) in enumerate(
        (
            ("MELODIC", "shared", MIXED),
            ("MELODIC", "published", published),
            ("MELODIC", "small", {"conv_rank": 2}),
            ("FULL", "joint", MIXED),
            ("MELODIC", "unmixed", {"mixing_after": [0]}),
        )
    ):
        settings = hparams.resolve(kind, "tiny", overrides)
        keras.utils.set_random_seed(seed)
        model = models.build(kind, settings)
        network = model.get_layer("network")
        if kind == "FULL":
            network = network.get_layer("network")
        if model_id in ("shared", "joint"):
            _silence(network)
        checkpoint.save_as_new(checkpoint.folder(root, kind, model_id), model, settings, step=3)
    noise = np.random.default_rng(5).normal(0, 0.1, 32_000).astype(np.float32)
    records.write(root / "heard.tfrecord", [Example("noise", noise, Notes.of([0.5], [1.0], [60], 80), (80, 80))])
    return root


@pytest.fixture
def runs(made, tmp_path):
    """A copy of them, to write to."""
    return shutil.copytree(made, tmp_path / "runs")


def _silence(network):
    """Two of the channels that are gathered, and of those that are expanded, say nothing, and the block says something."""
    rng = np.random.default_rng(4)
    reduce, gather, expand = (network.get_layer(f"mixing1_{part}") for part in ("reduce", "gather", "expand"))
    reduce.bias.assign([-100.0 if channel in SILENT else 0.1 for channel in range(4)])
    gather.bias.assign([0.1, 0.1, -100.0, -100.0])
    expand.kernel.assign(rng.normal(0, 1, expand.kernel.shape))


def slim(load, runs, load_id="shared", **flags):
    script, _ = load("slim_network", model_dir=runs, load_id=load_id, model_id="slim", **flags)
    script._slim()
    return checkpoint.load_model("MELODIC", runs, "slim")


def answers(loaded):
    return loaded.model(np.random.default_rng(1).normal(0, 0.1, (1, 16_000)).astype(np.float32))


@pytest.mark.parametrize("changes", [{"rank": 24}, {"mixing_channels": 2}, {"rank": 24, "mixing_channels": 2}])
def test_it_hears_the_same_where_nothing_is_lost(load, runs, changes, caplog):
    heard = {"examples_path": runs / "heard.tfrecord"} if "mixing_channels" in changes else {}
    after = slim(load, runs, **changes, **heard)
    before = checkpoint.load_model("MELODIC", runs, "shared")
    assert (after.step, after.hparams.conv_rank) == (3, changes.get("rank", 0))
    assert ("from --rank=11 down" in caplog.text) is ("rank" in changes)  # Exact, and larger.
    assert after.hparams.mixing_channels == changes.get("mixing_channels", 4)
    for roll, wanted in answers(before).items():
        np.testing.assert_allclose(answers(after)[roll], wanted, atol=1e-5)


def test_a_full_model_gives_its_melodic_part(load, runs):
    after = slim(load, runs, "joint", load_full=True, mixing_channels=2, examples_path=runs / "heard.tfrecord")
    before = checkpoint.load_model("MELODIC", runs, "joint", load_full=True)
    for roll, wanted in answers(before).items():
        np.testing.assert_allclose(answers(after)[roll], wanted, atol=1e-5)


def test_below_full_rank_the_product_is_the_nearest_one(load):
    script, _ = load("slim_network", model_dir="x", load_id="x", model_id="x")
    kernel = np.random.default_rng(2).normal(size=(3, 3, 5, 7))
    time, pitch = script.factors(kernel, 4)
    assert (time.shape, pitch.shape) == ((3, 1, 5, 4), (1, 3, 4, 7))
    error = np.sum((kernel - np.einsum("tir,pro->tpio", time[:, 0], pitch[0])) ** 2)
    # Eckart and Young: no product of that rank has a smaller error than the strengths left out, here by eigenvalues.
    matrix = kernel.transpose(0, 2, 1, 3).reshape(15, 21)
    assert error == pytest.approx(np.sort(np.linalg.eigvalsh(matrix @ matrix.T))[:-4].sum())


def test_channels_left_out_count_as_their_means(load):
    script, _ = load("slim_network", model_dir="x", load_id="x", model_id="x")
    rng = np.random.default_rng(3)
    reduce, gather, expand = (rng.normal(size=shape) for shape in ((6, 3), (2, 3, 3), (3, 6)))
    weights = [[reduce, np.arange(3.0)], [gather, np.zeros(3)], [expand, np.zeros(6)]]
    gathered = np.stack([rng.normal(0, 5, 50), np.full(50, 2.0), rng.normal(0, 5, 50)], axis=1)  # The second never changes.
    expanded = np.stack([rng.normal(0, 5, 50), rng.normal(0, 5, 50), np.full(50, 3.0)], axis=1)  # Nor the third here.
    (first, first_bias), (second, second_bias), (third, third_bias) = script.pruned(weights, gathered, expanded, 2)
    np.testing.assert_array_equal(first, reduce[:, [0, 2]])
    np.testing.assert_array_equal(first_bias, [0.0, 2.0])
    np.testing.assert_array_equal(second, gather[:, [0, 2]][..., [0, 1]])
    np.testing.assert_allclose(second_bias, 2.0 * gather[:, 1, [0, 1]].sum(0))
    np.testing.assert_array_equal(third, expand[[0, 1]])
    np.testing.assert_allclose(third_bias, 3.0 * expand[2])


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"load_id": "published", "rank": 4}, HParamsError, "only networks of architecture pitch_shared"),
        ({"load_id": "small", "rank": 4}, HParamsError, "leave out --rank"),
        ({"rank": 25}, HParamsError, r"--rank=25: already 3 \* 8"),
        ({"mixing_channels": 4, "examples_path": "x"}, HParamsError, "must be less than 4"),
        ({"mixing_channels": 2}, HParamsError, "needs --examples_path"),
        ({"mixing_channels": 2, "examples_path": "nowhere*"}, DataError, "nowhere"),
        ({"load_id": "unmixed", "mixing_channels": 2, "examples_path": "x"}, HParamsError, "mixes no pitches"),
        ({}, HParamsError, "give --rank, --mixing_channels or both"),
        ({"load_id": "nowhere", "rank": 4}, CheckpointError, "nowhere"),
    ],
)
def test_what_cannot_be_made_smaller_writes_nothing(load, runs, flags, error, message):
    before = sorted(runs.rglob("*"))
    with pytest.raises(error, match=message):
        slim(load, runs, **flags)
    assert sorted(runs.rglob("*")) == before


def test_files_without_examples_show_nothing(load, runs, tmp_path):
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(DataError, match="empty.tfrecord: holds no example"):
        slim(load, runs, mixing_channels=2, examples_path=tmp_path / "empty.tfrecord")


def test_single_notes_are_told_from_damaged_recordings(load, runs, tmp_path):
    note = NoteExample("organ-060-090", np.zeros(64_000, np.float32), 60, 90, "organ", "organ", "synthetic")
    records.write(tmp_path / "notes.tfrecord", [note], nsynth.serialize)
    with pytest.raises(DataError, match="notes.tfrecord: holds no recordings"):
        slim(load, runs, mixing_channels=2, examples_path=tmp_path / "notes.tfrecord")


def test_recordings_need_no_notes(load, runs, tmp_path):
    noise = np.random.default_rng(5).normal(0, 0.1, 32_000).astype(np.float32)
    unknown = Example("noise", noise, Notes.of([], [], []), (0, 0), is_labelled=False)
    records.write(tmp_path / "unknown.tfrecord", [unknown])
    assert slim(load, runs, mixing_channels=2, examples_path=tmp_path / "unknown.tfrecord").step == 3


def test_a_model_of_that_name_is_not_touched(load, runs):
    before = slim(load, runs, rank=4).path.read_bytes()
    with pytest.raises(CheckpointError, match="slim exists; give another --model_id"):
        slim(load, runs, rank=5)
    assert checkpoint.find(runs, "MELODIC", "slim").read_bytes() == before
