"""From audio to notes with any of the models, in pieces of constant size: the one path that predict and evaluate share."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from polyamp import constants, light, notes, state_stream, streaming
from polyamp.audio import level
from polyamp.audio.reading import Blocks
from polyamp.data.note_lists import note_list
from polyamp.hparams import AutoregressiveHParams, FullHParams, MelodicHParams, TimbreHParams
from polyamp.notes import Notes, instruments, running_strikes, states
from polyamp.notes.dynamics import running_velocities
from polyamp.notes.growing_rolls import GrowingRolls, Rolls
from polyamp.roll_stream import RollNetwork
from polyamp.state_stream import StateNetwork
from polyamp.windows import predict_rolls, window_frames, windows

# Each new size may cost a compilation.
_LIST_STEP = 64  # Lists of notes are padded to multiples of so many,
_FRAME_STEP = 128  # and the frames of a recording's last window.

if TYPE_CHECKING:
    import keras

Model: TypeAlias = "keras.Model | light.LightModel | StateNetwork"


def transcribe(model: Model, blocks: Blocks, hparams: MelodicHParams) -> Notes:
    """The notes of a recording, with programs if the model is a Full one.

    Args:
        model: A Melodic, Full or Autoregressive model.
        blocks: Gives the audio, 16 kHz mono float32, in blocks of any length; called again for each part of a Full model, so
            that no recording has to fit into memory.
        hparams: The model's.
    """
    if isinstance(hparams, AutoregressiveHParams):
        if isinstance(model, StateNetwork):
            return streaming.StreamingTranscriber(dataclasses.replace(model, hparams=hparams)).transcribe(blocks())
        return notes_of_states(predict_states(model, blocks(), hparams), hparams)
    heard, stretch = as_heard(blocks, hparams)
    found = notes.from_rolls(rolls_of(model, heard, hparams), hparams)
    if isinstance(hparams, FullHParams):
        found = with_programs(model, heard, found, hparams)
    return notes.stretched(found, 1 / stretch)


def as_heard(blocks: Blocks, hparams: MelodicHParams) -> tuple[level.Measured, float]:
    """A recording as a model should hear it, apart from its level and balance, and by which factor it lasts longer then.

    With the peaks that it has lost if `predict_declip`, without crackle if `predict_declick`, in tune if `predict_in_tune`.
    """
    measured = level.Measured(blocks)
    if hparams.predict_declip:
        measured = measured.without_clipping()
    if hparams.predict_declick:
        measured = measured.without_clicks()
    return measured.in_tune() if hparams.predict_in_tune else (measured, 1.0)


def for_rolls(blocks: Blocks, hparams: MelodicHParams) -> Blocks:
    """A recording at the level at which a model finds notes, without the share `predict_balance` of its colour."""
    if hparams.predict_balance:
        measured = blocks if isinstance(blocks, level.Measured) else level.Measured(blocks)
        blocks = measured.balanced(hparams.predict_balance, hparams.predict_balance_of)
    return level.brought_to(blocks, hparams.predict_level_db)


def rolls_of(model: Model, blocks: Blocks, hparams: MelodicHParams) -> GrowingRolls:
    """What a Melodic or Full model answers for a recording.

    See `windows.predict_rolls`, and `polyamp.roll_stream` for what does without Keras.
    """
    heard = for_rolls(blocks, hparams)
    rolls_part = part(model, light.ROLLS, hparams)
    if isinstance(rolls_part, RollNetwork):
        return rolls_part.predict(heard())
    return predict_rolls(rolls_part, heard(), hparams)


def rolls_of_examples(model: Model, examples_path: str, hparams: MelodicHParams) -> Iterator[tuple[Notes, Rolls]]:
    """Of each example of TFRecords its true notes, and what a model answers; both as predictions hear it.

    Args:
        model: A Melodic or Full model; or an Autoregressive one, of which it is as of `predict_states`.
        examples_path: The TFRecords.
        hparams: The model's.
    """
    from tqdm import tqdm

    from polyamp.data import pipeline

    for example in tqdm(pipeline.whole_examples(examples_path), unit="example", disable=None):
        if isinstance(hparams, AutoregressiveHParams):
            yield example.notes, predict_states(model, [example.audio], hparams)
            continue
        heard, stretch = as_heard(functools.partial(_one_block, example.audio), hparams)
        yield notes.stretched(example.notes, stretch), rolls_of(model, heard, hparams)


def _one_block(audio: np.ndarray) -> list[np.ndarray]:
    return [audio]


def with_programs(model: Model, blocks: Blocks, found: Notes, hparams: FullHParams) -> Notes:
    """Notes that a Full model has found with the programs of the families that it hears in them."""
    posteriors = instruments.choose_families(predict_families(model, blocks, found, hparams), found, hparams)
    return instruments.with_programs(found, posteriors, hparams)


def part(model: Model, name: str, hparams: MelodicHParams) -> Any:
    """The part of a model, on whatever it runs, with that name: see `polyamp.models.parts`."""
    if isinstance(model, light.LightModel):
        return model.part(name)
    from polyamp.models import parts  # Imports Keras.

    return parts.part(model, name, hparams)


def predict_states(model: Model, blocks: Iterable[np.ndarray], hparams: AutoregressiveHParams) -> dict[str, np.ndarray]:
    """What an Autoregressive model answers for audio of any length, its recurrence going on from window to window.

    The audio counts as preceded and followed by silence; the answers do not depend on where windows begin.

    Args:
        model: An Autoregressive model.
        blocks: The audio, 16 kHz mono float32 [samples], in blocks of any length.
        hparams: The model's.

    Returns:
        "state" int32, "velocity", "timing" and "onset" float32, each `[1 + samples // hop_length, 88]`.
    """
    if isinstance(model, StateNetwork):
        return model.predict(blocks)
    recurrent = part(model, "states", hparams)
    carry = recurrent.initial_carry()
    parts: list[dict[str, np.ndarray]] = []
    for features, is_last in _with_last(acoustic_features(model, blocks, hparams)):
        frames = features.shape[1]
        if is_last:
            more = [(0, 0), (0, -frames % _FRAME_STEP)] + [(0, 0)] * (features.ndim - 2)
            features = np.pad(features, more, "edge")
        answer = recurrent.predict_on_batch({"features": features, "carry": carry})
        carry = answer.pop("carry")
        parts.append({name: roll[0, :frames] for name, roll in answer.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def notes_of_states(rolls: Mapping[str, np.ndarray], hparams: AutoregressiveHParams, rounded: bool = False) -> Notes:
    """The notes that an Autoregressive model's answers mean.

    Args:
        rolls: As `predict_states` gives them; "onset" is read only by `predict_strikes`.
        hparams: The model's.
        rounded: Times are those of frames, not between them, and not moved by `onset_bias_ms`.
    """
    state, rate = rolls["state"], hparams.frames_per_second
    if hparams.predict_strikes:
        rolls = running_strikes.as_struck(rolls, hparams.predict_strikes, rate)
        velocity = rolls["velocity"]
    else:
        velocity = running_velocities(state >= states.ONSET, rolls["velocity"], rate, hparams.velocity_smoothing)
    if rounded:
        return states.to_notes(state, velocity, rate)
    return states.to_notes(state, velocity, rate, hparams.onset_bias_ms, rolls["timing"])


_Item = TypeVar("_Item")


def _with_last(items: Iterable[_Item]) -> Iterator[tuple[_Item, bool]]:
    """Each item, and whether it is the last."""
    rest = iter(items)
    item = next(rest, None)
    while item is not None:
        following = next(rest, None)
        yield item, following is None
        item = following


def acoustic_features(model: Model, blocks: Iterable[np.ndarray], hparams: AutoregressiveHParams) -> Iterator[np.ndarray]:
    """What an Autoregressive model's recurrence hears, window after window, `[1, time, ...]`; balanced if `predict_balance`.

    Args:
        model: An Autoregressive model.
        blocks: The audio, 16 kHz mono float32 [samples], in blocks of any length.
        hparams: The model's.
    """
    acoustic = part(model, "features", hparams)
    core, margin = window_frames(hparams)[0], hparams.margin_frames
    for window, kept in windows(state_stream.balanced(blocks, hparams), core, margin, hparams.hop_length):
        yield acoustic.predict_on_batch(window[np.newaxis])[:, margin : margin + kept]


def predict_families(model: Model, blocks: Blocks, of: Notes, hparams: TimbreHParams) -> np.ndarray:
    """Probabilities of the families of given notes, `[notes, 12]`, each note by itself, of a recording at the expected level.

    Args:
        model: A Timbre or Full model.
        blocks: Gives the audio, 16 kHz mono float32, in blocks of any length.
        of: Notes in seconds from its start. Those outside the piano's range get zeros.
        hparams: The model's.
    """
    families_part = part(model, light.FAMILIES, hparams)
    hop, rate = hparams.hop_length, hparams.frames_per_second
    core, margin = window_frames(hparams)
    on_piano = (of.pitch >= constants.MIN_MIDI_PITCH) & (of.pitch <= constants.MAX_MIDI_PITCH)
    probabilities = np.zeros((len(of), constants.NUM_FAMILIES), np.float32)
    first = 0
    heard_at_level = level.brought_to(blocks, hparams.timbre_level_db)
    for (window, kept), is_last in _with_last(windows(heard_at_level(), core, margin, hop)):
        begin, end = (first - margin) / rate, (first - margin) / rate + len(window) / constants.SAMPLE_RATE
        heard = np.flatnonzero(on_piano & (of.onset < end) & (of.offset > begin))
        last = np.inf if is_last else (first + kept) / rate
        mine = (of.onset[heard] >= first / rate) & (of.onset[heard] < last)
        if mine.any():
            rows = note_list(notes.shifted(of[heard], -begin), -(-len(heard) // _LIST_STEP) * _LIST_STEP)
            answer = families_part.predict_on_batch({"audio": window[np.newaxis], "notes": rows[np.newaxis]})["family"][0]
            probabilities[heard[mine]] = answer[: len(heard)][mine]
        first += kept
    return probabilities
