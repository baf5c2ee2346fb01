"""Notes as arrays, and their ways to and from rolls, NoteSequences and MIDI; numpy only (note-seq for files)."""

import dataclasses
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Notes:
    """Notes as parallel arrays of one length.

    Attributes:
        onset: Seconds, float64.
        offset: Seconds, float64; never before `onset`.
        pitch: MIDI pitch 0 to 127, int64.
        velocity: MIDI velocity 0 to 127, int64.
        program: General MIDI program 0 to 127, int64.
    """

    onset: np.ndarray
    offset: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray
