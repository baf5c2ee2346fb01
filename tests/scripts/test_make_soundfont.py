"""`scripts/make_soundfont.py`: what is in its files, read by hand and by FluidSynth."""

import dataclasses
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyamp.rendering import fluidsynth, players, soundfonts, stems

RECORD_SIZES = {"phdr": 38, "pbag": 4, "pmod": 10, "pgen": 4, "inst": 22, "ibag": 4, "imod": 10, "igen": 4, "shdr": 46}
ROOT_KEY, KEY_RANGE, VELOCITY_RANGE, RELEASE, SAMPLE_ID = 58, 43, 44, 38, 53  # SoundFont 2.04, section 8.1.2.


def _tone(path: Path, pitch: int, seconds: float = 1.0, silence: float = 0.0, amplitude: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(round(16_000 * seconds)) / 16_000)
    soundfile.write(path, np.concatenate([np.zeros(round(16_000 * silence)), wave]), 16_000)


def _chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The chunks of RIFF data, those of lists one after the other."""
    while data:
        name, (size,) = data[:4].decode(), struct.unpack("<I", data[4:8])
        body, data = data[8 : 8 + size], data[8 + size + size % 2 :]
        if name in ("RIFF", "LIST"):
            yield from _chunks(body[4:])
        else:
            yield name, body


def _records(path: Path) -> dict[str, list[bytes]]:
    """The tables of a SoundFont; "smpl" is one record."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF" and data[8:12] == b"sfbk" and struct.unpack("<I", data[4:8])[0] == len(data) - 8
    tables = {}
    for name, body in _chunks(data):
        size = RECORD_SIZES.get(name, len(body))
        assert len(body) % size == 0, name
        tables[name] = [body[at : at + size] for at in range(0, len(body), size)]
    return tables


def _zones(tables: dict[str, list[bytes]]) -> list[dict[int, bytes]]:
    """The generators of each zone of all instruments."""
    bounds = [struct.unpack("<HH", bag)[0] for bag in tables["ibag"]]
    generators = [struct.unpack("<H2s", generator) for generator in tables["igen"]]
    return [dict(generators[start:end]) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]


def test_layers_of_one_instrument(load: Callable, tmp_path: Path):
    for pitch, name in ((57, "A3"), (61, "C#4"), (69, "A4")):
        for layer, amplitude in ((3, 0.1), (12, 0.5)):
            _tone(tmp_path / "in" / f"{name}v{layer}.wav", pitch, seconds=0.1, amplitude=amplitude)
    output = tmp_path / "piano.sf2"
    pattern = r"(?P<pitch>[A-G]#?\d)v(?P<layer>\d+)"
    settings = {"samples": f"{tmp_path}/in/*.wav", "pattern": pattern, "name": "Grand", "program": 3, "output": output}
    script, _ = load("make_soundfont", **settings)
    assert script.main(["make_soundfont"]) == 0
    tables = _records(output)

    preset, end = (struct.unpack("<20sHHHIII", record) for record in tables["phdr"])
    assert (preset[0].rstrip(b"\0"), *preset[1:4]) == (b"Grand", 3, 0, 0) and end[0].rstrip(b"\0") == b"EOP"
    assert len(tables["inst"]) == 2 and len(tables["ibag"]) == 7 and len(tables["shdr"]) == 7
    zones = _zones(tables)
    found = {}
    for zone in zones:
        assert list(zone)[0] == KEY_RANGE and list(zone)[-1] == SAMPLE_ID  # The format wants this order.
        header = struct.unpack("<20sIIIIIBbHH", tables["shdr"][struct.unpack("<H", zone[SAMPLE_ID])[0]])
        assert header[5:7] == (16_000, struct.unpack("<H", zone[ROOT_KEY])[0]) and header[9] == 1
        assert struct.unpack("<h", zone[RELEASE])[0] == -2400  # A quarter of a second, in timecents.
        samples = np.frombuffer(tables["smpl"][0], "<i2")[header[1] : header[2]]
        assert len(samples) == 1_600 and not np.frombuffer(tables["smpl"][0], "<i2")[header[2] : header[2] + 46].any()
        key, velocity = tuple(zone[KEY_RANGE]), tuple(zone[VELOCITY_RANGE])
        found[key, velocity] = (header[6], round(float(np.abs(samples).max()) / 32_767, 2))
    soft, loud = (1, 63), (64, 127)
    assert found == {
        ((51, 59), soft): (57, 0.1),
        ((60, 65), soft): (61, 0.1),
        ((66, 75), soft): (69, 0.1),
        ((51, 59), loud): (57, 0.5),
        ((60, 65), loud): (61, 0.5),
        ((66, 75), loud): (69, 0.5),
    }


def _manifest(folder: Path) -> Path:
    rows = ["file,family,instrument,source,pitch,onset_s"]
    for family, instrument, pitch in (("flute", "flute", 72), ("flute", "bass flute", 60), ("reed", "oboe", 70)):
        _tone(folder / f"{instrument}.wav", pitch, silence=0.25)
        rows.append(f"{instrument}.wav,{family},{instrument},here,{pitch},0.25")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder / "manifest.csv"


def test_instruments_of_a_manifest_become_presets_of_their_family(load: Callable, tmp_path: Path):
    output = tmp_path / "notes.sf2"
    script, _ = load("make_soundfont", manifest=_manifest(tmp_path), output=output)
    assert script.main(["make_soundfont"]) == 0
    tables = _records(output)
    presets = [struct.unpack("<20sHHHIII", record) for record in tables["phdr"][:-1]]
    # Flutes are program 73 and reeds 71, the second flute in the next bank.
    assert [(preset[0].rstrip(b"\0").decode(), *preset[1:3]) for preset in presets] == [
        ("here flute", 73, 0),
        ("here bass flute", 73, 1),
        ("here oboe", 71, 0),
    ]
    first = struct.unpack("<20sIIIIIBbHH", tables["shdr"][0])
    assert first[2] - first[1] == 16_000  # Without the silence before the attack.
    assert [(sound.bank, sound.program) for sound in soundfonts.read_presets(output)] == [(0, 71), (0, 73), (1, 73)]


def test_note_names_and_numbers(load: Callable):
    script, _ = load("make_soundfont", output="x")
    named = {"C4": 60, "A4": 69, "C-1": 0, "F#2": 42, "B3": 59, "A0": 21, "64": 64}
    assert {name: script.midi_pitch(name) for name in named} == named


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --samples or --manifest"),
        ({"samples": "{folder}/absent*.wav"}, "no such files"),
        ({"samples": "{folder}/*.wav", "pattern": "x(?P<pitch>9)"}, "--pattern finds no pitch"),
        ({"samples": "{folder}/*.wav", "pattern": "(?P<pitch>"}, "no regular expression"),
        ({"samples": "{folder}/*.wav", "pattern": "[A-G]"}, "has no group for the pitch"),
        ({"samples": "{folder}/*.wav", "pattern": "(?P<pitch>[a-z])"}, "which is no pitch and layer"),
        ({"samples": "{folder}/*.wav", "pattern": "(?P<pitch>)"}, "which is no pitch and layer"),
        ({"samples": "{folder}/*.wav", "pattern": r"(?P<pitch>\d\d\d\d)?"}, "which is no pitch and layer"),
        ({"manifest": "{folder}/absent.csv"}, "no table of recorded notes"),
        ({"manifest": "{folder}/manifest.csv", "output": "{folder}/absent/x.sf2"}, "cannot be written"),
    ],
)
def test_problems_are_one_line_errors(
    load: Callable, tmp_path: Path, settings: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
):
    _manifest(tmp_path)
    before = sorted(tmp_path.iterdir())
    given = {"output": "{folder}/x.sf2"} | settings
    script, _ = load("make_soundfont", **{name: value.format(folder=tmp_path) for name, value in given.items()})
    assert script.main(["make_soundfont"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("", "lists no notes"),
        ("oboe.wav,reed,oboe,here,70,nan", "begins at nan s"),
        ("oboe.wav,reed,oboe,here,70,-1", "begins at -1.0 s"),
        ("oboe.wav,drum,oboe,here,70,0", "is of family 'drum'"),
        ("oboe.wav,reed,oboe,here,300,0", "no table of recorded notes"),
        ("oboe.wav,reed,oboe,here,28.5,0", "no table of recorded notes"),
        ("oboe.wav,reed", "no table of recorded notes"),
        ("oboe.wav,reed,oboe,here,70,100", "ends before 100 s"),
        (f"{'x' * 200_000},reed,oboe,here,70,0", "no table of recorded notes"),
        ("\n".join(f"oboe.wav,reed,oboe {number},here,70,0" for number in range(129)), "more than 128 instruments"),
    ],
)
def test_bad_rows_of_a_manifest_are_one_line(
    load: Callable, tmp_path: Path, row: str, message: str, capsys: pytest.CaptureFixture[str]
):
    manifest = _manifest(tmp_path)
    manifest.write_text(f"file,family,instrument,source,pitch,onset_s\n{row}\n")
    script, _ = load("make_soundfont", manifest=manifest, output=tmp_path / "x.sf2")
    assert script.main(["make_soundfont"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line and not (tmp_path / "x.sf2").exists()


def _frequency(samples: np.ndarray) -> float:
    """Hz between 100 and 1,000, by the first peak of the autocorrelation, in steps of a sixteenth of a sample at 16 kHz."""
    power = np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2
    correlation = np.fft.irfft(power, 16 * 2 * len(samples))
    lags = np.arange(16 * 16, 16 * 160)  # Sixteenths of a sample.
    return 16_000 * 16 / float(lags[np.argmax(correlation[lags])])


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="fluidsynth is not installed")
def test_fluidsynth_plays_it_at_the_right_pitch(load: Callable, tmp_path: Path):
    output = tmp_path / "notes.sf2"
    script, _ = load("make_soundfont", manifest=_manifest(tmp_path), output=output)
    assert script.main(["make_soundfont"]) == 0
    midi = tmp_path / "note.mid"
    for bank, pitch in ((0, 75), (1, 57)):  # Three semitones above the flute and below the bass flute.
        stem = stems.Stem("", 73, False, [(0.5, 1.0, pitch, 100)], [])
        stems.write_stem(stem, soundfonts.Sound(output, bank, 73), midi)
        samples = fluidsynth.render(midi, output, room=False, name="note", timeout=60.0)
        attack = np.flatnonzero(np.abs(samples) > 0.2 * np.abs(samples).max())[0] / 16_000
        assert attack == pytest.approx(0.5, abs=0.02)
        assert 69 + 12 * np.log2(_frequency(samples[9_000:14_000]) / 440) == pytest.approx(pitch, abs=0.2)


@pytest.fixture
def short(load: Callable, tmp_path: Path) -> soundfonts.Sound:
    """A piano of one recorded note, A4, of 0.6 s."""
    _tone(tmp_path / "in" / "A4.wav", 69, seconds=0.6)
    output = tmp_path / "short.sf2"
    settings = {"samples": tmp_path / "in" / "*.wav", "pattern": r"(?P<pitch>[A-G]#?\d)", "output": output}
    assert load("make_soundfont", **settings)[0].main(["make_soundfont"]) == 0
    (sound,) = soundfonts.read_presets(output)
    return sound


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="fluidsynth is not installed")
def test_notes_last_as_long_as_fluidsynth_plays_them(short: soundfonts.Sound, tmp_path: Path):
    for pitch in (min(short.keys), 69, max(short.keys)):
        stems.write_stem(stems.Stem("", 0, False, [(0.5, 4.0, pitch, 100)], []), short, tmp_path / "note.mid")
        samples = fluidsynth.render(tmp_path / "note.mid", short.soundfont, room=False, name="note", timeout=60.0)
        sounding = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max()) / 16_000
        assert sounding[-1] - 0.5 == pytest.approx(short.lasting[pitch], abs=0.02), pitch
    assert short.lasting[69] == pytest.approx(0.6) and short.lasting[72] == pytest.approx(0.6 / 2 ** (3 / 12))


def test_labels_are_no_longer_than_notes_that_end_by_themselves(short: soundfonts.Sound, tmp_path: Path):
    rows = [(0.0, 0.2, 69, 90), (1.0, 3.0, 69, 90), (1.0, 3.0, 72, 90)]
    held = stems.Stem("piano", 0, False, rows, [(0.0, 64, 127), (0.0, 7, 90)])
    endless = dataclasses.replace(short, lasting=(math.inf,) * 128)
    for sound, offsets, controls in (
        (short, [0.2, 1.6, 1.0 + 0.6 / 2 ** (3 / 12)], [(0.0, 7, 90)]),
        (endless, [0.2, 3.0, 3.0], held.controls),
    ):
        player = players.Player(tmp_path / "a.mid", [sound], players.Settings(substitute=0.0), np.random.default_rng(0))
        prepared = player.prepared(held)
        assert prepared is not None and prepared[0] == sound
        assert [off for _, off, *_ in prepared[1].notes] == pytest.approx(offsets) and prepared[1].controls == controls
