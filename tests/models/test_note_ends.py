"""polyamp.models.note_ends: in Keras what `polyamp.notes.ends` computes in numpy, and the loss that it learns by."""

import numpy as np
import pytest

from polyamp import notes
from polyamp.hparams import MelodicHParams
from polyamp.models import note_ends
from polyamp.notes import end_candidates, ends

HPARAMS = MelodicHParams(onset_peak_picking=True, predict_offset_weight=12.0)


def test_answers_what_the_network_in_numpy_does():
    rng = np.random.default_rng(0)
    rolls = {name: rng.random((40, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    rolls["onset"] **= 8
    found = notes.from_rolls(rolls, HPARAMS)
    may_end = end_candidates.candidates(found, rolls, HPARAMS)
    network = note_ends.build(width=6, hidden=8, noise=0.5, dropout=0.5)
    weights = {name: rng.normal(size=weight.shape).astype(np.float32) for name, weight in note_ends.weights_of(network).items()}
    for layer in ("interval", "known", "between", "pair", "first", "second", "score"):
        network.get_layer(layer).set_weights([weights[name] for name in (layer, f"{layer}_bias") if name in weights])
    mean, deviation = rng.normal(size=end_candidates.NUM_HEARD), rng.uniform(1, 2, end_candidates.NUM_HEARD)

    all_of_it = weights | {"heard_mean": mean, "heard_deviation": deviation}
    scores = ends.EndNetwork({name: array[np.newaxis] for name, array in all_of_it.items()}).scores(found, may_end)

    near = ends.around(found, np.arange(len(found)))
    for note in range(0, len(found), 50):
        of_note = may_end.note == note
        inputs = {
            "heard": np.clip((may_end.heard[of_note] - mean) / deviation, -5, 5)[None],
            "seconds": (may_end.seconds[of_note] - found.onset[note])[None],
            "around": near[note][None],
        }
        np.testing.assert_allclose(np.asarray(network(inputs))[0], scores[of_note], rtol=1e-3, atol=1e-3)


def test_the_loss_is_that_of_all_that_is_right_together():
    scores = np.log([[0.2, 0.3, 0.5, 9.0], [0.25, 0.25, 0.5, 9.0]])
    is_candidate = [[1, 1, 1, 0], [1, 1, 1, 0]]
    is_right = [[1, 1, 0, 0], [0, 0, 1, 0]]
    loss = note_ends.loss(np.stack([is_candidate, is_right], axis=-1).astype(float), scores)
    assert np.asarray(loss) == pytest.approx([-np.log(0.5), -np.log(0.5)], abs=1e-5)
