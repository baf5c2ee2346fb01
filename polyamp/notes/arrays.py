"""The one representation of notes inside the program: parallel arrays, in seconds, sorted by onset."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from polyamp import constants
from polyamp.errors import DataError

DEFAULT_VELOCITY = 64
UNKNOWN_VELOCITY = 0  # Of labels that do not say how loud a note is; nothing is learned from it.


@dataclasses.dataclass(frozen=True, eq=False)
class Notes:
    """Notes as parallel arrays of one length, sorted by onset, then pitch. Build them with `Notes.of`, which checks.

    Attributes:
        onset: Seconds, float64; negative only for notes that `crop(clip=False)` cut.
        offset: Seconds, float64; never before `onset`.
        pitch: MIDI pitch 0 to 127, int64.
        velocity: MIDI velocity 1 to 127, int64; 0 where nobody knows it.
        program: General MIDI program 0 to 127, int64.
    """

    onset: np.ndarray
    offset: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    program: np.ndarray

    @classmethod
    def of(
        cls,
        onset: ArrayLike,
        offset: ArrayLike,
        pitch: ArrayLike,
        velocity: ArrayLike | None = None,
        program: ArrayLike | None = None,
    ) -> "Notes":
        """Checks, converts and sorts.

        Args:
            onset: Seconds, `[notes]`.
            offset: Seconds, `[notes]`.
            pitch: MIDI pitches, `[notes]`.
            velocity: MIDI velocities, `[notes]` or one for all; 64 where absent.
            program: General MIDI programs, `[notes]` or one for all; 0 (piano) where absent.

        Raises:
            DataError: Lengths differ, or a value is not finite or out of its range; names the first bad note.
        """
        onset = np.asarray(onset, np.float64)
        columns = {
            "onset": onset,
            "offset": np.asarray(offset, np.float64),
            "pitch": np.asarray(pitch),
            "velocity": np.asarray(DEFAULT_VELOCITY if velocity is None else velocity),
            "program": np.asarray(constants.DEFAULT_PROGRAM if program is None else program),
        }
        for name in ("velocity", "program"):
            if columns[name].ndim == 0:
                columns[name] = np.broadcast_to(columns[name], onset.shape)
        if onset.ndim != 1 or any(column.shape != onset.shape for column in columns.values()):
            shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
            raise DataError(f"notes need one value each per note, as flat lists of one length; got {shapes}.")
        _check_columns(columns)
        order = np.lexsort((columns["pitch"], onset))
        integers = {name: columns[name].astype(np.int64)[order] for name in ("pitch", "velocity", "program")}
        return cls(onset=onset[order], offset=columns["offset"][order], **integers)

    @classmethod
    def empty(cls) -> "Notes":
        """No notes at all."""
        return cls.of([], [], [])

    def __len__(self) -> int:
        return len(self.onset)

    def __getitem__(self, index: np.ndarray | slice) -> "Notes":
        """The notes that a boolean mask, an array of ascending indices or a slice selects; `TypeError` for a single index."""
        if not isinstance(index, slice) and np.ndim(index) != 1:
            raise TypeError("notes are selected by masks, arrays of indices and slices; single ones are rows of the arrays.")
        return Notes(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def __eq__(self, other: object) -> bool:
        """Whether all notes are the same in all fields."""
        if not isinstance(other, Notes):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    __hash__ = None  # type: ignore[assignment]  # Arrays are mutable.


def _check_columns(columns: dict[str, np.ndarray]) -> None:
    """Raises `DataError` for the first note with an impossible value."""
    for name, column in columns.items():
        if name in ("onset", "offset"):
            bad, due = ~(np.isfinite(column) & (column >= 0)), "a number of seconds, 0 or later"
        else:
            bad, due = ~((column >= 0) & (column <= 127) & (column == np.floor(column))), "a whole number from 0 to 127"
        if bad.any():
            index = int(np.argmax(bad))
            raise DataError(f"note {index + 1} has {name} {column[index]}; it must be {due}.")
    early = columns["offset"] < columns["onset"]
    if early.any():
        index = int(np.argmax(early))
        times = f"{columns['offset'][index]:.6g} s, before it starts at {columns['onset'][index]:.6g} s"
        raise DataError(f"note {index + 1} ends at {times}.")


def concatenate(parts: Sequence[Notes]) -> Notes:
    """All notes of all parts, sorted again."""
    if not parts:
        return Notes.empty()
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Notes)]
    joined = Notes(*columns)
    return joined[np.lexsort((joined.pitch, joined.onset))]


def crop(notes: Notes, start: float, end: float, clip: bool = True) -> Notes:
    """The notes that sound in `[start, end)`, in time relative to `start`.

    Args:
        notes: Notes.
        start: Seconds.
        end: Seconds; after `start`.
        clip: Cut onsets to 0 and offsets to `end - start`. Without it a note that began before `start` keeps its negative
            onset, by which `to_rolls` knows to show it sounding but not starting.

    Returns:
        The notes; one that ends exactly at `start` is out, unless it also starts there.
    """
    inside = notes[(notes.onset < end) & ((notes.offset > start) | (notes.onset >= start))]
    onset, offset = inside.onset - start, inside.offset - start
    if clip:
        onset, offset = np.maximum(onset, 0.0), np.minimum(offset, end - start)
    moved = dataclasses.replace(inside, onset=onset, offset=offset)
    return moved[np.lexsort((moved.pitch, onset))]


def to_midi_velocity(velocity: np.ndarray) -> np.ndarray:
    """MIDI velocities 1 to 127 of velocities in [0, 1]."""
    scaled = np.rint(np.clip(np.nan_to_num(velocity), 0, 1) * constants.MAX_MIDI_VELOCITY)
    return np.maximum(scaled, 1).astype(np.int64)


def listed(notes: Notes) -> list[dict[str, Any]]:
    """Notes for a JSON file: "onset" and "offset" in seconds, to 0.1 ms, MIDI "pitch" and "velocity" of each."""
    columns = {"onset": notes.onset.round(4), "offset": notes.offset.round(4), "pitch": notes.pitch, "velocity": notes.velocity}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def shifted(notes: Notes, seconds: float) -> Notes:
    """Notes that come later by so much."""
    return dataclasses.replace(notes, onset=notes.onset + seconds, offset=notes.offset + seconds)


def stretched(notes: Notes, factor: float) -> Notes:
    """Notes of a recording that is played so that it lasts `factor` times as long."""
    if factor == 1.0:
        return notes
    return dataclasses.replace(notes, onset=notes.onset * factor, offset=notes.offset * factor)
