"""Stems: the instruments of a MIDI file, cut, transposed and varied, each written as a file of its own."""

import dataclasses
import io
import os
from pathlib import Path

import mido
import numpy as np
import pretty_midi

from polyamp import globs
from polyamp.errors import PolyampError
from polyamp.notes import midi_tracks
from polyamp.rendering.soundfonts import Sound

SUSTAIN = 64
_KEPT_CONTROLLERS = (7, 11, SUSTAIN)  # Volume, expression, sustain pedal.
_SHORTEST = 0.05  # Seconds; notes that would be shorter at the end of an excerpt are left out.


@dataclasses.dataclass(frozen=True)
class Stem:
    """One instrument of a piece: rows of (onset, offset, pitch, velocity) and of (time, controller, value), in seconds."""

    name: str
    program: int
    is_drum: bool
    notes: list[tuple[float, float, int, int]]
    controls: list[tuple[float, int, int]]


def midi_files(patterns: str) -> list[Path]:
    """The files that --midi names: names and globs, comma-separated, each file once; `PolyampError` for what is not there."""
    paths: list[Path] = []
    for part in [patterns] if os.path.isfile(patterns) else patterns.split(","):
        matching = [Path(part)] if os.path.isfile(part) else [Path(path) for path in globs.matching(part)]
        if not matching:
            raise PolyampError(f"--midi: no file is called {part!r} or matches it.")
        paths += matching
    return list(dict.fromkeys(paths))


def read_stems(path: Path) -> list[Stem]:
    """The instruments of a MIDI file; `PolyampError` if it cannot be read."""
    try:
        midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_tracks.as_played(path.read_bytes())))
    except Exception as error:  # pretty_midi and mido raise whatever comes up.
        raise PolyampError(f"{path}: is not a usable MIDI file ({str(error) or 'it ends too soon'}).") from error
    stems = []
    for instrument in midi.instruments:
        rows = [(note.start, note.end, note.pitch, note.velocity) for note in instrument.notes]
        controls = [(c.time, c.number, c.value) for c in instrument.control_changes if c.number in _KEPT_CONTROLLERS]
        if rows:
            stems.append(Stem(instrument.name, instrument.program, instrument.is_drum, sorted(rows), sorted(controls)))
    return stems


def excerpt(stems: list[Stem], seconds: float, rng: np.random.Generator) -> list[Stem]:
    """The notes that begin in a random stretch of that length, moved to its start; all for 0 seconds.

    Silence before the first note is cut to a second: some recorded performances begin after half an hour of it.
    """
    onsets = [note[0] for stem in stems for note in stem.notes]
    if not onsets:
        return stems
    first = max(0.0, min(onsets) - 1.0)
    end = max(note[1] for stem in stems for note in stem.notes)
    if not 0 < seconds < end - first:
        if first == 0.0:
            return stems
        start, seconds = first, end - first + 2 * _SHORTEST
    else:
        start = rng.uniform(first, end - seconds)
        if not any(start <= onset < start + seconds - _SHORTEST for onset in onsets):  # In a long pause.
            start = min((onset for onset in onsets if onset >= start), default=max(onsets))
    cut = []
    for stem in stems:
        rows = [
            (on - start, min(off - start, seconds), pitch, velocity)
            for on, off, pitch, velocity in stem.notes
            if start <= on < start + seconds - _SHORTEST
        ]
        controls = [(max(0.0, t - start), number, value) for t, number, value in stem.controls if t < start + seconds]
        # Of the controllers before the stretch only their last values count.
        last = {number: (0.0, number, value) for t, number, value in controls if t == 0.0}
        controls = [*last.values(), *(control for control in controls if control[0] > 0.0), (seconds, 64, 0)]
        if rows:
            cut.append(dataclasses.replace(stem, notes=rows, controls=controls))
    return cut


def transposed(stems: list[Stem], semitones: int) -> list[Stem]:
    return [
        stem
        if stem.is_drum
        else dataclasses.replace(
            stem, notes=[(on, off, pitch + semitones, v) for on, off, pitch, v in stem.notes if 0 <= pitch + semitones <= 127]
        )
        for stem in stems
    ]


def articulated(stem: Stem, rng: np.random.Generator) -> Stem:
    """The stem played in another way: short notes, notes struck again and again, or notes held until the next ones.

    How long notes are must not give away what plays them: any instrument may have any part.
    """
    manner = rng.choice(["short", "repeated", "held"])
    if manner == "short":
        longest = rng.uniform(0.06, 0.25)  # Seconds.
        rows = [(on, min(off, on + longest), pitch, velocity) for on, off, pitch, velocity in stem.notes]
    elif manner == "repeated":
        period, sounding = rng.uniform(0.1, 0.3), rng.uniform(0.6, 1.0)
        rows = []
        for on, off, pitch, velocity in stem.notes:
            times = on + period * np.arange(max(1, int((off - on) / period)))
            rows += [(float(t), float(t + period * sounding), pitch, velocity) for t in times]
        rows = _without_overlaps(rows)
    else:
        onsets = np.unique([on for on, *_ in stem.notes])
        longest = rng.uniform(0.5, 4.0)
        following = dict(zip(onsets[:-1], onsets[1:], strict=True))
        rows = [(on, max(off, min(following.get(on, off), on + longest)), p, v) for on, off, p, v in stem.notes]
        rows = _without_overlaps(rows)
    return dataclasses.replace(stem, notes=sorted(rows))


def _without_overlaps(rows: list[tuple[float, float, int, int]]) -> list[tuple[float, float, int, int]]:
    """Each note ends where the next one of its pitch begins, if not before."""
    kept, begins = [], dict[int, float]()
    for on, off, pitch, velocity in sorted(rows, reverse=True):
        off = min(off, begins.get(pitch, off))
        if off > on:
            kept.append((on, off, pitch, velocity))
            begins[pitch] = on
    return kept


# SoundFont generators that FluidSynth lets a MIDI file change: number, cents (timecents) a unit.
_CUTOFF, _VIBRATO, _ATTACK, _RELEASE, _TUNING = (8, 2), (6, 1), (34, 2), (38, 2), (52, 1)


def altered(stem: Stem, rng: np.random.Generator) -> Stem:
    """The stem with another sound than the preset's own: duller, slower, wavering, fading longer or out of tune, by chance.

    By NRPN messages 120 of FluidSynth, which add to the preset's generators.
    """
    controls = _generator(_TUNING, rng.normal(0.0, 7.0))
    if rng.random() < 0.5:
        controls += _generator(_CUTOFF, rng.uniform(-4800.0, 0.0))  # A filter that is wide open is at 13,500.
    if rng.random() < 0.25:
        controls += _generator(_ATTACK, 1200 * np.log2(rng.uniform(0.01, 0.15) / 0.001))
    if rng.random() < 0.5:
        controls += _generator(_RELEASE, rng.uniform(-1200.0, 1800.0))
    if rng.random() < 0.2:
        controls += _generator(_VIBRATO, rng.uniform(5.0, 30.0))
    return dataclasses.replace(stem, controls=[*controls, *stem.controls])


def _generator(generator: tuple[int, int], amount: float) -> list[tuple[float, int, int]]:
    """Messages at time 0 that add `amount` to a generator of the channel: rows of (time, controller, value)."""
    number, unit = generator
    value = int(np.clip(8192 + round(amount / unit), 0, 16_383))
    return [(0.0, 99, 120), (0.0, 98, number), (0.0, 38, value % 128), (0.0, 6, value // 128)]


def write_stem(stem: Stem, sound: Sound, path: Path) -> None:
    """A MIDI file of one stem, played with that preset."""
    rate = 2 * 480  # Ticks per second at the default tempo of 120.
    channel = 9 if stem.is_drum else 0
    events: list[tuple[float, int, mido.Message]] = []
    for on, off, pitch, velocity in stem.notes:
        events.append((on, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        events.append((max(off, on + 0.002), 1, mido.Message("note_off", channel=channel, note=pitch)))
    for time, number, value in stem.controls:
        events.append((time, 0, mido.Message("control_change", channel=channel, control=number, value=value)))
    track = mido.MidiTrack()
    if not stem.is_drum:
        track.append(mido.Message("control_change", channel=channel, control=0, value=min(sound.bank, 127)))
    track.append(mido.Message("program_change", channel=channel, program=sound.program))
    now = 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):
        tick = round(time * rate)
        track.append(message.copy(time=max(0, tick - now)))
        now = max(now, tick)
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    midi.tracks.append(track)
    midi.save(str(path))
