"""The synthesizer: pitch, timing, dynamics and spectrum of what it plays, by FFT and by hand."""

import numpy as np
import pytest

from polyamp import constants
from polyamp.rendering import patches, synthesizer
from polyamp.rendering.patches import Patch
from polyamp.rendering.stems import Stem

RATE = 16_000
SAW = Patch(np.arange(1.0, 40.0), 1.0 / np.arange(1.0, 40.0))


def _play(patch: Patch, *rows: tuple[float, float, int, int]) -> np.ndarray:
    return synthesizer.play(Stem("x", 0, False, list(rows), []), patch, np.random.default_rng(0))


def _spectrum(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = np.square(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))))
    return np.fft.rfftfreq(len(samples), 1 / RATE), power / power.sum()


def _share_near_multiples(samples: np.ndarray, hz: float, tolerance: float = 0.05) -> float:
    """Of the power, in multiples of `hz`."""
    at, power = _spectrum(samples)
    apart = np.abs(at / hz - np.round(at / hz))
    return float(power[(apart < tolerance) & (at > hz / 2)].sum())


def test_partials_are_where_and_as_strong_as_the_patch_says():
    samples = _play(Patch(np.array([1.0, 2.0, 5.0]), np.array([1.0, 0.5, 0.25])), (0.0, 2.0, 69, 127))
    at, power = _spectrum(samples[RATE // 2 : 3 * RATE // 2])
    shares = [power[np.abs(at - hz) < 5].sum() for hz in (440, 880, 2200)]
    np.testing.assert_allclose(shares, np.array([1.0, 0.25, 0.0625]) / 1.3125, rtol=1e-3)


@pytest.mark.parametrize(
    "patch", [SAW, Patch(np.ones(1), np.ones(1), modulation=(1.0, 8.0, 5.0))], ids=["saw", "two operators"]
)
@pytest.mark.parametrize("pitch", [90, 103, 108])
def test_high_notes_do_not_alias(patch: Patch, pitch: int):
    samples = _play(patch, (0.0, 2.0, pitch, 127))[RATE // 2 : 3 * RATE // 2]
    assert _share_near_multiples(samples, 440 * 2 ** ((pitch - 69) / 12)) > 0.999


@pytest.mark.parametrize("family", [family for family in constants.FAMILIES if family != "mallet"])
def test_every_family_is_heard_at_its_pitch(family: str):
    for seed in range(12):
        patch = patches.random_patch(family, np.random.default_rng(seed))
        samples = _play(patch, (0.0, 1.5, 57, 100))
        assert np.isfinite(samples).all()
        share = _share_near_multiples(samples[: 3 * RATE // 2], 110.0, tolerance=0.13)  # An organ's pipes sound below, too.
        assert share > 0.75, (family, seed)


def test_a_note_begins_and_ends_where_it_is_written():
    patch = patches.random_patch("organ", np.random.default_rng(3))
    samples = np.abs(_play(patch, (0.5, 1.0, 60, 100), (2.0, 2.5, 60, 100)))
    loud = samples > 0.01 * samples.max()
    assert not loud[: RATE // 2].any() and loud[RATE // 2 : int(0.53 * RATE)].any()
    assert loud[int(0.9 * RATE) : RATE].any() and not loud[int((1.0 + 7 * patch.release) * RATE) : 2 * RATE].any()
    assert loud[2 * RATE : int(2.03 * RATE)].any()


def test_struck_sounds_decay_while_held_and_dull_ones_lose_their_partials_first():
    patch = Patch(np.arange(1.0, 9.0), np.ones(8), decay=0.5, damping=1.0)
    samples = _play(patch, (0.0, 2.0, 57, 100))
    early, late = samples[1600:3200], samples[16_000:17_600]
    assert np.sqrt(np.mean(late**2) / np.mean(early**2)) == pytest.approx(np.exp(-0.9 / 0.5), rel=0.5)
    assert np.std(np.diff(late)) / np.std(late) < 0.5 * np.std(np.diff(early)) / np.std(early)


def test_velocity_changes_loudness_by_the_patchs_dynamics():
    loud, soft = (_play(Patch(np.ones(1), np.ones(1), dynamics_db=20.0), (0.0, 1.0, 60, v)).std() for v in (127, 64))
    assert 20 * np.log10(loud / soft) == pytest.approx(20 * 63 / 127, abs=0.05)


def test_the_filter_closes_with_its_sweep_and_vibrato_widens_the_spectrum():
    closing = _play(
        Patch(SAW.ratios, SAW.levels, cutoff=2.0, lowest_cutoff=0.0, sweep=3.0, sweep_seconds=0.1), (0.0, 1.5, 57, 127)
    )
    at, early = _spectrum(closing[:3200])
    _, late = _spectrum(closing[19_200:22_400])
    assert early[at > 1000].sum() > 5 * late[at > 1000].sum()
    steady, wavering = (
        _spectrum(_play(Patch(np.ones(1), np.ones(1), vibrato_cents=cents), (0.0, 2.0, 69, 127))[RATE : 2 * RATE])
        for cents in (0.0, 30.0)
    )
    width = [np.sqrt(power @ np.square(at - 440)) for at, power in (steady, wavering)]
    assert width[0] < 2 < 4 < width[1] < 9  # Hz; a sine of ±7.7 Hz has 5.4.


def test_settings_differ_from_seed_to_seed_and_follow_it():
    rows = ((0.0, 0.5, 60, 100),)
    first, again, other = (_play(patches.random_patch("synth_lead", np.random.default_rng(seed)), *rows) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or not np.allclose(first, other)


def test_a_stem_without_notes_is_silence():
    assert not _play(SAW).any()
