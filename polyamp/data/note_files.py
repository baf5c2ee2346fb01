"""Data sets of single notes: NSynth as distributed, and notes listed in a manifest; which files, and what is known of them."""

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from polyamp import constants
from polyamp.audio import reading
from polyamp.data.example import NOTE_LENGTH, NOTE_QUALITIES, NOTE_SOURCES, NoteExample
from polyamp.data.recording import AUDIO_SUFFIXES, NoteFile, audio_files, find_with, split_of_folder
from polyamp.errors import DataError

_LISTING, _MANIFEST = "examples.json", "manifest.csv"
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}  # Of folders like nsynth-valid.
_BEFORE_ATTACK = 0.02  # Seconds that stay of the silence before a note.
_VELOCITY = 100  # Where a data set does not say it.

# NSynth's names of notes: family, source, number of the instrument, pitch, velocity.
_NAME = re.compile(
    rf"(?P<instrument>(?P<family>{'|'.join(constants.FAMILIES)})_(?P<source>{'|'.join(NOTE_SOURCES)})_\d+)"
    r"-(?P<pitch>\d{1,3})-(?P<velocity>\d{1,3})"
)


def find(dataset: str, input_dir: str | Path) -> list[NoteFile]:
    """All notes of a data set.

    Args:
        dataset: One of `DATASETS`.
        input_dir: Its folder, as distributed.

    Returns:
        Notes sorted by id.

    Raises:
        DataError: The folder is missing or holds no such data set.
    """
    return find_with(DATASETS, dataset, input_dir)


def load(note: NoteFile) -> NoteExample:
    """The note in a file: from 20 ms before its attack at most, cut or filled with silence to 4 s.

    Raises:
        AudioError: The audio cannot be read.
    """
    start = max(0, round((note.attack - _BEFORE_ATTACK) * constants.SAMPLE_RATE))
    audio = reading.read(note.audio)[start : start + NOTE_LENGTH]
    known = {
        field.name: getattr(note, field.name) for field in dataclasses.fields(NoteExample) if field.name not in ("id", "audio")
    }
    return NoteExample(id=note.id, audio=np.pad(audio, (0, NOTE_LENGTH - len(audio))), **known)


def _find_nsynth(folder: Path) -> list[NoteFile]:
    """NSynth: folders with examples.json and audio/, or any folder of files with NSynth's names.

    Folders called nsynth-train, nsynth-valid or nsynth-test, or train, validation or test, say the split; "train" is the
    default.
    """
    listings = sorted(folder.rglob(_LISTING))
    if listings:
        listed = [note for listing in listings for note in _listed(listing, _split(listing, folder))]
        # The published files number notes and instruments; scripts/render_midi.py does not.
        return listed if any(note.number for note in listed) else _numbered(listed)
    notes = []
    for audio in audio_files(folder):
        if name := _NAME.fullmatch(audio.stem):
            notes.append(_note(audio, _split(audio, folder), **name.groupdict()))
    if not notes:
        raise DataError(
            f"{folder}: no NSynth in it: no {_LISTING} with audio/, and no files named like keyboard_acoustic_004-060-025.wav."
        )
    return _numbered(notes)


def _split(path: Path, folder: Path) -> str:
    """Looks at the folders between `folder` and the file, and at `folder` itself."""
    names = [folder.resolve().name, *path.relative_to(folder).parts[:-1]]
    said = [name.lower().removeprefix("nsynth-") for name in names if name.lower().startswith("nsynth-")]
    return next((_SPLITS[name] for name in said if name in _SPLITS), split_of_folder(path, folder) or "train")


def _listed(listing: Path, split: str) -> list[NoteFile]:
    """The notes of an examples.json that are there."""
    notes, missing = [], 0
    try:
        for name, entry in json.loads(listing.read_text(encoding="utf-8")).items():
            audio = _existing(listing.parent / "audio", name)
            missing += audio is None
            if audio is not None:
                notes.append(_note(audio, split, **_known(entry)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{listing}: is no listing of NSynth (pitch, velocity, instrument_str, instrument_family_str ...)."
        ) from error
    if not notes:
        raise DataError(f"{listing}: none of the {missing} notes that it lists is in {listing.parent / 'audio'}.")
    if missing:
        logging.warning("%s: %d of %d notes are not there; skipped.", listing, missing, missing + len(notes))
    return notes


def _existing(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name}{suffix}" for suffix in AUDIO_SUFFIXES)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _known(entry: dict[str, Any]) -> dict[str, Any]:
    """What examples.json says of a note, under our names."""
    return {
        "family": entry["instrument_family_str"],
        "source": entry["instrument_source_str"],
        "instrument": entry["instrument_str"],
        "pitch": entry["pitch"],
        "velocity": entry["velocity"],
        "qualities": tuple(entry.get("qualities_str", ())),
        "number": entry.get("note", 0),
        "instrument_number": entry.get("instrument", 0),
    }


def _find_manifest(folder: Path) -> list[NoteFile]:
    """A manifest.csv with file, family, instrument, source, pitch and onset_s, and perhaps velocity, beside the files it names.

    `source` is where the recordings come from; with it two recordings of the same instrument are two instruments.
    """
    manifest = folder / _MANIFEST
    notes = []
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                known: dict[str, Any] = {
                    "family": row["family"],
                    "source": _source(row["instrument"], row["family"]),
                    "instrument": f"{row['source']} {row['instrument']}",
                    "pitch": row["pitch"],
                    "velocity": row.get("velocity") or _VELOCITY,
                }
                audio = folder / row["file"]
                notes.append(_note(audio, split_of_folder(audio, folder) or "train", attack=float(row["onset_s"]), **known))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest}: no table of notes (file, family, instrument, source, pitch, onset_s).") from error
    if not notes:
        raise DataError(f"{manifest}: lists no notes.")
    return _numbered(notes)


def _source(instrument: str, family: str) -> str:
    """One of `NOTE_SOURCES`, by the instrument's name."""
    if "synth" in instrument or family == "synth_lead":
        return "synthetic"
    return "electronic" if "electric" in instrument else "acoustic"


def _note(audio: Path, split: str, family: str, source: str, instrument: str, **known: Any) -> NoteFile:
    """A note, if what is said of it can be.

    Raises:
        DataError: It cannot: family, source or a quality is unknown, or pitch or velocity are out of range.
    """
    known |= {"pitch": int(known["pitch"]), "velocity": int(known["velocity"])}
    if family not in constants.FAMILIES:
        raise DataError(f"{audio}: is of family {family!r}; known are {', '.join(constants.FAMILIES)}.")
    if source not in NOTE_SOURCES or set(known.get("qualities", ())) - set(NOTE_QUALITIES):
        raise DataError(f"{audio}: source {source!r} or one of the qualities {known.get('qualities', ())} is none of NSynth's.")
    if not (0 <= known["pitch"] <= 127 and 0 <= known["velocity"] <= 127):
        raise DataError(f"{audio}: has pitch {known['pitch']} and velocity {known['velocity']}; both must be 0 to 127.")
    return NoteFile(id=audio.stem, split=split, audio=audio, family=family, source=source, instrument=instrument, **known)


def _numbered(notes: Iterable[NoteFile]) -> list[NoteFile]:
    """The notes with numbers for themselves and their instruments, in alphabetical order."""
    notes = sorted(notes, key=lambda note: note.id)
    instruments = {name: number for number, name in enumerate(sorted({note.instrument for note in notes}))}
    return [
        dataclasses.replace(note, number=number, instrument_number=instruments[note.instrument])
        for number, note in enumerate(notes)
    ]


DATASETS: dict[str, Callable[[Path], list[NoteFile]]] = {"nsynth": _find_nsynth, "notes": _find_manifest}
