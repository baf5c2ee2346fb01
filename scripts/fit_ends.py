"""Learns where notes end, given a Melodic model's rolls and when other notes begin: what `polyamp.notes.ends` knows.

    python scripts/fit_ends.py --model_dir=runs --load_id=ID --examples_path='train.tfrecord-*' \\
        --validation_examples_path='validation.tfrecord-*' --output=ends.npz
    python polyamp_runner.py --mode=predict --hparams='{"predict_ends": "ends.npz"}' ...

Each example is transcribed, once. Of every note found that is one of the true ones, a network learns which of the times at
which it may end would count as right (`polyamp.metrics`). So that it does not learn the training pieces by heart, what is
heard gets noise, some of the notes around are left out, and their times are moved and stretched a little. With
--validation_examples_path note F1 with offsets is printed, without and with the networks.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.checkpoint import Loaded
    from polyamp.hparams import MelodicHParams
    from polyamp.notes import Notes
    from polyamp.notes.end_candidates import Candidates
    from polyamp.notes.growing_rolls import Rolls

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models; by default those of the package.")
_LOAD_ID = flags.DEFINE_string("load_id", "*", "Which Melodic checkpoint, as for polyamp_runner.py.")
_LOAD_FULL = flags.DEFINE_bool("load_full", False, "It is a Full model's, of which the part is taken.")
_EXAMPLES_PATH = flags.DEFINE_string("examples_path", None, "TFRecords to learn from.", required=True)
_VALIDATION = flags.DEFINE_string("validation_examples_path", None, "TFRecords to score, which are not learned from.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .npz.", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "How often every note is learned from.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 24, "Of the layers over pairs of a candidate and a note around.", lower_bound=1)
_NETWORKS = flags.DEFINE_integer("networks", 2, "How many are trained; the mean of what they say counts.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the network's first weights, and of what varies in training.", lower_bound=0)

_HIDDEN = 64
_BATCH = 256  # Notes.
_NOISE, _DROPOUT = 0.2, 0.1
_LEFT_OUT = 0.15  # Share of the notes around.
_MOVED = 0.01  # Seconds, standard deviation.
_TEMPO = 0.2  # Most by which the log of a tempo varies.


@dataclasses.dataclass(frozen=True)
class Piece:
    """A transcription, and what may be learned from it.

    Attributes:
        true: Notes that there are to find.
        found: Notes that were found.
        may_end: The times at which these may end.
        is_right: Whether the note is a true one and would end rightly there, `[candidates]`.
    """

    true: "Notes"
    found: "Notes"
    may_end: "Candidates"
    is_right: np.ndarray


def main(argv: Sequence[str]) -> int:
    """Writes the file; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _fit)


def _fit() -> None:
    startup.start_keras()
    from polyamp import atomic, predict
    from polyamp.data import records
    from polyamp.errors import DataError
    from polyamp.models import note_training

    atomic.check_replaceable(_OUTPUT.value)
    paths = [value for value in (_EXAMPLES_PATH.value, _VALIDATION.value) if value]
    for path in paths:
        records.check_labelled(records.expand_paths(path))
    loaded = predict.load("MELODIC", _MODEL_DIR.value, _LOAD_ID.value, None, _LOAD_FULL.value, {})
    training, *validation = (list(_transcribed(loaded, path)) for path in paths)
    for path, pieces in zip(paths, (training, *validation), strict=True):
        if not any(piece.is_right.any() for piece in pieces):
            raise DataError(f"{path}: no note is found of which an end could be learned.")
    examples = Examples(training)
    networks = [learn(examples, _WIDTH.value, _EPOCHS.value, _SEED.value + number) for number in range(_NETWORKS.value)]
    weights = note_training.write(_OUTPUT.value, networks)
    if validation:
        before, after = scores(validation[0], weights)
        print(f"note F1 with offsets: {before:.4f}, with the networks {after:.4f}")


def _transcribed(loaded: "Loaded", examples_path: str) -> "Iterator[Piece]":
    """What a model makes of examples, as predictions hear them."""
    from polyamp import transcribe

    hparams = dataclasses.replace(loaded.hparams, predict_ends="")
    for true, rolls in transcribe.rolls_of_examples(loaded.model, examples_path, hparams):
        yield piece(true, rolls, hparams)


def piece(true: "Notes", rolls: "Rolls", hparams: "MelodicHParams") -> Piece:
    """What may be learned from rolls, beside the true notes."""
    import mir_eval

    from polyamp import notes
    from polyamp.metrics.note import OFFSET_RATIO, OFFSET_TOLERANCE, intervals_and_pitches
    from polyamp.notes import end_candidates

    found = notes.from_rolls(rolls, hparams)
    may_end = end_candidates.candidates(found, rolls, hparams)
    onset, offset = np.full((2, len(found)), np.nan)
    both = *intervals_and_pitches(true), *intervals_and_pitches(found)
    for of_true, of_found in mir_eval.transcription.match_notes(*both, offset_ratio=None):
        onset[of_found], offset[of_found] = true.onset[of_true], true.offset[of_true]
    tolerance = np.maximum(OFFSET_TOLERANCE, OFFSET_RATIO * (offset - onset))
    is_right = np.abs(may_end.seconds - offset[may_end.note]) <= tolerance[may_end.note]  # No number never is.
    return Piece(true, found, may_end, is_right)


class Examples:
    """All notes of pieces that something can be learned from.

    Attributes:
        notes: Their numbers.
        mean, deviation: Of what is heard.
    """

    def __init__(self, pieces: Sequence[Piece]):
        from polyamp.notes import ends

        counts = [np.bincount(one.may_end.note, minlength=len(one.found)) for one in pieces]
        self._count = np.concatenate(counts)
        self._first = np.cumsum(self._count) - self._count
        self._is_right = np.concatenate([one.is_right for one in pieces])
        self._heard = np.concatenate([one.may_end.heard for one in pieces])
        self._seconds = np.concatenate([one.may_end.seconds - one.found.onset[one.may_end.note] for one in pieces])
        self._around = np.concatenate([ends.around(one.found, np.arange(len(one.found))) for one in pieces])
        self.notes = np.flatnonzero(np.logical_or.reduceat(self._is_right, self._first))
        self.mean, self.deviation = self._heard.mean(axis=0), self._heard.std(axis=0) + 1e-3

    def disturbed(self, notes: np.ndarray, rng: np.random.Generator) -> "tuple[dict[str, np.ndarray], np.ndarray]":
        """What the network takes of some notes, and what it is to learn (`note_ends.loss`).

        Some of the notes around are left out, others moved, and all of what is around is faster or slower.
        """
        from polyamp.notes import ends

        column = np.arange(self._count[notes].max())
        index = np.minimum(self._first[notes, None] + column, len(self._heard) - 1)
        is_candidate = column < self._count[notes, None]
        tempo = np.exp(rng.uniform(-_TEMPO, _TEMPO, (len(notes), 1)))
        around = self._around[notes]
        around[..., :2] = around[..., :2] * tempo[..., None] + rng.normal(0, _MOVED, around[..., :2].shape)
        around[..., -1] *= rng.random(around.shape[:2]) > _LEFT_OUT
        heard = ends.standardised(self._heard[index], self.mean, self.deviation)
        inputs = {"heard": heard, "seconds": (self._seconds[index] * tempo).astype(np.float32), "around": around}
        return inputs, np.stack([is_candidate, is_candidate & self._is_right[index]], axis=-1).astype(np.float32)


def learn(examples: Examples, width: int, epochs: int, seed: int) -> dict[str, np.ndarray]:
    """The weights of a network trained on examples: those of one of `ends.EndNetwork`."""
    from polyamp.models import note_ends, note_training

    build = functools.partial(note_ends.build, width, _HIDDEN, _NOISE, _DROPOUT)
    network = note_training.trained(build, note_ends.loss, examples, _BATCH, epochs, seed)
    return note_ends.weights_of(network) | {"heard_mean": examples.mean, "heard_deviation": examples.deviation}


def scores(pieces: Sequence[Piece], weights: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The mean note F1 with offsets of pieces, without and with networks of such weights."""
    from polyamp import metrics
    from polyamp.notes import ends

    network = ends.EndNetwork(weights)
    both = []
    for one in pieces:
        _, offset = ends.likeliest(one.found, one.may_end, network)  # Every note has candidates.
        changed = dataclasses.replace(one.found, offset=offset)
        both.append([metrics.note_metrics(one.true, notes)["note_offset_f1"] for notes in (one.found, changed)])
    before, after = np.mean(both, axis=0)
    return float(before), float(after)


if __name__ == "__main__":
    startup.run(main)
