"""What a SoundFont (version 2 or 3) offers: presets, the keys at which they sound, and for how long they can."""

import dataclasses
import itertools
import math
import struct
from collections.abc import Sequence
from pathlib import Path

from polyamp.errors import PolyampError

DRUM_BANK = 128

# Generators (SoundFont 2.04, section 8.1.2): at which keys a zone plays, which instrument or sample that is, whether the sample
# goes round in a loop, and which pitch it has.
_KEY_RANGE, _INSTRUMENT, _SAMPLE = 43, 41, 53
_MODES, _ROOT, _SCALE, _SEMITONES, _CENTS = 54, 58, 56, 51, 52
_START, _START_COARSE, _END, _END_COARSE, _COARSE = 0, 4, 1, 12, 32_768  # Where it begins and ends, to be added.
_FARTHEST = 10 * 1200  # Cents from the sample's own pitch; more is damage.
_LOOPS = 1  # Bit of the mode.
_COMPRESSED = 0x10  # Bit of a sample's type, in version 3.
_PITCHES = 128
_UNSET = 0xFFFF

_Zone = dict[int, tuple[int, int]]  # The two bytes of each generator.


@dataclasses.dataclass(frozen=True)
class Sound:
    """One preset of a SoundFont.

    Attributes:
        keys: MIDI pitches at which it sounds.
        lasting: For how many seconds at most, of each of the 128 pitches: as long as its samples where these are played once,
            infinite where they go round.
    """

    soundfont: Path
    bank: int
    program: int
    keys: frozenset[int] = frozenset(range(_PITCHES))
    lasting: tuple[float, ...] = (math.inf,) * _PITCHES

    @property
    def is_melodic(self) -> bool:
        """Whether it is a preset of one of the programs of General MIDI, and no drums."""
        return self.bank != DRUM_BANK and self.program < 128


def read_presets(path: Path) -> list[Sound]:
    """The presets of a SoundFont (2 or 3), in the order of bank and program.

    Raises:
        PolyampError: The file is no SoundFont.
    """
    try:
        data = path.read_bytes()
        at = data.rindex(b"phdr")  # After all samples; the other tables follow.
        tables: dict[str, bytes] = {}
        while len(tables) < 9:
            name, size = struct.unpack_from("<4sI", data, at)
            tables[name.decode("ascii")] = data[at + 8 : at + 8 + size]
            at += 8 + size + size % 2
        headers = list(struct.iter_unpack("<20sHHHIII", tables["phdr"]))
        instruments = _zones(
            [bag for _, bag in struct.iter_unpack("<20sH", tables["inst"])], tables["ibag"], tables["igen"], _SAMPLE
        )
        presets = _zones([header[3] for header in headers], tables["pbag"], tables["pgen"], _INSTRUMENT)
        samples = list(struct.iter_unpack("<20sIIIIIBbHH", tables["shdr"]))
        found = []
        for (_, program, bank, *_), zones in zip(headers[:-1], presets, strict=True):
            lasting: dict[int, float] = {}
            for zone in zones:
                for inner in instruments[_number(zone, _INSTRUMENT)]:
                    for key in _keys(zone) & _keys(inner):
                        seconds = _seconds(inner, zone, samples[_number(inner, _SAMPLE)], key)
                        lasting[key] = max(lasting.get(key, 0.0), seconds)
            of_keys = tuple(lasting.get(key, math.inf) for key in range(_PITCHES))
            found.append(Sound(path, bank, program, frozenset(lasting), of_keys))
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise PolyampError(f"{path}: is no SoundFont that can be read.") from error
    return sorted((sound for sound in found if sound.keys), key=lambda sound: (sound.bank, sound.program))


def _number(zone: _Zone, generator: int, default: int = 0) -> int:
    """The value of a generator, unsigned."""
    low, high = zone.get(generator, (default & 0xFF, default >> 8))
    return low + 256 * high


def _signed(zone: _Zone, generator: int) -> int:
    value = _number(zone, generator)
    return value - 0x1_0000 if value >= 0x8000 else value


def _keys(zone: _Zone) -> set[int]:
    low, high = zone.get(_KEY_RANGE, (0, _PITCHES - 1))
    return set(range(low, high + 1))


def _seconds(zone: _Zone, of_preset: _Zone, sample: tuple, key: int) -> float:
    """How long an instrument's zone in a preset's sounds at a key, which the sample's rate follows; infinite if untold."""
    _, start, end, _, _, rate, pitch, correction, _, kind = sample
    start += _signed(zone, _START) + _COARSE * _signed(zone, _START_COARSE)
    end += _signed(zone, _END) + _COARSE * _signed(zone, _END_COARSE)
    if _number(zone, _MODES) & _LOOPS or kind & _COMPRESSED or not rate or end <= start:
        return math.inf
    root = next((number for number in (_number(zone, _ROOT, _UNSET), pitch) if number < _PITCHES), 60)  # As players have it.
    cents = (key - root) * _number(zone, _SCALE, 100) + correction
    cents += sum(100 * _signed(one, _SEMITONES) + _signed(one, _CENTS) for one in (zone, of_preset))
    return (end - start) / rate / 2 ** (max(-_FARTHEST, min(cents, _FARTHEST)) / 1200)


def _zones(first: Sequence[int], bags: bytes, generators: bytes, link: int) -> list[list[_Zone]]:
    """The zones of each preset or instrument that play something.

    Args:
        first: Number of the first zone of each, and of the one after the last.
        bags: For each zone where its generators begin.
        generators: All of them.
        link: The generator that says which instrument (41) or sample (53) a zone plays; without it, a first zone gives
            defaults to the others.
    """
    all_generators = list(struct.iter_unpack("<HBB", generators))
    begins = [begin for begin, _ in struct.iter_unpack("<HH", bags)]
    owners = []
    for start, end in itertools.pairwise(first):
        zones: list[_Zone] = []
        default: _Zone = {}
        for zone in range(start, end):
            held = {number: (low, high) for number, low, high in all_generators[begins[zone] : begins[zone + 1]]}
            if link in held:
                zones.append(default | held)
            elif zone == start:
                default = held
        owners.append(zones)
    return owners
