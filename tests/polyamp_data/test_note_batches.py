"""Training batches for Timbre and Full: which notes are learned, and what can be cached."""

import numpy as np
import pytest
import tensorflow as tf

from polyamp import constants, hparams
from polyamp.data import cache, note_batches, nsynth, records
from polyamp.data.example import Example, NoteExample
from polyamp.errors import HParamsError
from polyamp.notes import Notes

SMALL = {"timbre_architecture": "harmonics", "timbre_hop_length": 512, "train_frames": 300, "timbre_max_notes": 64}


def piece(name, seconds):
    onset = np.arange(0.1, seconds - 0.3, 0.25)
    notes = Notes.of(onset, onset + 0.2, np.full(len(onset), 60), None, np.full(len(onset), 40))
    return Example(name, np.zeros(round(seconds * 16_000), np.float32), notes, (80, 80))


def front_end(audio):
    return np.full((1 + len(audio) // 512, 294), 0.5, np.float32)


@pytest.mark.parametrize("model_type", ["TIMBRE", "FULL"])
def test_no_family_is_learned_where_a_mixed_crop_is_silent(tmp_path, model_type):
    settings = hparams.resolve(model_type, "tiny", {**SMALL, "augment_mix_probability": 1.0, "batch_size": 24})
    spectra = cache.build(tmp_path / "c", [piece("long", 12.0), piece("short", 3.0)], front_end)
    inputs, _, weights = next(note_batches.cached_batches(spectra, settings, seed=0))
    lengths = (inputs["spectrum"].any(axis=-1)).sum(axis=1)
    assert set(lengths) == {1 + 3 * 16_000 // 512, 300}
    for rows, learned, length in zip(inputs["notes"], weights["family"], lengths, strict=True):
        onsets = rows[learned > 0, 1]
        assert len(onsets) > 8 and onsets.max() < length * 512 / 16_000 + 0.1  # And the errors that notes are given.


def test_what_the_parts_of_a_model_hear_differently_cannot_be_cached():
    with pytest.raises(HParamsError, match="spec_type 'cqt' is not what the Timbre part reads"):
        note_batches.check_cacheable(hparams.resolve("FULL", None, SMALL))
    note_batches.check_cacheable(hparams.resolve("TIMBRE", None, SMALL))
    with pytest.raises(HParamsError, match="timbre_hop_length"):
        note_batches.check_cacheable(hparams.resolve("TIMBRE", None, {**SMALL, "timbre_hop_length": 256}))


def test_what_a_timbre_model_caches_can_be_augmented_whatever_a_melodic_one_hears():
    cache.check_augmentation(hparams.resolve("TIMBRE", None, {**SMALL, "augment_probability": 0.5}))
    with pytest.raises(HParamsError, match="cannot be augmented"):
        cache.check_augmentation(hparams.resolve("MELODIC", None, {"augment_probability": 0.5}))


def test_labels_of_mixed_single_notes_do_not_depend_on_their_order():
    """Of two notes of one pitch at once the later one counts."""
    settings = hparams.resolve("FULL", "tiny", {**SMALL, "train_frames": 64, "onset_mode": "length_ms"})
    columns = {
        "onset": [0.5, 0.1],
        "offset": [1.5, 1.2],
        "pitch": [60, 60],
        "velocity": [100, 20],
        "program": [40, 0],
    }
    answers = []
    for order in ([0, 1], [1, 0]):
        kinds = {"onset": tf.float64, "offset": tf.float64}
        crop = {name: tf.constant(np.take(values, order), kinds.get(name, tf.int64)) for name, values in columns.items()}
        crop |= {"audio": tf.zeros(63 * 512), "total_time": tf.constant(2.0, tf.float64)}
        answers.append(note_batches._labelled(crop, tf.constant(3, tf.int64), settings, seed=1))
    for of_one, of_other in zip(*answers, strict=True):
        for name in of_one:
            np.testing.assert_array_equal(of_one[name], of_other[name])
    velocity = answers[0][1]["velocity"].numpy()[:, 60 - 21]
    assert velocity[round(0.5 / 0.032)] == pytest.approx(100 / 127, abs=0.01)


def test_a_quarter_of_the_crops_are_of_single_notes(tmp_path):
    """Told apart by their families: recordings are of strings, single notes of flutes."""
    settings = hparams.resolve("TIMBRE", "tiny", {**SMALL, "batch_size": 64})
    records.write(tmp_path / "train.tfrecord", [piece("long", 12.0)])
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(64_000) / 16_000).astype(np.float32)
    note = NoteExample("flute-069-100", tone, 69, 100, "flute", "flute", "acoustic")
    records.write(tmp_path / "notes.tfrecord", [note], nsynth.serialize)
    batches = note_batches.training_dataset(
        str(tmp_path / "train.tfrecord"), settings, seed=3, nsynth_examples_path=str(tmp_path / "notes.tfrecord")
    )
    _, targets, _ = next(iter(batches))
    families = targets["family"].numpy().sum(axis=1)
    flute, string = (constants.FAMILIES.index(name) for name in ("flute", "string"))
    single, of_recordings = families[:, flute] > 0, families[:, string] > 0
    assert not (single & of_recordings).any() and (single | of_recordings).all()
    assert 6 <= single.sum() <= 28
