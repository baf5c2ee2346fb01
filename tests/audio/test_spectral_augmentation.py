"""Augmentation of cached spectrograms: each disturbance does what it says, and only that."""

import numpy as np
import pytest

from polyamp import hparams
from polyamp.audio import spectral_augmentation
from polyamp.audio.log_frequency import compress, expand

OFF = {
    "augment_probability": 1,
    "augment_eq_db": 0,
    "augment_reverb": 0,
    "augment_noise": 0,
    "augment_gain_db": 0,
    "augment_transpose_semitones": 0,
    "augment_pitch_semitones": 0,
}


def settings(**on):
    return hparams.resolve("MELODIC", "melodic_compact", {**OFF, **on})


@pytest.fixture
def spectrum():
    power = np.zeros((40, 294))
    power[10, 100] = 1e-2
    power[20:, 150] = 1e-3
    return compress(power).astype(np.float32)


def rng():
    return np.random.default_rng(3)


def test_all_ranges_zero_changes_nothing(spectrum):
    changed, semitones, _ = spectral_augmentation.augment(spectrum, settings(), rng())
    np.testing.assert_allclose(changed, spectrum, atol=1e-6)
    assert semitones == 0


def test_gain_is_one_factor_for_all_within_its_range(spectrum):
    changed, _, reported = spectral_augmentation.augment(spectrum, settings(augment_gain_db=12), rng())
    sounding = spectrum > 0
    gain = 10 * np.log10(expand(changed)[sounding] / expand(spectrum)[sounding])
    assert 0 < abs(gain[0]) <= 12
    np.testing.assert_allclose(gain, reported, atol=0.01)


def test_all_crops_change_level_and_the_given_share_is_disturbed_otherwise(spectrum):
    # Transposition is a disturbance that can be seen in what comes back.
    chosen = settings(augment_probability=0.35, augment_transpose_semitones=12, augment_gain_db=6)
    of_all = rng()
    results = [spectral_augmentation.augment(spectrum, chosen, of_all) for _ in range(600)]
    assert np.mean([semitones != 0 for _, semitones, _ in results]) == pytest.approx(0.35 * 24 / 25, abs=0.06)
    assert all(abs(changed[10].max() - spectrum[10].max()) > 1e-6 for changed, *_ in results)


def test_equalizer_is_smooth_and_constant_in_time():
    flat = compress(np.full((8, 294), 1e-4))
    changed, *_ = spectral_augmentation.augment(flat, settings(augment_eq_db=10), rng())
    curve = 10 * np.log10(expand(changed) / 1e-4)
    np.testing.assert_allclose(curve, np.broadcast_to(curve[0], curve.shape), atol=1e-4)
    assert 1 < np.ptp(curve[0]) <= 40
    assert np.abs(np.diff(curve[0])).max() < 1.5  # dB from bin to bin


def test_room_adds_a_tail_and_leaves_what_was_before(spectrum):
    changed, *_ = spectral_augmentation.augment(spectrum, settings(augment_reverb=70), rng())
    before, after = expand(spectrum)[:, 100], expand(changed)[:, 100]
    np.testing.assert_allclose(after[:11], before[:11], rtol=1e-3, atol=1e-12)
    tail = after[11:25]
    assert tail[0] > 0 and (np.diff(tail) < 0).all()
    assert tail[0] < after[10]


def test_noise_is_added_everywhere_and_never_above_its_bound(spectrum):
    changed, *_ = spectral_augmentation.augment(spectrum, settings(augment_noise=0.05), rng())
    added = expand(changed) - expand(spectrum)
    assert (added[spectrum == 0] > 0).all()  # Where a note sounds float32 is too coarse to tell.
    assert added.sum(axis=1).max() <= 0.05**2 * 10**0.6


def test_transposition_moves_three_bins_a_semitone_and_reports_it(spectrum):
    seen = set()
    for seed in range(40):
        changed, semitones, _ = spectral_augmentation.augment(
            spectrum, settings(augment_transpose_semitones=2), np.random.default_rng(seed)
        )
        seen.add(semitones)
        np.testing.assert_allclose(changed[:, 150 + 3 * semitones], spectrum[:, 150], atol=1e-5)
    assert seen == {-2, -1, 0, 1, 2}


def test_detuning_moves_power_between_neighbouring_bins_and_keeps_its_sum_and_the_labels(spectrum):
    moved = []
    for seed in range(40):
        changed, semitones, _ = spectral_augmentation.augment(
            spectrum, settings(augment_pitch_semitones=0.2), np.random.default_rng(seed)
        )
        power = expand(changed)[30]
        assert semitones == 0
        assert power.sum() == pytest.approx(1e-3, rel=1e-3)
        moved.append(power @ np.arange(294) / power.sum() - 150)  # Bins, a third of a semitone each.
    assert 0.3 < np.max(np.abs(moved)) <= 0.6
    assert min(moved) < 0 < max(moved)


def test_the_same_seed_gives_the_same_result(spectrum):
    everything = hparams.resolve("MELODIC", "melodic_compact")
    first, second = (spectral_augmentation.augment(spectrum, everything, rng())[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
