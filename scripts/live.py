#!/usr/bin/env python3
"""Transcribes piano while it is played: from the microphone, from raw PCM on stdin, or from a file at its own speed.

  python scripts/live.py                                            # the microphone
  python scripts/live.py --input=piano.flac --output=piano.mid      # a file, as if it were played now
  ffmpeg -i piano.mp3 -f s16le -ac 1 -ar 16000 - | python scripts/live.py --input=-

Prints every note's begin and end as soon as it is known, sends them to a MIDI port with --midi_port, and writes a MIDI file
with --output. At the end, or on Ctrl-C, it says what computing took per frame.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import constants, startup  # noqa: E402

startup.limit_blas_threads()
from polyamp import atomic  # noqa: E402
from polyamp.audio import containers  # noqa: E402
from polyamp.errors import PolyampError  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from polyamp.streaming import NoteEvent

_INPUT = flags.DEFINE_string("input", "mic", "Audio file; - for raw PCM on stdin; mic or mic:DEVICE for a microphone.")
_OUTPUT = flags.DEFINE_string("output", None, "MIDI file to write at the end.")
_MIDI_PORT = flags.DEFINE_string("midi_port", None, "MIDI output port to send the notes to; a wrong name lists them.")
_SPEED = flags.DEFINE_float(
    "speed",
    None,
    "Times real time; 0 as fast as it can. Default: 1 for files; stdin is taken as fast as it comes.",
    lower_bound=0.0,
)
_RATE = flags.DEFINE_integer(
    "rate",
    16_000,
    "Sample rate of the PCM, Hz. Converting another one takes up to 40 ms, at 44,100, on top of the latency.",
    lower_bound=1_000,
    upper_bound=768_000,
)
_FORMAT = flags.DEFINE_enum("format", "s16le", ["s16le", "f32le"], "Samples of the PCM.")
_CHANNELS = flags.DEFINE_integer("channels", 1, "Channels of the PCM; averaged.", lower_bound=1, upper_bound=64)
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of models; default: the weights in the package.")
_LOAD_ID = flags.DEFINE_string(
    "load_id", "*", "Which checkpoint in it, as for polyamp_runner.py; of those in the package also autoregressive_low_latency."
)
_A4 = flags.DEFINE_float("a4", 440.0, "Tuning of the instrument: Hz of its A above middle C.", *constants.A4_RANGE_HZ)
_QUIET = flags.DEFINE_bool("quiet", False, "Do not print the notes.")

_SLOWEST, _FASTEST = 0.01, 10_000.0  # Times real time.
_PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def main(argv: Sequence[str]) -> int:
    """Runs until the sound ends or Ctrl-C; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _live)


def _live() -> None:
    _check()
    with _midi_port(_MIDI_PORT.value) if _MIDI_PORT.value else contextlib.nullcontext() as port:
        from polyamp import live, streaming
        from polyamp.audio import tuning

        overrides = {"a4_hz": _A4.value} if _A4.present else {}
        transcriber = streaming.StreamingTranscriber.load(_MODEL_DIR.value, _LOAD_ID.value, **overrides)
        events: list[NoteEvent] = []
        is_over = False

        def report(event: "NoteEvent") -> None:
            nonlocal is_over
            if port:
                port.send(_message(event))
            if _OUTPUT.value:
                events.append(event)
            if not _QUIET.value and not startup.say(_line(event)):  # Nobody reads on.
                is_over = not _OUTPUT.value and not port

        sys.stderr.write(f"latency {transcriber.latency_ms:.0f} ms and computing; Ctrl-C ends\n")
        blocks = itertools.takewhile(lambda _: not is_over, _blocks(transcriber.hop_length))
        try:
            timing = live.run(transcriber, blocks, report)
            sys.stderr.write(f"{timing}\n")
            a4_hz = tuning.better_a4(timing.cents, transcriber.a4_hz)
            if a4_hz:
                sys.stderr.write(f"the instrument's tuning is A4 = {a4_hz:g} Hz; with --a4={a4_hz:g} it is heard better\n")
        finally:  # What was heard before a failure, too.
            if _OUTPUT.value:
                _write(events, _OUTPUT.value)


def _check() -> None:
    """What costs no time: nothing should be played that cannot be kept."""
    for flag in (_INPUT, _OUTPUT, _MIDI_PORT):
        if flag.value == "":
            raise PolyampError(f"--{flag.name}= is empty; leave it out, or give a value.")
    if _SPEED.value and not _SLOWEST <= _SPEED.value <= _FASTEST:
        raise PolyampError(f"--speed={_SPEED.value:g}: from {_SLOWEST} to {_FASTEST} times real time, or 0.")
    if _INPUT.value == "-" and sys.stdin is None:
        raise PolyampError("--input=-: standard input is closed.")
    for name, is_given in (("rate", _RATE.present), ("format", _FORMAT.present), ("channels", _CHANNELS.present)):
        if is_given and _INPUT.value != "-":
            raise PolyampError(f"--{name} is for raw samples from a pipe (--input=-); leave it out.")
    if _is_file(_INPUT.value):
        containers.check_is_file(_INPUT.value)
    if _OUTPUT.value:
        atomic.check_replaceable(_OUTPUT.value)
        if _is_file(_INPUT.value) and os.path.exists(_OUTPUT.value) and os.path.samefile(_INPUT.value, _OUTPUT.value):
            raise PolyampError(f"--output={_OUTPUT.value}: is the recording itself; name another file.")


def _write(events: "list[NoteEvent]", output: str) -> None:
    """Writes the MIDI file, or none if there are no notes: an older one is worth more than that."""
    from polyamp import notes, streaming

    if not events:
        sys.stderr.write(f"no note was heard: {output} is not written\n")
        return
    notes.write_midi(streaming.to_notes(events), output)
    sys.stderr.write(f"written: {output}\n")


def _is_file(name: str) -> bool:
    return name != "-" and name.partition(":")[0] != "mic"


def _blocks(hop: int) -> "Iterator[np.ndarray]":
    """The sound that --input names, at its speed."""
    from polyamp import live

    if _is_file(_INPUT.value):
        return live.at_speed(live.from_file(_INPUT.value), 1.0 if _SPEED.value is None else _SPEED.value, hop)
    if _INPUT.value == "-":
        pcm = live.from_pcm(sys.stdin.buffer, _RATE.value, _FORMAT.value, _CHANNELS.value)
        return live.at_speed(pcm, _SPEED.value, hop) if _SPEED.value else pcm
    return live.from_microphone(_INPUT.value.partition(":")[2] or None)


def _line(event: "NoteEvent") -> str:
    """One event as text: seconds, on or off, name and number of the pitch, velocity."""
    name = f"{_PITCH_NAMES[event.pitch % 12]}{event.pitch // 12 - 1}"
    velocity = f"  velocity {event.velocity:3d}" if event.is_on else ""
    return f"{event.time:9.3f}  {'on ' if event.is_on else 'off'}  {name:<4}{event.pitch:4d}{velocity}"


def _message(event: "NoteEvent") -> Any:
    import mido

    return mido.Message("note_on" if event.is_on else "note_off", note=event.pitch, velocity=event.velocity)


def _midi_port(name: str) -> Any:
    """An opened MIDI output; `PolyampError` where there is none of that name, or nothing to open it with."""
    import mido

    try:
        names = mido.get_output_names()
        if name in names:
            return mido.open_output(name)
    except (ImportError, OSError) as error:
        raise PolyampError(f"--midi_port needs python-rtmidi ({error}): pip install python-rtmidi.") from error
    raise PolyampError(f"--midi_port={name}: no such MIDI output; there are: {', '.join(names) or 'none'}.")


if __name__ == "__main__":
    startup.run(main)
