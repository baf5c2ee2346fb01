r"""Makes a SoundFont 2 file out of recorded single notes, so that MIDI can be rendered with real instruments.

    python scripts/make_soundfont.py --samples='piano/*.ogg' --name='Salamander' --output=salamander.sf2 \
        --pattern='(?P<pitch>[A-G]#?\d)v(?P<layer>\d+)'
    python scripts/make_soundfont.py --manifest=notes/manifest.csv --output=notes.sf2

With --samples all files are one instrument, General MIDI program 0 (or --program). --pattern, a regular expression searched in
the file's name, says pitch (a note name such as `D#4`, or a MIDI number) and, if there are several, the layer: a number that
rises with loudness. With --manifest each instrument of the table (columns file, family, instrument, source, pitch, onset_s)
becomes a preset: the first of its family at bank 0 under the family's usual program, further ones in the following banks.
"""

import csv
import dataclasses
import math
import re
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

_SAMPLES = flags.DEFINE_string("samples", None, "Recorded notes of one instrument: a glob.")
_MANIFEST = flags.DEFINE_string("manifest", None, "Table of recorded notes of many instruments (csv).")
_PATTERN = flags.DEFINE_string("pattern", r"(?P<pitch>[A-G]#?-?\d)", "Regular expression for pitch and layer in a file's name.")
_PROGRAM = flags.DEFINE_integer("program", 0, "General MIDI program of --samples.", lower_bound=0, upper_bound=127)
_NAME = flags.DEFINE_string("name", "recorded", "What the instrument of --samples is called.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)
_RELEASE = flags.DEFINE_float("release", 0.25, "Seconds in which a released note fades.", lower_bound=0.001, upper_bound=100.0)

_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_PADDING = 46  # Silent samples that the format wants after each sample.
_LAST_BANK = 127  # The next is for percussion.
_FURTHEST = 6  # Semitones by which a sample is transposed at most.

# Generators (SoundFont 2.04, section 8.1.2).
_RELEASE_TIME, _INSTRUMENT, _KEY_RANGE, _VELOCITY_RANGE, _SAMPLE, _ROOT_KEY = 38, 41, 43, 44, 53, 58


@dataclasses.dataclass(frozen=True)
class Sample:
    """One recorded note: where it is, how high, and which of the layers of loudness it belongs to."""

    path: Path
    pitch: int
    layer: int = 0
    start: float = 0.0  # Seconds of silence before the attack.


@dataclasses.dataclass(frozen=True)
class Preset:
    """One instrument."""

    name: str
    program: int
    bank: int
    samples: list[Sample]


def main(argv: Sequence[str]) -> int:
    """Writes the SoundFont; 1 with one line on stderr if it cannot be."""
    return startup.run_script(argv, _run)


def _run() -> None:
    from polyamp.atomic import replacing
    from polyamp.errors import PolyampError

    if _SAMPLES.value and not _MANIFEST.value:
        presets = [_preset_of_glob(_SAMPLES.value)]
    elif _MANIFEST.value and not _SAMPLES.value:
        presets = _presets_of_manifest(Path(_MANIFEST.value))
    else:
        raise PolyampError("give --samples or --manifest, one of them.")
    try:
        with replacing(_OUTPUT.value) as temporary:
            temporary.write_bytes(soundfont(presets))
    except struct.error as error:
        raise PolyampError("these are more notes than a SoundFont can hold; make several files.") from error
    except OSError as error:
        raise PolyampError(f"{_OUTPUT.value}: cannot be written ({error.strerror}).") from error
    logging.info("%s: %d presets, %d samples", _OUTPUT.value, len(presets), sum(len(preset.samples) for preset in presets))


def _preset_of_glob(pattern: str) -> Preset:
    from polyamp import globs
    from polyamp.errors import PolyampError

    try:
        expression = re.compile(_PATTERN.value)
    except re.error as error:
        raise PolyampError(f"--pattern={_PATTERN.value}: no regular expression ({error}).") from error
    if "pitch" not in expression.groupindex:
        raise PolyampError(f"--pattern={_PATTERN.value}: has no group for the pitch, (?P<pitch>...).")
    samples = []
    for path in map(Path, globs.matching(pattern)):
        found = expression.search(path.name)
        if not found:
            raise PolyampError(f"{path}: --pattern finds no pitch in this name.")
        try:
            pitch, layer = midi_pitch(found["pitch"]), int(found.groupdict().get("layer") or 0)
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise PolyampError(f"{path}: --pattern finds {found.groupdict()}, which is no pitch and layer.") from error
        samples.append(Sample(path, pitch, layer))
    if not samples:
        raise PolyampError(f"--samples={pattern}: no such files.")
    return Preset(_NAME.value, _PROGRAM.value, 0, samples)


def _presets_of_manifest(manifest: Path) -> list[Preset]:
    from polyamp import constants
    from polyamp.errors import DataError

    groups: dict[tuple[str, str, str], list[Sample]] = {}
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                key = (row["family"], row["instrument"], row["source"])
                start = float(row["onset_s"])
                if row["family"] not in constants.FAMILIES or not 0 <= start < math.inf:
                    raise DataError(f"{manifest}: {row['file']} is of family {row['family']!r} and begins at {start} s.")
                sample = Sample(manifest.parent / row["file"], midi_pitch(row["pitch"]), start=start)
                groups.setdefault(key, []).append(sample)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, csv.Error) as error:
        raise DataError(
            f"{manifest}: no table of recorded notes (file, family, instrument, source, pitch, onset_s)."
        ) from error
    if not groups:
        raise DataError(f"{manifest}: lists no notes.")
    presets: list[Preset] = []
    for (family, instrument, source), samples in groups.items():
        program = constants.FAMILY_PROGRAMS[constants.FAMILIES.index(family)]
        bank = sum(preset.program == program for preset in presets)
        if bank > _LAST_BANK:
            raise DataError(
                f"{manifest}: has more than {_LAST_BANK + 1} instruments of the family {family!r}; make several files."
            )
        presets.append(Preset(f"{source} {instrument}", program, bank, samples))
    return presets


def midi_pitch(text: str) -> int:
    """The MIDI pitch of a note name (C4 is 60) or of a number; `ValueError`, `KeyError` or `IndexError` for other text."""
    if text.lstrip("-").isdigit():
        pitch = int(text)
    else:
        sharp = text[1] == "#"
        pitch = 12 * (int(text[1 + sharp :]) + 1) + _STEPS[text[0]] + sharp
    if not 0 <= pitch <= 127:
        raise ValueError(f"{text}: {pitch} is no MIDI pitch.")
    return pitch


def soundfont(presets: Sequence[Preset]) -> bytes:
    """A SoundFont 2.01 file (https://www.synthfont.com/sfspec24.pdf) with these presets."""
    from polyamp import constants
    from polyamp.audio import reading
    from polyamp.errors import DataError

    audio, headers, zones_of = [], [], []
    position, rate = 0, constants.SAMPLE_RATE
    for preset in presets:
        zones = []
        for sample, key_range, velocity_range in zones_over(preset.samples):
            samples = reading.read(sample.path)[round(sample.start * rate) :]
            if not len(samples):
                raise DataError(f"{sample.path}: ends before {sample.start:g} s, where its note should begin.")
            pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
            end = position + len(pcm)
            headers.append(_sample_header(sample.path.stem, position, end, rate, sample.pitch))
            audio += [pcm, np.zeros(_PADDING, "<i2")]
            position = end + _PADDING
            zones.append((key_range, velocity_range, sample.pitch, len(headers) - 1))
        zones_of.append(zones)
    headers.append(_sample_header("EOS", 0, 0, 0, 0))
    info = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"isng", b"EMU8000\0") + _chunk(b"INAM", b"PolyAMP samples\0")
    body = _list(b"INFO", info) + _list(b"sdta", _chunk(b"smpl", np.concatenate(audio).tobytes()))
    return _riff(body + _list(b"pdta", _hydra(presets, zones_of) + _chunk(b"shdr", b"".join(headers))))


def zones_over(samples: Iterable[Sample]) -> list[tuple[Sample, tuple[int, int], tuple[int, int]]]:
    """Each sample with the keys and the velocities that it serves: those nearest to it, both ends included.

    The layers share the velocities 1 to 127 equally. Of several samples of one pitch and layer the first is taken.
    """
    samples = list(samples)
    layers = sorted({sample.layer for sample in samples})
    zones = []
    for number, layer in enumerate(layers):
        velocities = (127 * number // len(layers) + 1, 127 * (number + 1) // len(layers))
        pitches: dict[int, Sample] = {}
        for sample in samples:
            if sample.layer == layer:
                pitches.setdefault(sample.pitch, sample)
        ordered = sorted(pitches)
        for index, pitch in enumerate(ordered):
            low = (ordered[index - 1] + pitch) // 2 + 1 if index else 0
            high = (pitch + ordered[index + 1]) // 2 if index + 1 < len(ordered) else 127
            keys = (max(low, pitch - _FURTHEST), min(high, pitch + _FURTHEST))
            zones.append((pitches[pitch], keys, velocities))
    return zones


def _hydra(presets: Sequence[Preset], zones_of: Sequence[list]) -> bytes:
    """The tables of presets and instruments, each ended by one record more, as the format wants it."""
    release = round(1200 * np.log2(_RELEASE.value))
    phdr, pbag, pgen, inst, ibag, igen = (bytearray() for _ in range(6))
    num_zones = num_generators = 0
    for index, (preset, zones) in enumerate(zip(presets, zones_of, strict=True)):
        phdr += struct.pack("<20sHHHIII", _name(preset.name), preset.program, preset.bank, index, 0, 0, 0)
        pbag += struct.pack("<HH", index, 0)
        pgen += struct.pack("<HH", _INSTRUMENT, index)
        inst += struct.pack("<20sH", _name(preset.name), num_zones)
        for keys, velocities, root, sample in zones:
            ibag += struct.pack("<HH", num_generators, 0)
            igen += struct.pack("<HBB", _KEY_RANGE, *keys) + struct.pack("<HBB", _VELOCITY_RANGE, *velocities)
            igen += struct.pack("<Hh", _RELEASE_TIME, release) + struct.pack("<HH", _ROOT_KEY, root)
            igen += struct.pack("<HH", _SAMPLE, sample)
            num_zones += 1
            num_generators += 5
    phdr += struct.pack("<20sHHHIII", b"EOP", 0, 0, len(presets), 0, 0, 0)
    pbag += struct.pack("<HH", len(presets), 0)
    inst += struct.pack("<20sH", b"EOI", num_zones)
    ibag += struct.pack("<HH", num_generators, 0)
    pmod = imod = bytes(10)
    tables = {b"phdr": phdr, b"pbag": pbag, b"pmod": pmod, b"pgen": pgen + bytes(4)}
    tables |= {b"inst": inst, b"ibag": ibag, b"imod": imod, b"igen": igen + bytes(4)}
    return b"".join(_chunk(name, bytes(table)) for name, table in tables.items())


def _sample_header(name: str, start: int, end: int, rate: int, pitch: int) -> bytes:
    return struct.pack("<20sIIIIIBbHH", _name(name), start, end, start, end, rate, pitch, 0, 0, 1 if end else 0)


def _name(text: str) -> bytes:
    return text.encode("ascii", "replace")[:19]


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)


def _riff(data: bytes) -> bytes:
    return _chunk(b"RIFF", b"sfbk" + data)


if __name__ == "__main__":
    startup.run(main)
