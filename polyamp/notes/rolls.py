"""From notes to the rolls that models are trained on: onset, offset, frame, velocity and frame weights."""

import numpy as np

from polyamp import constants
from polyamp.hparams import MelodicHParams
from polyamp.notes.arrays import Notes


def to_rolls(notes: Notes, num_frames: int, hparams: MelodicHParams, total_time: float | None = None) -> dict[str, np.ndarray]:
    """Training targets of a clip.

    For `onset_mode` "length_ms" and "window" they equal `note_seq.sequences_lib.sequence_to_pianoroll`: frame index
    `floor(time * frames_per_second)`, and where notes of one pitch overlap, the one that starts last counts. In mode "triangle"
    onset and offset are `max(0, 1 - |t - time * frames_per_second| / (onset_window + 1))`, the largest over the notes of the
    pitch, so that the peak of the target carries the time between two frames.

    Args:
        notes: Notes; those outside the 88 piano pitches are ignored. One with a negative onset (see `crop`) shows its frames
            but no onset.
        num_frames: Length of the rolls.
        hparams: Label settings and hop.
        total_time: Seconds at which the clip ends; by default the last offset. In the modes other than "triangle" an offset
            in the last `offset_length` milliseconds is marked that much before the end, as note-seq does, and one after it
            not at all: that note goes on. A crop of a longer clip should give that clip's end (relative to the crop).

    Returns:
        float32 `[num_frames, 88]` each: "onset", "offset", "frame" in [0, 1]; "velocity" in [0, 1], 0 where no onset is;
        "frame_weight", 1 everywhere unless `decay_frame_weights`.
    """
    if total_time is None:
        total_time = float(notes.offset.max()) if len(notes) else 0.0
    notes = notes[(notes.pitch >= constants.MIN_MIDI_PITCH) & (notes.pitch <= constants.MAX_MIDI_PITCH)]
    painter = _Painter(notes.pitch - constants.MIN_MIDI_PITCH, num_frames)
    velocity = (notes.velocity / constants.MAX_MIDI_VELOCITY).astype(np.float32)
    heard = notes.onset >= 0
    start, end = _frame_span(notes.onset, notes.offset, hparams)
    rolls = {"frame": painter.paint(start, end, 1.0)}
    if hparams.onset_mode == "triangle":
        onset_time = notes.onset + hparams.onset_delay / 1000.0
        rolls["onset"], rolls["velocity"] = painter.triangles(onset_time, heard, velocity, hparams)
        rolls["offset"], _ = painter.triangles(notes.offset, np.ones_like(heard), velocity, hparams)
    else:
        onset_start, onset_end = _onset_span(notes, hparams)
        rolls["onset"] = painter.paint(onset_start, np.where(heard, onset_end, onset_start), 1.0)
        rolls["velocity"] = painter.paint(start, end, velocity) * rolls["onset"]
        offset_length = hparams.offset_length / 1000.0
        # As note-seq, so that the last offset is seen; but what goes on after the clip does not end in it.
        fitting = np.minimum(notes.offset, total_time - offset_length)
        offset_time = np.where(notes.offset > total_time, notes.offset, fitting)
        offset_span = _frame_span(offset_time, offset_time + offset_length, hparams)
        rolls["offset"] = painter.paint(*offset_span, 1.0)
    rolls["frame_weight"] = np.ones_like(rolls["frame"])
    if hparams.decay_frame_weights:
        rolls["frame_weight"] = painter.decaying_weights(*_onset_span(notes, hparams), end, hparams.frame_weight_onset)
    return rolls


def _frame_span(start: np.ndarray, end: np.ndarray, hparams: MelodicHParams) -> tuple[np.ndarray, np.ndarray]:
    """First frame and the one after the last of `[start, end)` seconds, at least one frame, as note-seq rounds them."""
    rate, occupancy = hparams.frames_per_second, hparams.min_frame_occupancy_for_label
    first = np.floor(start * rate)
    last = np.ceil(end * rate)
    if occupancy > 0:
        first = first + (first + 1 - start * rate < occupancy)
        # note-seq measures the occupancy of the end from the first frame, not from the last one; labels keep to it.
        last = last - (end * rate - first - 1 < occupancy)
    return first.astype(np.int64), np.maximum(first + 1, last).astype(np.int64)


def _onset_span(notes: Notes, hparams: MelodicHParams) -> tuple[np.ndarray, np.ndarray]:
    """Frames that count as a note's onset; in mode "triangle" as in "length_ms" (only weights use it there)."""
    delay = hparams.onset_delay / 1000.0
    start, end = notes.onset + delay, notes.offset + delay
    if hparams.onset_mode == "window":
        middle, _ = _frame_span(start, end, hparams)
        return middle - hparams.onset_window, middle + hparams.onset_window + 1
    return _frame_span(start, np.minimum(end, start + hparams.onset_length / 1000.0), hparams)


def cells(start: np.ndarray, end: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Which cells of a roll the spans of notes cover.

    Args:
        start, end: Frames, int64 `[notes]`; the first, and that after the last.
        num_frames: Of the roll, to which spans are clipped.

    Returns:
        Frame and index of the note of every cell, int64 `[cells]` each, in the order of the notes.
    """
    start, end = np.clip(start, 0, num_frames), np.clip(end, 0, num_frames)
    length = np.maximum(end - start, 0)
    note = np.repeat(np.arange(len(start)), length)
    return np.arange(len(note)) - (np.cumsum(length) - length)[note] + start[note], note


class _Painter:
    """Draws spans of frames, one per note, into rolls; where they overlap the later note covers the earlier."""

    def __init__(self, column: np.ndarray, num_frames: int):
        self._column = column  # [notes], 0 to 87
        self._shape = (num_frames, constants.NUM_PITCHES)

    def paint(self, start: np.ndarray, end: np.ndarray, value: float | np.ndarray) -> np.ndarray:
        """A roll of zeros with each note's span set to `value` (one, or one per note)."""
        roll = np.zeros(self._shape, np.float32)
        frame, note = cells(start, end, len(roll))
        # numpy promises that of several values for one index the last is kept.
        roll[frame, self._column[note]] = value if np.isscalar(value) else np.asarray(value)[note]
        return roll

    def decaying_weights(self, start: np.ndarray, onset_end: np.ndarray, end: np.ndarray, top: float) -> np.ndarray:
        """Weight `top` on onset frames, then `top / 1, top / 2, ...` to the note's end; 1 elsewhere."""
        roll = np.ones(self._shape, np.float32)
        frame, note = cells(start, np.maximum(onset_end, end), len(roll))
        since = np.maximum(frame - onset_end[note] + 1, 1)
        roll[frame, self._column[note]] = top / since
        return roll

    def triangles(
        self, time: np.ndarray, heard: np.ndarray, velocity: np.ndarray, hparams: MelodicHParams
    ) -> tuple[np.ndarray, np.ndarray]:
        """A roll of triangles around `time` seconds of the notes that are `heard`, and the velocity of the nearest note."""
        centre = time * hparams.frames_per_second
        half_width = hparams.onset_window + 1
        first = np.ceil(centre - half_width).astype(np.int64)
        last = np.floor(centre + half_width).astype(np.int64)
        frame, note = cells(first, np.where(heard, last + 1, first), self._shape[0])
        height = 1.0 - np.abs(frame - centre[note]) / half_width
        frame, note, height = frame[height > 0], note[height > 0], height[height > 0]
        order = np.argsort(height, kind="stable")  # The highest, that is the nearest, is written last and stays.
        frame, note = frame[order], note[order]
        roll, velocities = np.zeros(self._shape, np.float32), np.zeros(self._shape, np.float32)
        roll[frame, self._column[note]] = height[order]
        velocities[frame, self._column[note]] = velocity[note]
        return roll, velocities
