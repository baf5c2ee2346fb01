"""Synthesised recordings for the tests of `polyamp.data`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile
import yaml

from polyamp.data.example import Example, velocity_range
from polyamp.notes import Notes


def random_notes(rng: np.random.Generator, count: int, seconds: float) -> Notes:
    """Notes that begin within `seconds`, some outside the piano's range, many overlapping others of their pitch."""
    onset = np.round(rng.uniform(0, seconds, count), 4)
    pitch = np.concatenate([rng.integers(57, 62, count // 2), rng.integers(10, 120, count - count // 2)])
    return Notes.of(onset, onset + np.round(rng.exponential(0.4, count), 4), pitch, rng.integers(1, 128, count))


@pytest.fixture
def make_example() -> Callable[..., Example]:
    """A function that makes the example of a number: noise of a length in seconds, with random notes."""

    def make(number: int, seconds: float = 3.0, notes_per_second: float = 8.0) -> Example:
        rng = np.random.default_rng(number)
        # Integers, so that 16-bit audio gives the same samples back.
        audio = rng.integers(-9000, 9000, round(seconds * 16_000)).astype(np.float32) / 32_768
        notes = random_notes(rng, round(seconds * notes_per_second), seconds)
        notes = notes[notes.offset <= seconds]
        return Example(f"example {number}", audio, notes, velocity_range(notes))

    return make


# Name -> program, whether drums, and (onset, offset, pitch, velocity) of its notes.
STEMS = {
    "S00": (30, False, [(0.5, 1.0, 52, 70), (1.5, 1.75, 55, 90)]),
    "S01": (128, True, [(0.0, 0.1, 36, 100)]),
    "S02": (1, False, [(0.25, 2.0, 60, 64)]),
}


def _track(folder: Path, mix: str = "mix.flac", **changes: Any) -> None:
    """A track as Slakh has it: programs, and which stem is drums, are in metadata.yaml only."""
    (folder / "MIDI").mkdir(parents=True)
    soundfile.write(folder / mix, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 16_000), 16_000)
    stems = {}
    for name, (program, is_drum, rows) in STEMS.items():
        midi = pretty_midi.PrettyMIDI()
        instrument = pretty_midi.Instrument(0)
        instrument.notes = [pretty_midi.Note(velocity, pitch, on, off) for on, off, pitch, velocity in rows]
        midi.instruments.append(instrument)
        midi.write(str(folder / "MIDI" / f"{name}.mid"))
        stems[name] = {"inst_class": "x", "is_drum": is_drum, "program_num": program, "audio_rendered": True} | changes
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": "1a", "midi_dir": "MIDI", "stems": stems}))


@pytest.fixture
def make_track() -> Callable[..., None]:
    """A function that makes a track of Slakh's in a folder."""
    return _track
