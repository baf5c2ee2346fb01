"""Learns when and how loud notes are struck, given what a model heard and the notes around, for `predict_strikes`.

    python scripts/fit_strikes.py --model_dir=runs --load_id=ID --examples_path='train.tfrecord-*' \\
        --validation_examples_path='validation.tfrecord-*' --output=strikes.npz
    python polyamp_runner.py --mode=predict --hparams='{"predict_strikes": "strikes.npz"}' ...

For `--model_type=AUTOREGRESSIVE` the notes around are those before (`polyamp.notes.running_strikes`), else those before and
after (`polyamp.notes.strikes`).

Each example is transcribed, once. Of every note found that is one of the true ones, a network learns how much later and
louder than heard it is. Training pieces are heard too well to learn much from, so velocities are disturbed as rooms and other
instruments would (smoothly over pitch, pitch by pitch, and note by note), and onsets as by mechanisms that strike soft
notes earlier or later than loud ones, and less exactly; some of the notes around are left out. With
--validation_examples_path note F1 is printed, without and with the networks.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.checkpoint import Loaded
    from polyamp.hparams import MelodicHParams
    from polyamp.notes import Notes
    from polyamp.notes.growing_rolls import Rolls

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models; by default those of the package.")
_MODEL_TYPE = flags.DEFINE_enum("model_type", "MELODIC", ["MELODIC", "AUTOREGRESSIVE"], "What hears.")
_LOAD_ID = flags.DEFINE_string("load_id", "*", "Which checkpoint, as for polyamp_runner.py.")
_LOAD_FULL = flags.DEFINE_bool("load_full", False, "It is a Full model's, of which the Melodic part is taken.")
_EXAMPLES_PATH = flags.DEFINE_string("examples_path", None, "TFRecords to learn from.", required=True)
_ONSETS = flags.DEFINE_string(
    "onsets_examples_path",
    None,
    "TFRecords of which only onsets are learned: real performances, so that these stay what they are.",
)
_VALIDATION = flags.DEFINE_string("validation_examples_path", None, "TFRecords to score, which are not learned from.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .npz.", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", 8, "How often every note is learned from.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 24, "Of the layers over pairs of notes.", lower_bound=1)
_NETWORKS = flags.DEFINE_integer("networks", 3, "How many are trained; the mean of what they say counts.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the network's first weights, and of what varies in training.", lower_bound=0)

_HIDDEN = 64
_BATCH = 512  # Notes.
_DROPOUT = 0.1
_LEFT_OUT = 0.3  # Share of the notes around.
_TEMPO = 0.2  # Most by which the log of a tempo varies.
_NEAR = 2.0  # Seconds; notes that far count a third of what is disturbed on the whole, which nobody could tell.

# Of velocities, units; each the most that a standard deviation is.
_SMOOTH, _OF_PITCHES, _OF_NOTES = 2.0, 3.0, 2.0
_WAVES, _PERIOD = 4, (5.0, 60.0)  # The smooth part is so many waves over pitch, of so many semitones.

# Of onsets.
_UNDISTURBED = 0.25  # Share of the notes.
_SLOPE = 0.02  # Seconds by which a note that is 40 units louder is later: standard deviation.
_JITTER, _SOFTNESS = 0.02, 2.0  # Seconds, the most; and how many times more that is for a note 40 units below 60, at most.
_ODD, _FAR = 0.03, (0.03, 0.12)  # Share of notes that begin so many seconds early or late, at most.


@dataclasses.dataclass(frozen=True)
class Piece:
    """A transcription, and what may be learned from it.

    Attributes:
        velocity: Of each note that was found, in units of MIDI velocity.
        own: What is known of each by itself: see `strikes.own` or `running_strikes.Begun`.
        around: The notes around it: see `context.around`.
        later, louder: What to add to onsets, seconds, and velocities; no number for what is none of the true notes.
    """

    velocity: np.ndarray
    own: np.ndarray
    around: np.ndarray
    later: np.ndarray
    louder: np.ndarray


def main(argv: Sequence[str]) -> int:
    """Writes the file; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _fit)


def _fit() -> None:
    startup.start_keras()
    from polyamp import atomic, predict, transcribe
    from polyamp.data import records
    from polyamp.errors import DataError
    from polyamp.models import note_training

    atomic.check_replaceable(_OUTPUT.value)
    for path in filter(None, (_EXAMPLES_PATH.value, _ONSETS.value, _VALIDATION.value)):
        records.check_labelled(records.expand_paths(path))
    loaded = predict.load(_MODEL_TYPE.value, _MODEL_DIR.value, _LOAD_ID.value, None, _LOAD_FULL.value, {})
    pieces = list(_transcribed(loaded, _EXAMPLES_PATH.value))
    if not any(np.isfinite(piece.later).any() for piece in pieces):
        raise DataError(f"{_EXAMPLES_PATH.value}: no note is found of which anything could be learned.")
    if _ONSETS.value:
        performances = _transcribed(loaded, _ONSETS.value)
        pieces += [dataclasses.replace(piece, louder=np.full_like(piece.louder, np.nan)) for piece in performances]
    examples = Examples(pieces, ends_follow=_MODEL_TYPE.value != "AUTOREGRESSIVE")
    networks = [learn(examples, _WIDTH.value, _EPOCHS.value, _SEED.value + number) for number in range(_NETWORKS.value)]
    note_training.write(_OUTPUT.value, networks)
    if _VALIDATION.value:
        heard = transcribe.rolls_of_examples(loaded.model, _VALIDATION.value, loaded.hparams)
        before, after = scores(heard, loaded.hparams, _OUTPUT.value)
        for name, values in before.items():
            print(f"{name}: {values:.4f}, with the networks {after[name]:.4f}")


def _transcribed(loaded: "Loaded", examples_path: str) -> "Iterator[Piece]":
    """What a model makes of examples, as predictions hear them."""
    from polyamp import transcribe

    for true, rolls in transcribe.rolls_of_examples(loaded.model, examples_path, loaded.hparams):
        yield piece(true, rolls, loaded.hparams)


def piece(true: "Notes", rolls: "Rolls", hparams: "MelodicHParams") -> Piece:
    """What may be learned from rolls, beside the true notes."""
    from polyamp.hparams import AutoregressiveHParams

    heard: Any = _begun if isinstance(hparams, AutoregressiveHParams) else _decoded
    onset, pitch, velocity, own, around = heard(rolls, hparams)
    later, louder = _beside(true, onset, pitch, velocity)
    return Piece(velocity, own, around, later, louder)


def _decoded(rolls: "Rolls", hparams: "MelodicHParams") -> tuple[np.ndarray, ...]:
    """Onsets, MIDI pitches, velocities, and what is known of notes and of those around, of a Melodic model's rolls."""
    from polyamp import notes
    from polyamp.notes import strikes

    as_heard = dataclasses.replace(hparams, predict_strikes="", predict_ends="", velocity_smoothing=0.0)
    found = notes.from_rolls(rolls, as_heard)
    return found.onset, found.pitch, found.velocity, strikes.own(found, rolls, as_heard), strikes.around(found)


def _begun(rolls: Mapping[str, np.ndarray], hparams: "MelodicHParams") -> tuple[np.ndarray, ...]:
    """The same of an Autoregressive model's rolls."""
    from polyamp import constants
    from polyamp.notes import context, running_strikes

    memory = running_strikes.Memory(hparams.frames_per_second)
    sizes = (4,), (running_strikes.NUM_OWN,), (running_strikes.BEFORE, context.NUM_AROUND)
    nothing = [np.zeros((0, *size), np.float32) for size in sizes]
    begun = [(some.heard, some.own, some.around) for some in map(memory.next, running_strikes.frames(rolls)) if some]
    heard, own, around = (np.concatenate(parts) for parts in zip(nothing, *begun, strict=True))
    return heard[:, 0], heard[:, 2] + constants.MIN_MIDI_PITCH, heard[:, 3], own, around


def _beside(true: "Notes", onset: np.ndarray, pitch: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much later and louder than found notes the true ones are; no number for what is none of these, or not known."""
    import mir_eval

    from polyamp.metrics.note import intervals_and_pitches
    from polyamp.notes.arrays import UNKNOWN_VELOCITY

    later, louder = np.full((2, len(onset)), np.nan)
    found = np.stack([onset, onset + 1], axis=1), mir_eval.util.midi_to_hz(pitch.astype(np.float64))
    for of_true, of_found in mir_eval.transcription.match_notes(*intervals_and_pitches(true), *found, offset_ratio=None):
        later[of_found] = true.onset[of_true] - onset[of_found]
        if true.velocity[of_true] != UNKNOWN_VELOCITY:
            louder[of_found] = true.velocity[of_true] - velocity[of_found]
    if np.isfinite(later).any():  # A recording may be late,
        later -= np.nanmedian(later)
    if np.isfinite(louder).any():  # and have another scale of loudness.
        louder -= np.nanmean(louder)
    return later, louder


class Examples:
    """All notes of pieces that something can be learned from.

    Args:
        pieces: What they are of.
        ends_follow: Notes keep their durations if their onsets are disturbed, so that these do not tell by how much. Ends that
            are told in frames, as is the end so far of what still sounds, would tell it if they moved: False for these.

    Attributes:
        notes: Their numbers.
        sizes: How many numbers are known of each by itself, and how many notes around.
    """

    def __init__(self, pieces: Sequence[Piece], ends_follow: bool = True):
        self._ends_follow = ends_follow
        self._own, self._around, self._velocity = (
            np.concatenate([getattr(one, name) for one in pieces]) for name in ("own", "around", "velocity")
        )
        self._truth = np.concatenate([np.stack([1e3 * one.later, one.louder], axis=-1) for one in pieces])
        self.notes = np.flatnonzero(np.isfinite(self._truth[:, 0]))
        self.sizes = self._own.shape[1], self._around.shape[1]

    def disturbed(self, notes: np.ndarray, rng: np.random.Generator) -> "tuple[dict[str, np.ndarray], np.ndarray]":
        """What the network takes of some notes, and what it is to learn (`note_strikes.loss`)."""
        own, around, truth = self._own[notes], self._around[notes], self._truth[notes]
        around[..., :2] *= np.exp(rng.uniform(-_TEMPO, _TEMPO, (len(notes), 1, 1)))
        around[..., 4] *= rng.random(around.shape[:2]) > _LEFT_OUT
        near = around[..., 4] * np.exp(-np.abs(around[..., 0]) / _NEAR)
        near = np.append(near, np.ones((len(notes), 1)), axis=1)  # The last is the note itself.
        near /= near.sum(axis=1, keepdims=True)
        interval = np.append(around[..., 2], np.zeros((len(notes), 1)), axis=1)
        velocity = self._velocity[notes, None] + 30 * np.append(around[..., 3], np.zeros((len(notes), 1)), axis=1)

        louder = colour(interval, rng)
        louder -= (louder * near).sum(axis=1, keepdims=True)
        around[..., 3] += (louder[:, :-1] - louder[:, -1:]) / 30
        own[:, 0] += louder[:, -1] / 30
        later, of_loudness = delay(velocity, rng)
        later -= (of_loudness * near).sum(axis=1, keepdims=True)
        moved = (later[:, :-1] - later[:, -1:])[..., np.newaxis]
        around[..., : 2 if self._ends_follow else 1] += moved
        truth = truth - np.stack([1e3 * later[:, -1], louder[:, -1]], axis=-1)
        return {"own": own, "around": around}, truth.astype(np.float32)


def colour(interval: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much louder than they are notes are heard, by how many semitones they lie above one of them, `[notes, around]`."""
    count = len(interval)
    smooth, of_pitches, of_notes = (rng.uniform(0, most, (count, 1)) for most in (_SMOOTH, _OF_PITCHES, _OF_NOTES))
    louder = of_notes * rng.normal(size=interval.shape)
    for _ in range(_WAVES):
        period = np.exp(rng.uniform(np.log(_PERIOD[0]), np.log(_PERIOD[1]), (count, 1)))
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        louder += smooth * np.sqrt(2 / _WAVES) * np.sin(2 * np.pi * interval / period + phase)
    pitch = np.rint(interval).astype(int) + 128
    return louder + of_pitches * np.take_along_axis(rng.normal(size=(count, 256)), pitch, axis=1)


def delay(velocity: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How many seconds later than they are notes of such velocities begin, `[notes, around]`, and what of it is loudness."""
    count = len(velocity)
    loudness = (velocity - 60) / 40
    slope, jitter = rng.normal(0, _SLOPE, (count, 1)), rng.uniform(0, _JITTER, (count, 1))
    softness, odd = rng.uniform(0, _SOFTNESS, (count, 1)), rng.uniform(0, _ODD, (count, 1))
    undisturbed = rng.random((count, 1)) < _UNDISTURBED
    of_loudness = np.where(undisturbed, 0, slope * loudness)
    later = of_loudness + jitter * (1 + softness * np.clip(-loudness, 0, 1.5)) * rng.normal(size=velocity.shape)
    far = rng.uniform(*_FAR, velocity.shape) * rng.choice([-1, 1], velocity.shape)
    later += far * (rng.random(velocity.shape) < odd * (1 + 2 * np.clip(-loudness, 0, 1)))
    return np.where(undisturbed, 0, later), of_loudness


def learn(examples: Examples, width: int, epochs: int, seed: int) -> dict[str, np.ndarray]:
    """The weights of a network trained on examples: those of one of `strike_network.StrikeNetwork`."""
    from polyamp.models import note_strikes, note_training

    build = functools.partial(note_strikes.build, width, _HIDDEN, _DROPOUT, *examples.sizes)
    network = note_training.trained(build, note_strikes.loss, examples, _BATCH, epochs, seed)
    return note_strikes.weights_of(network)


def scores(
    heard: "Iterator[tuple[Notes, Rolls]]", hparams: "MelodicHParams", which: str
) -> tuple[dict[str, float], dict[str, float]]:
    """The mean note F1 of pieces, by what has to be right, without and with networks of a file.

    Args:
        heard: Of each piece the true notes, and rolls.
        hparams: The model's.
        which: As `predict_strikes`.
    """
    from polyamp import metrics, notes, transcribe
    from polyamp.hparams import AutoregressiveHParams

    decode: Any = transcribe.notes_of_states if isinstance(hparams, AutoregressiveHParams) else notes.from_rolls
    names = {"note_onset_f1": "note F1", "note_offset_f1": "with offsets", "note_velocity_f1": "with offsets and velocities"}
    without, having = (dataclasses.replace(hparams, predict_strikes=some) for some in ("", which))
    both = [[metrics.note_metrics(true, decode(rolls, some)) for some in (without, having)] for true, rolls in heard]
    before, after = (
        {text: float(np.mean([one[side][name] for one in both])) for name, text in names.items()} for side in (0, 1)
    )
    return before, after


if __name__ == "__main__":
    startup.run(main)
