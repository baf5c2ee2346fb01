"""The spectrogram cache: complete or absent, crops and labels that line up, batches that a step alone decides."""

import dataclasses

import numpy as np
import pytest

from polyamp import hparams, notes
from polyamp.audio import log_frequency
from polyamp.data import cache
from polyamp.data.example import Example
from polyamp.errors import DataError, HParamsError, PolyampError
from polyamp.notes import Notes

HOP = 512


def settings(**overrides):
    return hparams.resolve("MELODIC", "tiny", {"augment_probability": 0, "train_frames": 20, **overrides})


def front_end(audio):
    """A stand-in whose value tells the frame: its index within the recording, over 200."""
    frames = 1 + len(audio) // HOP
    return np.tile(np.arange(frames, dtype=np.float32)[:, None] / 200, (1, 294))


def frame_index(spectrum):
    """What `front_end` hid in a spectrum `[..., bins]`."""
    return np.round(spectrum[..., 0].astype(np.float32) * 200).astype(int)


def example(name, frames, pitch):
    onset = (np.arange(4, frames - 4, 6) + 0.25) * HOP / 16_000  # Off the frames, where rounding could go either way.
    samples = np.zeros((frames - 1) * HOP, np.float32)
    return Example(name, samples, Notes.of(onset, onset + 0.1, np.full(len(onset), pitch), np.full(len(onset), 100)), (1, 127))


@pytest.fixture
def two(tmp_path):
    return cache.build(tmp_path / "c", [example("long", 100, 60), example("short", 12, 72)], front_end)


def test_holds_every_frame_and_note(two):
    assert len(two) == 2
    np.testing.assert_array_equal(two.first_frame, [0, 100, 112])
    np.testing.assert_array_equal(frame_index(two.spectrum), [*range(100), *range(12)])
    assert set(two.notes[0].pitch) == {60} and set(two.notes[1].pitch) == {72}


def test_a_second_build_reads_no_examples(tmp_path, two):
    def must_not_be_read():
        raise AssertionError("read again")
        yield

    again = cache.build(tmp_path / "c", must_not_be_read(), front_end)
    np.testing.assert_array_equal(again.spectrum, two.spectrum)
    assert all((a.onset == b.onset).all() for a, b in zip(again.notes, two.notes, strict=True))


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def interrupted():
        yield example("a", 30, 60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.build(tmp_path / "c", interrupted(), front_end)
    assert list(tmp_path.iterdir()) == []


def test_no_examples_and_unwritable_folders_are_errors_that_leave_nothing(tmp_path):
    with pytest.raises(DataError, match="no readable example"):
        cache.build(tmp_path / "c", [], front_end)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(PolyampError, match="cache_dir"):
        cache.build(tmp_path / "file" / "c", [example("a", 30, 60)], front_end)


def test_another_process_may_be_faster(tmp_path):
    def examples():
        cache.build(tmp_path / "c", [example("theirs", 30, 60)], front_end)
        yield example("ours", 40, 60)

    assert len(cache.build(tmp_path / "c", examples(), front_end).spectrum) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("name", ["spectrum.npy", "index.npz"])
@pytest.mark.parametrize("length", [None, 0, 1000])
def test_a_damaged_cache_is_one_line_that_says_what_to_do(tmp_path, two, name, length):
    path = tmp_path / "c" / name
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])

    def examples():
        raise AssertionError("Nothing needs to be computed to see that.")
        yield

    with pytest.raises(DataError, match=r"c: damaged \(.*\); remove this folder, it will be made again\.") as error:
        cache.build(tmp_path / "c", examples(), front_end)
    assert "\n" not in str(error.value)


def test_what_nobody_knows_is_no_number_also_in_a_mix(tmp_path):
    unknown = dataclasses.replace(example("unknown", 100, 60), notes=Notes.empty(), is_labelled=False)
    spectra = cache.build(tmp_path / "c", [example("known", 100, 60), unknown], front_end)
    _, labels, weights = cache.batch(spectra, settings(batch_size=32), 1, 1)
    is_unknown = np.isnan(labels["onset"]).all(axis=(1, 2))
    assert 8 < is_unknown.sum() < 24
    for name, label in labels.items():
        assert np.isnan(label[is_unknown]).all() and np.isfinite(label[~is_unknown]).all(), name
    assert not weights["velocity"][is_unknown].any() and weights["velocity"][~is_unknown].any()
    assert weights["onset"][is_unknown].all() and weights["frame"][is_unknown].all()
    _, labels, _ = cache.batch(spectra, settings(batch_size=64, augment_mix_probability=1.0), 1, 1)
    assert np.isnan(labels["onset"]).all(axis=(1, 2)).mean() == pytest.approx(0.75, abs=0.15)


def test_caches_of_earlier_versions_hold_what_is_labelled(tmp_path, two):
    index = tmp_path / "c" / "index.npz"
    with np.load(index) as arrays:
        np.savez(index, **{name: value for name, value in arrays.items() if name != "is_labelled"})
    assert cache.build(tmp_path / "c", [], front_end).is_labelled.tolist() == [True, True]


def test_only_spectrograms_that_are_understood_are_augmented(two):
    mel = hparams.resolve("MELODIC", None, {"spec_type": "mel", "augment_probability": 0.5})
    with pytest.raises(HParamsError, match="augment_probability.*'mel'"):
        cache.batches(two, mel, seed=0)


def test_key_changes_with_files_and_settings(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    key = cache.cache_key([str(path)], {"hop_length": 512})
    assert key == cache.cache_key([str(path)], {"hop_length": 512})
    assert key != cache.cache_key([str(path)], {"hop_length": 256})
    path.write_bytes(b"12")
    assert key != cache.cache_key([str(path)], {"hop_length": 512})


def test_crops_are_consecutive_and_labels_lie_under_their_frames(two):
    spectrum, labels, weights = cache.batch(two, settings(batch_size=16), seed=0, step=0)
    assert spectrum.shape == (16, 20, 294)
    for clip in range(16):
        is_short = labels["onset"][clip, :, 72 - 21].any()
        frame = frame_index(spectrum[clip])
        heard = weights["onset"][clip, :, 0] > 0
        assert heard.sum() == (12 if is_short else 20)
        np.testing.assert_array_equal(frame[heard], np.arange(frame[0], frame[0] + heard.sum()))
        pitch = 72 if is_short else 60
        peaks = np.flatnonzero(labels["onset"][clip, :, pitch - 21] > 0.9)
        np.testing.assert_array_equal((frame[peaks] - 4) % 6, 0)
        assert labels["velocity"][clip, peaks, pitch - 21] == pytest.approx(100 / 127)


def test_weights_are_zero_after_the_end_and_velocity_counts_at_onsets_only(two):
    _, labels, weights = cache.batch(two, settings(batch_size=16), seed=0, step=0)
    for roll in ("onset", "offset", "frame"):
        assert set(np.unique(weights[roll])) <= {0.0, 1.0}
    np.testing.assert_array_equal(weights["velocity"] > 0, (labels["velocity"] > 0) & (weights["onset"] > 0))


def test_longer_examples_are_drawn_more_often(two):
    short = 0
    for step in range(20):
        _, labels, _ = cache.batch(two, settings(batch_size=16), seed=0, step=step)
        short += labels["onset"][:, :, 72 - 21].any(axis=1).sum()
    assert 12 / 112 == pytest.approx(short / 320, abs=0.06)


def test_a_batch_depends_on_seed_and_step_alone(two):
    wanted = settings(augment_probability=1)
    stream = cache.batches(two, wanted, seed=5, first_step=3)
    np.testing.assert_array_equal(next(stream)[0], cache.batch(two, wanted, 5, 3)[0])
    np.testing.assert_array_equal(next(stream)[0], cache.batch(two, wanted, 5, 4)[0])
    assert (cache.batch(two, wanted, 5, 3)[0] != cache.batch(two, wanted, 6, 3)[0]).any()


def test_transposition_moves_the_labels_too(two):
    wanted = settings(augment_probability=1, augment_transpose_semitones=3, batch_size=8)
    moved = {
        int(pitch) + 21
        for step in range(5)
        for pitch in np.unique(np.nonzero(cache.batch(two, wanted, 0, step)[1]["frame"])[2])
    }
    assert {57, 63} <= moved <= set(range(57, 64)) | set(range(69, 76))


def test_velocities_follow_the_level_where_they_shall(two):
    def velocities(**wanted):
        _, labels, weights = cache.batch(two, settings(augment_probability=1, augment_gain_db=2, **wanted), 0, 0)
        return set(np.rint(127 * labels["velocity"][weights["velocity"] > 0]).astype(int))

    unchanged, moved = velocities(), velocities(augment_velocity_per_db=10.0)
    assert len(moved) > len(unchanged)  # Each crop has a level of its own.
    assert 1 < max(abs(velocity - min(unchanged, key=lambda known: abs(known - velocity))) for velocity in moved) <= 20


def test_a_mixed_crop_is_what_both_sound_like_together(tmp_path):
    seconds = np.arange(40 * HOP) / 16_000
    hertz = {pitch: 440 * 2 ** ((pitch - 69) / 12) for pitch in (50, 75)}
    tones = {pitch: (0.1 * np.sin(2 * np.pi * of * seconds)).astype(np.float32) for pitch, of in hertz.items()}
    of_tone = [
        Example(str(pitch), audio, Notes.of([0.0], [seconds[-1]], [pitch], [80]), (80, 80)) for pitch, audio in tones.items()
    ]
    spectra = cache.build(tmp_path / "c", of_tone, lambda audio: log_frequency.spectrogram(audio, HOP))
    wanted = settings(batch_size=24, augment_mix_probability=1.0)
    spectrum, labels, weights = cache.batch(spectra, wanted, 3, 0)
    together = log_frequency.spectrogram(sum(tones.values()), HOP)[20]
    sounding = [tuple(np.flatnonzero(labels["frame"][clip].any(axis=0)) + 21) for clip in range(24)]
    assert set(sounding) == {(50,), (75,), (50, 75)}  # A crop may meet one of its own recording.
    for clip in np.flatnonzero([len(pitches) == 2 for pitches in sounding]):
        inside = slice(4, 16) if labels["onset"][clip].any() else slice(0, 16)
        loud = together > 0.5
        np.testing.assert_allclose(spectrum[clip, inside][:, loud].mean(axis=0), together[loud], atol=0.01)
    assert weights["frame"].all()


def test_some_crops_are_mixed_and_the_others_stay(two):
    alone = cache.batch(two, settings(batch_size=40), 3, 0)[0]
    some = cache.batch(two, settings(batch_size=40, augment_mix_probability=0.4), 3, 0)[0]
    share = (alone != some).any(axis=(1, 2)).mean()
    assert 0.2 < share < 0.6


def test_labels_equal_those_of_the_whole_recording(two):
    wanted = settings(batch_size=8)
    whole = notes.to_rolls(two.notes[0], 100, wanted)
    spectrum, labels, _ = cache.batch(two, wanted, 1, 0)
    for clip in range(8):
        if labels["frame"][clip, :, 72 - 21].any():
            continue
        start = frame_index(spectrum[clip])[0]
        inside, of_whole = slice(3, 17), slice(start + 3, start + 17)
        for roll in ("onset", "offset", "frame"):
            np.testing.assert_allclose(labels[roll][clip, inside], whole[roll][of_whole], atol=1e-6)
        rising = whole["onset"][of_whole] > 1e-6
        np.testing.assert_allclose(labels["velocity"][clip, inside][rising], whole["velocity"][of_whole][rising])
