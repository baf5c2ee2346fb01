"""Recordings as they would sound from another place: a random room and microphone in the path of clean or synthesized audio.

What a recording in a room has and a synthesizer lacks: reflections that colour each partial differently, a tail in which notes
overlap, the frequency response of instrument, room and microphone, and noise. The direct sound comes first, so that labels stay
valid. The ranges are those of living rooms to small halls, recorded close or from afar.
"""

import numpy as np
import scipy.signal

from polyamp import constants
from polyamp.audio.augmentation import equalize, pink_noise

_RATE = constants.SAMPLE_RATE
_BANDS = (400.0, 2500.0)  # Hz, between which tails decay at one rate.


def record(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The audio as recorded in a random room.

    Args:
        audio: float32 [samples] at 16 kHz in [-1, 1]; not changed.
        rng: Source of all random choices.

    Returns:
        float32 [samples] in [-1, 1], as loud as before (mean power), but for the noise and where it would clip.
    """
    if not audio.any():
        return audio
    samples = audio.astype(np.float64)
    power = np.mean(np.square(samples))
    samples = scipy.signal.oaconvolve(samples, impulse_response(rng))[: len(samples)]
    samples = _microphone(samples, rng)
    samples *= np.sqrt(power / np.mean(np.square(samples)))
    noise = pink_noise(len(samples), rng)
    decibels = rng.uniform(20.0, 55.0)  # By which the noise is below the music.
    samples += noise * np.sqrt(power / np.mean(np.square(noise))) * 10.0 ** (-decibels / 20)
    return (samples / max(1.0, np.abs(samples).max())).astype(np.float32)


def impulse_response(rng: np.random.Generator) -> np.ndarray:
    """A random room's answer to an impulse, float64 [samples], of which the first is the direct sound, 1.

    Up to 19 early reflections within 40 ms, then noise whose three bands decay by 60 dB in 0.2 to 1 s (the highest in less).
    The energy of the direct sound is 4 dB below to 14 dB above that of all the rest.
    """
    decay = np.exp(rng.uniform(np.log(0.2), np.log(1.0)))  # Seconds, of the middle band.
    time = np.arange(int(1.2 * decay * _RATE)) / _RATE
    relative = (rng.uniform(0.8, 1.4), 1.0, rng.uniform(0.35, 0.8))
    bands = _split(rng.standard_normal((3, len(time))))
    tail = sum(band * 10.0 ** (-3 * time / (decay * of_band)) for band, of_band in zip(bands, relative, strict=True))
    tail = tail * np.clip((time - rng.uniform(0.004, 0.02)) / 0.005, 0.0, 1.0)
    early = np.zeros(len(time))
    for delay in rng.uniform(0.0015, 0.04, rng.integers(4, 20)):
        sign = rng.choice((-1.0, 1.0), p=(0.3, 0.7))
        early[int(delay * _RATE)] += sign * rng.uniform(0.2, 1.0) / (1 + delay / 0.008)
    absorption = rng.uniform(0.0, 0.5)
    early = scipy.signal.lfilter([1 - absorption], [1.0, -absorption], early)
    reflected = early * rng.uniform(0.3, 1.0) / np.linalg.norm(early) + tail / np.linalg.norm(tail)
    response = reflected * 10.0 ** (-rng.uniform(-4.0, 14.0) / 20) / np.linalg.norm(reflected)
    response[0] = 1.0
    return response


def _split(noise: np.ndarray) -> np.ndarray:
    """The low band of the first row, the middle one of the second, the high one of the third, `[3, samples]`."""
    spectra = np.fft.rfft(noise)
    frequency = np.maximum(np.fft.rfftfreq(noise.shape[1], 1 / _RATE), 1.0)
    lows = [1 / (1 + (frequency / edge) ** 4) for edge in _BANDS]
    return np.fft.irfft(spectra * [lows[0], lows[1] * (1 - lows[0]), 1 - lows[1]], noise.shape[1])


def _microphone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three peaks or dips, and often what a small microphone lacks in the bass or a far one in the treble."""
    for _ in range(3):
        samples = equalize(samples, np.exp(rng.uniform(np.log(60.0), np.log(6000.0))), rng.uniform(-9.0, 7.0))
    if rng.random() < 0.4:
        samples = scipy.signal.lfilter(*scipy.signal.butter(2, rng.uniform(40.0, 150.0), "high", fs=_RATE), samples)
    if rng.random() < 0.5:
        samples = scipy.signal.lfilter(*scipy.signal.butter(1, rng.uniform(1500.0, 6500.0), "low", fs=_RATE), samples)
    return samples
