"""Live transcription with an Autoregressive model: samples in as they come, note events out as soon as they are known."""

import dataclasses
from collections.abc import Iterable
from typing import cast

import keras
import numpy as np
from numpy.typing import ArrayLike

from polyamp import checkpoint, constants
from polyamp.errors import DataError
from polyamp.hparams import AutoregressiveHParams
from polyamp.live_layers import RecurrenceStep, acoustic_step, spectrum_step
from polyamp.models import autoregressive
from polyamp.notes import Notes, states

_SHORTEST = 1e-3  # Seconds; as `states.to_notes` has it.


@dataclasses.dataclass(frozen=True)
class NoteEvent:
    """The begin or the end of a note.

    Attributes:
        time: Seconds since the start of the stream at which it happened; heard `latency_ms` later.
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
        model: An Autoregressive model.
        hparams: Its settings.
    """

    def __init__(self, model: keras.Model, hparams: AutoregressiveHParams):
        network = autoregressive.network(model)
        self._hparams = hparams
        self._window_length, self._spectrum = spectrum_step(model.get_layer("spectrogram"))
        self._acoustic = acoustic_step(network.get_layer("acoustic"))
        self._recurrence = RecurrenceStep(network.get_layer("recurrence"))
        self._ahead = hparams.lookahead_frames - hparams.label_shift  # Frames of the spectrum before a label's frame is known.
        self._window = np.zeros(self._window_length, np.float32)
        half = self._window_length // 2
        self._next_frame = -(half // hparams.hop_length)  # The first that hears anything of the stream.
        self._missing = half % hparams.hop_length  # Samples, until its window is full.
        self._received = 0  # Samples.
        self._begun = np.full(constants.NUM_PITCHES, np.nan)  # When the notes that sound began, seconds.
        self._is_finished = False
        silence = self._spectrum(self._window)
        for _ in range(hparams.margin_frames):
            self._acoustic(silence)

    @classmethod
    def load(cls, model_dir: str | None = None, load_id: str = "*") -> "StreamingTranscriber":
        """One with trained weights: those that come with the package, or of a training; see `checkpoint.load_model`."""
        loaded = checkpoint.load_model("AUTOREGRESSIVE", model_dir, load_id)
        return cls(loaded.model, cast(AutoregressiveHParams, loaded.hparams))

    @property
    def hop_length(self) -> int:
        """Samples from frame to frame: how often there can be something new."""
        return self._hparams.hop_length

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: from an event to when all samples that tell it have been heard (see the hyperparameters)."""
        return self._hparams.latency_ms

    def push(self, samples: ArrayLike) -> list[NoteEvent]:
        """Hears the next samples and returns what they tell, in order of frames.

        Args:
            samples: float, in [-1, 1], `[samples]`; any number of them.

        Raises:
            DataError: The samples are not a flat array of finite numbers, or the stream has been finished.
        """
        block = np.asarray(samples, np.float32)
        if self._is_finished:
            raise DataError("the stream has been finished; start a new transcriber for another one.")
        if block.ndim != 1 or not np.isfinite(block).all():
            raise DataError(f"a block of a stream must be a flat array of finite samples; got one of shape {block.shape}.")
        self._received += len(block)
        return self._hear(block)

    def finish(self) -> list[NoteEvent]:
        """Ends the stream as if silence followed: what was still to tell, and the ends of the notes that still sound."""
        if self._is_finished:
            return []
        num_frames = 1 + self._received // self._hparams.hop_length
        events: list[NoteEvent] = []
        silence = np.zeros(self._hparams.hop_length, np.float32)
        while self._next_frame - self._ahead < num_frames:
            events += self._hear(silence, num_frames)
        self._is_finished = True
        return events + self._ends(~np.isnan(self._begun), np.full(constants.NUM_PITCHES, float(num_frames)))

    def _hear(self, block: np.ndarray, num_frames: int | None = None) -> list[NoteEvent]:
        """Fills the window and takes a step whenever it is full; answers for `num_frames` frames at most."""
        events: list[NoteEvent] = []
        while True:
            if self._missing == 0:
                features = self._acoustic(self._spectrum(self._window))
                label = self._next_frame - self._ahead
                if label >= 0 and (num_frames is None or label < num_frames):
                    events += self._events(label, *self._recurrence(features))
                self._next_frame += 1
                self._missing = self._hparams.hop_length
            if not len(block):
                return events
            part, block = block[: self._missing], block[self._missing :]
            # Copied first, since the two overlap; a hop may be longer than the window.
            kept = self._window[len(part) :].copy()
            self._window[: len(kept)] = kept
            self._window[len(kept) :] = part[-self._window_length :]
            self._missing -= len(part)

    def _events(self, frame: int, state: np.ndarray, velocity: np.ndarray, timing: np.ndarray) -> list[NoteEvent]:
        """What the states of a frame tell: ends first."""
        position = frame + timing.astype(np.float64)
        events = self._ends(~np.isnan(self._begun) & (state != states.SUSTAIN), position)
        begins = np.flatnonzero(state >= states.ONSET)
        if len(begins):
            self._begun[begins] = self._seconds(position[begins])
            velocities = states.to_midi_velocity(velocity[begins])
            for column, value in zip(begins.tolist(), velocities.tolist(), strict=True):
                begun = max(float(self._begun[column]), 0.0)
                events.append(NoteEvent(begun, column + constants.MIN_MIDI_PITCH, value))
        return events

    def _ends(self, ended: np.ndarray, position: np.ndarray) -> list[NoteEvent]:
        """Ends the notes of some pitches, bool `[88]`, at positions in frames, `[88]`."""
        columns = np.flatnonzero(ended)
        if not len(columns):
            return []
        times = np.maximum(self._seconds(position[columns]), self._begun[columns] + _SHORTEST)
        self._begun[columns] = np.nan
        pitches = (columns + constants.MIN_MIDI_PITCH).tolist()
        return [NoteEvent(max(time, 0.0), pitch, 0) for time, pitch in zip(times.tolist(), pitches, strict=True)]

    def _seconds(self, position: np.ndarray) -> np.ndarray:
        return position / self._hparams.frames_per_second - self._hparams.onset_bias_ms / 1000.0


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
