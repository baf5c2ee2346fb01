"""What trainings learn from: spectrograms in windows, against those of the whole recording."""

import keras
import numpy as np
import pytest

from polyamp import hparams, training_data
from polyamp.audio.spectrogram import make_spectrogram

SETTINGS = {
    "log-frequency": ("MELODIC", "tiny", {}),
    "other hop": ("MELODIC", "tiny", {"hop_length": 300}),
    "aligned ends": ("AUTOREGRESSIVE", "autoregressive_tiny", {}),
    "mel": ("MELODIC", None, {"spec_type": "mel"}),
    "constant Q": ("MELODIC", None, {"spec_type": "cqt"}),
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS)
def front_end(request):
    model_type, preset, overrides = request.param
    return make_spectrogram(hparams.resolve(model_type, preset, overrides))


@pytest.mark.parametrize("seconds", [0.01, 4.9, 5.0, 19.97, 45.0])
def test_spectrograms_are_those_of_the_whole_recording(front_end, seconds):
    audio = np.random.default_rng(0).normal(0.0, 0.1, round(seconds * 16_000)).astype(np.float32)
    # What silence is around is the same for all; of mel bands the ends would be reflected otherwise.
    silence = 64 * front_end.hop_length
    whole = keras.ops.convert_to_numpy(front_end(np.pad(audio, silence)[np.newaxis]))[0]
    found = training_data.spectrum(front_end, audio)
    assert len(found) == 1 + len(audio) // front_end.hop_length
    np.testing.assert_allclose(found, whole[64 : 64 + len(found)], atol=2e-5)


def test_recordings_of_all_lengths_are_heard_in_few(monkeypatch):
    front_end = make_spectrogram(hparams.resolve("MELODIC", "tiny"))
    lengths, call = set(), front_end.call
    monkeypatch.setattr(front_end, "call", lambda audio: lengths.add(audio.shape[1]) or call(audio))
    for seconds in np.linspace(0.5, 50.0, 40):
        training_data.spectrum(front_end, np.zeros(round(seconds * 16_000), np.float32))
    assert len(lengths) <= 3 and max(lengths) < 25 * 16_000
