"""The balance of a recording, how much bass, middle and treble it has, and the same recording balanced as is usual.

Rooms, microphones and instruments colour what is played by several decibels, differently from octave to octave, and a network
that hears a few seconds at a time cannot tell that from how hard keys were struck. Over a whole recording colour shows in the
mean spectrum. So does the music, but otherwise: from how both vary (`scripts/fit_balance.py`) the most likely colour is told.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from polyamp import constants
from polyamp.audio import filters
from polyamp.audio.meters import FrameMeter, fed
from polyamp.audio.reading import Blocks

_CENTERS = 50.0 * 2 ** (np.arange(23) / 3)  # Hz, of bands of a third of an octave.
_IS_MIDDLE = (_CENTERS > 200.0) & (_CENTERS < 3000.0)
_WINDOW = 2048  # Samples of a frame; one follows the other.
_BLOCK = 32  # Frames that are transformed at a time.
_FULL_SCALE = 0.1875 * _WINDOW**2  # Power of a frame, windowed, of a full-scale square wave.
_LEVELS = 128  # Of frames, decibels, up to full scale,
_LEAST_LEVEL = -65  # of which what is below this is a rest,
_RANGE = 40  # and what is so far below the loudest,
_FRAMES_OF_LOUDEST = 8  # of which there are so many: a second.
_MOST_DB = 12.0  # By which a band is made louder or softer at most; with 6 a missing bass costs more, with 20 as much.
_LEAST_SECONDS = 5.0  # What is shorter may be a single note, whose spectrum is its own.
_MUSIC_SECONDS = 15.0  # The spectrum of so many varies twice as much by what is played as that of an hour, in power.
_TAPS = 1024  # Of the filter.
_TRANSFORM = 8192  # Samples of a Fourier transform,
_STEP = _TRANSFORM - _TAPS + 1  # by which so many are filtered.
_LIVE_TAPS = 512  # Of the filter for what is balanced while it is played,
_LIVE_STEP = constants.SAMPLE_RATE  # made anew after so many samples.


class _Kind(NamedTuple):
    """How colour is told in music of a kind.

    Attributes:
        fitted: What the music may be, all as likely: names of what `scripts/fit_balance.py` has learned.
        scales: By how much colour may be stronger than there, in power, all of them as likely.
        least: Decibels, root of the mean square over the bands; weaker colour is left as it is.
    """

    fitted: tuple[str, ...]
    scales: tuple[float, ...]
    least: float


_KINDS = {  # See `constants.BALANCE_KINDS`.
    "pianos": _Kind(("pianos",), (1.0,), 0.0),
    # Bands differ more by what they are to sound like: of 46 to which nothing was done, the one told most colour has 4.1 dB,
    # and as heard from 300 to 3,400 Hz they have 10 to 16.
    "bands": _Kind(("bands", "pianos"), tuple(2.0**octave for octave in range(-6, 7)), 5.0),
}


class Meter(FrameMeter):
    """Measures a recording block by block: see `measure`.

    Rests do not count, nor does the loudest second but what is as loud elsewhere: knocks are no music.
    """

    def __init__(self) -> None:
        super().__init__(_WINDOW)
        self._num_frames = np.zeros(_LEVELS, np.int64)  # Of each level, in steps of 1 dB up to full scale,
        self._powers = np.zeros((_LEVELS, _WINDOW // 2 + 1))  # and the sums of their power spectra.

    def _hear(self, frames: np.ndarray) -> None:
        for first in range(0, len(frames), _BLOCK):
            bins = np.fft.rfft(frames[first : first + _BLOCK] * filters.hann(_WINDOW))
            powers = np.square(bins.real) + np.square(bins.imag)
            powers[:, :2] = 0.0  # Without any offset.
            decibels = 10 * np.log10(np.sum(powers, axis=1) / _FULL_SCALE + 1e-20)
            levels = np.clip(np.ceil(decibels).astype(int) + _LEVELS - 1, 0, _LEVELS - 1)
            for level, power in zip(levels, powers, strict=True):
                self._num_frames[level] += 1
                self._powers[level] += power

    @property
    def _music(self) -> slice:
        """The levels of what is surely music."""
        as_loud = np.cumsum(self._num_frames[::-1])[::-1]  # Or louder.
        loudest = int(np.flatnonzero(as_loud >= _FRAMES_OF_LOUDEST).max(initial=0))
        return slice(max(loudest - _RANGE, _LEVELS + _LEAST_LEVEL), loudest + 1)

    @property
    def _power(self) -> np.ndarray:
        """The power spectrum of all of it, `[bins]`."""
        return np.sum(self._powers[self._music], axis=0)

    @property
    def seconds(self) -> float:
        """How long what has been heard is, without rests."""
        return float(np.sum(self._num_frames[self._music.start :])) * _WINDOW / constants.SAMPLE_RATE

    @property
    def decibels(self) -> np.ndarray | None:
        """As `measure`, of what has been heard."""
        if self.seconds < _LEAST_SECONDS:
            return None
        bands = self._power @ _bands()
        decibels = 10 * np.log10(np.maximum(bands, 1e-12 * bands.max()))
        return decibels - np.mean(decibels[_IS_MIDDLE])

    def gains(self, share: float, kind: str) -> np.ndarray:
        """As the function of that name, of what has been heard."""
        return gains(self.decibels, self.seconds, share, kind)

    def louder(self, gains: np.ndarray) -> float:
        """By how many decibels what has been heard gets louder if it is `equalized` with these gains."""
        factors = 10 ** (_at_bins(gains, _WINDOW) / 10)
        return float(10 * np.log10(np.sum(factors * self._power) / np.sum(self._power)))


def measure(blocks: Iterable[np.ndarray]) -> np.ndarray | None:
    """How loud the bands of a recording are beside each other.

    Args:
        blocks: The audio, 16 kHz mono float32 [samples] in blocks of any length, whose borders do not matter.

    Returns:
        Power per hertz in the 23 thirds of an octave around 50 Hz to 8 kHz, in decibels beside the mean of those between 200 Hz
        and 3 kHz; None for silence and for less than five seconds without rests.
    """
    return fed(Meter(), blocks).decibels


def gains(decibels: np.ndarray | None, seconds: float, share: float, kind: str) -> np.ndarray:
    """By how many decibels each band has to get louder for a share of the recording's colour to be gone.

    Colour and music are taken for normally distributed, so that the colour's expectation, given how strong it is, is linear in
    what the bands differ by from usual ones (Wiener); how strong it is, is told by the same difference.

    Args:
        decibels: As `measure` gives them.
        seconds: How long what was measured is, without rests. The shorter it is, the more of the music is in it.
        share: 0 to 1.
        kind: Of music, one of `constants.BALANCE_KINDS`.

    Returns:
        float64 [23], within 12 dB; 0 where nothing is known.
    """
    if decibels is None:
        return np.zeros(len(_CENTERS))
    colours, log_likelihoods = [], []
    for name, scale in itertools.product(_KINDS[kind].fitted, _KINDS[kind].scales):
        usual, colour, music = _fitted(name)
        difference, colour = usual - decibels, scale * colour
        covariance = colour + music * (1 + _MUSIC_SECONDS / seconds)
        weighted = np.linalg.solve(covariance, difference)
        colours.append(colour @ weighted)
        log_likelihoods.append(-(difference @ weighted + np.linalg.slogdet(covariance)[1]) / 2)
    probabilities = np.exp(np.array(log_likelihoods) - max(log_likelihoods))
    expected = probabilities @ np.array(colours) / probabilities.sum()
    if np.sqrt(np.mean(np.square(expected))) < _KINDS[kind].least:
        return np.zeros(len(_CENTERS))
    return np.clip(share * expected, -_MOST_DB, _MOST_DB)


class Follower:
    """Balances a recording while it is played, by what has been heard of it: of the first five seconds nothing is known.

    Sounds keep their times but for a millisecond or two, below 150 Hz up to four, by filters of minimal phase.

    Args:
        share, kind: As of `gains`.
    """

    def __init__(self, share: float, kind: str):
        self._share, self._kind = share, kind
        self._meter = Meter()
        self._before = np.zeros(_LIVE_TAPS - 1, np.float32)
        self._filter: _MinimalPhase | None = None  # None: nothing is known.
        self._following: _MinimalPhase | None = None  # What it becomes in the next piece.
        self._heard: list[np.ndarray] = []  # Since that was found.
        for name in _KINDS[kind].fitted:
            _fitted(name)  # Not later, while it is played.

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The samples that follow, float32, balanced; the same to the bit only if pieces begin at the same samples."""
        heard = np.concatenate([self._before, samples])
        self._before = heard[len(samples) :]
        balanced = self._filter(heard) if self._filter else samples
        if self._following is not self._filter:
            fading = np.linspace(0.0, 1.0, len(samples), dtype=np.float32)
            balanced = (1 - fading) * balanced + fading * (self._following(heard) if self._following else samples)
            self._filter = self._following
        self._heard.append(samples)
        if sum(map(len, self._heard)) >= _LIVE_STEP:
            self._meter.add(np.concatenate(self._heard))
            self._heard = []
            gains = self._meter.gains(self._share, self._kind)
            self._following = _MinimalPhase(gains) if gains.any() else None
        return balanced


class _MinimalPhase:
    """The filter that makes bands louder by so many decibels and delays as little as can be, by way of the real cepstrum."""

    def __init__(self, decibels: np.ndarray):
        cepstrum = np.fft.irfft(_at_bins(decibels, _TRANSFORM) / 20 * np.log(10))
        cepstrum[1 : _TRANSFORM // 2] *= 2
        cepstrum[_TRANSFORM // 2 + 1 :] = 0
        fading = filters.hann(2 * _LIVE_TAPS)[_LIVE_TAPS:]
        self._taps = (np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:_LIVE_TAPS] * fading).astype(np.float32)
        self._spectrum: np.ndarray = np.zeros(0)  # Of the taps, for pieces of the length that came last.

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Filters, float32, those before which there are all that it needs."""
        length = 1 << (len(samples) - 1).bit_length()
        if len(self._spectrum) != length // 2 + 1:
            self._spectrum = np.fft.rfft(self._taps, length)
        convolved = np.fft.irfft(np.fft.rfft(samples, length) * self._spectrum)
        return convolved[_LIVE_TAPS - 1 : len(samples)].astype(np.float32, copy=False)


def equalized(blocks: Blocks, decibels: np.ndarray) -> Blocks:
    """A recording whose bands are louder by so many decibels, as `gains` gives them, of the same length and not delayed."""
    if not decibels.any():
        return blocks
    return functools.partial(_filtered, blocks, _response(decibels))


def _filtered(blocks: Blocks, response: np.ndarray) -> Iterator[np.ndarray]:
    """The blocks of a recording convolved with the filter of that spectrum, whose middle tap is where a sample is."""
    before = np.zeros(_TAPS // 2 - 1, np.float32)  # Silence around the recording.
    for block in itertools.chain(blocks(), [np.zeros(_TAPS // 2, np.float32)]):
        samples = np.concatenate([before, block])
        number = max(0, len(samples) - _TAPS + 1)  # Of samples all of whose neighbours are known.
        if number:
            frames = sliding_window_view(np.pad(samples, (0, -number % _STEP)), _TRANSFORM)[::_STEP]
            convolved = np.fft.irfft(np.fft.rfft(frames) * response)[:, _TAPS - 1 :]
            yield convolved.reshape(-1)[:number].astype(np.float32, copy=False)
        before = samples[number:]


def _response(decibels: np.ndarray) -> np.ndarray:
    """The spectrum of the filter that makes bands louder, complex64, for the convolution of frames."""
    impulse = np.fft.irfft(10 ** (_at_bins(decibels, _TAPS) / 20))
    taps = np.fft.fftshift(impulse) * filters.hann(_TAPS)
    return np.fft.rfft(taps, _TRANSFORM).astype(np.complex64)


@functools.cache
def _fitted(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bands of usual music, float64 `[bands]`, and how colour and music vary, `[bands, bands]` each, in decibels."""
    with np.load(Path(__file__).with_name(f"balance_{name}.npz")) as arrays:
        usual, colour, music = (arrays[key].astype(np.float64) for key in ("usual", "colour", "music"))
    return usual, colour, music


@functools.cache
def _bands() -> np.ndarray:
    """What makes bands' means of a power spectrum, float64 `[bins, bands]`."""
    edges = _CENTERS * 2 ** (-1 / 6), _CENTERS * 2 ** (1 / 6)
    hertz = _hertz(_WINDOW)[:, None]
    inside = (hertz >= edges[0]) & (hertz < edges[1])
    return inside / inside.sum(axis=0)


def _at_bins(decibels: np.ndarray, length: int) -> np.ndarray:
    """What bands have as a curve over the bins of a Fourier transform of so many samples, float64 `[length // 2 + 1]`."""
    return np.interp(_hertz(length), _CENTERS, decibels)


def _hertz(length: int) -> np.ndarray:
    """The frequencies of these bins, float64 `[length // 2 + 1]`."""
    return np.linspace(0.0, constants.SAMPLE_RATE / 2, length // 2 + 1)
