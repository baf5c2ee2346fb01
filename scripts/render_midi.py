"""Renders MIDI files to audio with FluidSynth, in Slakh's layout: training data for those who have no data set.

    python scripts/render_midi.py --midi='midi/*.mid' --soundfonts=FluidR3_GM,TimGM6mb --output_dir=rendered --variants=2
    python scripts/create_tfrecords.py --dataset=slakh --input_dir=rendered --output_dir=tfrecords

Each stem of a piece gets a SoundFont, a program, a loudness and a room of its own at random, as Slakh itself was made (Manilow
et al. 2019); --articulate, --alter, --double, --synthesize and --effects make stems differ more than SoundFonts
do. The choices depend on --seed, the file's name and the number of the variant only. A finished track is not rendered again.
With --single_notes in place of --midi it renders notes of single instruments, in NSynth's layout:

    python scripts/render_midi.py --single_notes=mallet,organ --output_dir=single
    python scripts/create_tfrecords.py --dataset=nsynth --input_dir=single --output_dir=single_tfrecords
"""

import concurrent.futures
import dataclasses
import functools
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.rendering.soundfonts import Sound
    from polyamp.rendering.stems import Stem

_MIDI = flags.DEFINE_string("midi", None, "MIDI files to render: files and globs, comma-separated.")
_SINGLE_NOTES = flags.DEFINE_list("single_notes", [], "Families (such as mallet,organ) of which to render single notes.")
_SOUNDFONTS = flags.DEFINE_list(
    "soundfonts", [], "SoundFonts: files, or names of Debian's in /usr/share/sounds; default: all that are installed there."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to write to; made if it is not there.", required=True)
_SPLIT = flags.DEFINE_enum("split", "train", ["train", "validation", "test"], "Which split the tracks or notes are for.")
_VARIANTS = flags.DEFINE_integer(
    "variants", 1, "How often each piece is rendered (each preset, with --single_notes).", lower_bound=1
)
_EXCERPT = flags.DEFINE_float("excerpt", 0.0, "Seconds of each piece to render, from a random place; 0: all.", lower_bound=0.0)
_SUBSTITUTE = flags.DEFINE_float(
    "substitute", 0.5, "Share of stems whose program is replaced by another of its family.", lower_bound=0.0, upper_bound=1.0
)
_ANY_FAMILY = flags.DEFINE_float(
    "any_family", 0.0, "Share of stems that get a program of any family.", lower_bound=0.0, upper_bound=1.0
)
_TRANSPOSE = flags.DEFINE_integer(
    "transpose", 0, "Semitones by which a piece is transposed at most.", lower_bound=0, upper_bound=24
)
_GAIN_DB = flags.DEFINE_float("gain_db", 8.0, "Difference of a stem's loudness from the usual, at most.", lower_bound=0.0)
_DRUMS = flags.DEFINE_float("drums", 0.7, "Share of the tracks in which drums stay.", lower_bound=0.0, upper_bound=1.0)
_ROOM = flags.DEFINE_float("room", 0.5, "Share of the stems with FluidSynth's reverb.", lower_bound=0.0, upper_bound=1.0)
_ARTICULATE = flags.DEFINE_float(
    "articulate", 0.0, "Share of stems played short, repeated or held instead of as written.", lower_bound=0.0, upper_bound=1.0
)
_ALTER = flags.DEFINE_float(
    "alter", 0.0, "Share of stems whose filter, attack, release, vibrato and tuning change.", lower_bound=0.0, upper_bound=1.0
)
_DOUBLE = flags.DEFINE_float(
    "double", 0.0, "Share of stems that two presets of a family play in unison.", lower_bound=0.0, upper_bound=1.0
)
_SYNTHESIZE = flags.DEFINE_float(
    "synthesize", 0.0, "Share of stems that a synthesizer of random settings plays.", lower_bound=0.0, upper_bound=1.0
)
_EFFECTS = flags.DEFINE_float(
    "effects",
    0.0,
    "Share of stems with effects such as chorus and echo, and of mixes mastered.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_SEED = flags.DEFINE_integer("seed", 0, "Of all random choices.", lower_bound=0)
_JOBS = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Tracks rendered at the same time.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float("timeout", 300.0, "Seconds after which FluidSynth counts as hung.", lower_bound=1.0)

_DEBIAN = Path("/usr/share/sounds")
_RENDER_RATE = 44_100  # Hz; lower, FluidSynth would alias.
_STEM_DB = -26.0  # Power of the usual stem while it sounds.
_EFFECTS_DB = -20.0  # And of what goes into effects.
_NOTE_SECONDS, _HELD_SECONDS = 4.0, 3.0  # NSynth's.
_ABLE = 0.95  # Share of its notes that the preset of a stem should be able to play.
_DRUM_BANK = 128
_NSYNTH_FOLDERS = {"train": "nsynth-train", "validation": "nsynth-valid", "test": "nsynth-test"}
_ALL_SOUND_OFF = 120


def main(argv: Sequence[str]) -> int:
    """Renders what the flags ask for; 1 if anything failed, with one line for each failure on stderr."""
    return startup.run_script(argv, _run)


def _run() -> None:
    from polyamp.atomic import make_folder
    from polyamp.errors import PolyampError
    from polyamp.rendering import effects, soundfonts

    if bool(_MIDI.value) == bool(_SINGLE_NOTES.value):
        raise PolyampError("give --midi or --single_notes, one of them.")
    if shutil.which("fluidsynth") is None:
        raise PolyampError("the program fluidsynth is not installed; on Debian: apt-get install fluidsynth fluid-soundfont-gm.")
    if _EFFECTS.value:
        effects.load_pedalboard()  # Missing, it should be missed before anything is rendered.
    sounds = [sound for path in _soundfonts() for sound in soundfonts.read_presets(path)]
    make_folder(_OUTPUT_DIR.value, "--output_dir")
    if _MIDI.value:
        _render_pieces(_MIDI.value, sounds)
    else:
        _render_single_notes(sounds)


def _soundfonts() -> list[Path]:
    from polyamp.errors import PolyampError

    installed = sorted({path.resolve() for path in _DEBIAN.glob("sf[23]/*.sf[23]")})
    found = []
    for name in _SOUNDFONTS.value:
        matching = [Path(name)] if os.path.isfile(name) else [path for path in installed if name in (path.name, path.stem)]
        if not matching:
            known = ", ".join(path.name for path in installed) or "none"
            raise PolyampError(f"--soundfonts: no file {name!r}, and of the installed ones ({known}) none has that name.")
        found += matching
    if not (found or installed):
        raise PolyampError("no SoundFonts are installed; on Debian: apt-get install fluid-soundfont-gm timgm6mb-soundfont.")
    return found or installed


def choose_sound(stem: "Stem", sounds: "Sequence[Sound]", rng: np.random.Generator) -> "Sound | None":
    """A preset for a stem: first a SoundFont that has a suitable one, each as likely as the other, then one of its presets.

    Suitable is one of the stem's program, or of its family if there is none or by chance; if possible one that can play nearly
    all of its notes.
    """
    from polyamp import constants

    if stem.is_drum:
        fitting = [sound for sound in sounds if sound.bank == _DRUM_BANK]
    else:
        melodic = [sound for sound in sounds if sound.bank != _DRUM_BANK and sound.program < 128]
        family = constants.PROGRAM_FAMILY[stem.program]
        if rng.random() < _ANY_FAMILY.value:
            family = int(rng.integers(constants.NUM_FAMILIES))
            substitute = True
        else:
            substitute = rng.random() < _SUBSTITUTE.value
        same_family = [sound for sound in melodic if constants.PROGRAM_FAMILY[sound.program] == family]
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


def _render_pieces(patterns: str, sounds: "Sequence[Sound]") -> None:
    from polyamp.errors import PolyampError

    paths: list[Path] = []
    for part in patterns.split(","):
        matching = [Path(part)] if os.path.isfile(part) else [Path(path) for path in sorted(glob.glob(part))]
        if not matching:
            raise PolyampError(f"--midi: no file is called {part!r} or matches it.")
        paths += matching
    folder = Path(_OUTPUT_DIR.value) / _SPLIT.value
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        (path, variant, folder / f"Track{number:05d}")
        for number, (path, variant) in enumerate(((p, v) for p in paths for v in range(_VARIANTS.value)), start=1)
    ]
    _do_all(tasks, functools.partial(_render_track, sounds=sounds), "track")


def _do_all(tasks: Sequence[tuple[Any, ...]], do: Callable[..., object], unit: str) -> None:
    """Does all tasks in threads (the work is FluidSynth's); `PolyampError` at the end if some failed."""
    from tqdm import tqdm

    from polyamp.errors import PolyampError

    failures = 0
    with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
        futures = [pool.submit(do, *task) for task in tasks]
        for future in tqdm(concurrent.futures.as_completed(futures), total=len(futures), unit=unit):
            try:
                future.result()
            except PolyampError as error:
                failures += 1
                logging.error("%s", error)
    if failures:
        raise PolyampError(f"{failures} of {len(tasks)} could not be rendered; the others are in {_OUTPUT_DIR.value}.")


def _render_track(path: Path, variant: int, folder: Path, sounds: "Sequence[Sound]") -> None:
    """One track, under its name only when it is complete."""
    from polyamp import atomic
    from polyamp.errors import PolyampError
    from polyamp.rendering import effects, stems, synthesizer

    if _is_finished(folder, path):
        return
    rng = np.random.default_rng([_SEED.value, zlib.crc32(path.name.encode()), variant])
    everything = chosen = stems.read_stems(path)
    if rng.random() >= _DRUMS.value:
        chosen = [stem for stem in chosen if not stem.is_drum]
        if everything and not chosen:
            raise PolyampError(f"{path}: holds nothing but drums, and --drums left them out this time.")
    chosen = stems.excerpt(chosen, _EXCERPT.value, rng)
    chosen = stems.transposed(chosen, int(rng.integers(-_TRANSPOSE.value, _TRANSPOSE.value + 1)))
    unfinished = folder.with_name(f".{folder.name}.{atomic.unique()}.tmp")
    try:
        (unfinished / "MIDI").mkdir(parents=True)
        parts: list[np.ndarray] = []
        described: dict[str, dict[str, Any]] = {}
        for stem in chosen:
            sound = choose_sound(stem, sounds, rng)
            stem = _varied(stem, rng)
            if sound and not stem.is_drum and _by_chance(_SYNTHESIZE.value, rng):
                sound = synthesizer.sound_of(sound.program)
                stem = dataclasses.replace(stem, controls=[])  # It knows no pedal.
            name = f"S{len(described):02d}"
            # What the preset cannot play must not be in the labels.
            stem = dataclasses.replace(stem, notes=[note for note in stem.notes if sound and note[2] in sound.keys])
            if sound is None or not stem.notes:
                continue
            part = _play(stem, sound, unfinished / "MIDI" / f"{name}.mid", path, rng)
            if not stem.is_drum and rng.random() < _DOUBLE.value:
                part = _doubled(part, stem, sound, sounds, path, rng)
            if not stem.is_drum and _by_chance(_EFFECTS.value, rng):
                part = effects.on_stem(_at_level(part, _EFFECTS_DB), rng)
            parts.append(_at_level(part, _STEM_DB + rng.uniform(-_GAIN_DB.value, _GAIN_DB.value)))
            described[name] = {"program": sound.program, "is_drum": stem.is_drum, "sound": sound}
        if not parts:
            raise PolyampError(f"{path}: holds no notes that could be rendered.")
        mix = np.zeros(max(map(len, parts)), np.float32)
        for part in parts:
            mix[: len(part)] += part
        if _by_chance(_EFFECTS.value, rng):
            mix = effects.on_mix(_at_level(mix, _EFFECTS_DB), rng)
        mix *= 10 ** (rng.uniform(-12.0, -0.5) / 20) / max(float(np.abs(mix).max()), 1e-6)
        soundfile.write(unfinished / "mix.flac", mix, 16_000, subtype="PCM_16")
        (unfinished / "metadata.yaml").write_text(_metadata(path, described), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _by_chance(share: float, rng: np.random.Generator) -> bool:
    """True that often; 0 leaves the generator alone, so that what earlier versions rendered comes out again."""
    return share > 0 and bool(rng.random() < share)


def _varied(stem: "Stem", rng: np.random.Generator) -> "Stem":
    """The stem played otherwise and sounding otherwise, as often as the flags say; drums as they are."""
    from polyamp.rendering import stems

    if stem.is_drum:
        return stem
    if rng.random() < _ARTICULATE.value:
        stem = stems.articulated(stem, rng)
    return stems.altered(stem, rng) if rng.random() < _ALTER.value else stem


def _play(stem: "Stem", sound: "Sound", midi: Path, source: Path, rng: np.random.Generator) -> np.ndarray:
    """What a stem sounds like with that preset, float32 [samples]; its notes are written to `midi`."""
    from polyamp import constants
    from polyamp.rendering import patches, stems, synthesizer

    stems.write_stem(stem, sound, midi)
    if synthesizer.plays(sound):
        family = constants.FAMILIES[constants.PROGRAM_FAMILY[sound.program]]
        return synthesizer.play(stem, patches.random_patch(family, rng), rng)
    room = bool(rng.random() < _ROOM.value)
    return run_fluidsynth(midi, sound.soundfont, room, f"{source}, stem {stem.name or midi.stem}")


def _doubled(
    part: np.ndarray, stem: "Stem", sound: "Sound", sounds: "Sequence[Sound]", source: Path, rng: np.random.Generator
) -> np.ndarray:
    """The part with another preset of the same family, equally loud, in unison."""
    from polyamp import constants

    family = constants.PROGRAM_FAMILY[sound.program]
    others = [other for other in sounds if other.program < 128 and constants.PROGRAM_FAMILY[other.program] == family]
    others = [other for other in others if other.bank != _DRUM_BANK and all(note[2] in other.keys for note in stem.notes)]
    if not others:
        return part
    with tempfile.TemporaryDirectory() as folder:
        second = _play(stem, others[rng.integers(len(others))], Path(folder) / "double.mid", source, rng)
    mix = np.zeros(max(len(part), len(second)), np.float32)
    for samples in (part, second):
        mix[: len(samples)] += _at_level(samples, _STEM_DB)
    return mix


def _is_finished(folder: Path, path: Path) -> bool:
    """Whether that folder has the track of that MIDI file already, and not of another that had its number in an earlier run."""
    import yaml

    try:
        return yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))["source"] == path.name
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return False


def _metadata(path: Path, described: dict[str, dict[str, Any]]) -> str:
    """Slakh's metadata.yaml, as far as it is used; JSON strings are YAML strings."""
    lines = [f"source: {json.dumps(path.name)}", "midi_dir: MIDI", "stems:"]
    for name, stem in described.items():
        lines += [f"  {name}:", f"    is_drum: {str(stem['is_drum']).lower()}"]
        lines += [f"    plugin_name: {json.dumps(stem['sound'].soundfont.name)}"]
        lines += [f"    program_num: {128 if stem['is_drum'] else stem['program']}"]
    return "\n".join(lines) + "\n"


def run_fluidsynth(midi: Path, soundfont: Path, room: bool, name: str) -> np.ndarray:
    """What FluidSynth makes of a MIDI file: float32 [samples] at 16 kHz.

    Args:
        midi: The file.
        soundfont: What to play it with.
        room: Whether with reverb.
        name: What error messages call the file.

    Raises:
        PolyampError: It failed or did not end in time.
    """
    import soxr

    from polyamp.errors import PolyampError

    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "out.wav"
        options = ["-ni", "-q", "-R", str(int(room)), "-C", "0", "-r", str(_RENDER_RATE), "-g", "0.4"]
        options += ["-T", "wav", "-F", str(wav)]
        options += ["-o", "synth.dynamic-sample-loading=1"]  # Of a large SoundFont only what the piece needs.
        try:
            subprocess.run(
                ["fluidsynth", *options, str(soundfont), str(midi)],
                check=True,
                timeout=_TIMEOUT.value,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
        except (OSError, subprocess.SubprocessError, soundfile.LibsndfileError) as error:
            reason = f"not done after {_TIMEOUT.value:g} s" if isinstance(error, subprocess.TimeoutExpired) else error
            raise PolyampError(f"{name}: FluidSynth could not render it with {soundfont.name} ({reason}).") from error
    return soxr.resample(samples.mean(axis=1), rate, 16_000).astype(np.float32)


def _at_level(samples: np.ndarray, decibels: float) -> np.ndarray:
    """The samples scaled so that their power where they sound is that much below full scale; silence stays silence."""
    blocks = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    power = np.mean(np.square(blocks), axis=1)
    sounding = power[power > 1e-4 * power.max(initial=0.0)]
    if not len(sounding):
        return samples
    return samples * np.float32(10 ** (decibels / 20) / np.sqrt(sounding.mean()))


def _render_single_notes(sounds: "Sequence[Sound]") -> None:
    from polyamp import constants
    from polyamp.atomic import write_text
    from polyamp.errors import PolyampError

    for family in _SINGLE_NOTES.value:
        if family not in constants.FAMILIES[:-1]:
            raise PolyampError(f"--single_notes: {family!r} is none of {', '.join(constants.FAMILIES[:-1])}.")
    chosen = [
        sound
        for sound in sounds
        if sound.bank != _DRUM_BANK and constants.FAMILIES[constants.PROGRAM_FAMILY[sound.program]] in _SINGLE_NOTES.value
    ]
    if not chosen:
        raise PolyampError("none of the SoundFonts has a preset of these families.")
    folder = Path(_OUTPUT_DIR.value) / _NSYNTH_FOLDERS[_SPLIT.value]
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    counts: dict[str, int] = {}
    tasks = []
    for sound in chosen:
        family = constants.FAMILIES[constants.PROGRAM_FAMILY[sound.program]]
        number = counts[family] = counts.get(family, -1) + 1
        tasks.append((sound, f"{family}_synthetic_{number:03d}"))
    try:
        _do_all(tasks, lambda sound, name: entries.update(_render_notes_of(sound, name, folder)), "preset")
    finally:  # What could be rendered can be used.
        write_text(folder / "examples.json", json.dumps(dict(sorted(entries.items())), indent=1))


def _render_notes_of(sound: "Sound", instrument: str, folder: Path) -> dict[str, Any]:
    """Some notes of one preset, all in one run of FluidSynth; what examples.json says of them."""
    from polyamp import constants
    from polyamp.rendering import stems

    rng = np.random.default_rng([_SEED.value, zlib.crc32(instrument.encode())])
    family = constants.PROGRAM_FAMILY[sound.program]
    number = 8 * _VARIANTS.value
    pitches = np.unique(rng.integers(*_usual_range(constants.FAMILIES[family]), number))
    rows = [
        (_NOTE_SECONDS * i, _NOTE_SECONDS * i + _HELD_SECONDS, int(pitch), int(rng.choice([25, 50, 75, 100, 127])))
        for i, pitch in enumerate(pitches)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        midi = Path(temporary) / "notes.mid"
        # Some presets sound on for longer than the pause between two notes.
        silence = [(on - 0.01, _ALL_SOUND_OFF, 0) for on, *_ in rows[1:]]
        stems.write_stem(stems.Stem(instrument, sound.program, False, rows, silence), sound, midi)
        samples = run_fluidsynth(midi, sound.soundfont, room=False, name=instrument)
    entries = {}
    for on, _, pitch, velocity in rows:
        start, length = round(on * 16_000), round(_NOTE_SECONDS * 16_000)
        note = np.pad(samples[start : start + length], (0, max(0, start + length - len(samples))))
        peak = float(np.abs(note).max())
        if peak < 1e-4:  # The preset has nothing there.
            continue
        name = f"{instrument}-{pitch:03d}-{velocity:03d}"
        soundfile.write(folder / "audio" / f"{name}.flac", note * (0.8 / peak), 16_000, subtype="PCM_16")
        entries[name] = {
            "note_str": name,
            "instrument_str": instrument,
            "pitch": pitch,
            "velocity": velocity,
            "sample_rate": 16_000,
            "instrument_family": family,
            "instrument_family_str": constants.FAMILIES[family],
            "instrument_source": 2,
            "instrument_source_str": "synthetic",
            "qualities_str": [],
        }
    return entries


def _usual_range(family: str) -> tuple[int, int]:
    """MIDI pitches in which a family is usually heard, the end excluded."""
    ranges = {"bass": (28, 60), "brass": (40, 85), "flute": (55, 97), "guitar": (40, 85), "reed": (38, 90)}
    return ranges.get(family, (36, 97))


if __name__ == "__main__":
    startup.run(main)
