"""Labels against note-seq, the numpy implementation and hand-made cases."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from note_seq import sequences_lib

from polyamp import notes
from polyamp.data import labels
from polyamp.hparams import MelodicHParams
from polyamp.notes import Notes

SECONDS = 6.0
NAMES = ("onset", "offset", "frame", "velocity", "frame_weight")


def _random_notes(seed: int) -> Notes:
    rng = np.random.default_rng(seed)
    onset = np.round(rng.uniform(0, SECONDS - 0.3, 60), 3)
    offset = np.minimum(onset + np.round(rng.exponential(0.3, 60), 3), SECONDS)
    pitch = np.concatenate([rng.integers(59, 62, 30), rng.integers(10, 120, 30)])  # Many of one pitch overlap.
    return Notes.of(onset, offset, pitch, rng.integers(1, 128, 60))


def _rolls(of: Notes, num_frames: int, hparams: MelodicHParams, total_time: float) -> dict[str, np.ndarray]:
    rolls = labels.to_rolls(of.onset, of.offset, of.pitch, of.velocity, num_frames, hparams, total_time)
    return {name: roll.numpy() for name, roll in rolls.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hop_length": 320},
        {"onset_mode": "window", "onset_window": 1},
        {"min_frame_occupancy_for_label": 0.5},
        {"onset_mode": "window", "onset_delay": 20.0, "hop_length": 256, "min_frame_occupancy_for_label": 0.3},
        {"onset_length": 80.0, "offset_length": 100.0, "frame_weight_onset": 2.0},
    ],
    ids=str,
)
def test_binary_labels_equal_note_seq(settings: dict, seed: int):
    hparams = MelodicHParams(decay_frame_weights=True, **settings)
    of = _random_notes(seed)
    sequence = notes.to_sequence(of)
    sequence.total_time = SECONDS
    expected = sequences_lib.sequence_to_pianoroll(
        sequence,
        frames_per_second=hparams.frames_per_second,
        min_pitch=21,
        max_pitch=108,
        onset_mode=hparams.onset_mode,
        onset_window=hparams.onset_window,
        onset_length_ms=hparams.onset_length,
        offset_length_ms=hparams.offset_length,
        onset_delay_ms=hparams.onset_delay,
        min_frame_occupancy_for_label=hparams.min_frame_occupancy_for_label,
        onset_upweight=hparams.frame_weight_onset,
    )
    rolls = _rolls(of, len(expected.active), hparams, SECONDS)
    np.testing.assert_array_equal(rolls["onset"], expected.onsets)
    np.testing.assert_array_equal(rolls["offset"], expected.offsets)
    np.testing.assert_array_equal(rolls["frame"], expected.active)
    np.testing.assert_allclose(rolls["velocity"], expected.onset_velocities, rtol=1e-6)
    np.testing.assert_allclose(rolls["frame_weight"], expected.weights, rtol=1e-6)


@pytest.mark.parametrize("mode", ["length_ms", "window", "triangle"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("total", [SECONDS, 4.2], ids=["inside", "at-the-end"])
def test_labels_of_a_crop_equal_numpy(mode: str, seed: int, total: float):
    hparams = MelodicHParams(onset_mode=mode, decay_frame_weights=True)
    of = notes.crop(_random_notes(seed), 1.777, 4.2, clip=False)
    total_time = total - 1.777
    assert (of.onset < 0).any() and (of.offset > total_time).any() == (total < SECONDS)
    expected = notes.to_rolls(of, 76, hparams, total_time=total_time)
    rolls = _rolls(of, 76, hparams, total_time)
    assert set(rolls) == set(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(rolls[name], expected[name], rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("mode", ["length_ms", "triangle"])
def test_labels_through_tf_data_equal_eager(mode: str):
    hparams = MelodicHParams(onset_mode=mode)
    of = _random_notes(7)
    columns = (of.onset, of.offset, of.pitch, of.velocity)
    eager = _rolls(of, 188, hparams, SECONDS)
    dataset = tf.data.Dataset.from_tensors(columns).map(lambda *c: labels.to_rolls(*c, 188, hparams, SECONDS))
    (mapped,) = dataset.as_numpy_iterator()
    for name in NAMES:
        np.testing.assert_array_equal(mapped[name], eager[name], err_msg=name)
        assert dataset.element_spec[name].shape == (188, 88)


def test_triangle_peaks_between_frames_and_takes_the_nearest_velocity():
    hparams = dataclasses.replace(MelodicHParams(), onset_mode="triangle", onset_window=1, hop_length=1600)  # 10 frames per s.
    of = Notes.of([0.525, 0.9], [0.625, 1.0], [60, 60], [127, 64])
    rolls = _rolls(of, 12, hparams, 1.2)
    expected = np.zeros(12)
    expected[4:11] = [0.375, 0.875, 0.625, 0.125, 0.5, 1.0, 0.5]
    np.testing.assert_allclose(rolls["onset"][:, 60 - 21], expected, atol=1e-6)
    np.testing.assert_allclose(rolls["velocity"][4:11, 60 - 21], [1.0] * 4 + [64 / 127] * 3, rtol=1e-6)


def test_a_cut_note_shows_neither_onset_nor_offset():
    hparams = MelodicHParams()
    of = dataclasses.replace(Notes.of([0.0], [5.0], [60]), onset=np.array([-1.0]))
    for rolls in (_rolls(of, 32, hparams, 1.0), notes.to_rolls(of, 32, hparams, total_time=1.0)):
        assert rolls["frame"][:, 39].all()
        assert not rolls["onset"].any() and not rolls["offset"].any() and not rolls["velocity"].any()


@pytest.mark.parametrize("mode", ["length_ms", "triangle"])
def test_no_notes_and_no_pitches_of_a_piano_give_empty_rolls(mode: str):
    hparams = MelodicHParams(onset_mode=mode, decay_frame_weights=True)
    for of in (Notes.empty(), Notes.of([0.1], [0.2], [110])):
        rolls = _rolls(of, 10, hparams, 1.0)
        assert all(rolls[name].shape == (10, 88) for name in NAMES)
        assert not any(rolls[name].any() for name in NAMES[:4])
        assert (rolls["frame_weight"] == 1).all()
