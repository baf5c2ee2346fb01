#!/usr/bin/env python3
"""Measures how well beats are found in notes, on MIDI files whose beats are known: quarter notes at the tempo that they state.

    python scripts/benchmark_beats.py --midi='midi/*.mid'

Of the notes of each file a share is left out and the others are moved a little, as transcribed ones are; drums do not count.
Prints for each file, and on average, mir_eval's F1 (within 70 ms), and the shares of the beats that are as written, and that
are so or half or twice as many, or halfway between the written ones ("CMLt", "AMLt": Davies et al. 2009).
Files of transcribed performances state a tempo that nobody played, and are of no use here.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from polyamp.notes import Notes

_MIDI = flags.DEFINE_string("midi", None, "MIDI files: names and globs, comma-separated.", required=True)
_SECONDS = flags.DEFINE_float("seconds", 90.0, "How much of each file counts, from its start.", 10.0, 36_000.0)
_MISSING = flags.DEFINE_float("missing", 0.25, "Share of the notes that are left out.", lower_bound=0.0, upper_bound=0.95)
_JITTER = flags.DEFINE_float("jitter_ms", 12.0, "Standard deviation of how far onsets are moved.", 0.0, 1000.0)
_SEED = flags.DEFINE_integer("seed", 0, "Of what is left out and moved.", lower_bound=0)

_NEAR = 0.07  # Seconds.


def main(argv: Sequence[str]) -> int:
    """Measures; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _measure)


def _measure() -> None:
    import mir_eval
    import numpy as np

    from polyamp.errors import PolyampError
    from polyamp.notes import beats
    from polyamp.rendering import stems

    startup.say(f"{'F1':>6}{'CMLt':>6}{'AMLt':>6}  file")
    scores = []
    for path in stems.midi_files(_MIDI.value):
        try:
            found, true = _disturbed(path)
        except PolyampError as error:
            logging.warning("%s", error)
            continue
        if len(found) < 30 or len(true) < 10:
            continue
        answer = beats.track(found)
        with warnings.catch_warnings():  # mir_eval's, of absurd tempos, would come between the lines.
            warnings.simplefilter("ignore")
            _, written, _, any_level = mir_eval.beat.continuity(true, answer)
            scores.append((mir_eval.beat.f_measure(true, answer), written, any_level))
        startup.say("".join(f"{score:6.2f}" for score in scores[-1]) + f"  {path}")
    if not scores:
        raise PolyampError(f"--midi={_MIDI.value}: none of the files holds thirty notes and ten beats.")
    startup.say("".join(f"{score:6.2f}" for score in np.mean(scores, axis=0)) + f"  mean of {len(scores)} files")


def _disturbed(path: Path) -> "tuple[Notes, np.ndarray]":
    """The notes of a file as they might be transcribed, and its quarter notes from the first of them to the last."""
    import io

    import numpy as np
    import pretty_midi

    from polyamp.notes import Notes, midi_tracks
    from polyamp.rendering import stems

    parts = [stem for stem in stems.read_stems(path) if not stem.is_drum]
    rows = np.array([row for stem in parts for row in stem.notes if row[0] < _SECONDS.value]).reshape(-1, 4)
    rng = np.random.default_rng(_SEED.value)
    onset, offset, pitch, velocity = rows[rng.random(len(rows)) >= _MISSING.value].T
    length = offset - onset
    onset = np.maximum(onset + rng.normal(0.0, _JITTER.value / 1000, len(onset)), 0.0)
    midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_tracks.as_played(path.read_bytes())))
    midi.time_signature_changes = []  # Or beats would be those of the measure, such as dotted quarter notes.
    beats = midi.get_beats()
    within = (beats > onset.min(initial=np.inf) - _NEAR) & (beats < onset.max(initial=0.0) + _NEAR)
    return Notes.of(onset, onset + length, pitch, velocity), beats[within]


if __name__ == "__main__":
    startup.run(main)
