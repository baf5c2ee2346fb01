"""Transcribes audio files with a trained model: which files, where to, and what became of each."""

import dataclasses
import functools
import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from absl import logging
from tqdm import tqdm

from polyamp import atomic, constants, globs, notes, startup
from polyamp.audio import containers, reading, tuning
from polyamp.audio.meters import passed
from polyamp.errors import PolyampError
from polyamp.hparams import AutoregressiveHParams, TimbreHParams
from polyamp.notes import beats

if TYPE_CHECKING:
    from polyamp.checkpoint import Loaded

DEFAULT_SUFFIX = "-polyamp"
_OUTPUT_DIR = "--output_dir"


@dataclasses.dataclass(frozen=True)
class Transcript:
    """One file that was written.

    Attributes:
        audio: The recording.
        output: The MIDI file; of a Timbre model the JSON file.
        num_notes: How many notes it holds.
        families: Of a Timbre model, how probable each family is, the most probable first (see `recognize.recognize`).
    """

    audio: Path
    output: Path
    num_notes: int
    families: Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of all files.

    Attributes:
        written: In the order in which they were given.
        failures: One message for each file that failed, naming it.
    """

    written: tuple[Transcript, ...]
    failures: tuple[str, ...]


def predict(
    model_type: str,
    audio_filename: str | Sequence[str],
    *,
    model_dir: str | None = None,
    load_id: str = "*",
    model_id: str | None = None,
    load_full: bool | None = None,
    overrides: Mapping[str, Any] | None = None,
    output_dir: str | None = None,
    transcribed_file_suffix: str = DEFAULT_SUFFIX,
    qpm: float = constants.DEFAULT_QPM,
    on_beats: bool = False,
    report: Callable[[Transcript], None] | None = None,
) -> Summary:
    """Transcribes files to MIDI, loading the model once. A file that fails does not keep the others from being done.

    Of recordings that would be written to one file, the first that can be transcribed is.

    A Timbre model says instead, in a JSON file, which families play the notes that the Melodic model in the package finds.

    Args:
        model_type: Of `constants.MODEL_TYPES`.
        audio_filename: A file, a glob or a comma-separated list of both; or a list of files, whose names mean themselves.
        model_dir: Where checkpoints are; None means the weights in the package.
        load_id, model_id, load_full, overrides: See `checkpoint.load_model`.
        output_dir: Folder for the MIDI files, made if need be; None means beside each recording.
        transcribed_file_suffix: Comes between the recording's stem and `.mid` (`.json`). Beside the recording an existing file
            is only replaced where the suffix tells it from the recording's own MIDI file.
        qpm: The files' tempo; times in seconds do not depend on it.
        on_beats: The files' tempo follows the beats instead, of which each is at a quarter note.
        report: Called after each file that was written.

    Raises:
        PolyampError: The checkpoint or `output_dir` cannot be used.
    """
    paths, failures = expand_audio(audio_filename)
    extension = ".json" if model_type == "TIMBRE" else ".mid"
    jobs = _plan(paths, output_dir, transcribed_file_suffix, extension, failures)
    if not jobs:
        return Summary((), tuple(failures))
    loaded = load(model_type, model_dir, load_id, model_id, load_full, overrides or {})
    if model_dir is not None:
        logging.info("Weights: %s.", " and ".join(map(str, loaded.paths)))
    melodic = load("MELODIC") if model_type == "TIMBRE" else None
    written = []
    source_of: dict[str, Path] = {}  # Of each file that has been written, whatever the ways to spell it.
    for number, (audio, output) in enumerate(jobs, start=1):
        real = os.path.realpath(output)
        if real in source_of:
            failures.append(f"{audio}: would be written to {output}, as {source_of[real]} is; give another --output_dir.")
            continue
        try:
            with tqdm(desc=f"{number}/{len(jobs)} {audio.name}", unit=" s", disable=None, leave=False) as progress:
                blocks = functools.partial(_counted, reading.of_file(audio), progress)
                if melodic is not None:
                    written.append(_write_families(loaded, melodic, blocks, audio, output))
                else:
                    written.append(_write_notes(loaded, blocks, audio, output, qpm, on_beats))
        except PolyampError as error:
            failures.append(str(error))
            continue
        source_of[real] = audio
        if report is not None:
            report(written[-1])
    return Summary(tuple(written), tuple(failures))


def load(model_type: str, *where: Any) -> "Loaded":
    """A model on the light runtime if it can be, else in Keras; the arguments are those of `checkpoint.load_model`."""
    from polyamp import light

    loaded = light.load(model_type, *where)
    if loaded is None:
        startup.start_keras()  # Only now: a misspelled file name should not have to wait for it.
        from polyamp import checkpoint

        loaded = checkpoint.load_model(model_type, *where)
    return loaded


def _write_notes(loaded: "Loaded", blocks: reading.Blocks, audio: Path, output: Path, qpm: float, on_beats: bool) -> Transcript:
    """Writes the notes that a model hears, as MIDI."""
    from polyamp import transcribe

    hparams = loaded.hparams
    if isinstance(hparams, AutoregressiveHParams):  # What the others hear is in tune.
        meter = tuning.Meter()
        found = transcribe.transcribe(loaded.model, lambda: passed(meter, blocks()), hparams)  # Which reads it once.
        if a4_hz := tuning.better_a4(meter.cents, hparams.told_a4_hz):
            logging.warning("%s: its tuning is A4 = %g Hz; it is heard better with --hparams={a4_hz:%g}.", audio, a4_hz, a4_hz)
    else:
        found = transcribe.transcribe(loaded.model, blocks, hparams)
    notes.write_midi(found, output, qpm, beats.track(found) if on_beats else None)
    return Transcript(audio, output, len(found))


def _write_families(loaded: "Loaded", melodic: "Loaded", blocks: reading.Blocks, audio: Path, output: Path) -> Transcript:
    """Writes which families a Timbre model hears in the notes that a Melodic one finds, as JSON."""
    from polyamp import recognize

    answer = recognize.recognize(loaded.model, melodic, blocks, cast(TimbreHParams, loaded.hparams))
    if not answer["notes"]:
        raise PolyampError(f"{audio}: no note is heard in it, so there is no instrument to tell.")
    atomic.write_text(output, json.dumps(answer, indent=1) + "\n")
    return Transcript(audio, output, len(answer["notes"]), answer["probabilities"])


def expand_audio(audio_filename: str | Sequence[str]) -> tuple[list[Path], list[str]]:
    """The recordings that are meant (see `predict`), each once, and a message for each empty glob."""
    if not isinstance(audio_filename, str):
        return [Path(name) for name in dict.fromkeys(audio_filename)], []
    if os.path.exists(audio_filename):  # Also with commas or brackets in its name.
        return [Path(audio_filename)], []
    found: dict[Path, None] = {}
    failures = []
    for part in filter(None, (part.strip() for part in audio_filename.split(","))):
        is_glob = glob.has_magic(part) and not os.path.exists(part)
        matches = globs.matching(part) if is_glob else [part]
        if not matches:
            failures.append(f"{part}: no file matches.")
        found.update(dict.fromkeys(Path(match) for match in matches))
    if not found and not failures:
        failures.append("the name of the audio file is empty.")
    return list(found), failures


def _plan(
    paths: Sequence[Path], output_dir: str | None, suffix: str, extension: str, failures: list[str]
) -> list[tuple[Path, Path]]:
    """Pairs each recording with the file to write, having found out that both can be used; appends to `failures`."""
    if os.sep in suffix or (os.altsep and os.altsep in suffix):
        raise PolyampError(f"{suffix!r} cannot end a file name; to write elsewhere, give an output directory.")
    if output_dir is not None:
        atomic.check_folder(atomic.make_folder(output_dir, _OUTPUT_DIR), _OUTPUT_DIR)
    jobs = []
    for audio in paths:
        output = (Path(output_dir) if output_dir is not None else audio.parent) / f"{audio.stem}{suffix}{extension}"
        try:
            containers.check_is_file(audio)
            if output_dir is None:
                atomic.check_folder(audio.parent, _OUTPUT_DIR)
            if not suffix and output.exists() and os.path.samefile(output.parent, audio.parent):
                raise PolyampError(f"{output}: is there already, maybe not from here; give a suffix or an output directory.")
        except PolyampError as error:
            failures.append(str(error))
            continue
        jobs.append((audio, output))
    return jobs


def _counted(audio: Callable[[], Iterator[np.ndarray]], progress: tqdm) -> Iterator[np.ndarray]:
    """The audio in blocks, counting its seconds; the rate that the bar shows is times real time."""
    progress.reset()
    for block in audio():
        yield block
        progress.update(round(len(block) / constants.SAMPLE_RATE))
