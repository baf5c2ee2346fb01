"""polyamp.notes.running_strikes: what is remembered of notes as they come, worked out by hand, and what becomes of them."""

import dataclasses
import itertools
import types
from pathlib import Path

import numpy as np
import pytest

from polyamp import constants, hparams, models, state_stream, streaming, transcribe
from polyamp.errors import PolyampError
from polyamp.notes import context, running_strikes
from polyamp.notes.running_strikes import BEFORE, NUM_OWN, Memory
from polyamp.notes.states import OFF, OFFSET, ONSET, REONSET, SUSTAIN, StateFrame

RATE = 32.0


def silence(num_frames=40):
    rolls = {name: np.zeros((num_frames, 88), np.float32) for name in ("velocity", "timing", "onset")}
    return rolls | {"state": np.full((num_frames, 88), OFF, np.int32)}


def random_rolls(seed, num_frames=300):
    rng = np.random.default_rng(seed)
    state = rng.choice([OFF, SUSTAIN, ONSET, REONSET], (num_frames, 88), p=[0.3, 0.67, 0.02, 0.01]).astype(np.int32)
    velocity, onset = rng.random((2, num_frames, 88), np.float32)
    return {"state": state, "velocity": velocity, "timing": rng.uniform(-0.5, 0.5, state.shape), "onset": onset}


def begun(rolls):
    """Of each frame what begins there."""
    memory = Memory(RATE)
    return [memory.next(frame) for frame in running_strikes.frames(rolls)]


def log_odds(probability):
    return np.log(probability / (1 - probability)) / 4


class TestMemory:
    def test_what_is_known_of_a_note_by_itself(self):
        rolls = silence()
        rolls["state"][8:12, 39] = ONSET, SUSTAIN, REONSET, OFFSET
        rolls["velocity"][8:11, 39] = 0.2, 0.5, 0.7
        rolls["onset"][8:11, 39] = 0.9, 0.3, 0.6
        rolls["timing"][10, 39] = -0.25
        found = begun(rolls)
        assert [frame for frame, some in enumerate(found) if some] == [8, 10]
        least = log_odds(1e-3)
        first = [(25.4 - 60) / 30, 0, 0, -25.4 / 30, -25.4 / 30, log_odds(0.9), least, least]
        again = [(88.9 - 60) / 30, -0.25, 1, -25.4 / 30, -63.5 / 30, log_odds(0.6), log_odds(0.3), log_odds(0.9)]
        np.testing.assert_allclose(found[8].own, [first], atol=1e-5)
        np.testing.assert_allclose(found[10].own, [again], atol=1e-5)
        np.testing.assert_allclose(found[10].heard[0, [0, 2, 3]], [9.75 / RATE, 39, 88.9], atol=1e-5)

    def test_the_notes_before_and_beside_are_the_latest_first(self):
        rolls = silence()
        for frame, pitch, end in ((2, 30, 5), (4, 35, 20), (8, 42, 20), (8, 47, 20)):
            rolls["state"][frame : end + 1, pitch] = [ONSET, *[SUSTAIN] * (end - frame - 1), OFFSET]
            rolls["velocity"][frame, pitch] = pitch / 127
        rolls["timing"][2, 30] = 0.5
        around = begun(rolls)[8].around
        assert around.shape == (2, BEFORE, context.NUM_AROUND)
        # Onset, end, interval, loudness: of what still sounds no more is known than that it does.
        before = [[-4 / RATE, 0, -7, -7 / 30, 1], [-5.5 / RATE, -3 / RATE, -12, -12 / 30, 1]]
        np.testing.assert_allclose(around[0, :3], [[0, 0, 5, 5 / 30, 1], *before], atol=1e-6)
        before = [[-4 / RATE, 0, -12, -12 / 30, 1], [-5.5 / RATE, -3 / RATE, -17, -17 / 30, 1]]
        np.testing.assert_allclose(around[1, :3], [[0, 0, -5, -5 / 30, 1], *before], atol=1e-6)
        assert not around[:, 3:, 4].any()

    def test_agrees_with_all_notes_seen_at_once(self):
        rolls = random_rolls(1)
        rows, frames = [], []
        for frame, pitch in zip(*np.nonzero(rolls["state"] >= ONSET), strict=True):
            end = frame + 1 + np.argmax(np.append(rolls["state"][frame + 1 :, pitch] != SUSTAIN, True))
            rows.append((frame + rolls["timing"][frame, pitch], end, pitch, 127 * rolls["velocity"][frame, pitch]))
            frames.append(frame)
        rows, frames = np.array(rows), np.array(frames)
        rows[:, :2] /= RATE
        around = np.concatenate([some.around for some in begun(rolls) if some])
        assert len(around) == len(rows) > 500
        for own, frame in enumerate(frames):
            others = [other for other in np.flatnonzero(frames <= frame)[::-1] if other != own][:BEFORE]
            seen = np.minimum(rows[others], [np.inf, frame / RATE, np.inf, np.inf])
            np.testing.assert_allclose(around[own, : len(others), :2], seen[:, :2] - rows[own, 0], atol=1e-5)
            np.testing.assert_allclose(around[own, : len(others), 2], seen[:, 2] - rows[own, 2])
            np.testing.assert_allclose(around[own, : len(others), 3], (seen[:, 3] - rows[own, 3]) / 30, atol=1e-5)

    def test_does_not_grow(self):
        memory = Memory(RATE)
        for number in range(200):
            memory.next(StateFrame(number, np.full(88, ONSET), *np.ones((3, 88))))
        assert len(memory._notes) == BEFORE + 88 and len(memory._recent) == 3

    def test_what_is_no_number_does_not_stay(self):
        rolls = random_rolls(2, 60)
        for name in ("velocity", "timing", "onset"):
            rolls[name][:30] = np.nan
        for some in filter(None, begun(rolls)):
            assert np.isfinite(some.own).all() and np.isfinite(some.around).all()


@pytest.fixture
def moved(monkeypatch):
    """What becomes of rolls, of which each note is moved by so many seconds and units of velocity."""

    def function(rolls, later, louder):
        network = types.SimpleNamespace(
            moves=lambda own, around: np.tile(np.array([[later, louder]], np.float32), (len(own), 1))
        )
        monkeypatch.setattr(running_strikes, "load", lambda which: network)
        return running_strikes.as_struck(rolls, "", RATE)

    return function


class TestAsStruck:
    def test_nothing_else_changes(self, moved):
        rolls = random_rolls(3)
        given = {name: roll.copy() for name, roll in rolls.items()}
        struck, begins = moved(rolls, 0.02, 10), rolls["state"] >= ONSET
        for name, roll in given.items():
            np.testing.assert_array_equal(rolls[name], roll)
            np.testing.assert_array_equal(struck[name][~begins], roll[~begins])
        assert (struck["timing"] != given["timing"])[begins].mean() > 0.9

    @pytest.mark.parametrize(("by", "most"), [((0.02, 10.0), (0.02, 10.0)), ((-0.3, -90.0), (-0.05, -30.0))])
    def test_by_no_more_than_50_ms_and_thirty_units_and_less_at_first(self, moved, by, most):
        rolls = silence(300)
        frames = np.arange(2, 282, 10)
        rolls["state"][frames, 40], rolls["velocity"][frames, 40] = ONSET, 64 / 127
        struck = moved(rolls, *by)
        share = np.minimum(np.arange(len(frames)) / BEFORE, 1)
        np.testing.assert_allclose(struck["timing"][frames, 40], most[0] * RATE * share, atol=1e-5)
        np.testing.assert_allclose(127 * struck["velocity"][frames, 40], 64 + most[1] * share, atol=1e-3)

    def test_velocities_stay_in_their_range(self, moved):
        for louder in (-30, 30):
            velocity = moved(random_rolls(4), 0.0, louder)["velocity"]
            assert velocity.min() >= 0 and velocity.max() <= 1


@pytest.mark.parametrize("which", constants.RUNNING_STRIKE_KINDS)
def test_streams_and_files_have_the_same_notes(which):
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {"predict_strikes": which})
    rolls = random_rolls(5)
    whole = transcribe.notes_of_states(rolls, settings)
    as_heard = transcribe.notes_of_states(rolls, dataclasses.replace(settings, predict_strikes=""))
    assert np.abs(whole.velocity - as_heard.velocity).mean() > 1 and np.abs(whole.onset - as_heard.onset).max() > 1e-3
    transcriber = streaming.StreamingTranscriber(state_stream.of_model(models.build("AUTOREGRESSIVE", settings), settings))
    frames = running_strikes.frames(rolls)
    sizes = iter([1] * 100 + [7, 0, 50, 143])  # One frame at a time, and several.
    transcriber._stream = types.SimpleNamespace(
        push=lambda block: itertools.islice(frames, next(sizes)), finish=list, num_frames=300
    )
    live = streaming.to_notes([event for _ in range(104) for event in transcriber.push(np.zeros(1))] + transcriber.finish())
    assert not list(frames) and live.pitch.tolist() == whole.pitch.tolist()
    assert np.abs(live.velocity - whole.velocity).max() <= 1 and np.mean(live.velocity != whole.velocity) < 0.01  # Rounded.
    np.testing.assert_allclose(live.onset, whole.onset, atol=1e-5)
    np.testing.assert_allclose(live.offset, whole.offset, atol=1e-5)


def test_a_soft_note_of_a_loud_chord_is_louder_than_it_was_heard():
    """Four-part chords every half second, of which one has a note that is heard a frame late, and softer."""
    rolls = silence(400)
    for frame in range(16, 384, 16):
        for pitch in (27, 39, 43, 46):
            late = (frame, pitch) == (336, 43)
            at = frame + late, pitch
            rolls["state"][frame + late : frame + 15, pitch] = [ONSET, *[SUSTAIN] * (13 - late), OFFSET]
            rolls["velocity"][at], rolls["onset"][at] = 0.3 if late else 0.5, 0.9
    struck = running_strikes.as_struck(rolls, "pianos", 31.25)
    assert 127 * struck["velocity"][337, 43] > 45  # Heard as 38, and the others as 64.
    others = (rolls["state"] == ONSET) & (rolls["velocity"] > 0.4)
    assert np.abs(127 * struck["velocity"][others] - 64).max() < 12


def test_instead_of_smoothed_velocities():
    smooth = hparams.resolve("AUTOREGRESSIVE", None, {"predict_strikes": "pianos", "velocity_smoothing": 0.9})
    plain = dataclasses.replace(smooth, velocity_smoothing=0.0)
    assert "velocity_smoothing" in smooth.unused() and "predict_strikes" not in smooth.unused()
    rolls = random_rolls(6)
    assert transcribe.notes_of_states(rolls, smooth) == transcribe.notes_of_states(rolls, plain)


def test_networks_that_see_what_comes_after_are_refused():
    after = str(Path(running_strikes.__file__).with_name("strikes_pianos.npz"))
    with pytest.raises(PolyampError, match="predict_strikes=.*is neither pianos, pianos_low_latency nor a file"):
        running_strikes.load(after)


def test_the_numbers_are_those_of_the_network():
    begun_once = begun(random_rolls(7))[0]
    assert begun_once.own.shape[1] == NUM_OWN and begun_once.own.dtype == begun_once.around.dtype == np.float32
