"""How the stems of a piece are played: each with a sound of its own, varied by chance."""

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyamp import constants
from polyamp.rendering import effects, fluidsynth, patches, stems, synthesizer
from polyamp.rendering.soundfonts import DRUM_BANK, Sound
from polyamp.rendering.stems import Stem

_EFFECTS_DB = -20.0  # Power of what goes into effects.
_STEM_DB = -26.0  # And of the usual stem while it sounds.
_SHORTEST = 0.05  # Seconds that a note is at least, however short its sample.
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


@dataclasses.dataclass(frozen=True)
class Player:
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
        return _playable(stem, sound) if sound else None

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

    def mixed(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """All parts at once, float32 [samples], with a peak 0.5 to 12 dB below full scale."""
        mix = _summed(parts)
        if _by_chance(self.settings.effects, self.rng):
            mix = effects.on_mix(_at_level(mix, _EFFECTS_DB), self.rng)
        return mix * (10 ** (self.rng.uniform(-12.0, -0.5) / 20) / max(float(np.abs(mix).max()), 1e-6))

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
        return _summed([_at_level(samples, _STEM_DB), _at_level(second, _STEM_DB)])


def _playable(stem: Stem, sound: Sound) -> tuple[Sound, Stem] | None:
    """The notes that a sound has, no longer than it has them; no pedal holds what ends by itself. None if it has none."""
    rows = [
        (on, min(off, on + max(sound.lasting[pitch], _SHORTEST)), pitch, velocity)
        for on, off, pitch, velocity in stem.notes
        if pitch in sound.keys
    ]
    if any(math.isfinite(sound.lasting[pitch]) for _, _, pitch, _ in rows):
        stem = dataclasses.replace(stem, controls=[control for control in stem.controls if control[1] != stems.SUSTAIN])
    return (sound, dataclasses.replace(stem, notes=rows)) if rows else None


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


def _summed(parts: Sequence[np.ndarray]) -> np.ndarray:
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
