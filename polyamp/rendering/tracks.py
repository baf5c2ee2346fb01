"""Pieces rendered as tracks in Slakh's layout (Manilow et al. 2019): each stem with a sound of its own, and their mix.

All choices are random and repeatable: they depend on the settings, the MIDI file's name and the number of the variant.
"""

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from polyamp import atomic, constants
from polyamp.errors import PolyampError
from polyamp.rendering import stems, track_folders
from polyamp.rendering.players import Player, Settings
from polyamp.rendering.soundfonts import Sound
from polyamp.rendering.stems import Stem


def render(path: Path, variant: int, folder: Path, sounds: Sequence[Sound], settings: Settings) -> None:
    """Renders a piece into a folder, which gets its name only when it is complete; nothing if it is there already.

    Another piece or variant that was rendered there with the same settings is replaced; `track_folders` chooses none such.

    Args:
        path: The MIDI file.
        variant: Number of the rendering, if there are several of a piece.
        folder: mix.flac, metadata.yaml and MIDI/S00.mid, S01.mid ... are written to it.
        sounds: The presets to choose from.
        settings: How much tracks vary.

    Raises:
        PolyampError: The file is no usable MIDI file, holds nothing to render, or FluidSynth failed; or the folder has
            something else than a track that was rendered with these settings and SoundFonts, or cannot be written.
    """
    made_from = track_folders.made_from(path, variant, sounds, settings)
    if track_folders.is_made(folder, made_from):
        return
    is_new = not folder.exists()
    rng = np.random.default_rng([settings.seed, zlib.crc32(path.name.encode()), variant])
    chosen = _excerpt(path, settings, rng)
    try:
        with atomic.new_folder(folder) as unfinished:
            _fill(unfinished, path, chosen, made_from, Player(path, sounds, settings, rng))
            if is_new and folder.exists():
                raise PolyampError(f"{folder}: has been rendered by another run meanwhile; run the same command again.")
            shutil.rmtree(folder, ignore_errors=True)
    except soundfile.LibsndfileError as error:
        raise PolyampError(f"{folder}: cannot be written ({error}).") from error


def _fill(unfinished: Path, path: Path, chosen: Sequence[Stem], made_from: Mapping[str, Any], player: Player) -> None:
    """Writes mix, metadata and MIDI files of the chosen stems of a piece."""
    (unfinished / "MIDI").mkdir()
    parts: list[np.ndarray] = []
    described: dict[str, dict[str, Any]] = {}
    for stem in chosen:
        prepared = player.prepared(stem)
        if not prepared:
            continue
        sound, stem = prepared
        name = f"S{len(described):02d}"
        parts.append(player.part(stem, sound, unfinished / "MIDI" / f"{name}.mid"))
        described[name] = {"program": sound.program, "is_drum": stem.is_drum, "sound": sound}
    if not parts:
        raise PolyampError(f"{path}: holds no notes that could be rendered.")
    soundfile.write(unfinished / "mix.flac", player.mixed(parts), constants.SAMPLE_RATE, subtype="PCM_16")
    (unfinished / "metadata.yaml").write_text(_metadata(made_from, described), encoding="utf-8")


def _excerpt(path: Path, settings: Settings, rng: np.random.Generator) -> list[Stem]:
    """The stems of the piece that are rendered, cut and transposed."""
    everything = chosen = stems.read_stems(path)
    if rng.random() >= settings.drums:
        chosen = [stem for stem in chosen if not stem.is_drum]
        if everything and not chosen:
            raise PolyampError(f"{path}: holds nothing but drums, and --drums left them out this time.")
    chosen = stems.excerpt(chosen, settings.excerpt, rng)
    return stems.transposed(chosen, int(rng.integers(-settings.transpose, settings.transpose + 1)))


def _metadata(made_from: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]]) -> str:
    """Slakh's metadata.yaml, as far as it is used, and what the track was made from; JSON values are YAML values."""
    lines = [*(f"{name}: {json.dumps(value)}" for name, value in made_from.items()), "midi_dir: MIDI", "stems:"]
    for name, stem in described.items():
        lines += [f"  {name}:", f"    is_drum: {str(stem['is_drum']).lower()}"]
        lines += [f"    plugin_name: {json.dumps(stem['sound'].soundfont.name)}"]
        lines += [f"    program_num: {128 if stem['is_drum'] else stem['program']}"]
    return "\n".join(lines) + "\n"
