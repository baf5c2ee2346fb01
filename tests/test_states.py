"""The five states of a pitch: against a plain loop, by hand, and there and back."""

import numpy as np
import pytest

from polyamp.notes import Notes, states
from polyamp.notes.states import OFF, OFFSET, ONSET, REONSET, SUSTAIN

RATE = 31.25


def of_frames(*notes):
    """Notes given as first frame, end frame, pitch and velocity."""
    start, end, pitch, velocity = np.array(notes).T
    return Notes.of(start / RATE, end / RATE, pitch, velocity)


def as_frames(notes):
    return sorted(
        zip(
            np.rint(notes.onset * RATE).astype(int).tolist(),
            np.rint(notes.offset * RATE).astype(int).tolist(),
            notes.pitch.tolist(),
            notes.velocity.tolist(),
            strict=True,
        )
    )


def plain(notes, num_frames):
    """The definition, pitch by pitch and note by note, for notes of whole frames that do not overlap."""
    answer = np.zeros((num_frames, 88), int)
    for start, end, pitch, _ in as_frames(notes):
        column = answer[:, pitch - 21]
        sounded = start > 0 and column[start] == OFFSET
        column[start] = REONSET if sounded else ONSET
        column[start + 1 : end] = SUSTAIN
        if end < num_frames:
            column[end] = OFFSET
    return answer


def column_of(*notes, frames=10):
    return states.to_states(of_frames(*notes), frames, RATE)["state"][:, notes[0][2] - 21].tolist()


@pytest.mark.parametrize(
    "notes, expected",
    [
        ([(2, 5, 60, 80)], [0, 0, ONSET, SUSTAIN, SUSTAIN, OFFSET, 0, 0, 0, 0]),
        ([(2, 3, 60, 80)], [0, 0, ONSET, OFFSET, 0, 0, 0, 0, 0, 0]),
        ([(2, 4, 60, 80), (4, 6, 60, 90)], [0, 0, ONSET, SUSTAIN, REONSET, SUSTAIN, OFFSET, 0, 0, 0]),
        ([(2, 7, 60, 80), (4, 6, 60, 90)], [0, 0, ONSET, SUSTAIN, REONSET, SUSTAIN, OFFSET, 0, 0, 0]),
        ([(2, 4, 60, 80), (5, 6, 60, 90)], [0, 0, ONSET, SUSTAIN, OFFSET, ONSET, OFFSET, 0, 0, 0]),
        ([(7, 30, 60, 80)], [0, 0, 0, 0, 0, 0, 0, ONSET, SUSTAIN, SUSTAIN]),
        ([(-3, 2, 60, 80)], [SUSTAIN, SUSTAIN, OFFSET, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_states_by_hand(notes, expected):
    if notes[0][0] < 0:  # As a crop has it.
        start, end, pitch, velocity = np.array(notes).T
        cut = Notes(start / RATE, end / RATE, pitch, velocity, np.zeros(1, np.int64))
        assert states.to_states(cut, 10, RATE)["state"][:, 39].tolist() == expected
    else:
        assert column_of(*notes) == expected


def test_there_and_back_is_exact_for_any_notes():
    rng = np.random.default_rng(0)
    for _ in range(40):
        notes = []
        for pitch in rng.choice(np.arange(21, 109), 20, replace=False):
            frame = int(rng.integers(0, 10))
            while frame < 180:
                length = int(rng.choice([1, 1, 2, 3, 20]))
                notes.append((frame, frame + length, int(pitch), int(rng.integers(1, 128))))
                frame += length + int(rng.choice([0, 0, 1, 2, 15]))  # Touching, one frame apart, ...
        given = of_frames(*notes)
        labels = states.to_states(given, 220, RATE)
        np.testing.assert_array_equal(labels["state"], plain(given, 220))
        assert as_frames(states.to_notes(labels["state"], labels["velocity"], RATE)) == sorted(notes)


def test_any_sequence_of_states_is_understood():
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 5, (300, 88))
    found = states.to_notes(drawn, np.full((300, 88), 0.5), RATE)
    assert len(found) == (drawn >= ONSET).sum() and (found.velocity == 64).all()
    for start, end, pitch, _ in as_frames(found):
        column = drawn[:, pitch - 21]
        assert column[start] in (ONSET, REONSET) and (column[start + 1 : end] == SUSTAIN).all()
        assert end == 300 or column[end] != SUSTAIN
    again = states.to_states(found, 300, RATE)["state"]
    np.testing.assert_array_equal(again >= ONSET, drawn >= ONSET)


def test_sustain_alone_is_no_note_and_silence_none():
    assert not len(states.to_notes(np.full((5, 88), SUSTAIN), np.ones((5, 88)), RATE))
    assert not len(states.to_notes(np.full((5, 88), OFF), np.ones((5, 88)), RATE))
    assert not states.to_states(Notes.of([], [], []), 5, RATE)["state"].any()


def test_times_within_frames_come_back():
    rng = np.random.default_rng(2)
    onset = np.sort(rng.uniform(0.1, 5.0, 60))
    notes = Notes.of(onset, onset + rng.uniform(0.1, 0.5, 60), rng.permutation(88)[:60] + 21, 64)
    labels = states.to_states(notes, 200, RATE)
    assert np.abs(labels["timing"]).max() <= 0.5
    found = states.to_notes(labels["state"], labels["velocity"], RATE, timing=labels["timing"])
    np.testing.assert_allclose(found.onset, notes.onset, atol=1e-6)
    np.testing.assert_allclose(found.offset, notes.offset, atol=1e-6)
    shifted = states.to_notes(labels["state"], labels["velocity"], RATE, onset_bias_ms=20.0)
    np.testing.assert_allclose(shifted.onset, states.to_notes(labels["state"], labels["velocity"], RATE).onset - 0.02)
