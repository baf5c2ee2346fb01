"""The decoder, against note-seq for the published semantics and by hand for what goes beyond."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from note_seq import sequences_lib

from polyamp import notes
from polyamp.errors import HParamsError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes

HOP = 500  # 32 frames a second: frame times are exact in binary.
PEAKS = MelodicHParams(hop_length=HOP, onset_peak_picking=True)
REFINED = MelodicHParams(hop_length=HOP, onset_mode="triangle", onset_peak_picking=True, onset_refinement=True)


def column_rolls(pitch=60, **columns):
    """Rolls with the given sequences at one pitch; absent ones are 0."""
    length = max(map(len, columns.values()))
    rolls = {name: np.zeros((length, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    for name, values in columns.items():
        rolls[name][: len(values), pitch - 21] = values
    return rolls


def spans(decoded):
    """(start, end) in frames."""
    return list(zip((decoded.onset * 32).tolist(), (decoded.offset * 32).tolist(), strict=True))


thresholds = st.sampled_from([0.0, 0.3, 0.5, 0.9])


class TestAgainstNoteSeq:
    @settings(max_examples=50, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        frames=st.integers(1, 30),
        sharpness=st.sampled_from([0.3, 1.0, 3.0]),
        onset_threshold=thresholds,
        offset_threshold=thresholds,
        frame_threshold=st.sampled_from([0.2, 0.5, 0.9]),
        active_threshold=thresholds,
        min_note_ms=st.sampled_from([0.0, 64.0, 100.0]),
        hop=st.sampled_from([512, 256, 441]),
    )
    def test_equal_for_any_rolls(
        self, seed, frames, sharpness, onset_threshold, offset_threshold, frame_threshold, active_threshold, min_note_ms, hop
    ):
        rng = np.random.default_rng(seed)
        names = ("onset", "offset", "frame", "velocity")
        rolls = {name: rng.random((frames, 88), np.float32) ** sharpness for name in names}
        hparams = MelodicHParams(
            hop_length=hop,
            predict_onset_threshold=onset_threshold,
            predict_offset_threshold=offset_threshold,
            predict_frame_threshold=frame_threshold,
            active_onset_threshold=active_threshold,
            min_note_ms=min_note_ms,
        )
        active = rolls["frame"] > frame_threshold
        if onset_threshold and active_threshold:
            active |= rolls["onset"] > active_threshold
        expected = sequences_lib.pianoroll_to_note_sequence(
            active,
            frames_per_second=hparams.frames_per_second,
            min_duration_ms=min_note_ms,
            onset_predictions=rolls["onset"] > onset_threshold if onset_threshold else None,
            offset_predictions=rolls["offset"] > offset_threshold if offset_threshold else None,
            velocity_values=rolls["velocity"],
            velocity_scale=127,
            velocity_bias=0,
            min_midi_pitch=21,
        )
        decoded = notes.from_rolls(rolls, hparams)
        rows = sorted((n.start_time, n.pitch, n.end_time, n.velocity) for n in expected.notes)
        assert decoded.onset.tolist() == [row[0] for row in rows]
        assert decoded.pitch.tolist() == [row[1] for row in rows]
        assert decoded.offset.tolist() == [row[2] for row in rows]
        if onset_threshold:  # Without onsets note-seq leaves velocities at 0; with them it cuts where this decoder rounds.
            assert np.abs(decoded.velocity - [row[3] for row in rows]).max(initial=0) <= 1


class TestSwitches:
    rolls = column_rolls(
        onset=[0, 0.9, 0, 0, 0.9, 0, 0, 0], frame=[0.9, 0.9, 0.9, 0, 0, 0.9, 0.9, 0], offset=[0] * 6 + [0.9, 0]
    )

    def decode(self, **settings):
        return spans(notes.from_rolls(self.rolls, MelodicHParams(hop_length=HOP, **settings)))

    def test_all_inputs(self):
        assert self.decode() == [(1, 3), (4, 6)]

    def test_without_offsets(self):
        assert self.decode(predict_offset_threshold=0.0) == [(1, 3), (4, 7)]

    def test_without_onsets_their_roll_is_not_read(self):
        assert self.decode(predict_onset_threshold=0.0) == [(0, 3), (5, 6)]

    def test_without_frames_notes_last_until_offset_or_onset(self):
        assert self.decode(predict_frame_threshold=0.0) == [(1, 4), (4, 6)]
        assert self.decode(predict_frame_threshold=0.0, predict_offset_threshold=0.0) == [(1, 4), (4, 8)]

    def test_active_onset_threshold_bridges_weak_onsets(self):
        rolls = column_rolls(onset=[0, 0.9, 0.4, 0.4, 0], frame=[0, 0.9, 0, 0.9, 0])
        for threshold, expected in ((0.5, [(1, 2)]), (0.3, [(1, 4)]), (0.0, [(1, 2)])):
            assert spans(notes.from_rolls(rolls, MelodicHParams(hop_length=HOP, active_onset_threshold=threshold))) == expected

    def test_neither_onsets_nor_frames_is_an_error(self):
        with pytest.raises(HParamsError, match=r"predict_onset_threshold and predict_frame_threshold"):
            self.decode(predict_onset_threshold=0.0, predict_frame_threshold=0.0)

    def test_rolls_may_be_bool_and_none_may_be_missing(self):
        rng = np.random.default_rng(0)
        rolls = {name: rng.random((50, 88)) > 0.8 for name in ("onset", "offset", "frame", "velocity")}
        as_numbers = {name: roll.astype(np.float32) for name, roll in rolls.items()}
        for one in (likely(onset_peak_picking=True, onset_refinement=True), MelodicHParams()):
            assert len(notes.from_rolls(rolls, one)) > 100
            assert notes.from_rolls(rolls, one) == notes.from_rolls(as_numbers, one)
        del rolls["offset"]
        with pytest.raises(ValueError, match="offset is missing"):
            notes.from_rolls(rolls, MelodicHParams())

    def test_shapes_are_checked(self):
        with pytest.raises(ValueError, match="88"):
            notes.from_rolls(self.rolls | {"frame": np.zeros((3, 88))}, MelodicHParams())

    def test_no_frames_no_notes(self):
        empty = {name: np.zeros((0, 88), np.float32) for name in self.rolls}
        for hparams in (
            MelodicHParams(),
            REFINED,
            dataclasses.replace(REFINED, predict_ends="pianos", predict_strikes="pianos"),
        ):
            assert notes.from_rolls(empty, hparams) == Notes.empty()


@pytest.mark.parametrize(("value", "midi"), [(0.0, 1), (0.5, 64), (1.0, 127), (1.7, 127), (-3.0, 1), (np.nan, 1)])
def test_velocity_is_read_at_the_onset(value, midi):
    rolls = column_rolls(onset=[0, 0.9, 0.9], frame=[0, 0.9, 0.9], velocity=[0.1, value, 0.2])
    assert notes.from_rolls(rolls, MelodicHParams()).velocity.tolist() == [midi]


class TestPeakPicking:
    @pytest.mark.parametrize(
        ("onset", "starts"),
        [
            ([0.1, 0.6, 0.9, 0.7, 0.2, 0], [2]),  # One peak several frames wide.
            ([0.6, 0.9, 0.6, 0.6, 0.9, 0.6], [1, 4]),  # Two peaks three frames apart, never below the threshold between.
            ([0.9, 0.8, 0.85, 0.6, 0, 0], [0]),  # A ripple two frames after the peak.
            ([0.1, 0.9, 0.9, 0.1, 0, 0], [1]),  # A plateau: its first frame.
            ([0.1, 1, 1, 1, 1, 1], [1]),
            ([0.9, 0.9, 0.9, 0.9, 0.95, 0.1], [4]),  # A step on the way up is no peak.
            ([0.9, 0.1, 0, 0, 0, 0.9], [0, 5]),  # Peaks at the borders of the clip.
            ([0.1, 0.4, 0.49, 0.4, 0, 0], []),  # Below the threshold.
        ],
    )
    def test_local_maxima(self, onset, starts):
        decoded = notes.from_rolls(column_rolls(onset=onset, frame=[0.9] * 6), PEAKS)
        assert (decoded.onset * 32).tolist() == starts

    def test_pitches_do_not_mix(self):
        rolls = column_rolls(pitch=60, onset=[0.9, 0.1, 0, 0.1, 0.8], frame=[0.9] * 5)
        rolls["onset"][:, 40] = [0.95, 0.1, 0, 0.1, 0.7]
        decoded = notes.from_rolls(rolls, PEAKS)
        assert sorted(zip(decoded.pitch.tolist(), spans(decoded), strict=True)) == [
            (60, (0, 4)),
            (60, (4, 5)),
            (61, (0, 1)),
            (61, (4, 5)),
        ]

    def test_offset_is_its_peak_and_belongs_to_the_note_before(self):
        rolls = column_rolls(
            onset=[0, 0.9, 0, 0, 0, 0.9, 0, 0, 0, 0],
            frame=[0.9] * 10,
            offset=[0, 0, 0, 0, 0.6, 0.9, 0.6, 0.6, 0.9, 0.6],
        )
        assert spans(notes.from_rolls(rolls, PEAKS)) == [(1, 5), (5, 8)]


class TestRefinement:
    @settings(max_examples=60, deadline=None)
    @given(onset=st.floats(3, 6), length=st.floats(4, 20), height=st.floats(0.65, 1))
    def test_triangular_targets_give_back_exact_times(self, onset, length, height):
        truth = Notes.of([onset / 32], [(onset + length) / 32], [60], [100])
        rolls = notes.to_rolls(truth, 40, REFINED)
        decoded = notes.from_rolls(rolls | {"onset": rolls["onset"] * np.float32(height)}, REFINED)
        assert len(decoded) == 1 and decoded.velocity[0] == 100
        # `_MAX_SHIFT` costs a hundredth of a frame where the peak lies midway.
        assert decoded.onset[0] * 32 == pytest.approx(onset, abs=0.011)
        assert decoded.offset[0] * 32 == pytest.approx(onset + length, abs=0.011)

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        sharpness=st.sampled_from([0.3, 1.0]),
        offsets=st.booleans(),
        picking=st.booleans(),
        weight=st.sampled_from([0.0, 1.0, 12.0]),
    )
    def test_notes_of_a_pitch_never_overlap(self, seed, sharpness, offsets, picking, weight):
        rng = np.random.default_rng(seed)
        rolls = {name: rng.random((60, 88), np.float32) ** sharpness for name in ("onset", "offset", "frame", "velocity")}
        decoded = notes.from_rolls(
            rolls,
            MelodicHParams(
                onset_refinement=True,
                onset_peak_picking=picking,
                predict_offset_threshold=0.5 if offsets else 0.0,
                predict_offset_weight=weight,
            ),
        )
        assert len(decoded) and (decoded.offset > decoded.onset).all() and (decoded.onset >= 0).all()
        for pitch in np.unique(decoded.pitch):
            same = decoded[decoded.pitch == pitch]
            assert (same.onset[1:] >= same.offset[:-1]).all()

    def test_peaks_at_the_borders_stay(self):
        rolls = column_rolls(onset=[0.9, 0.6, 0, 0, 0.6, 0.9], frame=[0.9] * 6)
        assert spans(notes.from_rolls(rolls, REFINED)) == [(0, 5), (5, 6)]


def likely(weight=10.0, **settings):
    """Settings with which notes end where it is most likely."""
    return MelodicHParams(**{"hop_length": HOP, "onset_peak_picking": True, "predict_offset_weight": weight} | settings)


def ends_one_by_one(rolls, hparams):
    """(pitch, start, end) in frames, each end the best of a list, as the definition has it."""
    expected = []
    for pitch in range(88):
        starts = np.flatnonzero(notes.from_rolls(rolls, PEAKS).pitch == pitch + 21)
        starts = np.rint(notes.from_rolls(rolls, PEAKS).onset[starts] * 32).astype(int)
        frame, offset = rolls["frame"][:, pitch].astype(float), [*rolls["offset"][:, pitch].astype(float), 0.0]
        threshold = hparams.predict_frame_threshold
        for start, limit in zip(starts, [*starts[1:], len(frame)], strict=True):
            scores = {}
            for end in range(start + 1, limit + 1):
                odds = [frame[t] / (1 - frame[t]) / (threshold / (1 - threshold)) for t in range(start, end)]
                scores[end] = np.sum(np.log(odds)) + hparams.predict_offset_weight * np.log(max(offset[end], 1e-4))
            expected.append((pitch + 21, start, max(scores, key=scores.get)))
    return expected


class TestMostLikelyEnds:
    @pytest.mark.parametrize("weight, threshold", [(0.5, 0.5), (3.0, 0.3), (12.0, 0.7)])
    def test_as_the_definition_has_it(self, weight, threshold):
        rng = np.random.default_rng(0)
        names = ("onset", "offset", "frame", "velocity")
        rolls = {name: rng.uniform(0.01, 0.99, (50, 88)).astype(np.float32) for name in names}
        hparams = likely(weight, predict_frame_threshold=threshold)
        decoded = notes.from_rolls(rolls, hparams)
        found = [(pitch, round(a), round(b)) for pitch, (a, b) in zip(decoded.pitch.tolist(), spans(decoded), strict=True)]
        assert sorted(found) == ends_one_by_one(rolls, hparams) and len(found) > 500

    @pytest.mark.parametrize("weight, expected", [(0.0, (1, 4)), (10.0, (1, 8))])
    def test_a_weak_frame_cuts_no_note_short(self, weight, expected):
        frame = [0, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1]
        rolls = column_rolls(onset=[0, 0.9], frame=frame, offset=[0] * 8 + [0.9, 0, 0])
        assert spans(notes.from_rolls(rolls, likely(weight))) == [expected]

    @pytest.mark.parametrize("weight, expected", [(0.0, (0, 3)), (10.0, (0, 7))])
    def test_a_doubtful_offset_gives_way_to_a_clear_one(self, weight, expected):
        rolls = column_rolls(onset=[0.9], frame=[0.8] * 7 + [0.2] * 3, offset=[0, 0, 0, 0.55, 0, 0, 0, 0.95, 0, 0])
        assert spans(notes.from_rolls(rolls, likely(weight))) == [expected]

    def test_an_offset_outweighs_frames_that_ring_on(self):
        rolls = column_rolls(onset=[0.9], frame=[0.9] * 4 + [0.6] * 6, offset=[0, 0, 0, 0, 0.9] + [0] * 5)
        assert spans(notes.from_rolls(rolls, likely(3.0))) == [(0, 4)]
        assert spans(notes.from_rolls(rolls, likely(3.0, predict_offset_threshold=0.0))) == [(0, 10)]

    def test_threshold_of_frames_says_what_counts_as_sounding(self):
        rolls = column_rolls(onset=[0.9], frame=[0.9] * 4 + [0.6] * 6, offset=[0.01] * 10)
        ends = [spans(notes.from_rolls(rolls, likely(1.0, predict_frame_threshold=t)))[0][1] for t in (0.5, 0.7)]
        assert ends == [9, 4]  # At the very end of the roll there is no offset.

    def test_notes_end_at_the_next_onset_of_their_pitch(self):
        rolls = column_rolls(onset=[0.9, 0, 0, 0, 0.9, 0, 0, 0, 0], frame=[0.9] * 7 + [0.1] * 2, offset=[0] * 7 + [0.9, 0])
        assert spans(notes.from_rolls(rolls, likely())) == [(0, 4), (4, 7)]

    def test_an_onset_in_the_last_frame_is_a_note(self):
        assert spans(notes.from_rolls(column_rolls(onset=[0, 0, 0.9], frame=[0, 0, 0.9]), likely())) == [(2, 3)]

    def test_without_peak_picking_an_onset_of_several_frames_is_one_note(self):
        rolls = column_rolls(onset=[0.9, 0.9, 0.9, 0, 0], frame=[0.9, 0.9, 0.9, 0.9, 0.1])
        assert spans(notes.from_rolls(rolls, likely(onset_peak_picking=False))) == [(0, 4)]

    @pytest.mark.parametrize("off", ["predict_onset_threshold", "predict_frame_threshold"])
    def test_without_onsets_or_frames_thresholds_end_notes(self, off):
        rolls = TestSwitches.rolls
        assert spans(notes.from_rolls(rolls, likely(**{off: 0.0}))) == spans(notes.from_rolls(rolls, likely(0.0, **{off: 0.0})))

    @pytest.mark.parametrize("roll", ["frame", "offset"])
    def test_what_is_no_number_is_no_evidence(self, roll):
        rolls = column_rolls(onset=[0.9] + [0] * 7, frame=[0.9] * 4 + [0.1] * 4, offset=[0.1] * 8)
        as_zero = {name: values.copy() for name, values in rolls.items()}
        rolls[roll][2:] = np.nan
        as_zero[roll][2:] = 0
        assert spans(notes.from_rolls(rolls, likely())) == spans(notes.from_rolls(as_zero, likely()))

    def test_refinement_gives_back_exact_times(self):
        truth = Notes.of([3.3 / 32], [17.8 / 32], [60], [100])
        decoded = notes.from_rolls(notes.to_rolls(truth, 40, REFINED), likely(onset_mode="triangle", onset_refinement=True))
        assert decoded.onset * 32 == pytest.approx(3.3, abs=0.011) and decoded.offset * 32 == pytest.approx(17.8, abs=0.011)


class TestTimes:
    rolls = column_rolls(onset=[0.9, 0, 0, 0, 0.9, 0], frame=[0.9, 0, 0, 0, 0.9, 0.9])

    def decode(self, **settings):
        return spans(notes.from_rolls(self.rolls, MelodicHParams(hop_length=HOP, **settings)))

    def test_short_notes_are_dropped(self):
        assert self.decode(min_note_ms=32.0) == [(4, 6)]

    def test_bias_is_subtracted_and_nothing_starts_before_zero(self):
        half = 1000 / 64  # Milliseconds of half a frame.
        assert self.decode(onset_bias_ms=half) == [(0, 0.5), (3.5, 5.5)]
        assert self.decode(onset_bias_ms=4 * half) == [(2, 4)]
        assert self.decode(onset_bias_ms=-half) == [(0.5, 1.5), (4.5, 6.5)]


@pytest.mark.parametrize("peaks", [False, True])
def test_every_frame_may_hold_onsets(peaks):
    rng = np.random.default_rng(0)
    rolls = {name: rng.random((18_751, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    decoded = notes.from_rolls(rolls, MelodicHParams(onset_peak_picking=peaks, onset_refinement=peaks))
    assert len(decoded) > 300_000
