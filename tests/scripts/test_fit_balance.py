"""scripts/fit_balance.py: what of the balance of recordings is music, and what is colour."""

import numpy as np
import pytest
import soundfile

from polyamp.errors import AudioError, DataError

RATE = 16_000
CENTERS = 50 * 2 ** (np.arange(23) / 3)
MUSIC, COLOUR = 7, 15  # Bands: one differs from minute to minute, the other from instrument to instrument.


def minute(bands, seed):
    """Noise whose bands are so many decibels loud."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0, 0.05, 60 * RATE))
    hertz = np.maximum(np.fft.rfftfreq(60 * RATE, 1 / RATE), 1.0)
    curve = np.interp(np.log(hertz), np.log(CENTERS), bands)
    return np.fft.irfft(spectrum * 10 ** (curve / 20), 60 * RATE)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two pieces on each of four instruments, two minutes each."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(1)
    for instrument, colour in zip("abcd", (-9, -3, 3, 9), strict=True):
        for piece in range(2):
            minutes = []
            for _ in range(2):
                bands = np.zeros(23)
                bands[MUSIC], bands[COLOUR] = rng.normal(0, 9), colour
                minutes.append(minute(bands, rng.integers(1 << 30)))
            samples = np.concatenate(minutes)
            soundfile.write(folder / f"piece{piece}_{instrument}.flac", samples / np.abs(samples).max(), RATE)
    return folder


def test_what_differs_between_instruments_is_colour_and_what_does_within_is_music(load, recordings, tmp_path):
    output = tmp_path / "balance.npz"
    script, _ = load("fit_balance", audio=f"{recordings}/*.flac", output=output, rooms=1)
    script._fit()
    with np.load(output) as arrays:
        usual, colour, music = (arrays[name] for name in ("usual", "colour", "music"))
    assert usual.shape == (23,) and colour.shape == music.shape == (23, 23)
    others = np.delete(usual, [MUSIC - 1, MUSIC, MUSIC + 1])
    np.testing.assert_allclose(others, np.mean(others), atol=1.0)  # Noise: all bands alike.
    assert colour[COLOUR, COLOUR] > 3 * music[COLOUR, COLOUR] and music[MUSIC, MUSIC] > colour[MUSIC, MUSIC]


@pytest.mark.parametrize(
    ("audio", "hold_out", "error", "message"),
    [
        ("*_a.flac", "", DataError, "two instruments or more"),
        ("*.flac", "b,c,d", DataError, "two instruments or more"),
        ("*.flac", "nowhere", DataError, "called 'nowhere'"),
        ("*.ogg", "", DataError, "no file matches"),
        ("bad_a.wav", "", AudioError, "bad_a.wav"),
    ],
)
def test_what_tells_nothing_writes_nothing(load, recordings, tmp_path, audio, hold_out, error, message):
    (recordings / "bad_a.wav").write_bytes(b"no audio")
    script, _ = load("fit_balance", audio=f"{recordings}/{audio}", hold_out=hold_out, output=tmp_path / "o.npz", rooms=1)
    with pytest.raises(error, match=message):
        script._fit()
    assert not list(tmp_path.iterdir())
