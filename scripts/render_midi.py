"""Renders MIDI files to audio with FluidSynth, in Slakh's layout: training data for those who have no data set.

    python scripts/render_midi.py --midi='midi/*.mid' --soundfonts=FluidR3_GM,TimGM6mb --output_dir=rendered --variants=2
    python scripts/create_tfrecords.py --dataset=slakh --input_dir=rendered --output_dir=tfrecords

Each stem of a piece gets a SoundFont, a program, a loudness and a room of its own at random, as Slakh itself was made (Manilow
et al. 2019); the choices depend on --seed, the file's name and the number of the variant only. A finished track is not rendered
again. With --single_notes in place of --midi it renders notes of single instruments, in NSynth's layout:

    python scripts/render_midi.py --single_notes=mallet,organ --output_dir=single
    python scripts/create_tfrecords.py --dataset=nsynth --input_dir=single --output_dir=single_tfrecords
"""

import concurrent.futures
import dataclasses
import functools
import glob
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile
from absl import app, flags, logging

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
_SEED = flags.DEFINE_integer("seed", 0, "Of all random choices.", lower_bound=0)
_JOBS = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Tracks rendered at the same time.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float("timeout", 300.0, "Seconds after which FluidSynth counts as hung.", lower_bound=1.0)

_DEBIAN = Path("/usr/share/sounds")
_RENDER_RATE = 44_100  # Hz; lower, FluidSynth would alias.
_STEM_DB = -26.0  # Power of the usual stem while it sounds.
_NOTE_SECONDS, _HELD_SECONDS = 4.0, 3.0  # NSynth's.
_ABLE = 0.95  # Share of its notes that the preset of a stem should be able to play.
_SHORTEST = 0.05  # Seconds; notes that would be shorter at the end of an excerpt are left out.
_DRUM_BANK = 128
_KEY_RANGE = 43  # The generator of SoundFonts that says at which keys a zone plays.
_NSYNTH_FOLDERS = {"train": "nsynth-train", "validation": "nsynth-valid", "test": "nsynth-test"}
_ALL_SOUND_OFF = 120
_KEPT_CONTROLLERS = (7, 11, 64)  # Volume, expression, sustain pedal.


@dataclasses.dataclass(frozen=True)
class Sound:
    """One preset of a SoundFont, and the MIDI pitches at which it sounds."""

    soundfont: Path
    bank: int
    program: int
    keys: frozenset[int] = frozenset(range(128))


@dataclasses.dataclass(frozen=True)
class Stem:
    """One instrument of a piece: rows of (onset, offset, pitch, velocity) and of (time, controller, value), in seconds."""

    name: str
    program: int
    is_drum: bool
    notes: list[tuple[float, float, int, int]]
    controls: list[tuple[float, int, int]]


def main(argv: Sequence[str]) -> int:
    """Renders what the flags ask for; 1 if anything failed, with one line for each failure on stderr."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
    from polyamp import startup

    return startup.run_script(argv, _run)


def _run() -> None:
    from polyamp.errors import PolyampError

    if bool(_MIDI.value) == bool(_SINGLE_NOTES.value):
        raise PolyampError("give --midi or --single_notes, one of them.")
    if shutil.which("fluidsynth") is None:
        raise PolyampError("the program fluidsynth is not installed; on Debian: apt-get install fluidsynth fluid-soundfont-gm.")
    sounds = [sound for path in _soundfonts() for sound in read_presets(path)]
    try:
        Path(_OUTPUT_DIR.value).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolyampError(f"{_OUTPUT_DIR.value}: cannot be made ({error.strerror}).") from error
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


def read_presets(path: Path) -> list[Sound]:
    """The presets of a SoundFont (2 or 3), in the order of bank and program.

    Raises:
        PolyampError: The file is no SoundFont.
    """
    from polyamp.errors import PolyampError

    try:
        data = path.read_bytes()
        at = data.rindex(b"phdr")  # After all samples; the other tables follow.
        tables: dict[str, bytes] = {}
        while len(tables) < 9:
            name, size = struct.unpack_from("<4sI", data, at)
            tables[name.decode("ascii")] = data[at + 8 : at + 8 + size]
            at += 8 + size + size % 2
        headers = list(struct.iter_unpack("<20sHHHIII", tables["phdr"]))
        instruments = _zones(
            [bag for _, bag in struct.iter_unpack("<20sH", tables["inst"])], tables["ibag"], tables["igen"], 53
        )
        presets = _zones([header[3] for header in headers], tables["pbag"], tables["pgen"], 41)
        found = []
        for (_, program, bank, *_), zones in zip(headers[:-1], presets, strict=True):
            keys = frozenset(k for index, outer in zones for _, inner in instruments[index] for k in outer if k in inner)
            found.append(Sound(path, bank, program, keys))
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise PolyampError(f"{path}: is no SoundFont that can be read.") from error
    return sorted((sound for sound in found if sound.keys), key=lambda sound: (sound.bank, sound.program))


def _zones(first: Sequence[int], bags: bytes, generators: bytes, link: int) -> list[list[tuple[int, range]]]:
    """The zones of each preset or instrument: what they play, and at which keys.

    Args:
        first: Number of the first zone of each, and of the one after the last.
        bags: For each zone where its generators begin.
        generators: All of them.
        link: The generator that says which instrument (41) or sample (53) a zone plays; without it, a first zone gives
            defaults to the others.
    """
    all_generators = list(struct.iter_unpack("<HBB", generators))
    begins = [begin for begin, _ in struct.iter_unpack("<HH", bags)]
    owners = []
    for start, end in itertools.pairwise(first):
        zones, default = [], (0, 127)
        for zone in range(start, end):
            held = {number: (low, high) for number, low, high in all_generators[begins[zone] : begins[zone + 1]]}
            low, high = held.get(_KEY_RANGE, default)
            if link in held:
                zones.append((held[link][0] + 256 * held[link][1], range(low, high + 1)))
            elif zone == start:
                default = (low, high)
        owners.append(zones)
    return owners


def choose_sound(stem: Stem, sounds: Sequence[Sound], rng: np.random.Generator) -> Sound | None:
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


def _render_pieces(patterns: str, sounds: Sequence[Sound]) -> None:
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


def _render_track(path: Path, variant: int, folder: Path, sounds: Sequence[Sound]) -> None:
    """One track, under its name only when it is complete."""
    from polyamp.errors import PolyampError

    if _is_finished(folder, path):
        return
    rng = np.random.default_rng([_SEED.value, zlib.crc32(path.name.encode()), variant])
    everything = stems = read_stems(path)
    if rng.random() >= _DRUMS.value:
        stems = [stem for stem in stems if not stem.is_drum]
        if everything and not stems:
            raise PolyampError(f"{path}: holds nothing but drums, and --drums left them out this time.")
    stems = _transposed(_excerpt(stems, _EXCERPT.value, rng), int(rng.integers(-_TRANSPOSE.value, _TRANSPOSE.value + 1)))
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        (unfinished / "MIDI").mkdir(parents=True)
        parts: list[np.ndarray] = []
        described: dict[str, dict[str, Any]] = {}
        for stem in stems:
            sound = choose_sound(stem, sounds, rng)
            name = f"S{len(described):02d}"
            # What the preset cannot play must not be in the labels.
            stem = dataclasses.replace(stem, notes=[note for note in stem.notes if sound and note[2] in sound.keys])
            if sound is None or not stem.notes:
                continue
            write_stem(stem, sound, unfinished / "MIDI" / f"{name}.mid")
            room = bool(rng.random() < _ROOM.value)
            part = run_fluidsynth(
                unfinished / "MIDI" / f"{name}.mid", sound.soundfont, room, f"{path}, stem {stem.name or name}"
            )
            parts.append(_at_level(part, _STEM_DB + rng.uniform(-_GAIN_DB.value, _GAIN_DB.value)))
            described[name] = {"program": sound.program, "is_drum": stem.is_drum, "sound": sound}
        if not parts:
            raise PolyampError(f"{path}: holds no notes that could be rendered.")
        mix = np.zeros(max(map(len, parts)), np.float32)
        for part in parts:
            mix[: len(part)] += part
        mix *= 10 ** (rng.uniform(-12.0, -0.5) / 20) / max(float(np.abs(mix).max()), 1e-6)
        soundfile.write(unfinished / "mix.flac", mix, 16_000, subtype="PCM_16")
        (unfinished / "metadata.yaml").write_text(_metadata(path, described), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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


def read_stems(path: Path) -> list[Stem]:
    """The instruments of a MIDI file; `PolyampError` if it cannot be read."""
    import pretty_midi

    from polyamp.errors import PolyampError

    try:
        midi = pretty_midi.PrettyMIDI(str(path))
    except Exception as error:  # pretty_midi and mido raise whatever comes up.
        raise PolyampError(f"{path}: is not a usable MIDI file ({error}).") from error
    stems = []
    for instrument in midi.instruments:
        rows = [(note.start, note.end, note.pitch, note.velocity) for note in instrument.notes]
        controls = [(c.time, c.number, c.value) for c in instrument.control_changes if c.number in _KEPT_CONTROLLERS]
        if rows:
            stems.append(Stem(instrument.name, instrument.program, instrument.is_drum, sorted(rows), sorted(controls)))
    return stems


def _excerpt(stems: list[Stem], seconds: float, rng: np.random.Generator) -> list[Stem]:
    """The notes that begin in a random stretch of that length, moved to its start; all for 0 seconds.

    Silence before the first note is cut to a second: some recorded performances begin after half an hour of it.
    """
    onsets = [note[0] for stem in stems for note in stem.notes]
    if not onsets:
        return stems
    first = max(0.0, min(onsets) - 1.0)
    end = max(note[1] for stem in stems for note in stem.notes)
    if not 0 < seconds < end - first:
        if first == 0.0:
            return stems
        start, seconds = first, end - first + 2 * _SHORTEST
    else:
        start = rng.uniform(first, end - seconds)
        if not any(start <= onset < start + seconds - _SHORTEST for onset in onsets):  # In a long pause.
            start = min((onset for onset in onsets if onset >= start), default=max(onsets))
    cut = []
    for stem in stems:
        rows = [
            (on - start, min(off - start, seconds), pitch, velocity)
            for on, off, pitch, velocity in stem.notes
            if start <= on < start + seconds - _SHORTEST
        ]
        controls = [(max(0.0, t - start), number, value) for t, number, value in stem.controls if t < start + seconds]
        # Of the controllers before the stretch only their last values count.
        last = {number: (0.0, number, value) for t, number, value in controls if t == 0.0}
        controls = [*last.values(), *(control for control in controls if control[0] > 0.0), (seconds, 64, 0)]
        if rows:
            cut.append(dataclasses.replace(stem, notes=rows, controls=controls))
    return cut


def _transposed(stems: list[Stem], semitones: int) -> list[Stem]:
    return [
        stem
        if stem.is_drum
        else dataclasses.replace(
            stem, notes=[(on, off, pitch + semitones, v) for on, off, pitch, v in stem.notes if 0 <= pitch + semitones <= 127]
        )
        for stem in stems
    ]


def write_stem(stem: Stem, sound: Sound, path: Path) -> None:
    """A MIDI file of one stem, played with that preset."""
    rate = 2 * 480  # Ticks per second at the default tempo of 120.
    channel = 9 if stem.is_drum else 0
    events: list[tuple[float, int, mido.Message]] = []
    for on, off, pitch, velocity in stem.notes:
        events.append((on, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        events.append((max(off, on + 0.002), 1, mido.Message("note_off", channel=channel, note=pitch)))
    for time, number, value in stem.controls:
        events.append((time, 0, mido.Message("control_change", channel=channel, control=number, value=value)))
    track = mido.MidiTrack()
    if not stem.is_drum:
        track.append(mido.Message("control_change", channel=channel, control=0, value=min(sound.bank, 127)))
    track.append(mido.Message("program_change", channel=channel, program=sound.program))
    now = 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):
        tick = round(time * rate)
        track.append(message.copy(time=max(0, tick - now)))
        now = max(now, tick)
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    midi.tracks.append(track)
    midi.save(str(path))


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


def _render_single_notes(sounds: Sequence[Sound]) -> None:
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


def _render_notes_of(sound: Sound, instrument: str, folder: Path) -> dict[str, Any]:
    """Some notes of one preset, all in one run of FluidSynth; what examples.json says of them."""
    from polyamp import constants

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
        write_stem(Stem(instrument, sound.program, False, rows, silence), sound, midi)
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
    app.run(main)
