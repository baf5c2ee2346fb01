"""Every preset builds; shapes, sharing over pitch, detached gradients, and what the losses compute."""

from pathlib import Path

import keras
import numpy as np
import pytest

from polyamp import constants, hparams, models
from polyamp.errors import HParamsError
from polyamp.models import losses, onsets_frames, parts, pitch_shared
from polyamp.models.layers import HarmonicStack, IntervalDense

PRESETS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs").glob("*.json") if "autoregr" not in path.stem)
SMALL_STACKS = {
    "spec_type": "mel",
    "spec_n_bins": 24,
    "num_filters": [2, 3],
    "temporal_sizes": [3, 3],
    "freq_sizes": [3, 3],
    "pool_sizes": [1, 2],
    "fc_size": 8,
    "onset_lstm_units": 4,
    "offset_lstm_units": 4,
    "combined_lstm_units": 4,
}


def small_stacks(**overrides):
    return hparams.resolve("MELODIC", None, {**SMALL_STACKS, **overrides})


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_builds_and_every_variable_has_a_path_of_its_own(preset):
    """Each as a Melodic model; the others are in test_note_layers.py and test_autoregressive.py."""
    model = models.build("MELODIC", hparams.resolve("MELODIC", preset))
    shapes = {roll: tuple(tensor.shape) for roll, tensor in model.output.items()}
    assert shapes == dict.fromkeys(constants.ROLLS, (None, None, constants.NUM_PITCHES))
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths)


def test_published_sizes():
    def parameters(preset):
        return models.build("MELODIC", hparams.resolve("MELODIC", preset)).count_params()

    # The page of the second system says "26M parameters by default"; its layers add up to 26.5 million.
    assert 26.0e6 < parameters("onsets_frames") < 27.0e6
    assert parameters("melodic_compact") < 200_000


@pytest.mark.parametrize("samples", [160, 511, 512, 16_000, 16_384])
def test_tiny_answers_one_frame_per_hop_in_probabilities(samples):
    model = models.build("MELODIC", hparams.resolve("MELODIC", "tiny"))
    rolls = model(np.random.default_rng(0).normal(0, 0.1, (2, samples)).astype(np.float32))
    for roll in rolls.values():
        roll = keras.ops.convert_to_numpy(roll)
        assert roll.shape == (2, 1 + samples // 512, 88)
        assert roll.dtype == np.float32
        assert ((roll >= 0) & (roll <= 1)).all()


def test_unknown_model_types_are_errors():
    with pytest.raises(HParamsError, match="no model type"):
        models.build("LYRIC", hparams.resolve("MELODIC"))


@pytest.mark.parametrize("rank", [0, 3])
def test_pitch_shared_network_moves_its_answer_with_the_pitch(rank):
    settings = hparams.resolve("MELODIC", "tiny", {"conv_rank": rank})
    network = pitch_shared.build_network(settings)
    spectrum = np.zeros((1, 9, 294), np.float32)
    harmonics = [0, 36, 57]  # Bins above the fundamental's of harmonics 1, 2 and 3.
    low, high = spectrum.copy(), spectrum.copy()
    for harmonic in harmonics:
        low[0, 4, 3 * 30 + 1 + harmonic] = 0.7
        high[0, 4, 3 * 37 + 1 + harmonic] = 0.7
    of_low = keras.ops.convert_to_numpy(network(low)["onset"])
    of_high = keras.ops.convert_to_numpy(network(high)["onset"])
    # Away from the keyboard's ends, and with the per-pitch biases still at zero, seven semitones up is a shift by seven.
    np.testing.assert_allclose(of_low[:, :, 25:40], of_high[:, :, 32:47], atol=1e-5)
    assert np.abs(of_low[:, :, 30] - of_low[:, :, 50]).max() > 1e-4


def test_harmonic_stack_reads_the_bins_of_each_harmonic():
    bins = np.arange(294, dtype=np.float32)[None, None]
    stacked = keras.ops.convert_to_numpy(HarmonicStack((0.5, 1.0, 2.0))(bins))
    assert stacked.shape == (1, 1, 88, 9)
    for pitch in (0, 13, 87):
        for number, offset in enumerate((-36, 0, 36)):
            wanted = [3 * pitch + offset + k for k in range(3)]
            wanted = [b if 0 <= b < 294 else 0 for b in wanted]
            np.testing.assert_array_equal(stacked[0, 0, pitch, 3 * number : 3 * number + 3], wanted)


def test_interval_dense_equals_gathering_pitch_by_pitch():
    rng = np.random.default_rng(0)
    layer = IntervalDense(5, (4, 12))
    inputs = rng.normal(size=(2, 3, 88, 2)).astype(np.float32)
    outputs = keras.ops.convert_to_numpy(layer(inputs))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    expected = np.zeros((2, 3, 88, 5))
    for pitch in range(88):
        for tap, shift in enumerate((0, 4, 12, -4, -12)):
            if 0 <= pitch + shift < 88:
                expected[:, :, pitch] += inputs[:, :, pitch + shift] @ kernel[tap]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("stop", [True, False])
def test_frame_loss_reaches_the_onset_stack_only_if_not_stopped(stop):
    network = onsets_frames.build_network(small_stacks(stop_onset_gradient=stop, stop_offset_gradient=True))
    by_path = {variable.path: variable for variable in network.trainable_variables}
    spectrum = np.random.default_rng(0).random((1, 6, 24)).astype(np.float32)
    labels = {roll: np.ones((1, 6, 88), np.float32) for roll in constants.ROLLS}
    before = {path: keras.ops.convert_to_numpy(variable.value) for path, variable in by_path.items()}
    network.compile(
        keras.optimizers.SGD(1.0),
        loss=dict.fromkeys(constants.ROLLS, "binary_crossentropy"),
        loss_weights={"onset": 0.0, "offset": 0.0, "velocity": 0.0, "frame": 1.0},
        run_eagerly=True,  # Compiling LSTMs takes longer.
    )
    network.train_on_batch(spectrum, labels)
    moved = {path for path, variable in by_path.items() if np.any(before[path] != keras.ops.convert_to_numpy(variable.value))}
    assert ("onset_dense/kernel" in moved) is not stop
    assert "offset_dense/kernel" not in moved
    assert "activation_dense/kernel" in moved
    assert not any(path.startswith("velocity") for path in moved)


def test_share_conv_features_makes_one_stack():
    shared = onsets_frames.build_network(small_stacks(share_conv_features=True))
    names = {layer.name for layer in shared.layers}
    assert "shared_conv1" in names and "onset_conv1" not in names


def test_lengths_of_stack_settings_must_agree():
    with pytest.raises(HParamsError, match="num_filters"):
        small_stacks(num_filters=[2, 3, 4])


def test_recall_weighted_log_loss_by_hand():
    truth = np.array([[[1.0, 0.0, 0.5]]])
    guess = np.array([[[0.8, 0.4, 0.25]]])
    cells = [-3 * np.log(0.8), -np.log(0.6), -(3 * 0.5 * np.log(0.25) + 0.5 * np.log(0.75))]
    loss = losses.RecallWeightedLogLoss(3.0)
    assert float(loss(truth, guess)) == pytest.approx(np.mean(cells), rel=1e-5)
    weights = np.array([[[1.0, 2.0, 0.0]]])
    assert float(loss(truth, guess, sample_weight=weights)) == pytest.approx((cells[0] + 2 * cells[1]) / 3, rel=1e-5)


def test_what_no_family_plays_counts_fully_in_a_batch_without_notes():
    """For predictions of a half each false cell costs log 2, of a hundredth of the weight where the family is absent."""
    loss = losses.FamilyRollLoss(absent_weight=0.01)
    silent = np.zeros((1, 4, 88, 13), np.float32)
    value = float(loss(silent, np.full_like(silent, 0.5)))
    assert value == pytest.approx(np.log(2) * (12 * 0.01 + 1) / 13, rel=1e-4)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert np.isfinite(float(losses.RecallWeightedLogLoss()(np.ones((1, 1, 1)), np.zeros((1, 1, 1)))))


def test_velocity_loss_counts_onsets_only():
    truth, guess = np.array([[[0.5, 0.0]]]), np.array([[[0.25, 0.9]]])
    onsets = np.array([[[1.0, 0.0]]])
    assert float(losses.VelocityLoss()(truth, guess, sample_weight=onsets)) == pytest.approx(0.0625)
    assert float(losses.VelocityLoss()(truth, guess, sample_weight=0 * onsets)) == 0.0


def test_every_type_that_counts_as_built_can_be_built():
    assert set(hparams.HPARAMS) == set(models._TYPES) == set(constants.MODEL_TYPES)


@pytest.mark.parametrize(
    ("model_type", "preset", "overrides"),
    [
        ("MELODIC", "tiny", {}),
        ("TIMBRE", "tiny", {"timbre_architecture": "filters", "timbre_num_filters": [2, 2]}),
        ("FULL", "tiny", {"timbre_architecture": "pitch_shared"}),
        ("AUTOREGRESSIVE", "autoregressive_tiny", {}),
    ],
)
def test_keras_own_files_hold_every_model(tmp_path, model_type, preset, overrides):
    """So that every layer can be made again from its configuration, for those who build on the models with Keras alone."""
    settings = hparams.resolve(model_type, preset, overrides)
    model = models.build(model_type, settings)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    audio = np.random.default_rng(3).normal(0, 0.1, (1, 8000)).astype(np.float32)
    possible = {
        "audio": audio,
        "notes": np.array([[[60, 0.1, 0.3], [64, 0.1, 0.4]]], np.float32),
        "state": np.ones((1, 1 + 8000 // settings.hop_length, 88), np.int32),
        "free_run": np.ones(1, np.float32),
    }
    inputs = {name: possible[name] for name in model.input} if isinstance(model.input, dict) else audio
    before, after = model(inputs), loaded(inputs)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "asked", "used"), [("tensorflow", False, False), ("tensorflow", True, True), ("jax", False, True)]
)
def test_xla_compiles_where_it_is_asked_for_and_always_on_jax(monkeypatch, backend, asked, used):
    settings = hparams.resolve("MELODIC", "tiny", {"jit_compile": asked})
    model = models.build("MELODIC", settings)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert models.compile_arguments("MELODIC", settings)["jit_compile"] is used
    assert parts.part(model, "rolls", settings).jit_compile is used
