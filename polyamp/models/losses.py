"""Losses over rolls; every one is a weighted mean over the cells whose sample weight is not zero."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="polyamp")
class RecallWeightedLogLoss(keras.losses.Loss):
    """Binary cross-entropy whose positive part is multiplied by `true_weighing`, so that misses cost more than false alarms.

    Targets and predictions `[batch, time, pitch]` in [0, 1]; soft targets (triangular onsets) are allowed.
    """

    def __init__(self, true_weighing: float = 1.0, name: str = "log_loss", **kwargs):
        super().__init__(name=name, reduction="mean_with_sample_weight", **kwargs)
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

    def __init__(self, name: str = "velocity_loss", **kwargs):
        super().__init__(name=name, reduction="mean_with_sample_weight", **kwargs)

    def call(self, y_true, y_pred):
        return ops.square(y_true - y_pred)

    def get_config(self):
        return {"name": self.name}
