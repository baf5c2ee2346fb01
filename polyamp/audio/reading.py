"""Reads audio files of any common format, rate and channel count as 16 kHz mono, whole or block by block.

libsndfile reads what it knows (WAV, FLAC, Ogg, MP3, AIFF ...), an `ffmpeg` on the PATH everything else (M4A, WMA, video ...).
Memory does not grow with the length of a file unless the caller keeps the blocks.
"""

import contextlib
import io
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from polyamp import constants
from polyamp.errors import AudioError

_CHUNK_VALUES = 2**18  # Samples times channels that are decoded at a time.
_MIN_RATE, _MAX_RATE = 1_000, 10_000_000  # Hz; outside, the header is damaged and resampling would exhaust memory.
_MAX_AMPLITUDE = 2.0**31  # Above full scale of any integer format: not audio, and its square could overflow.
_MOST_CHANNELS = 64
_UNKNOWN_FRAMES = 2**62  # libsndfile announces more than this when a header does not say how long the file is.

# WAV (little-endian and big-endian) and AIFF by their first bytes: byte order, and which chunk holds the sound.
_SOUND_CHUNKS = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
_UNKNOWN_BYTES = 0x7FFF_0000  # A chunk of this length or more is one whose length was not known when its header was written.
_SLACK_BYTES = 4096  # A whole file may hold this many bytes fewer than its header says, or 1 % if that is less.

# Gives a recording, 16 kHz mono float32, in blocks of any length, as often as it is called.
Blocks = Callable[[], Iterable[np.ndarray]]

# One decoded source: its rate in Hz and its chunks, float32 [samples, channels].
_Source = tuple[int, Iterator[np.ndarray]]


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a whole file.

    Args:
        path: Any file that libsndfile or ffmpeg reads; of several audio streams the first, its channels averaged. Of formats
            other than WAV, AIFF, FLAC and those that ffmpeg reads nothing tells whether they are cut short.

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
    check_is_file(name)
    with contextlib.ExitStack() as stack:
        rate, chunks = _open(name, stack)
        yield from _rechunk(_to_mono_16k(chunks, rate, name), block)


class Repeated:
    """The blocks of a file as often as they are wanted; decoded only once unless the file is long.

    Args:
        path: As for `read`.
        seconds: Files up to this length are kept in memory after they have been read.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = 300.0):
        self._path, self._most = path, round(seconds * constants.SAMPLE_RATE)
        self._kept: list[np.ndarray] | None = None

    def __call__(self) -> Iterator[np.ndarray]:
        """As `stream`."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[np.ndarray] = []
        size = 0
        for block in stream(self._path):
            size += len(block)
            if size <= self._most:
                kept.append(block)
            else:
                kept.clear()
            yield block
        if size <= self._most:
            self._kept = kept


def is_sound(samples: np.ndarray) -> bool:
    """Whether all samples are finite and not far beyond full scale."""
    return bool(np.all(np.abs(samples) <= _MAX_AMPLITUDE))  # Not so for NaN.


def convert(samples: ArrayLike, rate: int) -> np.ndarray:
    """Samples of any rate, type and number of channels as those of `read`.

    Args:
        samples: `[samples]` or `[samples, channels]`; float, nominally in [-1, 1], or signed integers of their type's full
            range.
        rate: Hz.

    Returns:
        As `read`.

    Raises:
        AudioError: There are none, or not in that shape, or they are no sound.
    """
    given = np.asarray(samples)
    if given.ndim not in (1, 2) or given.ndim == 2 and not 0 < given.shape[1] <= _MOST_CHANNELS:
        raise AudioError(f"samples of the shape {given.shape}; give [samples] or [samples, channels].")
    if given.dtype.kind == "i":
        given = given / -float(np.iinfo(given.dtype).min)
    elif given.dtype.kind != "f":
        raise AudioError(f"samples of the type {given.dtype}; give float or signed integers.")
    chunks = iter([given.astype(np.float32).reshape(len(given), given.shape[1] if given.ndim == 2 else 1)])
    return np.concatenate(list(_to_mono_16k(chunks, rate, "samples")))


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
            raise AudioError(f"{name}: no audio that libsndfile can read ({_reason(error)}).") from error
        return np.concatenate(list(_to_mono_16k(_decode_chunks(sound, name), sound.samplerate, name)))


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


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises `AudioError` unless `path` is a readable file with something in it; whether that is audio shows on reading."""
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"{name}: no such file.") from error
    except OSError as error:  # In a folder that is closed to this user, a name too long ...
        raise AudioError(f"{name}: cannot be read ({error.strerror}).") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name}: is a directory; name the audio files in it, for example {Path(name) / '*.wav'}.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{name}: not a regular file; save the audio to a file first.")
    if not os.access(name, os.R_OK):
        raise AudioError(f"{name}: may not be read by this user; change its permissions.")
    if status.st_size == 0:
        raise AudioError(f"{name}: the file is empty.")


def _open(name: str, stack: contextlib.ExitStack) -> _Source:
    """Opens a file with libsndfile, or failing that with ffmpeg; `stack` closes it."""
    try:
        sound = stack.enter_context(soundfile.SoundFile(os.fsencode(name) if os.name == "posix" else name))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: soundfile takes names in .raw for headerless audio.
        if not shutil.which("ffmpeg"):
            raise AudioError(
                f"{name}: no audio that libsndfile can read ({_reason(error)}); if it is in another format, install ffmpeg."
            ) from error
        return _open_ffmpeg(name, stack)
    announced, there = _announced_bytes(name) or (1, 1)
    if there + min(_SLACK_BYTES, announced // 100) < announced < _UNKNOWN_BYTES:
        raise AudioError(f"{name}: cut short, has {there / announced:.0%} of its audio; get a complete copy.")
    # Of a recorder that was stopped; of a program that wrote to a pipe, whose file libsndfile cannot read to its end.
    if announced == 0 < there or sound.format == "FLAC" and sound.frames >= _UNKNOWN_FRAMES:
        if not shutil.which("ffmpeg"):
            raise AudioError(f"{name}: does not say how long it is; install ffmpeg, which reads it all the same.")
        return _open_ffmpeg(name, stack)
    return sound.samplerate, _decode_chunks(sound, name)


def _announced_bytes(name: str) -> tuple[int, int] | None:
    """How many bytes of sound the header of a WAV or AIFF file says that there are, and how many are there; None for others.

    libsndfile reads what there is without a word. Programs that write to a pipe, or are stopped, leave 0, or about 2 or 4 GB.
    """
    with open(name, "rb") as file:
        form, size = file.read(12)[:4], os.fstat(file.fileno()).st_size
        if form not in _SOUND_CHUNKS:
            return None
        byte_order, sound_chunk = _SOUND_CHUNKS[form]
        while len(header := file.read(8)) == 8:
            chunk, length = struct.unpack(f"{byte_order}4sI", header)
            if chunk == sound_chunk:
                return length, size - file.tell()
            file.seek(length + length % 2, os.SEEK_CUR)
    return None


def _reason(error: Exception) -> str:
    """The bare cause from soundfile's `Error opening <file>: <cause>.`."""
    return str(getattr(error, "error_string", error)).rstrip(".")


def _decode_chunks(sound: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    """Yields [samples, channels] until the end, which must be where the header says."""
    frames = max(1, _CHUNK_VALUES // sound.channels)
    done = 0
    while True:
        try:
            chunk = sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            where = f"between {done / sound.samplerate:.0f} and {(done + frames) / sound.samplerate:.0f} s"
            raise AudioError(f"{name}: damaged {where} ({_reason(error)}); get a complete copy.") from error
        if not len(chunk):
            break
        done += len(chunk)
        yield chunk
    # Lengths of MP3 files without a table of contents are estimates; the other formats know theirs.
    if sound.format != "MP3" and "MPEG" not in sound.subtype and done < sound.frames < _UNKNOWN_FRAMES:
        seconds = f"{done / sound.samplerate:.2f} s of {sound.frames / sound.samplerate:.2f} s"
        raise AudioError(f"{name}: cut short or damaged, ends after {seconds}; get a complete copy.")


def _open_ffmpeg(name: str, stack: contextlib.ExitStack) -> _Source:
    """Starts ffmpeg writing the first audio stream, undisturbed in rate and channels, as AU with 32-bit floats to a pipe."""
    # `file:` and the whitelist keep names and playlists from making ffmpeg fetch anything else.
    command = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i", f"file:{name}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
    stack.callback(_stop, process)
    assert process.stdout is not None
    header = process.stdout.read(24)
    if len(header) < 24:
        process.wait()
        raise AudioError(f"{name}: no audio that libsndfile or ffmpeg can read ({_last_line(messages, name)}).")
    _, offset, _, _, rate, channels = struct.unpack(">4s5I", header)
    process.stdout.read(offset - len(header))  # The rest of the header is a comment.
    return rate, _ffmpeg_chunks(process, channels, messages, name)


def _ffmpeg_chunks(process: subprocess.Popen[bytes], channels: int, messages: IO[bytes], name: str) -> Iterator[np.ndarray]:
    """Yields [samples, channels] from ffmpeg's pipe."""
    assert process.stdout is not None
    frames = max(1, _CHUNK_VALUES // channels)
    while data := process.stdout.read(4 * channels * frames):
        whole = len(data) // (4 * channels) * channels
        yield np.frombuffer(data, ">f4", count=whole).astype(np.float32).reshape(-1, channels)
    if process.wait() != 0:
        raise AudioError(f"{name}: ffmpeg could not read it to the end ({_last_line(messages, name)}).")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends ffmpeg, also when the caller of `stream` did not want all blocks."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(messages: IO[bytes], name: str) -> str:
    """The last line that ffmpeg wrote to its standard error, without the file's name."""
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].replace(f"file:{name}: ", "").rstrip(".") if lines else "ffmpeg gave no reason"


def _to_mono_16k(chunks: Iterator[np.ndarray], rate: int, name: str) -> Iterator[np.ndarray]:
    """Averages channels, checks the samples and resamples; `AudioError` if nothing comes out."""
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(f"{name}: says that it has {rate} samples per second; {_MIN_RATE} to {_MAX_RATE} can be read.")
    same_rate = rate == constants.SAMPLE_RATE
    resampler = None if same_rate else soxr.ResampleStream(rate, constants.SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    total = 0
    for chunk in chunks:
        if not is_sound(chunk):
            raise AudioError(f"{name}: has samples that are NaN, infinite or far beyond full scale; export the audio again.")
        mono = chunk[:, 0] if chunk.shape[1] == 1 else chunk.mean(axis=1, dtype=np.float32)
        samples = resampler.resample_chunk(mono) if resampler else mono
        total += len(samples)
        yield samples
    if resampler:
        tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        total += len(tail)
        yield tail
    if not total:
        raise AudioError(f"{name}: has no samples (zero length).")


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
