"""Live transcription with an Autoregressive model: samples in as they come, note events out as soon as they are known."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from polyamp import checkpoint, constants, state_stream
from polyamp.audio import reading
from polyamp.autoregressive_hparams import AutoregressiveHParams
from polyamp.errors import DataError
from polyamp.notes import Notes, arrays, running_strikes, states
from polyamp.notes.dynamics import RunningVelocities
from polyamp.notes.running_strikes import RunningStrikes
from polyamp.notes.states import StateFrame
from polyamp.state_stream import StateNetwork, StateStream


@dataclasses.dataclass(frozen=True)
class NoteEvent:
    """The begin or the end of a note.

    Attributes:
        time: Seconds since the start of the stream at which it happened. Told `latency_ms` after its frame, before which
            `predict_strikes` may date it by up to 50 ms.
        pitch: MIDI pitch.
        velocity: MIDI velocity 1 to 127 of a begin, 0 of an end.
    """

    time: float
    pitch: int
    velocity: int

    @property
    def is_on(self) -> bool:
        """Whether the note begins."""
        return self.velocity > 0


class StreamingTranscriber:
    """Transcribes a stream of 16 kHz mono audio in blocks of any size.

    The events are those of the whole file (`transcribe.transcribe`), whatever the blocks: all that the model remembers is kept
    from one block to the next, in memory that does not grow.

        transcriber = StreamingTranscriber.load()
        for block in blocks:
            for event in transcriber.push(block): ...
        for event in transcriber.finish(): ...

    Args:
        network: The model.
    """

    def __init__(self, network: StateNetwork):
        self._hparams = network.hparams
        self._stream = StateStream(network)
        self._begun = np.full(constants.NUM_PITCHES, np.nan)  # When the notes that sound began, seconds.
        self._ended = np.full(constants.NUM_PITCHES, -np.inf)  # When the last note of each pitch ended, seconds.
        self._strikes = _strikes(self._hparams)
        self._velocities = RunningVelocities(0.0 if self._strikes else self._hparams.velocity_smoothing)
        self._is_finished = False

    @classmethod
    def load(cls, model_dir: str | None = None, load_id: str = "*", **overrides: object) -> "StreamingTranscriber":
        """One with trained weights: those that come with the package, or of a training.

        Args:
            model_dir, load_id: As `checkpoint.load_model`.
            overrides: Settings, such as `a4_hz=432.0` for an instrument that is tuned so; the names are those of `--hparams`.

        Raises:
            CheckpointError, HParamsError: As `checkpoint.load_model`.
        """
        return cls(state_stream.load(*checkpoint.locate("AUTOREGRESSIVE", model_dir, load_id, overrides=overrides)))

    @property
    def hop_length(self) -> int:
        """Samples from frame to frame: how often there can be something new."""
        return self._hparams.hop_length

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: from an event to when all samples that tell it have been heard (see the hyperparameters)."""
        return self._hparams.latency_ms

    @property
    def a4_hz(self) -> float | None:
        """The tuning that it hears as in tune, in Hz of A4; None if its model can be told no other than 440."""
        return self._hparams.told_a4_hz

    def push(self, samples: ArrayLike) -> list[NoteEvent]:
        """Hears the next samples and returns what they tell, in order of frames.

        Args:
            samples: float, in [-1, 1], or signed integers of their type's full range, `[samples]`; any number of them.

        Raises:
            AudioError: The samples are of another type.
            DataError: The samples are not a flat array, not finite or far beyond full scale, or the stream has been finished.
        """
        block = reading.as_float(samples)
        if self._is_finished:
            raise DataError("the stream has been finished; start a new transcriber for another one.")
        if block.ndim != 1:
            raise DataError(f"a block of a stream must be a flat array of samples; this one is of shape {block.shape}.")
        if not reading.are_in_range(block):
            raise DataError("a block of a stream has samples that are NaN, infinite or far beyond full scale.")
        return self._events(self._stream.push(block))

    def finish(self) -> list[NoteEvent]:
        """Ends the stream as if silence followed: what was still to tell, and the ends of the notes that still sound."""
        if self._is_finished:
            return []
        self._is_finished = True
        events = self._events(self._stream.finish())
        last = np.full(constants.NUM_PITCHES, float(self._stream.num_frames))
        return events + self._ends(~np.isnan(self._begun), last)

    def transcribe(self, blocks: Iterable[np.ndarray]) -> Notes:
        """The notes of a stream that is there from its beginning to its end, and that has been checked.

        Args:
            blocks: float32 `[samples]`, any number of them each.
        """
        return to_notes(self._all_events(blocks))

    def _all_events(self, blocks: Iterable[np.ndarray]) -> Iterator[NoteEvent]:
        for block in blocks:
            yield from self._events(self._stream.push(block))
        yield from self.finish()

    def _events(self, frames: Iterable[StateFrame]) -> list[NoteEvent]:
        """What the states of frames tell: of each frame ends first."""
        events: list[NoteEvent] = []
        for frame in self._strikes.next(frames) if self._strikes else frames:
            position = frame.number + frame.timing.astype(np.float64)
            events += self._ends(~np.isnan(self._begun) & (frame.state != states.SUSTAIN), position)
            begins = np.flatnonzero(frame.state >= states.ONSET)
            self._begun[begins] = np.maximum(self._seconds(position[begins]), self._ended[begins])
            heard = self._velocities.next(frame.number / self._hparams.frames_per_second, begins, frame.velocity[begins])
            velocities = arrays.to_midi_velocity(heard)
            for column, value in zip(begins.tolist(), velocities.tolist(), strict=True):
                begun = max(float(self._begun[column]), 0.0)
                events.append(NoteEvent(begun, column + constants.MIN_MIDI_PITCH, value))
        return events

    def _ends(self, ended: np.ndarray, position: np.ndarray) -> list[NoteEvent]:
        """Ends the notes of some pitches, bool `[88]`, at positions in frames, `[88]`."""
        columns = np.flatnonzero(ended)
        if not len(columns):
            return []
        times = np.maximum(self._seconds(position[columns]), self._begun[columns] + states.SHORTEST)
        self._begun[columns], self._ended[columns] = np.nan, times
        pitches = (columns + constants.MIN_MIDI_PITCH).tolist()
        return [NoteEvent(max(time, 0.0), pitch, 0) for time, pitch in zip(times.tolist(), pitches, strict=True)]

    def _seconds(self, position: np.ndarray) -> np.ndarray:
        return position / self._hparams.frames_per_second - self._hparams.onset_bias_ms / 1000.0


def _strikes(hparams: AutoregressiveHParams) -> RunningStrikes | None:
    """What moves onsets and velocities, if `predict_strikes` says so."""
    if not hparams.predict_strikes:
        return None
    return RunningStrikes(running_strikes.load(hparams.predict_strikes), hparams.frames_per_second)


def to_notes(events: Iterable[NoteEvent]) -> Notes:
    """The notes of all events of a stream, in the order in which they came; one that has no end is left out."""
    sounding: dict[int, NoteEvent] = {}
    rows = []
    for event in events:
        begun = sounding.pop(event.pitch, None)
        if event.is_on:
            sounding[event.pitch] = event
        elif begun is not None and event.time > begun.time:
            rows.append((begun.time, event.time, event.pitch, begun.velocity))
    return Notes.of(*np.array(rows).reshape(-1, 4).T)
