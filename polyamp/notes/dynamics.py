"""Velocities of notes in the light of those around them."""

import dataclasses

import numpy as np

from polyamp import constants
from polyamp.notes.arrays import Notes
from polyamp.notes.neighbours import neighbourhoods

_NEAR_SEMITONES, _NEAR_SECONDS = 5.0, 1.0  # How fast notes cease to be neighbours; chosen on held-out pieces of MAPS in rooms.
_REACH = 8 * _NEAR_SECONDS
_LEAST_WEIGHT = 1e-3  # Of all neighbours together; with less a note has none.


def _nearness(seconds: np.ndarray, semitones: np.ndarray) -> np.ndarray:
    """How much notes that far from each other say about each other's velocity."""
    weight = np.exp(-np.abs(seconds) / _NEAR_SECONDS - 0.5 * np.square(semitones / _NEAR_SEMITONES))
    return weight * (np.abs(seconds) < _REACH)


def _drawn(velocity: np.ndarray, weight: np.ndarray, others: np.ndarray, share: float) -> np.ndarray:
    """Velocities `[notes]` drawn by `share` to the mean of others, of which each counts by its `weight`, `[notes, others]`."""
    total = weight.sum(axis=1)
    mean = weight @ others / np.maximum(total, _LEAST_WEIGHT)
    return velocity + share * np.where(total > _LEAST_WEIGHT, mean - velocity, 0.0)


def smoothed_velocities(notes: Notes, share: float) -> Notes:
    """The notes with velocities nearer to those around them.

    What is heard of a note's velocity is uncertain: rooms colour single pitches, and other notes cover it. Players change
    dynamics less from note to note than these errors do, so the mean of the neighbours says something about each.

    Args:
        notes: Sorted by onset.
        share: How far each velocity goes to the mean of the other notes', weighted by `exp(-|seconds|)` between onsets and
            `exp(-(semitones / 5)² / 2)`; 0 leaves all as it is.

    Returns:
        The same notes with other velocities, 1 to 127. A note without any other near stays as it is.
    """
    if not share or len(notes) < 2:
        return notes
    heard = notes.velocity.astype(np.float64)
    pitch = notes.pitch.astype(np.float64)
    smooth = np.empty_like(heard)
    for rows, near in neighbourhoods(notes.onset, _REACH):
        weight = _nearness(notes.onset[rows, None] - notes.onset[near], pitch[rows, None] - pitch[near])
        index = np.arange(len(weight))
        weight[index, index + rows.start - near.start] = 0.0  # Itself.
        smooth[rows] = _drawn(heard[rows], weight, heard[near], share)
    velocity = np.clip(np.rint(smooth), 1, constants.MAX_MIDI_VELOCITY).astype(notes.velocity.dtype)
    return dataclasses.replace(notes, velocity=velocity)


class RunningVelocities:
    """`smoothed_velocities` for notes as they come, of which each only knows those that began before or with it.

    Args:
        share: As of `smoothed_velocities`.
    """

    def __init__(self, share: float):
        self._share = share
        self._seconds, self._pitch, self._heard = np.zeros((3, 0))  # Of the notes within reach.

    def next(self, seconds: float, pitch: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Velocities of the notes that begin at one time, which never goes back, in any unit; in memory that does not grow.

        Args:
            seconds: The time.
            pitch: `[notes]`, in semitones.
            velocity: As heard, `[notes]`.

        Returns:
            `[notes]`. A note without any other near stays as it is.
        """
        if not self._share or not len(pitch):
            return velocity
        velocity = np.nan_to_num(velocity)  # What is no number would stay with all notes to come.
        near = seconds - self._seconds < _REACH
        self._seconds = np.append(self._seconds[near], np.full(len(pitch), seconds))
        self._pitch = np.append(self._pitch[near], pitch)
        self._heard = np.append(self._heard[near], velocity)
        weight = _nearness(seconds - self._seconds, np.subtract.outer(pitch, self._pitch))
        np.fill_diagonal(weight[:, -len(pitch) :], 0.0)  # Themselves.
        return _drawn(velocity, weight, self._heard, self._share)


def running_velocities(begins: np.ndarray, velocity: np.ndarray, frames_per_second: float, share: float) -> np.ndarray:
    """A velocity roll smoothed as `RunningVelocities` does.

    Args:
        begins: Where notes begin, bool `[time, pitch]`.
        velocity: `[time, pitch]`, read there.
        frames_per_second: Of the rolls.
        share: As of `smoothed_velocities`.

    Returns:
        `[time, pitch]`, as `velocity` where no note begins.
    """
    if not share:
        return velocity
    running, smooth = RunningVelocities(share), np.array(velocity)
    for frame in np.flatnonzero(begins.any(axis=1)):
        pitch = np.flatnonzero(begins[frame])
        smooth[frame, pitch] = running.next(frame / frames_per_second, pitch, velocity[frame, pitch])
    return smooth
