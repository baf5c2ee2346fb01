"""The Timbre model: which of 12 instrument families plays each of a list of notes."""

import keras
import numpy as np
from keras import layers, ops

from polyamp import constants
from polyamp.audio.log_frequency import NUM_BINS
from polyamp.audio.spectrogram import CQT, LogFrequencySpectrogram
from polyamp.hparams import TimbreHParams
from polyamp.layer_bases import FixedFloat32Layer
from polyamp.models import losses, pitch_shared
from polyamp.models.layers import HarmonicStack, audio_input
from polyamp.models.note_layers import (
    PITCH,
    CropAndPool,
    MergeNotes,
    NoteFeatures,
    NotePatches,
    NoteRolls,
    PitchFeatures,
    SplitNotes,
    notes_input,
)


def build(hparams: TimbreHParams) -> keras.Model:
    """Audio `[batch, samples]` and notes `[batch, notes, 3]` to "family", probabilities `[batch, notes, 12]`."""
    audio, notes = audio_input(), notes_input()
    spectrum = make_spectrogram(hparams, name="spectrogram")(audio)
    network = build_network(hparams)
    return keras.Model({"audio": audio, "notes": notes}, network({"spectrum": spectrum, "notes": notes}), name="timbre")


def make_spectrogram(hparams: TimbreHParams, name: str) -> keras.layers.Layer:
    """The front end of the network that the settings name."""
    if hparams.timbre_architecture != "filters":
        return LogFrequencySpectrogram(hparams.timbre_hop_length, name=name)
    return CQT(
        hparams.timbre_spec_n_bins,
        hparams.timbre_bins_per_octave,
        hparams.timbre_hop_length,
        hparams.timbre_lowest_hz,
        name=name,
    )


def build_network(hparams: TimbreHParams, name: str = "network") -> keras.Model:
    """Spectrum `[batch, time, bins]` and notes `[batch, notes, 3]` to "family", probabilities `[batch, notes, 12]` float32."""
    networks = {"filters": _filters_network, "harmonics": _harmonics_network, "pitch_shared": _pitch_shared_network}
    return networks[hparams.timbre_architecture](hparams, name)


def loss_arguments(hparams: TimbreHParams) -> dict:
    """The arguments of `keras.Model.compile` that say what is learned."""
    return {"loss": {"family": make_loss(hparams)}, "loss_weights": {"family": 1.0}}


def make_loss(hparams: TimbreHParams) -> keras.losses.Loss:
    """The loss of families `[batch, notes, 12]` that the settings name."""
    if hparams.family_loss == "crossentropy":
        return losses.FamilyCrossentropy(hparams.family_balance)
    return losses.FamilyLogLoss(hparams.family_recall_weight, hparams.family_absent_weight)


def _harmonics_network(hparams: TimbreHParams, name: str) -> keras.Model:
    """Dense layers on each note's own patch, then a softmax."""
    frame_rate = constants.SAMPLE_RATE / hparams.timbre_hop_length
    spectrum = keras.Input((None, None), dtype="float32", name="spectrum")
    notes = notes_input()
    patches = NotePatches(hparams.timbre_patch_frames, hparams.timbre_patch_harmonics, frame_rate, name="timbre_patches")(
        spectrum, notes
    )
    x = MergeNotes(name="timbre_merged")(patches)  # [batch * notes, frame, partial, 5]
    x = layers.Flatten(name="timbre_flat")(x)
    for number, units in enumerate(hparams.timbre_patch_units, start=1):
        x = layers.Dense(units, activation="relu", name=f"timbre_dense{number}")(x)
        x = layers.Dropout(hparams.timbre_dropout, name=f"timbre_dropout{number}")(x)
    pitch = MergeNotes(name="timbre_merged_pitch")(PitchFeatures(name="timbre_pitch")(notes))
    x = layers.Concatenate(name="timbre_evidence", dtype="float32")([x, pitch])
    x = layers.Dense(constants.NUM_FAMILIES, activation="softmax", dtype="float32", name="timbre_family")(x)
    family = SplitNotes(name="family", dtype="float32")(x, notes)
    return keras.Model({"spectrum": spectrum, "notes": notes}, {"family": family}, name=name)


def _pitch_shared_network(hparams: TimbreHParams, name: str) -> keras.Model:
    """Convolutions over time and pitch that all pitches share, as in the compact Melodic network, then dense layers per note.

    The network knows which notes it is asked about: what sounds where, and which of a pitch's partials others cover, are
    channels beside its spectrum.
    """
    frame_rate = constants.SAMPLE_RATE / hparams.timbre_hop_length
    spectrum = keras.Input((None, NUM_BINS), dtype="float32", name="spectrum")
    notes = notes_input()
    stack = HarmonicStack(hparams.timbre_harmonics, name="timbre_harmonics")(spectrum)
    rolls = NoteRolls(frame_rate, hparams.timbre_harmonics, name="timbre_rolls")(spectrum, notes)
    x = layers.Concatenate(name="timbre_input")([stack, rolls])
    x = layers.Conv2D(hparams.timbre_channels, 3, padding="same", use_bias=False, name="timbre_stem_conv")(x)
    x = layers.BatchNormalization(name="timbre_stem_norm")(x)
    x = layers.ReLU(name="timbre_stem_relu")(x)
    for number, dilation in enumerate(hparams.timbre_dilations, start=1):
        x = pitch_shared.residual_block(x, dilation, f"timbre_block{number}")
        if number % 2 == 0:
            x = pitch_shared.mixing_block(
                x, hparams.timbre_mixing_channels, hparams.timbre_mixing_intervals, f"timbre_mixing{number}"
            )
    x = NoteFeatures(frame_rate, name="timbre_of_notes")(x, notes)  # [batch, notes, 3 * channels]
    x = layers.Concatenate(name="timbre_evidence", dtype="float32")([x, PitchFeatures(name="timbre_pitch")(notes)])
    x = MergeNotes(name="timbre_merged")(x)
    for number, units in enumerate(hparams.timbre_note_units, start=1):
        x = layers.Dense(units, activation="relu", name=f"timbre_dense{number}")(x)
        x = layers.Dropout(hparams.timbre_dropout, name=f"timbre_dropout{number}")(x)
    x = layers.Dense(constants.NUM_FAMILIES, activation="softmax", dtype="float32", name="timbre_family")(x)
    family = SplitNotes(name="family", dtype="float32")(x, notes)
    return keras.Model({"spectrum": spectrum, "notes": notes}, {"family": family}, name=name)


def _filters_network(hparams: TimbreHParams, name: str) -> keras.Model:
    """The published network: filters of several shapes over the whole spectrum, of which every note takes its own part."""
    spectrum = keras.Input((None, hparams.timbre_spec_n_bins), dtype="float32", name="spectrum")
    notes = notes_input()
    x = layers.Reshape((-1, hparams.timbre_spec_n_bins, 1), name="timbre_image")(spectrum)  # [batch, time, bin, 1]
    for number, filters in enumerate(hparams.timbre_num_filters, start=1):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"timbre_conv{number}")(x)
        x = layers.BatchNormalization(name=f"timbre_norm{number}")(x)
        x = layers.ReLU(name=f"timbre_relu{number}")(x)
        x = layers.MaxPooling2D(hparams.timbre_pool_size, padding="same", name=f"timbre_pool{number}")(x)
    shapes = [
        (filters, temporal, frequency)
        for frequency in hparams.timbre_freq_sizes
        for filters, temporal in zip(hparams.timbre_temporal_filters, hparams.timbre_temporal_sizes, strict=True)
    ]
    parallel = [
        layers.Conv2D(filters, (temporal, frequency), padding="same", activation="relu", name=f"timbre_{temporal}x{frequency}")(
            x
        )
        for filters, temporal, frequency in shapes
    ]
    x = layers.Concatenate(name="timbre_parallel")(parallel)
    blocks = len(hparams.timbre_num_filters)
    frame_rate = constants.SAMPLE_RATE / hparams.timbre_hop_length / hparams.timbre_pool_size[0] ** blocks
    x = CropAndPool(frame_rate, name="timbre_crops")(x, notes)  # [batch, notes, bin, channels]
    x = FrequencyWeights(
        hparams.timbre_lowest_hz,
        hparams.timbre_bins_per_octave / hparams.timbre_pool_size[1] ** blocks,
        hparams.timbre_below_weight,
        hparams.timbre_gradient_exp,
        name="timbre_weighted",
    )(x, notes)
    x = MergeNotes(name="timbre_merged")(x)
    x = layers.Conv1D(256, 3, padding="same", activation="relu", name="timbre_partials")(x)
    x = layers.GlobalMaxPooling1D(name="timbre_highest")(x)
    x = layers.Dense(hparams.timbre_dense_units, activation="relu", name="timbre_dense")(x)
    x = layers.Dropout(hparams.timbre_dropout, name="timbre_dropout1")(x)
    x = layers.Dense(constants.NUM_FAMILIES, activation="sigmoid", dtype="float32", name="timbre_family")(x)
    family = SplitNotes(name="family", dtype="float32")(x, notes)
    return keras.Model({"spectrum": spectrum, "notes": notes}, {"family": family}, name=name)


@keras.saving.register_keras_serializable(package="polyamp")
class FrequencyWeights(FixedFloat32Layer):
    """Weighs what lies below a note little and what lies above it less and less.

    Inputs: `[batch, notes, bins, channels]` and notes `[batch, notes, 3]`. The weight of a bin is `below` under the note's
    fundamental (half a semitone of tolerance) and `exp(-octaves above / gradient_exp)` from there on.
    """

    def __init__(self, lowest_hz: float, bins_per_octave: float, below: float, gradient_exp: float, **kwargs):
        super().__init__(**kwargs)
        self.lowest_hz, self.bins_per_octave = lowest_hz, bins_per_octave
        self.below, self.gradient_exp = below, gradient_exp

    def call(self, features, notes):
        lowest_pitch = 69 + 12 * np.log2(self.lowest_hz / 440)
        octave = ops.arange(features.shape[2], dtype="float32") / self.bins_per_octave
        above = octave - (notes[..., PITCH, None] - lowest_pitch) / 12  # Octaves, [batch, notes, bin]
        tolerance = max(0.5 / 12, 0.5 / self.bins_per_octave)
        weight = ops.where(above < -tolerance, self.below, ops.exp(-ops.maximum(above, 0.0) / self.gradient_exp))
        return features * weight[..., None]

    def compute_output_shape(self, features_shape, notes_shape):
        return features_shape

    def get_config(self):
        names = ("lowest_hz", "bins_per_octave", "below", "gradient_exp")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
