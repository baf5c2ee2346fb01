"""The mel and constant-Q layers against librosa, and what the models rely on: no dependence on context, shapes, any backend."""

import dataclasses
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import keras
import librosa
import numpy as np
import pytest
import soxr
from keras import ops

from polyamp.audio import filters
from polyamp.audio.spectrogram import CQT, LogFrequencySpectrogram, MelSpectrogram, make_spectrogram
from polyamp.errors import HParamsError
from polyamp.hparams import MelodicHParams

RATE = 16_000


def sweep(samples: int) -> np.ndarray:
    """An exponential chirp through all CQT bins, with hard ends."""
    seconds = np.arange(samples) / RATE
    octaves_per_second = 8.1 * RATE / samples
    phase = 2 * np.pi * 27.5 * (2.0 ** (octaves_per_second * seconds) - 1) / (np.log(2) * octaves_per_second)
    return 0.5 * np.sin(phase)


def clip(kind: str, samples: int = 6 * RATE + 123) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "sweep":
        signal = sweep(samples)
    elif kind == "noise":
        signal = 0.2 * rng.standard_normal(samples)
    elif kind == "tones":  # The edges of octaves, where librosa's resampling shows, among them.
        bins = np.array([0, 4, 5, 60, 117, 143, 144, 145, 172, 199, 200, 228])[:, None]
        signal = 0.08 * np.sin(2 * np.pi * 27.5 * 2 ** (bins / 28) * np.arange(samples) / RATE + bins).sum(0)
    elif kind == "clicks":
        signal = np.zeros(samples)
        signal[[0, 20_000, 20_003, 50_000, samples - 1]] = 1.0
    else:
        signal = np.zeros(samples)
    return signal.astype(np.float32)


def librosa_cqt(audio: np.ndarray, hop: int = 512, **options) -> np.ndarray:
    options = {"fmin": 27.5, "n_bins": 229, "bins_per_octave": 28, **options}
    return np.abs(librosa.cqt(audio, sr=RATE, hop_length=hop, tuning=0.0, **options)).T


def librosa_mel(audio: np.ndarray, hop: int = 512) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=audio, sr=RATE, n_fft=2048, hop_length=hop, pad_mode="reflect", n_mels=229, fmin=30, fmax=8000, htk=True, norm=None
    ).T


def run(layer: keras.layers.Layer, audio: np.ndarray, linear: bool = False) -> np.ndarray:
    answer = (layer.linear if linear else layer)(ops.convert_to_tensor(audio[None]))
    return ops.convert_to_numpy(answer)[0]


@pytest.mark.parametrize("hop", [512, 256])
@pytest.mark.parametrize("kind", ["sweep", "noise", "tones", "clicks", "silence"])
def test_cqt_is_librosas(kind, hop):
    audio = clip(kind)
    expected = librosa_cqt(audio, hop)
    np.testing.assert_allclose(run(CQT(hop_length=hop), audio, linear=True), expected, atol=1e-3 * expected.max() + 1e-9)


def test_cqt_is_librosas_where_the_hop_limits_the_halving():
    audio = clip("noise", 3 * RATE)
    expected = librosa_cqt(audio, 320, n_bins=88, bins_per_octave=12)
    layer = CQT(num_bins=88, bins_per_octave=12, hop_length=320)  # 320 can be halved six times, seven octaves need it.
    np.testing.assert_allclose(run(layer, audio, linear=True), expected, atol=1e-3 * expected.max())


@pytest.mark.parametrize("kind", ["sweep", "noise", "tones", "clicks", "silence"])
def test_mel_is_librosas(kind):
    audio = clip(kind)
    expected = librosa_mel(audio)
    np.testing.assert_allclose(run(MelSpectrogram(), audio, linear=True), expected, atol=1e-5 * expected.max() + 1e-12)


def test_mel_filterbank_is_librosas():
    expected = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=64, fmin=50, fmax=7000, htk=True, norm=None)
    np.testing.assert_allclose(filters.mel_filterbank(64, 1024, 50.0, 7000.0).T, expected, atol=1e-6)


def test_halving_filter_is_that_of_soxr():
    impulse = np.zeros(2048, np.float32)
    impulse[1024] = 1.0
    response = soxr.resample(impulse, 2, 1, quality="HQ")
    taps = filters.halving_filter()
    np.testing.assert_allclose(response[512 - 91 : 512 + 92], taps[1::2], atol=2e-5)


def test_compression_is_decibels_above_an_absolute_floor():
    audio = clip("tones")
    for layer, power, floor in ((MelSpectrogram(), librosa_mel(audio), -50.0), (CQT(), librosa_cqt(audio) ** 2, -80.0)):
        decibel = librosa.power_to_db(power, ref=1.0, amin=10 ** (floor / 10), top_db=None)
        mine = run(layer, audio)
        loud = decibel > decibel.max() - 60  # Where 0.1 % of the peak is a small part of the value.
        np.testing.assert_allclose(mine[loud], (decibel[loud] - floor) / 100, atol=0.02)
        assert mine.min() >= 0.0


def test_full_scale_is_near_one_and_silence_is_zero():
    for layer in (MelSpectrogram(), CQT()):
        assert not run(layer, clip("silence")).any()
        assert 0.9 < run(layer, 2 * clip("sweep")).max() < 1.3


@pytest.mark.parametrize("hop", [512, 256])
@pytest.mark.parametrize("spec_type", ["cqt", "mel"])
def test_a_window_gives_what_the_whole_gives(spec_type, hop):
    audio = clip("noise", 14 * RATE) * 0.1
    audio[: RATE // 2] *= 100.0  # A loud moment outside the window must not show.
    layer = make_spectrogram(MelodicHParams(spec_type=spec_type, hop_length=hop))
    whole = run(layer, audio)
    first, last = (5 * RATE) // hop, (12 * RATE) // hop
    window = run(layer, audio[first * hop : last * hop])
    margin = round(2.5 * RATE) // hop  # MelodicHParams.predict_margin_seconds
    np.testing.assert_allclose(window[margin:-margin], whole[first:][margin : len(window) - margin], atol=2e-3)


@pytest.mark.parametrize("samples", [1, 160, 511, 512, 1025, 5120])
@pytest.mark.parametrize("make", [CQT, MelSpectrogram])
def test_frames_are_one_more_than_whole_hops(make, samples):
    layer = make()
    answer = layer(np.full((2, samples), 0.1, np.float32))
    assert answer.shape == (2, 1 + samples // 512, 229) == layer.compute_output_shape((2, samples))
    assert np.isfinite(ops.convert_to_numpy(answer)).all()
    assert layer(keras.Input((samples,))).shape == (None, 1 + samples // 512, 229)


@pytest.mark.parametrize("make", [CQT, MelSpectrogram])
def test_unknown_lengths_and_compilation(make):
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow backend")
    layer, audio = make(), np.stack([clip("noise", 9000), clip("tones", 9000)])
    expected = ops.convert_to_numpy(layer(audio))
    unknown = tensorflow.function(layer, input_signature=[tensorflow.TensorSpec([None, None])])
    compiled = tensorflow.function(layer, jit_compile=True)
    for function in (unknown, compiled):
        np.testing.assert_allclose(function(audio), expected, atol=1e-3)
    assert layer(keras.Input((None,))).shape == (None, None, 229)


def test_precision_policy_does_not_reach_the_front_end():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layers = (CQT(), MelSpectrogram())
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in layers:
        assert keras.backend.standardize_dtype(layer(clip("tones")[None]).dtype) == "float32"


@pytest.mark.parametrize(
    "layer",
    [
        MelSpectrogram(num_bins=40, hop_length=160, window=512, fmin=50.0, fmax=7600.0, name="front"),
        CQT(num_bins=60, bins_per_octave=12, hop_length=256, fmin=55.0, name="front"),
    ],
    ids=["mel", "cqt"],
)
def test_layers_survive_serialisation_and_have_no_weights(layer, tmp_path):
    audio = keras.Input((None,))
    model = keras.Model(audio, layer(audio))
    assert not model.weights
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.get_layer("front").get_config() == layer.get_config()
    np.testing.assert_array_equal(run(restored, clip("noise", 8000)), run(layer, clip("noise", 8000)))


def test_make_spectrogram_follows_the_hparams():
    hparams = MelodicHParams(spec_type="mel", hop_length=256, spec_n_bins=80, spec_fmin=40.0, mel_fmax=7000.0, mel_window=1024)
    config = make_spectrogram(hparams, name="x").get_config()
    assert config == {"name": "x", "num_bins": 80, "hop_length": 256, "fmin": 40.0, "fmax": 7000.0, "window": 1024}
    config = make_spectrogram(dataclasses.replace(hparams, spec_type="cqt", cqt_bins_per_octave=12)).get_config()
    assert config == {"name": "spectrogram", "num_bins": 80, "hop_length": 256, "fmin": 40.0, "bins_per_octave": 12}
    log_frequency = make_spectrogram(dataclasses.replace(hparams, architecture="pitch_shared", spec_type="log_frequency"))
    assert isinstance(log_frequency, LogFrequencySpectrogram) and log_frequency.hop_length == 256


def test_bins_above_half_the_sample_rate_are_refused():
    with pytest.raises(HParamsError, match="240 constant-Q bins.* take fewer"):
        CQT(num_bins=240)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_backends_agree(backend, tmp_path):
    if util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    if backend == keras.backend.backend():
        pytest.skip("tested above")
    audio = np.stack([clip("noise", 20_000), clip("tones", 20_000)])
    np.save(tmp_path / "audio.npy", audio)
    script = (
        "import sys, numpy, keras\n"
        "from polyamp.audio.spectrogram import CQT, MelSpectrogram\n"
        f"assert keras.backend.backend() == {backend!r} and 'tensorflow' not in sys.modules\n"
        "audio = numpy.load('audio.npy')\n"
        "for layer in (CQT(), MelSpectrogram()):\n"
        "    symbolic = layer(keras.Input((None,)))\n"
        "    model = keras.Model(inputs := keras.Input((20_000,)), layer(inputs))\n"
        "    numpy.save(type(layer).__name__, model.predict(audio, verbose=0))\n"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for layer in (CQT(), MelSpectrogram()):
        theirs = np.load(tmp_path / f"{type(layer).__name__}.npy")
        np.testing.assert_allclose(theirs, ops.convert_to_numpy(layer(audio)), atol=2e-3)
