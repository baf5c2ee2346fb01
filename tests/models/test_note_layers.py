"""Layers over lists of notes, against plain loops in numpy, and gradients against finite differences."""

import keras
import numpy as np
import pytest

from polyamp import hparams, models
from polyamp.models import full, losses, timbre
from polyamp.models.note_layers import CropAndPool, NoteFeatures, NotePatches, NoteRolls, PitchFeatures

RATE = 31.25
LIST = np.zeros((2, 4, 3), np.float32)  # Padded; a note before the start, one beyond the end, one at the top of the keyboard.
LIST[0, :3] = [[60, 0.3, 0.9], [30, 0.0, 0.5], [105, 1.0, 9.0]]
LIST[1, :2] = [[64, 0.2, 0.5], [76, 0.3, 0.8]]


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_patches_show_each_notes_own_partials():
    spectrum = np.random.default_rng(0).random((2, 40, 294)).astype(np.float32)
    patches = numpy(NotePatches(24, 13, RATE)(spectrum, LIST))
    harmonics = [0.5, *range(1, 13)]
    for b, n in np.ndindex(2, 4):
        pitch, onset, _ = LIST[b, n]
        if not pitch:
            assert not patches[b, n].any()
            continue
        expected = np.full((24, 13, 3), -10.0)  # What the spectrum does not have shows as silence.
        first = int(np.round(onset * RATE)) - 2
        for frame, (i, harmonic), k in ((f, h, k) for f in range(24) for h in enumerate(harmonics) for k in range(3)):
            bin_ = 3 * (int(pitch) - 21) + int(np.rint(36 * np.log2(harmonic))) + k
            if 0 <= first + frame < 40 and 0 <= bin_ < 294:
                expected[frame, i, k] = spectrum[b, first + frame, bin_]
        expected = np.maximum(0, 1 + (expected - np.max(expected[2:5])) / 0.75)
        inside = (first + np.arange(24) >= 0) & (first + np.arange(24) < 40)
        np.testing.assert_allclose(patches[b, n, ..., :3], expected * inside[:, None, None], atol=1e-5)


def test_patches_mark_the_partials_of_other_notes_but_not_a_notes_own():
    spectrum = np.full((1, 40, 294), 0.5, np.float32)
    alone = np.array([[[60, 0.32, 0.96]]], np.float32)
    octave = np.array([[[60, 0.32, 0.96], [72, 0.32, 0.96]]], np.float32)
    others = NotePatches(24, 6, RATE)
    assert not numpy(others(spectrum, alone))[..., 3].any()
    marked = numpy(others(spectrum, octave))[0, 0, 3, :, 3]  # Harmonics 1/2, 1, 2, 3, 4, 5 of the lower note.
    np.testing.assert_array_equal(marked > 0, [False, False, True, False, True, False])


def test_level_does_not_matter_to_patches():
    spectrum = np.random.default_rng(1).uniform(0.5, 0.7, (2, 40, 294)).astype(np.float32)
    layer = NotePatches(24, 13, RATE)
    np.testing.assert_allclose(numpy(layer(spectrum, LIST)), numpy(layer(spectrum + 0.2, LIST)), atol=1e-5)


def test_crop_and_pool_is_the_mean_over_the_notes_frames():
    features = np.random.default_rng(2).normal(size=(2, 40, 5, 3)).astype(np.float32)
    pooled = numpy(CropAndPool(RATE)(features, LIST))
    for b, n in np.ndindex(2, 4):
        pitch, onset, offset = LIST[b, n]
        start = min(int(np.floor(onset * RATE)), 39)
        end = min(max(int(np.ceil(offset * RATE)), start + 1), 40)
        expected = features[b, start:end].mean(axis=0) if pitch else np.zeros((5, 3))
        np.testing.assert_allclose(pooled[b, n], expected, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes the gradient with TensorFlow")
def test_crop_and_pool_has_the_gradient_of_a_mean():
    import tensorflow as tf

    features = tf.Variable(np.random.default_rng(3).normal(size=(2, 40, 5, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(CropAndPool(RATE)(features, LIST)[0, 0])
    gradient = tape.gradient(total, features).numpy()
    expected = np.zeros_like(gradient)
    expected[0, 9:29] = 1 / 20  # From 0.3 to 0.9 s.
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_rolls_of_notes_and_of_what_covers_them():
    spectrum = np.zeros((2, 40, 294), np.float32)
    rolls = numpy(NoteRolls(RATE, (0.5, 1.0, 2.0, 3.0))(spectrum, LIST))
    for b, t, p in np.ndindex(2, 40, 88):
        own = [(onset, offset) for pitch, onset, offset in LIST[b] if pitch == p + 21]
        middle = (t + 0.5) / RATE
        assert rolls[b, t, p, 0] == any(onset <= middle < offset for onset, offset in own)
        begins = sum(max(0.0, 1 - abs(t - onset * RATE)) for onset, _ in own)
        assert rolls[b, t, p, 1] == pytest.approx(begins, abs=1e-4)
        cover = np.zeros(4)
        for pitch, onset, offset in LIST[b]:
            if pitch and pitch != p + 21 and onset <= middle < offset:
                for number in range(1, 17):
                    semitone = pitch + round(12 * np.log2(number))
                    cover += (semitone == p + 21 + np.array([-12, 0, 12, 19])) * number**-0.5
        np.testing.assert_allclose(rolls[b, t, p, 2:], np.minimum(cover, 2), atol=1e-5)
    assert (rolls[..., 2:] > 0).any()


def test_features_of_notes_are_means_at_their_pitch():
    features = np.random.default_rng(4).normal(size=(2, 40, 88, 3)).astype(np.float32)
    beyond = np.array([[[40, -1.0, 0.4], [50, -2.0, -1.0], [50, 3.0, 4.0]]] * 2, np.float32)  # The 1.28 s that there are.
    listed = np.concatenate([LIST, beyond], axis=1)
    pooled = numpy(NoteFeatures(RATE)(features, listed))
    for b, n in np.ndindex(2, 7):
        pitch, onset, offset = listed[b, n]
        if not pitch:
            assert not pooled[b, n].any()
            continue
        frame = np.arange(40) - onset * RATE
        end = RATE * max(offset - onset, 2 / RATE)
        spans = [(-1.5, 1.6), (1.5, min(end, 0.4 * RATE)), (-0.5, min(end, 3 * RATE))]
        of_pitch = features[b, :, int(pitch) - 21]
        for k, (first, last) in enumerate(spans):
            inside = (frame > first) & (frame < last)
            expected = of_pitch[inside].mean(axis=0) if inside.any() else np.zeros(3)
            np.testing.assert_allclose(pooled[b, n, 3 * k : 3 * k + 3], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_lengths_of_late_notes_are_told_in_any_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        found = numpy(PitchFeatures()(np.array([[[60, 19.0, 19.05]]], np.float32)))
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(found[0, 0, 8:], np.exp([-0.5, -0.1]), atol=1e-4)


def test_decoded_notes_are_those_of_hand_made_rolls():
    onset, frame = np.zeros((1, 30, 88), np.float32), np.zeros((1, 30, 88), np.float32)
    onset[0, 4:7, 10] = [0.6, 0.9, 0.6]  # One peak, three frames wide.
    frame[0, 5:12, 10] = 0.9
    onset[0, 12, 10] = 0.8  # The same pitch again.
    frame[0, 12:30, 10] = 0.9  # To the end of the clip.
    onset[0, 20, 40] = 0.3  # Below the threshold.
    found = numpy(full.DecodeNotes(4, RATE, 0.5, 0.5)(onset, frame))[0]
    np.testing.assert_allclose(found, [[31, 5 / RATE, 12 / RATE], [31, 12 / RATE, 30 / RATE], [0, 0, 0], [0, 0, 0]], atol=1e-6)


def test_families_are_painted_where_their_notes_sound():
    frame = np.full((1, 30, 88), 0.8, np.float32)
    notes = np.array([[[31, 5 / RATE, 12 / RATE], [0, 0, 0]]], np.float32)
    family = np.zeros((1, 2, 12), np.float32)
    family[0, 0, 3], family[0, 1, 5] = 0.5, 1.0
    rolls = numpy(full.PaintFamilies(RATE)(frame, notes, family))
    expected = np.zeros((30, 88, 12))
    expected[5:12, 10, 3] = 0.4
    np.testing.assert_allclose(rolls[0, ..., :12], expected, atol=1e-6)
    np.testing.assert_allclose(rolls[0, ..., 12], frame[0])


def test_frequency_weights_fall_above_a_note_and_are_small_below():
    layer = timbre.FrequencyWeights(27.5, 12.0, 2e-3, 2.0)
    weights = numpy(layer(np.ones((1, 1, 60, 1), np.float32), np.array([[[45, 0, 1]]], np.float32)))[0, 0, :, 0]
    np.testing.assert_allclose(weights[:23], 2e-3)
    np.testing.assert_allclose(weights[24:], np.exp(-np.arange(36) / 12 / 2.0), rtol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_the_published_network_computes_in_half_precision_what_it_does_in_whole(precision):
    small = {"timbre_num_filters": [4, 4], "timbre_temporal_filters": [4, 4, 4], "timbre_dense_units": 8}
    settings = hparams.resolve("TIMBRE", None, small)
    rng = np.random.default_rng(0)
    spectrum = rng.uniform(0, 1, (1, 200, settings.timbre_spec_n_bins)).astype(np.float32)
    notes = np.array([[[60.0, 0.5, 1.5], [64.0, 1.0, 2.9]]], np.float32)
    whole = timbre.build_network(settings)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        half = timbre.build_network(settings)
    finally:
        keras.config.set_dtype_policy(before)
    half.set_weights(whole.get_weights())
    found = [keras.ops.convert_to_numpy(network({"spectrum": spectrum, "notes": notes})["family"]) for network in (whole, half)]
    np.testing.assert_allclose(*found, atol=0.02)


def test_family_losses_by_hand():
    truth = np.zeros((1, 3, 12), np.float32)
    truth[0, 0, 0] = truth[0, 1, 0] = 1  # The third is padding.
    answer = np.full((1, 3, 12), 0.1, np.float32)
    answer[0, :, 0] = 0.5
    log_loss = float(losses.FamilyLogLoss(recall_weight=2.0, absent_weight=0.01)(truth, answer))
    assert log_loss == pytest.approx(-2 * np.log(0.5) - 0.01 * 11 * np.log(0.9), rel=1e-4)
    truth[0, 1] = np.eye(12)[1]
    entropy = float(losses.FamilyCrossentropy(balance=1.0)(truth, answer))
    assert entropy == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2, rel=1e-4)


def test_the_timbre_preset_builds_and_is_small():
    model = models.build("TIMBRE", hparams.resolve("TIMBRE", "timbre_compact"))
    assert model.output["family"].shape == (None, None, 12)
    assert model.count_params() < 600_000


@pytest.mark.parametrize("architecture", ["harmonics", "filters", "pitch_shared"])
def test_padding_changes_nothing_and_gives_zeros(architecture):
    sizes = {"timbre_num_filters": [2, 2], "timbre_patch_units": [4], "timbre_channels": 4}
    settings = hparams.resolve("TIMBRE", None, {"timbre_architecture": architecture, **sizes})
    model = models.build("TIMBRE", settings)
    audio = np.random.default_rng(4).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    padded = numpy(model({"audio": audio, "notes": LIST[:1]})["family"])
    short = numpy(model({"audio": audio, "notes": LIST[:1, :3]})["family"])
    np.testing.assert_allclose(padded[:, :3], short, atol=1e-5)
    assert not padded[:, 3].any()
    assert ((short > 0) & (short < 1)).all()


@pytest.mark.parametrize("overrides", [{"timbre_architecture": "pitch_shared"}, {}])
@pytest.mark.parametrize("preset", ["full_compact", None])
def test_full_is_both_parts_and_each_has_its_own_names(preset, overrides):
    settings = hparams.resolve("FULL", preset, overrides)
    names = {
        kind: {v.path for v in models.build(kind, settings).variables if not v.path.startswith("seed")}
        for kind in ("MELODIC", "TIMBRE", "FULL")
    }
    assert names["MELODIC"] | names["TIMBRE"] == names["FULL"]
    assert not names["MELODIC"] & names["TIMBRE"]


def test_full_learns_in_both_parts():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    settings = hparams.resolve("FULL", "full_compact", {"predict_onset_threshold": 0.001, "full_max_notes": 8})
    keras.utils.set_random_seed(1)  # Some random weights hear no note in noise.
    network = models.build("FULL", settings).get_layer("network")
    spectrum = np.random.default_rng(5).random((1, 40, 294)).astype(np.float32)
    inputs = {"spectrum": spectrum, "timbre_spectrum": spectrum, "notes": LIST[:1]}
    with tf.GradientTape() as tape:
        instruments = network(inputs, training=True)["instruments"]
        total = tf.reduce_sum(instruments[..., 0])  # One family: all together sum to the frame roll.
    gradients = dict(
        zip((v.path for v in network.trainable_variables), tape.gradient(total, network.trainable_variables), strict=True)
    )
    assert np.abs(gradients["timbre_family/kernel"]).max() > 0
    assert np.abs(gradients["heads/kernel"]).max() > 0
