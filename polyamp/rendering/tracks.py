"""Pieces rendered as tracks in Slakh's layout (Manilow et al. 2019): each stem with a sound of its own, and their mix.

All choices are random and repeatable: they depend on the settings, the MIDI file's name and the number of the variant.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from polyamp import atomic, constants
from polyamp.errors import PolyampError
from polyamp.rendering import effects, fluidsynth, patches, stems, synthesizer
from polyamp.rendering.soundfonts import DRUM_BANK, Sound
from polyamp.rendering.stems import Stem

_STEM_DB = -26.0  # Power of the usual stem while it sounds.
_EFFECTS_DB = -20.0  # And of what goes into effects.
_ABLE = 0.95  # Share of its notes that the preset of a stem should be able to play.


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much the tracks vary. Shares are from 0 to 1.

    Attributes:
        excerpt: Seconds of each piece, from a random place; 0: all of it.
        transpose: Semitones by which a piece is transposed at most.
        drums: Share of the tracks in which drums stay.
        substitute: Share of the stems whose program is replaced by another of its family.
        any_family: Share of the stems that get a program of any family.
        articulate: Share of the stems played short, repeated or held instead of as written.
        alter: Share of the stems whose filter, attack, release, vibrato and tuning change.
        double: Share of the stems that two presets of a family play in unison.
        synthesize: Share of the stems that a synthesizer of random settings plays.
        effects: Share of the stems with effects, and of the mixes mastered.
        room: Share of the stems with FluidSynth's reverb.
        gain_db: Difference of a stem's loudness from the usual, at most.
        seed: Of all random choices.
        timeout: Seconds after which FluidSynth counts as hung.
    """

    excerpt: float = 0.0
    transpose: int = 0
    drums: float = 0.7
    substitute: float = 0.5
    any_family: float = 0.0
    articulate: float = 0.0
    alter: float = 0.0
    double: float = 0.0
    synthesize: float = 0.0
    effects: float = 0.0
    room: float = 0.5
    gain_db: float = 8.0
    seed: int = 0
    timeout: float = 300.0


def folders(parent: Path, renderings: Sequence[tuple[Path, int]], sounds: Sequence[Sound], settings: Settings) -> list[Path]:
    """Where each MIDI file and variant goes: to its track of an earlier run, or to a new one.

    Args:
        parent: Folder of all tracks.
        renderings: MIDI files and numbers of variants.
        sounds, settings: As for `render`.

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


def render(path: Path, variant: int, folder: Path, sounds: Sequence[Sound], settings: Settings) -> None:
    """Renders a piece into a folder, which gets its name only when it is complete; nothing if it is there already.

    Another piece or variant that was rendered there with the same settings is replaced; `folders` chooses none such.

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
    fingerprint = _fingerprint(sounds, settings)
    made_from = {"source": path.name, "variant": variant, "fingerprint": fingerprint, "midi": _checksum(path)}
    found = _found(folder, fingerprint)
    if found and made_from == made_from | found:
        return
    rng = np.random.default_rng([settings.seed, zlib.crc32(path.name.encode()), variant])
    chosen = _excerpt(path, settings, rng)
    unfinished = folder.with_name(f".{folder.name}.{atomic.unique()}.tmp")
    try:
        (unfinished / "MIDI").mkdir(parents=True)
        player = _Player(path, sounds, settings, rng)
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
        mix = _sum(parts)
        if _by_chance(settings.effects, rng):
            mix = effects.on_mix(_at_level(mix, _EFFECTS_DB), rng)
        mix *= 10 ** (rng.uniform(-12.0, -0.5) / 20) / max(float(np.abs(mix).max()), 1e-6)
        soundfile.write(unfinished / "mix.flac", mix, constants.SAMPLE_RATE, subtype="PCM_16")
        (unfinished / "metadata.yaml").write_text(_metadata(made_from, described), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    except (OSError, soundfile.LibsndfileError) as error:
        raise PolyampError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error}).") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fingerprint(sounds: Sequence[Sound], settings: Settings) -> str:
    """Of all that decides what is rendered of a piece, apart from the piece."""
    chosen = {name: value for name, value in dataclasses.asdict(settings).items() if name != "timeout"}
    made_of = [chosen, sorted({sound.soundfont.name for sound in sounds})]
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
        found = {name: metadata[name] for name in ("source", "variant", "fingerprint", "midi") if name in metadata}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError):
        found = {}
    if "source" not in found:
        raise PolyampError(f"{folder}: is there already and no track that was rendered; remove it, or write elsewhere.")
    if found.get("fingerprint", fingerprint) != fingerprint:
        raise PolyampError(
            f"{folder}: was rendered with other settings or SoundFonts; write elsewhere, or remove those tracks."
        )
    return found


def _excerpt(path: Path, settings: Settings, rng: np.random.Generator) -> list[Stem]:
    """The stems of the piece that are rendered, cut and transposed."""
    everything = chosen = stems.read_stems(path)
    if rng.random() >= settings.drums:
        chosen = [stem for stem in chosen if not stem.is_drum]
        if everything and not chosen:
            raise PolyampError(f"{path}: holds nothing but drums, and --drums left them out this time.")
    chosen = stems.excerpt(chosen, settings.excerpt, rng)
    return stems.transposed(chosen, int(rng.integers(-settings.transpose, settings.transpose + 1)))


@dataclasses.dataclass(frozen=True)
class _Player:
    """Plays the stems of one piece, one after the other: their choices come from one generator.

    Attributes:
        path: The piece.
        sounds: The presets to choose from.
        settings: How much tracks vary.
        rng: Source of all that is random.
    """

    path: Path
    sounds: Sequence[Sound]
    settings: Settings
    rng: np.random.Generator

    def prepared(self, stem: Stem) -> tuple[Sound, Stem] | None:
        """A sound for the stem, and the stem as that will play it: what it cannot play must not be in the labels.

        None if it plays nothing.
        """
        sound = choose_sound(stem, self.sounds, self.settings, self.rng)
        stem = self._varied(stem)
        if sound and not stem.is_drum and _by_chance(self.settings.synthesize, self.rng):
            sound = synthesizer.sound_of(sound.program)
            stem = dataclasses.replace(stem, controls=[])  # It knows no pedal.
        playable = [note for note in stem.notes if sound and note[2] in sound.keys]
        return (sound, dataclasses.replace(stem, notes=playable)) if sound and playable else None

    def _varied(self, stem: Stem) -> Stem:
        """The stem played otherwise and sounding otherwise, as often as the settings say; drums as they are."""
        if stem.is_drum:
            return stem
        if self.rng.random() < self.settings.articulate:
            stem = stems.articulated(stem, self.rng)
        return stems.altered(stem, self.rng) if self.rng.random() < self.settings.alter else stem

    def part(self, stem: Stem, sound: Sound, midi: Path) -> np.ndarray:
        """What a stem sounds like in the mix, float32 [samples]; its notes are written to `midi`."""
        samples = self._played(stem, sound, midi)
        if not stem.is_drum and self.rng.random() < self.settings.double:
            samples = self._doubled(samples, stem, sound)
        if not stem.is_drum and _by_chance(self.settings.effects, self.rng):
            samples = effects.on_stem(_at_level(samples, _EFFECTS_DB), self.rng)
        return _at_level(samples, _STEM_DB + self.rng.uniform(-self.settings.gain_db, self.settings.gain_db))

    def _played(self, stem: Stem, sound: Sound, midi: Path) -> np.ndarray:
        stems.write_stem(stem, sound, midi)
        if synthesizer.plays(sound):
            family = constants.FAMILIES[constants.PROGRAM_FAMILY[sound.program]]
            return synthesizer.play(stem, patches.random_patch(family, self.rng), self.rng)
        room = bool(self.rng.random() < self.settings.room)
        name = f"{self.path}, stem {stem.name or midi.stem}"
        return fluidsynth.render(midi, sound.soundfont, room, name, self.settings.timeout)

    def _doubled(self, samples: np.ndarray, stem: Stem, sound: Sound) -> np.ndarray:
        """The part with another preset of the same family, equally loud, in unison."""
        family = constants.PROGRAM_FAMILY[sound.program]
        others = [
            other
            for other in self.sounds
            if other.is_melodic
            and constants.PROGRAM_FAMILY[other.program] == family
            and all(note[2] in other.keys for note in stem.notes)
        ]
        if not others:
            return samples
        with tempfile.TemporaryDirectory() as folder:
            second = self._played(stem, others[self.rng.integers(len(others))], Path(folder) / "double.mid")
        return _sum([_at_level(samples, _STEM_DB), _at_level(second, _STEM_DB)])


def choose_sound(stem: Stem, sounds: Sequence[Sound], settings: Settings, rng: np.random.Generator) -> Sound | None:
    """A preset for a stem: first a SoundFont that has a suitable one, each as likely as the other, then one of its presets.

    Suitable is one of the stem's program, or of its family if there is none or by chance; if possible one that can play nearly
    all of its notes. None if no preset is suitable.
    """
    if stem.is_drum:
        fitting = [sound for sound in sounds if sound.bank == DRUM_BANK]
    else:
        family = constants.PROGRAM_FAMILY[stem.program]
        if rng.random() < settings.any_family:
            family = int(rng.integers(constants.NUM_FAMILIES))
            substitute = True
        else:
            substitute = rng.random() < settings.substitute
        same_family = [s for s in sounds if s.is_melodic and constants.PROGRAM_FAMILY[s.program] == family]
        same_program = [sound for sound in same_family if sound.program == stem.program]
        fitting = same_program if same_program and not substitute else same_family
    able = [s for s in fitting if sum(note[2] in s.keys for note in stem.notes) >= _ABLE * len(stem.notes)]
    fitting = able or fitting
    soundfonts = sorted({sound.soundfont for sound in fitting})
    if not soundfonts:
        return None
    soundfont = soundfonts[rng.integers(len(soundfonts))]
    presets = [sound for sound in fitting if sound.soundfont == soundfont]
    return presets[rng.integers(len(presets))]


def _by_chance(share: float, rng: np.random.Generator) -> bool:
    """True that often; 0 leaves the generator alone, so that what earlier versions rendered comes out again."""
    return share > 0 and bool(rng.random() < share)


def _sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    """All parts at once, as long as the longest."""
    mix = np.zeros(max(map(len, parts)), np.float32)
    for part in parts:
        mix[: len(part)] += part
    return mix


def _at_level(samples: np.ndarray, decibels: float) -> np.ndarray:
    """The samples scaled so that their power where they sound is that much below full scale; silence stays silence."""
    blocks = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    power = np.mean(np.square(blocks), axis=1)
    sounding = power[power > 1e-4 * power.max(initial=0.0)]
    if not len(sounding):
        return samples
    return samples * np.float32(10 ** (decibels / 20) / np.sqrt(sounding.mean()))


def _metadata(made_from: dict[str, Any], described: dict[str, dict[str, Any]]) -> str:
    """Slakh's metadata.yaml, as far as it is used, and what the track was made from; JSON values are YAML values."""
    lines = [*(f"{name}: {json.dumps(value)}" for name, value in made_from.items()), "midi_dir: MIDI", "stems:"]
    for name, stem in described.items():
        lines += [f"  {name}:", f"    is_drum: {str(stem['is_drum']).lower()}"]
        lines += [f"    plugin_name: {json.dumps(stem['sound'].soundfont.name)}"]
        lines += [f"    program_num: {128 if stem['is_drum'] else stem['program']}"]
    return "\n".join(lines) + "\n"
