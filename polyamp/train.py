"""Trains a model with Keras `fit`: data, optimizer, callbacks, and picking up where an earlier run stopped."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from polyamp import callbacks, checkpoint, checkpoint_file, distillation, distribution, models, starting_point, training_data
from polyamp import hparams as hparams_lib
from polyamp.errors import HParamsError, PolyampError
from polyamp.hparams import MelodicHParams
from polyamp.models import parts

_BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}  # As Linux names them, on x86 and on ARM.


def make_optimizer(hparams: MelodicHParams, num_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer with its learning rate schedule; `one_cycle` ends at `num_steps`."""
    if hparams.lr_schedule == "one_cycle":
        warmup = max(1, int(hparams.warmup_fraction * num_steps))
        rate: Any = keras.optimizers.schedules.CosineDecay(
            hparams.learning_rate / 25,
            decay_steps=max(1, num_steps - warmup),
            alpha=1e-4,
            warmup_target=hparams.learning_rate,
            warmup_steps=warmup,
        )
    elif hparams.lr_schedule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(
            hparams.learning_rate, hparams.decay_steps, hparams.decay_rate, staircase=True
        )
    else:
        rate = hparams.learning_rate
    clip = {"clipnorm" if hparams.clip_each_parameter else "global_clipnorm": hparams.clip_norm or None}
    if hparams.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=hparams.weight_decay, **clip)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
    return keras.optimizers.Adam(rate, **clip)


@contextlib.contextmanager
def precision_policy(policy: str) -> Iterator[None]:
    """Layers made inside compute in this precision (float32 variables all the same)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _warn_of_emulation(precision: str, cpu_info: Path = Path("/proc/cpuinfo")) -> None:
    """Warns where bfloat16 is asked for and only a processor that cannot compute with it is there; where Linux tells."""
    if precision != "mixed_bfloat16" or not cpu_info.is_file() or _has_gpu():
        return
    if not _BFLOAT16_INSTRUCTIONS & set(cpu_info.read_text(encoding="utf-8").split()):
        logging.warning(
            'This processor has no bfloat16 instructions: "mixed_bfloat16" may take several times as long as "float32".'
        )


def _has_gpu() -> bool:
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX raises this where there is none.
        return False


def _freeze(model: keras.Model, beginnings: str) -> None:
    """Leaves only those layers to learn whose names begin with one of some, comma-separated; all of them if there are none.

    Batch normalisation that does not learn keeps its means and variances, too.
    """
    if not beginnings:
        return
    wanted = tuple(beginning.strip() for beginning in beginnings.split(","))
    layers = parts.weighted_layers(model)
    for beginning in wanted:
        if not beginning or not any(layer.name.startswith(beginning) for layer in layers):
            names = ", ".join(layer.name for layer in layers)
            raise HParamsError(f"train_layers: no layer's name begins with {beginning!r}; there are {names}.")
    for layer in layers:
        layer.trainable = layer.trainable and layer.name.startswith(wanted)
    if not model.trainable_variables:
        raise HParamsError(f"train_layers: {beginnings!r} names layers alone that other settings keep from learning.")


def _seed_dropout(model: keras.Model, progress: callbacks.Progress) -> None:
    """Gives layers with random numbers those of the step at which training stands, whatever the number of interruptions.

    The state of Keras' generators is a seed and how often they have been asked, which is once a step.
    """
    for number, state in enumerate(variable for variable in model.variables if checkpoint_file.is_seed(variable)):
        first = int(np.random.default_rng([progress.seed, number]).integers(2**32))
        state.assign(np.array([first, progress.step], state.dtype))


def _compile(
    trained: keras.Model, model_type: str, hparams: MelodicHParams, num_steps: int, devices: distribution.Distribution
) -> keras.optimizers.Optimizer:
    """Compiles what is trained, the model or its network, for the devices; gives the optimizer without what they add to it."""
    devices.prepare(trained)
    _freeze(trained, hparams.train_layers)
    optimizer = make_optimizer(hparams, num_steps)
    arguments = models.compile_arguments(model_type, hparams)
    if "loss" in arguments:
        arguments["loss"] = devices.losses(arguments["loss"])
    trained.compile(devices.optimizer(optimizer), **arguments)
    losses = getattr(trained, "_compile_loss", None)  # Keras' own, not to be relied on.
    if losses is not None:  # Else it makes the variables of the losses' means in the first step, which is then traced twice.
        losses.build(trained.output, trained.output)
    return optimizer


def _fit(
    model: keras.Model, batches: Any, step: int, num_steps: int, interval: int, watching: list[keras.callbacks.Callback]
) -> None:
    """Trains a compiled model from one step to another; an epoch of Keras' is the interval between checkpoints."""
    model.fit(
        batches,
        steps_per_epoch=interval,
        epochs=step // interval + math.ceil((num_steps - step) / interval),
        initial_epoch=step // interval,
        shuffle=False,  # The batches come shuffled.
        callbacks=watching,
        verbose=1 if sys.stdout.isatty() else 0,  # A progress bar on a terminal; elsewhere the saver's lines are it.
    )


def train(
    *,
    model_type: str,
    hparams: MelodicHParams,
    examples_path: str,
    model_dir: str | Path,
    model_id: str,
    load_id: str = "*",
    load_full: bool | None = None,
    nsynth_examples_path: str | None = None,
    dataset_type: str | None = None,
    num_steps: int,
    checkpoint_interval: int,
    keep_checkpoint_max: int = 3,
    validation_examples_path: str | None = None,
    cache_dir: str | None = None,
    teacher_id: str | None = None,
    seed: int = 0,
    strategy: str = "none",
) -> Path:
    """Trains up to step `num_steps` and returns the last checkpoint.

    Goes on from the model id's own last checkpoint if it has one (with its optimizer, step and data position); else starts from
    the weights that `load_id` means, or from random weights if there are none for `*`.

    Args:
        model_type: One of `constants.MODEL_TYPES`.
        hparams: Resolved settings; written beside the weights.
        examples_path: TFRecords, comma-separated files and globs.
        model_dir: Folder of all models.
        model_id: Where under it.
        load_id: See `checkpoint.find`; the empty string starts from random weights.
        load_full: Start from a Full model, or that part of one; False starts a Full model from a Melodic and a Timbre one.
            Default: from the model type itself.
        nsynth_examples_path: NSynth TFRecords, for the types that train on them.
        dataset_type: "nsynth" or "slakh", for the types that train on either.
        num_steps: Step at which to stop, counted from the beginning of the first run; a step is one update of the weights, from
            a batch of `hparams.batch_size` on every device.
        checkpoint_interval: Steps between checkpoints.
        keep_checkpoint_max: How many numbered checkpoints stay.
        validation_examples_path: TFRecords to transcribe at every checkpoint, of the same type; the best one by note F1, or
            by the families of notes, is kept as best.npz.
        cache_dir: Compute the spectrograms once and keep them there; training then runs on any Keras backend.
        teacher_id: Melodic models under `model_dir`, comma-separated (see `find_teachers`), whose mean answers are
            `hparams.teacher_share` of the labels; with `cache_dir`.
        seed: Of weights, crops and augmentation.
        strategy: One of `distribution.STRATEGIES`.

    Raises:
        PolyampError: Bad settings, data or checkpoints, another worker was lost, or the loss became infinite or NaN.
        KeyboardInterrupt: Ctrl-C or another signal to end came, and there is a checkpoint of the last step; or it came twice.
    """
    if load_full is not None and model_type == "AUTOREGRESSIVE":
        raise PolyampError("--load_full is not for AUTOREGRESSIVE, which is no part of a Full model; leave it out.")
    training_data.check_teacher(model_type, model_dir, teacher_id, cache_dir)
    training_data.check_paths(model_type, examples_path, nsynth_examples_path, dataset_type, teacher_id, cache_dir)
    validation = training_data.validation_examples(validation_examples_path, dataset_type)
    directory = checkpoint.folder(model_dir, model_type, model_id)
    starting_point.prepare_folder(directory, hparams, distribution.is_chief(strategy))
    with distribution.opened(strategy) as devices:
        devices.check(hparams)
        keras.utils.set_random_seed(seed)
        _warn_of_emulation(hparams.precision)
        with precision_policy(hparams.precision), devices.scope():
            model = models.build(model_type, hparams)
            trained = model.get_layer("network") if cache_dir else model
            optimizer = _compile(trained, model_type, hparams, num_steps, devices)
            progress = starting_point.restore(directory, hparams, load_id, load_full, model, optimizer, seed)
            _seed_dropout(model, progress)
        devices.require_same(progress.step, f"{num_steps} {checkpoint_interval} {progress.seed} {hparams_lib.to_json(hparams)}")
        single = keras.Model(model.input, model.output, name=model.name)  # Outside the scope, for validation on one device.
        saver = callbacks.Saver(
            directory, single, optimizer, progress, hparams, keep_checkpoint_max, validation, devices.is_chief
        )
        if progress.step >= num_steps:
            saver.catch_up()
            logging.warning("%s is at step %d already; --num_steps=%d asks for no more.", model_id, progress.step, num_steps)
            return checkpoint.numbered(directory)[-1]
        if teacher_id:
            with precision_policy(hparams.precision):
                teachers = distillation.load_teachers(model_dir, teacher_id, model.get_layer("spectrogram"))
        if devices.is_chief:
            starting_point.write_settings(directory, hparams)
        # The settings that are stored are of one device, whose share of a global batch is batch_size.
        of_all = dataclasses.replace(hparams, batch_size=hparams.batch_size * devices.replicas)
        data = training_data.batches(
            model, examples_path, nsynth_examples_path, dataset_type, of_all, progress, num_steps, cache_dir
        )
        if teacher_id:
            data = distillation.taught(data, teachers, hparams.teacher_share)
        interval = min(checkpoint_interval, num_steps)
        with callbacks.stop_on_signals(progress):
            watching = [callbacks.StepCounter(progress, num_steps, devices), saver]
            _fit(trained, devices.distribute(data), progress.step, num_steps, interval, watching)
        # Waits for the chief's last checkpoint.
        devices.leave(checkpoint.step_path(directory, progress.step).is_file)
        if progress.stop:
            raise KeyboardInterrupt(f"stopped at step {progress.step} of {num_steps}; the same command goes on from there.")
        return checkpoint.numbered(directory)[-1]
