"""Augmentation of log-frequency spectrograms, for training from cached ones: gain, detuning, equalisation, room, noise.

The same disturbances as in `polyamp.audio.augmentation`, but for its change of contrast, applied to power per bin; numpy only.
"""

import numpy as np
from scipy import signal

from polyamp.audio.log_frequency import BINS_PER_SEMITONE, compress, expand
from polyamp.hparams import MelodicHParams


def augment(spectrum: np.ndarray, hparams: MelodicHParams, rng: np.random.Generator) -> tuple[np.ndarray, int, float]:
    """Changes the level of one crop, and with probability `hparams.augment_probability` disturbs it otherwise, too.

    Args:
        spectrum: `[time, 294]` as `LogFrequencySpectrogram` gives it.
        hparams: The `augment_*` ranges.
        rng: Source of all that is random.

    Returns:
        The new spectrogram, float32 of the same shape; the semitones by which it was transposed (labels must follow); and the
        dB by which its level was raised.
    """
    gain_db = float(rng.uniform(-1, 1) * hparams.augment_gain_db)
    power = expand(spectrum) * 10.0 ** (gain_db / 10)
    if rng.random() >= hparams.augment_probability:
        return compress(power).astype(np.float32), 0, gain_db
    semitones = int(rng.integers(-hparams.augment_transpose_semitones, hparams.augment_transpose_semitones + 1))
    detuning = rng.uniform(-1, 1) * hparams.augment_pitch_semitones
    power = _shift(power, (semitones + detuning) * BINS_PER_SEMITONE)
    power = power * _equalizer(power.shape[1], hparams.augment_eq_db, rng)
    power = _room(power, hparams, rng)
    power = power + _noise(power.shape, hparams.augment_noise, rng)
    return compress(power).astype(np.float32), semitones, gain_db


def _shift(power: np.ndarray, bins: float) -> np.ndarray:
    """Shifts the spectrum up (`bins` > 0) or down, between bins by interpolation; what comes in at the edge is silence."""
    position = np.arange(power.shape[1]) - bins
    below = np.floor(position).astype(int)
    padded = np.pad(power, ((0, 0), (1, 1)))

    def at(index: np.ndarray) -> np.ndarray:
        return padded[:, np.clip(index, -1, power.shape[1]) + 1]

    share = position - below
    return (1.0 - share) * at(below) + share * at(below + 1)


def _equalizer(num_bins: int, most_db: float, rng: np.random.Generator) -> np.ndarray:
    """Power gain per bin, `[num_bins]`: two bells of random place, width (half an octave to three) and height."""
    position = np.arange(num_bins) / (12 * BINS_PER_SEMITONE)  # Octaves.
    decibels = np.zeros(num_bins)
    for _ in range(2):
        centre, width = rng.uniform(0, position[-1]), rng.uniform(0.5, 3.0)
        decibels += rng.uniform(-most_db, most_db) * np.exp(-0.5 * ((position - centre) / width) ** 2)
    return 10.0 ** (decibels / 10)


def _room(power: np.ndarray, hparams: MelodicHParams, rng: np.random.Generator) -> np.ndarray:
    """Adds an exponentially decaying tail: reverberation time 0.2 to 1.2 s, amplitude up to `augment_reverb` percent."""
    level = rng.uniform(0, hparams.augment_reverb / 100) ** 2  # Power; small rooms are more common than cathedrals.
    decay = 10.0 ** (-6.0 / (rng.uniform(0.2, 1.2) * hparams.frames_per_second))  # Per frame: 60 dB in that time.
    tail = signal.lfilter([0.0, level * (1 - decay)], [1.0, -decay], power, axis=0)
    return power + tail


def _noise(shape: tuple[int, ...], most: float, rng: np.random.Generator) -> np.ndarray:
    """Power `[time, bins]` of noise, about equal in every octave; amplitude up to `most` (often far less) of full scale."""
    amplitude = most * 10.0 ** rng.uniform(-3, 0)
    tilt = 10.0 ** (rng.uniform(-6, 6) * np.linspace(-1, 1, shape[1]) / 10)
    return amplitude**2 / shape[1] * tilt * rng.exponential(size=shape)  # The power of Gaussian noise is distributed so.
