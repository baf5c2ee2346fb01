"""Trains a model with Keras `fit`: data, optimizer, callbacks, and picking up where an earlier run stopped."""

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from absl import logging

from polyamp import callbacks, checkpoint, models
from polyamp import hparams as hparams_lib
from polyamp.atomic import replacing
from polyamp.data import cache, pipeline, records
from polyamp.errors import HParamsError, PolyampError
from polyamp.hparams import MelodicHParams


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
def _precision(policy: str) -> Iterator[None]:
    """Layers made inside compute in this precision (float32 variables all the same)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _strategy_scope(strategy: str) -> contextlib.AbstractContextManager:
    """The scope of a `tf.distribute` strategy: "none", "mirrored" (all devices here) or "multi_worker" (see TF_CONFIG)."""
    if strategy == "none":
        return contextlib.nullcontext()
    if keras.backend.backend() != "tensorflow":
        raise PolyampError(f"--strategy={strategy} needs the TensorFlow backend, not {keras.backend.backend()}.")
    import tensorflow as tf  # Only here: other backends train without it.

    strategies = {"mirrored": tf.distribute.MirroredStrategy, "multi_worker": tf.distribute.MultiWorkerMirroredStrategy}
    return strategies[strategy]().scope()


def _prepare_folder(directory: Path, hparams: MelodicHParams) -> None:
    """Makes the model id's folder and writes its settings; refuses to change those that existing weights depend on."""
    settings = directory / checkpoint.HPARAMS_FILE
    if checkpoint.numbered(directory) and settings.is_file():
        stored = hparams_lib.from_json(directory.parent.name, settings)
        checkpoint.require_same_structure(stored, hparams, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolyampError(f"{directory}: cannot be made ({error.strerror}); choose another --model_dir.") from error
    with replacing(settings) as temporary:
        temporary.write_text(hparams_lib.to_json(hparams), encoding="utf-8")


def _start(
    directory: Path, load_id: str, model: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int
) -> callbacks.Progress:
    """Restores the run in `directory`, or the weights that `load_id` means, and says where training stands."""
    optimizer.build(model.trainable_variables)
    own = checkpoint.numbered(directory)
    if own:
        meta = checkpoint.restore(own[-1], model, optimizer)
        logging.info("Going on from %s.", own[-1])
        return callbacks.Progress(step=int(meta["step"]), seed=int(meta["seed"]), best=float(meta["best"]))
    path = _to_start_from(directory, load_id)
    if path:
        checkpoint.restore(path, model)
        logging.warning("Starting from the weights of %s; give --load_id= (empty) to start from random ones.", path)
    else:
        logging.info("Starting from random weights.")
    return callbacks.Progress(step=0, seed=seed, best=-1.0)


def _to_start_from(directory: Path, load_id: str) -> Path | None:
    """The checkpoint whose weights a new run in `directory` takes over: the one that `load_id` means, which must fit; for `*`
    the most recent one that does, if any; for an empty `load_id` none."""
    model_type = directory.parent.name
    wanted = hparams_lib.structure(hparams_lib.from_json(model_type, directory / checkpoint.HPARAMS_FILE))

    def differs(path: Path) -> list[str]:
        stored = hparams_lib.structure(hparams_lib.from_json(model_type, path.parent / checkpoint.HPARAMS_FILE))
        return [name for name in wanted if stored[name] != wanted[name]]

    if load_id == "*":
        return next((path for path in checkpoint.latest_of_each(directory.parent) if not differs(path)), None)
    if not load_id:
        return None
    path = checkpoint.find(directory.parent.parent, model_type, load_id)
    if differs(path):
        raise HParamsError(
            f"--load_id={load_id}: {path} was trained with another {', '.join(differs(path))}; its weights don't fit."
        )
    return path


def _batches(
    model: keras.Model, examples_path: str, hparams: MelodicHParams, progress: callbacks.Progress, cache_dir: str | None
) -> Any:
    """Batches from the progress' step on: of audio from TFRecords, or of cached spectrograms."""
    if cache_dir is None:
        # A resumed run draws new crops instead of reading its way to where it was.
        return pipeline.training_dataset(examples_path, hparams, progress.seed + progress.step)
    cache.check_augmentation(hparams)  # Before the spectrograms are computed.
    front_end = model.get_layer("spectrogram")
    paths = records.expand_paths(examples_path)
    directory = Path(cache_dir) / cache.cache_key(paths, front_end.get_config())
    spectra = cache.build(
        directory,
        records.read(paths, on_error="skip"),
        lambda audio: keras.ops.convert_to_numpy(front_end(audio[None]))[0],
    )
    return cache.batches(spectra, hparams, progress.seed, progress.step)


def train(
    *,
    model_type: str,
    hparams: MelodicHParams,
    examples_path: str,
    model_dir: str | Path,
    model_id: str,
    load_id: str = "*",
    load_full: bool = False,
    nsynth_examples_path: str | None = None,
    dataset_type: str | None = None,
    num_steps: int,
    checkpoint_interval: int,
    keep_checkpoint_max: int = 3,
    validation_examples_path: str | None = None,
    cache_dir: str | None = None,
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
        load_full: Start from that part of a Full model.
        nsynth_examples_path: NSynth TFRecords, for the types that train on them.
        dataset_type: "nsynth" or "slakh", for the types that train on either.
        num_steps: Step at which to stop, counted from the beginning of the first run.
        checkpoint_interval: Steps between checkpoints.
        keep_checkpoint_max: How many numbered checkpoints stay.
        validation_examples_path: TFRecords to transcribe at every checkpoint; the best one by note F1 is kept as best.npz.
        cache_dir: Compute the spectrograms once and keep them there; training then runs on any Keras backend.
        seed: Of weights, crops and augmentation.
        strategy: "none", "mirrored" or "multi_worker" (`tf.distribute`).

    Raises:
        PolyampError: Bad settings, data or checkpoints, or the loss became infinite or NaN.
    """
    hparams_lib.model_hparams(model_type)
    if load_full:
        hparams_lib.model_hparams("FULL")
    if nsynth_examples_path or dataset_type:
        raise PolyampError(f"--nsynth_examples_path and --dataset_type are not for {model_type}; leave them out.")
    validation_paths = records.expand_paths(validation_examples_path) if validation_examples_path else []
    records.expand_paths(examples_path)  # Before anything is written.
    directory = checkpoint.folder(model_dir, model_type, model_id)
    _prepare_folder(directory, hparams)
    keras.utils.set_random_seed(seed)
    with _precision(hparams.precision), _strategy_scope(strategy):
        model = models.build(model_type, hparams)
        trained = model.get_layer("network") if cache_dir else model
        optimizer = make_optimizer(hparams, num_steps)
        trained.compile(optimizer, jit_compile=hparams.jit_compile, **models.loss_arguments(model_type, hparams))
        progress = _start(directory, load_id, model, optimizer, seed)
    if progress.step >= num_steps:
        logging.warning("%s is at step %d already; --num_steps=%d asks for no more.", model_id, progress.step, num_steps)
        return checkpoint.numbered(directory)[-1]
    data = _batches(model, examples_path, hparams, progress, cache_dir)
    saver = callbacks.Saver(directory, model, optimizer, progress, hparams, keep_checkpoint_max, validation_paths)
    with callbacks.stop_on_signals(progress):
        trained.fit(
            data,
            steps_per_epoch=checkpoint_interval,
            epochs=progress.step // checkpoint_interval + math.ceil((num_steps - progress.step) / checkpoint_interval),
            initial_epoch=progress.step // checkpoint_interval,
            shuffle=False,  # The batches come shuffled.
            callbacks=[callbacks.StepCounter(progress, num_steps), saver],
            verbose=1 if sys.stdout.isatty() else 2,  # A progress bar on a terminal, a line per interval in a log.
        )
    return checkpoint.numbered(directory)[-1]
