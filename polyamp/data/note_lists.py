"""Lists of notes as the Timbre and Full models take them, and their families as targets."""

import numpy as np

from polyamp import constants
from polyamp.hparams import TimbreHParams
from polyamp.notes import Notes, to_rolls
from polyamp.notes.instruments import families_of


def note_list(notes: Notes, size: int) -> np.ndarray:
    """float32 `[size, 3]`: MIDI pitch, onset and offset in seconds, padded with zeros; notes beyond `size` are left out."""
    rows = np.zeros((size, 3), np.float32)
    rows[: len(notes)] = np.stack([notes.pitch, notes.onset, notes.offset], axis=1)[:size]
    return rows


def families(notes: Notes, size: int) -> np.ndarray:
    """float32 `[size, 12]`: one-hot families of the notes' programs; zeros for padding."""
    rows = np.zeros((size, constants.NUM_FAMILIES), np.float32)
    family = families_of(notes)[:size]
    rows[np.arange(len(family)), family] = 1.0
    return rows


def training_lists(
    notes: Notes, seconds: float, hparams: TimbreHParams, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The list of a training crop and its families, with errors as a transcription has them.

    Args:
        notes: Those that sound in the crop, in seconds from its start; those that began before it have negative onsets. All are
            in the list, as context, as far as there is room; only those that begin in it and on the piano have families.
        seconds: Length of the crop.
        hparams: How many notes, and how large errors; an offset's are four times an onset's.
        rng: Draws the notes where there are too many, and the errors.

    Returns:
        `[timbre_max_notes, 3]` and `[timbre_max_notes, 12]`, float32.
    """
    size = hparams.timbre_max_notes
    notes = notes[(notes.pitch >= constants.MIN_MIDI_PITCH) & (notes.pitch <= constants.MAX_MIDI_PITCH)]
    if len(notes) > size:
        notes = notes[np.sort(rng.choice(len(notes), size, replace=False))]
    rows, targets = note_list(notes, size), families(notes, size)
    begins = (rows[:, 1] >= 0) & (rows[:, 1] < seconds)
    targets[~begins] = 0.0
    jitter = hparams.timbre_note_jitter_ms / 1000.0
    rows[:, 1] += np.float32(jitter) * rng.standard_normal(size).astype(np.float32)
    rows[:, 2] += np.float32(4 * jitter) * rng.standard_normal(size).astype(np.float32)
    rows[:, 2] = np.maximum(rows[:, 2], rows[:, 1] + 0.03)
    rows[len(notes) :] = 0.0
    return rows, targets


def family_rolls(notes: Notes, num_frames: int, hparams: TimbreHParams) -> np.ndarray:
    """float32 `[num_frames, 88, 13]`: where each family sounds, and in the last channel whether any does."""
    family = families_of(notes)
    parts = [notes[family == number] for number in range(constants.NUM_FAMILIES)] + [notes]
    return np.stack([to_rolls(part, num_frames, hparams)["frame"] for part in parts], axis=-1)
