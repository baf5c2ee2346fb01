"""Losses over rolls (weighted means over the cells whose sample weight is not zero) and over the families of notes."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="polyamp")
class RecallWeightedLogLoss(keras.losses.Loss):
    """Binary cross-entropy whose positive part is multiplied by `true_weighing`, so that misses cost more than false alarms.

    Targets and predictions `[batch, time, pitch]` in [0, 1]; soft targets (triangular onsets) are allowed.
    """

    def __init__(self, true_weighing: float = 1.0, name: str = "log_loss", dtype=None):
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)
        self.true_weighing = true_weighing

    def call(self, y_true, y_pred):
        # Clipped where float32 still tells 1 - p from 1, so that the gradient of a confident mistake stays finite.
        p = ops.clip(y_pred, 1e-7, 1.0 - 1e-6)
        return -(self.true_weighing * y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))

    def get_config(self):
        return {"true_weighing": self.true_weighing, "name": self.name}


@keras.saving.register_keras_serializable(package="polyamp")
class VelocityLoss(keras.losses.Loss):
    """Squared error of the velocity in [0, 1], at onsets only: the sample weight is 0 elsewhere (Hawthorne et al. 2018)."""

    def __init__(self, name: str = "velocity_loss", dtype=None):
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)

    def call(self, y_true, y_pred):
        return ops.square(y_true - y_pred)

    def get_config(self):
        return {"name": self.name}


def _of_notes(y_true):
    """1 for notes, whose target has a family, 0 for padding, `[batch, notes]`; and how many notes of each family, `[12]`."""
    return ops.max(y_true, axis=-1), ops.sum(y_true, axis=(0, 1))


@keras.saving.register_keras_serializable(package="polyamp")
class FamilyLogLoss(keras.losses.Loss):
    """Binary cross-entropy of every family of every note, as published: recall counts more, absent families less.

    Targets `[batch, notes, 12]`, one-hot or all zeros for padding; predictions of that shape in [0, 1]. The mean over notes of
    the sum over families. What is true is weighted by `recall_weight`; families that no note of the batch has by
    `absent_weight`.
    """

    def __init__(self, recall_weight: float = 1.0, absent_weight: float = 1e-2, name: str = "family_log_loss", dtype=None):
        super().__init__(name=name, reduction="sum", dtype=dtype)
        self.recall_weight, self.absent_weight = recall_weight, absent_weight

    def call(self, y_true, y_pred):
        is_note, counts = _of_notes(y_true)
        p = ops.clip(y_pred, 1e-7, 1.0 - 1e-6)
        loss = -(self.recall_weight * y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))
        of_family = ops.where(counts > 0, 1.0, self.absent_weight)  # [family]
        return ops.sum(loss * of_family, axis=-1) * is_note / ops.maximum(ops.sum(is_note), 1.0)

    def get_config(self):
        return {"recall_weight": self.recall_weight, "absent_weight": self.absent_weight, "name": self.name}


@keras.saving.register_keras_serializable(package="polyamp")
class FamilyCrossentropy(keras.losses.Loss):
    """Cross-entropy of the family of every note, families with few notes in the batch counting more for each.

    Targets and predictions as in `FamilyLogLoss`, predictions summing to 1. The weight of a note is the number of notes of its
    family to the power of `-balance`; the loss is the weighted mean.
    """

    def __init__(self, balance: float = 0.0, name: str = "family_crossentropy", dtype=None):
        super().__init__(name=name, reduction="sum", dtype=dtype)
        self.balance = balance

    def call(self, y_true, y_pred):
        is_note, counts = _of_notes(y_true)
        weight = ops.sum(y_true * ops.maximum(counts, 1.0) ** -self.balance, axis=-1) * is_note  # [batch, notes]
        loss = -ops.sum(y_true * ops.log(ops.clip(y_pred, 1e-7, 1.0)), axis=-1)
        return loss * weight / ops.maximum(ops.sum(weight), 1e-7)

    def get_config(self):
        return {"balance": self.balance, "name": self.name}


@keras.saving.register_keras_serializable(package="polyamp")
class FamilyRollLoss(RecallWeightedLogLoss):
    """Recall-weighted log loss of rolls by family, `[batch, time, pitch, 13]`; families absent from the batch count less.

    The last channel, whatever plays, always counts fully.
    """

    def __init__(self, true_weighing: float = 1.0, absent_weight: float = 1e-2, name: str = "family_roll_loss", dtype=None):
        super().__init__(true_weighing, name=name, dtype=dtype)
        self.absent_weight = absent_weight

    def call(self, y_true, y_pred):
        present = ops.max(y_true, axis=(0, 1, 2)) > 0
        present = ops.concatenate([present[:-1], ops.ones_like(present[-1:])])
        return super().call(y_true, y_pred) * ops.where(present, 1.0, self.absent_weight)

    def get_config(self):
        return {**super().get_config(), "absent_weight": self.absent_weight}
