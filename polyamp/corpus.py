"""Transcribes a corpus: what there is to do, where, and what became of it. `polyamp.beam_corpus` does it with Apache Beam.

A recording becomes a MIDI file and, written last, a JSON file with the same notes: it is done when both are there. One that
cannot be transcribed leaves a file `.<name>.failed.json` in their place until a later run succeeds. Recordings and folders are
anywhere: here, or at URLs of Beam's file systems.
"""

import codecs
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import polyamp
from polyamp import constants, globs, notes
from polyamp.data import places
from polyamp.errors import DataError, PolyampError
from polyamp.notes import Notes, instruments

LIST_SUFFIX = ".txt"
MODEL_TYPES = ("MELODIC", "FULL", "AUTOREGRESSIVE")
_GLOB = "*?["
_READERS = 16  # Of files that may be far away.


@dataclasses.dataclass(frozen=True)
class Weights:
    """Which weights transcribe: the arguments of `polyamp.checkpoint.load_model`."""

    model_type: str = "MELODIC"
    model_dir: str | None = None
    load_id: str = "*"
    load_full: bool | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def where(self) -> tuple[Any, ...]:
        """As positional arguments."""
        return (self.model_type, self.model_dir, self.load_id, None, self.load_full, dict(self.overrides))


@dataclasses.dataclass(frozen=True)
class Job:
    """A recording, and where its notes go.

    Attributes:
        audio: The recording, here or at a URL.
        output: Place and name of its files without their suffixes.
    """

    audio: str
    output: str

    @property
    def midi(self) -> str:
        """The MIDI file."""
        return f"{self.output}.mid"

    @property
    def listing(self) -> str:
        """The JSON file."""
        return f"{self.output}.json"

    @property
    def failure(self) -> str:
        """Where it is noted why there are no notes."""
        return places.join(places.folder(self.output), f".{places.name(self.output)}.failed.json")


# --- What there is to do -------------------------------------------------------------------------------------------------


def plan(inputs: Sequence[str], output_dir: str) -> list[Job]:
    """A job for each recording, in the order of their names.

    Args:
        inputs: Recordings and globs (`**` for folders in any depth), or lists of recordings: text files named `*.txt` with one
            on each line. All may be URLs.
        output_dir: Where the files go, in folders as those below the part of a glob that is without wildcards.

    Raises:
        DataError: Nothing matches, a list cannot be read, or two recordings would be written to one file.
    """
    jobs: dict[str, Job] = {}
    if not any(inputs):
        raise DataError("--input= is empty; name recordings, globs or lists.")
    for text in filter(None, inputs):
        for audio, below in _found(text):
            output = places.join(output_dir, *PurePosixPath(below).with_suffix("").parts)
            if jobs.setdefault(output, Job(audio, output)).audio != audio:
                both = f"{jobs[output].audio} and {audio}"
                raise DataError(f"{both} would both be written to {output}.mid; give each an --output_dir of its own.")
    return sorted(jobs.values(), key=lambda job: job.audio)


def _found(text: str) -> list[tuple[str, str]]:
    """Recordings that an input means, each with its name below what the input has before its first wildcard."""
    if text.endswith(LIST_SUFFIX):
        content = places.read(text)
        if content is None:
            raise DataError(f"{text}: no such list of recordings.")
        lines = [line.strip() for line in content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").splitlines()]
        named = [line for line in lines if line]
        if not named:
            raise DataError(f"{text}: names no recordings.")
        return [(audio, places.name(audio)) for audio in named]
    if not any(character in text for character in _GLOB) or places.exists(text):
        return [(text, places.name(text))]
    found = places.matching(text)
    if not found:
        raise DataError(f"{text}: no file matches.")
    fixed = "" if places.is_remote(text) else globs.literal_folder(text)
    if not fixed or not all(audio.startswith(fixed) for audio in found):  # Brackets are no names there.
        fixed = places.folder(text[: min(text.index(character) for character in _GLOB if character in text)])
    return [(audio, audio[len(fixed) :].lstrip("/")) for audio in found]


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Those whose files are not all there."""
    return [job for job in jobs if not (places.exists(job.listing) and places.exists(job.midi))]


def check_origins(jobs: Sequence[Job], model: Mapping[str, Any]) -> None:
    """`DataError` if notes that are there are of another recording or another model, or were decoded otherwise.

    Args:
        jobs: All recordings.
        model: As in the files: see `beam_corpus.described`.
    """
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        for job, origin in zip(jobs, pool.map(_origin, jobs), strict=True):
            if origin is None:
                continue
            audio, there = origin
            if there != _as_noted(model, there):
                name, wanted = _name(there), _name(model)
                what = f"those of {name}, not of {wanted}" if name != wanted else f"of {name} with other weights or --hparams"
                raise DataError(f"{job.listing}: its notes are {what}; give another --output_dir.")
            if _are_others(audio, job.audio):
                raise DataError(
                    f"{job.listing}: its notes are those of {audio}, not of {job.audio}; give another --output_dir."
                )


def _origin(job: Job) -> tuple[str, dict[str, Any]] | None:
    """The recording and the model that notes are of that are there; `DataError` for what is no file of this program."""
    found = places.read(job.listing)
    if found is None:
        return None
    try:
        listing = json.loads(found)
        audio, model = str(listing["audio"]), listing["model"]
        _name(model)  # Which it has if the file is one of this program.
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{job.listing}: is not a file of this program; give another --output_dir.") from error
    return audio, model


def _as_noted(model: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """A model as the version named it that wrote a file: earlier ones without checksum, joined ones by their first part."""
    named = dict(model)
    if "checksum" not in there:
        named.pop("checksum", None)
        named["checkpoint"] = named["checkpoint"].partition(" and ")[0]
    return named


def _name(model: Mapping[str, Any]) -> str:
    return f"{model['type']}/{model['checkpoint']}"


def _are_others(first: str, second: str) -> bool:
    """Whether two names are of different recordings; not where one is a file that has been moved, as far as can be told."""
    if first == second or places.is_remote(first) != places.is_remote(second):
        return False
    if places.is_remote(first):
        return True
    return os.path.exists(first) and os.path.exists(second) and not os.path.samefile(first, second)


# --- Doing it ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def local(audio: str) -> Iterator[Path]:
    """The recording as a file here."""
    if not places.is_remote(audio):
        yield Path(audio)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / places.name(audio)
        places.fetch(audio, path)
        yield path


def write(job: Job, found: Notes, seconds: float, model: Mapping[str, Any]) -> None:
    """Writes the notes of a recording, and forgets an earlier failure.

    Args:
        job: Which recording.
        found: Its notes.
        seconds: Its length.
        model: What transcribed it, for the JSON file.

    Raises:
        PolyampError: A file cannot be written.
    """
    listing: dict[str, Any] = {
        "audio": job.audio,
        "seconds": round(seconds, 3),
        "polyamp": polyamp.__version__,
        "model": dict(model),
        "notes": notes.listed(found),
    }
    if model["type"] == "FULL":  # The others do not tell instruments.
        families = instruments.families_of(found).tolist()
        for note, program, family in zip(listing["notes"], found.program.tolist(), families, strict=True):
            note |= {"program": program, "family": constants.FAMILIES[family]}
    places.make_folder(places.folder(job.output))
    with places.writing(job.midi) as path:
        notes.write_midi(found, path)
    places.write(job.listing, (json.dumps(listing, indent=1) + "\n").encode())
    places.remove(job.failure)


def note_failure(job: Job, error: PolyampError) -> None:
    """Notes why a recording has no notes."""
    places.make_folder(places.folder(job.output))
    places.write(job.failure, (json.dumps({"audio": job.audio, "error": str(error)}) + "\n").encode())


def collect_failures(jobs: Sequence[Job], place: str) -> list[dict[str, str]]:
    """Writes a list of the recordings that have no notes and why, one JSON object a line; removes the list if there are none.

    What it says of recordings that are none of these jobs' stays as long as that they have failed is noted.

    Returns:
        The objects, each with "audio" and "error", of these jobs.
    """
    failed = []
    for job in unfinished(jobs):
        noted = places.read(job.failure)
        failed.append(json.loads(noted) if noted else {"audio": job.audio, "error": f"{job.audio}: was not reached."})
    of_jobs = {job.audio: job.output for job in jobs}
    others = [one for one in _failures_in(place) if one["output"] not in of_jobs.values()]
    listed = [one for one in others if places.exists(Job(one["audio"], one["output"]).failure)]
    listed += [{**one, "output": of_jobs[one["audio"]]} for one in failed]
    if listed:
        places.write(place, "".join(json.dumps(one) + "\n" for one in listed).encode())
    else:
        places.remove(place)
    return failed


def _failures_in(place: str) -> list[dict[str, str]]:
    """What a list of failures holds; nothing if it is not there or no such list."""
    try:
        found = [json.loads(line) for line in (places.read(place) or b"").splitlines()]
        return [{name: str(one[name]) for name in ("audio", "error", "output")} for one in found]
    except (ValueError, TypeError, KeyError):
        return []
