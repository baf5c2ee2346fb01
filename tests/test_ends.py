"""polyamp.notes.ends: at which times notes may end, worked out by hand, and that the best of them by the network is taken."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyamp import notes
from polyamp.errors import PolyampError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes, context, end_candidates, ends
from polyamp.transcriber import Transcriber

RATE = 32.0
HPARAMS = MelodicHParams(hop_length=500, onset_peak_picking=True, onset_refinement=True, predict_offset_weight=12.0)


def silence(seconds=8.0):
    return {name: np.zeros((round(seconds * RATE), 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}


def random_rolls(seed, num_frames=100):
    rng = np.random.default_rng(seed)
    rolls = {name: rng.random((num_frames, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    return rolls | {"onset": rolls["onset"] ** 8}


def seconds_of(found, note):
    return found.seconds[found.note == note].tolist()


def weights(**given):
    """Those of a network that gives everything a score of 0, but for some."""
    width, hidden = 2, 4
    shapes = {
        "heard_mean": (end_candidates.NUM_HEARD,),
        "heard_deviation": (end_candidates.NUM_HEARD,),
        "interval": (2 * ends.MAX_INTERVAL + 1, width),
        "known": (ends.NUM_KNOWN, width),
        "between": (ends.NUM_BETWEEN, width),
        "pair": (width, width),
        "pair_bias": (width,),
        "first": (end_candidates.NUM_HEARD + 2 * width, hidden),
        "first_bias": (hidden,),
        "second": (hidden, 2),
        "second_bias": (2,),
        "score": (2, 1),
        "score_bias": (1,),
    }
    nothing = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} | {
        "heard_deviation": np.ones(end_candidates.NUM_HEARD)
    }
    return {name: np.asarray(array)[np.newaxis] for name, array in (nothing | given).items()}


class TestCandidates:
    def test_the_likely_end_then_where_others_begin_then_peaks_of_the_offset_roll(self):
        rolls = silence()
        rolls["offset"][round(1.5 * RATE), 60 - 21] = 0.3
        rolls["offset"][round(3.5 * RATE), 60 - 21] = 0.02  # Hardly one.
        rolls["offset"][round(1.5 * RATE), 62 - 21] = 0.9  # Of another pitch.
        found = end_candidates.candidates(Notes.of([0.0, 1.0, 2.0], [3.0, 1.2, 4.0], [60, 64, 67]), rolls, HPARAMS)
        assert seconds_of(found, 0) == [3.0, 1.0, 2.0, 1.5]
        assert seconds_of(found, 1) == [1.2, 2.0]
        assert seconds_of(found, 2) == [4.0]
        assert (np.diff(found.note) >= 0).all()

    def test_none_is_later_than_the_next_onset_of_the_pitch(self):
        melody = Notes.of([0.0, 1.0, 2.0, 3.0], [0.5, 1.5, 2.5, 3.5], [60, 62, 60, 62])
        found = end_candidates.candidates(melody, silence(), HPARAMS)
        assert seconds_of(found, 0) == [0.5, 1.0, 2.0] and seconds_of(found, 1) == [1.5, 2.0, 3.0]

    def test_what_begins_together_is_one(self):
        found = end_candidates.candidates(
            Notes.of([0.0, 1.0, 1.01, 1.02], [0.5, 2, 2, 2], [60, 64, 67, 72]), silence(), HPARAMS
        )
        assert seconds_of(found, 0) == [0.5, 1.0]

    def test_of_two_that_are_nearly_the_same_one_counts(self):
        rolls = silence()
        rolls["offset"][round(2.0 * RATE), 60 - 21] = 0.9
        found = end_candidates.candidates(Notes.of([0.0, 0.98, 2.01], [1.0, 2.5, 3.0], [60, 64, 67]), rolls, HPARAMS)
        assert seconds_of(found, 0) == [1.0, 2.01]

    def test_an_offset_beside_a_beginning_that_is_too_far_is_one_by_itself(self):
        others = np.arange(1, 40) / 8
        rolls = silence()
        rolls["offset"][round(4.0 * RATE), 60 - 21] = 0.9
        melody = Notes.of([0.0, *others], [6.0, *others + 0.1], [60, *(70 + np.arange(39) % 2)])
        found = seconds_of(end_candidates.candidates(melody, rolls, HPARAMS), 0)
        assert found[0] == 6.0 and found[1:-1] == others[: len(found) - 2].tolist() and found[-1] == 4.0

    def test_a_plateau_is_one_peak(self):
        rolls = silence()
        rolls["offset"][32:40, 60 - 21] = 0.9
        assert seconds_of(end_candidates.candidates(Notes.of([0.0], [3.0], [60]), rolls, HPARAMS), 0) == [3.0, 1.0]

    def test_no_farther_than_six_seconds_unless_likely(self):
        found = end_candidates.candidates(Notes.of([0.0, 5.0, 7.0], [9.5, 5.5, 9.0], [60, 64, 67]), silence(10.0), HPARAMS)
        assert seconds_of(found, 0) == [9.5, 5.0]

    def test_none_makes_a_note_shorter_than_notes_may_be(self):
        melody = Notes.of([0.0, 0.06, 0.2], [1.0, 0.5, 1.0], [60, 64, 67])
        assert seconds_of(end_candidates.candidates(melody, silence(), HPARAMS), 0) == [1.0, 0.06, 0.2]
        longer = dataclasses.replace(HPARAMS, min_note_ms=100.0)
        assert seconds_of(end_candidates.candidates(melody, silence(), longer), 0) == [1.0, 0.2]

    def test_what_is_heard_there(self):
        rolls = silence()
        pitch = 60 - 21
        rolls["frame"][:64, pitch] = 0.9
        rolls["frame"][32:, pitch] = 0.4
        rolls["offset"][64, pitch], rolls["offset"][64, 3] = 0.5, 0.25
        rolls["onset"][32, 10] = 0.8
        found = end_candidates.candidates(Notes.of([0.0, 1.0], [2.0, 3.0], [60, 64], [70, 50]), rolls, HPARAMS)
        likely, begins = found.heard[found.note == 0]
        log_odds = np.log(0.4 / 0.6)
        after_one = 12 * np.log(1e-4) - (32 * log_odds + 12 * np.log(0.5))
        # From frame to frame the odds fall by 0.4, so the best of three frames is that before.
        assert begins[0] == pytest.approx(after_one, rel=1e-4) and likely[0] == 0
        assert likely[1] == pytest.approx(np.log(0.5), abs=1e-3) and begins[1] == pytest.approx(np.log(1e-4), rel=1e-3)
        assert begins[2:8] == pytest.approx([0.9, 0.9, 0.9, 0.4, 0.4, 0.4])
        assert begins[8] == pytest.approx(-32 * log_odds / 10, rel=1e-4) and likely[8] == 0
        assert likely[9:12] == pytest.approx([0.75, 0, 0]) and begins[9:12] == pytest.approx([0, 0.8, 0.8])
        assert likely[12:] == pytest.approx([2, np.log(2), 5, 70, 60, 0, 1])
        assert begins[12:] == pytest.approx([1, 0, 5, 70, 60, -1, 0])

    def test_notes_that_were_moved_are_heard_where_they_are_in_the_rolls(self):
        rolls = silence()
        rolls["offset"][64, 60 - 21] = 0.9
        moved = dataclasses.replace(HPARAMS, onset_bias_ms=250.0)
        found = end_candidates.candidates(Notes.of([0.0], [1.0], [60]), rolls, moved)
        assert seconds_of(found, 0) == [1.0, 1.75]
        assert found.heard[1, 1] == pytest.approx(np.log(0.9), abs=1e-3)

    @settings(deadline=None, max_examples=20)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_every_note_has_its_likely_end_first(self, seed):
        rolls = random_rolls(seed)
        found = notes.from_rolls(rolls, HPARAMS)
        may_end = end_candidates.candidates(found, rolls, HPARAMS)
        first = np.searchsorted(may_end.note, np.arange(len(found)))
        np.testing.assert_array_equal(may_end.seconds[first], found.offset)
        assert (np.diff(may_end.note) >= 0).all() and np.isfinite(may_end.heard).all()
        assert (may_end.seconds > found.onset[may_end.note]).all()


class TestAround:
    def test_notes_before_and_after(self):
        melody = Notes.of([0.0, 1.0, 3.0], [0.5, 2.0, 3.5], [60, 64, 55], [30, 90, 60])
        near = ends.around(melody, np.arange(3))
        assert near.shape == (3, ends.BEFORE + ends.AFTER, context.NUM_AROUND)
        assert near[1, ends.BEFORE - 1].tolist() == [-1.0, -0.5, -4.0, -2.0, 1.0]
        assert near[1, ends.BEFORE].tolist() == [2.0, 2.5, -9.0, -1.0, 1.0]
        assert near[..., 4].sum(axis=1).tolist() == [2, 2, 2]


class TestNetwork:
    def test_the_best_is_taken_and_of_equal_ones_the_likely_end(self):
        rolls = silence()
        rolls["offset"][64, 60 - 21] = 0.9
        melody = Notes.of([0.0, 1.0], [3.0, 4.0], [60, 64])
        may_end = end_candidates.candidates(melody, rolls, HPARAMS)
        assert ends.likeliest(melody, may_end, ends.EndNetwork(weights()))[1].tolist() == [3.0, 4.0]
        first = np.zeros((end_candidates.NUM_HEARD + 4, 4), np.float32)
        first[1, 0] = 1.0  # What is heard of offsets.
        listening = weights(first=first, first_bias=np.full(4, 10.0), second=np.ones((4, 2)), score=np.ones((2, 1)))
        assert ends.likeliest(melody, may_end, ends.EndNetwork(listening))[1].tolist() == [2.0, 4.0]

    def test_a_voice_that_goes_on(self):
        # Of a note around, "between" says whether it begins there (first of its numbers), and "interval" how far it is.
        interval = np.full((2 * ends.MAX_INTERVAL + 1, 2), -1.0)
        interval[ends.MAX_INTERVAL + 2] = 0.0  # Only a tone above.
        between = np.zeros((ends.NUM_BETWEEN, 2))
        between[0] = 1.0
        first = np.zeros((end_candidates.NUM_HEARD + 4, 4))
        first[end_candidates.NUM_HEARD :] = 1.0
        network = ends.EndNetwork(
            weights(
                interval=interval, between=between, pair=np.eye(2), first=first, second=np.ones((4, 2)), score=np.ones((2, 1))
            )
        )
        melody = Notes.of([0.0, 1.0, 2.0, 3.0], [4.0, 4.0, 4.0, 4.0], [60, 48, 62, 65])
        may_end = end_candidates.candidates(melody, silence(), HPARAMS)
        assert ends.likeliest(melody, may_end, network)[1].tolist() == [2.0, 4.0, 4.0, 4.0]

    def test_the_mean_of_several_counts(self):
        one, other = weights(score_bias=np.full(1, 1.0)), weights(score_bias=np.full(1, 4.0))
        melody = Notes.of([0.0, 1.0], [3.0, 4.0], [60, 64])
        may_end = end_candidates.candidates(melody, silence(), HPARAMS)
        both = ends.EndNetwork({name: np.concatenate([one[name], other[name]]) for name in one})
        assert both.scores(melody, may_end).tolist() == [2.5] * len(may_end.note)

    def test_scores_do_not_depend_on_how_many_are_computed_at_once(self, monkeypatch):
        rolls = random_rolls(0)
        found = notes.from_rolls(rolls, HPARAMS)
        may_end, network = end_candidates.candidates(found, rolls, HPARAMS), ends.load("pianos")
        together = network.scores(found, may_end)
        monkeypatch.setattr(ends, "_PAIRS", 3 * (ends.BEFORE + ends.AFTER))
        np.testing.assert_allclose(network.scores(found, may_end), together, atol=1e-4)


class TestFromRolls:
    @settings(deadline=None, max_examples=20)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_ends_alone_change_and_notes_of_a_pitch_never_overlap(self, seed):
        rolls = random_rolls(seed)
        before = notes.from_rolls(rolls, HPARAMS)
        after = notes.from_rolls(rolls, dataclasses.replace(HPARAMS, predict_ends="pianos"))
        for name in ("onset", "pitch", "velocity", "program"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert (after.offset > after.onset).all()
        for pitch in np.unique(after.pitch):
            same = after[after.pitch == pitch]
            assert (same.onset[1:] >= same.offset[:-1]).all()

    def test_silence_has_no_notes(self):
        assert not len(notes.from_rolls(silence(), dataclasses.replace(HPARAMS, predict_ends="pianos")))

    @pytest.mark.parametrize("kind", [bool, np.float16])
    def test_rolls_of_other_types_are_as_good(self, kind):
        rolls = {name: (roll > 0.9).astype(kind) for name, roll in random_rolls(1).items()}
        hparams = dataclasses.replace(HPARAMS, predict_ends="pianos")
        as_floats = notes.from_rolls({name: roll.astype(np.float32) for name, roll in rolls.items()}, hparams)
        decoded = notes.from_rolls(rolls, hparams)
        np.testing.assert_allclose(decoded.offset, as_floats.offset, atol=1e-5)
        assert (decoded.offset != notes.from_rolls(rolls, HPARAMS).offset).mean() > 0.1

    def test_what_is_no_number_is_no_evidence(self):
        rolls, without = random_rolls(3), random_rolls(3)
        for name in ("onset", "offset", "frame"):
            rolls[name][10:40:3, 60:] = np.nan
            without[name][10:40:3, 60:] = 0.0
        hparams = dataclasses.replace(HPARAMS, predict_ends="pianos")
        found = notes.from_rolls(without, HPARAMS)
        told = [ends.with_likelier_ends(found, some, hparams).offset for some in (rolls, without)]
        np.testing.assert_array_equal(*told)
        assert (told[0] != found.offset).any()

    def test_notes_at_both_borders(self):
        rolls = silence(2.0)
        for frame, pitch in ((0, 10), (63, 12)):
            rolls["onset"][frame, pitch] = rolls["frame"][frame, pitch] = 0.9
        moved = dataclasses.replace(HPARAMS, predict_ends="pianos", onset_bias_ms=20.0, onset_refinement=False)
        decoded = notes.from_rolls(rolls, moved)
        assert decoded.onset.tolist() == [0.0, 63 / 32 - 0.02]
        assert (decoded.offset > decoded.onset).all() and decoded.offset.max() <= 2.0


class TestLoad:
    def test_a_file_of_ones_own(self, tmp_path):
        np.savez(tmp_path / "mine.npz", **weights())
        rolls = random_rolls(2)
        mine = dataclasses.replace(HPARAMS, predict_ends=str(tmp_path / "mine.npz"))
        np.testing.assert_array_equal(notes.from_rolls(rolls, mine).offset, notes.from_rolls(rolls, HPARAMS).offset)

    @pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04 cut short", None])
    def test_what_is_none_is_refused_in_one_line(self, tmp_path, content):
        if content is not None:
            (tmp_path / "ends.npz").write_bytes(content)
        with pytest.raises(PolyampError, match=r"predict_ends=.*ends\.npz: is neither pianos nor a file by scripts/fit_ends"):
            ends.load(str(tmp_path / "ends.npz"))

    def test_a_single_array_is_refused(self, tmp_path):
        np.save(tmp_path / "ends.npy", np.zeros(3))
        with pytest.raises(PolyampError, match="predict_ends"):
            ends.load(str(tmp_path / "ends.npy"))

    @pytest.mark.parametrize(
        "changes",
        [
            {"pair": np.zeros((3, 3))},
            {"interval": np.zeros((40, 2))},
            {"second_bias": np.full(2, np.nan)},
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, tmp_path, changes):
        np.savez(tmp_path / "odd.npz", **weights(**changes))
        with pytest.raises(PolyampError, match="predict_ends"):
            ends.load(str(tmp_path / "odd.npz"))

    def test_a_file_without_networks_is_refused(self, tmp_path):
        np.savez(tmp_path / "none.npz")
        with pytest.raises(PolyampError, match="there is no network"):
            ends.load(str(tmp_path / "none.npz"))

    def test_found_out_before_anything_is_heard(self):
        with pytest.raises(PolyampError, match="predict_ends=missing.npz"):
            Transcriber.load("MELODIC", predict_ends="missing.npz")
        assert Transcriber.load("AUTOREGRESSIVE", predict_ends="missing.npz")  # Which does not use it.
