"""scripts/benchmark_beats.py: the beats of MIDI files beside those found in their notes."""

import numpy as np
import pytest

from polyamp import notes
from polyamp.errors import PolyampError
from polyamp.notes import Notes


def write(path, qpm, seconds=60.0):
    """Bass notes on the beats, chords on every other and quavers between."""
    beat = 60 / qpm
    onset = np.arange(0.0, seconds, beat / 2)
    of_bass = onset[::2]
    pitch = np.concatenate([np.full(len(onset), 70), np.full(len(of_bass), 40), np.full(len(of_bass[::2]), 60)])
    starts = np.concatenate([onset, of_bass, of_bass[::2]])
    lengths = np.where(pitch == 70, 0.4, 0.9) * beat
    notes.write_midi(Notes.of(starts, starts + lengths, pitch, np.full(len(pitch), 80)), path, qpm)


def test_scores_each_file_and_all(load, tmp_path, capsys):
    write(tmp_path / "a.mid", 100)
    write(tmp_path / "b.mid", 118)
    script, _ = load("benchmark_beats", midi=f"{tmp_path}/*.mid", missing=0.1)
    script._measure()
    header, *files, mean = capsys.readouterr().out.splitlines()
    assert header.split() == ["F1", "CMLt", "AMLt", "file"]
    assert [line.split()[-1] for line in files] == [str(tmp_path / "a.mid"), str(tmp_path / "b.mid")]
    scores = np.array([[float(score) for score in line.split()[:3]] for line in files])
    assert scores.min() > 0.9
    assert mean.endswith("mean of 2 files")
    np.testing.assert_allclose([float(score) for score in mean.split()[:3]], scores.mean(axis=0), atol=0.006)


def test_without_a_usable_file_says_so(load, tmp_path):
    write(tmp_path / "a.mid", 100, seconds=3.0)
    script, _ = load("benchmark_beats", midi=str(tmp_path / "a.mid"))
    with pytest.raises(PolyampError, match="none of the files holds thirty notes"):
        script._measure()
    script, _ = load("benchmark_beats", midi=str(tmp_path / "b.mid"))
    with pytest.raises(PolyampError, match="--midi: no file is called"):
        script._measure()
