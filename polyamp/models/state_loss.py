"""What the Autoregressive model is taught: the right next state, given those that it was told or that it answered itself."""

from typing import Any

import keras
from keras import ops

from polyamp.notes.states import OFF, OFFSET, ONSET, REONSET, SUSTAIN


def corrected(state: Any, context: Any) -> tuple[Any, Any]:
    """The best answers that are still possible after what was answered before.

    Where the context is the truth these are the true states. Where it is not, as in a free run: a note that was begun a frame
    too early is sustained; one that was missed may begin a frame late, and then no more; a note that does not sound is ended,
    or begun anew where its pitch is played.

    Args:
        state: True states, int32 `[batch, time, 88]`.
        context: States taken for the frame before, int32 `[batch, time, 88]`.

    Returns:
        The states to answer, int32, and by how many frames each is late (1 or 0), float32, both `[batch, time, 88]`.
    """
    before = ops.pad(state[:, :-1], [[0, 0], [1, 0], [0, 0]])
    sounds, has_begun = context >= SUSTAIN, context >= ONSET
    is_onset, was_onset = state >= ONSET, before >= ONSET
    # A repetition was missed where the onset of the frame before left the pitch merely sustained.
    is_late = (state == SUSTAIN) & was_onset & ~has_begun
    begins = ops.where(sounds, REONSET, ONSET)
    target = ops.where(sounds, OFFSET, OFF)  # What neither sounds nor begins.
    target = ops.where((state == SUSTAIN) & sounds, SUSTAIN, target)
    target = ops.where(is_late, begins, target)
    target = ops.where(is_onset, ops.where(has_begun & ~was_onset, SUSTAIN, begins), target)
    return ops.cast(target, "int32"), ops.cast(is_late, "float32")


@keras.saving.register_keras_serializable(package="polyamp")
class StateLoss(keras.losses.Loss):
    """Cross-entropy of the states, and squared errors of velocities (at onsets) and times (at onsets and offsets).

    Of notes whose velocity is 0, so unknown, none is learned.

    Targets "state", "velocity" and "timing" `[batch, time, 88]`, as `polyamp.notes.states.to_states` gives them; predictions
    "logits", "velocity", "timing" and "context" of the model. The mean over the cells whose sample weight is not zero, so that
    the errors count in relation to all cells, not to the few where something begins or ends.

    Args:
        velocity_weight: Of the velocities' errors.
        timing_weight: Of the times' errors.
    """

    def __init__(self, velocity_weight: float = 4.0, timing_weight: float = 1.0, name: str = "state_loss", **kwargs):
        super().__init__(name=name, reduction="mean_with_sample_weight", **kwargs)
        self.velocity_weight, self.timing_weight = velocity_weight, timing_weight

    def call(self, truth, answer):
        target, late = corrected(truth["state"], answer["context"])
        crossentropy = keras.losses.sparse_categorical_crossentropy(target, answer["logits"], from_logits=True)
        begins = ops.cast(target >= ONSET, "float32")
        ends = ops.cast((target == OFFSET) & (truth["state"] == OFFSET), "float32")
        is_known = ops.cast(truth["velocity"] > 0, "float32")
        velocity_error = begins * is_known * ops.square(answer["velocity"] - truth["velocity"])
        before = ops.pad(truth["timing"][:, :-1], [[0, 0], [1, 0], [0, 0]])
        timing = ops.clip(ops.where(late > 0, before - 1.0, truth["timing"]), -1.5, 1.5)
        timing_error = (begins + ends) * ops.square(answer["timing"] - timing)
        return crossentropy + self.velocity_weight * velocity_error + self.timing_weight * timing_error

    def get_config(self):
        return {"velocity_weight": self.velocity_weight, "timing_weight": self.timing_weight, "name": self.name}
