"""Runs a streaming transcriber on sound as it comes: from a microphone, a pipe, or a file played at its own speed."""

import collections
import dataclasses
import queue
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import soxr
from absl import logging

from polyamp import constants
from polyamp.audio import reading, tuning
from polyamp.audio.meters import passed
from polyamp.errors import AudioError, PolyampError
from polyamp.streaming import NoteEvent, StreamingTranscriber

_SAMPLE_TYPES = {"s16le": ("<i2", 2.0**15), "f32le": ("<f4", 1.0)}  # numpy's name, full scale.
PCM_FORMATS = tuple(_SAMPLE_TYPES)
_READ_BYTES = 4096  # Of a pipe at most at a time; less where less has come.
_LATE_SECONDS = 0.1  # Behind the sound by so much more than at the start is worth a warning.
_WARN_EVERY = 5.0  # Seconds.
_KEPT_TIMES = 1 << 20  # Compute times that are kept for the percentiles: the last nine hours of 32 ms frames.


def from_file(path: str) -> Iterator[np.ndarray]:
    """The samples of an audio file, 16 kHz mono; `AudioError` as `reading.stream`."""
    return reading.stream(path, block_seconds=1.0)


def from_pcm(
    pipe: IO[bytes], rate: int = constants.SAMPLE_RATE, pcm_format: str = "s16le", channels: int = 1
) -> Iterator[np.ndarray]:
    """The samples of raw PCM as they arrive, converted to 16 kHz mono.

    Args:
        pipe: Opened for bytes; read until it ends.
        rate: Hz.
        pcm_format: One of `PCM_FORMATS`: 16-bit integers or 32-bit floats, little-endian.
        channels: Interleaved; averaged.

    Raises:
        AudioError: The data ends within a sample, or holds a float that is not finite or far beyond full scale.
    """
    sample_type, full_scale = _SAMPLE_TYPES[pcm_format]
    resampler = soxr.ResampleStream(rate, constants.SAMPLE_RATE, 1, "float32") if rate != constants.SAMPLE_RATE else None
    frame_bytes = np.dtype(sample_type).itemsize * channels
    read = getattr(pipe, "read1", pipe.read)
    rest = b""
    while data := read(_READ_BYTES):
        data = rest + data
        whole = len(data) // frame_bytes * frame_bytes
        rest = data[whole:]
        values = np.frombuffer(data[:whole], sample_type).reshape(-1, channels)
        with np.errstate(over="ignore", invalid="ignore"):  # Of what is no sound; found out below.
            samples = values.mean(axis=1, dtype=np.float32) / np.float32(full_scale)
        if not reading.are_in_range(samples):
            raise AudioError(f"the PCM data holds samples that are no sound; is it really {pcm_format}?")
        yield resampler.resample_chunk(samples) if resampler else samples
    if rest:
        raise AudioError(f"the PCM data ends within a sample; is it really {pcm_format} with {channels} channel(s)?")
    if resampler:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def from_microphone(device: str | None = None) -> Iterator[np.ndarray]:
    """What a microphone hears, until the process is interrupted.

    Args:
        device: Part of its name, or its number; None is the system's own choice.

    Raises:
        PolyampError: The library that is needed is not installed, or there is no such device.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise PolyampError(f"the microphone needs sounddevice ({error}): pip install sounddevice, and PortAudio.") from error
    heard: queue.Queue[np.ndarray] = queue.Queue()

    def callback(data: np.ndarray, frames: int, times: Any, status: Any) -> None:
        if status:
            logging.warning("Microphone: %s.", status)
        heard.put(data[:, 0].copy())

    try:
        chosen: Any = int(device) if device and device.isdigit() else device
        stream = sounddevice.InputStream(
            samplerate=constants.SAMPLE_RATE, channels=1, dtype="float32", device=chosen, callback=callback
        )
        with stream:
            while True:
                try:
                    yield heard.get(timeout=1.0)
                except queue.Empty:
                    if not stream.active:
                        raise PolyampError("the microphone gives no more sound; is it still there?") from None
    except (sounddevice.PortAudioError, ValueError) as error:
        raise PolyampError(f"the microphone cannot be opened: {error}.") from error


def at_speed(blocks: Iterator[np.ndarray], speed: float, hop: int) -> Iterator[np.ndarray]:
    """Blocks of a hop at most, each given when its last sample would have been heard; `speed` 2 is twice as fast, 0 at once."""
    start, given = time.monotonic(), 0
    for block in blocks:
        for begin in range(0, len(block), hop):
            part = block[begin : begin + hop]
            given += len(part)
            if speed > 0:
                wait = start + given / (constants.SAMPLE_RATE * speed) - time.monotonic()
                time.sleep(max(wait, 0.0))
            yield part


@dataclasses.dataclass
class Timing:
    """How long the computing of each frame took, and how much sound there was.

    Attributes:
        hop_ms: Length of a frame.
        seconds: Of sound that was heard.
        events: How many were found.
        cents: How far the sound is above A4 = 440 Hz (see `tuning.measure`).
    """

    hop_ms: float
    seconds: float = 0.0
    events: int = 0
    cents: float = 0.0
    _frame_ms: list[float] = dataclasses.field(default_factory=list)
    _next: int = 0

    def add(self, milliseconds: float) -> None:
        """Notes the time of one frame, in place of the oldest where there are too many."""
        if len(self._frame_ms) < _KEPT_TIMES:
            self._frame_ms.append(milliseconds)
        else:
            self._frame_ms[self._next % _KEPT_TIMES] = milliseconds
        self._next += 1

    @property
    def mean_ms(self) -> float:
        """Mean over frames; 0 without any."""
        return float(np.mean(self._frame_ms)) if self._frame_ms else 0.0

    @property
    def p99_ms(self) -> float:
        """What 99 % of the frames took at most; 0 without any."""
        return float(np.percentile(self._frame_ms, 99)) if self._frame_ms else 0.0

    def __str__(self) -> str:
        return (
            f"{self.events} events in {self.seconds:.1f} s of sound; computing per frame of {self.hop_ms:g} ms: "
            f"mean {self.mean_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        )


class _Teller:
    """Reports events one by one; for each pitch begins and ends alternate, also where an interruption has lost some.

    Args:
        report: Called with each event.
    """

    def __init__(self, report: Callable[[NoteEvent], None]):
        self._report = report
        self._pending: collections.deque[NoteEvent] = collections.deque()  # Still to be told, also if telling is interrupted.
        self.sounding: set[int] = set()  # Pitches whose begin is told, or pending.
        self.told = 0

    def tell(self, events: list[NoteEvent]) -> None:
        """Reports these events, after those that an interruption left."""
        for event in events:
            if event.is_on:
                if event.pitch in self.sounding:
                    self._pending.append(NoteEvent(event.time, event.pitch, 0))
                self.sounding.add(event.pitch)
                self._pending.append(event)
            elif event.pitch in self.sounding:
                self.sounding.discard(event.pitch)
                self._pending.append(event)
        while self._pending:
            self._report(self._pending[0])
            self.told += 1
            self._pending.popleft()

    def end_all(self, time_s: float) -> None:
        """Reports the ends of all notes that sound, at that time."""
        self.tell([NoteEvent(time_s, pitch, 0) for pitch in sorted(self.sounding)])


def run(transcriber: StreamingTranscriber, blocks: Iterator[np.ndarray], report: Callable[[NoteEvent], None]) -> Timing:
    """Transcribes until the blocks end or the user interrupts, reporting every event as soon as it is known.

    Warns, every few seconds at most, where computing falls behind the sound.

    Args:
        transcriber: A fresh one.
        blocks: Sound, 16 kHz mono float32, as it comes.
        report: Called with each event, those that the end brings included.

    Returns:
        What computing took, and the tuning of the sound.

    Raises:
        PolyampError: From the blocks; what was heard before has been reported, ends included.
    """
    hop = transcriber.hop_length
    timing = Timing(hop_ms=1000.0 * hop / constants.SAMPLE_RATE)
    behind = warned = took_of_frame = 0.0
    heard = 0  # Samples.
    teller = _Teller(report)
    meter = tuning.Meter()
    try:
        for block in passed(meter, blocks):
            rest = block
            while len(rest):  # Hop by hop, so that each frame's time is known.
                part, rest = np.split(rest, [hop - heard % hop])
                started = time.perf_counter()
                events = transcriber.push(part)
                took = time.perf_counter() - started
                heard += len(part)
                took_of_frame += took
                if heard % hop == 0:
                    timing.add(1000.0 * took_of_frame)
                    took_of_frame = 0.0
                timing.seconds = heard / constants.SAMPLE_RATE
                behind = max(0.0, behind + took - len(part) / constants.SAMPLE_RATE)
                if behind > _LATE_SECONDS and time.monotonic() - warned > _WARN_EVERY:
                    logging.warning("Computing is %.1f s behind the sound: this machine is too slow for the model.", behind)
                    warned = time.monotonic()
                teller.tell(events)
    except KeyboardInterrupt:  # The way to end a stream that has no end.
        logging.debug("Interrupted.")
    finally:
        teller.tell(transcriber.finish())
        teller.end_all(timing.seconds)
        timing.events, timing.cents = teller.told, meter.cents
    return timing
