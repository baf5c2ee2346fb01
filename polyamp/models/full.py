"""The Full model: the Melodic one finds notes, the Timbre one says who plays them, and both learn together."""

import keras
from keras import ops

from polyamp import constants
from polyamp.audio.spectrogram import make_spectrogram
from polyamp.hparams import FullHParams
from polyamp.layer_bases import FixedFloat32Layer
from polyamp.models import losses, melodic, timbre
from polyamp.models.layers import audio_input
from polyamp.models.note_layers import notes_input, one_hot_pitch, sounding_frames

NUM_CHANNELS = constants.NUM_FAMILIES + 1  # The last: whatever plays.


def build(hparams: FullHParams) -> keras.Model:
    """Audio `[batch, samples]` and notes `[batch, notes, 3]` to rolls and families.

    The answer has "onset", "offset", "frame" and "velocity", `[batch, time, 88]` as of the Melodic model; "family", the
    families of the given notes, `[batch, notes, 12]`; and "instruments", probabilities `[batch, time, 88, 13]` that a family
    sounds: of the notes that the model itself finds, the last channel the frame roll, whatever plays.
    """
    audio, notes = audio_input(), notes_input()
    spectrum = make_spectrogram(hparams, name="spectrogram")(audio)
    timbre_spectrum = spectrum if shares_spectrogram(hparams) else timbre.make_spectrogram(hparams, "timbre_spectrogram")(audio)
    outputs = build_network(hparams)({"spectrum": spectrum, "timbre_spectrum": timbre_spectrum, "notes": notes})
    return keras.Model({"audio": audio, "notes": notes}, outputs, name="full")


def shares_spectrogram(hparams: FullHParams) -> bool:
    """Whether both parts read the same spectrogram."""
    same = hparams.timbre_architecture != "filters" and hparams.spec_type == "log_frequency"
    return same and hparams.timbre_hop_length == hparams.hop_length


def build_network(hparams: FullHParams) -> keras.Model:
    """Both networks and what connects them: spectra and notes to the answers of `build`."""
    melodic_network = melodic.build_network(hparams)
    melodic_network.trainable = hparams.melodic_trainable
    timbre_network = timbre.build_network(hparams, name="timbre_network")
    inputs = {
        "spectrum": keras.Input(melodic_network.input.shape[1:], dtype="float32", name="spectrum"),
        "timbre_spectrum": keras.Input(timbre_network.input["spectrum"].shape[1:], dtype="float32", name="timbre_spectrum"),
        "notes": notes_input(),
    }
    rolls = melodic_network(inputs["spectrum"])
    given = timbre_network({"spectrum": inputs["timbre_spectrum"], "notes": inputs["notes"]})
    found = DecodeNotes(
        hparams.full_max_notes,
        hparams.frames_per_second,
        hparams.predict_onset_threshold,
        hparams.predict_frame_threshold,
        name="found_notes",
    )(rolls["onset"], rolls["frame"])
    of_found = timbre_network({"spectrum": inputs["timbre_spectrum"], "notes": found})
    instruments = PaintFamilies(hparams.frames_per_second, name="instruments")(rolls["frame"], found, of_found["family"])
    outputs = {**{roll: rolls[roll] for roll in constants.ROLLS}, "family": given["family"], "instruments": instruments}
    return keras.Model(inputs, outputs, name="network")


def loss_arguments(hparams: FullHParams) -> dict:
    """The arguments of `keras.Model.compile` that say what is learned."""
    arguments = melodic.loss_arguments(hparams)
    arguments["loss"] |= {
        "family": timbre.make_loss(hparams),
        "instruments": losses.FamilyRollLoss(hparams.family_recall_weight, hparams.family_absent_weight),
    }
    arguments["loss_weights"] |= {
        "family": hparams.family_loss_weight,
        "instruments": hparams.instruments_loss_weight,
    }
    return arguments


def melodic_part(model: keras.Model) -> keras.Model:
    """Of a Full model the part from audio to the four rolls, which needs no notes; shares the weights."""
    audio = model.input["audio"]
    return keras.Model(audio, model.get_layer("network").get_layer("network")(model.get_layer("spectrogram")(audio)))


def timbre_part(model: keras.Model) -> keras.Model:
    """Of a Full model the part from audio and notes to the families of these notes; shares the weights."""
    network = model.get_layer("network")
    own = any(layer.name == "timbre_spectrogram" for layer in model.layers)
    spectrum = model.get_layer("timbre_spectrogram" if own else "spectrogram")(model.input["audio"])
    families = network.get_layer("timbre_network")({"spectrum": spectrum, "notes": model.input["notes"]})
    return keras.Model(model.input, families)


@keras.saving.register_keras_serializable(package="polyamp")
class DecodeNotes(FixedFloat32Layer):
    """The most probable notes of onset and frame rolls, for training: `[batch, time, 88]` each to `[batch, max_notes, 3]`.

    A note begins where the onset probability is a local maximum above its threshold, and ends before the first frame below the
    frame threshold or the next such onset of its pitch, as in `polyamp.notes.from_rolls` without offsets and refinement. No
    gradient passes. Every step works on all notes at once.
    """

    def __init__(self, max_notes: int, frames_per_second: float, onset_threshold: float, frame_threshold: float, **kwargs):
        super().__init__(**kwargs)
        self.max_notes, self.frames_per_second = max_notes, frames_per_second
        self.onset_threshold, self.frame_threshold = onset_threshold, frame_threshold

    def call(self, onset, frame):
        onset, frame = ops.stop_gradient(onset), ops.stop_gradient(frame)
        batch, num_times = ops.shape(onset)[0], ops.shape(onset)[1]
        peak = (onset > self.onset_threshold) & (onset >= self._highest_near(onset))  # [batch, time, pitch]
        flat = ops.reshape(ops.where(peak, onset, 0.0), (batch, -1))
        flat = ops.pad(flat, [[0, 0], [0, self.max_notes]])  # So that there always are enough.
        probability, index = ops.top_k(flat, self.max_notes)
        exists = probability > 0
        index = ops.where(exists, ops.cast(index, "int32"), 0)
        start, pitch = index // constants.NUM_PITCHES, index % constants.NUM_PITCHES  # [batch, note]
        silent = ops.transpose((frame <= self.frame_threshold) | peak, (0, 2, 1))  # [batch, pitch, time]
        silent = ops.take_along_axis(ops.cast(silent, "int32"), pitch[..., None], axis=1)  # [batch, note, time]
        time = ops.arange(num_times, dtype="int32")
        ends = ops.where((silent > 0) & (time > start[..., None]), time, num_times)
        end = ops.min(ends, axis=-1)
        columns = [ops.cast(pitch + constants.MIN_MIDI_PITCH, "float32")]
        columns += [ops.cast(frames, "float32") / self.frames_per_second for frames in (start, end)]
        return ops.stack(columns, axis=-1) * ops.cast(exists, "float32")[..., None]

    def _highest_near(self, onset):
        """The maximum over two frames on both sides."""
        num_times = ops.shape(onset)[1]
        padded = ops.pad(onset, [[0, 0], [2, 2], [0, 0]])
        highest = padded[:, :num_times]
        for shift in range(1, 5):
            highest = ops.maximum(highest, padded[:, shift : shift + num_times])
        return highest

    def compute_output_shape(self, onset_shape, frame_shape):
        return (onset_shape[0], self.max_notes, 3)

    def get_config(self):
        names = ("max_notes", "frames_per_second", "onset_threshold", "frame_threshold")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="polyamp")
class PaintFamilies(FixedFloat32Layer):
    """Paints the families of notes back into rolls, and multiplies them with the probability that the pitch sounds.

    Inputs: frame roll `[batch, time, 88]`, notes `[batch, notes, 3]`, their families `[batch, notes, 12]`; output `[batch,
    time, 88, 13]`, the last channel the frame roll itself. Notes of one pitch must not overlap.
    """

    def __init__(self, frames_per_second: float, **kwargs):
        super().__init__(**kwargs)
        self.frames_per_second = frames_per_second

    def call(self, frame, notes, family):
        frame, family = ops.cast(frame, "float32"), ops.cast(family, "float32")
        shape = ops.shape(frame)
        sounding = ops.transpose(sounding_frames(notes, shape[1], self.frames_per_second), (0, 2, 1))  # [batch, time, note]
        painted = one_hot_pitch(notes)[..., :, None] * family[..., None, :]  # [batch, note, pitch, family]
        flat = ops.reshape(painted, (shape[0], -1, constants.NUM_PITCHES * constants.NUM_FAMILIES))
        rolls = ops.reshape(ops.matmul(sounding, flat), (shape[0], shape[1], constants.NUM_PITCHES, constants.NUM_FAMILIES))
        return ops.concatenate([rolls * frame[..., None], frame[..., None]], axis=-1)

    def compute_output_shape(self, frame_shape, notes_shape, family_shape):
        return (*frame_shape, NUM_CHANNELS)

    def get_config(self):
        return {**super().get_config(), "frames_per_second": self.frames_per_second}
