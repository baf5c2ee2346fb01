"""What a training learns from: batches of audio from TFRecords, or of spectrograms computed once."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from polyamp import callbacks, constants, distillation, windows
from polyamp import hparams as hparams_lib
from polyamp.data import cache, note_batches, nsynth_mixes, pipeline, prepared, records, state_batches
from polyamp.data.example import Example
from polyamp.errors import DataError, PolyampError
from polyamp.hparams import AutoregressiveHParams, MelodicHParams, TimbreHParams

_WINDOW_SECONDS = 20.0  # Of a recording, whose spectrogram is computed at a time,
_MARGIN_SECONDS = 2.0  # and of what else is under its first and last frames' windows.


def check_teacher(model_type: str, model_dir: str | Path, teacher_id: str | None, cache_dir: str | None) -> None:
    """Refuses a teacher where there can be none, and one that is not there, before anything is written."""
    if not teacher_id:
        return
    if model_type != "MELODIC":
        raise PolyampError("--teacher_id is for MELODIC only; leave it out.")
    if not cache_dir:
        raise PolyampError("--teacher_id: a teacher hears cached spectrograms; give --cache_dir, too.")
    distillation.find_teachers(model_dir, teacher_id)


def check_paths(
    model_type: str,
    examples_path: str,
    nsynth_examples_path: str | None,
    dataset_type: str | None,
    teacher_id: str | None,
    cache_dir: str | None,
) -> None:
    """Refuses an unknown model type, data that it does not train on and data that are not there, before anything is written."""
    hparams_lib.model_hparams(model_type)
    if nsynth_examples_path and model_type not in ("TIMBRE", "FULL") or dataset_type and model_type != "TIMBRE":
        raise PolyampError("--nsynth_examples_path is for TIMBRE and FULL and --dataset_type for TIMBRE only; leave it out.")
    if nsynth_examples_path and dataset_type == "nsynth":
        raise PolyampError("--dataset_type=nsynth takes notes from --examples_path alone; leave out --nsynth_examples_path.")
    if cache_dir and (nsynth_examples_path or dataset_type == "nsynth"):
        raise PolyampError("mixes of single notes are made anew for every step and cannot be cached; leave out --cache_dir.")
    if nsynth_examples_path:
        records.expand_paths(nsynth_examples_path)
    paths = records.expand_paths(examples_path)
    if dataset_type != "nsynth" and not teacher_id:
        records.check_labelled(paths)


def validation_examples(examples_path: str | None, dataset_type: str | None) -> Callable[[], Iterable[Example]] | None:
    """What reads the examples to validate with, each time that it is called; None if there are none.

    Those of a model that is trained on single notes may be recordings, too.

    Raises:
        DataError: A file is missing, or holds something else, as its first record tells.
    """
    if not examples_path:
        return None
    if dataset_type == "nsynth" and not _hold_recordings(examples_path):
        return functools.partial(nsynth_mixes.single_notes, examples_path)
    paths = records.expand_paths(examples_path)
    records.check_labelled(paths)
    return functools.partial(records.read, paths, on_error="raise")


def _hold_recordings(examples_path: str) -> bool:
    """Whether files hold recordings, and not single notes; without an operation of TensorFlow's.

    Raises:
        DataError: A file is missing, or as far as first records can be read they are neither, or of both kinds.
    """
    kinds = {}
    for part in records.parts(examples_path):
        for path in [] if part.startswith(prepared.PREFIX) else records.expand_paths(part):
            if features := records.first_features(path):
                kinds["sequence" in features] = path
                if "sequence" not in features and "instrument_family" not in features:
                    raise DataError(f"{path}: holds neither single notes of NSynth's schema nor recordings.")
    if len(kinds) > 1:
        raise DataError(f"{kinds[True]} holds recordings and {kinds[False]} single notes; validate with one of them.")
    return True in kinds


def batches(
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
    if cache_dir is None:
        if isinstance(hparams, AutoregressiveHParams):
            return state_batches.training_dataset(examples_path, hparams, progress.seed, progress.step, num_steps)
        seed = progress.seed + progress.step  # A resumed run draws new crops instead of reading its way to where it was.
        if isinstance(hparams, TimbreHParams):
            return note_batches.training_dataset(examples_path, hparams, seed, nsynth_examples_path, dataset_type == "nsynth")
        return pipeline.training_dataset(examples_path, hparams, seed)
    cache.check_augmentation(hparams)  # Before the spectrograms are computed.
    if isinstance(hparams, TimbreHParams):
        note_batches.check_cacheable(hparams)
    front_end = model.get_layer("spectrogram")
    paths = records.expand_paths(examples_path)
    directory = Path(cache_dir) / cache.cache_key(paths, front_end.get_config())
    spectra = cache.build(directory, records.read(paths, on_error="skip"), functools.partial(spectrum, front_end))
    if spectra.is_labelled.any() and not any(map(len, spectra.notes)):
        logging.warning("%s: none of its recordings has a note; all that can be learned from them is silence.", examples_path)
    if isinstance(hparams, AutoregressiveHParams):
        return state_batches.cached_batches(spectra, hparams, progress.seed, progress.step, num_steps)
    if isinstance(hparams, TimbreHParams):
        return note_batches.cached_batches(spectra, hparams, progress.seed, progress.step)
    return cache.batches(spectra, hparams, progress.seed, progress.step)


def spectrum(front_end: keras.layers.Layer, audio: np.ndarray) -> np.ndarray:
    """The spectrogram of a recording of any length, silence before and after it, `[1 + samples // hop_length, bins]`.

    In windows of few different lengths: backends compile a layer anew for each, and all at once would take memory.
    """
    hop = front_end.hop_length
    core, margin = (round(seconds * constants.SAMPLE_RATE / hop) for seconds in (_WINDOW_SECONDS, _MARGIN_SECONDS))
    pieces = [
        keras.ops.convert_to_numpy(front_end(window[np.newaxis]))[0, margin : margin + kept]
        for window, kept in windows.windows([audio], core, margin, hop)
    ]
    return np.concatenate(pieces)
