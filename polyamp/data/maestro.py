"""MAESTRO's layout, v1 to v3: a metadata file (csv or json) names the recordings and their splits.

Hawthorne et al. 2019, "Enabling factorized piano music modeling and generation with the MAESTRO dataset".
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import logging

from polyamp.data.recording import AUDIO_SUFFIXES, Recording
from polyamp.errors import DataError


def find(folder: Path) -> list[Recording]:
    """The recordings that the metadata file names and that are there.

    Raises:
        DataError: There is no such file, it cannot be read, or none of its recordings is there.
    """
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
