"""Effects as a studio has them, of random settings: for single stems, and for whole mixes.

None delays what it is given, so that labels stay true. They are pedalboard's, which only this needs: `pip install pedalboard`.
"""

from types import ModuleType

import numpy as np
import soxr

from polyamp import constants
from polyamp.errors import PolyampError

_RATE = 48_000  # Hz, at which effects run: distortion at 16 kHz would alias.
_TAIL = 2.0  # Seconds after the end in which echoes fade.


def on_stem(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A stem with one to three effects of one instrument: filter, distortion, chorus, phaser, echo, reverb.

    Args:
        samples: float32 [samples] at 16 kHz, about -20 dB loud.
        rng: Chooses effects and their settings.

    Returns:
        float32 [samples], two seconds longer.

    Raises:
        PolyampError: pedalboard is not installed.
    """
    pedalboard = load_pedalboard()
    makers = {
        "filter": lambda: _tone(rng),
        "distortion": lambda: pedalboard.Distortion(rng.uniform(3.0, 28.0)),
        "chorus": lambda: pedalboard.Chorus(
            rng.uniform(0.2, 3.0), rng.uniform(0.05, 0.4), rng.uniform(5.0, 15.0), mix=rng.uniform(0.2, 0.5)
        ),
        "phaser": lambda: pedalboard.Phaser(
            rng.uniform(0.1, 2.0), rng.uniform(0.3, 0.9), rng.uniform(500, 2500), mix=rng.uniform(0.3, 0.5)
        ),
        "echo": lambda: pedalboard.Delay(rng.uniform(0.09, 0.6), rng.uniform(0.0, 0.5), rng.uniform(0.08, 0.3)),
        "reverb": lambda: _reverb(rng, 0.45),
    }
    order = list(makers)  # As on a guitarist's floor.
    likely = np.array([0.2, 0.15, 0.2, 0.1, 0.15, 0.2])
    chosen = rng.choice(len(order), rng.integers(1, 4), replace=False, p=likely)
    return _run([makers[order[number]]() for number in sorted(chosen)], samples)


def on_mix(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mix as it is mastered, each step by chance: tone, saturation, compression, reverb, limiter; as `on_stem`."""
    pedalboard = load_pedalboard()
    chain = []
    if rng.random() < 0.7:
        chain.append(_tone(rng))
    if rng.random() < 0.2:
        chain.append(pedalboard.Distortion(rng.uniform(0.0, 8.0)))
    if rng.random() < 0.6:
        chain.append(
            pedalboard.Compressor(
                rng.uniform(-34.0, -14.0), rng.uniform(1.5, 6.0), rng.uniform(1.0, 40.0), rng.uniform(50, 400)
            )
        )
    if rng.random() < 0.4:
        chain.append(_reverb(rng, 0.35))
    if rng.random() < 0.4:
        chain.append(pedalboard.Limiter(rng.uniform(-18.0, -8.0), rng.uniform(50, 300)))
    return _run(chain, samples)


def _tone(rng: np.random.Generator):
    """An equalizer: two shelves and a peak."""
    pedalboard = load_pedalboard()
    return pedalboard.Pedalboard(
        [
            pedalboard.LowShelfFilter(rng.uniform(80, 400), rng.uniform(-8.0, 6.0)),
            pedalboard.PeakFilter(
                np.exp(rng.uniform(np.log(200), np.log(5000))), rng.uniform(-8.0, 8.0), rng.uniform(0.5, 2.0)
            ),
            pedalboard.HighShelfFilter(rng.uniform(1500, 6000), rng.uniform(-12.0, 8.0)),
        ]
    )


def _reverb(rng: np.random.Generator, most: float):
    wet = rng.uniform(0.05, most)
    return load_pedalboard().Reverb(rng.uniform(0.1, 0.95), rng.uniform(0.1, 0.9), wet_level=wet, dry_level=1.0 - wet)


def _run(chain: list, samples: np.ndarray) -> np.ndarray:
    padded = np.pad(np.asarray(samples, np.float32), (0, round(_TAIL * constants.SAMPLE_RATE)))
    if not chain:
        return padded
    stereo = np.stack([soxr.resample(padded, constants.SAMPLE_RATE, _RATE)] * 2)  # Some effects differ from side to side.
    result = load_pedalboard().Pedalboard(chain)(stereo, _RATE).mean(axis=0)
    return soxr.resample(result, _RATE, constants.SAMPLE_RATE)[: len(padded)].astype(np.float32)


def load_pedalboard() -> ModuleType:
    """The module that the effects come from; `PolyampError` if it is not installed."""
    try:
        import pedalboard
    except ImportError as error:
        raise PolyampError("effects need pedalboard, which is not installed: pip install pedalboard") from error
    return pedalboard
