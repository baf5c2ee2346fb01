"""Shards of data sets: dealt and written the same way whatever writes them, resumed, listed where they fail, on any storage."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam.io.localfilesystem
import numpy as np
import pytest
import soundfile
from apache_beam.io.filesystem import FileMetadata

from polyamp import beam_corpus, corpus
from polyamp.audio import level
from polyamp.data import places, preparation, records, sharding
from polyamp.data.sharding import Settings, Shard
from polyamp.errors import DataError

WHOLE = Settings(max_length=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven recordings of one to seven seconds with one note each."""
    path = tmp_path_factory.mktemp("set")
    for number in range(1, 8):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, number * 16_000)
        soundfile.write(path / f"r{number}.wav", samples, 16_000)
        (path / f"r{number}.tsv").write_text(f"0.2\t0.6\t{50 + number}\t80\n")
    return path


def _plan(folder: Path | str, output: Path | str, settings: Settings = WHOLE, shards: int = 3) -> list[Shard]:
    return sharding.plan("folder", str(folder), str(output), settings, num_shards=shards)


def _contents(output: Path) -> dict[str, bytes]:
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}


def _write_all(shards: list[Shard]) -> None:
    for shard in sharding.missing(shards):
        preparation.write(shard)


def test_recordings_are_dealt_to_shards_in_an_order_of_their_own(folder: Path, tmp_path: Path):
    shards = _plan(folder, tmp_path)
    dealt = [[item.id for item in shard.items] for shard in shards]
    assert sorted(sum(dealt, [])) == [f"r{number}" for number in range(1, 8)]
    assert sorted(map(len, dealt)) == [2, 2, 3]
    assert dealt == [[item.id for item in shard.items] for shard in _plan(folder, tmp_path / "other")]
    assert any(sorted(ids) != ids or int(ids[-1][1]) - int(ids[0][1]) != len(ids) - 1 for ids in dealt)  # Not as in the folder.


def test_counts_and_contents(folder: Path, tmp_path: Path):
    shards = _plan(folder, tmp_path)
    _write_all(shards)
    found = list(records.read([shard.place for shard in shards]))
    assert sorted((one.id, one.duration, one.notes.pitch.tolist()) for one in found) == [
        (f"r{number}", number, [50 + number]) for number in range(1, 8)
    ]
    (total,) = sharding.sum_up(shards)
    assert total.counts == {"recordings": 7, "examples": 7, "notes": 7, "seconds": 28.0} and not total.failures
    for shard in shards:
        own = [one for one in found if one.id in {item.id for item in shard.items}]
        assert sharding.outcome(shard).counts["seconds"] == sum(one.duration for one in own)


def test_segments_of_one_recording_are_shuffled(folder: Path, tmp_path: Path):
    (shard,) = _plan(folder, tmp_path, Settings(0.5, 1.0), shards=1)
    preparation.write(shard)
    ids = [one.id for one in records.read([shard.place])]
    assert len(ids) >= 28 and len(set(ids)) == len(ids)
    same_as_next = np.mean([a.partition("@")[0] == b.partition("@")[0] for a, b in zip(ids[:-1], ids[1:], strict=True)])
    assert same_as_next < 0.5


def test_what_is_held_back_to_shuffle_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparation, "_SHUFFLED_BYTES", 100)
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield bytes([number] * 30)

    given = []
    for record in preparation._shuffled(source(), "seed"):
        given.append(record[0])
        assert taken - len(given) <= 4
    assert sorted(given) == list(range(50)) != given


def test_a_finished_shard_is_left_alone_and_a_missing_one_written(folder: Path, tmp_path: Path):
    shards = _plan(folder, tmp_path)
    _write_all(shards)
    undisturbed = _contents(tmp_path)
    assert sharding.missing(shards) == []

    # As if killed: one not begun, one without its note, one half written.
    Path(shards[0].place).unlink()
    Path(shards[1].noted_in).unlink()
    os.truncate(shards[1].place, 100)
    before = os.stat(shards[2].place).st_mtime_ns
    assert sharding.missing(shards) == shards[:2]
    _write_all(shards)
    assert _contents(tmp_path) == undisturbed and os.stat(shards[2].place).st_mtime_ns == before


def test_shards_whose_recordings_or_notes_have_changed_are_written_anew(folder: Path, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, source)
    output.mkdir()
    _write_all(_plan(source, output))
    (changed,) = (shard for shard in _plan(source, output) if "r5" in [item.id for item in shard.items])
    (source / "r5.tsv").write_text("0.3\t0.6\t90\t80\n")
    assert [shard.place for shard in sharding.missing(_plan(source, output))] == [changed.place]
    _write_all(_plan(source, output))
    found = {example.id: example.notes.pitch.tolist() for example in records.read([changed.place])}
    assert found["r5"] == [90] and sharding.missing(_plan(source, output)) == []
    soundfile.write(source / "r5.wav", np.zeros(3 * 16_000), 16_000)
    assert [shard.place for shard in sharding.missing(_plan(source, output))] == [changed.place]
    for shard in _plan(source, output):  # As an earlier version noted them.
        note = json.loads(Path(shard.noted_in).read_text())
        del note["contents"]
        Path(shard.noted_in).write_text(json.dumps(note))
    assert sharding.missing(_plan(source, output)) == []


def test_the_notes_of_all_stems_of_a_track_are_its_contents(tmp_path: Path):
    track = tmp_path / "in" / "Track00001"
    (track / "MIDI").mkdir(parents=True)
    soundfile.write(track / "mix.flac", np.zeros(16_000), 16_000)
    (track / "metadata.yaml").write_text("stems:\n  S00: {is_drum: false, program_num: 1}\n")
    contents = set()
    for data in (b"one", b"two"):
        (track / "MIDI" / "S00.mid").write_bytes(data)
        contents.add(sharding.plan("slakh", str(tmp_path / "in"), "out", num_shards=1)[0].contents)
    assert len(contents) == 2


def test_a_shard_interrupted_while_writing_has_no_name_yet(folder: Path, tmp_path: Path):
    (shard,) = _plan(folder, tmp_path, shards=1)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparation.write(shard, progress=interrupt)
    assert _contents(tmp_path) == {}


def test_other_settings_or_shards_are_refused(folder: Path, tmp_path: Path):
    _write_all(_plan(folder, tmp_path))
    with pytest.raises(DataError, match="was made with other settings"):
        sharding.missing(_plan(folder, tmp_path, Settings(0.5, 1.0)))
    with pytest.raises(DataError, match="another --num_shards"):
        sharding.missing(_plan(folder, tmp_path, shards=4))
    with pytest.raises(DataError, match="was made with other settings"):  # The same recordings, without notes.
        sharding.missing(sharding.plan("audio", str(folder), str(tmp_path), num_shards=len(_plan(folder, tmp_path))))


@pytest.mark.parametrize("given", [{"use_drums": True}, {"room_copies": 1}, {"level_db": -30.0}, {"balance": 0.5}])
def test_settings_for_recordings_are_not_for_single_notes(tmp_path: Path, given: dict[str, Any]):
    with pytest.raises(DataError, match=f"--{next(iter(given))} is for recordings"):
        sharding.plan("nsynth", str(tmp_path), str(tmp_path), Settings(**given))


def test_recordings_are_brought_to_a_level(folder: Path, tmp_path: Path):
    shards = _plan(folder, tmp_path, Settings(max_length=0.0, level_db=-33.0))
    _write_all(shards)
    for example in records.read([shard.place for shard in shards]):
        assert level.measure([example.audio]) == pytest.approx(-33.0, abs=0.1), example.id
    with pytest.raises(DataError, match="was made with other settings"):
        sharding.missing(_plan(folder, tmp_path))


def test_only_training_recordings_are_balanced(folder: Path, tmp_path: Path):
    for split in ("train", "validation"):
        (tmp_path / "in" / split).mkdir(parents=True)
        for suffix in (".wav", ".tsv"):
            (tmp_path / "in" / split / f"{split}{suffix}").write_bytes((folder / f"r6{suffix}").read_bytes())
    (tmp_path / "out").mkdir()
    shards = _plan(tmp_path / "in", tmp_path / "out", Settings(max_length=0.0, balance=0.5), shards=1)
    _write_all(shards)
    read = {shard.split: next(records.read([shard.place])).audio for shard in shards}
    original, _ = soundfile.read(folder / "r6.wav", dtype="float32")
    np.testing.assert_allclose(read["validation"], original, atol=1e-4)
    assert np.abs(read["train"] - original).max() > 0.1


def test_files_from_before_there_were_levels_are_known(folder: Path, tmp_path: Path):
    shard = _plan(folder, tmp_path)[0]
    settings = {"min_length": 5.0, "max_length": 20.0, "use_drums": False, "room_copies": 0}
    shard = dataclasses.replace(shard, settings=Settings())
    made_of = ["train", settings, [item.id for item in shard.items]]
    assert shard.fingerprint == hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def test_what_recordings_are_balanced_as_counts_where_they_are(folder: Path, tmp_path: Path):
    shard = _plan(folder, tmp_path)[0]
    plain, pianos, bands, as_bands = (
        dataclasses.replace(shard, settings=Settings(**given)).fingerprint
        for given in ({}, {"balance": 0.8}, {"balance": 0.8, "balance_of": "bands"}, {"balance_of": "bands"})
    )
    assert len({plain, pianos, bands}) == 3 and as_bands == plain


def test_failures_are_listed_and_tried_again(folder: Path, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    output.mkdir()
    for path in folder.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    sound = (source / "r3.wav").read_bytes()
    (source / "r3.wav").write_bytes(b"no audio")
    (source / "r5.tsv").write_text("not, a, note\n")
    shards = _plan(source, output)
    _write_all(shards)
    (total,) = sharding.sum_up(shards)
    assert total.counts["recordings"] == 5
    listed = [json.loads(line) for line in (output / "train.failed.jsonl").read_text().splitlines()]
    assert [failure["id"] for failure in listed] == ["r3", "r5"]
    assert listed[0]["path"] == str(source / "r3.wav") and "r5.tsv" in listed[1]["error"]
    assert len(list(records.read([shard.place for shard in shards]))) == 5

    (source / "r3.wav").write_bytes(sound)
    (source / "r5.tsv").write_bytes((folder / "r5.tsv").read_bytes())
    _write_all(shards)
    assert sharding.sum_up(shards)[0].counts["recordings"] == 7
    assert not (output / "train.failed.jsonl").exists()


def test_a_shard_that_was_not_written_is_an_error(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match="was not written"):
        sharding.sum_up(_plan(folder, tmp_path))


def test_only_training_recordings_have_copies_in_rooms(folder: Path, tmp_path: Path):
    for name in ("train/r1", "validation/r2", "test/r3"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".wav", ".tsv"):
            (tmp_path / "in" / (name + suffix)).write_bytes((folder / (Path(name).name + suffix)).read_bytes())
    (tmp_path / "out").mkdir()
    shards = _plan(tmp_path / "in", tmp_path / "out", Settings(max_length=0.0, room_copies=2), shards=1)
    _write_all(shards)
    counts = {shard.split: sharding.outcome(shard).counts for shard in shards}
    assert {split: (of["recordings"], of["examples"], of["notes"]) for split, of in counts.items()} == {
        "train": (1, 3, 3),
        "validation": (1, 1, 1),
        "test": (1, 1, 1),
    }


# --- Other file systems --------------------------------------------------------------------------------------------------


class Elsewhere(apache_beam.io.localfilesystem.LocalFileSystem):
    """A file system of Beam's whose names begin with elsewhere:// and whose files lie in a local folder."""

    root = ""
    PREFIX = "elsewhere://"

    @classmethod
    def scheme(cls) -> str:
        return "elsewhere"

    def _here(self, path):
        return path.replace(self.PREFIX, self.root + "/", 1)

    def _list(self, dir_or_prefix):
        for path in sorted(Path(self.root).rglob("*")):
            name = self.PREFIX + path.relative_to(self.root).as_posix()
            if path.is_file() and name.startswith(dir_or_prefix):
                yield FileMetadata(name, path.stat().st_size)

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def has_dirs(self):
        return False

    def open(self, path, *arguments, **options):
        return super().open(self._here(path), *arguments, **options)

    def create(self, path, *arguments, **options):
        Path(self._here(path)).parent.mkdir(parents=True, exist_ok=True)
        return super().create(self._here(path), *arguments, **options)

    def exists(self, path):
        return Path(self._here(path)).is_file()

    def rename(self, sources, destinations):
        for source, destination in zip(sources, destinations, strict=True):
            os.rename(self._here(source), self._here(destination))

    def delete(self, paths):
        for path in paths:
            os.unlink(self._here(path))


def test_a_corpus_on_another_file_system(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Elsewhere, "root", str(tmp_path))
    (tmp_path / "set/deep").mkdir(parents=True)
    for name, source in (("a.wav", "r1.wav"), ("deep/b.wav", "r2.wav")):
        (tmp_path / "set" / name).write_bytes((folder / source).read_bytes())
    (tmp_path / "set/bad.wav").write_bytes(b"no audio")
    jobs = corpus.plan(["elsewhere://set/**.wav"], "elsewhere://out")
    assert [job.audio for job in jobs] == [f"elsewhere://set/{name}.wav" for name in ("a", "bad", "deep/b")]
    beam_corpus.transcribe(jobs, corpus.Weights(), ["--runner=DirectRunner"])
    (failure,) = corpus.collect_failures(jobs, "elsewhere://out/failed.jsonl")
    assert failure["error"].startswith("elsewhere://set/bad.wav: ") and (tmp_path / "out/failed.jsonl").is_file()
    local = corpus.plan([f"{tmp_path}/set/a.wav"], str(tmp_path / "local"))
    beam_corpus.transcribe(local, corpus.Weights(), ["--runner=DirectRunner"])
    assert (tmp_path / "out/a.mid").read_bytes() == (tmp_path / "local/a.mid").read_bytes()
    assert json.loads((tmp_path / "out/deep/b.json").read_text())["audio"] == "elsewhere://set/deep/b.wav"


def test_from_and_to_another_file_system(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Elsewhere, "root", str(tmp_path))
    (tmp_path / "set").mkdir()
    for path in folder.iterdir():
        (tmp_path / "set" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "set" / "r2.wav").write_bytes(b"no audio")

    def run(input_dir: str, output_dir: str) -> None:
        with sharding.shadow_of(input_dir) as shadow:
            shards = sharding.plan("folder", input_dir, output_dir, WHOLE, num_shards=2, shadow=shadow)
        places.make_folder(output_dir)
        assert len(sharding.missing(shards)) == 2
        for shard in shards:
            preparation.write(shard)
        assert sharding.sum_up(shards)[0].counts["recordings"] == 6
        assert len(sharding.missing(shards)) == 1  # In which one failed.

    run("elsewhere://set", "elsewhere://out")
    run(str(tmp_path / "set"), str(tmp_path / "here"))
    remote, local = _contents(tmp_path / "out"), _contents(tmp_path / "here")
    assert remote.keys() == local.keys()
    for name in remote:
        assert name.endswith((".json", ".jsonl")) or remote[name] == local[name]
    (failure,) = [json.loads(line) for line in remote["train.failed.jsonl"].splitlines()]
    assert failure["id"] == "r2" and failure["path"] == "elsewhere://set/r2.wav" and "/tmp" not in failure["error"]


def test_slakh_tracks_are_fetched_with_the_notes_of_their_stems(
    make_track: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Elsewhere, "root", str(tmp_path))
    make_track(tmp_path / "slakh" / "train" / "Track00001")
    with sharding.shadow_of("elsewhere://slakh") as shadow:
        (shard,) = sharding.plan("slakh", "elsewhere://slakh", str(tmp_path), WHOLE, num_shards=1, shadow=shadow)
    preparation.write(shard)
    (example,) = records.read([shard.place])
    assert example.notes.program.tolist() == [1, 30, 30]


def test_a_remote_place_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Elsewhere, "root", str(tmp_path))
    with pytest.raises(DataError, match=r"elsewhere://absent/a\.wav: cannot be read"):
        places.fetch("elsewhere://absent/a.wav", tmp_path / "a.wav")
    with pytest.raises(DataError, match="nowhere://set: cannot be read"), sharding.shadow_of("nowhere://set"):
        pass
