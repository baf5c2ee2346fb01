"""polyamp.notes.growing_rolls: what was added comes back, in how little memory, and notes are decoded from it."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyamp import checkpoint, notes
from polyamp.notes import decoding, growing_rolls
from polyamp.notes.growing_rolls import GrowingRoll, GrowingRolls

STEP = 1 / 65_535


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(growing_rolls, "_BLOCK", 16)


def random_frames(num_frames, num_pitches=88, seed=0):
    return np.random.default_rng(seed).random((num_frames, num_pitches), np.float32) ** 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8))
def test_what_was_added_comes_back_to_the_nearest_step(sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing_rolls, "_BLOCK", 16)
        roll, whole = GrowingRoll(5), random_frames(sum(sizes), 5)
        for frames in np.split(whole, np.cumsum(sizes)[:-1] if sizes else []):
            roll.add(frames)
        assert roll.shape == whole.shape and len(roll) == len(whole) and roll.dtype == np.asarray(roll).dtype == np.float32
        np.testing.assert_allclose(roll, whole, atol=STEP / 2 + 1e-7)
        nearest = np.rint(whole.astype(np.float64) * 65_535) / 65_535
        np.testing.assert_allclose(roll, nearest, rtol=1e-6)


def test_whole_pitches(short_blocks):
    roll, frames = GrowingRoll(88), random_frames(50)
    roll.add(frames)
    everything = np.asarray(roll)
    for pitches in (slice(None), slice(3, 14), slice(80, 99), slice(99, 110), slice(-2, None), 0, 87, -1, np.int64(41)):
        np.testing.assert_array_equal(roll[:, pitches], everything[:, pitches])
    with pytest.raises(IndexError):
        roll[:, 88]


@pytest.mark.parametrize(
    "cells",
    [3, slice(2, 5), slice(None), (slice(2, 5), 3), (np.array([1, 2]), np.array([3, 4])), (4, slice(None)), np.arange(3)],
)
def test_some_frames_are_refused(cells):
    roll = GrowingRoll(88)
    roll.add(random_frames(10))
    with pytest.raises(IndexError, match="whole pitches"):
        roll[cells]


@pytest.mark.parametrize("shape", [(3, 1), (3, 89), (88,), (3, 88, 2), (3,)])
def test_other_widths_are_refused(shape):
    roll = GrowingRoll(88)
    with pytest.raises(ValueError, match=r"must be \[time, 88\]"):
        roll.add(np.ones(shape, np.float32))
    assert roll.shape == (0, 88)


def test_what_is_outside_or_no_number():
    roll = GrowingRoll(4)
    roll.add(np.array([[-0.5, 1.5, np.nan, 0.5], [-np.inf, np.inf, 0.0, 1.0]], np.float32))
    roll.add(np.array([[True, False, True, False]]))
    np.testing.assert_allclose(roll, [[0, 1, 0, 0.5], [0, 1, 0, 1], [1, 0, 1, 0]], atol=STEP)


def test_clips_take_little_memory():
    """As thousands of them may be held at a time."""
    tracemalloc.start()
    clips = []
    for _ in range(20):
        clips.append(GrowingRoll(88))
        for frames in np.split(random_frames(320), 5):
            clips[-1].add(frames)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / 20 < 1.5 * 4 * 88 * 320  # An array would take 4 * 88 * 320.


def test_hours_of_music_take_little_memory():
    rng = np.random.default_rng(0)
    piece = np.where(rng.random((64, 88)) < 0.05, rng.random((64, 88)), 1e-6).astype(np.float32)  # As in dense music.
    tracemalloc.start()
    roll, held = GrowingRoll(88), []
    for _ in range(3):
        for _ in range(112_500 // 64):  # An hour of frames of 32 ms.
            roll.add(np.roll(piece, rng.integers(64), axis=0))
        held.append(tracemalloc.get_traced_memory()[0])
    as_array = 4 * 88 * 112_500
    assert all(later - before < as_array / 8 for before, later in zip(held, held[1:], strict=False))
    tracemalloc.reset_peak()
    assert roll[:, 40].shape == (len(roll),)
    assert tracemalloc.get_traced_memory()[1] - held[-1] < 8 * 4 * len(
        roll
    )  # To read one pitch, nothing is laid out of others.
    tracemalloc.stop()


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL"])
def test_notes_are_those_of_arrays(short_blocks, model_type):
    hparams = dataclasses.replace(checkpoint.locate(model_type)[1], predict_onset_threshold=0.9)
    rng = np.random.default_rng(0)
    rolls = {name: rng.random((300, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    growing = GrowingRolls()
    for first in range(0, 300, 37):
        growing.add({name: roll[first : first + 37] for name, roll in rolls.items()})
    found = notes.from_rolls(growing, hparams)
    wanted = notes.from_rolls({name: np.asarray(roll) for name, roll in growing.items()}, hparams)
    assert len(found) > 300
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name))
    not_rounded = notes.from_rolls(rolls, hparams)
    np.testing.assert_array_equal(found.pitch, not_rounded.pitch)
    np.testing.assert_allclose(found.onset, not_rounded.onset, atol=1e-3)
    np.testing.assert_allclose(found.velocity, not_rounded.velocity, atol=1)
    assert np.mean(np.abs(found.offset - not_rounded.offset) < 1e-3) > 0.99  # Of ends that are as likely, another may be.


@pytest.mark.parametrize("cells", [1, 700, 20_000])
def test_how_many_pitches_are_decoded_at_once_does_not_matter(monkeypatch, cells):
    hparams = checkpoint.locate("MELODIC")[1]
    rng = np.random.default_rng(1)
    rolls = {name: rng.random((300, 88), np.float32) for name in ("onset", "offset", "frame", "velocity")}
    wanted = notes.from_rolls(rolls, hparams)  # All at once.
    monkeypatch.setattr(decoding, "_CELLS", cells)
    found = notes.from_rolls(rolls, hparams)
    assert len(found) > 300 and np.ptp(found.pitch) == 87
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name))
