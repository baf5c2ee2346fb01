"""Turns data sets into TFRecords, one file (shard) at a time: the unit of work of `scripts/create_tfrecords.py` on any engine.

The recordings of a split are dealt to its shards in an order that is random and always the same. `write` makes one shard from
its recordings alone, so that shards can be written in any order, by any number of processes or machines, and a run that was
interrupted goes on with those that are missing. What became of a shard is noted in the hidden folder `.prepared` beside it.
"""

import contextlib
import dataclasses
import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from polyamp.data import note_files, places, recording, slakh, sources, threads
from polyamp.data.recording import AUDIO_SUFFIXES, NoteFile, Recording
from polyamp.errors import DataError, PolyampError

SPLITS = ("train", "validation", "test")
_NOTES_FOLDER = ".prepared"
_SHUFFLED_BYTES = 64 << 20  # Of examples that are held back, so that those of one recording are not neighbours.


@dataclasses.dataclass(frozen=True)
class Settings:
    """How recordings become examples.

    Attributes:
        min_length, max_length: Of segments in seconds, see `polyamp.data.segments.cut_points`; a `max_length` of 0 keeps
            recordings whole. The test split is always whole.
        use_drums: Label drum notes too.
        room_copies: How often each recording of the training split follows as if recorded in a random room.
    """

    min_length: float = 5.0
    max_length: float = 20.0
    use_drums: bool = False
    room_copies: int = 0


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to write.

    Attributes:
        split: Of its recordings.
        place: The TFRecord file, here or at a URL.
        items: What it is made of.
        settings: How.
        found_in: Local folder in which the items were found.
        source: URL of what that folder stands for, if the audio has to be fetched from there.
    """

    split: str
    place: str
    items: tuple[Recording | NoteFile, ...]
    settings: Settings
    found_in: str
    source: str | None = None

    @property
    def noted_in(self) -> str:
        """Where it is noted what became of the shard."""
        return places.join(self.folder, _NOTES_FOLDER, f"{places.name(self.place)}.json")

    @property
    def folder(self) -> str:
        """Where it is written."""
        return places.folder(self.place)

    @property
    def fingerprint(self) -> str:
        """Of all that decides what the file holds, but the contents of the recordings."""
        made_of = [self.split, dataclasses.asdict(self.settings), [item.id for item in self.items]]
        if any(isinstance(item, Recording) and item.labels is None for item in self.items):
            made_of.append("without notes")
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Attributes:
        counts: "recordings" (or "notes"), "examples", "notes" and "seconds" that are in the file.
        failures: Of the recordings that are not: "id", "path" and "error" of each.
    """

    counts: dict[str, float]
    failures: tuple[dict[str, str], ...] = ()


# --- What there is to do -------------------------------------------------------------------------------------------------


def plan(
    dataset: str,
    input_dir: str,
    output_dir: str,
    settings: Settings = Settings(),
    splits: Sequence[str] = (),
    hold_out: Sequence[str] = (),
    num_shards: int = 8,
    shadow: Path | None = None,
) -> list[Shard]:
    """The shards of a data set, those of one split after the other.

    Args:
        dataset: One of `sources.DATASETS` or `note_files.DATASETS`.
        input_dir: Its folder, as distributed; a URL only together with `shadow`.
        output_dir: Where the files go, a folder or a URL.
        settings: How recordings become examples.
        splits: Those wanted; none: all there are.
        hold_out: Pieces or instruments that go from train to validation; see `recording.hold_out`.
        num_shards: Of each split.
        shadow: Local folder that stands for a remote `input_dir`; see `shadow_of`.

    Raises:
        DataError: There is no such data set, or a split is not in it.
    """
    folder = shadow or Path(input_dir)
    found: Iterable[Recording | NoteFile]
    if dataset in note_files.DATASETS:
        found = recording.hold_out(note_files.find(dataset, folder), hold_out)
    else:
        found = recording.hold_out(sources.find(dataset, folder), hold_out)
    of_split: dict[str, list[Recording | NoteFile]] = {}
    for item in sorted(found, key=_random_number):
        of_split.setdefault(item.split, []).append(item)
    for split in splits:
        if split not in of_split:
            raise DataError(f"--split: {input_dir} has nothing in {split!r}; it has {', '.join(sorted(of_split))}.")
    shards = []
    for split in dict.fromkeys(splits or sorted(of_split)):
        chosen = dataclasses.replace(settings, min_length=0.0, max_length=0.0) if split == "test" else settings
        if split != "train":
            chosen = dataclasses.replace(chosen, room_copies=0)
        for index in range(num_shards):
            place = places.join(output_dir, f"{split}.tfrecord-{index:05d}-of-{num_shards:05d}")
            items = tuple(of_split[split][index::num_shards])
            shards.append(Shard(split, place, items, chosen, str(folder), input_dir if shadow else None))
    return shards


def _random_number(item: Recording | NoteFile) -> bytes:
    """Always the same for an item."""
    return hashlib.sha256(item.id.encode()).digest()


@contextlib.contextmanager
def shadow_of(folder: str) -> Iterator[Path | None]:
    """A local folder that stands for a remote one while its recordings are looked for; None for a local one.

    It has the same names: labels and lists as they are, and empty files in place of audio.
    """
    if not places.is_remote(folder):
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        shadow = Path(name)
        for file in places.tree(folder):
            if Path(file).suffix.lower() in AUDIO_SUFFIXES:
                (shadow / file).parent.mkdir(parents=True, exist_ok=True)
                (shadow / file).touch()
            else:
                places.fetch(places.join(folder, file), shadow / file)
        yield shadow


def missing(shards: Sequence[Shard]) -> list[Shard]:
    """Those that are not finished, or in which a recording failed, which may have been mended.

    Raises:
        DataError: A finished file was made with other settings, or of other recordings, or a split has another number of files.
    """
    for split in dict.fromkeys(shard.split for shard in shards):
        expected = {places.name(shard.place) for shard in shards if shard.split == split}
        folder = shards[0].folder
        others = sorted(set(places.names(folder, f"{split}.tfrecord-*-of-*")) - expected)
        if others:
            other = places.join(folder, others[0])
            raise DataError(f"{other}: from a run with another --num_shards, and would be mixed with this one; remove it.")
    return [shard for shard in shards if not _is_finished(shard)]


def _is_finished(shard: Shard) -> bool:
    note = _note_of(shard)
    if note is None or note["failures"] or not places.exists(shard.place):
        return False
    if note["fingerprint"] != shard.fingerprint:
        raise DataError(f"{shard.place}: was made with other settings or of other recordings; remove it, or write elsewhere.")
    return True


def _note_of(shard: Shard) -> dict[str, Any] | None:
    """What is noted of a shard; None if nothing is, or nothing that can be read."""
    content = places.read(shard.noted_in)
    try:
        note = json.loads(content) if content else None
        return {"fingerprint": note["fingerprint"], "counts": note["counts"], "failures": note["failures"]} if note else None
    except (ValueError, KeyError, TypeError):
        return None


def outcome(shard: Shard) -> Outcome:
    """What became of a shard that `write` has made; `DataError` if it has not been made."""
    note = _note_of(shard)
    if note is None:
        raise DataError(f"{shard.place}: was not written; run the same command again.")
    return Outcome(note["counts"], tuple(note["failures"]))


# --- Doing it ------------------------------------------------------------------------------------------------------------


def write(shard: Shard, progress: Callable[[], Any] = lambda: None) -> Outcome:
    """Writes a shard, without the recordings that cannot be read, and notes what became of it.

    Args:
        shard: What to write.
        progress: Called after every recording.

    Raises:
        PolyampError: The file cannot be written.
    """
    from polyamp.data import records  # Takes seconds to import.

    counts: dict[str, float] = dict.fromkeys(("recordings", "examples", "notes", "seconds"), 0)
    failures: list[dict[str, str]] = []

    def converted() -> Iterator[bytes]:
        for item, result in zip(shard.items, threads.ahead(lambda item: _records_of(item, shard), shard.items), strict=True):
            progress()
            if isinstance(result, PolyampError):
                failures.append({"id": item.id, "path": _source_of(item, shard), "error": _message(result, item, shard)})
                continue
            counts["recordings"] += 1
            for record, num_notes, seconds in result:
                counts["examples"] += 1
                counts["notes"] += num_notes
                counts["seconds"] += seconds
                yield record

    places.remove(shard.noted_in)
    with places.writing(shard.place) as path, records.writer(path) as write_record:
        for record in _shuffled(converted(), shard.fingerprint):
            write_record(record)
    counts["seconds"] = round(counts["seconds"], 3)
    places.make_folder(places.join(shard.folder, _NOTES_FOLDER))
    note = {"fingerprint": shard.fingerprint, "counts": counts, "failures": failures}
    places.write(shard.noted_in, json.dumps(note, indent=1).encode())
    return Outcome(counts, tuple(failures))


def _records_of(item: Recording | NoteFile, shard: Shard) -> "list[tuple[bytes, int, float]] | PolyampError":
    """The records of a recording or note with how many notes begin in each and its seconds; or why there are none."""
    from polyamp.data import nsynth, records

    try:
        with _local(item, shard) as here:
            if isinstance(here, NoteFile):
                return [(nsynth.serialize(note_files.load(here)), 1, 4.0)]
            settings = shard.settings
            lengths = settings.min_length, settings.max_length
            examples = sources.examples(here, *lengths, settings.use_drums, settings.room_copies)
        return [(records.serialize(one), int((one.notes.onset >= 0).sum()), one.duration) for one in examples]
    except PolyampError as error:
        return error


@contextlib.contextmanager
def _local(item: Recording | NoteFile, shard: Shard) -> Iterator[Recording | NoteFile]:
    """The item with its files here."""
    if shard.source is None:
        yield item
        return
    with tempfile.TemporaryDirectory() as name:

        def fetched(path: Path) -> Path:
            relative = path.relative_to(shard.found_in).as_posix()
            places.fetch(places.join(str(shard.source), relative), Path(name) / relative)
            return Path(name) / relative

        if isinstance(item, NoteFile) or item.labels is None:
            yield dataclasses.replace(item, audio=fetched(item.audio))
            return
        if item.labels.name == slakh.METADATA:  # And the notes beside it.
            folder = item.labels.parent.relative_to(shard.found_in).as_posix()
            for file in places.names(places.join(str(shard.source), folder, "MIDI"), "*.mid"):
                fetched(item.labels.parent / "MIDI" / file)
        yield dataclasses.replace(item, audio=fetched(item.audio), labels=fetched(item.labels))


def _source_of(item: Recording | NoteFile, shard: Shard) -> str:
    """Where the item's audio comes from."""
    if shard.source is None:
        return str(item.audio)
    return places.join(shard.source, item.audio.relative_to(shard.found_in).as_posix())


def _message(error: PolyampError, item: Recording | NoteFile, shard: Shard) -> str:
    """An error's message, without the name of a temporary folder."""
    return str(error) if shard.source is None else str(error).rpartition(f"/{item.audio.name}")[2].lstrip(": ") or str(error)


def _shuffled(records: Iterable[bytes], seed: str) -> Iterator[bytes]:
    """The records in an order that is random within what is held back of them, and always the same."""
    rng = random.Random(seed)
    held: list[bytes] = []
    size = 0
    for record in records:
        held.append(record)
        size += len(record)
        while size > _SHUFFLED_BYTES:
            chosen = rng.randrange(len(held))
            held[chosen], held[-1] = held[-1], held[chosen]
            size -= len(held[-1])
            yield held.pop()
    rng.shuffle(held)
    yield from held


# --- What became of all --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class SplitSum:
    """What became of all shards of a split.

    Attributes:
        split: Which.
        failures_place: The list of failures, one JSON object a line; there only if there are any.
        counts: The sums of those of the shards.
        failures: All of them, sorted by id.
    """

    split: str
    failures_place: str
    counts: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: list[dict[str, str]] = dataclasses.field(default_factory=list)


def sum_up(shards: Sequence[Shard]) -> list[SplitSum]:
    """Sums up the outcomes of shards by split, and writes the list of failures of each split, or removes an old one.

    Raises:
        DataError: A shard has not been written.
    """
    sums: dict[str, SplitSum] = {}
    for shard in shards:
        one = sums.setdefault(shard.split, SplitSum(shard.split, places.join(shard.folder, f"{shard.split}.failed.jsonl")))
        of_shard = outcome(shard)
        for name, value in of_shard.counts.items():
            one.counts[name] = one.counts.get(name, 0) + value
        one.failures += of_shard.failures
    for one in sums.values():
        one.failures.sort(key=lambda failure: failure["id"])
        if one.failures:
            places.write(one.failures_place, "".join(json.dumps(failure) + "\n" for failure in one.failures).encode())
        else:
            places.remove(one.failures_place)
    return list(sums.values())
