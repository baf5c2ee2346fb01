"""Reads audio files of any common format, rate and channel count as 16 kHz mono, whole or block by block.

libsndfile reads what it knows (WAV, FLAC, Ogg, MP3, AIFF ...), an `ffmpeg` on the PATH everything else (M4A, WMA, video ...).
Memory does not grow with the length of a file unless the caller keeps the blocks.
"""

import contextlib
import functools
import io
import numbers
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from polyamp import constants
from polyamp.audio import containers
from polyamp.errors import AudioError

_MIN_RATE, _MAX_RATE = 1_000, 10_000_000  # Hz; outside, the header is damaged and resampling would exhaust memory.
_MAX_AMPLITUDE = 2.0**31  # Above full scale of any integer format: not audio, and its square could overflow.
_MOST_IN_MEMORY = 1000.0  # Floats that are farther from zero than this are integers of which somebody has made floats,
_LEAST_OF_WIDE = 2**15  # and integers of 64 bits, as of lists, none of which is so far from zero are those of 16 bits.
_MOST_CHANNELS = 64
_OPPOSITE = -0.5  # Mean product of the directions of two channels (1 rising, -1 falling) below which one has been inverted,
_ENOUGH = 1000  # over so many samples at least that rise or fall.

# Gives a recording, 16 kHz mono float32, in blocks of any length, as often as it is called.
Blocks = Callable[[], Iterable[np.ndarray]]


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a whole file.

    Args:
        path: Any file that libsndfile or ffmpeg reads; of several audio streams the first, its channels averaged, after one
            has been inverted if there are two in opposite phase. Of formats other than WAV, AIFF, FLAC and those that ffmpeg
            reads nothing tells whether they are cut short.

    Returns:
        float32 [samples] at 16 kHz, nominally in [-1, 1]; at least one sample, all finite.

    Raises:
        AudioError: The file is missing, empty, no audio, cut short, without samples, or holds NaN or infinite samples.
    """
    return np.concatenate(list(stream(path)))


def stream(path: str | os.PathLike[str], block_seconds: float = 10.0) -> Iterator[np.ndarray]:
    """Yields the samples of `read` in blocks, with memory that does not depend on the length of the file.

    Args:
        path: As for `read`.
        block_seconds: Length of all blocks but the last, which may be shorter. It does not influence any sample.

    Yields:
        float32 [samples] at 16 kHz.

    Raises:
        AudioError: As for `read`; a file that is damaged further on raises when the damage is reached.
    """
    block = max(1, round(block_seconds * constants.SAMPLE_RATE))
    name = os.fspath(path)
    containers.check_is_file(name)
    with contextlib.ExitStack() as stack:
        rate, chunks = containers.open_file(name, stack)
        yield from _rechunk(_to_mono_16k(chunks, rate, name), block)


class Repeated:
    """A recording as often as it is wanted; what it is made by is done only once unless it is long.

    Args:
        blocks: Gives it.
        seconds: Recordings up to this length are kept in memory after they have been read.
    """

    def __init__(self, blocks: Blocks, seconds: float = 300.0):
        self._blocks, self._most = blocks, round(seconds * constants.SAMPLE_RATE)
        self._kept: list[np.ndarray] | None = None

    def __call__(self) -> Iterator[np.ndarray]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[np.ndarray] = []
        size = 0
        for block in self._blocks():
            size += len(block)
            if size <= self._most:
                kept.append(block)
            else:
                kept.clear()
            yield block
        if size <= self._most:
            self._kept = kept


def of_file(path: str | os.PathLike[str]) -> Repeated:
    """The blocks of `stream` as often as they are wanted."""
    return Repeated(functools.partial(stream, path))


def is_sound(samples: np.ndarray, most: float = _MAX_AMPLITUDE) -> bool:
    """Whether all samples are finite and not far beyond full scale."""
    return bool(np.all(np.abs(samples) <= most))  # Not so for NaN.


def are_in_range(samples: np.ndarray) -> bool:
    """Whether the samples of a program of someone's own can be meant as in [-1, 1]."""
    return is_sound(samples, _MOST_IN_MEMORY)


def as_float(samples: ArrayLike) -> np.ndarray:
    """Samples as float32 of the same shape; signed integers, of their type's full range, as in [-1, 1].

    Raises:
        AudioError: They are of another type.
    """
    given = np.asarray(samples)
    if given.dtype.kind == "i":
        given = given / -float(np.iinfo(given.dtype).min)
    elif given.dtype.kind != "f":
        raise AudioError(f"samples of the type {given.dtype}; give float or signed integers.")
    with np.errstate(over="ignore"):  # What is beyond float32 is infinite, which `is_sound` tells.
        return given.astype(np.float32)


def convert(samples: ArrayLike, rate: int) -> np.ndarray:
    """Samples of any rate, type and number of channels as those of `read`.

    Args:
        samples: `[samples]` or `[samples, channels]`; float, nominally in [-1, 1], or signed integers of their type's full
            range.
        rate: Hz.

    Returns:
        As `read`.

    Raises:
        AudioError: There are none, or not in that shape, or they are no sound, or are plainly not of the range that they should
            be of.
    """
    if not isinstance(rate, numbers.Real):
        raise AudioError(f"a rate of {rate!r}; give the samples' rate in Hz.")
    raw = np.asarray(samples)
    if raw.dtype.kind == "i" and raw.dtype.itemsize > 4 and 0 < np.abs(raw).max(initial=0) < _LEAST_OF_WIDE:
        raise AudioError(f"samples of the type {raw.dtype} that are all of 16 bits; give them as int16, or float in [-1, 1].")
    given = as_float(raw)
    if not are_in_range(given):
        raise AudioError("samples that are NaN, infinite or far beyond full scale; give float in [-1, 1], or signed integers.")
    if given.ndim not in (1, 2) or given.ndim == 2 and not 0 < given.shape[1] <= _MOST_CHANNELS:
        raise AudioError(f"samples of the shape {given.shape}; give [samples] or [samples, channels].")
    channels = given.reshape(len(given), given.shape[1] if given.ndim == 2 else 1)
    return np.concatenate(list(_to_mono_16k(containers.in_chunks(channels), rate, "samples")))


def decode_wav(data: bytes, name: str = "audio data") -> np.ndarray:
    """Decodes the bytes of a WAV (or FLAC, Ogg ...) file at any rate, as they are stored in TFRecords.

    Args:
        data: A whole file; only libsndfile is tried.
        name: What error messages call it.

    Returns:
        float32 [samples] at 16 kHz.

    Raises:
        AudioError: As for `read`.
    """
    with contextlib.ExitStack() as stack:
        try:
            sound = stack.enter_context(soundfile.SoundFile(io.BytesIO(data)))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: no audio that libsndfile can read ({containers.reason_of(error)}).") from error
        return np.concatenate(list(_to_mono_16k(containers.chunks_of(sound, name), sound.samplerate, name)))


def write_wav_bytes(samples: np.ndarray) -> bytes:
    """Encodes audio as a 16-bit PCM WAV file.

    Samples that came from 16-bit audio survive the way through `decode_wav` unchanged.

    Args:
        samples: float32 [samples] at 16 kHz; clipped to [-1, 1].

    Returns:
        The file's bytes.
    """
    integers = np.clip(np.rint(np.asarray(samples, np.float32) * 32_768.0), -32_768, 32_767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, integers, constants.SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _to_mono_16k(chunks: Iterator[np.ndarray], rate: int, name: str) -> Iterator[np.ndarray]:
    """Mixes channels, checks the samples and resamples; `AudioError` if nothing comes out."""
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(f"{name}: says that it has {rate} samples per second; {_MIN_RATE} to {_MAX_RATE} can be read.")
    same_rate = rate == constants.SAMPLE_RATE
    resampler = None if same_rate else soxr.ResampleStream(rate, constants.SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    total = 0
    mixer = _Mixer()
    for chunk in chunks:
        if not is_sound(chunk):
            raise AudioError(f"{name}: has samples that are NaN, infinite or far beyond full scale; export the audio again.")
        mono = mixer.mixed(chunk)
        samples = resampler.resample_chunk(mono) if resampler else mono
        total += len(samples)
        yield samples
    if resampler:
        tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        total += len(tail)
        yield tail
    if not total:
        raise AudioError(f"{name}: has no samples, or too few for one at {constants.SAMPLE_RATE} Hz.")


class _Mixer:
    """Averages channels; of two that are in opposite phase one is inverted before, or they would cancel each other.

    They are where both rise and fall together less than a quarter of the time, until it is more than half. Rumble, hum and
    offsets, which may be opposite where the music is not, change too slowly to decide that, and clicks are too short.
    """

    def __init__(self) -> None:
        self._opposite = False

    def mixed(self, chunk: np.ndarray) -> np.ndarray:
        """What follows, float32 [samples, channels], as [samples]."""
        if chunk.shape[1] == 1:
            return chunk[:, 0]
        if chunk.shape[1] == 2 and self._are_opposite(chunk):
            return 0.5 * (chunk[:, 0] - chunk[:, 1])
        return chunk.mean(axis=1, dtype=np.float32)

    def _are_opposite(self, chunk: np.ndarray) -> bool:
        direction = np.sign(np.diff(chunk, axis=0))
        moving = int(np.count_nonzero(direction)) / 2
        if moving >= _ENOUGH:
            together = float(direction[:, 0] @ direction[:, 1] / moving)  # 1: always, -1: never.
            self._opposite = together < (0.0 if self._opposite else _OPPOSITE)
        return self._opposite


def _rechunk(chunks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yields the same samples in blocks of `size`, the last one possibly shorter, none empty."""
    pending = np.zeros(0, np.float32)
    for chunk in chunks:
        pending = np.concatenate([pending, chunk])
        whole = len(pending) // size * size
        for start in range(0, whole, size):
            yield pending[start : start + size]
        pending = pending[whole:]
    if len(pending):
        yield pending
