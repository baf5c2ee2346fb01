"""Layers that look at single notes: what of a spectrum or feature map belongs to each of a list of notes.

Lists of notes are `[batch, notes, 3]` float32: MIDI pitch, onset and offset in seconds; a pitch of 0 is padding.
"""

import keras
import numpy as np
from keras import ops

from polyamp import constants
from polyamp.audio.log_frequency import BINS_PER_SEMITONE, NUM_BINS
from polyamp.layer_bases import FixedFloat32Layer

PITCH, ONSET, OFFSET = range(3)  # Columns of a list of notes.
_SEMITONES = NUM_BINS // BINS_PER_SEMITONE
_ATTACK_FRAMES = 3  # From the onset on, in which a note's loudness is taken.
_RANGE = 0.75  # Of the compressed spectrum, below the loudest partial, that a patch shows: 60 dB.


def notes_input() -> keras.KerasTensor:
    """The list of notes that a Timbre or Full model takes beside the audio."""
    return keras.Input((None, 3), dtype="float32", name="notes")


def is_note(notes):
    """1 for notes, 0 for padding: `[batch, notes]`."""
    return ops.cast(notes[..., PITCH] > 0, "float32")


def pitch_index(notes):
    """Indices of the 88 pitches, int32 `[batch, notes]`; negative for padding."""
    return ops.cast(ops.round(notes[..., PITCH]), "int32") - constants.MIN_MIDI_PITCH


def one_hot_pitch(notes):
    """Which pitch each note has, `[batch, notes, 88]`; zeros for padding."""
    index = ops.clip(pitch_index(notes), 0, constants.NUM_PITCHES - 1)
    return ops.one_hot(index, constants.NUM_PITCHES) * is_note(notes)[..., None]


def sounding_frames(notes, num_times, frames_per_second: float):
    """1 in the frames whose middle lies within a note, `[batch, notes, time]`; zeros for padding."""
    time = (ops.cast(ops.arange(num_times), "float32") + 0.5) / frames_per_second
    within = (time >= notes[..., ONSET, None]) & (time < notes[..., OFFSET, None])
    return ops.cast(within, "float32") * is_note(notes)[..., None]


def running_sum(values):
    """Sums of `[batch, time, values]` over all frames before each and over all: `[batch, time + 1, values]`."""
    return ops.pad(ops.cumsum(values, axis=1), [[0, 0], [1, 0], [0, 0]])


def sum_between(running, first, last):
    """Differences of the rows `last` and `first`, int32 `[batch, notes]`, of running sums: `[batch, notes, values]`."""
    begin, end = (ops.take_along_axis(running, row[..., None], axis=1) for row in (first, last))
    return end - begin


@keras.saving.register_keras_serializable(package="polyamp")
class NotePatches(FixedFloat32Layer):
    """A small image of each note's own partials over time, at the same place whatever the pitch.

    Inputs: spectrum `[batch, time, 294]` (see `polyamp.audio.log_frequency`) and notes `[batch, notes, 3]`. Output
    `[batch, notes, frames, harmonics, 5]`: frames from `before` ahead of the onset on; partials one octave below, then 1, 2, 3
    ... times the pitch. Channels: the power at each partial and 1/3 semitone below and above it, relative to the note's loudest
    partial in its attack and 0 from 60 dB below that; how many partials of other notes lie there; and whether the note sounds.
    Level is lost on purpose: it says nothing about the instrument. Padding gives zeros.
    """

    def __init__(self, num_frames: int, num_harmonics: int, frames_per_second: float, before: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.num_frames, self.num_harmonics, self.before = num_frames, num_harmonics, before
        self.frames_per_second = frames_per_second
        self._harmonics = np.array([0.5, *range(1, num_harmonics)])
        # How a sounding note spreads over semitones; strong partials count more.
        template = np.zeros((constants.NUM_PITCHES, _SEMITONES), np.float32)
        self._own = np.zeros(num_harmonics, np.float32)
        semitones = np.rint(12 * np.log2(self._harmonics)).astype(int)
        for number, semitone in enumerate(semitones[1:], start=1):
            pitches = np.arange(constants.NUM_PITCHES)[np.arange(constants.NUM_PITCHES) + semitone < _SEMITONES]
            template[pitches, pitches + semitone] += number**-0.5
            self._own[semitones == semitone] += number**-0.5
        self._template, self._semitones = template, semitones

    def call(self, spectrum, notes):
        spectrum = ops.cast(spectrum, "float32")
        batch, num_times = ops.shape(spectrum)[0], ops.shape(spectrum)[1]
        pitch = pitch_index(notes)
        onset = ops.cast(ops.round(notes[..., ONSET] * self.frames_per_second), "int32")
        frame = onset[..., None] + np.arange(-self.before, self.num_frames - self.before, dtype="int32")  # [b, n, frame]
        inside = ops.cast((frame >= 0) & (frame < num_times), "float32") * is_note(notes)[..., None]
        frame = ops.clip(frame, 0, num_times - 1)

        offsets = np.rint(12 * BINS_PER_SEMITONE * np.log2(self._harmonics)).astype("int32")[:, None] + np.arange(
            3, dtype="int32"
        )
        bins = pitch[..., None] * BINS_PER_SEMITONE + np.ravel(offsets)  # [batch, notes, harmonic * 3]
        power = self._gather(spectrum, frame, bins, NUM_BINS, batch, missing=-10.0)  # Far below what a patch shows.
        power = ops.reshape(power, (batch, -1, self.num_frames, self.num_harmonics, 3))
        attack = power[:, :, self.before : self.before + _ATTACK_FRAMES]
        loudest = ops.max(attack, axis=(2, 3, 4), keepdims=True)
        power = ops.relu(1.0 + (power - loudest) / _RANGE)

        sounding = sounding_frames(notes, num_times, self.frames_per_second)  # [batch, notes, time]
        roll = ops.matmul(ops.transpose(one_hot_pitch(notes), (0, 2, 1)), sounding)  # [batch, pitch, time]
        occupied = ops.matmul(ops.transpose(roll, (0, 2, 1)), self._template)  # [batch, time, semitone]
        others = self._gather(occupied, frame, pitch[..., None] + self._semitones, _SEMITONES, batch)  # [b, n, frame, harmonic]
        own = ops.take_along_axis(sounding, frame, axis=2)[..., None]  # [batch, notes, frame, 1]
        others = ops.clip(others - own * self._own, 0.0, 2.0)
        channels = [power, others[..., None], ops.broadcast_to(own, ops.shape(others))[..., None]]
        return ops.concatenate(channels, axis=-1) * inside[..., None, None]

    def _gather(self, image, frame, column, num_columns: int, batch, missing: float = 0.0):
        """`image[b, frame[b, n, f], column[b, n, c]]`, `missing` off its columns: `[batch, notes, frame, column]`."""
        exists = ((column >= 0) & (column < num_columns))[:, :, None, :]
        column = ops.clip(ops.cast(column, "int32"), 0, num_columns - 1)
        index = frame[..., None] * num_columns + column[:, :, None, :]
        flat = ops.reshape(image, (batch, -1))
        found = ops.take_along_axis(flat, ops.reshape(index, (batch, -1)), axis=1)
        return ops.where(exists, ops.reshape(found, ops.shape(index)), missing)

    def compute_output_shape(self, spectrum_shape, notes_shape):
        return (*notes_shape[:2], self.num_frames, self.num_harmonics, 5)

    def get_config(self):
        sizes = {"num_frames": self.num_frames, "num_harmonics": self.num_harmonics, "before": self.before}
        return {**super().get_config(), **sizes, "frames_per_second": self.frames_per_second}


@keras.saving.register_keras_serializable(package="polyamp")
class NoteRolls(FixedFloat32Layer):
    """Which of a list of notes sound where, and how far their partials cover those of each pitch.

    Inputs: spectrum `[batch, time, bins]`, for its length, and notes `[batch, notes, 3]`. Output `[batch, time, 88, 2 +
    harmonics]`: whether the pitch sounds; whether it begins, 1 at the onset and 0 a frame away; and for each of its harmonics
    how much of other pitches lies there: the first 16 partials of each that sounds, weighted by number^-1/2, 2 at most.
    """

    def __init__(self, frames_per_second: float, harmonics: tuple[float, ...], **kwargs):
        super().__init__(**kwargs)
        self.frames_per_second, self.harmonics = frames_per_second, tuple(harmonics)
        pitches = np.arange(constants.NUM_PITCHES)
        partials = np.zeros(4 * 12 + 1)  # What a note puts so many semitones above it.
        for number in range(1, 17):
            partials[round(12 * np.log2(number))] += number**-0.5
        semitones = np.rint(12 * np.log2(self.harmonics)).astype(int)
        distance = pitches[None, :, None] + semitones - pitches[:, None, None]  # [that sounds, covered, harmonic]
        cover = np.where((distance >= 0) & (distance < len(partials)), partials[np.clip(distance, 0, len(partials) - 1)], 0.0)
        cover[pitches, pitches] = 0.0  # Its own.
        self._cover = cover.reshape(constants.NUM_PITCHES, -1).astype(np.float32)

    def call(self, spectrum, notes):
        batch, num_times = ops.shape(spectrum)[0], ops.shape(spectrum)[1]
        pitch = one_hot_pitch(notes)  # [batch, note, pitch]
        sounding = sounding_frames(notes, num_times, self.frames_per_second)  # [batch, note, time]
        time = ops.cast(ops.arange(num_times), "float32") / self.frames_per_second
        begins = ops.relu(1.0 - ops.abs(time - notes[..., ONSET, None]) * self.frames_per_second) * is_note(notes)[..., None]
        rolls = [ops.clip(ops.matmul(ops.transpose(of, (0, 2, 1)), pitch), 0.0, 1.0) for of in (sounding, begins)]
        others = ops.matmul(rolls[0], self._cover)
        others = ops.reshape(others, (batch, num_times, constants.NUM_PITCHES, len(self.harmonics)))
        return ops.concatenate([ops.stack(rolls, axis=-1), ops.clip(others, 0.0, 2.0)], axis=-1)

    def compute_output_shape(self, spectrum_shape, notes_shape):
        return (*spectrum_shape[:2], constants.NUM_PITCHES, 2 + len(self.harmonics))

    def get_config(self):
        return {**super().get_config(), "frames_per_second": self.frames_per_second, "harmonics": self.harmonics}


@keras.saving.register_keras_serializable(package="polyamp")
class NoteFeatures(FixedFloat32Layer):
    """What a feature map says of each note, at its pitch: the means over its attack, over what follows, and over all of it.

    Inputs: features `[batch, time, 88, channels]` and notes `[batch, notes, 3]`; output `[batch, notes, 3 * channels]` float32,
    zeros for padding. The attack is the three frames around the onset; what follows ends with the note or after 0.4 s; of long
    notes the first three seconds count. As differences of a running sum they cost the same however many notes there are.
    """

    def __init__(self, frames_per_second: float, **kwargs):
        super().__init__(**kwargs)
        self.frames_per_second = frames_per_second

    def call(self, features, notes):
        features = ops.cast(features, "float32")
        batch, num_times, pitches, channels = ops.shape(features)
        running = running_sum(ops.reshape(features, (batch, num_times, pitches * channels)))
        sums = ops.reshape(running, (batch, -1, channels))  # [batch, time * pitch, channels]
        index = ops.clip(pitch_index(notes), 0, pitches - 1)
        num_times = ops.cast(num_times, "float32")

        onset = notes[..., ONSET] * self.frames_per_second
        seconds = ops.maximum(notes[..., OFFSET] - notes[..., ONSET], 2.0 / self.frames_per_second)
        after, lasting = (ops.minimum(seconds, most) * self.frames_per_second for most in (0.4, 3.0))
        means = []
        for begin, end in ((onset - 1.5, onset + 1.6), (onset + 1.5, onset + after), (onset - 0.5, onset + lasting)):
            first = ops.clip(ops.floor(begin) + 1.0, 0, num_times)  # The frames between both, neither included.
            last = ops.maximum(ops.clip(ops.ceil(end), 0, num_times), first)
            total = sum_between(sums, *(ops.cast(frame, "int32") * pitches + index for frame in (first, last)))
            means.append(total * (is_note(notes) / ops.maximum(last - first, 1.0))[..., None])
        return ops.concatenate(means, axis=-1)

    def compute_output_shape(self, features_shape, notes_shape):
        return (*notes_shape[:2], 3 * features_shape[-1])

    def get_config(self):
        return {**super().get_config(), "frames_per_second": self.frames_per_second}


@keras.saving.register_keras_serializable(package="polyamp")
class CropAndPool(FixedFloat32Layer):
    """The mean of a feature map over the time span of each note.

    Inputs: features `[batch, time, frequency, channels]` and notes `[batch, notes, 3]`; output `[batch, notes, frequency,
    channels]`. A span is at least one frame long and cut at the ends of the map; padding gives zeros. As differences of a
    running sum it costs the same however long the notes are, and the gradient goes to the features.
    """

    def __init__(self, frames_per_second: float, **kwargs):
        super().__init__(**kwargs)
        self.frames_per_second = frames_per_second

    def call(self, features, notes):
        features = ops.cast(features, "float32")
        batch, num_times, frequencies, channels = ops.shape(features)
        running = running_sum(ops.reshape(features, (batch, num_times, frequencies * channels)))
        start = ops.cast(ops.floor(notes[..., ONSET] * self.frames_per_second), "int32")
        end = ops.cast(ops.ceil(notes[..., OFFSET] * self.frames_per_second), "int32")
        start = ops.clip(start, 0, num_times - 1)
        end = ops.clip(end, start + 1, num_times)
        total = sum_between(running, start, end)
        mean = total / ops.cast(end - start, "float32")[..., None] * is_note(notes)[..., None]
        return ops.reshape(mean, (batch, -1, frequencies, channels))

    def compute_output_shape(self, features_shape, notes_shape):
        return (*notes_shape[:2], *features_shape[2:])

    def get_config(self):
        return {**super().get_config(), "frames_per_second": self.frames_per_second}


@keras.saving.register_keras_serializable(package="polyamp")
class MergeNotes(keras.layers.Layer):
    """`[batch, notes, ...]` to `[batch * notes, ...]`: all notes of a batch at once."""

    def call(self, inputs):
        return ops.reshape(inputs, (-1, *inputs.shape[2:]))

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[2:])


@keras.saving.register_keras_serializable(package="polyamp")
class SplitNotes(keras.layers.Layer):
    """`[batch * notes, channels]` back to `[batch, notes, channels]`, as many as the list of notes has; padding gives zeros."""

    def call(self, inputs, notes):
        shape = ops.shape(notes)
        return ops.reshape(inputs, (shape[0], shape[1], inputs.shape[-1])) * ops.cast(is_note(notes)[..., None], inputs.dtype)

    def compute_output_shape(self, inputs_shape, notes_shape):
        return (*notes_shape[:2], inputs_shape[-1])


@keras.saving.register_keras_serializable(package="polyamp")
class PitchFeatures(FixedFloat32Layer):
    """How high and how long each note is, `[batch, notes, 10]`: eight overlapping octaves, and two functions of the length."""

    def call(self, notes):
        octaves = np.linspace(constants.MIN_MIDI_PITCH, constants.MAX_MIDI_PITCH, 8)
        near = ops.relu(1.0 - ops.abs(notes[..., PITCH, None] - octaves) / 12.5)
        length = ops.maximum(notes[..., OFFSET] - notes[..., ONSET], 0.0)
        lengths = ops.stack([ops.exp(-length / 0.1), ops.exp(-length / 0.5)], axis=-1)
        return ops.concatenate([near, lengths], axis=-1)

    def compute_output_shape(self, notes_shape):
        return (*notes_shape[:2], 10)
