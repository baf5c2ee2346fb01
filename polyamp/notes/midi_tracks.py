"""MIDI files as they are played: what one track says and others obey is said in each of these.

A player knows one tempo for all tracks and one program and pedal for each channel, whatever track they come from. pretty_midi,
which note-seq reads with, takes tempos from the first track alone, and programs and pedals of every track for itself.
"""

import io
import itertools
import math
from typing import TypeAlias

import mido

_OF_ALL = ("set_tempo", "time_signature", "key_signature")
_SUSTAIN = 64
_SILENCE = (120, 123)  # All sound off, all notes off.
_MOST_TICKS = 20_000_000  # Six hours in the usual units; readers need 24 bytes for each, and damaged files have billions.

_Message: TypeAlias = mido.Message | mido.MetaMessage
# The messages of a track with the ticks at which they come, counted from the beginning.
_Timed = list[tuple[int, _Message]]


def as_played(content: bytes) -> bytes:
    """A MIDI file that tells readers of single tracks what a player would do.

    - Tempos and signatures of all tracks are in the first.
    - A track with notes before it has a program for their channel has the programs that other tracks give it.
    - Tracks of one channel whose programs are the same, as those of a pianist's hands, have one sustain pedal.
    - Notes that nothing ends do so with the file, and all of a channel where it is told to be silent.
    - A program that changes where notes end holds for those after them. (A note during which it changes has, as pretty_midi
      reads it, the later one.)

    Args:
        content: The file's, perhaps in a RIFF file; files of type 0 and 2 stay as they are, but for the notes.

    Raises:
        Exception: It is no MIDI file; mido raises whatever comes up.
    """
    if content.startswith(b"RIFF"):
        content = content[max(content.find(b"MThd"), 0) :]
    midi = mido.MidiFile(file=io.BytesIO(content))
    if midi.ticks_per_beat <= 0:
        units = "SMPTE frames, not in quarter notes" if midi.ticks_per_beat else "no unit of time"
        raise ValueError(f"it counts in {units}")
    if midi.type == 0 and len(midi.tracks) != 1:
        midi.type = 1
    tracks = [_timed(track) for track in midi.tracks]
    end = max((sum(message.time for message in track) for track in midi.tracks), default=0)
    if end > _MOST_TICKS:
        raise ValueError(f"it lasts for {end} ticks and is probably damaged; {_MOST_TICKS} can be read")
    orders = [one for track in tracks for one in track if one[1].type == "control_change" and one[1].control in _SILENCE]
    tracks = [_ended(track, orders if midi.type != 2 else [], end) for track in tracks]
    if midi.type == 1 and tracks:
        shared = [one for track in tracks for one in track if one[1].type in _OF_ALL]
        tracks = [[one for one in track if one[1].type not in _OF_ALL] for track in tracks]
        tracks[0] = shared + tracks[0]
        for channel in {one.channel for track in tracks for _, one in track if _starts(one)}:
            _share_programs(tracks, channel)
            _share_pedals(tracks, channel)
    midi.tracks = [_track(timed) for timed in tracks]
    written = io.BytesIO()
    midi.save(file=written)
    return written.getvalue()


def _timed(track: mido.MidiTrack) -> _Timed:
    tick, timed = 0, []
    for message in track:
        tick += message.time
        if message.type != "end_of_track":
            timed.append((tick, message))
    return timed


def _track(timed: _Timed) -> mido.MidiTrack:
    track, now = mido.MidiTrack(), 0
    ordered = sorted(timed, key=lambda one: one[0])  # Stable: a tick's messages stay in their order.
    for tick, of_tick in itertools.groupby(ordered, key=lambda one: one[0]):
        for message in _programs_after_ends([message for _, message in of_tick]):
            track.append(message.copy(time=tick - now))
            now = tick
    return track


def _programs_after_ends(messages: list[_Message]) -> list[_Message]:
    """The messages of one tick in their order, but the ends of earlier notes before the first program change."""
    begun: set[tuple[int, int]] = set()
    ordered: list[_Message] = []
    waiting: list[_Message] = []  # From the first program change on.
    for message in messages:
        if _starts(message):
            begun.add((message.channel, message.note))
        is_end = message.type in ("note_on", "note_off") and (message.channel, message.note) not in begun
        waits = not is_end and (waiting or message.type == "program_change")
        (waiting if waits else ordered).append(message)
    return ordered + waiting


def _starts(message: _Message) -> bool:
    return message.type == "note_on" and message.velocity > 0


def _ended(track: _Timed, orders: _Timed, end: int) -> _Timed:
    """A track whose notes end, at the latest, where any track tells their channels to be silent or with the file."""
    sounding: set[tuple[int, int]] = set()
    ends: _Timed = []
    # Sorted by their ticks alone: what begins where its channel is silenced sounds, until the end of all channels.
    stops = [(tick, order.channel, None) for tick, order in orders]
    both = stops + [(tick, None, message) for tick, message in track] + [(end, None, None)]
    for tick, channel, message in sorted(both, key=lambda one: one[0]):
        if message is None:
            silent = {one for one in sounding if channel in (None, one[0])}
            ends += [(tick, mido.Message("note_off", channel=of, note=note)) for of, note in sorted(silent)]
            sounding -= silent
        elif _starts(message):
            sounding.add((message.channel, message.note))
        elif message.type in ("note_on", "note_off"):
            sounding.discard((message.channel, message.note))
    return ends + track


def _playing(tracks: list[_Timed], channel: int) -> list[int]:
    """The tracks with notes of a channel."""
    return [number for number, track in enumerate(tracks) if any(_starts(one) and one.channel == channel for _, one in track)]


def _of_kind(track: _Timed, channel: int, kind: str) -> _Timed:
    """A channel's messages of a kind; of control changes the sustain pedal's."""
    return [
        (tick, one)
        for tick, one in track
        if one.type == kind and one.channel == channel and (kind != "control_change" or one.control == _SUSTAIN)
    ]


def _share_programs(tracks: list[_Timed], channel: int) -> None:
    """Gives tracks of a channel the programs of others until they have one of their own, if they have notes before."""
    of_each = [_of_kind(track, channel, "program_change") for track in tracks]
    for number in _playing(tracks, channel):
        own = min((tick for tick, _ in of_each[number]), default=math.inf)
        if any(tick < own and _starts(one) and one.channel == channel for tick, one in tracks[number]):
            tracks[number] = [one for changes in of_each for one in changes if one[0] < own] + tracks[number]


def _share_pedals(tracks: list[_Timed], channel: int) -> None:
    """Gives tracks of a channel the pedals of those with the same programs, and of those without notes."""
    programs = {
        number: [one.program for _, one in _of_kind(tracks[number], channel, "program_change")]
        for number in _playing(tracks, channel)
    }
    pedals = [_of_kind(track, channel, "control_change") for track in tracks]
    for number, own in programs.items():
        others = [other for other in range(len(tracks)) if other != number and programs.get(other, own) == own]
        tracks[number] = [one for other in others for one in pedals[other]] + tracks[number]
