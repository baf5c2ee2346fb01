"""What a SoundFont (version 2 or 3) offers: presets and the keys at which they sound."""

import dataclasses
import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

from polyamp.errors import PolyampError

DRUM_BANK = 128

_KEY_RANGE = 43  # The generator that says at which keys a zone plays (SoundFont 2.04, section 8.1.2).


@dataclasses.dataclass(frozen=True)
class Sound:
    """One preset of a SoundFont, and the MIDI pitches at which it sounds."""

    soundfont: Path
    bank: int
    program: int
    keys: frozenset[int] = frozenset(range(128))

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
            [bag for _, bag in struct.iter_unpack("<20sH", tables["inst"])], tables["ibag"], tables["igen"], 53
        )
        presets = _zones([header[3] for header in headers], tables["pbag"], tables["pgen"], 41)
        found = []
        for (_, program, bank, *_), zones in zip(headers[:-1], presets, strict=True):
            keys = frozenset(k for index, outer in zones for _, inner in instruments[index] for k in outer if k in inner)
            found.append(Sound(path, bank, program, keys))
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise PolyampError(f"{path}: is no SoundFont that can be read.") from error
    return sorted((sound for sound in found if sound.keys), key=lambda sound: (sound.bank, sound.program))


def _zones(first: Sequence[int], bags: bytes, generators: bytes, link: int) -> list[list[tuple[int, range]]]:
    """The zones of each preset or instrument: what they play, and at which keys.

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
        zones, default = [], (0, 127)
        for zone in range(start, end):
            held = {number: (low, high) for number, low, high in all_generators[begins[zone] : begins[zone + 1]]}
            low, high = held.get(_KEY_RANGE, default)
            if link in held:
                zones.append((held[link][0] + 256 * held[link][1], range(low, high + 1)))
            elif zone == start:
                default = (low, high)
        owners.append(zones)
    return owners
