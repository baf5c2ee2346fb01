"""A synthesizer of random settings: sounds that no SoundFont has, for training.

Notes are sums of partials below half the sampling rate (so nothing aliases), each of which fades by itself under a filter that
opens and closes, or two operators of frequency modulation (Chowning 1973). What a family's settings may be is loosely what
synthesizers offer under its name.
"""

import dataclasses
from pathlib import Path

import numpy as np
from scipy import signal

from polyamp import constants
from polyamp.rendering.soundfonts import Sound
from polyamp.rendering.stems import Stem

_NAME = Path("synthesizer")  # In the place of a SoundFont's.
_RATE = constants.SAMPLE_RATE
_HIGHEST = 0.47 * _RATE  # Hz, of a partial.
_MOST_PARTIALS = 48
_BLOCK = 64  # Samples (4 ms), over which the filter's cutoff moves linearly.
_BAR_RATIOS = ((1.0, 3.93, 9.6), (1.0, 2.76, 5.40, 8.93), (1.0, 2.0, 3.0, 4.2, 5.4, 6.8), (0.5, 1.0, 1.19, 1.5, 2.0, 2.7, 3.3))
_DRAWBARS = np.array([0.5, 1.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])  # Of a Hammond organ, as multiples of the pitch.
# Formants of five vowels in Hz (Peterson and Barney 1952, men).
_VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))


@dataclasses.dataclass(frozen=True)
class Patch:
    """Settings of the synthesizer. Times are in seconds, levels linear."""

    ratios: np.ndarray  # Of the partials, multiples of the pitch.
    levels: np.ndarray  # Of the partials, before the filter.
    stretch: float = 0.0  # Inharmonicity of strings: partials at `k * sqrt(1 + stretch * k²)`.
    attack: float = 0.005
    decay: float = np.inf  # In which the lowest partial falls to 1/e while held.
    damping: float = 0.0  # How much faster higher ones do, per multiple of the pitch.
    sustain: float = 0.0  # Level below which it does not decay.
    release: float = 0.05
    cutoff: float = np.inf  # Of the low-pass filter, as multiples of the pitch, but at least `lowest_cutoff` Hz.
    lowest_cutoff: float = 300.0
    sweep: float = 0.0  # Octaves by which the filter is wider at the attack.
    sweep_seconds: float = 0.3
    order: float = 2.0  # 2 falls by 12 dB an octave.
    resonance: float = 0.0  # Height of the peak at the cutoff.
    vibrato_cents: float = 0.0
    vibrato_hz: float = 5.5
    vibrato_delay: float = 0.3
    tremolo: float = 0.0
    detune_cents: float = 0.0  # Of a second voice; 0: there is none.
    noise: float = 0.0  # Breath, filtered around the pitch.
    click: float = 0.0  # Noise of 20 ms at the attack.
    formants: tuple[tuple[float, float], ...] = ()  # Hz and gain.
    modulation: tuple[float, float, float] | None = None  # Of two operators: ratio, index, seconds in which the index falls.
    dynamics_db: float = 30.0  # Between velocities 1 and 127.
    brightness: float = 1.0  # Octaves by which the filter closes between velocities 127 and 1.


def sound_of(program: int) -> Sound:
    """The synthesizer in the role of a preset of that program, which plays all keys."""
    return Sound(_NAME, 0, program)


def plays(sound: Sound) -> bool:
    """Whether that sound is the synthesizer's."""
    return sound.soundfont == _NAME


def random_patch(family: str, rng: np.random.Generator) -> Patch:
    """Settings for one of `constants.FAMILIES`."""
    makers = {"keyboard": _keyboard, "mallet": _mallet, "organ": _organ, "guitar": _guitar, "bass": _bass, "string": _string}
    makers |= {"brass": _brass, "flute": _flute, "reed": _reed, "synth_lead": _lead, "vocal": _vocal, "other": _pad}
    patch = makers[family](rng)
    return dataclasses.replace(patch, dynamics_db=rng.uniform(10.0, 40.0), brightness=rng.uniform(0.0, 2.0))


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
    fading = np.exp(-time / patch.decay) if np.isfinite(patch.decay) else np.ones_like(time)
    if patch.modulation is not None:
        fading = patch.sustain + (1 - patch.sustain) * fading
        sound = _modulated(patch.modulation, pitch_hz, time, _vibrato(patch, time)) * fading
    else:
        sound = _partials(patch, pitch_hz, time, velocity, rng)
        if patch.detune_cents:
            sound = sound + _partials(patch, pitch_hz * 2 ** (patch.detune_cents / 1200), time, velocity, rng)
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


def _partials(patch: Patch, pitch_hz: float, time: np.ndarray, velocity: int, rng: np.random.Generator) -> np.ndarray:
    ratios = patch.ratios * np.sqrt(1 + patch.stretch * patch.ratios**2)
    used = np.flatnonzero((ratios * pitch_hz < _HIGHEST) & (patch.levels != 0))[:_MOST_PARTIALS]
    blocks = np.arange(0, len(time) + _BLOCK, _BLOCK) / _RATE  # Times at which levels are worked out.
    closed = patch.brightness * (velocity / 127 - 1)
    cutoff = np.maximum(patch.cutoff * pitch_hz, patch.lowest_cutoff) * 2 ** (
        closed + patch.sweep * np.exp(-blocks / patch.sweep_seconds)
    )
    at, position = time.astype(np.float64) + _vibrato(patch, time), np.arange(len(time)) / _BLOCK
    index = position.astype(np.int64)
    share = (position - index).astype(np.float32)
    sound = np.zeros_like(time)
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


def _modulated(modulation: tuple[float, float, float], pitch_hz: float, time: np.ndarray, vibrato: np.ndarray) -> np.ndarray:
    ratio, index, seconds = modulation
    # By Carson's rule the band reaches to (index + 1) times the modulator's frequency beside the carrier's.
    room = max(0.0, (_HIGHEST / pitch_hz - 1) / ratio - 1)
    at = 2 * np.pi * pitch_hz * (time.astype(np.float64) + vibrato)
    amount = min(index, room) * (0.2 + 0.8 * np.exp(-time / seconds))
    return np.sin(at + amount * np.sin(ratio * at)).astype(np.float32)


def _formant_gain(patch: Patch, hz: float) -> float:
    if not patch.formants:
        return 1.0
    return 0.1 + sum(gain * np.exp(-0.5 * np.square((hz - center) / (60 + 0.09 * center))) for center, gain in patch.formants)


def _saw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(1.0, _MOST_PARTIALS + 1)
    return k, k ** -rng.uniform(0.8, 1.4)


def _pulse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(1.0, _MOST_PARTIALS + 1)
    return k, np.abs(np.sin(np.pi * k * rng.uniform(0.08, 0.5))) / k


def _triangle(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(1.0, 16.0)
    return k, np.where(k % 2 == 1, 1.0, rng.uniform(0.0, 0.4)) / k ** rng.uniform(1.8, 3.0)


def _uneven(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Partials each of another level, as of an instrument with a body."""
    k, levels = _saw(rng)
    return k, levels * 10 ** (rng.normal(0.0, 6.0, len(k)) / 20)


def _one_of(rng: np.random.Generator, *waves) -> tuple[np.ndarray, np.ndarray]:
    return waves[rng.integers(len(waves))](rng)


def _maybe(rng: np.random.Generator, chance: float, low: float, high: float) -> float:
    return float(rng.uniform(low, high)) if rng.random() < chance else 0.0


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _plucked(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A string plucked or struck at a part of its length."""
    k = np.arange(1.0, _MOST_PARTIALS + 1)
    return k, (0.05 + np.abs(np.sin(np.pi * k * rng.uniform(0.06, 0.4)))) * k ** -rng.uniform(0.6, 1.6)


def _keyboard(rng: np.random.Generator) -> Patch:
    decay, damping, release = _log_uniform(rng, 0.4, 3.0), rng.uniform(0.05, 0.6), _log_uniform(rng, 0.03, 0.3)
    struck = Patch(np.ones(1), np.ones(1), attack=0.002, decay=decay, damping=damping, release=release)
    if rng.random() < 0.4:  # An electric piano.
        modulation = (float(rng.choice([1.0, 1.0, 2.0, 3.0, 7.0, 14.0])), rng.uniform(0.3, 3.0), _log_uniform(rng, 0.05, 1.0))
        return dataclasses.replace(struck, modulation=modulation, tremolo=_maybe(rng, 0.4, 0.1, 0.5))
    ratios, levels = _plucked(rng)
    cutoff = _log_uniform(rng, 3.0, 20.0)
    stretch, click = rng.uniform(0, 6e-4), _maybe(rng, 0.5, 0.05, 0.5)
    return dataclasses.replace(struck, ratios=ratios, levels=levels, cutoff=cutoff, stretch=stretch, click=click)


def _mallet(rng: np.random.Generator) -> Patch:
    decay, release = _log_uniform(rng, 0.1, 2.5), _log_uniform(rng, 0.05, 0.8)
    struck = Patch(np.ones(1), np.ones(1), attack=0.001, decay=decay, release=release)
    if rng.random() < 0.35:
        modulation = (float(rng.choice([1.41, 2.76, 3.5, 3.93, 4.0, 7.0])), rng.uniform(0.3, 2.5), _log_uniform(rng, 0.02, 0.5))
        return dataclasses.replace(struck, modulation=modulation)
    ratios = np.array(_BAR_RATIOS[rng.integers(len(_BAR_RATIOS))])
    levels = 10 ** (-rng.uniform(3.0, 14.0) * np.abs(np.log2(ratios)) / 20) * rng.uniform(0.3, 1.0, len(ratios))
    levels[ratios == 1.0] = 1.0
    damping, click = rng.uniform(0.2, 1.5), _maybe(rng, 0.6, 0.1, 0.8)
    return dataclasses.replace(struck, ratios=ratios, levels=levels, damping=damping, click=click)


def _organ(rng: np.random.Generator) -> Patch:
    ratios, levels = _DRAWBARS, rng.uniform(0.0, 1.0, len(_DRAWBARS)) * (rng.random(len(_DRAWBARS)) < 0.6)
    levels[2] = rng.uniform(0.5, 1.0)
    if rng.random() >= 0.7:
        ratios, levels = _one_of(rng, _pulse, _uneven)
    turning = _maybe(rng, 0.5, 2.0, 15.0)
    return Patch(
        ratios,
        levels,
        attack=_log_uniform(rng, 0.003, 0.06),
        release=_log_uniform(rng, 0.01, 0.15),
        vibrato_cents=turning,
        tremolo=turning / 60,
        vibrato_hz=rng.uniform(0.8, 7.0),
        vibrato_delay=0.0,
        click=_maybe(rng, 0.4, 0.1, 0.6),
    )


def _guitar(rng: np.random.Generator) -> Patch:
    return Patch(
        *_plucked(rng),
        stretch=rng.uniform(0, 2e-4),
        attack=_log_uniform(rng, 0.001, 0.006),
        decay=_log_uniform(rng, 0.3, 2.5),
        damping=rng.uniform(0.05, 0.5),
        release=_log_uniform(rng, 0.02, 0.15),
        cutoff=_log_uniform(rng, 4.0, 25.0),
        click=_maybe(rng, 0.7, 0.1, 0.6),
        sustain=_maybe(rng, 0.2, 0.2, 0.8),
    )


def _bass(rng: np.random.Generator) -> Patch:
    return Patch(
        *_one_of(rng, _saw, _pulse, _triangle, _plucked),
        attack=_log_uniform(rng, 0.002, 0.02),
        decay=_log_uniform(rng, 0.2, 2.0),
        damping=rng.uniform(0.0, 0.3),
        sustain=_maybe(rng, 0.5, 0.2, 0.9),
        release=_log_uniform(rng, 0.02, 0.2),
        cutoff=_log_uniform(rng, 2.0, 14.0),
        lowest_cutoff=150.0,
        sweep=_maybe(rng, 0.6, 0.5, 3.0),
        sweep_seconds=_log_uniform(rng, 0.05, 0.6),
        resonance=_maybe(rng, 0.4, 0.5, 3.0),
        click=_maybe(rng, 0.3, 0.05, 0.4),
    )


def _string(rng: np.random.Generator) -> Patch:
    return Patch(
        *_one_of(rng, _saw, _uneven),
        attack=_log_uniform(rng, 0.02, 0.3),
        release=_log_uniform(rng, 0.05, 0.6),
        cutoff=_log_uniform(rng, 3.0, 20.0),
        lowest_cutoff=800.0,
        vibrato_cents=_maybe(rng, 0.6, 3.0, 20.0),
        vibrato_hz=rng.uniform(4.0, 7.0),
        detune_cents=_maybe(rng, 0.7, 3.0, 18.0),
        noise=_maybe(rng, 0.3, 0.02, 0.15),
    )


def _brass(rng: np.random.Generator) -> Patch:
    return Patch(
        *_one_of(rng, _saw, _uneven),
        attack=_log_uniform(rng, 0.015, 0.08),
        release=_log_uniform(rng, 0.03, 0.2),
        cutoff=_log_uniform(rng, 2.0, 10.0),
        lowest_cutoff=700.0,
        sweep=rng.uniform(-2.0, 1.5),
        sweep_seconds=_log_uniform(rng, 0.03, 0.3),
        detune_cents=_maybe(rng, 0.4, 3.0, 12.0),
        resonance=_maybe(rng, 0.3, 0.3, 1.5),
        vibrato_cents=_maybe(rng, 0.3, 3.0, 15.0),
    )


def _flute(rng: np.random.Generator) -> Patch:
    return Patch(
        *_one_of(rng, _triangle, _triangle, _uneven),
        attack=_log_uniform(rng, 0.02, 0.12),
        release=_log_uniform(rng, 0.03, 0.2),
        cutoff=_log_uniform(rng, 1.5, 5.0),
        vibrato_cents=_maybe(rng, 0.6, 3.0, 25.0),
        tremolo=_maybe(rng, 0.4, 0.03, 0.25),
        vibrato_hz=rng.uniform(4.0, 6.5),
        noise=_maybe(rng, 0.8, 0.02, 0.3),
        click=_maybe(rng, 0.4, 0.05, 0.4),
    )


def _reed(rng: np.random.Generator) -> Patch:
    formants = ((rng.uniform(500, 1500), rng.uniform(1.0, 3.0)), (rng.uniform(1800, 3500), rng.uniform(0.5, 2.0)))
    return Patch(
        *_one_of(rng, _pulse, _uneven),
        attack=_log_uniform(rng, 0.01, 0.06),
        release=_log_uniform(rng, 0.03, 0.12),
        cutoff=_log_uniform(rng, 4.0, 16.0),
        lowest_cutoff=1500.0,
        formants=formants if rng.random() < 0.7 else (),
        vibrato_cents=_maybe(rng, 0.4, 3.0, 20.0),
        vibrato_hz=rng.uniform(4.0, 6.5),
        noise=_maybe(rng, 0.4, 0.01, 0.12),
    )


def _lead(rng: np.random.Generator) -> Patch:
    return Patch(
        *_one_of(rng, _saw, _pulse, _pulse, _triangle),
        attack=_log_uniform(rng, 0.002, 0.04),
        decay=_log_uniform(rng, 0.2, 2.0) if rng.random() < 0.4 else np.inf,
        sustain=rng.uniform(0.1, 0.8),
        release=_log_uniform(rng, 0.02, 0.4),
        cutoff=_log_uniform(rng, 2.0, 30.0),
        lowest_cutoff=600.0,
        sweep=_maybe(rng, 0.6, 0.5, 3.0),
        sweep_seconds=_log_uniform(rng, 0.05, 0.8),
        resonance=_maybe(rng, 0.5, 0.5, 4.0),
        vibrato_cents=_maybe(rng, 0.5, 3.0, 30.0),
        detune_cents=_maybe(rng, 0.5, 3.0, 20.0),
    )


def _vocal(rng: np.random.Generator) -> Patch:
    size = rng.uniform(0.9, 1.25)  # Of women's and children's tracts shorter than men's.
    vowel = _VOWELS[rng.integers(len(_VOWELS))]
    formants = tuple((size * hz, gain) for hz, gain in zip(vowel, (2.0, 1.0, 0.5), strict=True))
    return Patch(
        *_saw(rng),
        attack=_log_uniform(rng, 0.03, 0.25),
        release=_log_uniform(rng, 0.08, 0.5),
        formants=formants,
        vibrato_cents=_maybe(rng, 0.7, 5.0, 40.0),
        vibrato_hz=rng.uniform(4.5, 6.5),
        detune_cents=_maybe(rng, 0.6, 4.0, 20.0),
        noise=_maybe(rng, 0.6, 0.02, 0.2),
    )


def _pad(rng: np.random.Generator) -> Patch:
    return Patch(
        *_one_of(rng, _saw, _pulse, _triangle, _uneven),
        attack=_log_uniform(rng, 0.01, 0.4),
        release=_log_uniform(rng, 0.1, 1.0),
        cutoff=_log_uniform(rng, 1.5, 10.0),
        lowest_cutoff=500.0,
        sweep=rng.uniform(-2.0, 2.0),
        sweep_seconds=_log_uniform(rng, 0.2, 2.0),
        resonance=_maybe(rng, 0.4, 0.5, 3.0),
        detune_cents=_maybe(rng, 0.8, 4.0, 20.0),
        tremolo=_maybe(rng, 0.3, 0.1, 0.4),
        vibrato_hz=rng.uniform(0.5, 7.0),
        noise=_maybe(rng, 0.3, 0.02, 0.2),
    )
