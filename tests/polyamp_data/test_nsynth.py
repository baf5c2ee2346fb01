"""Single notes: NSynth's schema both ways, the layouts they are found in, and how they are cut."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from polyamp import constants
from polyamp.data import note_files, nsynth, records
from polyamp.data.example import NOTE_QUALITIES, NOTE_SOURCES, NoteExample
from polyamp.data.recording import hold_out
from polyamp.errors import AudioError, DataError

FAMILY_NUMBERS = {"bass": 0, "guitar": 3, "vocal": 10}  # As published.


def _example(family: str = "guitar", number: int = 7) -> NoteExample:
    audio = np.random.default_rng(number).uniform(-1, 1, 64_000).astype(np.float32)
    name = f"{family}_electronic_022-060-075"
    known = {"qualities": ("dark", "reverb"), "number": number, "instrument_number": 417}
    return NoteExample(name, audio, 60, 75, family, f"{family}_electronic_022", "electronic", **known)


def _assert_same(one: NoteExample, other: NoteExample) -> None:
    np.testing.assert_array_equal(one.audio, other.audio)
    assert {**vars(one), "audio": None} == {**vars(other), "audio": None}


def test_records_hold_the_published_features():
    features = tf.train.Example.FromString(nsynth.serialize(_example())).features.feature
    numbers = {name: list(feature.int64_list.value) for name, feature in features.items() if feature.int64_list.value}
    texts = {name: list(feature.bytes_list.value) for name, feature in features.items() if feature.bytes_list.value}
    assert numbers == {
        "note": [7],
        "instrument": [417],
        "pitch": [60],
        "velocity": [75],
        "sample_rate": [16_000],
        "qualities": [0, 1, 0, 0, 0, 0, 0, 0, 1, 0],
        "instrument_family": [3],
        "instrument_source": [1],
    }
    assert texts == {
        "note_str": [b"guitar_electronic_022-060-075"],
        "instrument_str": [b"guitar_electronic_022"],
        "qualities_str": [b"dark", b"reverb"],
        "instrument_family_str": [b"guitar"],
        "instrument_source_str": [b"electronic"],
    }
    np.testing.assert_array_equal(features["audio"].float_list.value, _example().audio)


def test_round_trip_in_python_and_in_tensorflow(tmp_path: Path):
    path = str(tmp_path / "notes.tfrecord")
    examples = [_example(family, number) for number, family in enumerate(FAMILY_NUMBERS)]
    records.write(path, examples, nsynth.serialize)
    for found, example in zip(nsynth.read([path]), examples, strict=True):
        _assert_same(found, example)
    dataset = tf.data.TFRecordDataset(path).map(nsynth.parse).batch(3, drop_remainder=True)
    assert dataset.element_spec["audio"].shape == (3, 64_000)
    (batch,) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(batch["audio"], [example.audio for example in examples])
    assert batch["family"].tolist() == list(FAMILY_NUMBERS.values())
    assert batch["pitch"].tolist() == [60] * 3 and batch["velocity"].tolist() == [75] * 3


def test_tensorflow_datasets_agrees_about_the_schema(monkeypatch: pytest.MonkeyPatch):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.datasets.nsynth import nsynth_dataset_builder as theirs

    assert tuple(theirs._INSTRUMENT_FAMILIES) == constants.FAMILIES[:-1]
    assert tuple(theirs._INSTRUMENT_SOURCES) == NOTE_SOURCES and tuple(theirs._QUALITIES) == NOTE_QUALITIES
    counter = SimpleNamespace(inc=lambda: None)
    beam = SimpleNamespace(metrics=SimpleNamespace(Metrics=SimpleNamespace(counter=lambda *names: counter)))
    monkeypatch.setattr(tfds.core, "lazy_imports", SimpleNamespace(apache_beam=beam))
    serialized = nsynth.serialize(_example())
    name, read = theirs._emit_base_example(tf.train.Example.FromString(serialized), "train")
    assert name == b"guitar_electronic_022-060-075"
    assert read["instrument"] == {"label": "guitar_electronic_022", "family": "guitar", "source": "electronic"}
    assert [quality for quality, flag in read["qualities"].items() if flag] == ["dark", "reverb"]

    labels = tfds.features.ClassLabel(names=theirs._INSTRUMENT_FAMILIES)
    encoded = read | {"instrument": {"family": labels.encode_example("guitar")}}
    ours, of_tfds = nsynth.parse(serialized), nsynth.from_tfds(encoded)
    assert ours.keys() == of_tfds.keys()
    for key, value in ours.items():
        assert value.dtype == tf.convert_to_tensor(of_tfds[key]).dtype
        np.testing.assert_array_equal(value, of_tfds[key])


def test_damaged_records_are_named_or_skipped(tmp_path: Path):
    path = str(tmp_path / "a.tfrecord")
    short = tf.train.Example.FromString(nsynth.serialize(_example()))
    del short.features.feature["audio"].float_list.value[100:]
    with tf.io.TFRecordWriter(path) as writer:
        for record in (nsynth.serialize(_example()), b"text", short.SerializeToString(), nsynth.serialize(_example())):
            writer.write(record)
    with pytest.raises(DataError, match="a.tfrecord: record 1 is not an example of NSynth"):
        list(nsynth.read([path]))
    assert len(list(nsynth.read([path], on_error="skip"))) == 2
    with pytest.raises(ValueError, match=r"\(9,\)"):
        nsynth.serialize(NoteExample("x", np.zeros(9, np.float32), 60, 75, "bass", "x", "acoustic"))


def _sound(path: Path, seconds: float = 0.01, rate: int = 16_000, silence: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.concatenate([np.zeros(round(silence * rate)), 0.5 * np.ones(round(seconds * rate))])
    soundfile.write(path, tone, rate)


def _entry(name: str, **changes: Any) -> dict[str, Any]:
    instrument, pitch, velocity = name.split("-")
    family, source, _ = instrument.rsplit("_", 2)
    said = {"instrument_str": instrument, "instrument_family_str": family, "instrument_source_str": source}
    return said | {"pitch": int(pitch), "velocity": int(velocity), "note": 289, "instrument": 9} | changes


def test_nsynth_as_distributed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for split, name in (("train", "synth_lead_synthetic_001-060-100"), ("valid", "bass_acoustic_000-031-025")):
        folder = tmp_path / f"nsynth-{split}"
        _sound(folder / "audio" / f"{name}.wav")
        absent = _entry("bass_acoustic_000-032-025")
        listing = {name: _entry(name, qualities_str=["bright"]), "bass_acoustic_000-032-025": absent}
        (folder / "examples.json").write_text(json.dumps(listing))
    with caplog.at_level("WARNING"):
        bass, lead = note_files.find("nsynth", tmp_path)
    assert "1 of 2 notes are not there" in caplog.text
    assert (bass.split, bass.family, bass.pitch, bass.velocity) == ("validation", "bass", 31, 25)
    assert (lead.split, lead.family, lead.instrument) == ("train", "synth_lead", "synth_lead_synthetic_001")
    assert (lead.number, lead.instrument_number, lead.qualities) == (289, 9, ("bright",))
    (alone,) = note_files.find("nsynth", tmp_path / "nsynth-valid")
    assert alone.split == "validation"


def test_nsynth_as_a_folder_of_files_with_its_names(tmp_path: Path):
    for name in ("vocal_acoustic_000-060-050", "vocal_acoustic_000-061-075", "reed_acoustic_011-060-127"):
        _sound(tmp_path / f"{name}.flac")
    _sound(tmp_path / "song.flac")
    found = note_files.find("nsynth", tmp_path)
    assert [(note.family, note.source, note.pitch, note.velocity) for note in found] == [
        ("reed", "acoustic", 60, 127),
        ("vocal", "acoustic", 60, 50),
        ("vocal", "acoustic", 61, 75),
    ]
    assert [note.number for note in found] == [0, 1, 2] and [note.instrument_number for note in found] == [0, 1, 1]
    assert {note.split for note in found} == {"train"}


def test_notes_of_all_splits_are_numbered_together_where_the_listings_do_not(tmp_path: Path):
    for split, instrument in (("train", "organ_synthetic_001"), ("valid", "bass_synthetic_002")):
        _sound(tmp_path / f"nsynth-{split}/audio/{instrument}-060-100.wav")
        names = {"instrument_str": instrument, "instrument_family_str": instrument.partition("_")[0]}
        entry = {"pitch": 60, "velocity": 100, "instrument_source_str": "synthetic", **names}
        listing = tmp_path / f"nsynth-{split}/examples.json"
        listing.write_text(json.dumps({f"{instrument}-060-100": entry}))
    found = note_files.find("nsynth", tmp_path)
    assert [(note.split, note.number, note.instrument_number) for note in found] == [("validation", 0, 0), ("train", 1, 1)]


MANIFEST = """file,family,instrument,pitch,source,licence,onset_s,duration_s
a.wav,bass,electric bass pick,31,freepats,CC0,0.5,1.0
b.flac,string,cello,40,philharmonia,CC0,0.01,9.0
c.wav,string,cello,41,spectmorph,CC0,0.0,9.0
"""


def _manifest(folder: Path) -> None:
    (folder / "manifest.csv").write_text(MANIFEST)
    _sound(folder / "a.wav", seconds=1.0, rate=48_000, silence=0.5)
    _sound(folder / "b.flac", seconds=9.0, silence=0.01)
    _sound(folder / "c.wav", seconds=0.1)


def test_notes_of_a_manifest_begin_with_their_attack_and_last_four_seconds(tmp_path: Path):
    _manifest(tmp_path)
    found = note_files.find("notes", tmp_path)
    bass, long, short = (note_files.load(note) for note in found)
    assert (bass.id, bass.family, bass.source, bass.instrument) == ("a", "bass", "electronic", "freepats electric bass pick")
    assert (bass.pitch, long.pitch, long.source) == (31, 40, "acoustic")
    for example in (bass, long, short):
        assert example.audio.shape == (64_000,) and example.audio.dtype == np.float32
    attack = np.flatnonzero(bass.audio > 0.25)[0] / 16_000
    assert attack == pytest.approx(0.02, abs=1e-3)
    assert np.flatnonzero(long.audio > 0.25)[[0, -1]].tolist() == [160, 63_999]
    assert np.flatnonzero(short.audio > 0.25)[[0, -1]].tolist() == [0, 1_599]


def test_a_manifest_may_name_files_elsewhere(tmp_path: Path):
    sounds, table = tmp_path / "sounds", tmp_path / "table"
    for folder in (sounds, table):
        folder.mkdir()
    _manifest(sounds)
    (table / "manifest.csv").write_text(re.sub(r"^(?=\w\.)", f"{sounds}/", MANIFEST, flags=re.MULTILINE))
    here, there = (note_files.find("notes", folder) for folder in (sounds, table))
    assert [(note.audio, note.split) for note in there] == [(note.audio, note.split) for note in here]


def test_instruments_are_held_out_as_a_whole(tmp_path: Path):
    _manifest(tmp_path)
    found = note_files.find("notes", tmp_path)
    assert [note.split for note in hold_out(found, ["spectmorph cello"])] == ["train", "train", "validation"]
    assert [note.split for note in hold_out(found, ["cello"])] == ["train", "validation", "validation"]
    with pytest.raises(DataError, match="'cell'"):
        hold_out(found, ["cell"])


def test_problems_are_one_line_errors(tmp_path: Path):
    with pytest.raises(DataError, match="no NSynth in it"):
        note_files.find("nsynth", tmp_path)
    with pytest.raises(DataError, match="manifest.csv: no table of notes"):
        note_files.find("notes", tmp_path)
    (tmp_path / "manifest.csv").write_text(MANIFEST.replace("string", "strings"))
    with pytest.raises(DataError, match="b.flac: is of family 'strings'"):
        note_files.find("notes", tmp_path)
    (tmp_path / "manifest.csv").write_text(MANIFEST.replace(",41,", ",x,"))
    with pytest.raises(DataError, match="manifest.csv: no table of notes"):
        note_files.find("notes", tmp_path)
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    with pytest.raises(AudioError, match="a.wav"):
        note_files.load(note_files.find("notes", tmp_path)[0])
    for text, message in (("{", "is no listing"), ("[]", "is no listing"), ("{}", "none of the 0 notes")):
        (tmp_path / "examples.json").write_text(text)
        with pytest.raises(DataError, match=message):
            note_files.find("nsynth", tmp_path)
    name = "bass_acoustic_000-031-025"
    _sound(tmp_path / "audio" / f"{name}.wav")
    for changes, message in (({"pitch": 128}, "pitch 128"), ({"instrument_source_str": "real"}, "'real'")):
        (tmp_path / "examples.json").write_text(json.dumps({name: _entry(name, **changes)}))
        with pytest.raises(DataError, match=message):
            note_files.find("nsynth", tmp_path)


def test_the_script_writes_notes_in_shards_with_instruments_held_out(load: Callable, tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    _manifest(source)
    folders = {"input_dir": source, "output_dir": tmp_path / "out"}
    script, _ = load("create_tfrecords", dataset="notes", **folders, num_shards=1, hold_out="spectmorph")
    assert script.main(["create_tfrecords"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "train.tfrecord-00000-of-00001",
        "validation.tfrecord-00000-of-00001",
    ]
    train = list(nsynth.read(records.expand_paths(f"{tmp_path}/out/train.tfrecord-*")))
    assert sorted(example.id for example in train) == ["a", "b"]
    (held_out,) = nsynth.read(records.expand_paths(f"{tmp_path}/out/validation.tfrecord-*"))
    _assert_same(held_out, note_files.load(note_files.find("notes", source)[2]))
