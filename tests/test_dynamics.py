"""Velocities that agree with their neighbours', against the definition worked out note by note."""

import math

import numpy as np
import pytest

from polyamp import notes, transcribe
from polyamp.hparams import AutoregressiveHParams, MelodicHParams
from polyamp.notes import Notes, dynamics, neighbours, states


def smoothed(onset, pitch, velocity, share):
    onset = np.asarray(onset, float)
    return dynamics.smoothed_velocities(Notes.of(onset, onset + 0.1, pitch, velocity), share).velocity.tolist()


def one_by_one(of, share):
    """The definition, with all notes as neighbours."""
    result = []
    for i, own in enumerate(of.velocity):
        weights = [
            math.exp(-abs(of.onset[i] - of.onset[j]) - 0.5 * ((of.pitch[i] - of.pitch[j]) / 5) ** 2) if i != j else 0.0
            for j in range(len(of))
        ]
        result.append(own + share * (np.dot(weights, of.velocity) / sum(weights) - own))
    return np.array(result)


def test_two_notes_meet():
    assert smoothed([0, 1], [60, 62], [60, 100], 0.25) == [70, 90]


def test_nearer_notes_count_for_more():
    # The last note is as near in pitch; its weight is exp(-2) of that of the chord's.
    mean = (80 + 20 * math.exp(-2)) / (1 + math.exp(-2))
    assert smoothed([0, 0, 2], [60, 60, 60], [50, 80, 20], 1.0)[0] == round(mean)
    far = math.exp(-0.5 * (10 / 5) ** 2)
    assert smoothed([0, 0, 0], [60, 61, 70], [50, 80, 20], 1.0)[0] == round(
        (80 * math.exp(-0.02) + 20 * far) / (math.exp(-0.02) + far)
    )


def test_no_share_or_no_neighbours_changes_nothing():
    assert smoothed([0, 0.1], [60, 60], [30, 90], 0.0) == [30, 90]
    assert smoothed([0, 60, 61], [60, 60, 108], [30, 90, 20], 1.0) == [30, 90, 20]  # A minute or four octaves away.
    assert smoothed([0], [60], [30], 1.0) == [30]
    assert smoothed([], [], [], 1.0) == []


def test_blocks_of_notes_give_the_same_as_all_at_once(monkeypatch):
    rng = np.random.default_rng(1)
    onset = np.sort(rng.uniform(0, 30, 200))
    of = Notes.of(onset, onset + 0.2, rng.integers(40, 80, 200), rng.integers(1, 128, 200), rng.integers(0, 128, 200))
    expected = one_by_one(of, 0.6)
    for rows in (7, 256):
        monkeypatch.setattr(neighbours, "_ROWS", rows)
        found = dynamics.smoothed_velocities(of, 0.6)
        assert np.abs(found.velocity - expected).max() <= 0.51  # Rounded, and without notes more than 8 s away.
        for name in ("onset", "offset", "pitch", "program"):
            np.testing.assert_array_equal(getattr(found, name), getattr(of, name))


def test_errors_of_single_notes_shrink_and_a_crescendo_stays():
    rng = np.random.default_rng(2)
    onset = np.arange(0, 40, 0.2)
    truth = np.linspace(30, 100, len(onset))
    heard = np.clip(np.rint(truth + rng.normal(0, 12, len(onset))), 1, 127).astype(int)
    found = np.array(smoothed(onset, 60 + np.arange(len(onset)) % 5, heard, 0.4))
    assert np.std(found - truth) < 0.75 * np.std(heard - truth)
    assert np.polyfit(onset, found, 1)[0] == pytest.approx(70 / 40, rel=0.15)


def test_running_velocities_know_what_came_before_and_with_them_only():
    rng = np.random.default_rng(3)
    begins = rng.uniform(size=(400, 88)) < 0.003
    velocity = rng.uniform(0.2, 0.9, (400, 88))
    found = dynamics.running_velocities(begins, velocity, 20.0, 0.5)
    np.testing.assert_array_equal(found[~begins], velocity[~begins])
    frame, pitch = np.nonzero(begins)
    assert len(frame) > 50
    for i in range(len(frame)):
        weights = [
            math.exp(-(frame[i] - frame[j]) / 20 - 0.5 * ((pitch[i] - pitch[j]) / 5) ** 2)
            if i != j and 0 <= frame[i] - frame[j] < 160
            else 0.0
            for j in range(len(frame))
        ]
        own = velocity[frame[i], pitch[i]]
        mean = np.dot(weights, velocity[frame, pitch]) / max(sum(weights), 1e-9)
        expected = own + 0.5 * (mean - own) if sum(weights) > 1e-3 else own
        assert found[frame[i], pitch[i]] == pytest.approx(expected)


def test_running_velocities_forget_what_is_out_of_reach():
    running = dynamics.RunningVelocities(0.5)
    for second in range(1000):
        running.next(float(second), np.arange(3), np.full(3, 0.5))
    assert len(running._heard) <= 24
    assert running.next(1000.0, np.array([], int), np.array([])).tolist() == []


def test_what_is_no_number_does_not_stay():
    running = dynamics.RunningVelocities(0.5)
    running.next(0.0, np.array([40]), np.array([np.nan]))
    assert np.isfinite(running.next(0.1, np.array([41]), np.array([0.5]))).all()


@pytest.mark.parametrize("share, expected", [(0.0, [64, 127]), (0.5, [96, 96])])
def test_the_decoder_applies_it(share, expected):
    rolls = {name: np.zeros((20, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    for frame, velocity in ((2, 64 / 127), (10, 1.0)):
        rolls["onset"][frame, 39] = rolls["frame"][frame, 39] = 0.9
        rolls["velocity"][frame, 39] = velocity
    assert notes.from_rolls(rolls, MelodicHParams(velocity_smoothing=share)).velocity.tolist() == expected


@pytest.mark.parametrize("rounded, onsets", [(False, [0.104, 0.36]), (True, [0.064, 0.32])])
def test_notes_of_states_have_them_too_also_where_their_times_are_rounded(rounded, onsets):
    rolls = {"state": np.full((20, 88), states.OFF, np.int32)}
    rolls |= {name: np.zeros((20, 88), np.float32) for name in ("velocity", "timing")}
    for frame, velocity in ((2, 64 / 127), (10, 1.0)):
        rolls["state"][frame : frame + 3, 39] = states.ONSET, states.SUSTAIN, states.OFFSET
        rolls["velocity"][frame, 39] = velocity
        rolls["timing"][frame, 39] = 0.25
    found = transcribe.notes_of_states(rolls, AutoregressiveHParams(velocity_smoothing=0.5, onset_bias_ms=-32.0), rounded)
    np.testing.assert_allclose(found.onset, onsets)
    assert found.velocity[0] == 64 and 95 <= found.velocity[1] <= 96
