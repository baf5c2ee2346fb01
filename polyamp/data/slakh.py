"""Slakh's layout: folders `Track*` with a mix, a MIDI file per stem and metadata.yaml, as distributed or rendered here.

Slakh2100 (original and redux: folders train, validation, test, and omitted, which is left out) and BabySlakh (no split).
Drums stay in the mixes and are not labelled unless asked for: what they play has no pitch, and no family is theirs.
Manilow et al. 2019, "Cutting music source separation some Slakh".
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from polyamp import constants, notes
from polyamp.data.recording import Recording, split_of_folder
from polyamp.errors import DataError
from polyamp.notes import Notes

METADATA = "metadata.yaml"
_MIXES = ("mix.flac", "mix.wav", "mix.ogg", "mix.mp3")
_SKIPPED_FOLDERS = ("omitted",)  # Redux: tracks whose MIDI file is also another track's.


def find(folder: Path) -> list[Recording]:
    """Every track that has a mix and a MIDI folder, in any depth below `folder`; "train" where no folder says the split.

    Raises:
        DataError: There is none.
    """
    tracks = []
    for metadata in sorted(folder.rglob(METADATA)):
        track = metadata.parent
        parts = metadata.relative_to(folder).parts
        if any(part in _SKIPPED_FOLDERS or part.startswith(".") for part in parts):  # Hidden: unfinished, of render_midi.py.
            continue
        mix = next((track / name for name in _MIXES if (track / name).is_file()), None)
        if mix is not None and (track / "MIDI").is_dir():
            split = split_of_folder(mix, folder) or "train"
            tracks.append(Recording(track.relative_to(folder).as_posix(), split, mix, metadata))
    if not tracks:
        raise DataError(f"{folder}: no Slakh tracks (folders with {METADATA}, MIDI/ and mix.flac or mix.wav) in it.")
    return tracks


def read_notes(metadata: Path, use_drums: bool = False) -> Notes:
    """The notes of all stems of a track, each with its stem's General MIDI program.

    Args:
        metadata: The track's metadata.yaml.
        use_drums: Those of drums too, as notes of `constants.DRUM_PROGRAM`.

    Raises:
        DataError: It, or the MIDI file of a stem, cannot be read.
    """
    parts = []
    for name, stem in _stems(metadata).items():
        path = metadata.parent / "MIDI" / f"{name}.mid"
        if stem["is_drum"] and not use_drums or not path.is_file():  # Some stems of Slakh have no notes and no file.
            continue
        of_stem = notes.read_midi(path, use_drums=stem["is_drum"])
        parts.append(dataclasses.replace(of_stem, program=np.full(len(of_stem), stem["program"], np.int64)))
    return notes.concatenate(parts)


def _stems(metadata: Path) -> dict[str, dict[str, Any]]:
    """Name of each stem -> "program" and "is_drum"."""
    import yaml  # Only for this layout.

    try:
        stems = yaml.safe_load(metadata.read_text(encoding="utf-8"))["stems"]
        # Slakh counts drums as program 128.
        found = {
            str(name): {
                "is_drum": bool(stem["is_drum"]),
                "program": constants.DRUM_PROGRAM if stem["is_drum"] else int(stem["program_num"]),
            }
            for name, stem in stems.items()
            if stem.get("audio_rendered", True)  # Else nothing of it is in the mix.
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{metadata}: is no metadata of a Slakh track (stems with program_num and is_drum).") from error
    for name, stem in found.items():
        if not 0 <= stem["program"] <= 127:
            raise DataError(f"{metadata}: stem {name} has program_num {stem['program']}; it must be 0 to 127.")
    return found
