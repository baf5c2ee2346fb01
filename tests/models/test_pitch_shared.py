"""The compact network for a stream: what it answers for pieces is what the network answers for the whole."""

import keras
import numpy as np
import pytest

from polyamp import constants, hparams
from polyamp.audio.log_frequency import NUM_BINS
from polyamp.models import pitch_shared

PIECE = 5  # Frames: fewer than a block keeps.


@pytest.fixture(params=[{}, {"conv_rank": 3}], ids=["square", "in two"])
def settings(request):
    return hparams.resolve("MELODIC", "tiny", {"temporal_dilations": [1, 3, 2], "mixing_after": [2], **request.param})


def randomized(network):
    """With weights that differ from layer to layer, as if it had been trained."""
    rng = np.random.default_rng(0)
    for variable in network.variables:
        low, high = (0.5, 1.5) if any(name in variable.path for name in ("gamma", "variance")) else (-0.2, 0.2)
        variable.assign(rng.uniform(low, high, variable.shape))
    return network


def test_pieces_give_what_the_whole_gives_as_late_as_it_hears_ahead(settings):
    network = randomized(pitch_shared.build_network(settings))
    stream = pitch_shared.stream_of(network, settings, PIECE)
    assert {variable.path for variable in stream.variables} == {variable.path for variable in network.variables}
    ahead = 1 + 1 + 3 + 2  # The stem and the blocks.
    spectrum = np.random.default_rng(1).uniform(0, 1, (1, 40 + ahead, NUM_BINS)).astype(np.float32)
    spectrum = np.pad(spectrum, ((0, 0), (0, -spectrum.shape[1] % PIECE), (0, 0)))

    kept = {of.name: np.zeros((1, *of.shape[1:]), np.float32) for of in stream.inputs if of.name != "spectrum"}
    found = {name: [] for name in constants.ROLLS}
    for first in range(0, spectrum.shape[1], PIECE):
        answer = stream({"spectrum": spectrum[:, first : first + PIECE], **kept})
        kept = {name: keras.ops.convert_to_numpy(answer[name]) for name in kept}
        for name, pieces in found.items():
            pieces.append(keras.ops.convert_to_numpy(answer[name])[0])
    wanted = network(spectrum)
    for name, pieces in found.items():
        # The first frames hear zeros of another kind: the network pads every layer, the stream what it kept at the start.
        whole = keras.ops.convert_to_numpy(wanted[name])[0, ahead : 40 - ahead]
        assert whole.std() > 0.01
        np.testing.assert_allclose(np.concatenate(pieces)[2 * ahead : 40], whole, atol=1e-5)


def test_a_stream_keeps_two_frames_for_every_frame_that_a_block_hears_ahead(settings):
    stream = pitch_shared.stream_of(pitch_shared.build_network(settings), settings, PIECE)
    kept = {of.name: of.shape[1] for of in stream.inputs if of.name != "spectrum"}
    assert kept == {"stem_kept": 2, "block1_kept": 2, "block2_kept": 6, "block3_kept": 4}
    assert {name: stream.output[name].shape for name in kept} == {
        of.name: of.shape for of in stream.inputs if of.name != "spectrum"
    }
