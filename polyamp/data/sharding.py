"""The TFRecord files (shards) of a data set: which there are to write, which are missing, and what became of each.

The recordings of a split are dealt to its shards in an order that is random and always the same. What became of a shard is
noted in the hidden folder `.prepared` beside it, so that a run that was interrupted goes on with those that are missing.
`polyamp.data.preparation` writes one.
"""

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from polyamp.data import note_files, places, recording, slakh, sources
from polyamp.data.recording import AUDIO_SUFFIXES, NoteFile, Recording
from polyamp.errors import DataError

SPLITS = ("train", "validation", "test")
_NOTES_FOLDER = ".prepared"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How recordings become examples.

    Attributes:
        min_length, max_length: Of segments in seconds, see `polyamp.data.segments.cut_points`; a `max_length` of 0 keeps
            recordings whole. The test split is always whole.
        use_drums: Label drum notes too.
        room_copies: How often each recording of the training split follows as if recorded in a random room.
        level_db: Level that the audio of every recording is brought to, as `polyamp.audio.level.brought_to`; 0: left as it is.
        balance: By which share recordings of the training split, and each copy, are balanced, see `polyamp.audio.balance`,
        balance_of: as music of which kind.
    """

    min_length: float = 5.0
    max_length: float = 20.0
    use_drums: bool = False
    room_copies: int = 0
    level_db: float = 0.0
    balance: float = 0.0
    balance_of: str = "pianos"


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
        contents: Checksum of its recordings' notes and sizes, by which it shows that one has changed.
    """

    split: str
    place: str
    items: tuple[Recording | NoteFile, ...]
    settings: Settings
    found_in: str
    source: str | None = None
    contents: str = ""

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
        """Of all that decides what the file holds, but `contents`."""
        settings = dataclasses.asdict(self.settings)
        for name, needed in {"level_db": "level_db", "balance": "balance", "balance_of": "balance"}.items():
            if not getattr(self.settings, needed):
                del settings[name]  # Files of versions that did not know it are still what they should be.
        made_of = [self.split, settings, [item.id for item in self.items]]
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
        DataError: There is no such data set, or a split is not in it; or settings are not for single notes.
    """
    folder = shadow or Path(input_dir)
    found: Iterable[Recording | NoteFile]
    if dataset in note_files.DATASETS:
        for name in ("use_drums", "room_copies", "level_db", "balance"):
            if getattr(settings, name):
                raise DataError(f"--{name} is for recordings, and has no effect on single notes; leave it out.")
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
            chosen = dataclasses.replace(chosen, room_copies=0, balance=0.0)
        for index in range(num_shards):
            place = places.join(output_dir, f"{split}.tfrecord-{index:05d}-of-{num_shards:05d}")
            items = tuple(of_split[split][index::num_shards])
            shards.append(Shard(split, place, items, chosen, str(folder), input_dir if shadow else None, _contents(items)))
    return shards


def _contents(items: Iterable[Recording | NoteFile]) -> str:
    """Checksum of all notes, and of how long the files of audio are, which in a shadow are empty.

    Of single notes nothing, as their names say the notes. What cannot be read is found out when it is needed.
    """
    found = hashlib.sha256()
    for item in items:
        if isinstance(item, Recording):
            with contextlib.suppress(OSError):
                found.update(str(item.audio.stat().st_size).encode())
            for path in _label_files(item):
                with contextlib.suppress(OSError):
                    found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _label_files(item: Recording) -> list[Path]:
    """All files that hold notes of a recording."""
    if item.labels is None or not item.labels.is_file():
        return []
    return [item.labels, *(sorted(item.labels.parent.glob("MIDI/*.mid")) if item.labels.name == slakh.METADATA else [])]


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
    """Those that are not finished, or in which a recording failed, which may have been mended, or has been changed since.

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
    if note["contents"] not in (shard.contents, None):  # None: noted by a version that did not know them.
        logging.warning("%s: recordings or notes have changed since; written anew.", shard.place)
        return False
    return True


def _note_of(shard: Shard) -> dict[str, Any] | None:
    """What is noted of a shard; None if nothing is, or nothing that can be read."""
    content = places.read(shard.noted_in)
    try:
        note = json.loads(content) if content else None
        if note is None:
            return None
        return {name: note[name] for name in ("fingerprint", "counts", "failures")} | {"contents": note.get("contents")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def set_outcome(shard: Shard, outcome: Outcome | None) -> None:
    """Notes what became of a shard; None: nothing yet."""
    if outcome is None:
        places.remove(shard.noted_in)
        return
    places.make_folder(places.join(shard.folder, _NOTES_FOLDER))
    note: dict[str, Any] = {"fingerprint": shard.fingerprint, "contents": shard.contents}
    note |= {"counts": outcome.counts, "failures": outcome.failures}
    places.write(shard.noted_in, json.dumps(note, indent=1).encode())


def outcome(shard: Shard) -> Outcome:
    """What became of a shard; `DataError` if it has not been written."""
    note = _note_of(shard)
    if note is None:
        raise DataError(f"{shard.place}: was not written; run the same command again.")
    return Outcome(note["counts"], tuple(note["failures"]))


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
        one = sums.setdefault(shard.split, SplitSum(shard.split, places.join(shard.folder, shard.split + recording.FAILURES)))
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
