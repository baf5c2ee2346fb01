"""Rolls of a recording piece after piece: those of Keras' windows, whatever the blocks and the length."""

import keras
import numpy as np
import pytest

from polyamp import constants, hparams, models
from polyamp.models import parts, pitch_shared
from polyamp.predict import predict_rolls
from polyamp.roll_stream import RollNetwork


@pytest.fixture(scope="module", params=[512, 300], ids=["hop 512", "hop 300"])
def made(request):
    """A small model, the same for a stream in Keras, and its settings."""
    keras.utils.set_random_seed(3)
    settings = hparams.resolve("MELODIC", "tiny", {"hop_length": request.param, "predict_window_seconds": 1.0})
    model = models.build("MELODIC", settings)
    stream = pitch_shared.build_stream(settings, 16)
    trained = {layer.name: layer for layer in parts.weighted_layers(model)}
    for layer in parts.weighted_layers(stream):
        layer.set_weights(trained[layer.name].get_weights())

    def run(**pieces):
        return {name: keras.ops.convert_to_numpy(roll) for name, roll in stream(pieces).items()}

    shapes = {of.name: (1, *of.shape[1:]) for of in stream.inputs}
    return model, RollNetwork(run, shapes, settings.hop_length), settings


def noise(samples):
    return np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 5_000, 8_191, 8_192, 40_000])
def test_rolls_are_those_of_windows(made, samples):
    model, network, settings = made
    audio = noise(samples)
    found, wanted = network.predict([audio]), predict_rolls(model, [audio], settings)
    assert found.keys() == wanted.keys() == set(constants.ROLLS)
    for name, roll in wanted.items():
        assert found[name].shape == (1 + samples // settings.hop_length, 88) and found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], roll, atol=1e-5)


def test_blocks_do_not_matter_and_are_taken_as_they_are_needed(made):
    _, network, settings = made
    audio = noise(50_000)
    whole = network.predict([audio])
    for size in (1_000, 7_001, 30_000):
        split = network.predict(audio[start : start + size] for start in range(0, len(audio), size))
        for name, roll in whole.items():
            np.testing.assert_array_equal(split[name], roll)


def test_clips_of_a_batch_are_heard_each_by_itself(made):
    _, network, settings = made
    clips = np.stack([noise(9_000), np.zeros(9_000, np.float32)])
    found = network.predict_on_batch(clips)
    for row, clip in enumerate(clips):
        for name, roll in network.predict([clip]).items():
            np.testing.assert_array_equal(found[name][row], roll)


def test_a_network_that_hears_whole_windows_is_refused():
    with pytest.raises(ValueError, match="older version"):
        RollNetwork(dict, {"spectrum": (1, 784, 294)}, 512)
