"""Velocities of notes in the light of those around them."""

import dataclasses

import numpy as np

from polyamp import constants
from polyamp.notes.arrays import Notes
from polyamp.notes.neighbours import neighbourhoods

_NEAR_SEMITONES, _NEAR_SECONDS = 5.0, 1.0  # How fast notes cease to be neighbours; chosen on held-out pieces of MAPS in rooms.
_REACH = 8 * _NEAR_SECONDS
_LEAST_WEIGHT = 1e-3  # Of all neighbours together; with less a note has none.


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
    smooth = heard.copy()
    for rows, near in neighbourhoods(notes.onset, _REACH):
        apart = np.abs(notes.onset[rows, None] - notes.onset[near])
        weight = np.exp(-apart / _NEAR_SECONDS - 0.5 * np.square((pitch[rows, None] - pitch[near]) / _NEAR_SEMITONES))
        weight *= apart < _REACH
        index = np.arange(len(weight))
        weight[index, index + rows.start - near.start] = 0.0  # Itself.
        total = weight.sum(axis=1)
        mean = weight @ heard[near] / np.maximum(total, _LEAST_WEIGHT)
        smooth[rows] += share * np.where(total > _LEAST_WEIGHT, mean - heard[rows], 0.0)
    velocity = np.clip(np.rint(smooth), 1, constants.MAX_MIDI_VELOCITY).astype(notes.velocity.dtype)
    return dataclasses.replace(notes, velocity=velocity)
