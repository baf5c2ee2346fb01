"""Data sets as they are distributed: which recordings a folder has, in which split, and where their notes are."""

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from polyamp import constants, notes
from polyamp.audio import reading
from polyamp.data import segments, slakh
from polyamp.data.example import Example
from polyamp.errors import DataError
from polyamp.notes import Notes

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".m4a", ".opus")
LABEL_SUFFIXES = (".tsv", ".mid", ".midi", ".txt")  # In this order of preference: MAPS' .txt has no velocities.

# Names of folders that say which split the recordings in them belong to.
_SPLIT_FOLDERS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test", "devtest": "test"}

# The two real pianos of MAPS are its test set ("configuration 2" of Sigtia et al. 2016).
_MAPS_TEST_PIANOS = ("ENSTDkAm", "ENSTDkCl")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording of a data set.

    Attributes:
        id: Unique within the data set.
        split: "train", "validation" or "test".
        audio: The audio file.
        labels: The file with its notes: .tsv, .mid, .midi, .txt as in MAPS, or the metadata.yaml of a Slakh track.
    """

    id: str
    split: str
    audio: Path
    labels: Path


def find(dataset: str, input_dir: str | Path) -> list[Recording]:
    """All recordings of a data set.

    Args:
        dataset: One of `DATASETS`.
        input_dir: Its folder, as distributed.

    Returns:
        Recordings sorted by id.

    Raises:
        DataError: The folder is missing or holds no such data set, or a recording has no notes.
    """
    folder = Path(input_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.")
    if dataset not in DATASETS:
        raise DataError(f"{dataset!r} is not a known data set; known: {', '.join(DATASETS)}.")
    recordings = sorted(DATASETS[dataset](folder), key=lambda recording: recording.id)
    for one, other in zip(recordings[:-1], recordings[1:], strict=True):
        if one.id == other.id:
            raise DataError(f"{one.audio} and {other.audio}: two audio files of one name; remove one of them.")
    return recordings


def hold_out(recordings: Iterable[Recording], pieces: Sequence[str]) -> list[Recording]:
    """Moves pieces from the train split to validation, all performances of a piece together.

    Args:
        recordings: Of any split.
        pieces: Names that occur in the ids of their recordings as whole words ("op1" is not in "op10").

    Raises:
        DataError: No training recording is of a piece.
    """
    recordings = list(recordings)
    for piece in pieces:
        name = re.compile(rf"(?<![A-Za-z0-9]){re.escape(piece)}(?![A-Za-z0-9])")
        chosen = {recording.id for recording in recordings if recording.split == "train" and name.search(recording.id)}
        if not chosen:
            raise DataError(f"No recording of the train split has {piece!r} in its id; check the pieces to hold out.")
        recordings = [dataclasses.replace(r, split="validation") if r.id in chosen else r for r in recordings]
    return recordings


def load(recording: Recording) -> tuple[np.ndarray, Notes]:
    """Audio, float32 [samples] at 16 kHz, and the notes that begin before its end.

    A note that goes on after the end of the audio, as in a clip from a longer recording, keeps its offset.

    Raises:
        AudioError: The audio cannot be read.
        DataError: The notes cannot be read.
    """
    audio = reading.read(recording.audio)
    return audio, notes.crop(_read_labels(recording.labels), 0.0, len(audio) / constants.SAMPLE_RATE, clip=False)


def examples(recording: Recording, min_length: float, max_length: float) -> list[Example]:
    """What TFRecords hold of a recording: see `polyamp.data.segments.examples`; `max_length` 0 keeps it whole."""
    audio, labels = load(recording)
    return segments.examples(recording.id, audio, labels, min_length, max_length)


def _read_labels(path: Path) -> Notes:
    if path.name == slakh.METADATA:
        return slakh.read_notes(path)
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return notes.read_tsv(path)
    return _read_maps_txt(path) if suffix == ".txt" else notes.read_midi(path)


def _read_maps_txt(path: Path) -> Notes:
    """Notes from the lines `OnsetTime OffsetTime MidiPitch` of MAPS, below a header; they have no velocities."""
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if number == 1 and line.startswith("OnsetTime") or not line.strip():
                continue
            onset, offset, pitch = (float(value) for value in line.split())
            rows.append((onset, max(onset, offset), pitch))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file of notes.") from error
    except ValueError as error:
        raise DataError(f"{path}, line {number}: expected onset, offset, pitch; got {line!r}.") from error
    try:
        return Notes.of(*np.array(rows, np.float64).reshape(-1, 3).T)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _audio_files(folder: Path, pattern: str = "*") -> list[Path]:
    return [path for path in folder.rglob(pattern) if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()]


def _labels_of(audio: Path, folder: Path) -> Path:
    """The file of notes beside the audio, or in the data set's folder `labels`."""
    for place in (audio.parent, folder / "labels"):
        for suffix in LABEL_SUFFIXES:
            if (place / (audio.stem + suffix)).is_file():
                return place / (audio.stem + suffix)
    raise DataError(f"{audio}: no notes with that name ({', '.join(LABEL_SUFFIXES)}) beside it or in {folder / 'labels'}.")


def _split_of_folder(audio: Path, folder: Path) -> str | None:
    """The split that the outermost folder of a telling name says."""
    for part in audio.relative_to(folder).parts[:-1]:
        if part.lower() in _SPLIT_FOLDERS:
            return _SPLIT_FOLDERS[part.lower()]
    return None


def _find_maps(folder: Path) -> list[Recording]:
    """MAPS: the pieces (MUS) of the original layout, or of one with the folders train, test (or devtest) and labels.

    Where folders do not say the split the two real pianos are "test" and the others "train", but for pieces that are also
    in the test set.
    """
    files = _audio_files(folder, "MAPS_MUS-*")
    if not files:
        raise DataError(f"{folder}: no MAPS pieces (audio files named MAPS_MUS-*) in it.")
    test_pieces = {_maps_piece(audio) for audio in files if _is_maps_test(audio, folder)}
    recordings = []
    for audio in files:
        is_test = _is_maps_test(audio, folder)
        split = _split_of_folder(audio, folder) or ("test" if is_test else "train")
        if split == "train" and _split_of_folder(audio, folder) is None and _maps_piece(audio) in test_pieces:
            continue
        recordings.append(Recording(audio.stem, split, audio, _labels_of(audio, folder)))
    return recordings


def _maps_piece(audio: Path) -> str:
    """`alb_se2` of `MAPS_MUS-alb_se2_ENSTDkCl`."""
    return audio.stem.removeprefix("MAPS_MUS-").rsplit("_", 1)[0]


def _is_maps_test(audio: Path, folder: Path) -> bool:
    said = _split_of_folder(audio, folder)
    return said == "test" if said else audio.stem.endswith(_MAPS_TEST_PIANOS)


def _find_maestro(folder: Path) -> list[Recording]:
    """MAESTRO v1 to v3: its metadata file names the recordings and their splits."""
    listed = [path for path in sorted(folder.glob("maestro*")) if path.suffix in (".csv", ".json")]
    if not listed:
        raise DataError(f"{folder}: no MAESTRO metadata (maestro-v….csv or .json) in it.")
    metadata = max(listed, key=lambda path: (path.stem, path.suffix == ".csv"))
    recordings, missing = [], 0
    for row in _read_metadata(metadata):
        audio = _existing(folder / row["audio_filename"], AUDIO_SUFFIXES)
        labels = _existing(folder / row["midi_filename"], (".midi", ".mid"))
        if audio and labels:
            recording_id = Path(row["audio_filename"]).with_suffix("").as_posix()
            recordings.append(Recording(recording_id, row["split"], audio, labels))
        missing += not (audio and labels)
    if not recordings:
        raise DataError(f"{metadata}: none of the {missing} recordings that it lists is in {folder}.")
    if missing:
        logging.warning("%s: %d of %d recordings are not there; skipped.", metadata, missing, missing + len(recordings))
    return recordings


def _read_metadata(path: Path) -> list[dict[str, Any]]:
    """Rows of the csv, of the list of objects that v1 and v2 have as json, or of the object of columns that v3 has."""
    try:
        text = path.read_text(encoding="utf-8")
        rows: Any = list(csv.DictReader(text.splitlines())) if path.suffix == ".csv" else json.loads(text)
        if isinstance(rows, dict):
            rows = [{name: column[key] for name, column in rows.items()} for key in rows["split"]]
        return [{name: str(row[name]) for name in ("split", "audio_filename", "midi_filename")} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no MAESTRO metadata (split, audio_filename, midi_filename); download it again.") from error


def _existing(path: Path, suffixes: Iterable[str]) -> Path | None:
    """The file, or the same in one of the other formats; None where there is none."""
    candidates = [path, *(path.with_suffix(suffix) for suffix in suffixes)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _find_folder(folder: Path) -> list[Recording]:
    """Any audio with notes of the same name; folders named train, validation or test say the split, "train" is the default."""
    files = _audio_files(folder)
    if not files:
        raise DataError(f"{folder}: no audio files in it.")
    return [
        Recording(
            audio.relative_to(folder).with_suffix("").as_posix(),
            _split_of_folder(audio, folder) or "train",
            audio,
            _labels_of(audio, folder),
        )
        for audio in files
    ]


def _find_slakh(folder: Path) -> list[Recording]:
    """Slakh2100, BabySlakh or what scripts/render_midi.py makes; without folders that say the split all is "train"."""
    return [
        Recording(mix.parent.relative_to(folder).as_posix(), _split_of_folder(mix, folder) or "train", mix, metadata)
        for mix, metadata in slakh.find_tracks(folder)
    ]


DATASETS: dict[str, Callable[[Path], list[Recording]]] = {
    "maps": _find_maps,
    "maestro": _find_maestro,
    "folder": _find_folder,
    "slakh": _find_slakh,
}
