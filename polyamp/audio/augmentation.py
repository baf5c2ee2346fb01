"""Waveform augmentation for training: the pipeline of Hawthorne et al. 2019 (arXiv 1810.12247, appendix B) in numpy.

Noise, detuning, contrast, two equaliser bands and reverb, in the order and with the ranges of the published pipeline (which
runs SoX), then a random gain. Everything keeps the length and the onsets where they are, so that labels stay valid.
"""

import numpy as np
import scipy.signal
import soxr

from polyamp import constants
from polyamp.hparams import MelodicHParams

_RATE = constants.SAMPLE_RATE
_EQ_FREQUENCIES = (32.0, 4096.0)  # Hz
_EQ_Q = 2.0
_WINDOW, _HOP = 2048, 512  # Samples, of the phase vocoder.
_ATTACK = 4.0  # Growth in power from frame to frame that makes the vocoder take a spectral peak for a new note.
_REVERB_PREDELAY = _RATE // 50  # Samples before the tail sets in.


def augment(audio: np.ndarray, hparams: MelodicHParams, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Changes a training crop with probability `hparams.augment_probability`, else only its level; not at all for 0.

    Args:
        audio: float32 [samples] in [-1, 1] at 16 kHz; not changed.
        hparams: `augment_*` are the ranges; 0 leaves that effect out.
        rng: Source of all random choices.

    Returns:
        float32 [samples] in [-1, 1], of which no onset has moved by over 1 ms while `augment_pitch_semitones` is at most 0.1;
        and the dB by which the level was raised.
    """
    if not len(audio) or not hparams.augment_probability:
        return audio, 0.0
    samples = audio.astype(np.float64)
    if rng.random() < hparams.augment_probability:
        samples = _disturb(samples, hparams, rng)
    gain = 10.0 ** (rng.uniform(-hparams.augment_gain_db, hparams.augment_gain_db) / 20.0)
    gain = min(gain, 1.0 / max(np.abs(samples).max(), 1e-12))  # Turned down rather than clipped.
    return (gain * samples).astype(np.float32), float(20 * np.log10(gain))


def louder(velocity: np.ndarray, gain_db: float, hparams: MelodicHParams) -> np.ndarray:
    """MIDI velocities of notes after a change of level, int64 from 1 to 127, by `augment_velocity_per_db`.

    Those that nobody knows stay 0.
    """
    moved = np.clip(np.rint(velocity + gain_db * hparams.augment_velocity_per_db), 1, constants.MAX_MIDI_VELOCITY)
    return np.where(velocity > 0, moved, 0).astype(np.int64)


def _disturb(samples: np.ndarray, hparams: MelodicHParams, rng: np.random.Generator) -> np.ndarray:
    """Everything but the gain, float64 [samples]."""
    if hparams.augment_noise:
        samples += rng.uniform(0.0, hparams.augment_noise) * pink_noise(len(samples), rng)
    if hparams.augment_pitch_semitones:
        limit = hparams.augment_pitch_semitones
        samples = detune(samples, rng.uniform(-limit, limit))
    if hparams.augment_contrast:
        samples = contrast(samples, rng.uniform(0.0, hparams.augment_contrast))
    if hparams.augment_eq_db:
        for _ in range(2):
            frequency = np.exp(rng.uniform(*np.log(_EQ_FREQUENCIES)))
            samples = equalize(samples, frequency, rng.uniform(-hparams.augment_eq_db, hparams.augment_eq_db / 2))
    if hparams.augment_reverb:
        samples = reverberate(samples, rng.uniform(0.0, hparams.augment_reverb), rng)
    return samples


def pink_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with a power density of 1 / frequency above 20 Hz and a peak of 1, float64 [length]."""
    spectrum = np.fft.rfft(rng.standard_normal(max(length, 2)))
    frequency = np.fft.rfftfreq(max(length, 2), 1 / _RATE)
    spectrum[1:] /= np.sqrt(np.maximum(frequency[1:], 20.0))
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, max(length, 2))[:length]
    return noise / max(np.abs(noise).max(), 1e-12)


def detune(samples: np.ndarray, semitones: float) -> np.ndarray:
    """Shifts the pitch and keeps the time: a phase vocoder stretches the audio, resampling squeezes it back.

    The vocoder rotates each spectral peak with its neighbourhood (Laroche and Dolson 1999, "Improved phase vocoder time-scale
    modification of audio"), and starts anew, with the phases that the audio has, where a peak grows as at an attack. Attacks
    thus stay sharp; what lies off the middle of a window moves by the change of the rate: 0.4 ms at most for 0.1 semitones.

    Args:
        samples: float64 [samples].
        semitones: Fractions of a semitone; larger shifts work but move attacks in proportion.

    Returns:
        float64 [samples].
    """
    length, ratio = len(samples), 2.0 ** (semitones / 12)
    count = 2 + int(length * ratio) // _HOP
    starts = np.rint(np.arange(count) * _HOP / ratio).astype(int)
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW // 2 + max(0, starts[-1] - length)))
    hann = scipy.signal.get_window("hann", _WINDOW)
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[starts] * hann)  # [frame, bin]
    spectra *= np.exp(1j * _rotations(np.square(np.abs(spectra)), _HOP - np.diff(starts, prepend=starts[0] - _HOP)))
    frames = np.fft.irfft(spectra) * hann
    stretched, weight = np.zeros(count * _HOP + _WINDOW), np.full(count * _HOP + _WINDOW, 1e-9)
    for index, frame in enumerate(frames):
        stretched[index * _HOP : index * _HOP + _WINDOW] += frame
        weight[index * _HOP : index * _HOP + _WINDOW] += hann**2
    squeezed = soxr.resample((stretched / weight)[_WINDOW // 2 :], _RATE * ratio, _RATE, quality="HQ")
    return squeezed[:length]


def _rotations(power: np.ndarray, stretches: np.ndarray) -> np.ndarray:
    """Phases to add to the frames of a phase vocoder.

    Args:
        power: float64 [frame, bin].
        stretches: Samples by which the step from the frame before is made longer, [frame].

    Returns:
        float64 [frame, bin], radians.
    """
    frames, bins = power.shape
    around = np.pad(power, ((0, 0), (2, 2)))
    is_peak = np.all([power >= around[:, shift : shift + bins] for shift in (0, 1, 3, 4)], axis=0)
    index = np.arange(bins)
    below = np.maximum.accumulate(np.where(is_peak, index, -bins), axis=1)
    above = np.minimum.accumulate(np.where(is_peak, index, 2 * bins)[:, ::-1], axis=1)[:, ::-1]
    peak = np.where(index - below <= above - index, below, above)  # [frame, bin]: the nearest peak's bin.
    at_peak = np.take_along_axis(power, peak, axis=1)
    before = np.take_along_axis(np.roll(power, 1, axis=0), peak, axis=1)
    attack = at_peak > _ATTACK * before
    rotation = np.zeros((frames, bins))
    for frame in range(1, frames):
        turned = rotation[frame - 1, peak[frame]] + 2 * np.pi * peak[frame] / _WINDOW * stretches[frame]
        rotation[frame] = np.where(attack[frame], 0.0, turned)
    return rotation


def contrast(samples: np.ndarray, amount: float) -> np.ndarray:
    """A waveshaper that makes audio sound louder, as SoX's `contrast`; `amount` 0 to 100. Full scale stays full scale."""
    phase = np.clip(samples, -1.0, 1.0) * (np.pi / 2)
    return np.sin(phase + amount / 750.0 * np.sin(4.0 * phase))


def equalize(samples: np.ndarray, frequency: float, gain_db: float) -> np.ndarray:
    """One peaking filter of quality 2 (R. Bristow-Johnson's "Audio EQ Cookbook"); `frequency` in Hz."""
    omega = 2 * np.pi * frequency / _RATE
    amplitude = 10.0 ** (gain_db / 40.0)
    alpha = np.sin(omega) / (2 * _EQ_Q)
    numerator = [1 + alpha * amplitude, -2 * np.cos(omega), 1 - alpha * amplitude]
    denominator = [1 + alpha / amplitude, -2 * np.cos(omega), 1 - alpha / amplitude]
    return scipy.signal.lfilter(numerator, denominator, samples)


def reverberate(samples: np.ndarray, reverberance: float, rng: np.random.Generator) -> np.ndarray:
    """Adds the tail of a random room to the unchanged direct sound.

    Length and level of the tail follow SoX's `reverb`: 0.2 s and -27 dB for a reverberance of 0, 10 s and -14 dB for 100. The
    tail is noise under an exponential decay, darker than white.

    Args:
        samples: float64 [samples].
        reverberance: 0 to 100.
        rng: Draws the tail.

    Returns:
        float64 [samples]; what rings on beyond the end is cut off.
    """
    seconds = 0.2 * 50.0 ** (reverberance / 100)  # Down to -60 dB.
    length = min(round(seconds * _RATE), len(samples) - _REVERB_PREDELAY)
    if length <= 0:
        return samples
    decay = 10.0 ** (-3.0 * np.arange(length) / (seconds * _RATE))
    tail = scipy.signal.lfilter([0.5], [1.0, -0.5], rng.standard_normal(length)) * decay
    level = 10.0 ** ((-27.0 + 0.13 * reverberance) / 20)
    tail *= level / max(np.linalg.norm(tail), 1e-12)
    wet = scipy.signal.oaconvolve(samples, tail)[: len(samples) - _REVERB_PREDELAY]
    return np.concatenate([samples[:_REVERB_PREDELAY], samples[_REVERB_PREDELAY:] + wet])
