"""What an Autoregressive model answers for a stream of audio, frame after frame, in numpy, in memory that does not grow."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polyamp import checkpoint_file, constants
from polyamp.audio import balance
from polyamp.errors import CheckpointError
from polyamp.hparams import AutoregressiveHParams, MelodicHParams
from polyamp.live_layers import RecurrenceStep, Weights, acoustic_step, spectrum_step
from polyamp.notes.states import StateFrame
from polyamp.windows import filled

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class StateNetwork:
    """An Autoregressive model without Keras: its weights by name (see `polyamp.live_layers`) and its settings."""

    weights: Weights
    hparams: AutoregressiveHParams

    def predict(self, blocks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """What the model answers for a whole recording; see `polyamp.transcribe.predict_states`."""
        stream = StateStream(self)
        parts = [_rolls(stream.push(block)) for block in blocks]
        parts.append(_rolls(stream.finish()))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rolls(frames: Iterable[StateFrame]) -> dict[str, np.ndarray]:
    """Frames, which may be none, as rolls `[time, 88]`."""
    found = list(frames)
    rolls = {"state": np.zeros((len(found), constants.NUM_PITCHES), np.int32)}
    for name in ("velocity", "timing", "onset"):
        rolls[name] = np.zeros(rolls["state"].shape, np.float32)
    for row, frame in enumerate(found):
        for name, roll in rolls.items():
            roll[row] = getattr(frame, name)
    return rolls


def of_model(model: "keras.Model", hparams: AutoregressiveHParams) -> StateNetwork:
    """The network of a Keras model, with the weights that it has now."""
    import keras

    return StateNetwork(
        {variable.path: np.array(keras.ops.convert_to_numpy(variable), np.float32) for variable in model.variables}, hparams
    )


def load(path: Path, hparams: MelodicHParams) -> StateNetwork:
    """The network of a checkpoint of these settings; see `checkpoint.locate`.

    Raises:
        CheckpointError: The file is missing or damaged, or its weights are not those of such a network.
    """
    assert isinstance(hparams, AutoregressiveHParams)
    network = StateNetwork(checkpoint_file.network_weights(path), hparams)
    try:
        StateStream(network)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit the settings beside it ({error}).") from error
    return network


class StateStream:
    """Answers frame by frame for 16 kHz mono audio that comes in blocks of any size.

    The answers are those for the whole recording, preceded and followed by silence, whatever the blocks.
    """

    def __init__(self, network: StateNetwork):
        hparams = network.hparams
        self._hop = hparams.hop_length
        self._window_length, self._spectrum = spectrum_step(hparams)
        self._acoustic = acoustic_step(network.weights, hparams)
        self._recurrence = RecurrenceStep(network.weights, hparams)
        self._ahead = hparams.lookahead_frames - hparams.label_shift  # Frames of the spectrum before a label's frame is known.
        self._window = np.zeros(self._window_length, np.float32)
        self._next_frame = -(self._window_length // 2 // self._hop)  # The first that hears anything of the stream.
        self._missing = _first_step(hparams)  # Samples, until its window is full,
        self._waiting: list[np.ndarray] = []  # and those that are there for it.
        self._balance = _balancing(hparams)
        self._received = 0  # Samples.
        silence = self._spectrum(self._window)
        for _ in range(hparams.margin_frames):
            self._acoustic(silence)

    @property
    def num_frames(self) -> int:
        """Of the stream so far, if it ended now."""
        return 1 + self._received // self._hop

    def push(self, block: np.ndarray) -> Iterator[StateFrame]:
        """Hears the next samples, float32 `[samples]` in [-1, 1], and yields the frames that they tell.

        The samples are heard as the frames are taken; take all of them before the next block.
        """
        self._received += len(block)
        yield from self._hear(block)

    def finish(self) -> Iterator[StateFrame]:
        """Yields the frames that were still to tell, as if silence followed."""
        if self._waiting:
            self._waiting = [self._balance(np.concatenate(self._waiting))]
        self._balance = _unchanged  # What follows is silence.
        silence = np.zeros(self._hop, np.float32)
        while self._next_frame - self._ahead < self.num_frames:
            for frame in self._hear(silence):
                if frame.number < self.num_frames:
                    yield frame

    def _hear(self, block: np.ndarray) -> Iterator[StateFrame]:
        """Fills the window and takes a step whenever it is full."""
        while True:
            if self._missing == 0:
                features = self._acoustic(self._spectrum(self._window))
                number = self._next_frame - self._ahead
                self._next_frame += 1
                self._missing = self._hop
                if number >= 0:
                    yield StateFrame(number, *self._recurrence(features))
            if not len(block):
                return
            part, block = block[: self._missing], block[self._missing :]
            self._waiting.append(part.copy())  # The block may change after that.
            self._missing -= len(part)
            if self._missing == 0:
                self._fill(self._balance(np.concatenate(self._waiting)))
                self._waiting = []

    def _fill(self, step: np.ndarray) -> None:
        """Moves the window on by the samples of a step."""
        # Copied first, since the two overlap; a step may be longer than the window.
        kept = self._window[len(step) :].copy()
        self._window[: len(kept)] = kept
        self._window[len(kept) :] = step[-self._window_length :]


def balanced(blocks: Iterable[np.ndarray], hparams: AutoregressiveHParams) -> Iterator[np.ndarray]:
    """Audio as a `StateStream` hears it, with `predict_balance`, in blocks of other lengths."""
    if not hparams.predict_balance:
        yield from blocks
        return
    go_on, source = _balancing(hparams), iter(blocks)
    waiting, missing = np.zeros(0, np.float32), _first_step(hparams) or hparams.hop_length
    while len(waiting := filled(waiting, source, missing)) >= missing:
        yield go_on(waiting[:missing])
        waiting, missing = waiting[missing:], hparams.hop_length
    yield go_on(waiting)


def _first_step(hparams: AutoregressiveHParams) -> int:
    """How many samples are to be heard before a window is full for the first time; from then on one is with every hop."""
    return hparams.window_length // 2 % hparams.hop_length


def _balancing(hparams: AutoregressiveHParams) -> Callable[[np.ndarray], np.ndarray]:
    """What samples that follow are to go through, step by step."""
    share = hparams.predict_balance
    return balance.Follower(share, hparams.predict_balance_of) if share else _unchanged


def _unchanged(samples: np.ndarray) -> np.ndarray:
    return samples
