"""Cutting recordings: nothing is lost, lengths are kept, and cuts fall where they hurt least."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyamp import notes
from polyamp.data import segments
from polyamp.errors import DataError
from polyamp.notes import Notes

RATE = 16_000


def _recording(seed: int, seconds: float, notes_per_second: float) -> tuple[np.ndarray, Notes]:
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, seconds, round(seconds * notes_per_second))
    offset = onset + rng.exponential(0.5, len(onset))
    audio = rng.uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)
    return audio, Notes.of(onset, offset, rng.integers(21, 109, len(onset)), rng.integers(1, 128, len(onset)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    seconds=st.floats(0.01, 60.0),
    notes_per_second=st.sampled_from([0.0, 0.3, 2.0, 15.0]),
    lengths=st.sampled_from([(5.0, 20.0), (2.0, 3.0), (4.0, 4.0), (0.0, 1.5)]),
)
def test_all_audio_and_all_notes_are_kept(seed: int, seconds: float, notes_per_second: float, lengths: tuple[float, float]):
    audio, labels = _recording(seed, seconds, notes_per_second)
    found = segments.examples("piece", audio, labels, *lengths)
    np.testing.assert_array_equal(np.concatenate([example.audio for example in found]), audio)
    durations = np.array([example.duration for example in found])
    assert (durations <= lengths[1] + 1e-6).all() and (durations > 0).all()
    complete = durations if lengths[1] >= 2 * lengths[0] and seconds >= lengths[0] else durations[:-1]
    assert (complete >= lengths[0] - 1e-6).all()
    starts = np.concatenate([[0.0], np.cumsum(durations)[:-1]])
    begun = [
        Notes(n.onset + start, n.offset + start, n.pitch, n.velocity, n.program)
        for start, example in zip(starts, found, strict=True)
        for n in [example.notes[example.notes.onset >= 0]]
    ]
    joined = notes.concatenate(begun)
    np.testing.assert_allclose(joined.onset, labels.onset, atol=1e-9)
    np.testing.assert_allclose(joined.offset, labels.offset, atol=1e-9)
    np.testing.assert_array_equal(joined.pitch, labels.pitch)
    sounding = sum(int(((labels.onset < s + d) & (labels.offset > s)).sum()) for s, d in zip(starts, durations, strict=True))
    assert sum(len(example.notes) for example in found) == sounding
    assert len({example.id for example in found}) == len(found)
    assert len({example.velocity_range for example in found}) == 1


def test_cuts_at_the_last_silence_within_reach():
    labels = Notes.of([0.0, 7.0, 13.0, 16.2], [6.0, 12.0, 16.0, 26.0], [60, 62, 64, 65])
    audio = np.sin(np.arange(26 * RATE) * 0.1).astype(np.float32)
    points = segments.cut_points(audio, labels, 5.0, 20.0) / RATE
    assert len(points) == 3 and 16.0 < points[1] < 16.2


def test_without_silence_cuts_where_the_fewest_notes_sound_at_a_zero_crossing():
    labels = Notes.of([0.0, 0.0, 10.0, 11.0], [30.0, 9.0, 30.0, 30.0], [40, 50, 60, 70])
    audio = np.sin(np.arange(30 * RATE) * 0.01).astype(np.float32)
    cut = segments.cut_points(audio, labels, 5.0, 20.0)[1]
    assert 9.0 < cut / RATE < 10.0
    assert audio[cut - 1] * audio[cut] <= 0


def test_audio_that_never_crosses_zero_is_cut_in_the_middle_of_the_gap():
    labels = Notes.of([0.0, 12.0], [8.0, 25.0], [60, 62])
    audio = np.full(25 * RATE, 0.1, np.float32)
    assert segments.cut_points(audio, labels, 5.0, 20.0).tolist() == [0, 10 * RATE, 25 * RATE]


def test_short_and_whole_recordings_are_one_example_with_their_own_name():
    audio, labels = _recording(1, 30.0, 2.0)
    (whole,) = segments.examples("piece", audio, labels, 0.0, 0.0)
    assert whole.id == "piece" and len(whole.audio) == len(audio)
    assert len(segments.examples("piece", audio[: 3 * RATE], labels, 5.0, 20.0)) == 1


def test_lengths_in_the_wrong_order_are_an_error():
    with pytest.raises(DataError, match="min_length"):
        segments.cut_points(np.zeros(RATE, np.float32), Notes.empty(), 20.0, 5.0)
