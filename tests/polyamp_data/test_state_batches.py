"""Batches for the Autoregressive model: the same states from TFRecords and from the cache, and when batches run freely."""

import numpy as np
import pytest

from polyamp import hparams
from polyamp.data import cache, records, state_batches
from polyamp.data.example import Example
from polyamp.notes import Notes, states

FRAMES = 24
SETTINGS = {"train_frames": FRAMES, "batch_size": 2, "augment_probability": 0, "label_shift": -2, "free_running": 0.5}


def settings(**overrides):
    return hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {**SETTINGS, **overrides})


def example(seconds):
    """A scale, one note every quarter of a second; each sample says where it is."""
    samples = round(seconds * 16_000)
    onset = np.arange(0.1, seconds - 0.1, 0.25)
    notes = Notes.of(onset, onset + 0.2, 40 + np.arange(len(onset)), 30 + np.arange(len(onset)))
    return Example("scale", np.linspace(-0.5, 0.5, samples).astype(np.float32), notes, (30, 90))


@pytest.fixture
def path(tmp_path):
    records.write(tmp_path / "train.tfrecord", [example(3.0)])
    return str(tmp_path / "train.tfrecord")


def test_batches_of_audio_carry_the_states_of_their_crop(path):
    chosen = settings(train_frames=94)  # The whole example.
    inputs, targets, weights = next(iter(state_batches.training_dataset(path, chosen, 0, 0, 100)))
    assert inputs["audio"].shape == (2, 93 * 512) and inputs["state"].shape == (2, 94, 88)
    expected = states.to_states(example(3.0).notes, 94, 31.25)
    start = np.argmin(np.abs(example(3.0).audio - inputs["audio"][0, 0].numpy())) / 16_000  # Where the crop begins.
    shown = np.flatnonzero((targets["state"][0].numpy() >= states.ONSET).any(axis=1)) / 31.25 + start
    times = example(3.0).notes.onset
    assert np.abs(shown - times[times >= start][: len(shown)]).max() < 0.017
    assert expected["state"].dtype == np.int32 == targets["state"].dtype.as_numpy_dtype
    np.testing.assert_array_equal(inputs["state"], targets["state"])
    np.testing.assert_array_equal(weights["state"][0], [1] * 92 + [0] * 2)  # The last two answers would hear silence.


def test_a_resumed_training_from_audio_hears_other_crops(path):
    def first(step):
        inputs, _, _ = next(iter(state_batches.training_dataset(path, settings(), 0, step, 100)))
        return inputs["audio"].numpy()

    assert np.array_equal(first(0), first(0)) and not np.array_equal(first(0), first(5))


def test_velocities_of_audio_follow_its_level(path):
    louder = settings(train_frames=94, augment_probability=1e-9, augment_gain_db=12.0, augment_velocity_per_db=4.0)
    whole = example(3.0)
    inputs, targets, _ = next(iter(state_batches.training_dataset(path, louder, 3, 0, 100)))
    for audio, state, velocity in zip(
        inputs["audio"].numpy(), targets["state"].numpy(), targets["velocity"].numpy(), strict=True
    ):
        decibels = 20 * np.log10(np.abs(audio).max() / np.abs(whole.audio).max())
        onset, pitch = np.nonzero(state >= states.ONSET)
        before = 30 + pitch + 21 - 40  # As the scale has them.
        np.testing.assert_allclose(127 * velocity[onset, pitch], np.clip(before + 4 * decibels, 1, 127), atol=1.5)


def test_batches_of_cached_spectra_are_cut_with_their_states(path, tmp_path):
    chosen = settings()
    spectra = cache.build(
        tmp_path / "cache",
        records.read([path], on_error="raise"),
        lambda audio: np.arange(1 + len(audio) // 512, dtype=np.float32)[:, None] * np.ones(294, np.float32),
    )
    batches = state_batches.cached_batches(spectra, chosen, 0, 0, 100)
    inputs, targets, weights = next(batches)
    whole = states.to_states(example(3.0).notes, 94, 31.25)
    for row in range(2):
        first = int(inputs["spectrum"][row, 0, 0])
        inside = slice(first + 1, first + FRAMES)  # The first frame may begin within a note.
        np.testing.assert_array_equal(targets["state"][row, 1:], whole["state"][inside])
        np.testing.assert_allclose(targets["timing"][row, 1:], whole["timing"][inside], atol=1e-5)
        np.testing.assert_allclose(targets["velocity"][row, 1:], whole["velocity"][inside])
    np.testing.assert_array_equal(weights["state"][:, -3:], [[1, 0, 0]] * 2)
    again = next(state_batches.cached_batches(spectra, chosen, 0, 0, 100))
    np.testing.assert_array_equal(again[0]["spectrum"], inputs["spectrum"])


@pytest.mark.parametrize(("shift", "expected"), [(0, [1, 1, 1, 1]), (1, [0, 1, 1, 1]), (-3, [1, 0, 0, 0])])
def test_frames_that_hear_nothing_are_not_taught(shift, expected):
    chosen = settings(label_shift=shift, train_frames=8)
    np.testing.assert_array_equal(state_batches._is_taught(chosen)[[0, 5, 6, 7]], expected)


def test_free_running_rises_from_its_beginning_to_its_share():
    chosen = settings(free_running=0.8, free_running_after=0.25)
    ran = np.array([state_batches.runs_freely(chosen, 0, step, 4000) for step in range(4000)])
    assert not ran[:1000].any()
    assert ran[2400:2600].mean() == pytest.approx(0.4, abs=0.1)
    assert ran[3800:].mean() == pytest.approx(0.79, abs=0.1)
    never = settings(free_running=0.0)
    assert not any(state_batches.runs_freely(never, 0, step, 100) for step in range(100))


def test_both_ways_of_reading_run_freely_at_the_same_steps(path, tmp_path):
    chosen = settings(free_running=1.0, free_running_after=0.0)
    audio = state_batches.training_dataset(path, chosen, 0, 3, 10).take(6)
    of_audio = [float(inputs["free_run"][0]) for inputs, _, _ in audio]
    assert of_audio == [float(state_batches.runs_freely(chosen, 0, step, 10)) for step in range(3, 9)]
    assert len(set(of_audio)) == 2
