"""Synthesised recordings for the tests of `polyamp.data`."""

from collections.abc import Callable

import numpy as np
import pytest

from polyamp.data.example import Example, velocity_range
from polyamp.notes import Notes


def random_notes(rng: np.random.Generator, count: int, seconds: float) -> Notes:
    """Notes that begin within `seconds`, some outside the piano's range, many overlapping others of their pitch."""
    onset = np.round(rng.uniform(0, seconds, count), 4)
    pitch = np.concatenate([rng.integers(57, 62, count // 2), rng.integers(10, 120, count - count // 2)])
    return Notes.of(onset, onset + np.round(rng.exponential(0.4, count), 4), pitch, rng.integers(1, 128, count))


@pytest.fixture
def make_example() -> Callable[..., Example]:
    """A function that makes the example of a number: noise of a length in seconds, with random notes."""

    def make(number: int, seconds: float = 3.0, notes_per_second: float = 8.0) -> Example:
        rng = np.random.default_rng(number)
        # Integers, so that 16-bit audio gives the same samples back.
        audio = rng.integers(-9000, 9000, round(seconds * 16_000)).astype(np.float32) / 32_768
        notes = random_notes(rng, round(seconds * notes_per_second), seconds)
        notes = notes[notes.offset <= seconds]
        return Example(f"example {number}", audio, notes, velocity_range(notes))

    return make
