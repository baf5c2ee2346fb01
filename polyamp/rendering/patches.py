"""Settings of the synthesizer at random: for each family loosely what synthesizers offer under its name."""

import dataclasses

import numpy as np

_HARMONICS = np.arange(1.0, 49.0)
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


def random_patch(family: str, rng: np.random.Generator) -> Patch:
    """Settings for one of `constants.FAMILIES`."""
    makers = {"keyboard": _keyboard, "mallet": _mallet, "organ": _organ, "guitar": _guitar, "bass": _bass, "string": _string}
    makers |= {"brass": _brass, "flute": _flute, "reed": _reed, "synth_lead": _lead, "vocal": _vocal, "other": _pad}
    patch = makers[family](rng)
    return dataclasses.replace(patch, dynamics_db=rng.uniform(10.0, 40.0), brightness=rng.uniform(0.0, 2.0))


def _saw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _HARMONICS, _HARMONICS ** -rng.uniform(0.8, 1.4)


def _pulse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _HARMONICS, np.abs(np.sin(np.pi * _HARMONICS * rng.uniform(0.08, 0.5))) / _HARMONICS


def _triangle(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = _HARMONICS[:15]
    return k, np.where(k % 2 == 1, 1.0, rng.uniform(0.0, 0.4)) / k ** rng.uniform(1.8, 3.0)


def _uneven(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Partials each of another level, as of an instrument with a body."""
    k, levels = _saw(rng)
    return k, levels * 10 ** (rng.normal(0.0, 6.0, len(k)) / 20)


def _plucked(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A string plucked or struck at a part of its length."""
    struck = 0.05 + np.abs(np.sin(np.pi * _HARMONICS * rng.uniform(0.06, 0.4)))
    return _HARMONICS, struck * _HARMONICS ** -rng.uniform(0.6, 1.6)


def _one_of(rng: np.random.Generator, *waves) -> tuple[np.ndarray, np.ndarray]:
    return waves[rng.integers(len(waves))](rng)


def _maybe(rng: np.random.Generator, chance: float, low: float, high: float) -> float:
    return float(rng.uniform(low, high)) if rng.random() < chance else 0.0


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


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
