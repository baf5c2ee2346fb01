"""What a TFRecord holds: a recording or a segment of one with its notes, or one note. Without TensorFlow."""

import dataclasses

import numpy as np

from polyamp import constants
from polyamp.notes import Notes

NOTE_LENGTH = 4 * constants.SAMPLE_RATE  # Samples of each note in NSynth.
NOTE_SOURCES = ("acoustic", "electronic", "synthetic")  # How a note was made, in NSynth's order.
NOTE_QUALITIES = (  # What NSynth says of the sound, in its order.
    *("bright", "dark", "distortion", "fast_decay", "long_release"),
    *("multiphonic", "nonlinear_env", "percussive", "reverb", "tempo-synced"),
)


@dataclasses.dataclass(frozen=True)
class Example:
    """One record: a recording or a segment of one.

    Attributes:
        id: Name of the recording, and for a segment where in it.
        audio: float32 [samples] at 16 kHz, nominally in [-1, 1].
        notes: In seconds from the start of `audio`. Notes that the segment's borders cut keep their real times, so their
            onsets may be negative and their offsets after the end of the audio.
        velocity_range: Lowest and highest velocity of the whole recording.
        is_labelled: False if nobody knows the notes; there are none in `notes` then.
    """

    id: str
    audio: np.ndarray
    notes: Notes
    velocity_range: tuple[int, int]
    is_labelled: bool = True

    @property
    def duration(self) -> float:
        """Length of the audio in seconds."""
        return len(self.audio) / constants.SAMPLE_RATE

    @property
    def begun(self) -> Notes:
        """The notes that begin in the audio, cut at its end: what there is to find in it."""
        inside = self.notes[(self.notes.onset >= 0) & (self.notes.onset < self.duration)]
        return dataclasses.replace(inside, offset=np.minimum(inside.offset, self.duration))


def velocity_range(of: Notes) -> tuple[int, int]:
    """Lowest and highest velocity, all of MIDI's where none is known: other readers of records divide by the highest."""
    return (int(of.velocity.min()), int(of.velocity.max())) if of.velocity.any() else (0, constants.MAX_MIDI_VELOCITY)


@dataclasses.dataclass(frozen=True)
class NoteExample:
    """One note of one instrument, as in NSynth.

    Attributes:
        id: Name of the note.
        audio: float32 [64000] at 16 kHz, nominally in [-1, 1]: the note from its attack on, 4 s.
        pitch: MIDI pitch.
        velocity: MIDI velocity.
        family: One of `constants.FAMILIES`.
        instrument: Name of the instrument.
        source: One of `NOTE_SOURCES`.
        qualities: Some of `NOTE_QUALITIES`.
        number: Of the note, unique within a data set.
        instrument_number: Of the instrument, unique within a data set.
    """

    id: str
    audio: np.ndarray
    pitch: int
    velocity: int
    family: str
    instrument: str
    source: str
    qualities: tuple[str, ...] = ()
    number: int = 0
    instrument_number: int = 0
