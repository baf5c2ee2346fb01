"""The Autoregressive model: the published size, causality, the loop against the parallel pass, corrected targets, the loss."""

import itertools

import keras
import numpy as np
import pytest

from polyamp import hparams, models
from polyamp.models import autoregressive, parts, state_loss
from polyamp.notes.states import AGE_STEPS, OFF, OFFSET, OLDEST, ONSET, REONSET, SUSTAIN, age_table

SMALL = {"model_complexity": 3, "fc_size": 20, "recurrent_units": 16, "train_frames": 24}


def build(preset, **overrides):
    settings = hparams.resolve("AUTOREGRESSIVE", preset, overrides)
    keras.utils.set_random_seed(3)
    model = models.build("AUTOREGRESSIVE", settings)
    rng = np.random.default_rng(3)
    for variable in model.variables:  # As restless as those of a trained model, and no layer that does nothing.
        if "recurrence/" in variable.path and "bias" not in variable.path or "expand/kernel" in variable.path:
            variable.assign(rng.normal(0, 3 if "head" in variable.path else 1, variable.shape))
    return model, settings


VARIANTS = [
    ("autoregressive_tiny", {}),
    ("autoregressive", SMALL),
    ("autoregressive", SMALL | {"recurrent_layers": 3, "age_buckets": 4}),
]


def inputs(settings, batch=2, frames=24, free_run=0.0, seed=0):
    rng = np.random.default_rng(seed)
    bins = 294 if settings.spec_type == "log_frequency" else settings.spec_n_bins
    state = rng.choice(5, (batch, frames, 88), p=[0.7, 0.1, 0.1, 0.05, 0.05]).astype(np.int32)
    spectrum = (rng.random((batch, frames, bins)) ** 3).astype(np.float32)
    return {"spectrum": spectrum, "state": state, "free_run": np.full(batch, free_run, np.float32)}


def test_the_default_has_the_published_size():
    model = models.build("AUTOREGRESSIVE", hparams.resolve("AUTOREGRESSIVE", "autoregressive"))
    assert 14.4e6 < model.count_params() < 14.9e6


def test_the_compact_presets_are_small():
    for preset in ("autoregressive_compact", "autoregressive_low_latency"):
        assert models.build("AUTOREGRESSIVE", hparams.resolve("AUTOREGRESSIVE", preset)).count_params() < 150_000


@pytest.mark.parametrize(("preset", "overrides"), VARIANTS)
def test_audio_to_probabilities_of_five_states(preset, overrides):
    model, settings = build(preset, **overrides)
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 512 * 23)).astype(np.float32)
    answer = model({**{k: v for k, v in inputs(settings).items() if k != "spectrum"}, "audio": audio})
    states = keras.ops.convert_to_numpy(answer["state"])
    assert states.shape == (2, 24, 88, 5)
    np.testing.assert_allclose(states.sum(axis=-1), 1, atol=1e-5)
    assert answer["velocity"].shape == answer["timing"].shape == (2, 24, 88)


@pytest.mark.parametrize(("preset", "overrides"), VARIANTS)
def test_in_a_free_run_the_context_is_what_was_answered(preset, overrides):
    """The loop that answers and the parallel pass that is trained are the same function."""
    model, settings = build(preset, **overrides)
    answer = model.get_layer("network")(inputs(settings, free_run=1.0))
    emitted = np.argmax(keras.ops.convert_to_numpy(answer["logits"]), axis=-1)
    context = keras.ops.convert_to_numpy(answer["context"])
    assert np.mean(emitted[:, 1:] != emitted[:, :-1]) > 0.02  # Else this would show nothing.
    np.testing.assert_array_equal(context[:, 1:], emitted[:, :-1])


@pytest.mark.parametrize(("preset", "overrides"), VARIANTS)
def test_with_teacher_forcing_the_context_is_the_truth(preset, overrides):
    model, settings = build(preset, **overrides)
    given = inputs(settings)
    context = keras.ops.convert_to_numpy(model.get_layer("network")(given)["context"])
    np.testing.assert_array_equal(context[:, 1:], given["state"][:, :-1])
    first = given["state"][:, 0]
    np.testing.assert_array_equal(context[:, 0], np.where(np.isin(first, (SUSTAIN, OFFSET, REONSET)), SUSTAIN, OFF))


def test_examples_of_one_batch_may_run_differently():
    model, settings = build("autoregressive_tiny")
    given = inputs(settings)
    network = model.get_layer("network")
    forced = keras.ops.convert_to_numpy(network(given)["logits"])
    free = keras.ops.convert_to_numpy(network(given | {"free_run": np.ones(2, np.float32)})["logits"])
    mixed = keras.ops.convert_to_numpy(network(given | {"free_run": np.array([0, 1], np.float32)})["logits"])
    np.testing.assert_allclose(mixed[0], forced[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], free[1], atol=1e-5)
    assert np.abs(forced[1] - free[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("autoregressive_tiny", {}),
        ("autoregressive_tiny", {"label_shift": -3}),
        ("autoregressive", SMALL),
        ("autoregressive", SMALL | {"acoustic_kernels": [3, 1, 5], "label_shift": 2}),
    ],
)
def test_an_answer_depends_on_just_so_many_frames_after_it(preset, overrides):
    model, settings = build(preset, **overrides)
    ahead = settings.lookahead_frames - settings.label_shift
    given = inputs(settings, batch=1)
    changed = given | {"spectrum": given["spectrum"].copy()}
    changed["spectrum"][:, 15] += 1.0
    network = model.get_layer("network")
    difference = np.abs(keras.ops.convert_to_numpy(network(given)["logits"] - network(changed)["logits"])).max(axis=(0, 2, 3))
    assert difference[: 15 - ahead].max() < 1e-6 < difference[15 - ahead]


def test_age_steps():
    table = age_table(len(AGE_STEPS))
    assert [int(table[age]) for age in (0, 1, 4, 5, 6, 191, OLDEST)] == [0, 1, 4, 4, 5, 14, 15]
    assert not age_table(1).any()


# --- What is taught -----------------------------------------------------------------------------------------------------


def plainly_corrected(state, before, context):
    """The rules of `state_loss.corrected`, in words, for one cell."""
    sounds = context in (SUSTAIN, ONSET, REONSET)
    if state in (ONSET, REONSET):
        if context in (ONSET, REONSET) and before not in (ONSET, REONSET):
            return SUSTAIN, 0  # Begun a frame too early.
        return (REONSET if sounds else ONSET), 0
    if state == SUSTAIN:
        if before in (ONSET, REONSET) and context not in (ONSET, REONSET):
            return (REONSET if sounds else ONSET), 1  # Missed a frame ago.
        return (SUSTAIN if sounds else OFF), 0
    return (OFFSET if sounds else OFF), 0  # Nothing should sound.


def test_targets_are_corrected_as_the_rules_say():
    cells = np.array(list(itertools.product(range(5), repeat=3)), np.int32)  # Before, now, context: all there are.
    state = np.stack([cells[:, 0], cells[:, 1]])[None]  # [batch, time, cell]
    context = np.stack([np.zeros(len(cells), np.int32), cells[:, 2]])[None]
    target, late = (keras.ops.convert_to_numpy(of)[0, 1] for of in state_loss.corrected(state, context))
    expected = [plainly_corrected(now, before, told) for before, now, told in cells.tolist()]
    np.testing.assert_array_equal(target, [one for one, _ in expected])
    np.testing.assert_array_equal(late, [one for _, one in expected])


def test_the_truth_needs_no_correction():
    column = np.array([OFF, ONSET, SUSTAIN, REONSET, REONSET, SUSTAIN, OFFSET, ONSET, OFFSET, OFF, OFF], np.int32)
    state = column[None, :, None]
    context = np.concatenate([[OFF], column[:-1]]).astype(np.int32)[None, :, None]
    target, late = state_loss.corrected(state, context)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(target), state)
    assert not keras.ops.convert_to_numpy(late).any()


def test_the_loss_by_hand():
    state = np.array([[[OFF], [ONSET], [SUSTAIN], [OFFSET]]], np.int32)
    logits = np.random.default_rng(0).normal(size=(1, 4, 1, 5)).astype(np.float32)
    truth = {
        "state": state,
        "velocity": np.array([[[0], [0.5], [0.5], [0.5]]], np.float32),
        "timing": np.array([[[0], [0.25], [0], [-0.5]]], np.float32),
    }
    answer = {
        "logits": logits,
        "velocity": np.array([[[0.9], [0.1], [0.9], [0.9]]], np.float32),
        "timing": np.array([[[9], [0.0], [9], [0.5]]], np.float32),
        "context": np.array([[[OFF], [OFF], [ONSET], [SUSTAIN]]], np.int32),
    }
    loss, weight = state_loss.StateLoss(2.0, 3.0), np.ones((1, 4, 1), np.float32)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    crossentropy = -sum(log_softmax[0, t, 0, state[0, t, 0]] for t in range(4))
    expected = (crossentropy + 2 * (0.5 - 0.1) ** 2 + 3 * (0.25**2 + 1.0**2)) / 4
    assert float(loss(truth, answer, weight)) == pytest.approx(expected, rel=1e-5)
    # Missed: it may begin one frame late, a frame and a quarter after the truth's frame.
    answer["context"] = np.array([[[OFF], [OFF], [OFF], [OFF]]], np.int32)
    crossentropy = -sum(log_softmax[0, t, 0, of] for t, of in enumerate((OFF, ONSET, ONSET, OFF)))
    velocity = (0.5 - 0.1) ** 2 + (0.5 - 0.9) ** 2
    expected = (crossentropy + 2 * velocity + 3 * (0.25**2 + (0.25 - 1 - 9) ** 2)) / 4
    assert float(loss(truth, answer, weight)) == pytest.approx(expected, rel=1e-5)
    # Of a velocity that nobody knows nothing.
    expected -= 2 * velocity / 4
    truth["velocity"] = np.zeros_like(truth["velocity"])
    assert float(loss(truth, answer, weight)) == pytest.approx(expected, rel=1e-5)
    # Only frames that count.
    one = np.array([[[1], [0], [0], [0]]], np.float32)
    assert float(loss(truth, answer, one)) == pytest.approx(-log_softmax[0, 0, 0, OFF], rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("preset", "overrides"), VARIANTS[:2])
def test_a_training_step_reaches_every_weight_compiled_or_not(preset, overrides, jit_compile):
    model, settings = build(preset, **overrides, fc_dropout=0.0, conv_dropout=0.0)
    network = model.get_layer("network")
    network.compile(keras.optimizers.Adam(0.01), jit_compile=jit_compile)
    network.optimizer.build(network.trainable_variables)  # Else in the first step, which is then traced twice.
    before = [keras.ops.convert_to_numpy(variable) for variable in network.trainable_variables]
    rng = np.random.default_rng(0)
    losses = []
    for step in range(4):
        given = inputs(settings, free_run=float(step == 3))
        velocity, timing = rng.random((2, 2, 24, 88)).astype(np.float32)
        truth = {"state": given["state"], "velocity": velocity, "timing": timing - 0.5}
        losses.append(float(network.train_on_batch(given, truth, {"state": np.ones((2, 24), np.float32)})))
    assert np.isfinite(losses).all() and losses[2] < losses[0]
    unchanged = [
        variable.path
        for variable, old in zip(network.trainable_variables, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(variable), old)
    ]
    assert not unchanged


def test_parts_share_their_weights_with_the_model():
    model, _ = build("autoregressive_tiny")
    acoustic, recurrent = autoregressive.acoustic_part(model), autoregressive.RecurrentPart(model)
    recurrent({"features": acoustic(np.zeros((1, 5120), np.float32)), "carry": recurrent.initial_carry()})
    shared = {id(variable) for variable in [*acoustic.variables, *recurrent.variables]}
    assert shared == {id(variable) for variable in model.get_layer("network").variables}


@pytest.mark.parametrize("name", ["features", "states"])
def test_all_of_a_part_is_built(name):
    """Keras on JAX runs what is not eagerly before every call, operation by operation."""
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny")
    part = parts.part(models.build("AUTOREGRESSIVE", settings), name, settings)
    assert [layer.name for layer in part._flatten_layers() if not layer.built] == []
