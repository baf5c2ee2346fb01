"""Effects: onsets stay where they were, sounds change, and without pedalboard there is one line."""

import sys

import numpy as np
import pytest

from polyamp.errors import PolyampError
from polyamp.rendering import effects

RATE = 16_000


def _tone() -> np.ndarray:
    samples = np.zeros(RATE, np.float32)
    samples[4000:12_000] = 0.15 * np.sin(2 * np.pi * 440 * np.arange(8000) / RATE)
    return samples


@pytest.mark.parametrize("apply", [effects.on_stem, effects.on_mix])
def test_onsets_stay_and_the_rest_changes_from_seed_to_seed(apply):
    made = [apply(_tone(), np.random.default_rng(seed)) for seed in range(60)]
    for samples in made:
        assert samples.dtype == np.float32 and len(samples) == 3 * RATE and np.isfinite(samples).all()
        first = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())[0]
        assert 3950 < first < 4100  # 6 ms; soft edges of filters included.
        assert np.abs(samples[:3900]).max() < 0.02 * np.abs(samples).max()
    levels = [float(np.abs(samples[12_800:]).max() / np.abs(samples).max()) for samples in made]
    assert min(levels) < 0.01 and max(levels) > 0.03  # Some leave a tail, some none.
    np.testing.assert_array_equal(made[0], apply(_tone(), np.random.default_rng(0)))


def test_distortion_and_compression_reduce_dynamics():
    """Of a loud and a soft tone; over many seeds, as not every chain has them."""
    samples = np.concatenate([0.3 * _tone(), 3.0 * _tone()])
    ratios = []
    for seed in range(60):
        made = effects.on_mix(samples, np.random.default_rng(seed))
        ratios.append(made[22_000:27_000].std() / made[6000:11_000].std())
    assert np.median(ratios) < 9.5 and min(ratios) < 5 and max(ratios) > 9.5  # 10 as it came.


def test_without_pedalboard_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pedalboard", None)
    with pytest.raises(PolyampError, match="pip install pedalboard"):
        effects.on_stem(_tone(), np.random.default_rng(0))
