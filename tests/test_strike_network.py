"""polyamp.notes.strike_network: what the network says of a note and those around, worked out by hand."""

import numpy as np
import pytest

from polyamp.errors import PolyampError
from polyamp.notes import context, strike_network
from polyamp.notes.strike_network import StrikeNetwork

NUM_OWN = 5
# Onset, offset, pitch and velocity of notes, each of which has the others around it.
CHORD = np.array([[1.0, 1.9, 48, 60], [1.0, 1.9, 60, 60], [1.04, 1.9, 64, 30], [2.0, 2.5, 62, 90]])
OTHERS = np.array([[other for other in range(4) if other != own] for own in range(4)])
AROUND = context.beside(CHORD, CHORD[OTHERS], np.ones((4, 3)))
NOTHING_KNOWN = np.zeros((4, NUM_OWN), np.float32)


def weights(**given):
    """Those of a network that moves nothing, but for some: each of onsets and of velocities."""
    width, hidden = 2, 4
    shapes = {
        "interval": (2 * strike_network.MAX_INTERVAL + 1, width),
        "known": (strike_network.NUM_KNOWN, width),
        "of_note": (NUM_OWN, width),
        "of_note_bias": (width,),
        "pair": (width, width),
        "pair_bias": (width,),
        "counts": (width, strike_network.HEADS),
        "counts_bias": (strike_network.HEADS,),
        "first": (NUM_OWN + 2 * strike_network.HEADS + 2 * width, hidden),
        "first_bias": (hidden,),
        "second": (hidden, 2),
        "second_bias": (2,),
        "answer": (2, 1),
        "answer_bias": (1,),
        "means": (strike_network.HEADS, 1),
    }
    nothing = {name: np.zeros((2, *shape), np.float32) for name, shape in shapes.items()}
    return {name: np.asarray(array)[np.newaxis] for name, array in (nothing | given).items()}


def of_both(onset, velocity):
    return np.stack([np.asarray(onset, float), np.asarray(velocity, float)])


def means(*each):
    return of_both(*(np.full((strike_network.HEADS, 1), one / strike_network.HEADS) for one in each))


class TestMoves:
    def test_means_of_the_notes_around_and_itself(self):
        moves = StrikeNetwork(weights(means=means(1, 1))).moves(NOTHING_KNOWN, AROUND)
        # All count the same, the note itself among them; what is farther than 150 ms counts as that far.
        onsets = [(0.0 + 0.04 + 0.15) / 4, (0.0 + 0.04 + 0.15) / 4, (-0.04 - 0.04 + 0.15) / 4, -3 * 0.15 / 4]
        np.testing.assert_allclose(moves[:, 0], onsets, atol=1e-6)
        np.testing.assert_allclose(moves[:, 1], CHORD[:, 3].mean() - CHORD[:, 3], atol=1e-4)

    def test_who_is_not_there_does_not_count(self):
        around = np.where(np.arange(3)[:, np.newaxis] == 1, AROUND, 9 * AROUND)
        around[..., 4] = np.arange(3) == 1
        moves = StrikeNetwork(weights(means=means(1, 1))).moves(NOTHING_KNOWN, around)
        np.testing.assert_allclose(moves[2], [-0.04 / 2, 30 / 2], atol=1e-5)

    def test_onsets_and_velocities_have_networks_of_their_own(self):
        moves = StrikeNetwork(weights(means=means(0, 1))).moves(NOTHING_KNOWN, AROUND)
        assert not moves[:, 0].any() and moves[2:, 1].all()
        moves = StrikeNetwork(weights(answer_bias=of_both([2.0], [-0.5]))).moves(NOTHING_KNOWN, AROUND)
        np.testing.assert_allclose(moves, np.tile([[0.02, -5.0]], (4, 1)), atol=1e-6)

    def test_who_counts_depends_on_the_interval(self):
        interval = np.zeros((2 * strike_network.MAX_INTERVAL + 1, 2))
        interval[strike_network.MAX_INTERVAL + 4] = 50.0  # A major third above.
        listening = {"interval": interval, "pair": np.eye(2), "counts": np.ones((2, strike_network.HEADS))}
        network = StrikeNetwork(weights(means=means(1, 1), **{name: of_both(k, k) for name, k in listening.items()}))
        assert network.moves(NOTHING_KNOWN, AROUND)[1] == pytest.approx([0.04, -30.0], abs=1e-5)

    def test_a_note_alone_stays(self):
        assert not StrikeNetwork(weights(means=means(1, 1))).moves(NOTHING_KNOWN, np.zeros_like(AROUND)).any()

    def test_what_is_known_of_the_note_itself_counts(self):
        first = np.zeros((NUM_OWN + 2 * strike_network.HEADS + 4, 4))
        first[3, 0] = 1.0  # Of the fourth number.
        listening = {"first": first, "second": np.eye(4, 2), "answer": [[1.0], [0.0]]}
        network = StrikeNetwork(weights(**{name: of_both(array, array) for name, array in listening.items()}))
        own = NOTHING_KNOWN.copy()
        own[2, 3] = 0.7
        np.testing.assert_allclose(network.moves(own, AROUND)[:, 1], [0, 0, 7.0, 0], atol=1e-5)

    def test_the_mean_of_several_counts(self):
        one, other = weights(answer_bias=of_both([1.0], [1.0])), weights(answer_bias=of_both([4.0], [2.0]))
        both = StrikeNetwork({name: np.concatenate([one[name], other[name]]) for name in one})
        np.testing.assert_allclose(both.moves(NOTHING_KNOWN, AROUND), np.tile([[0.025, 15.0]], (4, 1)), atol=1e-6)


class TestLoad:
    def test_a_file_of_ones_own(self, tmp_path):
        np.savez(tmp_path / "mine.npz", **weights(answer_bias=of_both([2.0], [-0.5])))
        network = strike_network.load(str(tmp_path / "mine.npz"), "strikes", ("pianos",), NUM_OWN)
        np.testing.assert_allclose(network.moves(NOTHING_KNOWN, AROUND)[0], [0.02, -5.0], atol=1e-6)

    @pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04 cut short", None])
    def test_what_is_none_is_refused_in_one_line(self, tmp_path, content):
        if content is not None:
            (tmp_path / "odd.npz").write_bytes(content)
        due = r"predict_strikes=.*odd\.npz: is neither pianos nor a file by scripts/fit_strikes"
        with pytest.raises(PolyampError, match=due):
            strike_network.load(str(tmp_path / "odd.npz"), "strikes", ("pianos",), NUM_OWN)

    @pytest.mark.parametrize(
        "changes",
        [
            {"pair": np.zeros((2, 3, 3))},
            {"interval": np.zeros((2, 40, 2))},
            {"interval": np.zeros((2, 99, 2))},
            {"second_bias": np.full((2, 2), np.nan)},
            {"means": np.zeros((strike_network.HEADS, 1))},
            {"of_note": np.zeros((2, NUM_OWN + 1, 2))},  # Which knows other numbers.
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, tmp_path, changes):
        np.savez(tmp_path / "odd.npz", **weights(**changes))
        with pytest.raises(PolyampError, match="predict_strikes"):
            strike_network.load(str(tmp_path / "odd.npz"), "strikes", ("pianos",), NUM_OWN)
