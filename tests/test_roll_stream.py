"""Rolls of a recording piece after piece: those of Keras' windows, whatever the blocks and the length."""

import keras
import numpy as np
import pytest

from polyamp import constants, hparams, models
from polyamp.models import pitch_shared
from polyamp.roll_stream import RollNetwork
from polyamp.windows import predict_rolls

PIECE = 16  # Frames.


@pytest.fixture(scope="module", params=[512, 300, 5000], ids=lambda hop: f"hop {hop}")
def made(request):
    """A small model that answers silence with something, the same for a stream in Keras, and its settings."""
    overrides = {
        "temporal_dilations": [1, 8],
        "hop_length": request.param,
        "predict_margin_seconds": 10 * request.param / 8_000,
    }
    settings = hparams.resolve("MELODIC", "tiny", {**overrides, "predict_window_seconds": 4.0})
    model = models.build("MELODIC", settings)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        low, high = (0.5, 1.5) if any(name in variable.path for name in ("gamma", "variance")) else (-0.2, 0.2)
        variable.assign(rng.uniform(low, high, variable.shape))
    stream = pitch_shared.stream_of(model.get_layer("network"), settings, PIECE)

    def run(**pieces):
        return {name: keras.ops.convert_to_numpy(roll) for name, roll in stream(pieces).items()}

    shapes = {of.name: (1, *of.shape[1:]) for of in stream.inputs}
    return model, RollNetwork(run, shapes, settings.hop_length), settings


def noise(samples):
    return np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)


# With hops of 512 the second line's end a piece's samples or its last frame, or are one off.
@pytest.mark.parametrize("samples", [0, 1, 511, 512, 5_000, 40_000])
@pytest.mark.parametrize("more", [0, 3_584, 4_095, 4_096])
def test_rolls_are_those_of_windows(made, samples, more):
    model, network, settings = made
    audio = noise(samples + more)
    found, wanted = network.predict([audio]), predict_rolls(model, [audio], settings)
    assert found.keys() == wanted.keys() == set(constants.ROLLS)
    for name, roll in wanted.items():
        assert found[name].shape == (1 + len(audio) // settings.hop_length, 88) and found[name].dtype == np.float32
        assert np.std(roll) > 0.005
        np.testing.assert_allclose(found[name], roll, atol=2 / 65_535)  # They are kept to a 65,535th.


def test_blocks_do_not_matter(made):
    _, network, _ = made
    audio = noise(150_000)
    whole = network.predict([audio])
    for size in (997, 7_001, 70_000):
        split = network.predict(audio[start : start + size] for start in range(0, len(audio), size))
        for name, roll in whole.items():
            np.testing.assert_array_equal(split[name], roll)


def test_blocks_are_taken_as_they_are_needed():
    taken: list[int] = []
    heard: list[int] = []

    def run(spectrum, kept):
        heard.append(len(taken))
        return {"onset": np.zeros((1, PIECE, 88), np.float32), "kept": kept}

    def blocks():
        for start in range(40):
            taken.append(start)
            yield np.zeros(512, np.float32)

    rolls = RollNetwork(run, {"spectrum": (1, PIECE, 294), "kept": (1, 4, 88, 1)}, 512).predict(blocks())
    assert rolls["onset"].shape == (41, 88)
    # Two frames of silence, and half a window of it, come before; a piece hears half a window beyond its last frame.
    assert heard[0] == PIECE - 1 + 4 - 2 and heard[1] == heard[0] + PIECE


def test_clips_of_a_batch_are_heard_each_by_itself(made):
    _, network, settings = made
    clips = np.stack([noise(9_000), np.zeros(9_000, np.float32)])
    found = network.predict_on_batch(clips)
    for row, clip in enumerate(clips):
        for name, roll in network.predict([clip]).items():
            np.testing.assert_array_equal(found[name][row], roll)
