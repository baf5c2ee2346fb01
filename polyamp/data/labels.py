"""Training targets in TensorFlow ops: the same rolls as `polyamp.notes.to_rolls`, for the input pipeline."""

import tensorflow as tf

from polyamp import constants
from polyamp.hparams import MelodicHParams

_NO_NOTE = -1


def to_rolls(
    onset: tf.Tensor,
    offset: tf.Tensor,
    pitch: tf.Tensor,
    velocity: tf.Tensor,
    num_frames: int | tf.Tensor,
    hparams: MelodicHParams,
    total_time: tf.Tensor | float | None = None,
) -> dict[str, tf.Tensor]:
    """Rolls of a clip; for what they hold see `polyamp.notes.to_rolls`, which these equal.

    Args:
        onset: Seconds, float64 [notes], in any order; negative for notes that began before the clip, which then show no onset.
        offset: Seconds, float64 [notes]. Where it lies after `total_time` the note goes on: no offset is shown.
        pitch: MIDI pitches, integers [notes]; those outside the 88 piano pitches are ignored.
        velocity: MIDI velocities, integers [notes].
        num_frames: Length of the rolls.
        hparams: Label settings and hop.
        total_time: Seconds at which the clip that the notes belong to ends; by default the last offset.

    Returns:
        float32 [num_frames, 88] each: "onset", "offset", "frame", "velocity", "frame_weight".
    """
    if total_time is None:
        total_time = tf.maximum(tf.reduce_max(offset), 0.0)
    notes = _Notes(onset, offset, pitch, velocity)
    canvas = _Canvas(notes.column, num_frames)
    heard = notes.onset >= 0
    start, end = _frame_span(notes.onset, notes.offset, hparams)
    active = canvas.last_note(start, end)
    rolls = {"frame": tf.cast(active != _NO_NOTE, tf.float32)}
    if hparams.onset_mode == "triangle":
        delay = hparams.onset_delay / 1000.0
        rolls["onset"], nearest = canvas.triangles(notes.onset + delay, heard, hparams)
        rolls["offset"], _ = canvas.triangles(notes.offset, tf.ones_like(heard), hparams)
        rolls["velocity"] = canvas.look_up(notes.velocity, nearest, 0.0)
    else:
        onset_start, onset_end = _onset_span(notes, hparams)
        rolls["onset"] = canvas.paint(onset_start, tf.where(heard, onset_end, onset_start))
        rolls["velocity"] = canvas.look_up(notes.velocity, active, 0.0) * rolls["onset"]
        rolls["offset"] = canvas.paint(*_offset_span(notes.offset, total_time, hparams))
    rolls["frame_weight"] = tf.ones_like(rolls["frame"])
    if hparams.decay_frame_weights:
        rolls["frame_weight"] = canvas.decaying_weights(*_onset_span(notes, hparams), end, hparams.frame_weight_onset)
    return rolls


class _Notes:
    """The notes that the rolls can show, sorted by onset, so that of overlapping ones the later has the higher index."""

    def __init__(self, onset: tf.Tensor, offset: tf.Tensor, pitch: tf.Tensor, velocity: tf.Tensor):
        pitch = tf.cast(pitch, tf.int64)
        shown = tf.where((pitch >= constants.MIN_MIDI_PITCH) & (pitch <= constants.MAX_MIDI_PITCH))[:, 0]
        order = tf.gather(shown, tf.argsort(tf.gather(onset, shown), stable=True))
        self.onset = tf.cast(tf.gather(onset, order), tf.float64)
        self.offset = tf.cast(tf.gather(offset, order), tf.float64)
        self.column = tf.gather(pitch, order) - constants.MIN_MIDI_PITCH  # 0 to 87
        # Divided in float64 and rounded once, as numpy does it.
        scaled = tf.cast(tf.gather(velocity, order), tf.float64) / constants.MAX_MIDI_VELOCITY
        self.velocity = tf.cast(scaled, tf.float32)


def _frame_span(start: tf.Tensor, end: tf.Tensor, hparams: MelodicHParams) -> tuple[tf.Tensor, tf.Tensor]:
    """First frame and the one after the last of `[start, end)` seconds, at least one frame, as note-seq rounds them."""
    rate, occupancy = hparams.frames_per_second, hparams.min_frame_occupancy_for_label
    first = tf.floor(start * rate)
    last = tf.math.ceil(end * rate)
    if occupancy > 0:
        first += tf.cast(first + 1 - start * rate < occupancy, tf.float64)
        # note-seq measures the occupancy of the end from the first frame, not from the last one; labels keep to it.
        last -= tf.cast(end * rate - first - 1 < occupancy, tf.float64)
    return tf.cast(first, tf.int64), tf.cast(tf.maximum(first + 1, last), tf.int64)


def _onset_span(notes: _Notes, hparams: MelodicHParams) -> tuple[tf.Tensor, tf.Tensor]:
    """Frames that count as a note's onset; in mode "triangle" as in "length_ms" (only weights use it there)."""
    delay = hparams.onset_delay / 1000.0
    start, end = notes.onset + delay, notes.offset + delay
    if hparams.onset_mode == "window":
        middle, _ = _frame_span(start, end, hparams)
        return middle - hparams.onset_window, middle + hparams.onset_window + 1
    return _frame_span(start, tf.minimum(end, start + hparams.onset_length / 1000.0), hparams)


def _offset_span(offset: tf.Tensor, total_time: tf.Tensor | float, hparams: MelodicHParams) -> tuple[tf.Tensor, tf.Tensor]:
    """Frames that count as a note's offset, moved back to fit into the clip if the note ends inside it."""
    total = tf.cast(total_time, tf.float64)
    length = hparams.offset_length / 1000.0
    time = tf.where(offset > total, offset, tf.minimum(offset, total - length))
    return _frame_span(time, time + length, hparams)


class _Canvas:
    """Rolls as seen from their cells: which notes reach a cell, and which of them counts."""

    def __init__(self, column: tf.Tensor, num_frames: int | tf.Tensor):
        self._column = column
        self._num_frames = tf.cast(num_frames, tf.int64)
        self._shape = (num_frames, constants.NUM_PITCHES)

    def _cells(self, start: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Frame and note index of every cell in the spans `[start, end)`, one per note, clipped to the roll."""
        start = tf.clip_by_value(start, 0, self._num_frames)
        length = tf.maximum(tf.clip_by_value(end, 0, self._num_frames) - start, 0)
        note = tf.repeat(tf.range(tf.size(start, tf.int64)), length)
        first_cell = tf.cumsum(length, exclusive=True)
        frame = tf.range(tf.size(note, tf.int64)) + tf.gather(start - first_cell, note)
        return frame, note

    def _highest(self, values: tf.Tensor, frame: tf.Tensor, note: tf.Tensor, empty: int | float) -> tf.Tensor:
        """For every cell of the roll the highest of the values that fall there, `empty` where none does."""
        cell = frame * constants.NUM_PITCHES + tf.gather(self._column, note)
        count = self._num_frames * constants.NUM_PITCHES
        best = tf.math.unsorted_segment_max(values, cell, count)
        return tf.reshape(tf.maximum(best, tf.cast(empty, best.dtype)), self._shape)  # [time, pitch]

    def last_note(self, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """For every cell the latest note whose span covers it, int64 [time, pitch], `_NO_NOTE` where there is none."""
        frame, note = self._cells(start, end)
        return self._highest(note, frame, note, _NO_NOTE)

    def paint(self, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """A roll that is 1 inside the spans and 0 elsewhere."""
        return tf.cast(self.last_note(start, end) != _NO_NOTE, tf.float32)

    def look_up(self, values: tf.Tensor, note: tf.Tensor, empty: float) -> tf.Tensor:
        """A roll with the value of the note in every cell of `note`, `empty` where there is none."""
        table = tf.concat([tf.constant([empty], values.dtype), values], 0)
        return tf.gather(table, note + 1)

    def decaying_weights(self, start: tf.Tensor, onset_end: tf.Tensor, end: tf.Tensor, top: float) -> tf.Tensor:
        """Weight `top` on onset frames, then `top / 1, top / 2, ...` to the note's end; 1 elsewhere."""
        note = self.last_note(start, tf.maximum(onset_end, end))
        frame = tf.range(self._num_frames)[:, None]
        since = tf.maximum(frame - self.look_up(onset_end, note, 0) + 1, 1)
        weight = tf.cast(top / tf.cast(since, tf.float64), tf.float32)
        return tf.where(note == _NO_NOTE, 1.0, weight)

    def triangles(self, time: tf.Tensor, heard: tf.Tensor, hparams: MelodicHParams) -> tuple[tf.Tensor, tf.Tensor]:
        """A roll of triangles around `time` seconds of the notes that are `heard`, and which note is nearest."""
        centre = time * hparams.frames_per_second
        half_width = hparams.onset_window + 1
        first = tf.cast(tf.math.ceil(centre - half_width), tf.int64)
        last = tf.cast(tf.floor(centre + half_width), tf.int64)
        frame, note = self._cells(first, tf.where(heard, last + 1, first))
        height = 1.0 - tf.abs(tf.cast(frame, tf.float64) - tf.gather(centre, note)) / half_width
        best = self._highest(height, frame, note, 0.0)
        cell = tf.stack([frame, tf.gather(self._column, note)], -1)
        nearest = tf.where((height > 0) & (height == tf.gather_nd(best, cell)))[:, 0]
        note = self._highest(tf.gather(note, nearest), tf.gather(frame, nearest), tf.gather(note, nearest), _NO_NOTE)
        return tf.cast(best, tf.float32), note
