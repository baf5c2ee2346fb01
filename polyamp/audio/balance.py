"""The balance of a recording, how much bass, middle and treble it has, and the same recording balanced as pianos usually are.

Rooms, microphones and pianos colour what is played by several decibels, differently from octave to octave, and a network that
hears a few seconds at a time cannot tell that from how hard keys were struck. Over a whole recording colour shows in the mean
spectrum. So does the music, but otherwise: from how both vary (`scripts/fit_balance.py`) the most likely colour is told.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from polyamp import constants
from polyamp.audio import filters
from polyamp.audio.meters import FrameMeter, fed
from polyamp.audio.reading import Blocks

_CENTERS = 50.0 * 2 ** (np.arange(23) / 3)  # Hz, of bands of a third of an octave.
_IS_MIDDLE = (_CENTERS > 200.0) & (_CENTERS < 3000.0)
_FITTED = Path(__file__).with_name("balance.npz")  # What `scripts/fit_balance.py` has learned of MAPS' synthesized pianos.
_WINDOW = 2048  # Samples of a frame; one follows the other.
_MOST_DB = 12.0  # By which a band is made louder or softer at most; with 6 a missing bass costs more, with 20 as much.
_LEAST_SECONDS = 5.0  # What is shorter may be a single note, whose spectrum is its own.
_HALF_TOLD = 15.0  # Seconds after which half as much is told of the colour as in the end; 10 and 20 are as good.
_TAPS = 1024  # Of the filter.
_TRANSFORM = 8192  # Samples of a Fourier transform,
_STEP = _TRANSFORM - _TAPS + 1  # by which so many are filtered.


class Meter(FrameMeter):
    """Measures a recording block by block: see `measure`."""

    def __init__(self) -> None:
        super().__init__(_WINDOW)
        self._power, self._num_frames = np.zeros(_WINDOW // 2 + 1), 0

    def _hear(self, frames: np.ndarray) -> None:
        self._power += np.sum(np.square(np.abs(np.fft.rfft(frames * filters.hann(_WINDOW)))), axis=0)
        self._num_frames += len(frames)

    @property
    def decibels(self) -> np.ndarray | None:
        """As `measure`, of what has been heard."""
        if self._num_frames * _WINDOW < _LEAST_SECONDS * constants.SAMPLE_RATE or not self._power.any():
            return None
        bands = self._power @ _bands()
        decibels = 10 * np.log10(np.maximum(bands, 1e-12 * bands.max()))
        return decibels - np.mean(decibels[_IS_MIDDLE])

    def gains(self, share: float) -> np.ndarray:
        """As the function of that name, the less the shorter what has been heard is: there is more of the music in it then."""
        seconds = self._num_frames * _WINDOW / constants.SAMPLE_RATE
        return gains(self.decibels, share * seconds / (seconds + _HALF_TOLD))

    def louder(self, gains: np.ndarray) -> float:
        """By how many decibels what has been heard gets louder if it is `equalized` with these gains."""
        factors, power = 10 ** (np.interp(_hertz(), _CENTERS, gains) / 10), self._power[2:]  # Without any offset.
        return float(10 * np.log10(np.sum(factors[2:] * power) / np.sum(power)))


def measure(blocks: Iterable[np.ndarray]) -> np.ndarray | None:
    """How loud the bands of a recording are beside each other.

    Args:
        blocks: The audio, 16 kHz mono float32 [samples] in blocks of any length, whose borders do not matter.

    Returns:
        Power per hertz in the 23 thirds of an octave around 50 Hz to 8 kHz, in decibels beside the mean of those between 200 Hz
        and 3 kHz; None for silence and for less than five seconds.
    """
    return fed(Meter(), blocks).decibels


def gains(decibels: np.ndarray | None, share: float) -> np.ndarray:
    """By how many decibels each band has to get louder for a share of the recording's colour to be gone.

    The colour is the linear estimate of least square error (Wiener) from what the bands differ by from usual pianos.

    Args:
        decibels: As `measure` gives them.
        share: 0 to 1.

    Returns:
        float64 [23], within 12 dB; 0 where nothing is known.
    """
    if decibels is None:
        return np.zeros(len(_CENTERS))
    usual, colour = _fitted()
    return np.clip(share * (colour @ (usual - decibels)), -_MOST_DB, _MOST_DB)


def equalized(blocks: Blocks, decibels: np.ndarray) -> Blocks:
    """A recording whose bands are louder by so many decibels, as `gains` gives them, of the same length and not delayed."""
    if not decibels.any():
        return blocks
    response = _response(decibels)

    def filtered() -> Iterator[np.ndarray]:
        before = np.zeros(_TAPS // 2 - 1, np.float32)  # Silence around the recording.
        for block in itertools.chain(blocks(), [np.zeros(_TAPS // 2, np.float32)]):
            samples = np.concatenate([before, block])
            number = max(0, len(samples) - _TAPS + 1)  # Of samples all of whose neighbours are known.
            if number:
                frames = sliding_window_view(np.pad(samples, (0, -number % _STEP)), _TRANSFORM)[::_STEP]
                convolved = np.fft.irfft(np.fft.rfft(frames) * response)[:, _TAPS - 1 :]
                yield convolved.reshape(-1)[:number].astype(np.float32, copy=False)
            before = samples[number:]

    return filtered


def _response(decibels: np.ndarray) -> np.ndarray:
    """The spectrum of the filter that makes bands louder, complex64, for the convolution of frames."""
    hertz = np.linspace(0.0, constants.SAMPLE_RATE / 2, _TAPS // 2 + 1)
    impulse = np.fft.irfft(10 ** (np.interp(hertz, _CENTERS, decibels) / 20))
    taps = np.fft.fftshift(impulse) * filters.hann(_TAPS)
    return np.fft.rfft(taps, _TRANSFORM).astype(np.complex64)


@functools.cache
def _fitted() -> tuple[np.ndarray, np.ndarray]:
    """The bands of usual pianos, float64 `[bands]`, and what makes colour of a difference from them, `[bands, bands]`."""
    with np.load(_FITTED) as arrays:
        return arrays["usual"].astype(np.float64), arrays["colour"].astype(np.float64)


@functools.cache
def _bands() -> np.ndarray:
    """What makes bands' means of a power spectrum, float64 `[bins, bands]`."""
    edges = _CENTERS * 2 ** (-1 / 6), _CENTERS * 2 ** (1 / 6)
    inside = (_hertz()[:, None] >= edges[0]) & (_hertz()[:, None] < edges[1])
    return inside / inside.sum(axis=0)


def _hertz() -> np.ndarray:
    """The frequencies of a frame's power spectrum, float64 `[bins]`."""
    return np.fft.rfftfreq(_WINDOW, 1 / constants.SAMPLE_RATE)
