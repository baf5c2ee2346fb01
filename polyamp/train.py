"""Trains a model with Keras `fit`: data, optimizer, callbacks, and picking up where an earlier run stopped."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from absl import logging

from polyamp import callbacks, checkpoint, distillation, distribution, models
from polyamp import hparams as hparams_lib
from polyamp.atomic import make_folder, write_text
from polyamp.data import cache, note_batches, pipeline, records, state_batches
from polyamp.errors import HParamsError, PolyampError
from polyamp.hparams import AutoregressiveHParams, MelodicHParams, TimbreHParams
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
def _precision(policy: str) -> Iterator[None]:
    """Layers made inside compute in this precision (float32 variables all the same)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _warn_of_emulation(precision: str, cpu_info: Path = Path("/proc/cpuinfo")) -> None:
    """Warns where bfloat16 is asked for and only a processor that cannot compute with it is there; where Linux tells."""
    if precision != "mixed_bfloat16" or not cpu_info.is_file() or keras.distribution.list_devices("gpu"):
        return
    if not _BFLOAT16_INSTRUCTIONS & set(cpu_info.read_text(encoding="utf-8").split()):
        logging.warning(
            'This processor has no bfloat16 instructions: "mixed_bfloat16" may take several times as long as "float32".'
        )


def _check_teacher(model_type: str, model_dir: str | Path, teacher_id: str | None, cache_dir: str | None) -> None:
    """Refuses a teacher where there can be none, and one that is not there, before anything is written."""
    if not teacher_id:
        return
    if model_type != "MELODIC":
        raise PolyampError("--teacher_id is for MELODIC only; leave it out.")
    if not cache_dir:
        raise PolyampError("--teacher_id: a teacher hears cached spectrograms; give --cache_dir, too.")
    checkpoint.find(model_dir, "MELODIC", teacher_id)


def _check_data(
    model_type: str, examples_path: str, nsynth_examples_path: str | None, dataset_type: str | None, teacher_id: str | None
) -> None:
    """Refuses an unknown model type, data that it does not train on and data that are not there, before anything is written."""
    hparams_lib.model_hparams(model_type)
    if nsynth_examples_path and model_type not in ("TIMBRE", "FULL") or dataset_type and model_type != "TIMBRE":
        raise PolyampError("--nsynth_examples_path is for TIMBRE and FULL and --dataset_type for TIMBRE only; leave it out.")
    if nsynth_examples_path and dataset_type == "nsynth":
        raise PolyampError("--dataset_type=nsynth takes notes from --examples_path alone; leave out --nsynth_examples_path.")
    if nsynth_examples_path:
        records.expand_paths(nsynth_examples_path)
    paths = records.expand_paths(examples_path)
    if dataset_type != "nsynth" and not teacher_id:
        records.check_labelled(paths)


def _prepare_folder(directory: Path, hparams: MelodicHParams, writes: bool) -> None:
    """Makes the model id's folder and writes its settings; refuses to change those that existing weights depend on.

    A process that is not the chief only refuses.
    """
    settings = directory / checkpoint.HPARAMS_FILE
    if checkpoint.numbered(directory) and settings.is_file():
        stored = hparams_lib.from_json(directory.parent.name, settings)
        checkpoint.require_same_structure(stored, hparams, directory)
    if not writes:
        return
    make_folder(directory, "--model_dir")
    write_text(settings, hparams_lib.to_json(hparams))


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
        layer.trainable = layer.name.startswith(wanted)


def _compile(
    trained: keras.Model, model_type: str, hparams: MelodicHParams, num_steps: int, devices: distribution.Distribution
) -> keras.optimizers.Optimizer:
    """Compiles what is trained, the model or its network, for the devices; gives the optimizer without what they add to it."""
    devices.prepare(trained)
    _freeze(trained, hparams.train_layers)
    optimizer = make_optimizer(hparams, num_steps)
    learned = models.loss_arguments(model_type, hparams)
    if "loss" in learned:
        learned["loss"] = devices.losses(learned["loss"])
    trained.compile(devices.optimizer(optimizer), jit_compile=hparams.jit_compile, **learned)
    return optimizer


def _start(
    directory: Path, load_id: str, load_full: bool, model: keras.Model, optimizer: keras.optimizers.Optimizer, seed: int
) -> callbacks.Progress:
    """Restores the run in `directory`, or the weights that `load_id` means, and says where training stands."""
    optimizer.build(model.trainable_variables)
    own = checkpoint.numbered(directory)
    if own:
        meta = checkpoint.restore(own[-1], model, optimizer)
        logging.info("Going on from %s.", own[-1])
        return callbacks.Progress(step=int(meta["step"]), seed=int(meta["seed"]), best=float(meta["best"]))
    paths = _to_start_from(directory, load_id, load_full)
    if paths:
        if len(paths) == 1:
            checkpoint.restore(paths[0], model, part=checkpoint.type_of(paths[0]) != directory.parent.name)
        else:
            checkpoint.restore_parts(paths, model)
        named = " and ".join(map(str, paths))
        logging.warning("Starting from the weights of %s; give --load_id= (empty) to start from random ones.", named)
    else:
        logging.info("Starting from random weights.")
    return callbacks.Progress(step=0, seed=seed, best=-1.0)


def _to_start_from(directory: Path, load_id: str, load_full: bool) -> list[Path]:
    """The checkpoints whose weights a new run in `directory` takes over.

    The one that `load_id` means, which must fit; for `*` the most recent one that does, if any; for an empty `load_id` none.
    With `load_full` it is one of a Full model; without, a Full model takes two, a Melodic and a Timbre one.
    """
    model_type, root = directory.parent.name, directory.parent.parent
    wanted = hparams_lib.structure(hparams_lib.from_json(model_type, directory / checkpoint.HPARAMS_FILE))

    def differs(path: Path) -> list[str]:
        stored = hparams_lib.structure(checkpoint.stored_hparams(path))
        return [name for name in wanted if name in stored and stored[name] != wanted[name] and _is_of(path, name)]

    def fits(path: Path) -> bool:
        try:
            return not differs(path)
        except PolyampError as error:  # Of a model that nobody asked for.
            logging.warning("Not considered as a start: %s", error)
            return False

    if not load_id:
        return []
    types = ["FULL"] if load_full else ["MELODIC", "TIMBRE"] if model_type == "FULL" else [model_type]
    if load_id == "*":
        fitting = [next(filter(fits, checkpoint.latest_of_each(root / kind)), None) for kind in types]
        return [path for path in fitting if path] if all(fitting) else []
    paths = [checkpoint.find(root, kind, load_id) for kind in types]
    for path in paths:
        if differs(path):
            raise HParamsError(
                f"--load_id={load_id}: {path} was trained with another {', '.join(differs(path))}; its weights don't fit."
            )
    return paths


def _is_of(path: Path, name: str) -> bool:
    """Whether the weights in a checkpoint depend on that setting: those of a Timbre model not on the Melodic ones."""
    return checkpoint.type_of(path) != "TIMBRE" or name not in hparams_lib.structure(MelodicHParams())


def _batches(
    model: keras.Model,
    examples_path: str,
    nsynth_examples_path: str | None,
    dataset_type: str | None,
    hparams: MelodicHParams,
    progress: callbacks.Progress,
    num_steps: int,
    cache_dir: str | None,
) -> Any:
    """Batches from the progress' step on: of audio from TFRecords, or of cached spectrograms."""
    is_nsynth = dataset_type == "nsynth"
    if cache_dir is None:
        if isinstance(hparams, AutoregressiveHParams):
            return state_batches.training_dataset(examples_path, hparams, progress.seed, progress.step, num_steps)
        seed = progress.seed + progress.step  # A resumed run draws new crops instead of reading its way to where it was.
        if isinstance(hparams, TimbreHParams):
            return note_batches.training_dataset(examples_path, hparams, seed, nsynth_examples_path, is_nsynth)
        return pipeline.training_dataset(examples_path, hparams, seed)
    if nsynth_examples_path or is_nsynth:
        raise PolyampError("mixes of single notes are made anew for every step and cannot be cached; leave out --cache_dir.")
    cache.check_augmentation(hparams)  # Before the spectrograms are computed.
    if isinstance(hparams, TimbreHParams):
        note_batches.check_cacheable(hparams)
    front_end = model.get_layer("spectrogram")
    paths = records.expand_paths(examples_path)
    directory = Path(cache_dir) / cache.cache_key(paths, front_end.get_config())
    spectra = cache.build(
        directory,
        records.read(paths, on_error="skip"),
        lambda audio: keras.ops.convert_to_numpy(front_end(audio[None]))[0],
    )
    if isinstance(hparams, AutoregressiveHParams):
        return state_batches.cached_batches(spectra, hparams, progress.seed, progress.step, num_steps)
    if isinstance(hparams, TimbreHParams):
        return note_batches.cached_batches(spectra, hparams, progress.seed, progress.step)
    return cache.batches(spectra, hparams, progress.seed, progress.step)


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
        validation_examples_path: TFRecords to transcribe at every checkpoint; the best one by note F1 is kept as best.npz.
        cache_dir: Compute the spectrograms once and keep them there; training then runs on any Keras backend.
        teacher_id: A Melodic model under `model_dir` (see `checkpoint.find`) whose answers are `hparams.teacher_share` of the
            labels; with `cache_dir`.
        seed: Of weights, crops and augmentation.
        strategy: One of `distribution.STRATEGIES`.

    Raises:
        PolyampError: Bad settings, data or checkpoints, another worker was lost, or the loss became infinite or NaN.
    """
    load_full = model_type == "FULL" if load_full is None else load_full
    _check_teacher(model_type, model_dir, teacher_id, cache_dir)
    _check_data(model_type, examples_path, nsynth_examples_path, dataset_type, teacher_id)
    validation_paths = records.expand_paths(validation_examples_path) if validation_examples_path else []
    records.check_labelled(validation_paths)
    directory = checkpoint.folder(model_dir, model_type, model_id)
    _prepare_folder(directory, hparams, writes=distribution.is_chief(strategy))
    with distribution.opened(strategy) as devices:
        devices.check(hparams)
        keras.utils.set_random_seed(seed)
        _warn_of_emulation(hparams.precision)
        with _precision(hparams.precision), devices.scope():
            model = models.build(model_type, hparams)
            trained = model.get_layer("network") if cache_dir else model
            optimizer = _compile(trained, model_type, hparams, num_steps, devices)
            progress = _start(directory, load_id, load_full, model, optimizer, seed)
        devices.require_same(progress.step, f"{num_steps} {checkpoint_interval} {progress.seed} {hparams_lib.to_json(hparams)}")
        if progress.step >= num_steps:
            logging.warning("%s is at step %d already; --num_steps=%d asks for no more.", model_id, progress.step, num_steps)
            return checkpoint.numbered(directory)[-1]
        # The settings that are stored are of one device, whose share of a global batch is batch_size.
        of_all = dataclasses.replace(hparams, batch_size=hparams.batch_size * devices.replicas)
        data = _batches(model, examples_path, nsynth_examples_path, dataset_type, of_all, progress, num_steps, cache_dir)
        if teacher_id:
            with _precision(hparams.precision):
                teacher = distillation.load_teacher(model_dir, teacher_id, model.get_layer("spectrogram"))
            data = distillation.taught(data, teacher, hparams.teacher_share)
        interval = min(checkpoint_interval, num_steps)
        single = keras.Model(model.input, model.output, name=model.name)  # Outside the scope, for validation on one device.
        saver = callbacks.Saver(
            directory, single, optimizer, progress, hparams, keep_checkpoint_max, validation_paths, devices.is_chief
        )
        with callbacks.stop_on_signals(progress):
            trained.fit(
                devices.distribute(data),
                steps_per_epoch=interval,
                epochs=progress.step // interval + math.ceil((num_steps - progress.step) / interval),
                initial_epoch=progress.step // interval,
                shuffle=False,  # The batches come shuffled.
                callbacks=[callbacks.StepCounter(progress, num_steps, devices), saver],
                verbose=1 if sys.stdout.isatty() else 0,  # A progress bar on a terminal; elsewhere the saver's lines are it.
            )
        # Waits for the chief's last checkpoint.
        devices.leave(checkpoint.step_path(directory, progress.step).is_file)
        return checkpoint.numbered(directory)[-1]
