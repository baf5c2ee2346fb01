"""A recording or a segment of one with its notes: what a TFRecord holds. Without TensorFlow, as is all that makes examples."""

import dataclasses

import numpy as np

from polyamp import constants
from polyamp.notes import Notes


@dataclasses.dataclass(frozen=True)
class Example:
    """One record: a recording or a segment of one.

    Attributes:
        id: Name of the recording, and for a segment where in it.
        audio: float32 [samples] at 16 kHz, nominally in [-1, 1].
        notes: In seconds from the start of `audio`. Notes that the segment's borders cut keep their real times, so their
            onsets may be negative and their offsets after the end of the audio.
        velocity_range: Lowest and highest velocity of the whole recording.
    """

    id: str
    audio: np.ndarray
    notes: Notes
    velocity_range: tuple[int, int]

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
    """Lowest and highest velocity, (0, 0) where there are no notes."""
    return (int(of.velocity.min()), int(of.velocity.max())) if len(of) else (0, 0)
