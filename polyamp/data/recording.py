"""A recording or a single note of a data set, and what finding them has in common; without TensorFlow.

`polyamp.data.sources` finds recordings with their notes, `polyamp.data.note_files` files that hold one note each.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from polyamp.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".m4a", ".opus")

FAILURES = ".failed.jsonl"  # After the name of a split, beside its TFRecords: the recordings that could not be used.

# Names of folders that say which split the recordings in them belong to.
_SPLIT_FOLDERS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test", "devtest": "test"}


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording of a data set.

    Attributes:
        id: Unique within the data set.
        split: "train", "validation" or "test".
        audio: The audio file.
        labels: The file with its notes: .tsv, .mid, .midi, .txt as in MAPS, or the metadata.yaml of a Slakh track. None where
            nobody knows them.
    """

    id: str
    split: str
    audio: Path
    labels: Path | None

    @property
    def group(self) -> str:
        """What names to hold out are searched in."""
        return self.id


@dataclasses.dataclass(frozen=True)
class NoteFile:
    """A file with one note of an instrument.

    Attributes:
        id: Unique within the data set.
        split: "train", "validation" or "test".
        audio: The audio file.
        pitch: MIDI pitch.
        velocity: MIDI velocity.
        family: One of `constants.FAMILIES`.
        instrument: Name of the instrument, unique within the data set.
        source: One of `polyamp.data.example.NOTE_SOURCES`.
        qualities: Some of `polyamp.data.example.NOTE_QUALITIES`.
        number: Unique within the data set.
        instrument_number: Unique within the data set.
        attack: Seconds of the file before the attack.
    """

    id: str
    split: str
    audio: Path
    pitch: int
    velocity: int
    family: str
    instrument: str
    source: str
    qualities: tuple[str, ...] = ()
    number: int = 0
    instrument_number: int = 0
    attack: float = 0.0

    @property
    def group(self) -> str:
        """What names to hold out are searched in."""
        return self.instrument


Found = TypeVar("Found", Recording, NoteFile)


def find_with(datasets: Mapping[str, Callable[[Path], list[Found]]], dataset: str, input_dir: str | Path) -> list[Found]:
    """What a data set has, sorted by id.

    Args:
        datasets: The functions that look into a folder, by data set.
        dataset: One of them.
        input_dir: Its folder, as distributed.

    Raises:
        DataError: The folder is missing or holds no such data set, or has two audio files of one name.
    """
    folder = Path(input_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    if dataset not in datasets:
        raise DataError(f"{dataset!r} is not a known data set; known: {', '.join(datasets)}.")
    found = sorted(datasets[dataset](folder), key=lambda one: one.id)
    for one, other in zip(found[:-1], found[1:], strict=True):
        if one.id == other.id:
            raise DataError(f"{one.audio} and {other.audio}: two audio files of one name; remove one of them.")
    return found


def hold_out(found: Iterable[Found], names: Sequence[str]) -> list[Found]:
    """Moves pieces or instruments from the train split to validation: all performances of a piece, all notes of an instrument.

    Args:
        found: Of any split.
        names: Names that occur in the ids of recordings, or in the instruments of notes, as whole words ("op1" is not in
            "op10").

    Raises:
        DataError: No training recording is of a piece, no note of an instrument.
    """
    found = list(found)
    for name in names:
        pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
        chosen = {one.id for one in found if one.split == "train" and pattern.search(one.group)}
        if not chosen:
            raise DataError(f"Nothing in the train split is called {name!r}; check the names to hold out.")
        found = [dataclasses.replace(one, split="validation") if one.id in chosen else one for one in found]
    return found


def audio_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The audio files in any depth below `folder`, in the order of their names; none that are hidden, as macOS leaves some."""
    found = (path for path in folder.rglob(pattern) if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def split_of_folder(path: Path, folder: Path) -> str | None:
    """The split that the outermost folder of a telling name between `folder` and the file says; None for a file elsewhere."""
    if not path.is_relative_to(folder):
        return None
    for part in path.relative_to(folder).parts[:-1]:
        if part.lower() in _SPLIT_FOLDERS:
            return _SPLIT_FOLDERS[part.lower()]
    return None
