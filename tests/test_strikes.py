"""polyamp.notes.strikes: what networks see of notes and say of them, worked out by hand, and what becomes of the notes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyamp import checkpoint, notes
from polyamp.errors import PolyampError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes, context, strikes
from polyamp.transcriber import Transcriber

RATE = 32.0
HPARAMS = MelodicHParams(hop_length=500, onset_peak_picking=True, onset_refinement=True, predict_offset_weight=12.0)
PIANOS = dataclasses.replace(HPARAMS, predict_strikes="pianos")
CHORD = Notes.of([1.0, 1.0, 1.04, 2.0], [1.9, 1.9, 1.9, 2.5], [48, 60, 64, 62], [60, 60, 30, 90])


def silence(seconds=4.0):
    return {name: np.zeros((round(seconds * RATE), 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}


def random_rolls(seed, num_frames=100):
    rng = np.random.default_rng(seed)
    rolls = {name: rng.random((num_frames, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    return rolls | {"onset": rolls["onset"] ** 8}


def test_moves_do_not_depend_on_how_many_are_computed_at_once(monkeypatch):
    rolls = random_rolls(0)
    decoded = notes.from_rolls(rolls, PIANOS)
    monkeypatch.setattr(strikes, "_STEP", 3)
    few_at_once = notes.from_rolls(rolls, PIANOS)
    np.testing.assert_allclose(few_at_once.onset, decoded.onset, atol=1e-6)
    np.testing.assert_allclose(few_at_once.velocity, decoded.velocity, atol=1)  # Rounded.


class TestOwn:
    def test_what_the_rolls_say_around_the_onset(self):
        rolls = silence()
        rolls["onset"][32:35, 60 - 21] = [0.5, 0.9, 0.1]
        rolls["frame"][33:37, 60 - 21] = [0.9, 0.8, 0.7, 0.5]
        rolls["velocity"][32:36, 60 - 21] = [0.2, 0.5, 0.6, np.nan]
        found = Notes.of([33 / RATE], [33 / RATE + 0.5], [60], [64])
        log_odds = [np.log(p / (1 - p)) / 4 for p in (0.5, 0.9, 0.1, 0.9, 0.8, 0.5)]
        expected = [4 / 30, 0.5, *((127 * np.array([0.2, 0.5, 0.6, 0.0]) - 64) / 30), *log_odds]
        np.testing.assert_allclose(strikes.own(found, rolls, HPARAMS)[0], expected, atol=1e-5)
        moved = dataclasses.replace(HPARAMS, onset_bias_ms=250.0)
        earlier = dataclasses.replace(found, onset=found.onset - 0.25, offset=found.offset - 0.25)
        np.testing.assert_allclose(strikes.own(earlier, rolls, moved)[0], expected, atol=1e-5)

    def test_at_the_borders_of_the_recording(self):
        found = Notes.of([0.0, 3.9], [1.0, 4.0], [21, 108])
        assert np.isfinite(strikes.own(found, silence(), HPARAMS)).all()


def moved(found, later=0.0, louder=0.0, hparams=HPARAMS, monkeypatch=None, enough=1):
    """What becomes of notes, of which each is moved by so many seconds and units of velocity; of fewer than enough, by less."""

    class Network:
        def moves(self, own, around):
            return np.stack(np.broadcast_arrays(np.asarray(later, float), louder, np.zeros(len(own)))[:2], axis=-1)

    monkeypatch.setattr(strikes, "load", lambda which: Network())
    monkeypatch.setattr(strikes, "AFTER", enough)
    return strikes.as_struck(found, silence(), hparams)


class TestAsStruck:
    def test_onsets_and_velocities_move_and_the_notes_stay_sorted(self, monkeypatch):
        after = moved(CHORD, [0.0, 0.05, -0.02, 0.0], [-100, 0, 3.4, 96.6], monkeypatch=monkeypatch)
        assert after.onset == pytest.approx([1.0, 1.02, 1.05, 2.0])
        assert after.pitch.tolist() == [48, 64, 60, 62] and after.velocity.tolist() == [30, 33, 60, 120]
        assert after.offset.tolist() == [1.9, 1.9, 1.9, 2.5]

    def test_a_note_that_begins_earlier_ends_the_one_before(self, monkeypatch):
        again = Notes.of([1.0, 2.0, 5.0], [2.0, 3.0, 6.0], [60, 60, 60])
        after = moved(again, [0.0, -0.04, 0.0], monkeypatch=monkeypatch)
        assert after.onset.tolist() == [1.0, 1.96, 5.0] and after.offset.tolist() == [1.96, 3.0, 6.0]

    def test_nothing_begins_before_the_recording_does_or_becomes_too_short(self, monkeypatch):
        short = Notes.of([0.01, 1.0], [0.5, 1.05], [60, 64])
        assert moved(short, [-0.1, 0.1], monkeypatch=monkeypatch).onset == pytest.approx([0.0, 1.02])
        longer = dataclasses.replace(HPARAMS, min_note_ms=45.0)
        assert moved(short, [-0.1, 0.1], hparams=longer, monkeypatch=monkeypatch).onset == pytest.approx([0.0, 1.005])

    def test_repetitions_keep_to_their_side_of_the_middle(self, monkeypatch):
        again = Notes.of([1.0, 1.1], [1.1, 1.5], [60, 60])
        after = moved(again, [0.15, -0.15], monkeypatch=monkeypatch)
        assert after.onset == pytest.approx([1.035, 1.065]) and after.offset == pytest.approx([1.065, 1.5])

    def test_what_ended_where_a_note_began_does_so_still(self, monkeypatch):
        again = Notes.of([1.0, 2.0, 3.0], [2.0, 2.9, 4.0], [60, 60, 60])
        after = moved(again, [0.0, 0.04, 0.0], monkeypatch=monkeypatch)
        assert after.onset == pytest.approx([1.0, 2.04, 3.0]) and after.offset == pytest.approx([2.04, 2.9, 4.0])

    def test_on_the_whole_notes_stay_when_and_as_loud_as_they_were(self, monkeypatch):
        after = moved(CHORD, [0.03, 0.03, 0.03, 0.05], [5, 5, 5, 13], monkeypatch=monkeypatch)
        assert after.onset == pytest.approx([1.0, 1.0, 1.04, 2.02]) and after.velocity.tolist() == [58, 58, 28, 96]

    def test_by_no_more_than_a_tenth_of_a_second_and_thirty_units(self, monkeypatch):
        after = moved(Notes.of([1.0, 2.0], [1.9, 2.9], [60, 64], [50, 60]), [0.5, -0.5], [90, -50], monkeypatch=monkeypatch)
        assert after.onset == pytest.approx([1.1, 1.9]) and after.velocity.tolist() == [80, 30]

    @pytest.mark.parametrize(("count", "share"), [(1, 0.0), (6, 0.25), (22, 1.0), (40, 1.0)])
    def test_few_notes_are_moved_by_less(self, monkeypatch, count, share):
        sign = np.where(np.arange(count) % 2, -1, 1)
        found = Notes.of(np.arange(count) + 1.0, np.arange(count) + 1.5, np.full(count, 60), np.full(count, 50))
        after = moved(found, 0.04 * sign, 20 * sign, monkeypatch=monkeypatch, enough=20)
        assert after.onset == pytest.approx(found.onset + 0.04 * share * sign)
        assert after.velocity.tolist() == (50 + 20 * share * sign).tolist()

    def test_no_notes(self, monkeypatch):
        assert strikes.as_struck(Notes.empty(), silence(), PIANOS) == Notes.empty()


class TestFromRolls:
    @settings(deadline=None, max_examples=20)
    @given(seed=st.integers(0, 2**32 - 1), least=st.sampled_from([0.0, 60.0]), bias=st.sampled_from([-10.0, 0.0, 40.0]))
    def test_notes_of_a_pitch_never_overlap_and_none_is_lost(self, seed, least, bias):
        rolls = random_rolls(seed)
        plain = dataclasses.replace(HPARAMS, min_note_ms=least, onset_bias_ms=bias)
        before, after = (notes.from_rolls(rolls, dataclasses.replace(plain, predict_strikes=which)) for which in ("", "pianos"))
        assert sorted(after.pitch) == sorted(before.pitch) and (np.diff(after.onset) >= 0).all()
        assert (after.onset >= 0).all() and (after.offset > after.onset).all()
        shorter = [np.count_nonzero(some.offset - some.onset < least / 1000) for some in (before, after)]
        assert shorter[1] <= shorter[0]
        assert (after.onset != np.sort(before.onset)).mean() > 0.5
        for pitch in np.unique(after.pitch):
            same = after[after.pitch == pitch]
            assert (same.onset[1:] >= same.offset[:-1]).all()

    def test_instead_of_smoothed_velocities(self):
        rolls = random_rolls(1)
        smooth = dataclasses.replace(PIANOS, velocity_smoothing=0.9)
        assert notes.from_rolls(rolls, smooth) == notes.from_rolls(rolls, PIANOS)
        assert "velocity_smoothing" in smooth.unused() and "velocity_smoothing" not in HPARAMS.unused()

    def test_ends_are_chosen_after_onsets(self):
        rolls = random_rolls(2)
        both = notes.from_rolls(rolls, dataclasses.replace(PIANOS, predict_ends="pianos"))
        alone = notes.from_rolls(rolls, PIANOS)
        assert both.onset.tolist() == alone.onset.tolist() and both.offset.tolist() != alone.offset.tolist()

    @pytest.mark.parametrize("kind", [bool, np.float16])
    def test_rolls_of_other_types_are_as_good(self, kind):
        rolls = {name: (roll > 0.9).astype(kind) for name, roll in random_rolls(1).items()}
        as_floats = notes.from_rolls({name: roll.astype(np.float32) for name, roll in rolls.items()}, PIANOS)
        decoded = notes.from_rolls(rolls, PIANOS)
        assert decoded.pitch.tolist() == as_floats.pitch.tolist() and len(as_floats)
        for name in ("onset", "offset", "velocity"):
            np.testing.assert_allclose(getattr(decoded, name), getattr(as_floats, name), atol=1e-3)

    def test_a_soft_note_of_a_chord_begins_with_the_others(self):
        # Four-part chords every half second; one note of one chord comes a frame late, and softer.
        rolls = silence(12.0)
        for frame in range(16, 368, 16):
            for pitch in (48, 60, 64, 67):
                late = 1 if (frame, pitch) == (176, 64) else 0
                at = frame + late, pitch - 21
                rolls["onset"][at], rolls["velocity"][at] = 0.9, 0.3 if late else 0.5
                rolls["frame"][at[0] : frame + 14, pitch - 21] = 0.9
                rolls["offset"][frame + 14, pitch - 21] = 0.9
        before, after = (notes.from_rolls(rolls, hparams) for hparams in (HPARAMS, PIANOS))
        late, others = after[np.abs(after.onset - 5.53) < 0.08], after[np.abs(after.onset - 5.53) >= 0.08]
        assert before.onset[before.velocity < 50].tolist() == [177 / RATE]
        assert len(late) == 4 and late.onset[late.pitch == 64] - late.onset.min() < 0.8 / RATE
        assert late.velocity[late.pitch == 64] > 45  # Heard as 38, and the others as 64.
        assert np.abs(others.onset - np.round(2 * others.onset) / 2).max() < 0.02


class TestLoad:
    def test_a_file_of_ones_own(self, tmp_path):
        with np.load(Path(strikes.__file__).with_name("strikes_pianos.npz")) as file:
            nothing = {name: np.zeros_like(array) for name, array in file.items()}
        np.savez(tmp_path / "mine.npz", **nothing)
        mine = dataclasses.replace(HPARAMS, predict_strikes=str(tmp_path / "mine.npz"))
        rolls = random_rolls(2)
        assert notes.from_rolls(rolls, mine) == notes.from_rolls(rolls, HPARAMS)

    @pytest.mark.parametrize("other", ["ends_pianos.npz", "running_strikes_pianos.npz"])
    def test_networks_for_something_else_are_refused(self, other):
        with pytest.raises(PolyampError, match="predict_strikes"):
            strikes.load(str(Path(strikes.__file__).with_name(other)))

    def test_found_out_before_anything_is_heard(self):
        for kind in ("MELODIC", "AUTOREGRESSIVE"):
            with pytest.raises(PolyampError, match="predict_strikes=missing.npz"):
                Transcriber.load(kind, predict_strikes="missing.npz")
        assert checkpoint.locate("TIMBRE", overrides={"predict_strikes": "missing.npz"})  # Which does not use it.


def test_the_notes_around_are_those_of_the_context():
    near = strikes.around(CHORD)
    assert near.shape == (4, strikes.BEFORE + strikes.AFTER, context.NUM_AROUND)
    assert near[0, strikes.BEFORE].tolist() == pytest.approx([0.0, 0.9, 12.0, 0.0, 1.0])
