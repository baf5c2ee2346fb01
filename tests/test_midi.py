"""MIDI files: exact times at any tempo, programs, velocities, read back by pretty_midi and mido."""

import os
import subprocess
import sys

import mido
import numpy as np
import pretty_midi
import pytest
from note_seq import midi_io

from polyamp import notes
from polyamp.errors import DataError, PolyampError
from polyamp.notes import Notes


def some_notes(count=200, seconds=300.0, programs=1):
    rng = np.random.default_rng(0)
    onset = np.sort(rng.uniform(0, seconds, count))
    # One pitch per note in turn, so that none overlaps another of its pitch.
    pitch = 21 + np.arange(count) % 88
    return Notes.of(
        onset, onset + rng.uniform(0.03, 1.0, count), pitch, rng.integers(1, 128, count), np.arange(count) % programs
    )


@pytest.mark.parametrize("qpm", [4, 20, 60, 97.3, 117.0, 120, 133.33, 200, 999, 4000])
def test_times_in_seconds_do_not_depend_on_the_tempo(tmp_path, qpm):
    written = some_notes()
    notes.write_midi(written, tmp_path / "a.mid", qpm)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    found = sorted(midi.instruments[0].notes, key=lambda note: (note.start, note.pitch))
    np.testing.assert_allclose([note.start for note in found], written.onset, rtol=0, atol=0.0005)
    np.testing.assert_allclose([note.end for note in found], written.offset, rtol=0, atol=0.0005)
    assert [note.pitch for note in found] == written.pitch.tolist()
    assert [note.velocity for note in found] == written.velocity.tolist()
    assert midi.get_tempo_changes()[1] == pytest.approx([qpm], rel=1e-4)


@pytest.mark.parametrize("first", [0.0, 0.03, 0.25, 0.7, 12.0])
def test_beats_are_at_quarter_notes_and_times_in_seconds_stay(tmp_path, first):
    written = some_notes()
    beats = first + np.concatenate([[0.0], np.cumsum(np.random.default_rng(1).uniform(0.35, 1.2, 250))])
    notes.write_midi(written, tmp_path / "a.mid", beats=beats)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    found = sorted(midi.instruments[0].notes, key=lambda note: (note.start, note.pitch))
    np.testing.assert_allclose([note.start for note in found], written.onset, rtol=0, atol=0.001)
    np.testing.assert_allclose([note.end for note in found], written.offset, rtol=0, atol=0.001)
    expected = beats[1:] if first < 0.06 else beats  # A beat in the first instants is the start of the file.
    of_file = np.array([midi.tick_to_time(tick) for tick in range(0, round(midi.time_to_tick(beats[-1])) + 1, midi.resolution)])
    nearest = np.abs(of_file[:, None] - expected).min(axis=0)
    assert nearest.max() < 1e-4  # Each is a quarter note,
    within = of_file[(of_file > expected[0] - 1e-4) & (of_file < beats[-1] + 1e-4)]
    assert len(within) == len(expected)  # and no other is between them.
    assert midi.get_tempo_changes()[1].max() < 1000


def test_slow_beats_may_begin_late(tmp_path):
    beats = np.array([20.0, 36.0, 52.0])  # As a whole, what comes before is too long for one quarter note.
    notes.write_midi(some_notes(), tmp_path / "a.mid", beats=beats)
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    of_file = [midi.tick_to_time(number * midi.resolution) for number in range(5)]
    np.testing.assert_allclose(of_file, [0.0, 10.0, *beats], atol=1e-4)
    half_a_tick = 0.5 * 16.0 / midi.resolution
    onsets = sorted(note.start for note in midi.instruments[0].notes)
    np.testing.assert_allclose(onsets, some_notes().onset, rtol=0, atol=1.01 * half_a_tick)


def test_notes_of_a_crop_that_began_before_it_begin_with_the_file(tmp_path):
    whole = Notes.of([0.2, 0.5, 1.5], [0.8, 1.2, 2.0], [59, 60, 62])
    notes.write_midi(notes.crop(whole, 0.8, 3.0, clip=False), tmp_path / "a.mid")
    found = notes.read_midi(tmp_path / "a.mid")
    assert found.pitch.tolist() == [60, 62]
    np.testing.assert_allclose([found.onset, found.offset], [[0.0, 0.7], [0.4, 1.2]], atol=0.001)


def test_one_beat_is_no_tempo(tmp_path):
    for beats in ([], [3.0]):
        notes.write_midi(some_notes(), tmp_path / "a.mid", 90.0, np.array(beats))
        assert pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).get_tempo_changes()[1] == pytest.approx([90.0])


@pytest.mark.parametrize("beats", [[-0.1, 0.5, 1.0], [0.5, 0.5, 1.0], [1.0, 0.5], [0.0, 20.0, 40.0], [0.0, 0.5, np.nan]])
def test_beats_must_fit(tmp_path, beats):
    with pytest.raises(PolyampError, match="beats have to ascend from 0 on, by 0.05 to 16 s"):
        notes.write_midi(some_notes(), tmp_path / "a.mid", beats=np.array(beats))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("last_beat", [2.0, 7 * 3600.0])
def test_readers_open_files_of_many_beats_and_of_a_late_end(tmp_path, last_beat):
    beats = np.arange(0.5, last_beat, 0.4)
    notes.write_midi(Notes.of([7 * 3600.0 - 1], [7 * 3600.0], [60]), tmp_path / "long.mid", beats=beats)
    code = "import sys, pretty_midi; print(pretty_midi.PrettyMIDI(sys.argv[1]).instruments[0].notes[0].start)"
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "long.mid"], capture_output=True, text=True)
    assert float(result.stdout) == pytest.approx(7 * 3600.0 - 1, abs=0.004), result.stderr


@pytest.mark.parametrize("qpm", [117, 400])
def test_the_last_note_of_two_hours_is_as_exact(tmp_path, qpm):
    notes.write_midi(Notes.of([7199.1234], [7200.0], [60]), tmp_path / "long.mid", qpm)
    (note,) = pretty_midi.PrettyMIDI(str(tmp_path / "long.mid")).instruments[0].notes
    assert note.start == pytest.approx(7199.1234, abs=0.001) and note.end == pytest.approx(7200.0, abs=0.001)


@pytest.mark.parametrize("qpm", [4, 120, 130, 400, 4000])
@pytest.mark.parametrize("hours", [1.2, 2.9, 4, 24])
def test_readers_open_files_of_any_length(tmp_path, hours, qpm):
    last = 3600.0 * hours - 0.1234
    notes.write_midi(Notes.of([last], [3600.0 * hours], [60]), tmp_path / "long.mid", qpm)
    code = "import sys, pretty_midi; print(pretty_midi.PrettyMIDI(sys.argv[1]).instruments[0].notes[0].start)"
    # Elsewhere, as note-seq changes what pretty_midi refuses.
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "long.mid"], capture_output=True, text=True)
    assert float(result.stdout) == pytest.approx(last, abs=1e-7 * last + 1e-4), result.stderr


def test_programs_have_tracks_and_channels_of_their_own(tmp_path):
    written = some_notes(100, 60.0, programs=20)
    notes.write_midi(written, tmp_path / "band.mid")
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "band.mid"))
    assert sorted(instrument.program for instrument in midi.instruments) == list(range(20))
    assert not any(instrument.is_drum for instrument in midi.instruments)
    assert all(len(instrument.notes) == 5 for instrument in midi.instruments)
    read = notes.read_midi(tmp_path / "band.mid")
    assert read.program.tolist() == written.program.tolist() and read.pitch.tolist() == written.pitch.tolist()


def test_tracks_of_a_band_have_names_and_a_solo_says_no_more_than_it_knows(tmp_path):
    band = notes.Notes.of([0.0, 1.0, 2.0], [0.5, 1.5, 2.5], [60, 62, 64], 80, [0, 33, 73])
    notes.write_midi(band, tmp_path / "band.mid")
    instruments = pretty_midi.PrettyMIDI(str(tmp_path / "band.mid")).instruments
    assert [(one.program, one.name) for one in instruments] == [(0, "keyboard"), (33, "bass"), (73, "flute")]
    notes.write_midi(band[:1], tmp_path / "solo.mid")
    assert [one.name for one in pretty_midi.PrettyMIDI(str(tmp_path / "solo.mid")).instruments] == [""]


def test_touching_notes_of_one_pitch_stay_apart(tmp_path):
    written = Notes.of([0.0, 0.5, 1.0], [0.5, 1.0, 1.0], [60, 60, 60], [10, 20, 0])
    notes.write_midi(written, tmp_path / "touching.mid")
    read = notes.read_midi(tmp_path / "touching.mid")
    np.testing.assert_allclose(read.onset, [0, 0.5, 1.0], atol=0.001)
    np.testing.assert_allclose(read.offset, [0.5, 1.0, 1.0], atol=0.001)
    assert read.velocity.tolist() == [10, 20, 64] and (read.offset > read.onset).all()  # 0: not known, but it must sound.


def test_a_note_of_no_time_leaves_the_next_alone(tmp_path):
    """Also where a tick is longer than the shortest note."""
    notes.write_midi(Notes.of([0.5, 0.5], [0.5, 1.0], [60, 60]), tmp_path / "a.mid")
    found = notes.read_midi(tmp_path / "a.mid")
    np.testing.assert_allclose([found.onset, found.offset], [[0.5, 0.5], [0.501, 1.0]], atol=1.1e-3)
    long = 3600 + np.arange(200.0)
    notes.write_midi(
        Notes.of(np.concatenate([long, long + 0.001]), np.concatenate([long + 0.001, long + 0.5]), np.full(400, 60)),
        tmp_path / "b.mid",
    )
    found = notes.read_midi(tmp_path / "b.mid")
    assert len(found) == 400
    np.testing.assert_allclose(found.offset[1::2], long + 0.5, atol=2e-3)


def test_no_notes_make_a_valid_file(tmp_path):
    notes.write_midi(Notes.empty(), tmp_path / "silence.mid", 90)
    assert notes.read_midi(tmp_path / "silence.mid") == Notes.empty()
    assert mido.MidiFile(tmp_path / "silence.mid").length == 0


@pytest.mark.parametrize("qpm", [0, -3, 3.5, 5000, float("nan"), float("inf")])
def test_tempo_must_fit(tmp_path, qpm):
    with pytest.raises(PolyampError, match="tempo"):
        notes.write_midi(Notes.empty(), tmp_path / "a.mid", qpm)


def test_failing_to_write_leaves_nothing_behind_and_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.mid"
    path.write_bytes(b"old")

    def save_half(self, filename):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mido.MidiFile, "save", save_half)
    with pytest.raises(PolyampError, match=r"a\.mid: cannot be written \(No space left on device\)"):
        notes.write_midi(Notes.empty(), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".mid")
    notes.write_midi(Notes.empty(), path)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(PolyampError, match="cannot be written .File name too long."):
        notes.write_midi(Notes.empty(), tmp_path / ("x" * 252 + ".mid"))


@pytest.mark.skipif(os.name != "posix", reason="links of another kind")
def test_links_stay_and_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, there in (("a.mid", "old"), ("new.mid", None)):
        (tmp_path / f"deep/{name}").write_text(there) if there else None
        (tmp_path / name).symlink_to(f"deep/{name}")
        notes.write_midi(Notes.empty(), tmp_path / name)
        assert (tmp_path / name).is_symlink() and len(notes.read_midi(tmp_path / f"deep/{name}")) == 0
    os.mkfifo(tmp_path / "pipe.mid")
    with pytest.raises(PolyampError, match=r"pipe.mid: cannot be written \(it is no file\)"):
        notes.write_midi(Notes.empty(), tmp_path / "pipe.mid")
    assert (tmp_path / "pipe.mid").is_fifo()
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.mid", "new.mid"]


def test_unwritable_places_are_one_line(tmp_path):
    (tmp_path / "folder.mid").mkdir()
    for path in (tmp_path / "missing" / "a.mid", tmp_path / "folder.mid"):
        with pytest.raises(PolyampError, match="cannot be written"):
            notes.write_midi(Notes.empty(), path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mid"]


@pytest.mark.parametrize("content", [b"", b"hello", b"MThd\x00\x00\x00\x06\x00\x01"])
def test_what_is_not_midi_is_named(tmp_path, content):
    (tmp_path / "bad.mid").write_bytes(content)
    for name in ("bad.mid", "missing.mid"):
        with pytest.raises(DataError, match=name):
            notes.read_midi(tmp_path / name)


def test_an_impossible_note_in_a_file_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "bad.mid"
    notes.write_midi(some_notes(3), path)
    sequence = notes.to_sequence(some_notes(3))
    sequence.notes[1].pitch = 200
    monkeypatch.setattr(midi_io, "midi_to_note_sequence", lambda data: sequence)
    with pytest.raises(DataError, match=r"bad\.mid: note 2 has pitch 200"):
        notes.read_midi(path)
