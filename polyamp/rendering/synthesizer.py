"""A synthesizer of random settings: sounds that no SoundFont has, for training.

Notes are sums of partials below half the sampling rate (so nothing aliases), each of which fades by itself under a filter that
opens and closes, or two operators of frequency modulation (Chowning 1973).
"""

from pathlib import Path

import numpy as np
from scipy import signal

from polyamp import constants
from polyamp.rendering.patches import Patch
from polyamp.rendering.soundfonts import Sound
from polyamp.rendering.stems import Stem

_NAME = Path("synthesizer")  # In the place of a SoundFont's.
_RATE = constants.SAMPLE_RATE
_HIGHEST = 0.47 * _RATE  # Hz, of a partial.
_BLOCK = 64  # Samples (4 ms), over which the filter's cutoff moves linearly.


def sound_of(program: int) -> Sound:
    """The synthesizer in the role of a preset of that program, which plays all keys."""
    return Sound(_NAME, 0, program)


def plays(sound: Sound) -> bool:
    """Whether that sound is the synthesizer's."""
    return sound.soundfont == _NAME


def play(stem: Stem, patch: Patch, rng: np.random.Generator) -> np.ndarray:
    """The notes of a stem, float32 [samples] at 16 kHz; its controllers are ignored.

    Args:
        stem: What to play.
        patch: How it sounds.
        rng: Phases, noise and what differs from note to note.
    """
    length = max((off for _, off, *_ in stem.notes), default=0.0) + 6 * patch.release + 0.1
    samples = np.zeros(int(length * _RATE), np.float32)
    for on, off, pitch, velocity in stem.notes:
        note = _note(patch, 440.0 * 2 ** ((pitch - 69) / 12), off - on, velocity, rng)
        start = round(on * _RATE)
        note = note[: len(samples) - start]
        samples[start : start + len(note)] += note
    return samples


def _note(patch: Patch, pitch_hz: float, held: float, velocity: int, rng: np.random.Generator) -> np.ndarray:
    count = int((max(held, patch.attack) + 6 * patch.release) * _RATE)
    time = np.arange(count, dtype=np.float32) / _RATE
    envelope = _envelope(patch, time, held)
    at = time.astype(np.float64) + _vibrato(patch, time)
    if patch.modulation is not None:
        fading = patch.sustain + (1 - patch.sustain) * np.exp(-time / patch.decay)
        sound = _modulated(patch.modulation, pitch_hz, time, at) * fading
    else:
        sound = _partials(patch, pitch_hz, at, velocity, rng)
        if patch.detune_cents:
            sound = sound + _partials(patch, pitch_hz * 2 ** (patch.detune_cents / 1200), at, velocity, rng)
    if patch.tremolo:
        sound = sound * (1 + patch.tremolo * np.sin(2 * np.pi * patch.vibrato_hz * time + rng.uniform(0, 2 * np.pi)))
    power = np.sqrt(np.mean(np.square(sound[: _RATE // 4]))) + 1e-9
    if patch.noise or patch.click:
        noise = rng.standard_normal(count).astype(np.float32)
        band = np.clip([0.8 * pitch_hz, max(3000.0, 5 * pitch_hz)], 30.0, 7500.0)
        low = min(band[0], 0.8 * band[1])
        noise = signal.sosfilt(signal.butter(1, (low, band[1]), "bandpass", fs=_RATE, output="sos"), noise)
        noise /= noise.std() + 1e-9
        sound = sound + power * noise * (patch.noise + patch.click * np.exp(-time / 0.02))
    loudness = 10 ** (patch.dynamics_db * (velocity / 127 - 1) / 20)
    return (loudness / power * sound * envelope).astype(np.float32)


def _envelope(patch: Patch, time: np.ndarray, held: float) -> np.ndarray:
    """A linear attack, and an exponential release from the end of the note on."""
    attack = np.minimum(1.0, time / patch.attack)
    return attack * np.exp(-np.maximum(time - max(held, 0.0), 0.0) / patch.release)


def _vibrato(patch: Patch, time: np.ndarray) -> np.ndarray:
    """By how much the phase of the pitch differs from the steady one's, in seconds at the pitch."""
    if not patch.vibrato_cents:
        return np.zeros_like(time)
    depth = (2 ** (patch.vibrato_cents / 1200) - 1) * np.minimum(1.0, time / (patch.vibrato_delay + 1e-3))
    return -depth * np.cos(2 * np.pi * patch.vibrato_hz * time) / (2 * np.pi * patch.vibrato_hz)


def _partials(patch: Patch, pitch_hz: float, at: np.ndarray, velocity: int, rng: np.random.Generator) -> np.ndarray:
    """One voice; `at` is the time in seconds with vibrato, as for `_modulated`."""
    ratios = patch.ratios * np.sqrt(1 + patch.stretch * patch.ratios**2)
    used = np.flatnonzero((ratios * pitch_hz < _HIGHEST) & (patch.levels != 0))
    blocks = np.arange(0, len(at) + _BLOCK, _BLOCK) / _RATE  # Times at which levels are worked out.
    closed = patch.brightness * (velocity / 127 - 1)
    cutoff = np.maximum(patch.cutoff * pitch_hz, patch.lowest_cutoff) * 2 ** (
        closed + patch.sweep * np.exp(-blocks / patch.sweep_seconds)
    )
    position = np.arange(len(at)) / _BLOCK
    index = position.astype(np.int64)
    share = (position - index).astype(np.float32)
    sound = np.zeros(len(at), np.float32)
    for k in used:
        hz = ratios[k] * pitch_hz
        level = patch.levels[k] * _formant_gain(patch, hz) / np.sqrt(1 + (hz / cutoff) ** (2 * patch.order))
        if patch.resonance:
            level = level * (1 + patch.resonance * np.exp(-np.square(np.log2(hz / cutoff) / 0.3)))
        if np.isfinite(patch.decay):
            fading = np.exp(-blocks * (1 + patch.damping * (ratios[k] - 1)) / patch.decay)
            level = level * (patch.sustain + (1 - patch.sustain) * fading)
        if level.max() < 1e-4:
            continue
        level = np.asarray(level, np.float32)
        curve = level[index] * (1 - share) + level[index + 1] * share
        sound += curve * np.sin((2 * np.pi * hz * at + rng.uniform(0, 2 * np.pi)) % (2 * np.pi)).astype(np.float32)
    return sound


def _modulated(modulation: tuple[float, float, float], pitch_hz: float, time: np.ndarray, at: np.ndarray) -> np.ndarray:
    ratio, index, seconds = modulation
    # By Carson's rule the band reaches to (index + 1) times the modulator's frequency beside the carrier's.
    room = max(0.0, (_HIGHEST / pitch_hz - 1) / ratio - 1)
    phase = 2 * np.pi * pitch_hz * at
    amount = min(index, room) * (0.2 + 0.8 * np.exp(-time / seconds))
    return np.sin(phase + amount * np.sin(ratio * phase)).astype(np.float32)


def _formant_gain(patch: Patch, hz: float) -> float:
    if not patch.formants:
        return 1.0
    return 0.1 + sum(gain * np.exp(-0.5 * np.square((hz - center) / (60 + 0.09 * center))) for center, gain in patch.formants)
