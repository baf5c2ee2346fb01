"""Renders MIDI files to audio with FluidSynth, in Slakh's layout: training data for those who have no data set.

    python scripts/render_midi.py --midi='midi/*.mid' --soundfonts=FluidR3_GM,TimGM6mb --output_dir=rendered --variants=2
    python scripts/create_tfrecords.py --dataset=slakh --input_dir=rendered --output_dir=tfrecords

Each stem of a piece gets a SoundFont, a program, a loudness and a room of its own at random, as Slakh itself was made (Manilow
et al. 2019); --articulate, --alter, --double, --synthesize and --effects make stems differ more than SoundFonts
do. The choices depend on --seed, the file's name and the number of the variant only. A finished track is not rendered
again; other settings need another folder, and so do other files of the same name. Single notes are added to those that
are there. With --single_notes in place of --midi it renders notes of single instruments, in NSynth's layout:

    python scripts/render_midi.py --single_notes=mallet,organ --output_dir=single
    python scripts/create_tfrecords.py --dataset=nsynth --input_dir=single --output_dir=single_tfrecords
"""

import concurrent.futures
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.rendering import players
    from polyamp.rendering.soundfonts import Sound


def _share(name: str, default: float, text: str) -> "flags.FlagHolder[float]":
    return flags.DEFINE_float(name, default, text, lower_bound=0.0, upper_bound=1.0)


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
_JOBS = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Tracks rendered at the same time.", lower_bound=1)
_SETTINGS: "dict[str, flags.FlagHolder]" = {  # Of `players.Settings`.
    "excerpt": flags.DEFINE_float(
        "excerpt", 0.0, "Seconds of each piece to render, from a random place; 0: all.", lower_bound=0.0
    ),
    "transpose": flags.DEFINE_integer(
        "transpose", 0, "Semitones by which a piece is transposed at most.", lower_bound=0, upper_bound=24
    ),
    "drums": _share("drums", 0.7, "Share of the tracks in which drums stay."),
    "substitute": _share("substitute", 0.5, "Share of stems whose program is replaced by another of its family."),
    "any_family": _share("any_family", 0.0, "Share of stems that get a program of any family."),
    "articulate": _share("articulate", 0.0, "Share of stems played short, repeated or held instead of as written."),
    "alter": _share("alter", 0.0, "Share of stems whose filter, attack, release, vibrato and tuning change."),
    "double": _share("double", 0.0, "Share of stems that two presets of a family play in unison."),
    "synthesize": _share("synthesize", 0.0, "Share of stems that a synthesizer of random settings plays."),
    "effects": _share("effects", 0.0, "Share of stems with effects such as chorus and echo, and of mixes mastered."),
    "room": _share("room", 0.5, "Share of the stems with FluidSynth's reverb."),
    "gain_db": flags.DEFINE_float("gain_db", 8.0, "Difference of a stem's loudness from the usual, at most.", lower_bound=0.0),
    "seed": flags.DEFINE_integer("seed", 0, "Of all random choices.", lower_bound=0),
    "timeout": flags.DEFINE_float("timeout", 300.0, "Seconds after which FluidSynth counts as hung.", lower_bound=1.0),
}

_DEBIAN = Path("/usr/share/sounds")


def main(argv: Sequence[str]) -> int:
    """Renders what the flags ask for; 1 if anything failed, with one line for each failure on stderr."""
    return startup.run_script(argv, _run)


def _run() -> None:
    from polyamp.atomic import make_folder
    from polyamp.errors import PolyampError
    from polyamp.rendering import effects, fluidsynth, players, soundfonts

    if bool(_MIDI.value) == bool(_SINGLE_NOTES.value):
        raise PolyampError("give --midi or --single_notes, one of them.")
    fluidsynth.check_installed()
    settings = players.Settings(**{name: flag.value for name, flag in _SETTINGS.items()})
    if settings.effects:
        effects.load_pedalboard()  # Missing, it should be missed before anything is rendered.
    sounds = [sound for path in _soundfonts() for sound in soundfonts.read_presets(path)]
    make_folder(_OUTPUT_DIR.value, "--output_dir")
    if _MIDI.value:
        _render_pieces(_MIDI.value, sounds, settings)
    else:
        _render_single_notes(_SINGLE_NOTES.value, sounds, settings)


def _soundfonts() -> list[Path]:
    from polyamp.errors import PolyampError

    named = sorted(_DEBIAN.glob("sf[23]/*.sf[23]"))
    installed = sorted({path.resolve() for path in named})
    found = []
    for name in _SOUNDFONTS.value:
        matching = [Path(name)] if os.path.isfile(name) else [path for path in named if name in (path.name, path.stem)]
        if not matching:
            known = ", ".join(path.name for path in installed) or "none"
            raise PolyampError(f"--soundfonts: no file {name!r}, and of the installed ones ({known}) none has that name.")
        found += matching
    if not (found or installed):
        raise PolyampError("no SoundFonts are installed; on Debian: apt-get install fluid-soundfont-gm timgm6mb-soundfont.")
    return list(dict.fromkeys(path.resolve() for path in found)) or installed


def _render_pieces(patterns: str, sounds: "Sequence[Sound]", settings: "players.Settings") -> None:
    from polyamp.atomic import make_folder
    from polyamp.rendering import stems, track_folders, tracks

    paths = stems.midi_files(patterns)
    folder = make_folder(Path(_OUTPUT_DIR.value) / _SPLIT.value)
    renderings = [(path, variant) for path in paths for variant in range(_VARIANTS.value)]
    places = track_folders.folders(folder, renderings, sounds, settings)
    tasks = [(path, variant, place) for (path, variant), place in zip(renderings, places, strict=True)]
    _do_all(tasks, functools.partial(tracks.render, sounds=sounds, settings=settings), "track")


def _render_single_notes(families: Sequence[str], sounds: "Sequence[Sound]", settings: "players.Settings") -> None:
    from polyamp.atomic import make_folder
    from polyamp.rendering import single_notes

    tasks = single_notes.instruments(families, sounds)
    folder = Path(_OUTPUT_DIR.value) / single_notes.FOLDERS[_SPLIT.value]
    make_folder(folder / "audio")
    of_instruments = single_notes.read_entries(folder)
    single_notes.check_instruments(tasks, of_instruments, settings.seed, folder)

    def render(sound: "Sound", name: str) -> None:
        rendered = single_notes.render(sound, name, folder, _VARIANTS.value, settings.seed, settings.timeout)
        of_instruments.setdefault(name, {}).update(rendered)

    try:
        _do_all(tasks, render, "preset")
    finally:  # What could be rendered can be used, and what another run has added meanwhile.
        single_notes.write_entries(folder, single_notes.read_entries(folder) | of_instruments)


def _do_all(tasks: Sequence[tuple[Any, ...]], do: Callable[..., object], unit: str) -> None:
    """Does all tasks in threads (the work is FluidSynth's); `PolyampError` at the end if some failed."""
    from tqdm import tqdm

    from polyamp.errors import PolyampError

    failures = 0
    with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
        futures = [pool.submit(do, *task) for task in tasks]
        try:
            for future in tqdm(concurrent.futures.as_completed(futures), total=len(futures), unit=unit):
                try:
                    future.result()
                except PolyampError as error:
                    failures += 1
                    logging.error("%s", error)
        finally:  # On Ctrl-C those that have begun are ended, and no more.
            pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        others = f"; the others are in {_OUTPUT_DIR.value}" if failures < len(tasks) else ""
        raise PolyampError(f"{failures} of {len(tasks)} could not be rendered{others}.")


if __name__ == "__main__":
    startup.run(main)
