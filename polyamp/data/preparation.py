"""Writes a TFRecord file (shard) of a data set: the unit of work of `scripts/create_tfrecords.py` on any engine.

`write` makes one shard from its recordings alone, so that shards (`polyamp.data.sharding`) can be written in any order, by any
number of processes or machines.
"""

import contextlib
import dataclasses
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from polyamp.data import note_files, places, sharding, slakh, sources, threads
from polyamp.data.recording import NoteFile, Recording
from polyamp.errors import PolyampError

_SHUFFLED_BYTES = 64 << 20  # Of examples that are held back, so that those of one recording are not neighbours.


def write(shard: sharding.Shard, progress: Callable[[], Any] = lambda: None) -> sharding.Outcome:
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

    sharding.set_outcome(shard, None)
    with places.writing(shard.place) as path, records.writer(path) as write_record:
        for record in _shuffled(converted(), shard.fingerprint):
            write_record(record)
    counts["seconds"] = round(counts["seconds"], 3)
    outcome = sharding.Outcome(counts, tuple(failures))
    sharding.set_outcome(shard, outcome)
    return outcome


def _records_of(item: Recording | NoteFile, shard: sharding.Shard) -> "list[tuple[bytes, int, float]] | PolyampError":
    """The records of a recording or note with how many notes begin in each and its seconds; or why there are none."""
    from polyamp.data import nsynth, records

    try:
        with _local(item, shard) as here:
            if isinstance(here, NoteFile):
                return [(nsynth.serialize(note_files.load(here)), 1, 4.0)]
            examples = sources.examples(here, **dataclasses.asdict(shard.settings))
        return [(records.serialize(one), int((one.notes.onset >= 0).sum()), one.duration) for one in examples]
    except PolyampError as error:
        return error


@contextlib.contextmanager
def _local(item: Recording | NoteFile, shard: sharding.Shard) -> Iterator[Recording | NoteFile]:
    """The item with its files here."""
    if shard.source is None:
        yield item
        return
    with tempfile.TemporaryDirectory() as name:

        def fetched(path: Path) -> Path:
            here = Path(name) / path.relative_to(shard.found_in)
            places.fetch(_remote(path, shard), here)
            return here

        # That notes are missing `sources.load` says.
        if isinstance(item, NoteFile) or item.labels is None or not places.exists(_remote(item.labels, shard)):
            yield dataclasses.replace(item, audio=fetched(item.audio))
            return
        if item.labels.name == slakh.METADATA:  # And the notes beside it.
            for file in places.names(places.join(_remote(item.labels.parent, shard), "MIDI"), "*.mid"):
                fetched(item.labels.parent / "MIDI" / file)
        yield dataclasses.replace(item, audio=fetched(item.audio), labels=fetched(item.labels))


def _source_of(item: Recording | NoteFile, shard: sharding.Shard) -> str:
    """Where the item's audio comes from."""
    if shard.source is None:
        return str(item.audio)
    return _remote(item.audio, shard)


def _remote(path: Path, shard: sharding.Shard) -> str:
    """Where what a file of the shadow stands for is."""
    return places.join(str(shard.source), path.relative_to(shard.found_in).as_posix())


def _message(error: PolyampError, item: Recording | NoteFile, shard: sharding.Shard) -> str:
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
