"""Single notes of presets, rendered in NSynth's layout (Engel et al. 2017)."""

import json
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from polyamp import atomic, constants
from polyamp.errors import PolyampError
from polyamp.rendering import fluidsynth, stems
from polyamp.rendering.soundfonts import Sound

FOLDERS = {"train": "nsynth-train", "validation": "nsynth-valid", "test": "nsynth-test"}  # Of the splits.

_EXAMPLES_FILE = "examples.json"
_NOTE_SECONDS, _HELD_SECONDS = 4.0, 3.0  # NSynth's.
_VELOCITIES = (25, 50, 75, 100, 127)  # NSynth's.
_ALL_SOUND_OFF = 120
_USUAL_RANGE = {"bass": (28, 60), "brass": (40, 85), "flute": (55, 97), "guitar": (40, 85), "reed": (38, 90)}
_OTHERS_RANGE = (36, 97)  # MIDI pitches in which a family is usually heard, the end excluded.


def instruments(families: Sequence[str], sounds: Iterable[Sound]) -> list[tuple[Sound, str]]:
    """The presets of these families, each with a name in NSynth's manner, such as "organ_synthetic_002".

    Raises:
        PolyampError: One of them is no family of NSynth, or there is no such preset.
    """
    for family in families:
        if family not in constants.FAMILIES[:-1]:
            raise PolyampError(f"--single_notes: {family!r} is none of {', '.join(constants.FAMILIES[:-1])}.")
    found: list[tuple[Sound, str]] = []
    counts = dict.fromkeys(families, 0)
    for sound in filter(lambda sound: sound.is_melodic, sounds):
        family = constants.FAMILIES[constants.PROGRAM_FAMILY[sound.program]]
        if family in counts:
            found.append((sound, f"{family}_synthetic_{counts[family]:03d}"))
            counts[family] += 1
    if not found:
        raise PolyampError("none of the SoundFonts has a preset of these families.")
    return found


def read_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """What a folder's examples.json says of each note, by instrument; nothing if there is none.

    Raises:
        PolyampError: It cannot be read.
    """
    path = folder / _EXAMPLES_FILE
    of_instruments: dict[str, dict[str, Any]] = {}
    try:
        for name, entry in json.loads(path.read_text(encoding="utf-8")).items():
            of_instruments.setdefault(entry["instrument_str"], {})[name] = entry
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise PolyampError(
            f"{path}: not NSynth's, nothing can be added to it ({error}); remove it, or write elsewhere."
        ) from error
    return of_instruments


def check_instruments(
    instruments: Iterable[tuple[Sound, str]], of_instruments: Mapping[str, dict[str, Any]], seed: int, folder: Path
) -> None:
    """Raises `PolyampError` if notes that are there have a name of these instruments and are others."""
    for sound, name in instruments:
        made_from = {entry.get("rendered_from") for entry in of_instruments.get(name, {}).values()}
        if made_from - {None, _made_from(sound, seed)}:  # Earlier versions did not note it.
            raise PolyampError(f"{folder}: holds notes of {name} of another --seed or SoundFont; write elsewhere.")


def _made_from(sound: Sound, seed: int) -> str:
    return f"{sound.soundfont.name}, bank {sound.bank}, program {sound.program}, seed {seed}"


def write_entries(folder: Path, of_instruments: dict[str, dict[str, Any]]) -> None:
    """Writes examples.json with the notes of all these instruments; `PolyampError` if that cannot be done."""
    entries = {name: entry for of_one in of_instruments.values() for name, entry in of_one.items()}
    atomic.write_text(folder / _EXAMPLES_FILE, json.dumps(dict(sorted(entries.items())), indent=1))


def render(sound: Sound, instrument: str, folder: Path, variants: int, seed: int, timeout: float) -> dict[str, Any]:
    """Renders some notes of a preset, all in one run of FluidSynth.

    Args:
        sound: The preset.
        instrument: Its name, which decides its notes together with the seed.
        folder: The notes are written to its subfolder "audio", which is there.
        variants: Eight times as many notes are rendered, less those whose pitch was drawn twice.
        seed: Of all random choices.
        timeout: Seconds after which FluidSynth counts as hung.

    Returns:
        What examples.json says of each.

    Raises:
        PolyampError: FluidSynth failed.
    """
    rng = np.random.default_rng([seed, zlib.crc32(instrument.encode())])
    family = constants.PROGRAM_FAMILY[sound.program]
    pitches = np.unique(rng.integers(*_USUAL_RANGE.get(constants.FAMILIES[family], _OTHERS_RANGE), 8 * variants))
    rows = [
        (_NOTE_SECONDS * i, _NOTE_SECONDS * i + _HELD_SECONDS, int(pitch), int(rng.choice(_VELOCITIES)))
        for i, pitch in enumerate(pitches)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        midi = Path(temporary) / "notes.mid"
        # Some presets sound on for longer than the pause between two notes.
        silence = [(on - 0.01, _ALL_SOUND_OFF, 0) for on, *_ in rows[1:]]
        stems.write_stem(stems.Stem(instrument, sound.program, False, rows, silence), sound, midi)
        samples = fluidsynth.render(midi, sound.soundfont, False, instrument, timeout)
    entries = {}
    for on, _, pitch, velocity in rows:
        start, length = round(on * constants.SAMPLE_RATE), round(_NOTE_SECONDS * constants.SAMPLE_RATE)
        note = np.pad(samples[start : start + length], (0, max(0, start + length - len(samples))))
        peak = float(np.abs(note).max())
        if peak < 1e-4:  # The preset has nothing there.
            continue
        name = f"{instrument}-{pitch:03d}-{velocity:03d}"
        path = folder / "audio" / f"{name}.flac"
        with atomic.replacing(path) as unfinished:
            soundfile.write(unfinished, note * (0.8 / peak), constants.SAMPLE_RATE, subtype="PCM_16")
        entries[name] = {
            "note_str": name,
            "instrument_str": instrument,
            "pitch": pitch,
            "velocity": velocity,
            "sample_rate": constants.SAMPLE_RATE,
            "instrument_family": family,
            "instrument_family_str": constants.FAMILIES[family],
            "instrument_source": 2,
            "instrument_source_str": "synthetic",
            "qualities_str": [],
            "rendered_from": _made_from(sound, seed),
        }
    return entries
