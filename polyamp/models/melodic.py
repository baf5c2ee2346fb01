"""The Melodic model: which of 88 pitches start, sound and stop, and how loud, whatever plays them."""

import keras

from polyamp import constants
from polyamp.audio.spectrogram import make_spectrogram
from polyamp.hparams import MelodicHParams
from polyamp.models import losses, onsets_frames, pitch_shared
from polyamp.models.layers import audio_input

_NETWORKS = {"onsets_frames": onsets_frames.build_network, "pitch_shared": pitch_shared.build_network}


def build(hparams: MelodicHParams) -> keras.Model:
    """Audio `[batch, samples]` to "onset", "offset", "frame" and "velocity", each `[batch, 1 + samples // hop, 88]`."""
    audio = audio_input()
    spectrum = make_spectrogram(hparams, name="spectrogram")(audio)
    rolls = build_network(hparams)(spectrum)
    return keras.Model(audio, {roll: rolls[roll] for roll in constants.ROLLS}, name="melodic")


def build_network(hparams: MelodicHParams) -> keras.Model:
    """Spectrum `[batch, time, bins]` to the four rolls, with the network that the settings name."""
    return _NETWORKS[hparams.architecture](hparams)


def loss_arguments(hparams: MelodicHParams) -> dict:
    """The arguments of `keras.Model.compile` that say what is learned: a loss and its weight for every roll."""
    return {
        "loss": {
            "onset": losses.RecallWeightedLogLoss(hparams.onsets_true_weighing),
            "offset": losses.RecallWeightedLogLoss(hparams.offsets_true_weighing),
            "frame": losses.RecallWeightedLogLoss(hparams.frames_true_weighing),
            "velocity": losses.VelocityLoss(),
        },
        "loss_weights": {
            "onset": hparams.onset_loss_weight,
            "offset": hparams.offset_loss_weight,
            "frame": hparams.frame_loss_weight,
            "velocity": hparams.velocity_loss_weight,
        },
    }
