"""scripts/fit_ends.py: learns from transcriptions where notes end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from polyamp import notes
from polyamp.audio import reading
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.errors import DataError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes, end_candidates, ends

DATA = Path(__file__).parents[1] / "data"
HPARAMS = MelodicHParams(hop_length=500, onset_peak_picking=True, predict_offset_weight=12.0)


def two_voices(seed):
    """Two legato voices, rolls in which their notes ring on until the piece ends, and the true notes."""
    rng = np.random.default_rng(seed)
    parts = []
    for low in (40, 72):
        onset = np.cumsum(rng.integers(5, 20, 40)) / 32
        pitch = low + rng.permutation(np.tile(np.arange(10), 4))
        parts.append(Notes.of(onset[:-1], onset[1:], pitch[:-1]))
    true = notes.concatenate(parts)
    rolls = {name: np.zeros((800, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    rolls["frame"][:] = 0.6
    for onset, pitch in zip(true.onset, true.pitch, strict=True):
        rolls["onset"][round(onset * 32), pitch - 21] = 0.9
    return true, rolls


@pytest.fixture(scope="module")
def script(load):
    return load("fit_ends", examples_path="unread", output="unwritten")[0]


def test_learns_that_voices_go_on(script, monkeypatch):
    monkeypatch.setattr(script, "_BATCH", 16)
    pieces = [script.piece(*two_voices(seed), HPARAMS) for seed in range(12)]
    weights = script.learn(script.Examples(pieces[:10]), width=8, epochs=12, seed=0)
    before, after = script.scores(pieces[10:], {name: array[np.newaxis] for name, array in weights.items()})
    assert before < 0.3 and after > 0.6


def test_what_is_right_is_within_the_tolerance(script):
    true = Notes.of([0.0, 1.0, 2.0], [1.03, 1.5, 4.0], [60, 64, 67])
    rolls = {name: np.zeros((160, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    for onset, offset, pitch in ((0.0, 2.5, 60), (1.0, 1.5, 64), (2.0, 3.0, 67), (3.0, 3.5, 72)):  # The last is made up.
        rolls["onset"][round(onset * 32), pitch - 21] = rolls["offset"][round(offset * 32), pitch - 21] = 0.9
        rolls["frame"][round(onset * 32) : round(offset * 32), pitch - 21] = 0.9
    piece = script.piece(true, rolls, HPARAMS)
    seconds = piece.may_end.seconds
    right = {(int(n), round(float(s), 2)) for n, s, r in zip(piece.may_end.note, seconds, piece.is_right, strict=True) if r}
    assert right == {(0, 1.0), (1, 1.5)}


def test_writes_what_predictions_read(load, tmp_path, capsys):
    audio = reading.read(DATA / "handel_air.ogg")[: 10 * 16_000]
    reference = notes.crop(notes.read_midi(DATA / "handel_air_reference.mid"), 0.0, 10.0)
    path = tmp_path / "train.tfrecord"
    records.write(path, [Example("handel_air", audio, reference, (1, 127))])
    output = tmp_path / "ends.npz"
    script, _ = load("fit_ends", examples_path=path, validation_examples_path=path, output=output, epochs=40, width=4, seed=1)
    script._fit()
    learned = ends.load(str(output))
    assert learned.scores(
        reference, end_candidates.Candidates(np.zeros(1, int), np.ones(1), np.zeros((1, 19), np.float32))
    ).shape == (1,)
    before, after = (float(word.strip(",.")) for word in capsys.readouterr().out.split() if word[0] == "0")
    assert after > before
    found = notes.from_rolls(two_voices(0)[1], dataclasses.replace(HPARAMS, predict_ends=str(output)))
    assert len(found)


def test_recordings_in_which_no_note_is_found_teach_nothing(load, tmp_path):
    path = tmp_path / "train.tfrecord"
    records.write(path, [Example("silence", np.zeros(48_000, np.float32), Notes.of([0.5], [1.0], [60]), (1, 127))])
    script, _ = load("fit_ends", examples_path=path, output=tmp_path / "ends.npz")
    with pytest.raises(DataError, match="no note is found"):
        script._fit()
    assert not (tmp_path / "ends.npz").exists()
