"""scripts/fit_strikes.py: learns from transcriptions when and how loud notes are struck."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from polyamp import hparams, notes
from polyamp.audio import reading
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.errors import DataError
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes, context, running_strikes, states, strikes
from polyamp.notes.strike_network import StrikeNetwork

DATA = Path(__file__).parents[1] / "data"
HPARAMS = MelodicHParams(hop_length=500, onset_peak_picking=True, onset_refinement=True, predict_offset_weight=12.0)


def chords(seed):
    """Chords of one loudness each, and rolls in which every note is heard a little off."""
    rng = np.random.default_rng(seed)
    rolls = {name: np.zeros((1200, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    true = []
    for frame in range(20, 1160, 20):
        loudness = rng.integers(40, 100)
        for pitch in rng.choice(np.arange(40, 80), 4, replace=False):
            true.append((frame / 32, (frame + 15) / 32, pitch, loudness))
            at = frame + rng.integers(-1, 2), pitch - 21
            rolls["onset"][at] = rolls["offset"][frame + 15, pitch - 21] = 0.9
            rolls["frame"][at[0] : frame + 15, pitch - 21] = 0.9
            rolls["velocity"][at] = (loudness + rng.normal(0, 12)) / 127
    return Notes.of(*zip(*true, strict=True)), rolls


@pytest.fixture(scope="module")
def script(load):
    return load("fit_strikes", examples_path="unread", output="unwritten")[0]


def test_learns_that_chords_are_struck_together(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "_BATCH", 64)
    pieces = [script.piece(*chords(seed), HPARAMS) for seed in range(14)]
    weights = script.learn(script.Examples(pieces[:12]), width=8, epochs=40, seed=0)
    network = StrikeNetwork({name: array[np.newaxis] for name, array in weights.items()})
    for one in pieces[12:]:
        moves = network.moves(one.own, one.around)
        for column, truth in ((0, one.later), (1, one.louder)):
            known = np.isfinite(truth)
            before, after = (np.square(truth[known] - move).mean() for move in (0, moves[known, column]))
            assert after < 0.7 * before
    np.savez(tmp_path / "mine.npz", **{name: array[np.newaxis] for name, array in weights.items()})
    before, after = script.scores(map(chords, (12, 13)), HPARAMS, str(tmp_path / "mine.npz"))
    assert after["with offsets and velocities"] > before["with offsets and velocities"] + 0.05


def test_what_is_to_be_learned_is_beside_the_recordings_own_delay_and_loudness(script):
    true = Notes.of([1.0, 2.0, 3.0, 3.5], [1.4, 2.4, 3.4, 4.0], [60, 62, 64, 72], [50, 60, 70, 90])
    rolls = {name: np.zeros((160, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    for onset, pitch, velocity in ((1.03125, 60, 40), (2.03125, 62, 53), (3.0, 64, 57), (4.5, 80, 100)):  # The last is made up.
        at = round(onset * 32), pitch - 21
        rolls["onset"][at], rolls["velocity"][at] = 0.9, velocity / 127
        rolls["frame"][at[0] : at[0] + 12, pitch - 21] = 0.9
    piece = script.piece(true, rolls, HPARAMS)
    assert piece.later == pytest.approx([0.0, 0.0, 0.03125, np.nan], nan_ok=True)
    assert piece.louder == pytest.approx([0.0, -3.0, 3.0, np.nan], nan_ok=True)
    unknown = dataclasses.replace(true, velocity=np.array([50, 60, 0, 90]))
    assert script.piece(unknown, rolls, HPARAMS).louder == pytest.approx([1.5, -1.5, np.nan, np.nan], nan_ok=True)
    unknown = dataclasses.replace(true, velocity=np.zeros(4, np.int64))
    assert np.isnan(script.piece(unknown, rolls, HPARAMS).louder).all()


def test_states_teach_the_same(script):
    true = Notes.of([1.0, 2.0, 3.0, 3.5], [1.4, 2.4, 3.4, 4.0], [60, 62, 64, 72], [50, 60, 70, 90])
    rolls = {name: np.zeros((160, 88), np.float32) for name in ("velocity", "timing", "onset")}
    rolls["state"] = np.full((160, 88), states.OFF, np.int32)
    for onset, pitch, velocity in ((1.0325, 60, 40), (2.0325, 62, 53), (3.0, 64, 57), (4.5, 80, 100)):  # The last is made up.
        at = round(onset * 31.25), pitch - 21
        rolls["state"][at[0] : at[0] + 12, pitch - 21] = [states.ONSET, *[states.SUSTAIN] * 11]
        rolls["velocity"][at], rolls["timing"][at] = velocity / 127, onset * 31.25 - at[0]
    settings = hparams.resolve("AUTOREGRESSIVE", None)
    piece = script.piece(true, rolls, settings)
    assert piece.later == pytest.approx([0.0, 0.0, 0.0325, np.nan], nan_ok=True, abs=1e-6)
    assert piece.louder == pytest.approx([0.0, -3.0, 3.0, np.nan], nan_ok=True, abs=1e-4)
    assert piece.velocity == pytest.approx([40, 53, 57, 100]) and piece.around[..., 4].sum(axis=1).tolist() == [0, 1, 2, 3]
    nothing = script.piece(true, {name: np.zeros_like(roll) for name, roll in rolls.items()}, settings)
    assert script.Examples([nothing, piece]).sizes == (running_strikes.NUM_OWN, running_strikes.BEFORE)
    assert len(script.Examples([nothing, piece]).notes) == 3


def test_disturbances_are_what_is_to_be_taken_back(script, monkeypatch):
    """With nothing left out and no tempo, what a note is to be moved by is what it was disturbed by."""
    for name in ("_LEFT_OUT", "_TEMPO"):
        monkeypatch.setattr(script, name, 0.0)
    examples = script.Examples([script.piece(*chords(0), HPARAMS)])
    rng = np.random.default_rng(0)
    plain, truth = examples._around[examples.notes], examples._truth[examples.notes]
    inputs, target = examples.disturbed(examples.notes, rng)
    there = plain[..., 4] > 0
    later = 1e-3 * (truth - target)[:, 0, None] + (inputs["around"] - plain)[..., 0]  # Of the notes around.
    louder = (truth - target)[:, 1, None] + 30 * (inputs["around"] - plain)[..., 3]
    # Of thousands of notes around, that are disturbed as the notes themselves are:
    assert np.std(later[there]) == pytest.approx(1e-3 * np.std((truth - target)[:, 0]), rel=0.3)
    assert np.std(louder[there]) == pytest.approx(np.std((truth - target)[:, 1]), rel=0.3)
    assert np.std(later[there]) > 0.005 and np.std(louder[there]) > 1.0
    np.testing.assert_allclose((inputs["own"] - examples._own[examples.notes])[:, 0] * 30, (truth - target)[:, 1], atol=1e-3)
    np.testing.assert_array_equal(inputs["around"][..., 2], plain[..., 2])


def test_ends_in_frames_do_not_tell_how_onsets_are_disturbed(script, monkeypatch):
    """What still sounds ends in the frame of the note itself, which lies by its timing beside its onset: in training, too."""
    for name in ("_LEFT_OUT", "_TEMPO"):
        monkeypatch.setattr(script, name, 0.0)
    true, _ = chords(0)
    rolls = states.to_states(true, 1200, 31.25)
    begins = rolls["state"] >= states.ONSET
    rolls["timing"][begins] = np.random.default_rng(0).uniform(-0.5, 0.5, begins.sum())
    rolls["onset"] = begins.astype(np.float32)
    examples = script.Examples([script.piece(true, rolls, hparams.resolve("AUTOREGRESSIVE", None))], ends_follow=False)
    timing = examples._own[examples.notes, 1, np.newaxis] / 31.25
    plain = examples._around[examples.notes]
    sounds = (np.abs(plain[..., 1] + timing) < 1e-6) & (plain[..., 4] > 0)
    inputs, _ = examples.disturbed(examples.notes, np.random.default_rng(0))
    assert sounds.sum() > 100 and np.std((inputs["around"] - plain)[sounds][:, 0]) > 0.005
    np.testing.assert_allclose((inputs["around"][..., 1] + timing)[sounds], 0, atol=1e-6)


@pytest.mark.parametrize(("model_type", "kind"), [("MELODIC", strikes), ("AUTOREGRESSIVE", running_strikes)])
def test_writes_what_predictions_read(load, tmp_path, capsys, model_type, kind):
    audio = reading.read(DATA / "handel_air.ogg")[: 10 * 16_000]
    reference = notes.crop(notes.read_midi(DATA / "handel_air_reference.mid"), 0.0, 10.0)
    path = tmp_path / "train.tfrecord"
    records.write(path, [Example("handel_air", audio, reference, (1, 127))])
    output = tmp_path / "strikes.npz"
    settings = {"model_type": model_type, "examples_path": path, "validation_examples_path": path, "output": output}
    script, _ = load("fit_strikes", **settings, epochs=2, width=4, networks=2, seed=1)
    script._fit()
    own, around = np.zeros((3, kind.NUM_OWN)), np.ones((3, 20, context.NUM_AROUND))
    assert np.abs(kind.load(str(output)).moves(own, around)).max() > 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["note F1", "with offsets", "with offsets and velocities"]


def test_recordings_in_which_no_note_is_found_teach_nothing(load, tmp_path):
    path = tmp_path / "train.tfrecord"
    records.write(path, [Example("silence", np.zeros(48_000, np.float32), Notes.of([0.5], [1.0], [60]), (1, 127))])
    script, _ = load("fit_strikes", examples_path=path, output=tmp_path / "strikes.npz")
    with pytest.raises(DataError, match="no note is found"):
        script._fit()
    assert not (tmp_path / "strikes.npz").exists()
