"""Windows over audio of any length, against the same model over the whole clip."""

import dataclasses

import keras
import numpy as np
import pytest

from polyamp import hparams, models, windows
from polyamp.hparams import MelodicHParams

HOP = 512
REACH = 5  # Frames to each side that the fake model sees.
STEP = 1 / 65_535  # To which rolls are kept.
KERNEL = np.random.default_rng(0).uniform(0.1, 1.0, (2 * REACH + 1, 88))


class FakeModel:
    """Level around each frame, weighted by a kernel: a model with a known reach, in numpy.

    All rolls but the offsets are near 0 where the clip is silent and near 1 where it is loud.
    """

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, audio):
        self.shapes.append(audio.shape)
        roll = _roll(audio[0])[np.newaxis]
        return {"onset": roll, "offset": np.zeros_like(roll), "frame": roll, "velocity": roll}


def _expected_roll(audio):
    """The fake model's roll of a whole clip that silence follows."""
    return _roll(np.pad(audio, (0, (REACH + 2) * HOP)))[: 1 + len(audio) // HOP]


def _roll(audio):
    """[1 + samples // HOP, 88]: mean level of the hop before and after each frame's centre, smoothed and saturated."""
    frames = 1 + len(audio) // HOP
    padded = np.pad(np.abs(audio), (HOP, 2 * HOP))
    level = np.array([padded[t * HOP : (t + 2) * HOP].mean() for t in range(frames)])
    level = np.pad(level, REACH)
    smooth = np.stack([np.convolve(level, KERNEL[:, pitch], mode="valid") for pitch in range(88)], axis=1)
    return np.tanh(smooth * 10).astype(np.float32)


def _noise(samples, seed=0):
    """Noise with a slowly changing level, so that no two places are alike."""
    random = np.random.default_rng(seed)
    corners = np.arange(0, samples + 4000, 4000)
    level = np.interp(np.arange(samples), corners, random.random(len(corners)))
    return (random.normal(size=samples) * level * 0.01).astype(np.float32)


@pytest.mark.parametrize("window", [1.0, 2.7, 20.0])
@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, 31 * HOP, 32 * HOP, 16_000, 100_000, 200 * HOP])
def test_rolls_do_not_depend_on_window_borders(window, samples):
    audio = _noise(samples)
    settings = MelodicHParams(predict_window_seconds=window, predict_margin_seconds=0.25)
    rolls = windows.predict_rolls(FakeModel(), np.array_split(audio, 7), settings)
    assert set(rolls) == {"onset", "offset", "frame", "velocity"}
    assert rolls["onset"].shape == (1 + samples // HOP, 88) and rolls["onset"].dtype == np.float32
    np.testing.assert_allclose(rolls["onset"], _expected_roll(audio), atol=STEP)


def test_every_frame_count_near_a_window_border_is_exact():
    settings = MelodicHParams(predict_window_seconds=1.0, predict_margin_seconds=0.2)
    for samples in range(30 * HOP, 64 * HOP, 217):
        rolls = windows.predict_rolls(FakeModel(), [_noise(samples)], settings)
        np.testing.assert_allclose(rolls["frame"], _expected_roll(_noise(samples)), atol=STEP)


def test_no_margin_keeps_frames_in_step():
    settings = MelodicHParams(predict_window_seconds=1.0, predict_margin_seconds=0.0)
    audio = _noise(100_000)
    rolls = np.asarray(windows.predict_rolls(FakeModel(), [audio], settings)["onset"])
    expected = _expected_roll(audio)
    assert rolls.shape == expected.shape
    inside = [t for t in range(len(rolls)) if REACH < t % 32 < 32 - REACH - 2]  # 32 frames are the window of one second.
    np.testing.assert_allclose(rolls[inside], expected[inside], atol=STEP)


def test_block_sizes_do_not_matter_and_blocks_are_taken_as_they_are_needed():
    taken = []

    def blocks():
        for start in range(0, 640_000, 16_000):
            taken.append(start)
            yield audio[start : start + 16_000]

    audio = _noise(640_000)
    settings = MelodicHParams(predict_window_seconds=4.0, predict_margin_seconds=0.25)
    made = windows.windows(blocks(), core=126, margin=8, hop=HOP)
    next(made)
    assert len(taken) <= 5  # Four seconds and a margin, not the whole clip.
    rolls = windows.predict_rolls(FakeModel(), blocks(), settings)
    np.testing.assert_array_equal(rolls["onset"], windows.predict_rolls(FakeModel(), [audio], settings)["onset"])


def test_samples_that_are_enough_are_not_copied():
    pending = _noise(1_000)
    assert windows.filled(pending, iter([_noise(5)]), 1_000) is pending
    joined = windows.filled(pending, iter([_noise(5), _noise(7)]), 1_003)
    np.testing.assert_array_equal(joined, np.concatenate([pending, _noise(5)]))
    assert len(windows.filled(pending, iter([]), 2_000)) == 1_000


def test_all_windows_of_a_long_clip_have_one_shape_and_clips_that_fit_take_one_or_a_smaller_one():
    settings = MelodicHParams(predict_window_seconds=4.0, predict_margin_seconds=0.25)
    model = FakeModel()
    windows.predict_rolls(model, [_noise(16_000 * 30)], settings)
    assert len(model.shapes) == 8 and set(model.shapes) == {(1, (126 + 16 - 1) * HOP)}
    shapes = set()
    for seconds in (0.01, 0.5, 0.9, 1.5, 2.0, 3.0, 3.9, 4.0):
        short = FakeModel()
        windows.predict_rolls(short, [_noise(round(16_000 * seconds))], settings)
        assert len(short.shapes) == 1
        shapes |= set(short.shapes)
    assert len(shapes) == 3 and max(shapes) == model.shapes[0]


def test_a_keras_model_gives_the_same_rolls_at_all_window_sizes():
    audio = keras.Input((None,))
    x = keras.layers.ZeroPadding1D((HOP // 2, HOP // 2))(keras.layers.Reshape((-1, 1))(audio))
    x = keras.layers.AveragePooling1D(HOP)(x)
    x = keras.layers.Conv1D(88, 2 * REACH + 1, padding="same", activation="sigmoid", dtype="float32")(x)
    model = keras.Model(audio, {"onset": x, "frame": x})
    clip = _noise(16_000 * 9) * 10_000
    rolls = [
        windows.predict_rolls(model, [clip], MelodicHParams(predict_window_seconds=window, predict_margin_seconds=0.25))
        for window in (1.5, 4.0, 30.0)
    ]
    assert np.std(rolls[0]["onset"]) > 0.01
    for other in rolls[1:]:
        np.testing.assert_allclose(other["onset"], rolls[0]["onset"], atol=1.1 * STEP)


def test_a_pitch_shared_model_does_not_depend_on_window_borders():
    settings = hparams.resolve("MELODIC", "tiny")  # Sees 4 frames to each side, and half a second with its spectrogram.
    model = models.build("MELODIC", settings)
    clip = _noise(16_000 * 9) * 10
    rolls = [
        windows.predict_rolls(model, [clip], dataclasses.replace(settings, predict_window_seconds=window))
        for window in (2.0, 3.1, 30.0)
    ]
    for name in rolls[0]:
        assert np.std(rolls[0][name]) > 1e-4
        for other in rolls[1:]:
            np.testing.assert_allclose(other[name], rolls[0][name], atol=2 * STEP)


def test_a_model_with_another_number_of_frames_is_refused():
    class Short(FakeModel):
        def predict_on_batch(self, audio):
            return {name: roll[:, 1:] for name, roll in super().predict_on_batch(audio).items()}

    with pytest.raises(ValueError, match="frames for"):
        windows.predict_rolls(Short(), [_noise(1000)], MelodicHParams())
