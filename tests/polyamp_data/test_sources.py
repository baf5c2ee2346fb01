"""Data sets in their own layouts: what is found, in which split, and with which notes."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from note_seq import midi_io

from polyamp import notes
from polyamp.audio import balance
from polyamp.data import recording, sources
from polyamp.data.example import velocity_range
from polyamp.errors import AudioError, DataError
from polyamp.notes import Notes

LABELS = Notes.of([0.1, 0.5, 1.5], [0.4, 0.9, 2.5], [60, 64, 67], [50, 60, 70])


def _audio(path: Path, rate: int = 16_000, seconds: float = 1.0, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    soundfile.write(path, np.stack([wave] * channels, -1), rate)


def _midi(path: Path, of: Notes = LABELS, pedal: bool = False) -> None:
    sequence = notes.to_sequence(of)
    if pedal:
        sequence.control_changes.add(time=0.2, control_number=64, control_value=100)
        sequence.control_changes.add(time=0.75, control_number=64, control_value=0)
    midi_io.note_sequence_to_midi_file(sequence, str(path))


def _tsv(path: Path, of: Notes = LABELS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.stack([of.onset, of.offset, of.pitch, of.velocity], -1)
    np.savetxt(path, rows, "%.6f,%.6f,%d,%d", header="onset,offset,note,velocity")


def _splits(recordings: list[sources.Recording]) -> dict[str, str]:
    return {one.id: one.split for one in recordings}


def test_maps_with_folders_of_splits_and_labels_apart(tmp_path: Path):
    _audio(tmp_path / "train" / "MAPS_MUS-a_AkPnBcht.ogg")
    _audio(tmp_path / "devtest" / "MAPS_MUS-b_ENSTDkAm.flac")
    for name in ("a_AkPnBcht", "b_ENSTDkAm"):
        _tsv(tmp_path / "labels" / f"MAPS_MUS-{name}.tsv")
    recordings = sources.find("maps", tmp_path)
    assert _splits(recordings) == {"MAPS_MUS-a_AkPnBcht": "train", "MAPS_MUS-b_ENSTDkAm": "test"}
    audio, found = sources.load(recordings[1])
    assert len(audio) == 16_000
    assert found == LABELS[:2]  # The third begins after the end of the clip.


def test_maps_as_published_tests_on_the_real_pianos_and_trains_on_other_pieces(tmp_path: Path):
    for name in ("x_AkPnBcht", "y_AkPnBcht", "x_ENSTDkCl"):
        stem = tmp_path / name.rsplit("_", 1)[1] / "MUS" / f"MAPS_MUS-{name}"
        _audio(stem.with_suffix(".wav"), rate=44_100, channels=2)
        _midi(stem.with_suffix(".mid"), pedal=True)
        stem.with_suffix(".txt").write_text("OnsetTime\tOffsetTime\tMidiPitch\n0.1\t0.3\t60\n")
    _audio(tmp_path / "AkPnBcht" / "ISOL" / "MAPS_ISOL_CH0.1_F_AkPnBcht.wav")
    recordings = sources.find("maps", tmp_path)
    assert _splits(recordings) == {"MAPS_MUS-x_ENSTDkCl": "test", "MAPS_MUS-y_AkPnBcht": "train"}
    audio, found = sources.load(recordings[1])
    assert abs(len(audio) - 16_000) <= 1
    assert found.velocity.tolist() == [50, 60]
    np.testing.assert_allclose(found.offset, [0.75, 0.9], atol=0.01)  # The pedal holds the first note.
    (tmp_path / "AkPnBcht" / "MUS" / "MAPS_MUS-y_AkPnBcht.mid").unlink()
    _, from_text = sources.load(sources.find("maps", tmp_path)[1])
    assert from_text == Notes.of([0.1], [0.3], [60], [0])


@pytest.mark.parametrize("metadata", ["csv", "list", "columns"])
def test_maestro_of_all_versions(tmp_path: Path, metadata: str, caplog: pytest.LogCaptureFixture):
    rows = [
        {
            "canonical_composer": "A, B",
            "split": split,
            "midi_filename": f"2018/{name}.midi",
            "audio_filename": f"2018/{name}.wav",
        }
        for name, split in (("one", "train"), ("two", "validation"), ("three", "test"), ("absent", "test"))
    ]
    for name in ("one", "two", "three"):
        _audio(tmp_path / "2018" / f"{name}.{'flac' if name == 'two' else 'wav'}", rate=48_000, channels=2)
        _midi(tmp_path / "2018" / f"{name}.midi")
    if metadata == "csv":
        lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
        (tmp_path / "maestro-v1.0.0.csv").write_text("\n".join(lines))
    elif metadata == "list":
        (tmp_path / "maestro-v2.0.0.json").write_text(json.dumps(rows))
    else:
        columns = {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}
        (tmp_path / "maestro-v3.0.0.json").write_text(json.dumps(columns))
    with caplog.at_level("WARNING"):
        recordings = sources.find("maestro", tmp_path)
    assert _splits(recordings) == {"2018/one": "train", "2018/two": "validation", "2018/three": "test"}
    assert "1 of 4 recordings are not there" in caplog.text
    audio, found = sources.load(next(one for one in recordings if one.id == "2018/two"))
    assert abs(len(audio) - 16_000) <= 1
    np.testing.assert_allclose(found.onset, [0.1, 0.5], atol=1e-3)


def test_folder_takes_splits_from_subfolders(tmp_path: Path):
    for name in ("train/a", "validation/deep/b", "test/c", "d"):
        _audio(tmp_path / f"{name}.wav")
        _tsv(tmp_path / f"{name}.tsv")
    expected = {"train/a": "train", "validation/deep/b": "validation", "test/c": "test", "d": "train"}
    assert _splits(sources.find("folder", tmp_path)) == expected


def test_labels_of_maps_may_begin_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "a.txt").write_text("\ufeffOnsetTime\tOffsetTime\tMidiPitch\n0.1\t0.3\t60\n", encoding="utf-8")
    labels = sources.read_labels(tmp_path / "a.txt")
    assert labels.pitch.tolist() == [60]
    assert labels.velocity.tolist() == [0] and velocity_range(labels) == (0, 127)  # Not known.


def test_audio_needs_no_notes(tmp_path: Path):
    for name in ("train/a", "test/b", "c"):
        _audio(tmp_path / f"{name}.wav")
    _tsv(tmp_path / "c.tsv")  # Is not looked at.
    found = sources.find("audio", tmp_path)
    assert _splits(found) == {"train/a": "train", "test/b": "test", "c": "train"}
    for one_recording in found:
        examples = sources.examples(one_recording, 0.0, 0.0, room_copies=1)
        assert [(len(one.notes), one.is_labelled) for one in examples] == [(0, False), (0, False)]


def test_examples_of_a_recording_are_pure(tmp_path: Path):
    _audio(tmp_path / "a.wav", seconds=7.0)
    _tsv(tmp_path / "a.tsv")
    (found,) = sources.find("folder", tmp_path)
    first, again = (sources.examples(found, 2.0, 3.0) for _ in range(2))
    assert len(first) == 3
    for one, other in zip(first, again, strict=True):
        assert one.id == other.id and one.notes == other.notes
        np.testing.assert_array_equal(one.audio, other.audio)


def test_recordings_without_notes_are_failures_of_their_own(tmp_path: Path):
    for name in ("a", "b"):
        _audio(tmp_path / f"{name}.wav")
    _tsv(tmp_path / "labels" / "b.tsv")
    first, second = sources.find("folder", tmp_path)
    with pytest.raises(DataError, match="a.wav: no notes with that name"):
        sources.load(first)
    assert len(sources.load(second)[1]) == 2


def test_names_in_capitals_and_hidden_files(tmp_path: Path):
    _audio(tmp_path / "A B.WAV")
    _midi(tmp_path / "A B.MID")
    (tmp_path / "._A B.WAV").write_bytes(b"of macOS")
    (tmp_path / ".trash").mkdir()
    _audio(tmp_path / ".trash" / "old.wav")
    (found,) = sources.find("folder", tmp_path)
    assert (found.id, found.labels) == ("A B", tmp_path / "A B.MID")
    assert sources.load(found)[1].pitch.tolist() == [60, 64]


def test_notes_of_another_recording_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    _audio(tmp_path / "a.wav", seconds=0.05)
    _tsv(tmp_path / "a.tsv")
    assert len(sources.load(sources.find("folder", tmp_path)[0])[1]) == 0
    assert "a.wav: none of its notes are within its 0.1 s" in caplog.text
    _tsv(tmp_path / "a.tsv", Notes.empty())
    caplog.clear()
    sources.load(sources.find("folder", tmp_path)[0])
    assert not caplog.text


def test_problems_are_one_line_errors(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        sources.find("folder", tmp_path / "absent")
    with pytest.raises(DataError, match="no MAPS pieces"):
        sources.find("maps", tmp_path)
    with pytest.raises(DataError, match="no MAESTRO metadata"):
        sources.find("maestro", tmp_path)
    with pytest.raises(DataError, match="no audio files"):
        sources.find("folder", tmp_path)
    _audio(tmp_path / "a.wav")
    with pytest.raises(DataError, match="a.wav: no notes with that name"):
        sources.find("folder", tmp_path)
    (tmp_path / "a.txt").write_text("OnsetTime\tOffsetTime\tMidiPitch\n0.1\t0.3\n")
    with pytest.raises(DataError, match="a.txt, line 2"):
        sources.load(sources.find("folder", tmp_path)[0])
    (tmp_path / "a.txt").write_text("OnsetTime\tOffsetTime\tMidiPitch\n0.1\tnan\t60\n")
    with pytest.raises(DataError, match="a.txt: note 1 has offset nan"):
        sources.load(sources.find("folder", tmp_path)[0])
    _audio(tmp_path / "a.flac")
    with pytest.raises(DataError, match="two audio files of one name"):
        sources.find("folder", tmp_path)
    (tmp_path / "a.flac").unlink()
    (tmp_path / "a.wav").write_bytes(b"text")
    with pytest.raises(AudioError, match="a.wav"):
        sources.load(sources.find("folder", tmp_path)[0])
    (tmp_path / "maestro-v3.0.0.json").write_text('{"split": {"0": "train"}}')
    with pytest.raises(DataError, match="is no MAESTRO metadata"):
        sources.find("maestro", tmp_path)


def test_hold_out_moves_all_performances_of_a_piece_and_no_other():
    ids = ("MAPS_MUS-op1_A", "MAPS_MUS-op1_B", "MAPS_MUS-op10_A", "MAPS_MUS-op1_ENSTDkCl")
    splits = ("train", "train", "train", "test")
    recordings = [sources.Recording(i, split, Path(i), Path(i)) for i, split in zip(ids, splits, strict=True)]
    held_out = _splits(recording.hold_out(recordings, ["op1"]))
    assert held_out == dict(zip(ids, ("validation", "validation", "train", "test"), strict=True))
    assert _splits(recording.hold_out(recordings, [])) == dict(zip(ids, splits, strict=True))
    with pytest.raises(DataError, match="'op2'"):
        recording.hold_out(recordings, ["op2"])


def test_recordings_and_their_copies_in_rooms_are_brought_to_a_level(tmp_path: Path):
    seconds = np.arange(3 * 16_000) / 16_000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds), 16_000)  # -9.03 dB.
    (tmp_path / "a.tsv").write_text("0.5\t0.9\t60\t80\n")
    (found,) = sources.find("folder", tmp_path)
    for example in sources.examples(found, 0.0, 0.0, room_copies=1, level_db=-33.0):
        assert 10 * np.log10(np.mean(np.square(example.audio))) == pytest.approx(-33.0, abs=0.5), example.id
        assert example.notes == sources.examples(found, 0.0, 0.0)[0].notes


def test_recordings_and_their_copies_in_rooms_are_balanced_each_by_itself(tmp_path: Path):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 20 * 16_000)  # White: far too little bass for a piano.
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    (tmp_path / "a.tsv").write_text("0.5\t0.9\t60\t80\n")
    (found,) = sources.find("folder", tmp_path)
    before = sources.examples(found, 0.0, 0.0, room_copies=1)
    after = sources.examples(found, 0.0, 0.0, room_copies=1, balance=1.0)
    for one, balanced in zip(before, after, strict=True):
        left = [balance.gains(balance.measure([example.audio]), 20.0, 1.0, "pianos") for example in (one, balanced)]
        middle = slice(4, 18)  # Where nothing is limited.
        assert np.mean(np.abs(left[1][middle])) < 0.75 * np.mean(np.abs(left[0][middle])), one.id
        assert np.abs(balanced.audio).max() <= 1.0 and balanced.notes == one.notes
    (as_bands,) = sources.examples(found, 0.0, 0.0, balance=1.0, balance_of="bands")  # Of which it might be one.
    np.testing.assert_array_equal(as_bands.audio, before[0].audio)


def test_copies_in_rooms_follow_with_the_same_notes(tmp_path: Path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 16_000)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    (tmp_path / "a.tsv").write_text("0.5\t0.9\t60\t80\n")
    (found,) = sources.find("folder", tmp_path)
    dry, first, second = sources.examples(found, 0.0, 0.0, room_copies=2)
    assert [one.id for one in (dry, first, second)] == ["a", "a@room1", "a@room2"]
    assert dry.notes == first.notes == second.notes
    assert np.array_equal(dry.audio, sources.examples(found, 0.0, 0.0)[0].audio)
    assert 0.05 < np.abs(first.audio - second.audio).max() and 0.05 < np.abs(first.audio - dry.audio).max()
    assert np.array_equal(first.audio, sources.examples(found, 0.0, 0.0, room_copies=1)[1].audio)
