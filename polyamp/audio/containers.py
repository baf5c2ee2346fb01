"""Opens audio files: libsndfile reads what it knows (WAV, FLAC, Ogg, MP3, AIFF ...), an `ffmpeg` on the PATH everything else.

What comes out is as the file has it, in rate and channels, a chunk at a time; `polyamp.audio.reading` makes 16 kHz mono of it.
"""

import contextlib
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
from absl import logging

from polyamp.audio import mpeg_and_ogg
from polyamp.errors import AudioError

_CHUNK_VALUES = 2**18  # Samples times channels that are decoded at a time.
_UNKNOWN_FRAMES = 2**62  # libsndfile announces more than this when a header does not say how long the file is.

# WAV (little-endian, big-endian, beyond 4 GB) and AIFF by their first bytes: byte order, and which chunk holds the sound.
_SOUND_CHUNKS = {
    b"RIFF": ("<", b"data"),
    b"RIFX": (">", b"data"),
    b"RF64": ("<", b"data"),
    b"BW64": ("<", b"data"),
    b"FORM": (">", b"SSND"),
}
# What stands for the length of a chunk that was not known when its header was written: about 2 GB, or the highest numbers.
_UNKNOWN_BYTES = (range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))
_SLACK_BYTES = 4096  # A whole file may hold this many bytes fewer than its header says, or 1 % if that is less.

_MP3_SLACK = 8 * 1152  # Samples that the frames of a whole MP3 file may hold beyond those to play: silence at both ends.

# One decoded source: its rate in Hz and its chunks, float32 [samples, channels].
Source = tuple[int, Iterator[np.ndarray]]


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises `AudioError` unless `path` is a readable file with something in it; whether that is audio shows on reading."""
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"{name}: no such file.") from error
    except OSError as error:  # In a folder that is closed to this user, a name too long ...
        raise AudioError(f"{name}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise AudioError(f"{name!r}: no name of a file ({error}).") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name}: is a directory; name the audio files in it, for example {Path(name) / '*.wav'}.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{name}: not a regular file; save the audio to a file first.")
    if not os.access(name, os.R_OK):
        raise AudioError(f"{name}: may not be read by this user; change its permissions.")
    if status.st_size == 0:
        raise AudioError(f"{name}: the file is empty.")


def open_file(name: str, stack: contextlib.ExitStack) -> Source:
    """Opens a file with libsndfile, or failing that with ffmpeg; `stack` closes it.

    Raises:
        AudioError: Neither can read it, or its header says that it is longer than it is. Damage further on raises from the
            chunks when it is reached.
    """
    try:
        sound = stack.enter_context(soundfile.SoundFile(os.fsencode(name) if os.name == "posix" else name))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: soundfile takes names in .raw for headerless audio.
        if not shutil.which("ffmpeg"):
            raise AudioError(
                f"{name}: no audio that libsndfile can read ({reason_of(error)}); if it is in another format, install ffmpeg."
            ) from error
        return _open_ffmpeg(name, stack)
    if not _holds_more(name, sound):
        return sound.samplerate, chunks_of(sound, name)
    if not shutil.which("ffmpeg"):
        raise AudioError(f"{name}: does not say how long it is; install ffmpeg, which reads it all the same.")
    return _open_ffmpeg(name, stack)


def _holds_more(name: str, sound: soundfile.SoundFile) -> bool:
    """Whether libsndfile would leave off before the end; `AudioError` if the header says that the file is longer than it is."""
    if sound.format == "FLAC":  # Of a program that wrote to a pipe.
        return sound.frames >= _UNKNOWN_FRAMES
    if sound.format == "MP3":  # Joined, or of a changing bit rate that its encoder did not note.
        return mpeg_and_ogg.mp3_samples(name) > sound.frames + _MP3_SLACK
    if sound.format == "OGG":
        return mpeg_and_ogg.is_chained(name)
    announced, there = _announced_bytes(name) or (1, 1)
    if there + min(_SLACK_BYTES, announced // 100) < announced:
        raise AudioError(f"{name}: cut short, has {there / announced:.0%} of its audio; get a complete copy.")
    return announced == 0 < there  # Of a recorder that was stopped.


def _announced_bytes(name: str) -> tuple[int, int] | None:
    """How many bytes of sound the header of a WAV or AIFF file says that there are, and how many are there.

    None where the header does not say. libsndfile reads what there is without a word. Programs that write to a pipe, or are
    stopped, leave 0 or `_UNKNOWN_BYTES`.
    """
    with open(name, "rb") as file:
        form, size = file.read(12)[:4], os.fstat(file.fileno()).st_size
        if form not in _SOUND_CHUNKS:
            return None
        byte_order, sound_chunk = _SOUND_CHUNKS[form]
        long_length = None
        while len(header := file.read(8)) == 8:
            chunk, length = struct.unpack(f"{byte_order}4sI", header)
            if chunk == b"ds64" and length >= 16:
                _, long_length = struct.unpack("<2Q", file.read(16))
                length -= 16
            if chunk == sound_chunk:
                there = size - file.tell()
                if long_length is not None:
                    return (long_length, there) if long_length < 2**63 else None
                if any(length in lengths for lengths in _UNKNOWN_BYTES):
                    return None
                return length, 0 if length == 0 and _are_chunks(file, byte_order, size) else there
            file.seek(length + length % 2, os.SEEK_CUR)
    return None


def _are_chunks(file: IO[bytes], byte_order: str, size: int) -> bool:
    """Whether what is left of a file of that size are whole chunks, so that an empty one before them is really empty."""
    while len(header := file.read(8)) == 8:
        chunk, length = struct.unpack(f"{byte_order}4sI", header)
        if not (chunk.isascii() and chunk.decode("ascii").isprintable()):
            return False
        file.seek(length + length % 2, os.SEEK_CUR)
    return not header and file.tell() <= size + 1  # The last chunk's padding may be missing.


def reason_of(error: Exception) -> str:
    """The bare cause from soundfile's `Error opening <file>: <cause>.`."""
    return str(getattr(error, "error_string", error)).rstrip(".")


def in_chunks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Samples in memory, [samples, channels], in the chunks in which those of a file come; one if there are none."""
    frames = _chunk_frames(samples.shape[1])
    return (samples[start : start + frames] for start in range(0, max(1, len(samples)), frames))


def _chunk_frames(channels: int) -> int:
    return max(1, _CHUNK_VALUES // channels)


def chunks_of(sound: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    """Yields [samples, channels] until the end, which must be where the header says."""
    frames = _chunk_frames(sound.channels)
    done = 0
    while True:
        try:
            chunk = sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            where = f"between {done / sound.samplerate:.0f} and {(done + frames) / sound.samplerate:.0f} s"
            raise AudioError(f"{name}: damaged {where} ({reason_of(error)}); get a complete copy.") from error
        if not len(chunk):
            break
        done += len(chunk)
        yield chunk
    # Lengths of MP3 files without a table of contents are estimates; the other formats know theirs.
    if sound.format != "MP3" and "MPEG" not in sound.subtype and done < sound.frames < _UNKNOWN_FRAMES:
        seconds = f"{done / sound.samplerate:.2f} s of {sound.frames / sound.samplerate:.2f} s"
        raise AudioError(f"{name}: cut short or damaged, ends after {seconds}; get a complete copy.")


def _open_ffmpeg(name: str, stack: contextlib.ExitStack) -> Source:
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
        raise AudioError(
            f"{name}: no audio that libsndfile or ffmpeg can read ({_last_line(messages, name) or 'no reason given'})."
        )
    _, offset, _, _, rate, channels = struct.unpack(">4s5I", header)
    process.stdout.read(offset - len(header))  # The rest of the header is a comment.
    return rate, _ffmpeg_chunks(process, channels, messages, name)


def _ffmpeg_chunks(process: subprocess.Popen[bytes], channels: int, messages: IO[bytes], name: str) -> Iterator[np.ndarray]:
    """Yields [samples, channels] from ffmpeg's pipe."""
    assert process.stdout is not None
    frames = _chunk_frames(channels)
    while data := process.stdout.read(4 * channels * frames):
        whole = len(data) // (4 * channels) * channels
        yield np.frombuffer(data, ">f4", count=whole).astype(np.float32).reshape(-1, channels)
    failed, said = process.wait() != 0, _last_line(messages, name)
    if failed or "partial file" in said:
        raise AudioError(f"{name}: ffmpeg could not read it to the end ({said or 'no reason given'}).")
    if said:
        logging.warning("%s: damaged, some of it may be missing (ffmpeg: %s).", name, said)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends ffmpeg, also when the caller of `stream` did not want all blocks."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(messages: IO[bytes], name: str) -> str:
    """The last line that ffmpeg wrote to its standard error, without the file's name; empty if it wrote none."""
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    lines = [line for line in lines if not line.startswith("To ignore this")]  # An option of ffmpeg's, which nobody gave.
    return lines[-1].replace(f"file:{name}: ", "").rstrip(".") if lines else ""
