"""The builders for tensorflow-datasets: its own test case, and the same examples as `scripts/create_tfrecords.py` writes.

They run on small data sets made of the recording in tests/data; with POLYAMP_LAYOUTS naming a folder that holds samples of the
real data sets (maestro/, slakh/babyslakh_16k/, slakh/slakh2100_flac_redux/), on those too.
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pretty_midi
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds
import yaml
from tensorflow_datasets.core import community, utils

import polyamp.data.tfds
from polyamp import hparams
from polyamp.data import parsing, pipeline, prepared, records
from polyamp.data.example import Example
from polyamp.errors import DataError

ROOT = Path(__file__).parents[2]
RECORDING, NOTES = (ROOT / "tests" / "data" / name for name in ("handel_air.ogg", "handel_air_reference.mid"))
pytest.importorskip("dill", reason="tensorflow-datasets' test case needs it; it is in the extra `test`")
LAYOUTS = os.environ.get("POLYAMP_LAYOUTS", "")
REAL = {"maestro": "maestro", "slakh": "slakh/slakh2100_flac_redux", "babyslakh": "slakh/babyslakh_16k"}
BUILDERS = {
    "maps": polyamp.data.tfds.maps_dataset_builder.Builder,
    "maestro": polyamp.data.tfds.maestro_dataset_builder.Builder,
    "slakh": polyamp.data.tfds.slakh_dataset_builder.Builder,
}


def _piece(audio: Path, midi: Path, repeats: int) -> None:
    """The recording, 11 s, `repeats` times in a row, notes and pedal too, a semitone higher each time, and a note all along."""
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    score, written = pretty_midi.PrettyMIDI(str(NOTES)), pretty_midi.PrettyMIDI(resolution=960)
    piano = pretty_midi.Instrument(0)
    for number in range(repeats):
        start = number * len(samples) / rate
        for note in score.instruments[0].notes:
            moved = pretty_midi.Note(note.velocity, note.pitch + number, note.start + start, note.end + start)
            piano.notes.append(moved)
        for change in score.instruments[0].control_changes:
            piano.control_changes.append(pretty_midi.ControlChange(change.number, change.value, change.time + start))
    piano.notes.append(pretty_midi.Note(60, 30, 1.0, repeats * len(samples) / rate - 1.0))  # Cut wherever a segment ends.
    written.instruments.append(piano)
    for path in (audio, midi):
        path.parent.mkdir(parents=True, exist_ok=True)
    written.write(str(midi))
    soundfile.write(audio, np.concatenate([samples[::2]] * repeats), rate // 2)


def _make_maps(folder: Path) -> None:
    for repeats, name in ((3, "a_AkPnBcht"), (1, "b_SptkBGCl"), (2, "c_ENSTDkCl")):
        stem = folder / name.rsplit("_", 1)[1] / "MUS" / f"MAPS_MUS-{name}"
        _piece(stem.with_suffix(".wav"), stem.with_suffix(".mid"), repeats)


def _make_maestro(folder: Path) -> None:
    rows = []
    for repeats, split in ((3, "train"), (1, "validation"), (2, "test")):
        audio = folder / "2018" / f"MIDI-Unprocessed_{split}.wav"
        _piece(audio, audio.with_suffix(".midi"), repeats)
        rows.append({"split": split, "midi_filename": f"2018/{audio.stem}.midi", "audio_filename": f"2018/{audio.name}"})
    with open(folder / "maestro-v3.0.0.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _make_slakh(folder: Path) -> None:
    for repeats, split in ((3, "train"), (2, "test")):
        track = folder / split / f"Track0000{repeats}"
        _piece(track / "mix.flac", track / "MIDI" / "S00.mid", repeats)
        stems = {"S00": {"is_drum": False, "program_num": 4}, "S01": {"is_drum": True, "program_num": 128}}
        (track / "metadata.yaml").write_text(yaml.safe_dump({"stems": stems}))


MAKERS = {"maps": _make_maps, "maestro": _make_maestro, "slakh": _make_slakh}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each data set in its own layout."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, make in MAKERS.items():
        make(folders[name])
    return folders


class _BuilderTests(tfds.testing.DatasetBuilderTestCase):
    """What tensorflow-datasets asks of every builder."""

    __test__ = False
    NAME = ""

    @pytest.fixture(autouse=True, scope="class")
    def _examples(self, request: pytest.FixtureRequest, made: dict[str, Path]) -> None:
        request.cls.EXAMPLE_DIR = made[self.NAME]


class TestMapsSegments(_BuilderTests):
    __test__ = True
    NAME, DATASET_CLASS = "maps", BUILDERS["maps"]
    BUILDER_CONFIG_NAMES_TO_TEST = ["segments"]
    SPLITS = {"train": 3, "test": 1}  # 33 s are two segments.


class TestMaestroFull(_BuilderTests):
    __test__ = True
    NAME, DATASET_CLASS = "maestro", BUILDERS["maestro"]
    BUILDER_CONFIG_NAMES_TO_TEST = ["full"]
    SPLITS = {"train": 1, "validation": 1, "test": 1}


class TestSlakhSegments(_BuilderTests):
    __test__ = True
    NAME, DATASET_CLASS = "slakh", BUILDERS["slakh"]
    BUILDER_CONFIG_NAMES_TO_TEST = ["segments"]
    SPLITS = {"train": 2, "test": 1}


def _prepare(name: str, folder: Path, data_dir: Path, config: str = "segments") -> tfds.core.DatasetBuilder:
    builder = tfds.builder(f"{name}/{config}", data_dir=data_dir)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    return builder


def _write_tfrecords(load: Callable, folders: dict[str, Path], output: Path) -> None:
    """What `scripts/create_tfrecords.py` writes by default, to a folder for each data set."""
    for name, path in folders.items():
        script, _ = load("create_tfrecords", dataset=name, input_dir=path, output_dir=output / name)
        assert script.main(["create_tfrecords"]) == 0


@pytest.fixture(scope="module")
def tfrecords(load: Callable, made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFRecords of the data sets, a folder each."""
    output = tmp_path_factory.mktemp("tfrecords")
    _write_tfrecords(load, made, output)
    return output


def _assert_same_examples(name: str, tfrecords: Path, data_dir: Path) -> None:
    """Every feature of every example, what the input pipeline parses, and the files read as TFRecords, all bit for bit."""
    splits = sorted({path.name.split(".")[0] for path in tfrecords.glob("*.tfrecord-*")})
    assert splits == sorted(tfds.builder(name, data_dir=data_dir).info.splits)
    for split in splits:
        paths = records.expand_paths(f"{tfrecords}/{split}.tfrecord-*")
        ours = {_feature(record, "id"): record for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()}
        theirs = {example["id"].numpy(): example for example in tfds.load(name, split=split, data_dir=data_dir)}
        assert theirs.keys() == ours.keys() and len(theirs) > 0
        for key, example in theirs.items():
            assert all(example[name] == _feature(ours[key], name) for name in ("sequence", "velocity_range"))
            parsed = parsing.parse(tf.constant(ours[key]))
            assert parsed.keys() == {"audio", *example["notes"]}
            for feature, values in {"audio": example["audio"], **example["notes"]}.items():
                assert values.dtype == parsed[feature].dtype
                np.testing.assert_array_equal(values, parsed[feature], err_msg=feature)
        stored = _prepared_examples(name, split, data_dir)
        for one in records.read(paths):
            other = stored[one.id]
            assert one.notes == other.notes and one.velocity_range == other.velocity_range
            np.testing.assert_array_equal(one.audio, other.audio)


def _feature(record: bytes, name: str) -> bytes:
    return tf.train.Example.FromString(record).features.feature[name].bytes_list.value[0]


def _prepared_examples(name: str, split: str, data_dir: Path) -> dict[str, Example]:
    """What the path `tfds:name:split` stands for, by id."""
    with mock.patch.object(tfds, "builder", lambda name: BUILDERS[name](data_dir=data_dir)):
        paths = records.expand_paths(f"tfds:{name}:{split}")
    return {example.id: example for example in records.read(paths)}


@pytest.mark.parametrize("name", BUILDERS)
def test_same_examples_as_create_tfrecords(name: str, made: dict[str, Path], tfrecords: Path, tmp_path: Path):
    builder = _prepare(name, made[name], tmp_path)
    _assert_same_examples(name, tfrecords / name, tmp_path)
    segments = {example["id"].decode(): example for example in builder.as_dataset("train").as_numpy_iterator()}
    assert all(example["seconds_after"].any() for key, example in segments.items() if key.endswith("@0.000"))
    assert sum("@" in key for key in segments) == 2


@pytest.mark.skipif(not LAYOUTS, reason="POLYAMP_LAYOUTS names no folder with samples of the real data sets")
@pytest.mark.parametrize("sample", REAL)
def test_same_examples_of_the_real_data_sets(load: Callable, sample: str, tmp_path: Path):
    name, folder = sample.removeprefix("baby"), Path(LAYOUTS) / REAL[sample]
    _write_tfrecords(load, {name: folder}, tmp_path / "tfrecords")
    _prepare(name, folder, tmp_path / "tfds")
    _assert_same_examples(name, tmp_path / "tfrecords" / name, tmp_path / "tfds")


def test_full_are_whole_recordings(made: dict[str, Path], tmp_path: Path):
    builder = _prepare("maps", made["maps"], tmp_path, "full")
    whole = builder.as_dataset("train").as_numpy_iterator()
    seconds = {example["id"].decode(): len(example["audio"]) / 16_000 for example in whole}
    assert seconds == {"MAPS_MUS-a_AkPnBcht": pytest.approx(33, abs=0.01), "MAPS_MUS-b_SptkBGCl": pytest.approx(11, abs=0.01)}


def test_training_reads_what_was_prepared(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _prepare("maestro", made["maestro"], tmp_path)
    monkeypatch.setattr(tfds, "builder", lambda name: BUILDERS["maestro"](data_dir=tmp_path))
    settings = hparams.MelodicHParams(train_frames=20, batch_size=2)
    audio, labels, _ = next(iter(pipeline.training_dataset("tfds:maestro/segments", settings, 0)))
    assert audio.shape == (2, pipeline.crop_length(settings)) and labels["frame"].numpy().any()
    with pytest.raises(DataError, match="tfds:maestro:no_such_split: .*prepare it with `tfds build`"):
        prepared.files("tfds:maestro:no_such_split")


@pytest.mark.parametrize("name", BUILDERS)
def test_tfds_build_finds_the_builder_in_its_folder(name: str):
    with utils.add_sys_path(ROOT / "polyamp" / "data" / "tfds"):  # As `tfds build` in that folder does.
        builder = community.builder_cls_from_module(f"{name}.{name}_dataset_builder")
    assert builder.name == name and str(builder.VERSION) in builder.RELEASE_NOTES
    metadata = builder.get_metadata()
    assert "onset, offset, pitch" in metadata.description
    assert metadata.citation.startswith("@") and "content.subject.music" in metadata.tags


def _manager(manual_dir: Path | None, extracted: Path | None = None) -> mock.Mock:
    """A download manager with that manual directory, whose downloads unpack to `extracted`."""
    manager = mock.Mock(**{"download_and_extract.return_value": extracted})
    missing = mock.PropertyMock(side_effect=AssertionError("Manual directory does not exist.\nCreate it."))
    type(manager).manual_dir = missing if manual_dir is None else mock.PropertyMock(return_value=manual_dir)
    return manager


def test_the_manual_directory_may_hold_it_in_a_folder_and_what_it_has_not_is_downloaded(made: dict[str, Path], tmp_path: Path):
    builder = BUILDERS["maestro"](data_dir=tmp_path / "data")
    assert builder._folder(_manager(made["maestro"])) == made["maestro"]
    (tmp_path / "manual").mkdir()
    for absent in (None, tmp_path / "manual"):
        manager = _manager(absent, made["maestro"])
        assert builder._folder(manager) == made["maestro"]
        manager.download_and_extract.assert_called_once_with(builder.URL)
    for version in ("maestro-v2.0.0", "maestro-v3.0.0"):
        (tmp_path / "manual" / version).mkdir()
        (tmp_path / "manual" / version / f"{version}.csv").touch()
    assert builder._folder(_manager(tmp_path / "manual")).name == "maestro-v3.0.0"


def test_what_is_nowhere_is_a_one_line_error(tmp_path: Path):
    maps, slakh = BUILDERS["maps"](data_dir=tmp_path), BUILDERS["slakh"](data_dir=tmp_path)
    for manager in (_manager(None), _manager(tmp_path)):
        with pytest.raises(DataError, match="^[^\n]+$") as caught:
            maps._folder(manager)
    assert "MAPS_MUS-" in str(caught.value) and "on request" in str(caught.value)
    with pytest.raises(DataError, match="what https.* unpacked to has no .*metadata.yaml"):
        slakh._folder(_manager(None, tmp_path))


def test_other_formats_than_tfrecord_are_an_error(monkeypatch: pytest.MonkeyPatch):
    info = SimpleNamespace(splits={"train": SimpleNamespace(filepaths=["a"])}, file_format=tfds.core.FileFormat.ARRAY_RECORD)
    monkeypatch.setattr(tfds, "builder", lambda name: SimpleNamespace(info=info))
    with pytest.raises(DataError, match="tfds:x: is stored as array_record"):
        prepared.files("tfds:x")
