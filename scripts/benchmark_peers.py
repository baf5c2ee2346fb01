#!/usr/bin/env python3
"""Our models and other transcribers on the same recordings, each as a user runs it: accuracy, time and memory in one table.

    bash scripts/install_peers.sh
    python scripts/benchmark_peers.py --data=maps/devtest:maps/labels,multi/devtest --output_dir=benchmark

A data set is a folder of audio, with notes of the same names (.mid, .tsv, .txt) beside it or in the folder after the colon.
Every system transcribes all of a data set's recordings in one process (those that take one file only: one process each).
Other programs take part with --command, where {audio} stands for all files, or {file} and {output} for one and its MIDI file:

    --command='MT3=mt3/bin/python transcribe.py {file} {output}'

Scores are mir_eval's, the mean over recordings: onsets within 50 ms (100 ms as a second figure), offsets within 20 % of the
note or 50 ms; frames of 32 ms; with the family of the instrument where the notes are MIDI files. Speed is measured on the
first data set's recordings, joined to a file of --speed_seconds: the whole process, the least of --repeats; the start, for a
second of sound; and the rate of a program that runs already, from the time that three such files take more than one.
"""

import dataclasses
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.notes import Notes

_DATA = flags.DEFINE_list("data", None, "Data sets, comma-separated: AUDIO_FOLDER or AUDIO_FOLDER:NOTES_FOLDER.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmark", "Where table.md and results.json are written.")
_PEERS_DIR = flags.DEFINE_string("peers_dir", "peers", "Where scripts/install_peers.sh has put the other programs.")
_SYSTEMS = flags.DEFINE_list("systems", [], "Only those whose names begin so, comma-separated; default: all that are there.")
_COMMANDS = flags.DEFINE_multi_string("command", [], "Another program, NAME=COMMAND; see above.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only so many recordings of each data set.", lower_bound=1)
_SPEED_SECONDS = flags.DEFINE_float("speed_seconds", 240.0, "Length of the file for speed; 0 measures none.", lower_bound=0.0)
_CORES = flags.DEFINE_multi_integer("cores", [1, 2], "Numbers of processors with which speed is measured.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 2, "How often each time is measured.", lower_bound=1)

_ROOT = Path(__file__).resolve().parent.parent
_RUNNER = f"{shlex.quote(sys.executable)} {shlex.quote(str(_ROOT / 'polyamp_runner.py'))} --mode=predict --log=error"
_OURS = {
    "MELODIC": "--model_type=MELODIC",
    "FULL": "--model_type=FULL",
    "TIMBRE": "--model_type=TIMBRE",
    "AUTOREGRESSIVE": "--model_type=AUTOREGRESSIVE",
    "AUTOREGRESSIVE low latency": "--model_type=AUTOREGRESSIVE --load_id=autoregressive_low_latency",
}
# Name: (folder below --peers_dir, program in it, arguments, package).
_BASIC_PITCH = "{output_dir} {audio} --model-serialization onnx"
_PEERS = {
    "Basic Pitch": ("basic_pitch", "basic-pitch", _BASIC_PITCH, "basic-pitch"),
    "Basic Pitch, tuned on MAPS": (
        "basic_pitch",
        "basic-pitch",
        _BASIC_PITCH + " --onset-threshold 0.6 --frame-threshold 0.3 --minimum-note-length 35 --no-melodia",
        "basic-pitch",
    ),
    "Transkun": ("transkun", "transkun", "{file} {output} --device cpu", "transkun"),
}
# Runs a command and writes status, seconds, seconds of processors and most memory to an open file. It is a small process of
# its own, since of a new process at least as much memory is told as its parent had.
_LAUNCHER = """
import os, sys, time
begun = time.perf_counter()
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
wall, cpu = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
os.write(int(sys.argv[1]), f"{os.waitstatus_to_exitcode(status)} {wall} {cpu} {usage.ru_maxrss}".encode())
"""

_ACCURACY = {
    "onset": "note_onset_f1",
    "100 ms": "note_onset_100ms_f1",
    "with offset": "note_offset_f1",
    "with velocity": "note_velocity_f1",
    "frame": "note_frame_f1",
    "onset and family": "family_onset_f1",
}
# Figure: (heading, digits after the point).
_SPEED = {
    "start": ("start, s", 1),
    "wall": ("whole file, s", 1),
    "cpu": ("processor, s", 1),
    "memory": ("memory, MB", 0),
    "steady": ("running, times real time", 0),
}


@dataclasses.dataclass(frozen=True)
class System:
    """A transcriber: its command line with the places that the module's text names, and what it is."""

    name: str
    command: str
    version: str

    @property
    def takes_many(self) -> bool:
        """Whether one process transcribes several files."""
        return "{file}" not in self.command

    def command_lines(self, audio: Sequence[Path], output_dir: Path) -> list[list[str]]:
        """The processes that transcribe these files."""
        if self.takes_many:
            return [self._filled(audio=audio, output_dir=output_dir)]
        return [self._filled(file=path, output=output_dir / f"{path.stem}.mid") for path in audio]

    def _filled(self, audio: Sequence[Path] = (), **places: Path) -> list[str]:
        values = {name: str(path) for name, path in places.items()} | {"comma_separated": ",".join(map(str, audio))}
        words: list[str] = []
        for word in shlex.split(self.command):
            if word == "{audio}":
                words += map(str, audio)
            else:  # Braces may mean anything else, too, as in --hparams.
                words.append(re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), word))
        return words


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording of a data set and its notes."""

    name: str
    audio: Path
    notes: "Notes"
    has_programs: bool


@dataclasses.dataclass(frozen=True)
class Cost:
    """What processes took: wall clock and processor time in seconds, and the most memory at a time in MB."""

    wall: float
    cpu: float
    memory: float


def main(argv: Sequence[str]) -> int:
    """Writes the table; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _benchmark)


def _benchmark() -> None:
    from polyamp import atomic

    chosen = systems()
    data = {folder: read_data(folder) for folder in _DATA.value}
    output_dir = atomic.make_folder(_OUTPUT_DIR.value, "--output_dir")
    results: dict[str, Any] = {"machine": _machine(), "systems": {}}
    with tempfile.TemporaryDirectory() as folder:
        speed_audio = _speed_audio(next(iter(data.values())), Path(folder)) if _SPEED_SECONDS.value else None
        for system in chosen:
            found: dict[str, Any] = {"version": system.version, "accuracy": {}, "speed": {}}
            for name, recordings in data.items():
                logging.info("%s: %d recordings of %s", system.name, len(recordings), name)
                found["accuracy"][name] = accuracy(system, recordings)
            if speed_audio is not None:
                for cores in sorted(set(_CORES.value)):
                    logging.info("%s: speed with %d processors", system.name, cores)
                    found["speed"][str(cores)] = speed(system, speed_audio, cores)
            results["systems"][system.name] = found
            atomic.write_text(output_dir / "results.json", json.dumps(results, indent=1) + "\n")
    text = table(results)
    atomic.write_text(output_dir / "table.md", text)
    print(text)


def systems() -> list[System]:
    """Our models, the peers that are installed and those of --command, as far as --systems wants them."""
    import polyamp
    from polyamp.errors import PolyampError

    arguments = "--audio_filename={comma_separated} --output_dir={output_dir} --transcribed_file_suffix="
    ours = [System(name, f"{_RUNNER} {model} {arguments}", polyamp.__version__) for name, model in _OURS.items()]
    peers = []
    for name, (folder, program, places, package) in _PEERS.items():
        binaries = Path(_PEERS_DIR.value) / folder / "bin"
        if (binaries / program).is_file():
            command = f"{shlex.quote(str(binaries / program))} {places}"
            peers.append(System(name, command, _version(binaries / "python", package)))
    given = []
    for text in _COMMANDS.value:
        name, _, command = text.partition("=")
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise PolyampError(f"--command={text}: {str(error).lower()}.") from error
        takes_many = "{audio}" in words and "{output_dir}" in command
        if not takes_many and not ("{file}" in command and "{output}" in command):
            raise PolyampError(
                f"--command={text}: write NAME=COMMAND with {{audio}}, a word of its own, and {{output_dir}}, or with "
                "{file} and {output}."
            )
        given.append(System(name, command, ""))
    found = [*ours, *peers, *given]
    unknown = [wanted for wanted in _SYSTEMS.value if not any(system.name.startswith(wanted) for system in found)]
    if unknown:
        known = ", ".join(system.name for system in found)
        raise PolyampError(f"--systems={unknown[0]}: is not there; there are {known}. Peers: scripts/install_peers.sh.")
    return [system for system in found if not _SYSTEMS.value or system.name.startswith(tuple(_SYSTEMS.value))]


def _version(python: Path, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def read_data(text: str) -> list[Recording]:
    """The recordings of AUDIO_FOLDER or AUDIO_FOLDER:NOTES_FOLDER, sorted by name.

    Raises:
        DataError: There are none, or the notes of one are missing.
    """
    from polyamp.data import sources
    from polyamp.data.recording import audio_files
    from polyamp.errors import DataError

    folder, _, beside = text.partition(":")
    place = Path(beside or folder)
    recordings = []
    for audio in audio_files(Path(folder))[: _LIMIT.value]:
        path = sources.labels_of(audio, [place])
        if path is None:
            raise DataError(f"{audio}: no notes of that name ({', '.join(sources.LABEL_SUFFIXES)}) in {place}.")
        name = str(audio.relative_to(folder).with_suffix(""))
        recordings.append(Recording(name, audio, sources.read_labels(path), path.suffix in (".mid", ".midi")))
    if not recordings:
        raise DataError(f"{folder}: no audio files in it.")
    return recordings


def accuracy(system: System, recordings: Sequence[Recording]) -> dict[str, Any]:
    """The system's scores on a data set, "mean" and "by_recording", and the "cost" of transcribing it.

    Raises:
        PolyampError: The system fails or leaves a recording out.
    """
    from polyamp import metrics

    by_recording = {}
    with tempfile.TemporaryDirectory() as folder:
        audio = []
        for number, recording in enumerate(recordings):  # Names that no command line can mistake.
            audio.append(Path(folder) / f"{number:05d}{recording.audio.suffix}")
            audio[-1].symlink_to(recording.audio.resolve())
        output_dir = Path(folder) / "out"
        cost = transcribe(system, audio, output_dir)
        for number, recording in enumerate(recordings):
            estimate = _read_answer(system, output_dir, f"{number:05d}")
            scores = metrics.note_metrics(recording.notes, estimate) | metrics.note_frame_metrics(recording.notes, estimate)
            if all(recording.has_programs for recording in recordings):
                scores |= metrics.family_note_metrics(recording.notes, estimate)
            by_recording[recording.name] = scores
    return {
        "mean": metrics.aggregate(list(by_recording.values())),
        "by_recording": by_recording,
        "cost": dataclasses.asdict(cost),
    }


def transcribe(system: System, audio: Sequence[Path], output_dir: Path, cores: int | None = None) -> Cost:
    """Runs the system over files, with so many processors; `PolyampError` if it fails, with the last line it wrote."""
    output_dir.mkdir(exist_ok=True)
    costs = [_run(system.name, words, cores) for words in system.command_lines(audio, output_dir)]
    return Cost(sum(c.wall for c in costs), sum(c.cpu for c in costs), max(c.memory for c in costs))


def _run(name: str, words: Sequence[str], cores: int | None) -> Cost:
    from polyamp.errors import PolyampError

    if shutil.which(words[0]) is None:
        raise PolyampError(f"{name}: {words[0]} cannot be run (there is no such program).")
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as answer:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(answer.fileno()), *words]
        subprocess.run(
            launcher,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[answer.fileno()],
            preexec_fn=_pinned(cores),
            check=True,
        )
        answer.seek(0)
        status, wall, cpu, memory = map(float, answer.read().split())
        if status:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
            raise PolyampError(f"{name}: exit status {status:.0f}: {last}")
    kilobytes = memory / (1024 if sys.platform == "darwin" else 1)
    return Cost(wall, cpu, kilobytes / 1024)


def _pinned(cores: int | None) -> Callable[[], None] | None:
    """What a new process does to keep to so many processors, on systems where that can be said."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        return None
    some = set(sorted(os.sched_getaffinity(0))[:cores])
    return lambda: os.sched_setaffinity(0, some)


def _read_answer(system: System, output_dir: Path, stem: str) -> "Notes":
    """The notes that a system wrote for a recording, of a Timbre model with the families' programs."""
    import numpy as np

    from polyamp import constants, notes
    from polyamp.errors import PolyampError

    paths = sorted(output_dir.glob(f"{stem}*.mid*"))
    if paths:
        return notes.read_midi(paths[0])
    paths = sorted(output_dir.glob(f"{stem}*.json"))
    if not paths:
        raise PolyampError(f"{system.name}: wrote no MIDI file for one of the recordings.")
    rows = [
        (
            *(note[name] for name in ("onset", "offset", "pitch", "velocity")),
            constants.FAMILY_PROGRAMS[constants.FAMILIES.index(note["family"])],
        )
        for note in json.loads(paths[0].read_text())["notes"]
    ]
    return notes.Notes.of(*np.array(rows, np.float64).reshape(-1, 5).T)


def _speed_audio(recordings: Sequence[Recording], folder: Path) -> tuple[Path, Path]:
    """A file of --speed_seconds made of recordings, and one of their first second."""
    import numpy as np
    import soundfile

    from polyamp import constants
    from polyamp.audio import reading

    wanted = round(_SPEED_SECONDS.value * constants.SAMPLE_RATE)
    audio = np.concatenate([reading.read(recording.audio) for recording in recordings])
    paths = folder / "long.wav", folder / "short.wav"
    for path, length in zip(paths, (wanted, constants.SAMPLE_RATE), strict=True):
        soundfile.write(path, np.resize(audio, length), constants.SAMPLE_RATE)
    return paths


def speed(system: System, audio: tuple[Path, Path], cores: int) -> dict[str, float | None]:
    """Seconds, MB and times real time; see the module's text."""
    long, short = audio

    def least(files: Sequence[Path]) -> Cost:
        costs = []
        for _ in range(_REPEATS.value):
            with tempfile.TemporaryDirectory() as folder:
                linked = [Path(folder) / f"{number}.wav" for number in range(len(files))]
                for link, path in zip(linked, files, strict=True):
                    link.symlink_to(path)
                costs.append(transcribe(system, linked, Path(folder) / "out", cores))
        return min(costs, key=lambda cost: cost.wall)

    start, whole = least([short]), least([long])
    steady = None
    if system.takes_many:
        more = least([long] * 3).wall - whole.wall
        steady = 2 * _SPEED_SECONDS.value / more if more > 0 else None  # None where other work on the machine spoiled it.
    return {"start": start.wall, "wall": whole.wall, "cpu": whole.cpu, "memory": whole.memory, "steady": steady}


def _machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = [
            line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: accuracy of each data set, then speed."""
    machine, found = results["machine"], results["systems"]
    lines = []
    for data in next(iter(found.values()))["accuracy"]:
        rows = {name: of["accuracy"][data]["mean"] for name, of in found.items()}
        columns = {title: key for title, key in _ACCURACY.items() if any(key in row for row in rows.values())}
        count = len(next(iter(found.values()))["accuracy"][data]["by_recording"])
        lines += [
            f"{data.partition(':')[0]}, {count} recordings, mean F1:",
            "",
            _row(["", *columns]),
            _row(["---"] * (1 + len(columns))),
        ]
        lines += [_row([name, *(_figure(row.get(key), 3) for key in columns.values())]) for name, row in rows.items()]
        lines.append("")
    for cores in sorted({cores for of in found.values() for cores in of["speed"]}, key=int):
        title = f"A file of {_SPEED_SECONDS.value:g} s, {cores} of {machine['processors']} processors ({machine['processor']}):"
        lines += [
            title,
            "",
            _row(["", "version", *(heading for heading, _ in _SPEED.values())]),
            _row(["---"] * (2 + len(_SPEED))),
        ]
        for name, of in found.items():
            figures = [_figure(of["speed"][cores][key], digits) for key, (_, digits) in _SPEED.items()]
            lines.append(_row([name, of["version"], *figures]))
        lines.append("")
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    startup.run(main)
