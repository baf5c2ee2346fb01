"""Notes to the five states of the autoregressive model and back, exact up to the hop; numpy only.

Every pitch is in one state at every frame (Kwon, Jeong and Nam 2020, section 2.1).
"""

import dataclasses

import numpy as np

from polyamp import constants
from polyamp.notes.arrays import Notes, to_midi_velocity
from polyamp.notes.rolls import cells

OFF, OFFSET, SUSTAIN, ONSET, REONSET = range(5)
NUM_STATES = 5
SHORTEST = 1e-3  # Seconds that a note lasts at least.

# Frames since the onset at which the next step of a pitch's age begins.
AGE_STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
OLDEST = AGE_STEPS[-1]


@dataclasses.dataclass(frozen=True)
class StateFrame:
    """What is answered for one frame.

    Attributes:
        number: Of the frame; frame `t` is at sample `t * hop_length`.
        state: `[88]`, integers.
        velocity: `[88]` in [0, 1], of the notes that begin there.
        timing: `[88]`, by how many frames a note begins or ends after the frame's time.
        onset: `[88]`, the probability that a note begins there, whether the pitch sounded or not, without
            `onset_boost`.
    """

    number: int
    state: np.ndarray
    velocity: np.ndarray
    timing: np.ndarray
    onset: np.ndarray


def boosts(onset_boost: float, offset_boost: float) -> np.ndarray:
    """What is added to the logits of the five states before the likeliest is answered."""
    return np.array([0.0, offset_boost, 0.0, onset_boost, onset_boost], np.float32)


def age_table(buckets: int) -> np.ndarray:
    """For every age from 0 to `OLDEST` frames its step, `[OLDEST + 1]` int32."""
    return (np.searchsorted(AGE_STEPS[:buckets], np.arange(OLDEST + 1), side="right") - 1).astype(np.int32)


def to_states(notes: Notes, num_frames: int, frames_per_second: float) -> dict[str, np.ndarray]:
    """States and velocities of a clip.

    A note's times are rounded to the nearest frame; it has at least one. Its first frame is an onset, or a re-onset where the
    pitch sounded until then; the frames up to its end are sustain; the frame of its end is an offset unless another note starts
    there. Where notes of one pitch overlap the later one ends the earlier, and of those starting in one frame the last counts.

    Args:
        notes: Notes; those outside the 88 piano pitches are ignored. One with a negative onset (see `crop`) has sustain from
            the first frame on, one that ends after the clip no offset.
        num_frames: Length of the clip.
        frames_per_second: Of the states.

    Returns:
        Each `[num_frames, 88]`: "state" int32; "velocity" float32 in [0, 1] over the whole of each note, its offset frame
        included, 0 elsewhere; "timing" float32, at onsets, re-onsets and offsets how many frames after the frame's own time the
        note really begins or ends (-0.5 to 0.5, but for one-frame notes and those that are cut), 0 elsewhere.
    """
    notes = notes[(notes.pitch >= constants.MIN_MIDI_PITCH) & (notes.pitch <= constants.MAX_MIDI_PITCH)]
    start = np.rint(notes.onset * frames_per_second).astype(np.int64)
    end = np.maximum(np.rint(notes.offset * frames_per_second).astype(np.int64), start + 1)
    start[notes.onset < 0] = np.minimum(start, -1)[notes.onset < 0]  # Never an onset in the clip.
    column = notes.pitch - constants.MIN_MIDI_PITCH
    order = np.lexsort((np.arange(len(start)), start, column))  # Each pitch by itself, in time order.
    start, end, column = start[order], end[order], column[order]
    onset, offset = (times[order] * frames_per_second for times in (notes.onset, notes.offset))
    velocity = (notes.velocity[order] / constants.MAX_MIDI_VELOCITY).astype(np.float32)
    follows = column[:-1] == column[1:]  # Whether the next one is of the same pitch.
    kept = np.append(~(follows & (start[:-1] == start[1:])), True)[: len(start)]
    start, end, column, velocity, onset, offset = (of[kept] for of in (start, end, column, velocity, onset, offset))
    follows = column[:-1] == column[1:]
    touched = follows & (end[:-1] >= start[1:])
    end[:-1] = np.where(touched, start[1:], end[:-1])

    states = np.zeros((num_frames, constants.NUM_PITCHES), np.int32)
    velocities, timing = np.zeros((2, num_frames, constants.NUM_PITCHES), np.float32)
    frame, note = cells(start, end + 1, num_frames)
    velocities[frame, column[note]] = velocity[note]  # Later notes are written later, and stay.
    frame, note = cells(start, end, num_frames)
    states[frame, column[note]] = SUSTAIN
    _mark(states, end, column, OFFSET)
    _mark(states, start, column, ONSET)
    _mark(states, start[1:][touched], column[1:][touched], REONSET)
    _mark(timing, end, column, offset - end)
    _mark(timing, start, column, onset - start)
    return {"state": states, "velocity": velocities, "timing": timing}


def _mark(roll: np.ndarray, frame: np.ndarray, column: np.ndarray, value: int | np.ndarray) -> None:
    """Sets single cells to one value or one each; those outside the clip are left out."""
    inside = (frame >= 0) & (frame < len(roll))
    roll[frame[inside], column[inside]] = np.broadcast_to(value, frame.shape)[inside]


def to_notes(
    states: np.ndarray,
    velocity: np.ndarray,
    frames_per_second: float,
    onset_bias_ms: float = 0.0,
    timing: np.ndarray | None = None,
) -> Notes:
    """Notes of states, any sequence of which is understood.

    A note starts at every onset and re-onset and lasts while the state is sustain; sustain without an onset is no note.

    Args:
        states: Integers `[time, 88]`.
        velocity: `[time, 88]` in [0, 1]; read at onsets.
        frames_per_second: Of the states.
        onset_bias_ms: Subtracted from all times.
        timing: `[time, 88]`, frames; where notes begin and end between frames, as `to_states` gives it. Without it they do so
            at frames.

    Returns:
        Notes sorted by onset; those of one pitch never overlap.
    """
    spans = [_spans(column) for column in np.asarray(states).T]  # Pitch by pitch: all at once would take much memory.
    onset_frame, offset_frame = (np.concatenate(frames) for frames in zip(*spans, strict=True))
    column = np.repeat(np.arange(len(spans)), [len(start) for start, _ in spans])
    begin, finish = onset_frame.astype(np.float64), offset_frame.astype(np.float64)
    if timing is not None:
        inside = offset_frame < len(timing)  # Notes that outlast the clip end with it.
        begin += timing[onset_frame, column]
        finish[inside] += timing[offset_frame[inside], column[inside]]
    bias = onset_bias_ms / 1000.0
    onset = begin / frames_per_second - bias
    offset = np.maximum(finish / frames_per_second - bias, onset + SHORTEST)
    same_pitch = column[1:] == column[:-1]
    # The timing may put a note's end after the next onset of its pitch.
    while len(last := np.flatnonzero(same_pitch & (onset[1:] < offset[:-1]))):
        onset[last + 1] = offset[last]
        offset[last + 1] = np.maximum(offset[last + 1], onset[last + 1] + SHORTEST)
    kept = offset > 0
    midi_velocity = to_midi_velocity(np.asarray(velocity)[onset_frame, column])
    columns = (np.maximum(onset, 0.0), offset, column + constants.MIN_MIDI_PITCH, midi_velocity)
    return Notes.of(*(values[kept] for values in columns))


def _spans(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one pitch's states `[time]` each note's first frame, and that after its last."""
    start = np.flatnonzero(states >= ONSET)
    not_sustain = np.append(np.flatnonzero(states != SUSTAIN), len(states))
    return start, not_sustain[np.searchsorted(not_sustain, start, "right")]
