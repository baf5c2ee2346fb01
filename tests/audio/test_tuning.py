"""How far recordings are from A4 = 440 Hz, against what is known of synthesized ones and against librosa."""

import subprocess
import sys

import numpy as np
import pytest
import soxr

from polyamp.audio import level, tuning

RATE = 16_000


def chords(cents, seconds=6.0, seed=0):
    """Chords of decaying harmonic tones, so many cents above A4 = 440 Hz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(0.5 * RATE)) / RATE
    parts = []
    for _ in range(int(seconds / 0.5)):
        hertz = 440 * 2 ** ((rng.integers(45, 80, 3) - 69 + cents / 100) / 12)
        parts.append(sum(np.sin(2 * np.pi * k * f * time) / k for f in hertz for k in range(1, 6)) * np.exp(-4 * time))
    return (0.1 * np.concatenate(parts)).astype(np.float32)


def in_blocks(audio, size):
    return [audio[start : start + size] for start in range(0, len(audio), size)]


def test_tuning_is_found_to_two_cents_and_as_librosa_finds_it(tmp_path):
    offsets = [-45, -20, -3, 0, 8, 30, 45]
    recordings = [chords(cents) for cents in offsets]
    found = [tuning.measure([audio]) for audio in recordings]
    np.testing.assert_allclose(found, offsets, atol=2.0)
    np.save(tmp_path / "recordings.npy", recordings)
    # In a process of its own: what librosa compiles for this crashes in one that has TensorFlow.
    code = (
        "import sys, librosa, numpy\n"
        "for audio in numpy.load(sys.argv[1]): print(100 * librosa.estimate_tuning(y=audio, sr=16_000, n_fft=4096))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "recordings.npy")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    np.testing.assert_allclose(found, [float(line) for line in listed.split()], atol=3.0)


def test_a_quarter_tone_is_either():
    assert abs(tuning.measure([chords(50)])) == pytest.approx(50, abs=1.0)


@pytest.mark.parametrize(
    ("cents", "a4_hz", "better"),
    [
        (40.0, 440.0, 450.3),
        (-31.8, 440.0, 432.0),
        (8.0, 432.0, 442.0),  # 40 cents above what is heard.
        (-45.0, 450.0, 454.2),  # Nearer to a semitone above -45 cents.
        (-10.0, 455.0, 437.5),  # A semitone above, 463.5, cannot be told,
        (10.0, 424.0, 442.5),  # nor one below this, 417.7.
        (14.0, 440.0, None),
        (-31.8, 432.0, None),
        (0.0, 432.0, None),  # Of which nothing is known.
        (40.0, None, None),
    ],
)
def test_a_model_is_told_of_a_tuning_that_is_not_its_own(cents, a4_hz, better):
    assert tuning.better_a4(cents, a4_hz) == better


@pytest.mark.parametrize("size", [1, 700, 4096, 50_000])
def test_borders_of_blocks_do_not_matter(size):
    audio = chords(20)
    assert tuning.measure([audio]) == pytest.approx(20, abs=1.0)
    assert tuning.measure(in_blocks(audio, size)) == pytest.approx(tuning.measure([audio]), abs=1e-6)


def test_level_and_offset_do_not_matter():
    audio = chords(20)
    for changed in (audio * 1e-3, audio + np.float32(0.5)):
        assert tuning.measure([changed]) == pytest.approx(20, abs=1.0)


@pytest.mark.parametrize("kind", ["nothing", "silence", "too short", "noise", "glide"])
def test_what_has_no_tuning_has_none(kind):
    time = np.arange(10 * RATE) / RATE
    audio = {
        "nothing": np.zeros(0),
        "silence": np.zeros(RATE),
        "too short": chords(20, seconds=5.0),
        "noise": np.random.default_rng(0).normal(0, 0.1, 10 * RATE),
        "glide": np.sin(2 * np.pi * np.cumsum(200 * 2 ** (time / 5)) / RATE),  # Two octaves, evenly.
    }[kind]
    assert tuning.measure([audio.astype(np.float32)]) == 0.0


@pytest.mark.parametrize("cents", [-45, -12, 12, 45])
def test_what_is_off_is_brought_to_concert_pitch(cents):
    audio = chords(cents)
    factor = tuning.stretch_of(tuning.measure([audio]))
    assert factor == pytest.approx(2 ** (cents / 1200), abs=1e-3)
    heard = np.concatenate(list(tuning.stretched(lambda: in_blocks(audio, 5000), factor)()))
    assert len(heard) == pytest.approx(len(audio) * factor, abs=1)
    assert tuning.measure([heard]) == pytest.approx(0, abs=1.0)
    np.testing.assert_allclose(heard, soxr.resample(audio, RATE, RATE * factor, "HQ"), atol=1e-4)


def test_what_is_nearly_in_tune_stays_as_it_is():
    assert tuning.stretch_of(9.9) == tuning.stretch_of(-9.9) == 1.0

    def blocks():
        raise AssertionError("was read")

    assert tuning.stretched(blocks, 1.0) is blocks


@pytest.mark.parametrize("meter", [level.Meter(), tuning.Meter()])
def test_nothing_of_a_block_is_kept_but_its_rest(meter):
    meter.add(chords(20))
    assert meter._rest.base is None and len(meter._rest) < 4096


def test_level_and_tuning_are_measured_in_one_pass():
    audio, asked = chords(30), []

    def blocks():
        asked.append(1)
        return in_blocks(audio, 10_000)

    measured = level.Measured(blocks)
    heard, factor = measured.in_tune()
    assert (measured.cents, measured.level) == (tuning.measure([audio]), level.measure([audio]))
    assert factor > 1 and heard.level == measured.level and len(asked) == 1
    assert tuning.measure(heard()) == pytest.approx(0, abs=1.0)
    in_tune, factor = level.Measured(lambda: [chords(3)]).in_tune()
    assert factor == 1.0 and np.array_equal(in_tune()[0], chords(3))
