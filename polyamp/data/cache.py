"""Training data with its spectrogram computed once and kept on disk, for training on a CPU and on any Keras backend.

The cache holds what the model's own front-end layer gave, in float16, and the notes; batches are cut from it as numpy arrays.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from polyamp import atomic, constants, notes
from polyamp.audio import augmentation, log_frequency, spectral_augmentation
from polyamp.data.example import Example
from polyamp.errors import DataError, HParamsError, PolyampError
from polyamp.hparams import MelodicHParams, TimbreHParams
from polyamp.notes import Notes

Batch = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]
_SPECTRUM, _INDEX = "spectrum.npy", "index.npz"


@dataclasses.dataclass(frozen=True)
class SpectrumCache:
    """Spectrograms and notes of a data set.

    Attributes:
        spectrum: `[frames, bins]` float16 on disk, all examples one after the other.
        first_frame: `[examples + 1]`: example `i` is `spectrum[first_frame[i]:first_frame[i + 1]]`.
        notes: The notes of each example, in seconds from its start.
        is_labelled: `[examples]`, False where nobody knows the notes.
    """

    spectrum: np.ndarray
    first_frame: np.ndarray
    notes: list[Notes]
    is_labelled: np.ndarray

    def __len__(self) -> int:
        return len(self.notes)


def cache_key(paths: Iterable[str], front_end: dict) -> str:
    """A name that changes with the files (path, size, time of change) and with the settings of the front end."""
    files = [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([files, front_end], sort_keys=True, default=str).encode()).hexdigest()[:16]


def build(directory: str | Path, examples: Iterable[Example], front_end: Callable[[np.ndarray], np.ndarray]) -> SpectrumCache:
    """Opens the cache in `directory`, filling it first if it is not complete.

    Args:
        directory: Where to keep it; made complete under another name, then renamed.
        examples: Read only when there is no cache yet.
        front_end: Audio `[samples]` to spectrogram `[time, bins]`.

    Raises:
        DataError: There are no examples, or the cache is damaged.
        PolyampError: The directory cannot be written.
    """
    directory = Path(directory)
    if not (directory / _INDEX).is_file():
        if directory.is_dir() and any(directory.iterdir()):
            raise _damaged(directory, f"{_INDEX} is missing")
        atomic.remove_abandoned(directory.parent)
        try:
            with atomic.new_folder(directory, "--cache_dir") as unfinished:
                _fill(unfinished, examples, front_end)
        except PolyampError:
            if not (directory / _INDEX).is_file():  # Else another process has made it meanwhile.
                raise
    try:
        return _open(directory)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(directory, str(error)) from error


def _damaged(directory: Path, reason: str) -> DataError:
    return DataError(f"{directory}: damaged ({reason}); remove this folder, it will be made again.")


def _fill(directory: Path, examples: Iterable[Example], front_end: Callable[[np.ndarray], np.ndarray]) -> None:
    lengths, all_notes, is_labelled, bins = [], [], [], 0
    raw = directory / "raw"
    with raw.open("wb") as file:
        for example in examples:
            spectrum = np.asarray(front_end(example.audio), np.float16)  # [time, bins]
            file.write(spectrum.tobytes())  # numpy's `tofile` does not say why it fails.
            bins = spectrum.shape[1]
            lengths.append(len(spectrum))
            all_notes.append(example.notes)
            is_labelled.append(example.is_labelled)
            if len(lengths) % 100 == 0:
                logging.info("Cached the spectrograms of %d examples.", len(lengths))
    if not lengths:
        raise DataError("no readable example in the TFRecord files; make them with scripts/create_tfrecords.py.")
    frames = int(np.sum(lengths))
    spectra = np.lib.format.open_memmap(directory / _SPECTRUM, "w+", np.float16, (frames, bins))
    spectra[:] = np.memmap(raw, np.float16, "r", shape=(frames, bins))
    spectra.flush()
    raw.unlink()
    fields = [field.name for field in dataclasses.fields(Notes)]
    columns: dict[str, Any] = {name: np.concatenate([getattr(n, name) for n in all_notes]) for name in fields}
    np.savez(
        directory / _INDEX,
        first_frame=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        first_note=np.concatenate([[0], np.cumsum([len(n) for n in all_notes])]).astype(np.int64),
        is_labelled=np.array(is_labelled),
        **columns,
    )


def _open(directory: Path) -> SpectrumCache:
    with np.load(directory / _INDEX, allow_pickle=False) as index:
        fields = [field.name for field in dataclasses.fields(Notes)]
        columns = {name: index[name] for name in fields}
        bounds = index["first_note"]
        of_example = [
            Notes(**{name: columns[name][start:end] for name in fields})
            for start, end in zip(bounds[:-1], bounds[1:], strict=True)
        ]
        # Caches of earlier versions hold only what is labelled.
        is_labelled = index["is_labelled"] if "is_labelled" in index else np.ones(len(of_example), bool)
        spectrum, first_frame = np.load(directory / _SPECTRUM, mmap_mode="r"), index["first_frame"]
        if first_frame[-1] != len(spectrum):
            raise ValueError(f"{len(spectrum)} frames instead of {first_frame[-1]}")
        return SpectrumCache(spectrum, first_frame, of_example, is_labelled)


def batch(cache: SpectrumCache, hparams: MelodicHParams, seed: int, step: int) -> Batch:
    """The training batch of one step: random crops, each drawn with a probability in proportion to its example's length.

    A function of its arguments alone, so that a resumed run goes on with the batches that the interrupted one would have seen.

    Returns:
        Spectrogram `[batch, train_frames, bins]` float32, labels and sample weights as `polyamp.data.pipeline` gives them,
        each `[batch, train_frames, 88]` float32. Labels that nobody knows are NaN.
    """
    crops = random_crops(cache, hparams, np.random.default_rng([seed, step]))
    labelled = [crop.labelled(hparams) for crop in crops]
    labels = {name: np.stack([of_crop[0][name] for of_crop in labelled]) for name in constants.ROLLS}
    weights = {name: np.stack([of_crop[1][name] for of_crop in labelled]) for name in constants.ROLLS}
    return np.stack([crop.spectrum for crop in crops]), labels, weights


def batches(cache: SpectrumCache, hparams: MelodicHParams, seed: int, first_step: int = 0) -> Iterator[Batch]:
    """Batches without end, from `first_step` on; `HParamsError`, at once, as `check_augmentation`."""
    check_augmentation(hparams)
    return (batch(cache, hparams, seed, step) for step in itertools.count(first_step))


def random_crops(cache: SpectrumCache, hparams: MelodicHParams, rng: np.random.Generator) -> "list[Crop]":
    """The crops of a batch, augmented and mixed as the settings say."""
    lengths = np.diff(cache.first_frame)

    def crops(number: int) -> "list[Crop]":
        chosen = rng.choice(len(cache), number, p=lengths / lengths.sum())
        return [_crop(cache, hparams, example, rng) for example in chosen]

    alone = crops(hparams.batch_size)
    if not hparams.augment_mix_probability:
        return alone
    is_mixed = rng.random(len(alone)) < hparams.augment_mix_probability
    others = iter(crops(int(is_mixed.sum())))
    return [crop.mixed(next(others)) if mixed else crop for crop, mixed in zip(alone, is_mixed, strict=True)]


def check_augmentation(hparams: MelodicHParams) -> None:
    """Raises `HParamsError` if these settings augment spectrograms that `spectral_augmentation` does not know."""
    if type(hparams) is TimbreHParams:  # Whose own are of that kind where they are cached: `note_batches.check_cacheable`.
        return
    for name in ("augment_probability", "augment_mix_probability"):
        if getattr(hparams, name) and hparams.spec_type != "log_frequency":
            raise HParamsError(
                f"{name}: cached spectrograms of spec_type {hparams.spec_type!r} cannot be augmented; set it to 0, or leave "
                "out --cache_dir."
            )


@dataclasses.dataclass(frozen=True)
class Crop:
    """A piece of an example.

    Attributes:
        spectrum: float32 `[train_frames, bins]`; zeros after the end of a short example.
        notes: Those that sound in it, in seconds from its start, not cut at its borders (see `notes.crop`).
        length: Frames until the example's end or the crop's, whichever comes first.
        total_time: Seconds from the crop's start to the example's end.
        is_labelled: False where nobody knows the notes.
    """

    spectrum: np.ndarray
    notes: Notes
    length: int
    total_time: float
    is_labelled: bool = True

    def mixed(self, other: "Crop") -> "Crop":
        """Both at once, up to where the shorter one ends; powers add up, as those of unrelated sounds do."""
        length = min(self.length, other.length)
        power = log_frequency.expand(self.spectrum[:length]) + log_frequency.expand(other.spectrum[:length])
        spectrum = np.zeros_like(self.spectrum)
        spectrum[:length] = log_frequency.compress(power)
        both = notes.concatenate([self.notes, other.notes])
        total_time, is_labelled = min(self.total_time, other.total_time), self.is_labelled and other.is_labelled
        return Crop(spectrum, both, length, total_time, is_labelled)

    def labelled(self, hparams: MelodicHParams) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Targets and sample weights, as `polyamp.data.pipeline` gives them, each `[train_frames, 88]` float32.

        Targets that nobody knows are NaN, so that nothing can be trained on them as they are; of velocities nothing is learned
        there, as they are learned at the onsets of known notes.
        """
        frames = len(self.spectrum)
        rolls = notes.to_rolls(self.notes, frames, hparams, total_time=self.total_time)
        heard = np.zeros((frames, constants.NUM_PITCHES), np.float32)
        heard[: self.length] = 1.0
        weights = {
            "onset": heard,
            "offset": heard,
            "frame": heard * rolls.pop("frame_weight"),
            "velocity": heard * (rolls["velocity"] > 0),
        }
        if not self.is_labelled:
            rolls = {name: np.full_like(roll, np.nan) for name, roll in rolls.items()}
            weights["velocity"] = np.zeros_like(heard)
        return rolls, weights


def _crop(cache: SpectrumCache, hparams: MelodicHParams, example: int, rng: np.random.Generator) -> Crop:
    frames = hparams.train_frames
    first, end = cache.first_frame[example], cache.first_frame[example + 1]
    start = int(rng.integers(0, max(1, end - first - frames + 1)))
    length = int(min(frames, end - first - start))
    spectrum = np.zeros((frames, cache.spectrum.shape[1]), np.float32)
    spectrum[:length] = cache.spectrum[first + start : first + start + length]
    seconds = 1.0 / hparams.frames_per_second
    of_crop = notes.crop(cache.notes[example], start * seconds, (start + frames) * seconds, clip=False)
    if hparams.augment_probability:
        spectrum, semitones, gain_db = spectral_augmentation.augment(spectrum, hparams, rng)
        velocity = augmentation.louder(of_crop.velocity, gain_db, hparams)
        of_crop = dataclasses.replace(of_crop, pitch=of_crop.pitch + semitones, velocity=velocity)
    return Crop(spectrum, of_crop, length, (end - first - start) * seconds, bool(cache.is_labelled[example]))
