"""polyamp.models.note_training: trains on examples that differ every time, and writes what the networks in numpy read."""

import keras
import numpy as np

from polyamp.models import note_training


class Halves:
    """Numbers of which the network is to learn the half."""

    notes = np.arange(50, 90)

    def __init__(self):
        self.seen = []

    def disturbed(self, notes, rng):
        self.seen.append(notes)
        value = rng.normal(size=(len(notes), 1))
        return {"value": value}, value / 2


def build():
    value = keras.Input((1,), name="value")
    return keras.Model({"value": value}, keras.layers.Dense(1, use_bias=False, kernel_initializer="random_normal")(value))


def learned(examples, epochs, seed):
    network = note_training.trained(build, lambda truth, answer: keras.ops.square(truth - answer), examples, 8, epochs, seed)
    return network.get_weights()[0].item()


def test_learns_from_every_note_once_an_epoch():
    examples = Halves()
    assert abs(learned(examples, 400, seed=0) - 0.5) < 0.05
    assert len(examples.seen) == 400 * 5
    for epoch in range(0, 15, 5):
        assert sorted(np.concatenate(examples.seen[epoch : epoch + 5])) == sorted(examples.notes)
    assert examples.seen[0].tolist() != examples.seen[5].tolist()


def test_the_same_seed_gives_the_same_network():
    first, second, other = (learned(Halves(), 2, seed) for seed in (3, 3, 4))
    assert first == second != other


def test_networks_are_written_one_after_the_other(tmp_path):
    networks = [{"pair": np.full((2, 3), float(value)), "pair_bias": np.zeros(3)} for value in (1, 5)]
    written = note_training.write(tmp_path / "some.npz", networks)
    with np.load(tmp_path / "some.npz") as file:
        assert {name: array.shape for name, array in file.items()} == {"pair": (2, 2, 3), "pair_bias": (2, 3)}
        assert file["pair"][:, 0, 0].tolist() == written["pair"][:, 0, 0].tolist() == [1.0, 5.0]
    assert [path.name for path in tmp_path.iterdir()] == ["some.npz"]
