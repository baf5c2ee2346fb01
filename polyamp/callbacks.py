"""Keras callbacks of training: counting steps, stopping in good order, saving, validating, logging."""

import contextlib
import dataclasses
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from polyamp import assess, atomic, checkpoint, checkpoint_file, startup
from polyamp.data.example import Example
from polyamp.distribution import Distribution
from polyamp.errors import CheckpointError, DataError, PolyampError
from polyamp.hparams import MelodicHParams

METRICS_FILE = "metrics.jsonl"
_LOG_EVERY = 50  # Steps between lines of METRICS_FILE.


@dataclasses.dataclass
class Progress:
    """Where training stands; shared by the callbacks.

    Attributes:
        step: Optimizer steps done, over all runs.
        seed: Of the data.
        best: Best validation score so far (see `assess.main_metric`); -1 before the first.
        validated: Step of the last validation; 0 before the first.
        stop: Set to end training, with a checkpoint, after the step in progress.
    """

    step: int
    seed: int
    best: float
    validated: int = 0
    stop: bool = False

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "Progress":
        """Where training stood when a checkpoint with such meta data was saved."""
        step = meta["step"]
        # Earlier versions did not note what has been validated.
        return cls(step, meta.get("seed", 0), meta.get("best", -1.0), meta.get("validated", step))

    @property
    def meta(self) -> dict[str, Any]:
        """What `of` takes."""
        return {"step": self.step, "seed": self.seed, "best": self.best, "validated": self.validated}


@contextlib.contextmanager
def stop_on_signals(progress: Progress) -> Iterator[None]:
    """Lets Ctrl-C and other signals to end finish the step, save and leave; a second one interrupts at once."""

    def handle(number, frame):
        if startup.is_hang_up(number):
            startup.forget_terminal()
            if progress.stop:
                return  # A shell passes on what the terminal has sent already.
        if progress.stop:
            raise KeyboardInterrupt
        logging.warning("Stopping after this step; a checkpoint will be saved. Once more to stop at once.")
        progress.stop = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, *startup.other_signals())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _not_finite(what: str, step: int) -> str:
    return f"{what} finite any more at step {step}, of which nothing is saved. Lower learning_rate or clip_norm in --hparams."


class StepCounter(keras.callbacks.Callback):
    """Counts steps, ends training at `num_steps` or when told to, and refuses to go on from a loss that is not finite."""

    def __init__(self, progress: Progress, num_steps: int, devices: Distribution):
        super().__init__()
        self._progress, self._num_steps, self._devices = progress, num_steps, devices

    def on_train_batch_end(self, batch, logs=None):
        self._progress.step += 1
        if not math.isfinite(float((logs or {}).get("loss", 0.0))):
            raise PolyampError(_not_finite("The loss is not", self._progress.step))
        self._progress.stop = self._devices.any(self._progress.stop)  # All workers end with the same step.
        if self._progress.stop or self._progress.step >= self._num_steps:
            self.model.stop_training = True


class Saver(keras.callbacks.Callback):
    """At the end of every epoch (one checkpoint interval): a checkpoint, validation, the best one kept, old ones removed.

    All that by the chief alone; the next step of the other processes waits for it.
    """

    def __init__(
        self,
        directory: Path,
        whole_model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        progress: Progress,
        hparams: MelodicHParams,
        keep: int,
        validation: Callable[[], Iterable[Example]] | None,
        is_chief: bool,
    ):
        super().__init__()
        self._directory, self._whole_model, self._optimizer = directory, whole_model, optimizer
        self._progress, self._hparams, self._keep = progress, hparams, keep
        self._validation, self._is_chief = validation, is_chief
        self._started = time.monotonic()
        if is_chief:
            atomic.remove_abandoned(directory)

    @functools.cached_property
    def _summaries(self) -> tf.summary.SummaryWriter:
        return tf.summary.create_file_writer(str(self._directory / "tensorboard"))

    def on_train_batch_begin(self, batch, logs=None):
        # So that each line is the mean since the last one. Not when the line is written: Keras still prints the values.
        if self._progress.step % _LOG_EVERY == 0:
            self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        if self._is_chief and self._progress.step % _LOG_EVERY == 0:
            self._log(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        if not self._is_chief:
            return
        if self._progress.step % _LOG_EVERY:
            self._log(logs or {})
        figures = ", ".join(f"{name} {value:.4f}" for name, value in sorted((logs or {}).items()))
        logging.info("Step %d: %s.", self._progress.step, figures)
        path = checkpoint.step_path(self._directory, self._progress.step)
        if path.exists():
            raise PolyampError(
                f"{path}: has been written by another training of this --model_id meanwhile; give this one another."
            )
        try:
            self._save(path)  # Before validation, whose failure then costs no training.
        except CheckpointError as error:  # The last step has spoiled them, whose loss was still a number.
            raise PolyampError(_not_finite("The weights are not", self._progress.step)) from error
        if not self._progress.stop:
            self._validate_last()
        self._remove_old()

    def catch_up(self) -> None:
        """Does with the last checkpoint of an earlier run what an interruption kept that from doing."""
        if self._is_chief and self._progress.step > self._progress.validated:
            self._validate_last()
            self._remove_old()

    def _validate_last(self) -> None:
        """Validates the weights, just saved, and keeps them as the best if they are."""
        if not self._validation:
            return
        scores = self._validate(self._validation())
        metric = assess.main_metric(self._hparams)
        self._log({f"val_{name}": value for name, value in scores.items()})
        logging.info("Step %d: validation %s %.4f.", self._progress.step, metric, scores[metric])
        self._progress.validated = self._progress.step
        if scores[metric] > self._progress.best:
            self._progress.best = scores[metric]
            self._save(self._directory / checkpoint.BEST_FILE)
        self._save(checkpoint.step_path(self._directory, self._progress.step))  # Which says so, and how good the best one is.

    def _remove_old(self) -> None:
        for old in checkpoint.numbered(self._directory)[: -self._keep]:
            old.unlink(missing_ok=True)

    def _save(self, path: Path) -> None:
        checkpoint_file.save(path, self._whole_model, self._progress.meta, self._optimizer)

    def _validate(self, examples: Iterable[Example]) -> dict[str, float]:
        """Scores over validation examples, taken whole (`assess.overall`); those without notes say nothing about families.

        Raises:
            DataError: A record is damaged, or there is no example to score.
        """
        score = assess.assessor(self._hparams)
        assessments = [
            score(self._whole_model, self._hparams, example) for example in examples if assess.can_score(self._hparams, example)
        ]
        if not assessments:
            raise DataError("--validation_examples_path: holds no example with notes; the checkpoint has been saved.")
        return assess.overall(self._hparams, assessments)

    def _log(self, values: dict[str, float]) -> None:
        """Adds a line to the log and points to the TensorBoard curves, at the step counted over all runs."""
        line = {"step": self._progress.step, "seconds": round(time.monotonic() - self._started, 1)}
        line |= {name: float(value) for name, value in values.items()}
        try:
            with (self._directory / METRICS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            with self._summaries.as_default(self._progress.step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
            self._summaries.flush()
        except (OSError, tf.errors.OpError) as error:
            logging.warning("Step %d: its figures cannot be written (%s); training goes on.", self._progress.step, error)
