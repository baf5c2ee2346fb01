"""polyamp.models.note_strikes: in Keras what `polyamp.notes.strike_network` computes in numpy, and the loss."""

import numpy as np
import pytest

from polyamp import notes
from polyamp.hparams import MelodicHParams
from polyamp.models import note_strikes
from polyamp.notes import strike_network, strikes

HPARAMS = MelodicHParams(onset_peak_picking=True, predict_offset_weight=12.0)


def test_answers_what_the_network_in_numpy_does():
    rng = np.random.default_rng(0)
    rolls = {name: rng.random((40, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    rolls["onset"] **= 8
    found = notes.from_rolls(rolls, HPARAMS)
    network = note_strikes.build(6, 8, 0.5, strikes.NUM_OWN, strikes.BEFORE + strikes.AFTER)
    weights = note_strikes.weights_of(network)
    weights = {name: rng.normal(size=weight.shape).astype(np.float32) for name, weight in weights.items()}
    for name in {name.removesuffix("_bias") for name in weights}:
        for side, kind in enumerate(("onset", "velocity")):
            layer = network.get_layer(f"{kind}_{name}")
            layer.set_weights([weights[part][side] for part in (name, f"{name}_bias") if part in weights])

    own, around = strikes.own(found, rolls, HPARAMS), strikes.around(found)
    moves = strike_network.StrikeNetwork({name: array[np.newaxis] for name, array in weights.items()}).moves(own, around)

    answer = np.asarray(network({"own": own, "around": around}))
    np.testing.assert_allclose(moves * [1e3, 1.0], answer, rtol=1e-3, atol=1e-2)
    assert (np.abs(answer).mean(axis=0) > 1).all()


def test_moves_nothing_before_it_has_learned_but_by_the_notes_around():
    network = note_strikes.build(width=4, hidden=8, dropout=0.0, num_own=6, num_around=10)
    own = np.random.default_rng(0).normal(size=(3, 6))
    nobody = np.zeros((3, 10, 5))
    assert not np.asarray(network({"own": own, "around": nobody})).any()


def test_the_loss_is_quadratic_up_to_10_ms_and_6_units():
    truth = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 3.0], [10.0, 6.0], [30.0, -12.0], [5.0, np.nan]])
    loss = note_strikes.loss(truth, np.zeros_like(truth))
    assert np.asarray(loss) == pytest.approx([0.0, 0.125, 0.125, 1.0, 2.5 + 1.5, 0.125])
