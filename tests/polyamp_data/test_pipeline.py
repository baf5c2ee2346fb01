"""The training pipeline: what a batch holds, determinism, damage, and that the start is cheap."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from polyamp import models, notes
from polyamp.data import note_batches, pipeline, records
from polyamp.data.example import Example
from polyamp.errors import DataError, HParamsError
from polyamp.hparams import FullHParams, MelodicHParams

MakeExample = Callable[..., Example]

TINY = MelodicHParams(train_frames=21, batch_size=2)  # Crops of 0.64 s.


def _batches(path: str | Path, hparams: MelodicHParams, count: int, seed: int = 1) -> Iterator[Any]:
    return pipeline.training_dataset(str(path), hparams, seed).take(count).as_numpy_iterator()


def _write(folder: Path, examples: list[Example], shards: int = 2) -> str:
    for shard in range(shards):
        records.write(folder / f"train.tfrecord-{shard:05d}-of-{shards:05d}", examples[shard::shards])
    return str(folder / "train.tfrecord-*")


@pytest.mark.parametrize("mode", ["length_ms", "triangle"])
def test_batches_hold_crops_with_their_labels(tmp_path: Path, make_example: MakeExample, mode: str):
    hparams = MelodicHParams(train_frames=21, batch_size=2, onset_mode=mode, decay_frame_weights=True)
    example = make_example(1, seconds=2.0)
    path = _write(tmp_path, [example], shards=1)
    starts = set()
    for audio, labels, weights in _batches(path, hparams, 4):
        assert audio.shape == (2, 20 * 512) and audio.dtype == np.float32
        for row in range(2):
            windows = np.lib.stride_tricks.sliding_window_view(example.audio, 4)
            start = int(np.flatnonzero((windows == audio[row, :4]).all(axis=1))[0]) / 16_000
            starts.add(start)
            np.testing.assert_array_equal(audio[row], example.audio[round(start * 16_000) :][: 20 * 512])
            cropped = notes.crop(example.notes, start, start + 0.64, clip=False)
            rolls = notes.to_rolls(cropped, 21, hparams, total_time=2.0 - start)
            for name in ("onset", "offset", "frame", "velocity"):
                np.testing.assert_allclose(labels[name][row], rolls[name], atol=1e-6, err_msg=name)
            np.testing.assert_allclose(weights["frame"][row], rolls["frame_weight"], rtol=1e-6)
            np.testing.assert_array_equal(weights["velocity"][row], rolls["velocity"] > 0)
        assert weights["onset"].shape == weights["offset"].shape == (2, 21, 88)
        assert weights["onset"].all() and weights["offset"].all()
    assert len(starts) > 4


@pytest.mark.parametrize("decay", [False, True])
def test_losses_are_means_over_cells(tmp_path: Path, make_example: MakeExample, decay: bool):
    hparams = dataclasses.replace(TINY, decay_frame_weights=decay)
    path = _write(tmp_path, [make_example(1, seconds=0.5, notes_per_second=30)], shards=1)
    ((_, labels, weights),) = _batches(path, hparams, 1)
    predicted = np.random.default_rng(0).uniform(0.1, 0.9, (2, 21, 88)).astype(np.float32)
    valid = 1 + 8000 // 512
    for name, loss in models.compile_arguments("MELODIC", hparams)["loss"].items():
        right = labels[name] if name == "velocity" else np.round(labels[name])
        cells = np.square(right - predicted) if name == "velocity" else -np.log(np.where(right == 1, predicted, 1 - predicted))
        weight = (
            weights[name] if name in ("frame", "velocity") else np.ones((2, 21, 88)) * (np.arange(21) < valid)[:, np.newaxis]
        )
        expected = (cells * weight).sum() / weight.sum()
        assert float(loss(labels[name], predicted, weights[name])) == pytest.approx(expected, rel=1e-4), name


def test_short_examples_are_padded_and_masked(tmp_path: Path, make_example: MakeExample):
    example = make_example(1, seconds=0.3, notes_per_second=30)
    path = _write(tmp_path, [example], shards=1)
    ((audio, labels, weights),) = _batches(path, TINY, 1)
    np.testing.assert_array_equal(audio[0, :4800], example.audio)
    assert not audio[:, 4800:].any()
    valid = 1 + 4800 // 512
    for name in ("onset", "offset", "frame"):
        expected = np.tile((np.arange(21) < valid)[:, np.newaxis], 88)
        np.testing.assert_array_equal(weights[name][0], expected, err_msg=name)
    assert not weights["velocity"][:, valid:].any()
    assert labels["onset"][0, :valid].any()


def test_the_seed_decides_all(tmp_path: Path, make_example: MakeExample):
    path = _write(tmp_path, [make_example(number, seconds=1.5) for number in range(12)])
    augmented = MelodicHParams(train_frames=21, batch_size=2, augment_probability=0.5)
    first = [audio for audio, _, _ in _batches(path, augmented, 20, seed=3)]
    again = [audio for audio, _, _ in _batches(path, augmented, 20, seed=3)]
    plain, other = ([audio for audio, _, _ in _batches(path, TINY, 2, seed=seed)] for seed in (3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(plain, other)
    assert len({audio.tobytes() for batch in first for audio in batch}) > 36  # 40 crops, hardly any twice.


def test_each_epoch_takes_every_example_as_often_as_it_is_long(tmp_path: Path, make_example: MakeExample):
    """Seen by the loudness that each example has for itself."""
    examples = [make_example(number, seconds=0.64 * (1 + number % 3)) for number in range(6)]
    examples = [
        Example(one.id, np.full_like(one.audio, (number + 1) / 16), one.notes, one.velocity_range)
        for number, one in enumerate(examples)
    ]
    path = _write(tmp_path, examples)
    # The shuffle buffer of crops mixes epochs: 50 epochs of 12 crops, of which at most 64 are still in the buffer.
    levels = np.concatenate([audio[:, 0] for audio, _, _ in _batches(path, TINY, 300)])
    counts = np.array([(levels == (number + 1) / 16).sum() for number in range(6)])
    np.testing.assert_allclose(counts / counts.sum(), np.array([1, 2, 3, 1, 2, 3]) / 12, atol=0.02)


def test_damaged_records_are_skipped_with_a_count(tmp_path: Path, make_example: MakeExample, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "a.tfrecord"
    records.write(path, [make_example(number, seconds=0.7) for number in range(5)])
    offsets = records.record_offsets(str(path))
    data = bytearray(path.read_bytes())
    data[offsets[1] + 4000] ^= 1
    path.write_bytes(data[: offsets[4] + 4000])
    with caplog.at_level("WARNING"):
        crops = [row for audio, _, _ in _batches(path, TINY, 60) for row in audio]
    sources = [make_example(number, seconds=0.7).audio for number in range(5)]
    seen = {number for number, audio in enumerate(sources) for crop in crops if crop[:8].tobytes() in audio.tobytes()}
    assert seen == {0, 2, 3}
    assert "record 1 is damaged; skipped (1 so far)" in caplog.text or "record 4 is damaged; skipped (1 so far)" in caplog.text
    assert "(2 so far)" in caplog.text


def test_files_without_any_readable_record_are_an_error(tmp_path: Path):
    (tmp_path / "a.tfrecord").write_bytes(b"this is no TFRecord file at all")
    with pytest.raises(DataError, match="no readable example"):
        pipeline.training_dataset(str(tmp_path / "a.tfrecord"), TINY, 1)
    with pytest.raises(DataError, match="b.tfrecord"):
        pipeline.training_dataset(str(tmp_path / "b.tfrecord"), TINY, 1)


def test_the_start_reads_little_and_python_only_lists_files(
    tmp_path: Path, make_example: MakeExample, monkeypatch: pytest.MonkeyPatch
):
    path = _write(tmp_path, [make_example(number, seconds=0.7) for number in range(8)], shards=8)
    parsed = []
    original = records.parse
    monkeypatch.setattr(records, "parse", lambda serialized: parsed.append(1) or original(serialized))
    called = []
    function = tf.numpy_function
    monkeypatch.setattr(tf, "numpy_function", lambda f, *args, **kwargs: function(_counting(f, called), *args, **kwargs))
    list(_batches(path, TINY, 3))
    assert len(parsed) == 1
    assert set(called) == {"record_offsets"}


def _counting(function: Callable, called: list[str]) -> Callable:
    def count(*args):
        called.append(function.__name__)
        return function(*args)

    return count


def test_batches_of_long_recordings_hold_many_of_them(tmp_path: Path):
    whole = [
        Example(str(number), np.full(16_000 * 20, number / 32, np.float32), notes.Notes.empty(), (0, 0))
        for number in range(1, 25)
    ]
    path = _write(tmp_path, whole)
    hparams = dataclasses.replace(TINY, batch_size=8)
    different = [len(np.unique(np.rint(audio[:, 0] * 32))) for audio, _, _ in _batches(path, hparams, 40)]
    assert np.mean(different) > 5  # Evenly drawn 6.9; one recording after the other 4.2.


def test_augmentation_changes_audio_but_not_labels(tmp_path: Path, make_example: MakeExample):
    path = _write(tmp_path, [make_example(number, seconds=1.0) for number in range(2)])
    augmented = MelodicHParams(train_frames=21, batch_size=2, augment_probability=1.0)
    plain = _batches(path, TINY, 2)
    changed = _batches(path, augmented, 2)
    for (audio, labels, _), (audio_changed, labels_changed, _) in zip(plain, changed, strict=True):
        np.testing.assert_array_equal(labels["onset"], labels_changed["onset"])
        assert all(not np.allclose(*rows) for rows in zip(audio, audio_changed, strict=True))


def test_velocities_follow_the_level_of_the_audio(tmp_path: Path, make_example: MakeExample):
    path = _write(tmp_path, [make_example(number, seconds=1.0) for number in range(2)])
    settings = {"train_frames": 21, "batch_size": 2, "augment_probability": 1e-9, "augment_gain_db": 3.0}
    plain = _batches(path, TINY, 2)
    followed = _batches(path, MelodicHParams(**settings, augment_velocity_per_db=4.0), 2)
    for (audio, labels, weights), (changed, moved, _) in zip(plain, followed, strict=True):
        for crop in range(2):
            gain_db = 20 * np.log10(np.std(changed[crop]) / np.std(audio[crop]))
            heard = np.asarray(weights["velocity"])[crop] > 0
            before, after = (np.asarray(of["velocity"])[crop][heard] * 127 for of in (labels, moved))
            np.testing.assert_allclose(after, np.clip(np.rint(before + 4 * gain_db), 1, 127), atol=1e-3)


def test_velocities_follow_the_level_of_the_audio_in_a_full_model_too(tmp_path: Path, make_example: MakeExample):
    path = _write(tmp_path, [make_example(number, seconds=1.0) for number in range(2)])
    gained = {"train_frames": 21, "batch_size": 2, "augment_probability": 1e-9, "augment_gain_db": 3.0}
    of_notes, of_both = (
        next(iter(make(path, kind(**gained, augment_velocity_per_db=4.0), 2)))
        for make, kind in ((pipeline.training_dataset, MelodicHParams), (note_batches.training_dataset, FullHParams))
    )
    np.testing.assert_array_equal(of_notes[0], of_both[0]["audio"])
    np.testing.assert_array_equal(of_notes[1]["velocity"], of_both[1]["velocity"])


def test_audio_is_not_transposed_which_is_said_nor_mixed_which_is_refused(
    tmp_path: Path, make_example: MakeExample, caplog: pytest.LogCaptureFixture
):
    path = _write(tmp_path, [make_example(0)])
    pipeline.training_dataset(path, MelodicHParams(augment_probability=0.5, augment_transpose_semitones=2), 1)
    assert "augment_transpose_semitones has no effect" in caplog.text
    with pytest.raises(HParamsError, match="augment_mix_probability"):
        pipeline.training_dataset(path, MelodicHParams(augment_mix_probability=0.5), 1)


def test_whole_examples_have_the_notes_that_begin_in_them(tmp_path: Path, make_example: MakeExample):
    whole = make_example(2, seconds=3.0, notes_per_second=30)
    part = notes.crop(whole.notes, 1.0, 2.0, clip=False)
    path = tmp_path / "a.tfrecord"
    records.write(path, [Example("part", whole.audio[16_000:32_000], part, whole.velocity_range)])
    (found,) = pipeline.whole_examples(str(path))
    begun = (whole.notes.onset >= 1.0) & (whole.notes.onset < 2.0)
    assert found.notes == notes.crop(whole.notes[begun], 1.0, 2.0)
    assert len(found.notes) < len(part)


def test_damage_is_an_error_in_evaluation(tmp_path: Path, make_example: MakeExample):
    path = tmp_path / "a.tfrecord"
    records.write(path, [make_example(0)])
    assert [example.id for example in pipeline.whole_examples(str(path))] == ["example 0"]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="a.tfrecord: record 0 is damaged"):
        list(pipeline.whole_examples(str(path)))
