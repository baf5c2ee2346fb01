"""Slakh's layouts: which tracks are found, in which split, and with which notes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from polyamp import constants
from polyamp.data import slakh, sources
from polyamp.errors import DataError

MakeTrack = Callable[..., None]


def test_slakh2100_has_splits_and_the_omitted_tracks_of_redux_are_left_out(make_track: MakeTrack, tmp_path: Path):
    for name in ("train/Track00001", "validation/Track01501", "test/Track01876", "omitted/Track00049"):
        make_track(tmp_path / name)
    found = sources.find("slakh", tmp_path)
    assert {one.id: one.split for one in found} == {
        "train/Track00001": "train",
        "validation/Track01501": "validation",
        "test/Track01876": "test",
    }


def test_babyslakh_is_flat_and_has_wav(make_track: MakeTrack, tmp_path: Path):
    make_track(tmp_path / "Track00001", mix="mix.wav")
    (tmp_path / "Track00007" / "MIDI").mkdir(parents=True)  # Neither a mix nor metadata.
    (found,) = sources.find("slakh", tmp_path)
    assert (found.id, found.split, found.audio.name) == ("Track00001", "train", "mix.wav")


def test_notes_carry_the_program_of_their_stem_and_drums_are_left_out(make_track: MakeTrack, tmp_path: Path):
    make_track(tmp_path / "Track00001")
    audio, notes = sources.load(sources.find("slakh", tmp_path)[0])
    assert len(audio) == 48_000
    assert notes.program.tolist() == [1, 30, 30]
    assert notes.pitch.tolist() == [60, 52, 55]
    assert notes.velocity.tolist() == [64, 70, 90]
    np.testing.assert_allclose(notes.onset, [0.25, 0.5, 1.5], atol=2e-3)
    np.testing.assert_allclose(notes.offset, [2.0, 1.0, 1.75], atol=2e-3)


def test_drums_are_labelled_as_other_if_asked_for(make_track: MakeTrack, tmp_path: Path):
    make_track(tmp_path / "Track00001")
    (track,) = sources.find("slakh", tmp_path)
    without, labels = sources.read_labels(track.labels), sources.read_labels(track.labels, use_drums=True)
    drums = labels.program == constants.DRUM_PROGRAM
    assert drums.sum() == len(labels) - len(without) > 0
    assert constants.FAMILIES[constants.PROGRAM_FAMILY[constants.DRUM_PROGRAM]] == "other"
    (example,) = sources.examples(track, 0.0, 0.0, use_drums=True)
    assert sorted(example.notes.program.tolist()) == sorted(labels.program.tolist())


def test_a_stem_without_a_midi_file_has_no_notes(make_track: MakeTrack, tmp_path: Path):
    make_track(tmp_path / "Track00001")
    (tmp_path / "Track00001" / "MIDI" / "S00.mid").unlink()
    assert slakh.read_notes(tmp_path / "Track00001" / "metadata.yaml").program.tolist() == [1]


def test_a_stem_that_was_not_rendered_has_no_notes(make_track: MakeTrack, tmp_path: Path):
    make_track(tmp_path / "Track00001")
    metadata = tmp_path / "Track00001" / "metadata.yaml"
    described = yaml.safe_load(metadata.read_text())
    programs = slakh.read_notes(metadata).program.tolist()
    described["stems"]["S00"]["audio_rendered"] = False
    metadata.write_text(yaml.safe_dump(described))
    assert slakh.read_notes(metadata).program.tolist() == [1] != programs


def test_unfinished_tracks_of_rendering_are_not_found(make_track: MakeTrack, tmp_path: Path):
    make_track(tmp_path / "train" / "Track00001")
    make_track(tmp_path / "train" / ".Track00002.99.tmp")
    assert [one.id for one in sources.find("slakh", tmp_path)] == ["train/Track00001"]


def test_problems_are_one_line_errors(make_track: MakeTrack, tmp_path: Path):
    with pytest.raises(DataError, match="no Slakh tracks"):
        sources.find("slakh", tmp_path)
    make_track(tmp_path / "Track00001", program_num=129)
    metadata = tmp_path / "Track00001" / "metadata.yaml"
    with pytest.raises(DataError, match="stem S00 has program_num 129"):
        slakh.read_notes(metadata)
    for text in ("stems: [", "stems:\n- S00\n", "UUID: 1a\n", "stems:\n  S00: {is_drum: false}\n", ""):
        metadata.write_text(text)
        with pytest.raises(DataError, match="metadata.yaml: is no metadata of a Slakh track") as raised:
            slakh.read_notes(metadata)
        assert "\n" not in str(raised.value)
    metadata.write_text("stems:\n  S00: {is_drum: false, program_num: 3}\n")
    (tmp_path / "Track00001" / "MIDI" / "S00.mid").write_bytes(b"no MIDI")
    with pytest.raises(DataError, match="S00.mid"):
        slakh.read_notes(metadata)
