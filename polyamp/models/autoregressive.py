"""The Autoregressive model: piano, one frame after the other, five states per pitch, each answer in the light of the last.

Kwon, Jeong and Nam 2020, "Polyphonic Piano Transcription Using Autoregressive Multi-State Note Model" (arXiv 2010.01104). The
compact network follows the same authors' "Towards Efficient and Real-Time Piano Transcription Using Neural Autoregressive
Models" (2024, arXiv 2404.06818): weights shared over pitch, one small LSTM per pitch, and the age of notes in the context.
"""

import dataclasses

import keras
from keras import layers, ops

from polyamp import constants
from polyamp.audio.log_frequency import NUM_BINS
from polyamp.audio.spectrogram import make_spectrogram
from polyamp.hparams import AutoregressiveHParams
from polyamp.layer_bases import FixedLayer
from polyamp.models import onsets_frames, pitch_shared
from polyamp.models.layers import audio_input
from polyamp.models.recurrence import StateRecurrence
from polyamp.models.state_loss import StateLoss


@keras.saving.register_keras_serializable(package="polyamp")
class AutoregressiveModel(keras.Model):
    """A functional model whose loss depends on the contexts that its recurrence was given."""

    state_loss = StateLoss()

    def weigh(self, hparams: AutoregressiveHParams) -> "AutoregressiveModel":
        """Takes the weights of the parts of the loss; returns itself."""
        self.state_loss = StateLoss(hparams.state_velocity_weight, hparams.state_time_weight)
        return self

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of `y_pred`, this model's outputs; `y` and `sample_weight` as `polyamp.data.state_batches` gives them."""
        weight = ops.broadcast_to(sample_weight["state"][..., None], ops.shape(y["velocity"]))
        return self.state_loss(y, y_pred, weight)


@keras.saving.register_keras_serializable(package="polyamp")
class LabelShift(FixedLayer):
    """Moves features `[batch, time, ...]` so that those at frame `t` were centred on frame `t - shift`; zeros come in."""

    def __init__(self, shift: int, **kwargs):
        super().__init__(**kwargs)
        self.shift = shift

    def call(self, features):
        rest = [[0, 0]] * (len(features.shape) - 2)
        if self.shift > 0:
            return ops.pad(features, [[0, 0], [self.shift, 0], *rest])[:, : -self.shift]
        return ops.pad(features, [[0, 0], [0, -self.shift], *rest])[:, -self.shift :]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "shift": self.shift}


def build(hparams: AutoregressiveHParams) -> AutoregressiveModel:
    """Audio `[batch, samples]`, true states and which examples run freely, to states (see `build_network`)."""
    inputs = {"audio": audio_input(), **_context_inputs()}
    spectrum = make_spectrogram(hparams, name="spectrogram")(inputs["audio"])
    outputs = build_network(hparams)({"spectrum": spectrum, "state": inputs["state"], "free_run": inputs["free_run"]})
    return AutoregressiveModel(inputs, outputs, name="autoregressive").weigh(hparams)


def _context_inputs() -> dict[str, keras.KerasTensor]:
    return {
        "state": keras.Input((None, constants.NUM_PITCHES), dtype="int32", name="state"),
        "free_run": keras.Input((), dtype="float32", name="free_run"),
    }


def build_network(hparams: AutoregressiveHParams) -> AutoregressiveModel:
    """From a spectrum to states.

    Inputs: "spectrum" `[batch, time, bins]`; "state" int32 `[batch, time, 88]`, the true states, of which frame `t` is the
    context of frame `t + 1`; "free_run" `[batch]`, 1 for examples whose context is what the model itself answers.

    Outputs: "state" `[batch, time, 88, 5]`, probabilities; "velocity" `[batch, time, 88]` in [0, 1], of the note that begins
    there; "timing" `[batch, time, 88]`, by how many frames a note begins or ends after the frame's time; "logits" and
    "context", of which the loss is computed.
    """
    bins = NUM_BINS if hparams.spec_type == "log_frequency" else hparams.spec_n_bins
    inputs = {"spectrum": keras.Input((None, bins), dtype="float32", name="spectrum"), **_context_inputs()}
    features = build_acoustic(hparams)(inputs["spectrum"])
    answers = StateRecurrence(
        hparams.recurrent_units,
        hparams.recurrent_layers,
        hparams.state_embedding,
        hparams.age_buckets,
        per_pitch=hparams.architecture == "pitch_shared",
        onset_boost=hparams.onset_boost,
        offset_boost=hparams.offset_boost,
        name="recurrence",
    )(features, inputs["state"], inputs["free_run"])
    outputs = answers | {"state": layers.Softmax(dtype="float32", name="probabilities")(answers["logits"])}
    return AutoregressiveModel(inputs, outputs, name="network").weigh(hparams)


def build_acoustic(hparams: AutoregressiveHParams) -> keras.Model:
    """Spectrum `[batch, time, bins]` to features, of which those at frame `t` say what happens at frame `t`."""
    acoustic = _pitch_shared if hparams.architecture == "pitch_shared" else _conv_stack
    spectrum, features = acoustic(hparams)
    return keras.Model(spectrum, LabelShift(hparams.label_shift, name="label_shift")(features), name="acoustic")


def _conv_stack(hparams: AutoregressiveHParams) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The published network: `[batch, time, fc_size]`."""
    spectrum = keras.Input((None, hparams.spec_n_bins), dtype="float32", name="spectrum")
    image = layers.Reshape((-1, hparams.spec_n_bins, 1), name="image")(spectrum)  # [batch, time, bin, 1]
    complexity = hparams.model_complexity
    sizes = dataclasses.replace(
        hparams,
        num_filters=(complexity, complexity, 2 * complexity),
        temporal_sizes=hparams.acoustic_kernels,
        freq_sizes=(3, 3, 3),
        pool_sizes=(1, 2, 2),
        use_batch_normalization=True,
    )
    return spectrum, onsets_frames.conv_stack(image, sizes, "acoustic")


def _pitch_shared(hparams: AutoregressiveHParams) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Convolutions over the past and neighbouring pitches, weights shared over pitch: `[batch, time, 88, channels]`."""
    spectrum = keras.Input((None, NUM_BINS), dtype="float32", name="spectrum")
    return spectrum, pitch_shared.trunk(spectrum, hparams, is_causal=True)


def loss_arguments(hparams: AutoregressiveHParams) -> dict:
    """Nothing for `keras.Model.compile`: the model brings its own loss."""
    return {}


def acoustic_part(model: keras.Model) -> keras.Model:
    """Of a built model the part from audio `[batch, samples]` to features (see `build_acoustic`), with the same weights."""
    audio = audio_input()
    features = network(model).get_layer("acoustic")(model.get_layer("spectrogram")(audio))
    return keras.Model(audio, features, name="acoustic_part")


def network(model: keras.Model) -> keras.Model:
    """The part of a model from the spectrum on."""
    return model.get_layer("network")


class RecurrentPart(keras.Model):
    """Of a built model the part from features to answers, run freely, with a carry that one call hands to the next.

    Called with a dict "features" `[batch, time, ...]` and "carry" (see `initial_carry`); answers a dict of "state" int32,
    "velocity", "timing" and "onset" `[batch, time, 88]`, and "carry".
    """

    def __init__(self, model: keras.Model):
        super().__init__(name="recurrent_part")
        self.recurrence = network(model).get_layer("recurrence")
        self.built = True  # All its layers are.

    def initial_carry(self) -> list:
        """The carry before the first frame of one recording."""
        hidden, cells, state, age = self.recurrence.initial_carry(constants.NUM_PITCHES // self.recurrence.pitches_per_row)
        return [*hidden, *cells, state, age]

    def call(self, inputs):
        *layers_carry, state, age = inputs["carry"]
        half = len(layers_carry) // 2
        carry = (tuple(layers_carry[:half]), tuple(layers_carry[half:]), state, age)
        gates = self.recurrence.gates_of_features(inputs["features"])
        (hidden, cells, state, age), (outputs, _, states, _) = self.recurrence.free_run(gates, carry)
        return {**self.recurrence.answers(states, outputs[-1]), "carry": [*hidden, *cells, state, age]}
