"""Notes as arrays, their label rolls (against note-seq and by hand), NoteSequences and label files."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from note_seq import sequences_lib
from note_seq.protobuf import music_pb2

from polyamp import notes
from polyamp.errors import DataError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes


def random_notes(seed, count, seconds=5.0, low=18, high=112, on_grid=False):
    rng = np.random.default_rng(seed)
    onset, length = rng.uniform(0, seconds, count), rng.exponential(0.3, count)
    if on_grid:
        onset, length = np.round(onset * 31.25) / 31.25, np.round(length * 31.25) / 31.25
    return Notes.of(onset, onset + length, rng.integers(low, high, count), rng.integers(1, 128, count))


class TestNotes:
    def test_sorts_by_onset_then_pitch_and_fills_in_defaults(self):
        made = Notes.of([1.0, 0.5, 0.5], [2.0, 0.6, 0.7], [60, 72, 40])
        assert made.pitch.tolist() == [40, 72, 60]
        assert made.offset.tolist() == [0.7, 0.6, 2.0]
        assert made.velocity.tolist() == [64] * 3 and made.program.tolist() == [0] * 3
        assert made.onset.dtype == np.float64 and made.pitch.dtype == np.int64

    def test_single_indices_select_nothing(self):
        some = random_notes(0, 5)
        assert [len(some[index]) for index in (slice(1, 3), np.array([0, 4]), some.pitch > 0, [])] == [2, 2, 5, 0]
        for index in (0, np.int64(1), np.zeros((1, 1), int)):
            with pytest.raises(TypeError, match="masks, arrays of indices and slices"):
                some[index]
        with pytest.raises(TypeError):
            next(iter(some))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([0.0, np.nan], [1, 1], [60, 60]), "note 2 has onset nan"),
            (([0.0], [np.inf], [60]), "note 1 has offset inf"),
            (([-0.1], [1], [60]), "note 1 has onset -0.1"),
            (([1.0], [0.5], [60]), "ends at 0.5 s, before it starts at 1 s"),
            (([0.0], [1], [128]), "pitch 128"),
            (([0.0], [1], [60.5]), "pitch 60.5"),
            (([0.0], [1], [60], [128]), "velocity 128"),
            (([0.0], [1], [60], [64], [-1]), "program -1"),
            (([0.0, 1.0], [1], [60]), "one length"),
            (([[0.0]], [[1]], [[60]]), "flat lists"),
        ],
    )
    def test_names_the_first_impossible_note(self, arguments, message):
        with pytest.raises(DataError, match=message):
            Notes.of(*arguments)

    def test_empty_mask_and_equality(self):
        some = random_notes(0, 20)
        assert len(Notes.empty()) == 0 and Notes.empty() == Notes.of([], [], [])
        loud = some[some.velocity > 60]
        assert 0 < len(loud) < 20 and (loud.velocity > 60).all()
        assert some == some[:] and some != loud

    def test_moved_and_stretched_in_time(self):
        some = Notes.of([1.0, 2.0], [1.5, 4.0], [60, 61], [80, 90], [40, 5])
        for found, onset, offset in (
            (notes.shifted(some, -0.5), [0.5, 1.5], [1.0, 3.5]),
            (notes.stretched(some, 2.0), [2.0, 4.0], [3.0, 8.0]),
        ):
            assert found == Notes.of(onset, offset, [60, 61], [80, 90], [40, 5])

    def test_listed_for_json(self):
        found = notes.listed(Notes.of([0.123456, 1], [0.5, 2.00004], [60, 61], [80, 1]))
        assert json.loads(json.dumps(found)) == [
            {"onset": 0.1235, "offset": 0.5, "pitch": 60, "velocity": 80},
            {"onset": 1.0, "offset": 2.0, "pitch": 61, "velocity": 1},
        ]
        assert notes.listed(Notes.empty()) == []

    def test_concatenate_sorts_again(self):
        first, second = Notes.of([0, 2], [1, 3], [60, 61]), Notes.of([1], [2], [62], program=[40])
        joined = notes.concatenate([first, second, Notes.empty()])
        assert joined.pitch.tolist() == [60, 62, 61] and joined.program.tolist() == [0, 40, 0]
        assert notes.concatenate([]) == Notes.empty()


class TestCrop:
    whole = Notes.of([0.0, 1.0, 2.0, 3.0, 2.0], [1.0, 2.5, 5.0, 3.5, 2.0], [60, 61, 62, 63, 64])

    def test_cuts_notes_at_both_ends(self):
        cut = notes.crop(self.whole, 2.0, 3.0)
        assert cut.pitch.tolist() == [61, 62, 64]
        assert cut.onset.tolist() == [0, 0, 0] and cut.offset.tolist() == [0.5, 1.0, 0.0]

    def test_keeps_real_times_on_demand(self):
        cut = notes.crop(self.whole, 2.0, 3.0, clip=False)
        assert cut.onset.tolist() == [-1.0, 0.0, 0.0] and cut.offset.tolist() == [0.5, 3.0, 0.0]

    def test_rolls_of_a_crop_are_the_crop_of_the_rolls(self):
        hparams = MelodicHParams(hop_length=500)  # 32 frames a second: exact in binary.
        whole = random_notes(3, 60, seconds=8.0, low=60, high=70)
        rolls = notes.to_rolls(whole, 320, hparams)
        part = notes.to_rolls(notes.crop(whole, 2.0, 4.0, clip=False), 64, hparams, total_time=float(whole.offset.max()) - 2.0)
        for name in ("frame", "offset"):
            np.testing.assert_array_equal(part[name], rolls[name][64:128])
        np.testing.assert_array_equal(part["onset"][2:], rolls["onset"][66:128])  # Onsets just before the crop are not in it.

    def test_note_from_before_sounds_but_does_not_start(self):
        cut = notes.crop(Notes.of([0.99], [2.0], [60]), 1.0, 3.0, clip=False)
        for mode in ("length_ms", "window", "triangle"):
            rolls = notes.to_rolls(cut, 40, MelodicHParams(onset_mode=mode))
            assert rolls["frame"][0, 39] == 1 and not rolls["onset"].any()
            if mode != "window":  # note-seq shows velocities where onsets are.
                assert not rolls["velocity"].any()


class TestRollsAgainstNoteSeq:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(1, 120),
        mode=st.sampled_from(["length_ms", "window"]),
        hop=st.sampled_from([512, 256, 400]),
        occupancy=st.sampled_from([0.0, 0.3, 0.7]),
        lengths=st.sampled_from([(32.0, 32.0), (10.0, 50.0), (100.0, 20.0)]),
        delay=st.sampled_from([0.0, 20.0]),
        crowded=st.booleans(),
        on_grid=st.booleans(),
    )
    def test_equal_for_any_notes(self, seed, count, mode, hop, occupancy, lengths, delay, crowded, on_grid):
        pitches = (59, 62) if crowded else (18, 112)  # Also beyond the piano.
        some = random_notes(seed, count, low=pitches[0], high=pitches[1], on_grid=on_grid)
        hparams = MelodicHParams(
            hop_length=hop,
            onset_mode=mode,
            onset_length=lengths[0],
            offset_length=lengths[1],
            onset_delay=delay,
            min_frame_occupancy_for_label=occupancy,
            decay_frame_weights=True,
        )
        expected = sequences_lib.sequence_to_pianoroll(
            notes.to_sequence(some),
            frames_per_second=hparams.frames_per_second,
            min_pitch=21,
            max_pitch=108,
            onset_mode=mode,
            onset_window=hparams.onset_window,
            onset_length_ms=lengths[0],
            offset_length_ms=lengths[1],
            onset_delay_ms=delay,
            min_frame_occupancy_for_label=occupancy,
            onset_upweight=hparams.frame_weight_onset,
        )
        rolls = notes.to_rolls(some, len(expected.active), hparams)
        np.testing.assert_array_equal(rolls["onset"], expected.onsets)
        np.testing.assert_array_equal(rolls["offset"], expected.offsets)
        np.testing.assert_array_equal(rolls["frame"], expected.active)
        np.testing.assert_allclose(rolls["velocity"], expected.onset_velocities, rtol=1e-6)
        np.testing.assert_allclose(rolls["frame_weight"], expected.weights, rtol=1e-6)

    def test_weights_are_one_without_decay(self):
        assert (notes.to_rolls(random_notes(0, 50), 200, MelodicHParams())["frame_weight"] == 1).all()

    def test_roll_may_be_shorter_or_longer_than_the_notes(self):
        some, hparams = random_notes(1, 80), MelodicHParams()
        long, short = notes.to_rolls(some, 400, hparams), notes.to_rolls(some, 70, hparams)
        for name, roll in short.items():
            assert roll.dtype == np.float32 and roll.shape == (70, 88)
            np.testing.assert_array_equal(roll, long[name][:70])
        assert notes.to_rolls(some, 0, hparams)["frame"].shape == (0, 88)
        assert not notes.to_rolls(Notes.empty(), 10, hparams)["frame"].any()


class TestTriangle:
    hparams = MelodicHParams(hop_length=500, onset_mode="triangle", onset_window=2)

    def test_by_hand(self):
        rolls = notes.to_rolls(Notes.of([10.25 / 32], [20.5 / 32], [69], [127]), 30, self.hparams)
        onset = rolls["onset"][:, 69 - 21]
        np.testing.assert_allclose(onset[8:14], np.array([0.75, 1.75, 2.75, 2.25, 1.25, 0.25]) / 3, rtol=1e-6)
        assert np.flatnonzero(onset).tolist() == [8, 9, 10, 11, 12, 13]
        np.testing.assert_allclose(rolls["offset"][18:24, 48], np.array([0.5, 1.5, 2.5, 2.5, 1.5, 0.5]) / 3, rtol=1e-6)
        np.testing.assert_array_equal(rolls["velocity"] > 0, rolls["onset"] > 0)
        assert np.flatnonzero(rolls["frame"][:, 48]).tolist() == list(range(10, 21))

    def test_nearest_note_wins_where_triangles_meet(self):
        rolls = notes.to_rolls(Notes.of([10 / 32, 13 / 32], [12 / 32, 20 / 32], [60, 60], [127, 64]), 30, self.hparams)
        np.testing.assert_allclose(rolls["onset"][8:16, 39], np.array([1, 2, 3, 2, 2, 3, 2, 1]) / 3, rtol=1e-6)
        np.testing.assert_allclose(rolls["velocity"][8:16, 39], [1] * 4 + [64 / 127] * 4, rtol=1e-6)


def test_ten_thousand_notes_take_a_moment():
    many = random_notes(0, 10_000, seconds=600.0)
    started = time.perf_counter()
    notes.to_rolls(many, 18_751, MelodicHParams(decay_frame_weights=True))
    assert time.perf_counter() - started < 1.0  # About 0.1 s; a shared machine may be slow.


class TestSequences:
    def test_there_and_back(self):
        some = random_notes(5, 40)
        mixed = Notes.of(some.onset, some.offset, some.pitch, some.velocity, np.arange(40) % 3 * 30)
        sequence = notes.to_sequence(mixed, qpm=90)
        assert notes.from_sequence(sequence) == mixed
        assert sequence.tempos[0].qpm == 90 and sequence.total_time == mixed.offset.max()
        assert {(note.program, note.instrument) for note in sequence.notes} == {(0, 0), (30, 1), (60, 2)}

    def test_pedal_and_drums(self):
        sequence = notes.to_sequence(Notes.of([0.0, 1.0], [0.5, 1.5], [60, 62]))
        sequence.control_changes.add(time=0.2, control_number=64, control_value=127)
        sequence.control_changes.add(time=1.2, control_number=64, control_value=0)
        sequence.notes.add(start_time=0, end_time=1, pitch=36, velocity=100, is_drum=True)
        assert notes.from_sequence(sequence).offset.tolist() == [1.2, 1.5]
        assert notes.from_sequence(sequence, apply_sustain=False).offset.tolist() == [0.5, 1.5]
        with_drums = notes.from_sequence(sequence, use_drums=True)
        assert dict(zip(with_drums.pitch.tolist(), with_drums.program.tolist(), strict=True))[36] == 118
        assert notes.from_sequence(music_pb2.NoteSequence()) == Notes.empty()


class TestTsv:
    def test_reads_tabs_commas_and_comments(self, tmp_path):
        path = tmp_path / "labels.tsv"
        path.write_text("# onset,offset,note,velocity\n\n1.5,2,60,70\n0.5\t0.4999\t61\t80\n")
        read = notes.read_tsv(path)
        assert read.onset.tolist() == [0.5, 1.5] and read.offset.tolist() == [0.5, 2.0]
        assert read.pitch.tolist() == [61, 60] and read.velocity.tolist() == [80, 70]

    def test_a_mark_of_the_byte_order_is_no_number(self, tmp_path):
        path = tmp_path / "labels.tsv"
        path.write_text("0.5,1,60,70\n", encoding="utf-8-sig")
        assert notes.read_tsv(path).onset.tolist() == [0.5]

    def test_no_notes_are_no_notes(self, tmp_path):
        (tmp_path / "none.tsv").write_text("# onset,offset,note,velocity\n")
        assert notes.read_tsv(tmp_path / "none.tsv") == Notes.empty()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1,2", "line 1"),
            ("a\nb", "line 1"),
            ("#\n1,2,x,3", "line 2"),
            ("1,2,200,3", "pitch 200"),
            ("1,nan,60,3", "offset nan"),
        ],
    )
    def test_bad_lines_name_the_file(self, tmp_path, text, message):
        path = tmp_path / "bad.tsv"
        path.write_text(text)
        with pytest.raises(DataError, match=rf"bad\.tsv.*{message}"):
            notes.read_tsv(path)

    def test_what_other_programs_write(self, tmp_path):
        (tmp_path / "a.tsv").write_text("onset\toffset\tnote\n\n-0.0003\t0.5\t60\n0.5\t1\t62\t90\n")
        assert notes.read_tsv(tmp_path / "a.tsv") == Notes.of([0.0, 0.5], [0.5, 1.0], [60, 62], [0, 90])  # 0: not known.
        (tmp_path / "a.tsv").write_text("-0.1,0.5,60,90\n")
        with pytest.raises(DataError, match="a.tsv: note 1 has onset -0.1"):
            notes.read_tsv(tmp_path / "a.tsv")

    def test_missing_and_binary_files(self, tmp_path):
        (tmp_path / "audio.tsv").write_bytes(b"RIFF\xff\xfe\x00")
        for name in ("missing.tsv", "audio.tsv"):
            with pytest.raises(DataError, match=name):
                notes.read_tsv(tmp_path / name)
