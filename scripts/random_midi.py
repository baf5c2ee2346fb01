"""Writes MIDI files of random phrases, of one to three instruments, to render: every instrument family as often as every other.

Music has its habits: in a hundred pieces organs, voices and synthesizers are rare, and always play the same way. What such
phrases lack in sense they have in balance.

    python scripts/random_midi.py --output_dir=phrases --number=160 --seed=1
    python scripts/render_midi.py --midi='phrases/*.mid' --output_dir=rendered
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import pretty_midi

_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to make.", required=True)
_NUMBER = flags.DEFINE_integer("number", 100, "How many files.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "Length of each.", lower_bound=2.0, upper_bound=36_000.0)
_SEED = flags.DEFINE_integer("seed", 0, "Of all random choices.", lower_bound=0)

_INSTRUMENTS = (1, 1, 1, 2, 2, 3)  # In a file, each as likely as the other.
_STYLES = ("line", "line", "chords", "single", "ostinato")
_MAJOR = np.array([0, 2, 4, 5, 7, 9, 11])
_SHORTEST = 0.06  # Seconds.


@dataclasses.dataclass(frozen=True)
class Range:
    """The programs of a family that have a pitch and a lasting tone, and where they are usually played."""

    programs: tuple[int, ...]
    low: int
    high: int


RANGES = {
    "bass": Range(tuple(range(32, 40)), 28, 55),
    "brass": Range(tuple(range(56, 64)), 38, 80),
    "flute": Range(tuple(range(72, 80)), 60, 93),
    "guitar": Range(tuple(range(24, 32)), 40, 80),
    "keyboard": Range(tuple(range(8)), 30, 96),
    "mallet": Range(tuple(range(8, 15)), 55, 93),
    "organ": Range(tuple(range(16, 22)), 36, 88),
    "reed": Range(tuple(range(64, 72)), 46, 86),
    "string": Range((*range(40, 45), *range(48, 52)), 38, 92),
    "synth_lead": Range(tuple(range(80, 88)), 45, 88),  # One of them, 85, is a voice.
    "vocal": Range((52, 53, 54), 50, 79),
}


def main(argv: Sequence[str]) -> int:
    """Writes them; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _write)


def _write() -> None:
    from polyamp.atomic import new_folder

    rng = np.random.default_rng(_SEED.value)
    with new_folder(_OUTPUT_DIR.value, "--output_dir") as unfinished:  # Two runs in one would be mixed.
        for number in range(_NUMBER.value):
            piece(rng, _SECONDS.value).write(str(unfinished / f"clip{number:04d}.mid"))
    logging.info("%s: %d files", _OUTPUT_DIR.value, _NUMBER.value)


def piece(rng: np.random.Generator, seconds: float) -> "pretty_midi.PrettyMIDI":
    """Phrases of one to three instruments of different families."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI()
    for family in rng.choice(list(RANGES), int(rng.choice(_INSTRUMENTS)), replace=False):
        instrument = pretty_midi.Instrument(int(rng.choice(RANGES[family].programs)))
        last: dict[int, pretty_midi.Note] = {}  # Of each pitch.
        for onset, offset, pitch, velocity in phrase(rng, RANGES[family], seconds):
            if pitch in last:  # MIDI has no way to say that one is still held.
                last[pitch].end = min(last[pitch].end, onset)
            last[pitch] = pretty_midi.Note(velocity, pitch, onset, offset)
            instrument.notes.append(last[pitch])
        midi.instruments.append(instrument)
    return midi


def phrase(rng: np.random.Generator, within: Range, seconds: float) -> Iterator[tuple[float, float, int, int]]:
    """Notes of one instrument, as onset and offset in seconds, MIDI pitch and velocity: in a key, and in one style throughout.

    The styles: a line in some rhythm, chords, single notes of any length, or a figure of four notes that goes on and on.
    """
    low, high = within.low, within.high
    time, wandering = rng.uniform(0, 1), rng.uniform(low, high)
    style = rng.choice(_STYLES)
    beat = np.exp(rng.uniform(np.log(0.12), np.log(0.8)))
    loudness = rng.uniform(50, 110)
    figure = (low + high) // 2 + rng.integers(-7, 8, 4)
    key = rng.integers(12)
    pitches = np.arange(low, high + 1)
    out_of_key = 3.0 * ~np.isin((pitches - key) % 12, _MAJOR)
    played = 0
    while time < seconds - 1:
        wandering = np.clip(wandering + rng.normal(0, 3), low, high)
        chord = [int(pitches[np.argmin(np.abs(pitches - wandering) + out_of_key)])]
        if style == "single":
            length = np.exp(rng.uniform(np.log(0.2), np.log(3.5)))
            step = length + rng.uniform(0, 0.6)
        elif style == "chords":
            length = beat * rng.choice([1, 2, 4, 6])
            step = length * rng.choice([1, 1, 1.3])
            intervals = rng.choice([0, 3, 4, 5, 7, 8, 9, 12], rng.integers(2, 5))
            chord = sorted({int(np.clip(chord[0] + interval, low, high)) for interval in intervals})
        elif style == "ostinato":
            length, step = 0.9 * beat, beat
            chord = [int(np.clip(figure[played % len(figure)], low, high))]
        else:
            length = beat * rng.choice([0.5, 1, 1, 2, 3])
            step = length * rng.choice([1, 1, 1, 1.5])
            length *= rng.uniform(0.6, 1.05)
        velocity = int(np.clip(loudness + rng.normal(0, 10), 15, 125))
        for pitch in chord:
            yield time, min(time + max(length, _SHORTEST), seconds), pitch, velocity
        time += max(step, 0.08)
        played += 1


if __name__ == "__main__":
    startup.run(main)
