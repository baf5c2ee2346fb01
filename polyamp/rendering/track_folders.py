"""Where rendered tracks go, and what those there were made from: a run goes on where it stopped, and replaces no others."""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from polyamp.errors import PolyampError
from polyamp.rendering.players import Settings
from polyamp.rendering.soundfonts import Sound

_NOTED = (
    "source",
    "variant",
    "fingerprint",
    "midi",
)  # In a track's metadata; "midi" is the MIDI file's checksum.


def folders(parent: Path, renderings: Sequence[tuple[Path, int]], sounds: Sequence[Sound], settings: Settings) -> list[Path]:
    """Where each MIDI file and variant goes: to its track of an earlier run, or to a new one.

    Args:
        parent: Folder of all tracks.
        renderings: MIDI files and numbers of variants.
        sounds, settings: As for `tracks.render`.

    Raises:
        PolyampError: In the folder are tracks that were not rendered, or not with these settings and SoundFonts; or one of
            another MIDI file of the same name, perhaps the same before it was changed.
    """
    fingerprint = _fingerprint(sounds, settings)
    there: dict[tuple[str, int], list[tuple[str | None, Path]]] = collections.defaultdict(list)  # With their checksums.
    counts: collections.Counter[str] = collections.Counter()
    tracks = sorted(parent.glob("Track*"))
    for track in tracks:
        found = _found(track, fingerprint)
        if found:
            source = found["source"]
            there[source, found.get("variant", counts[source])].append((found.get("midi"), track))
            counts[source] += 1
    names = {track.name for track in tracks}
    unused = (name for number in itertools.count(1) if (name := f"Track{number:05d}") not in names)
    checksums = [_checksum(path) for path, _ in renderings]
    chosen = []
    for (path, variant), checksum in zip(renderings, checksums, strict=True):
        candidates = there[path.name, variant]
        own = [one for one in candidates if one[0] == checksum] or [one for one in candidates if one[0] is None]
        others = [track for one, track in candidates if one not in checksums]
        if checksum and own:  # Earlier versions noted no checksums, nor variants.
            candidates.remove(own[0])
            chosen.append(own[0][1])
        elif checksum and others:
            raise PolyampError(f"{others[0]}: was rendered from another {path.name}; remove it, or write elsewhere.")
        else:
            chosen.append(parent / next(unused))
    return chosen


def made_from(path: Path, variant: int, sounds: Sequence[Sound], settings: Settings) -> dict[str, Any]:
    """What the metadata of a track say that it was made from; see `tracks.render`."""
    values = (path.name, variant, _fingerprint(sounds, settings), _checksum(path))
    return dict(zip(_NOTED, values, strict=True))


def is_made(folder: Path, origin: dict[str, Any]) -> bool:
    """Whether a track is there that was made from just that, as far as it says so.

    Raises:
        PolyampError: Something is there that is no track, or was made with other settings or SoundFonts.
    """
    found = _found(folder, origin["fingerprint"])
    return found is not None and origin == origin | found


def _fingerprint(sounds: Sequence[Sound], settings: Settings) -> str:
    """Of all that decides what is rendered of a piece, apart from the piece."""
    chosen = {name: value for name, value in dataclasses.asdict(settings).items() if name != "timeout"}
    soundfonts = {sound.soundfont for sound in sounds}
    made_of = [chosen, sorted((path.name, path.stat().st_size) for path in soundfonts)]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _checksum(path: Path) -> str | None:
    """Of a MIDI file; None if it cannot be read, which is said when it is rendered."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None


def _found(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """What a track was made from that is there already, as far as its version noted it; None if nothing is there.

    Raises:
        PolyampError: It is no track that was rendered here, or was made with other settings.
    """
    if not os.path.lexists(folder):
        return None
    try:
        metadata = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        found = {name: metadata[name] for name in _NOTED if name in metadata}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError):
        found = {}
    if "source" not in found:
        raise PolyampError(f"{folder}: is there already and no track that was rendered; remove it, or write elsewhere.")
    if found.get("fingerprint", fingerprint) != fingerprint:
        raise PolyampError(
            f"{folder}: was rendered with other settings or SoundFonts, or by an earlier version; write elsewhere, or remove "
            "those tracks."
        )
    return found
