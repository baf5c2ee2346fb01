"""`scripts/render_midi.py`: with a synthesiser of our own in FluidSynth's place, and where it is installed with FluidSynth."""

import collections
import dataclasses
import errno
import json
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile
import yaml

from polyamp import constants
from polyamp.data import note_files, sources
from polyamp.errors import PolyampError
from polyamp.rendering import fluidsynth, players, soundfonts, stems, tracks

Row = tuple[float, float, int, int]  # Onset, offset, pitch, velocity.
SOUNDS = [(0, 0), (0, 4), (0, 33), (0, 39), (8, 0), (0, 73), (128, 0)]  # Bank and program.
BASS = (33, False, [(0.5, 1.0, 40, 90), (1.0, 1.5, 43, 80)])
PIANO = (0, False, [(0.25, 1.75, 60, 64)])
DRUMS = (0, True, [(0.0, 0.1, 36, 100)])


def _soundfont(path: Path, sounds: list[tuple[int, int]], keys: tuple[int, int] = (0, 127)) -> Path:
    """A SoundFont without samples that says which presets it has, each an instrument with two zones: its keys, halved."""
    middle = sum(keys) // 2
    tables: dict[bytes, list[bytes]] = collections.defaultdict(list)
    for number, (bank, program) in enumerate([*sounds, (0, 0)]):  # The last of each table only ends it.
        tables[b"phdr"].append(struct.pack("<20sHHHIII", b"x", program, bank, 2 * number, 0, 0, 0))
        # The first zone of the preset narrows the keys for all: 43 is their generator, 41 the instrument, 53 the sample.
        tables[b"pbag"] += [struct.pack("<HH", 2 * number, 0), struct.pack("<HH", 2 * number + 1, 0)]
        tables[b"pgen"] += [struct.pack("<HBB", 43, 0, 120), struct.pack("<HH", 41, number)]
        tables[b"inst"].append(struct.pack("<20sH", b"x", 2 * number))
        tables[b"ibag"] += [struct.pack("<HH", 4 * number, 0), struct.pack("<HH", 4 * number + 2, 0)]
        for zone in (keys[0], middle), (middle + 1, keys[1]):
            tables[b"igen"] += [struct.pack("<HBB", 43, *zone), struct.pack("<HH", 53, 0)]
    tables |= {b"pmod": [bytes(10)], b"imod": [bytes(10)], b"shdr": [bytes(46)]}
    body = b""
    for name in (b"phdr", b"pbag", b"pmod", b"pgen", b"inst", b"ibag", b"imod", b"igen", b"shdr"):
        table = b"".join(tables[name])
        body += name + struct.pack("<I", len(table)) + table
    path.write_bytes(b"RIFF....sfbk phdr in a sample " + body)
    return path


def _midi(path: Path, *stems: tuple[int, bool, list[Row]], controls: tuple[tuple[int, int, float], ...] = ()) -> Path:
    midi = pretty_midi.PrettyMIDI()
    for program, is_drum, rows in stems:
        instrument = pretty_midi.Instrument(program, is_drum)
        instrument.notes = [pretty_midi.Note(velocity, pitch, on, off) for on, off, pitch, velocity in rows]
        instrument.control_changes = [pretty_midi.ControlChange(*control) for control in controls]
        midi.instruments.append(instrument)
    path.parent.mkdir(exist_ok=True)
    midi.write(str(path))
    return path


def _synthesise(midi: Path, soundfont: Path, room: bool, name: str, timeout: float) -> np.ndarray:
    """Sine tones in FluidSynth's place."""
    read = pretty_midi.PrettyMIDI(str(midi))
    samples = np.zeros(round(16_000 * (read.get_end_time() + 1.0)), np.float32)
    for note in (note for instrument in read.instruments for note in instrument.notes):
        start, end = round(note.start * 16_000), round(note.end * 16_000)
        frequency = 440 * 2 ** ((note.pitch - 69) / 12)
        samples[start:end] += np.sin(2 * np.pi * frequency * np.arange(end - start) / 16_000) * note.velocity / 1000
    return samples


@pytest.fixture
def render(load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """A function that loads the script with a SoundFont and these settings, and an installed FluidSynth that is ours."""
    font = _soundfont(tmp_path / "font.sf2", SOUNDS)

    def prepare(**settings: Any) -> ModuleType:
        given = {"soundfonts": font, "output_dir": tmp_path / "out", "jobs": 1, "substitute": 0, "drums": 1} | settings
        script, _ = load("render_midi", **given)
        monkeypatch.setattr(shutil, "which", lambda name: name)
        monkeypatch.setattr(fluidsynth, "render", _synthesise)
        return script

    return prepare


def _run(script: ModuleType) -> int:
    return script.main(["render_midi"])


def _programs(track: Path) -> list[int]:
    stems = yaml.safe_load((track / "metadata.yaml").read_text())["stems"]
    return [stem["program_num"] for _, stem in sorted(stems.items())]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tracks_are_read_back_as_slakh_with_program_and_without_drums(render: Callable, tmp_path: Path):
    _midi(tmp_path / "midi" / "a.mid", BASS, PIANO, DRUMS)
    assert _run(render(midi=tmp_path / "midi" / "*.mid", split="validation")) == 0
    (track,) = sources.find("slakh", tmp_path / "out")
    assert (track.id, track.split) == ("validation/Track00001", "validation")
    assert sorted(_programs(track.audio.parent)) == [0, 33, 128]
    audio, notes = sources.load(track)
    assert len(audio) == pytest.approx(2.75 * 16_000, abs=100) and 0.2 < np.abs(audio).max() < 1
    assert notes.program.tolist() == [0, 33, 33] and notes.pitch.tolist() == [60, 40, 43]
    np.testing.assert_allclose(notes.onset, [0.25, 0.5, 1.0], atol=2e-3)
    np.testing.assert_allclose(notes.offset, [1.75, 1.0, 1.5], atol=2e-3)


def test_the_seed_decides_all_choices(render: Callable, tmp_path: Path):
    rows = [(0.1 * i, 0.1 * i + 0.1, 40 + i, 90) for i in range(60)]
    _midi(tmp_path / "midi" / "a.mid", (0, False, rows), (34, False, rows), DRUMS)
    choices = {"midi": tmp_path / "midi/a.mid", "substitute": 0.5, "transpose": 5, "excerpt": 2, "variants": 3, "drums": 0.5}
    made = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert _run(render(**choices, seed=seed, output_dir=tmp_path / name)) == 0
        made.append(_contents(tmp_path / name))
    one, again, other = made
    assert one == again and one != other
    mixes = [data for name, data in one.items() if name.endswith("mix.flac")]
    assert len(set(mixes)) == 3


def test_excerpts_are_moved_to_the_start_with_the_state_of_pedal_and_volume(render: Callable, tmp_path: Path):
    rows = [(100.0 + 0.25 * i, 100.0 + 0.25 * i + 0.125, 60 + i % 12, 64) for i in range(400)]
    _midi(
        tmp_path / "a.mid",
        (0, False, rows),
        controls=((7, 90, 0.0), (64, 0, 98.0), (64, 127, 99.0), (1, 5, 99.0), (64, 0, 500.0)),
    )
    for seed in range(5):
        (stem,) = stems.excerpt(stems.read_stems(tmp_path / "a.mid"), 10.0, np.random.default_rng(seed))
        assert 36 <= len(stem.notes) <= 40
        assert min(stem.notes)[0] >= 0 and max(off for _, off, *_ in stem.notes) <= 10.0
        np.testing.assert_allclose(np.diff([on for on, *_ in stem.notes]), 0.25, atol=2e-3)
        assert stem.controls == [(0.0, 7, 90), (0.0, 64, 127), (10.0, 64, 0)]


def test_long_silence_does_not_make_an_excerpt_empty(render: Callable, tmp_path: Path):
    late = [(1700.0 + i, 1700.5 + i, 60, 64) for i in range(30)]
    for rows in (late, [(0.0, 0.5, 60, 64), *late], [(0.0, 900.0, 60, 64)]):  # Before, between, after the notes.
        _midi(tmp_path / "a.mid", (0, False, rows))
        read = stems.read_stems(tmp_path / "a.mid")
        for seed in range(20):
            (stem,) = stems.excerpt(read, 10.0, np.random.default_rng(seed))
            assert stem.notes and 0 <= stem.notes[0][0] < 10
    _midi(tmp_path / "a.mid", (0, False, late))
    (whole,) = stems.excerpt(stems.read_stems(tmp_path / "a.mid"), 0.0, np.random.default_rng(0))
    assert len(whole.notes) == 30 and whole.notes[0][:2] == pytest.approx((1.0, 1.5), abs=2e-3)


def test_transposition_leaves_drums_alone_and_drops_what_leaves_the_range(render: Callable):
    rows = [(0.0, 1.0, 60, 64), (1.0, 2.0, 126, 64)]
    melodic, drums = stems.transposed([stems.Stem("", 0, is_drum, rows, []) for is_drum in (False, True)], 3)
    assert [pitch for *_, pitch, _ in melodic.notes] == [63]
    assert drums.notes == rows


def test_sounds_are_chosen_by_program_or_family_and_each_soundfont_is_as_likely(render: Callable, tmp_path: Path):
    fonts = {"a": [(0, 33)] * 1 + [(0, 34)] * 9, "b": [(0, 33)], "c": [(0, 0)], "d": [(128, 0)]}
    sounds = [sound for name, rows in fonts.items() for sound in soundfonts.read_presets(_soundfont(tmp_path / name, rows))]

    def choices(
        program: int = 33, is_drum: bool = False, substitute: float = 0.0, any_family: float = 0.0
    ) -> collections.Counter[tuple[str, int]]:
        settings = players.Settings(substitute=substitute, any_family=any_family)
        stem = stems.Stem("", program, is_drum, [], [])
        rng = np.random.default_rng(0)
        chosen = [players.choose_sound(stem, sounds, settings, rng) for _ in range(300)]
        return collections.Counter((one.soundfont.name, one.program) if one else ("none", -1) for one in chosen)

    same = choices()
    assert same.keys() == {("a", 33), ("b", 33)} and 100 < same["a", 33] < 200
    family = choices(substitute=1)
    assert family.keys() == {("a", 33), ("a", 34), ("b", 33)} and 100 < family["b", 33] < 200
    assert choices(program=35).keys() == family.keys()  # No SoundFont has 35: another bass.
    assert choices(is_drum=True).keys() == {("d", 0)}
    assert choices(program=73).keys() == {("none", -1)}
    anything = choices(any_family=1)
    assert ("c", 0) in anything and ("none", -1) in anything and ("d", 0) not in anything


def test_notes_that_a_preset_cannot_play_are_not_in_the_labels(render: Callable, tmp_path: Path):
    narrow = _soundfont(tmp_path / "narrow.sf2", [(0, 33)], keys=(20, 42))
    wide = _soundfont(tmp_path / "wide.sf2", [(0, 33)], keys=(40, 127))
    (sound,) = soundfonts.read_presets(narrow)
    assert sound.keys == set(range(20, 43))
    assert soundfonts.read_presets(wide)[0].keys == set(range(40, 121))  # The preset itself ends at 120.
    _midi(tmp_path / "a.mid", BASS, PIANO)  # Of the bass 40 and 43, and no piano.
    assert _run(render(midi=tmp_path / "a.mid", soundfonts=narrow, output_dir=tmp_path / "narrow")) == 0
    _, notes = sources.load(sources.find("slakh", tmp_path / "narrow")[0])
    assert notes.pitch.tolist() == [40]
    both = soundfonts.read_presets(narrow) + soundfonts.read_presets(wide)
    (bass,) = stems.read_stems(_midi(tmp_path / "b.mid", BASS))
    chosen = [players.choose_sound(bass, both, players.Settings(), np.random.default_rng(seed)) for seed in range(20)]
    assert {sound.soundfont for sound in chosen if sound} == {wide}


def test_a_finished_track_is_not_rendered_again_unless_it_is_of_another_piece(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _midi(tmp_path / "midi" / "b.mid", BASS)
    assert _run(render(midi=tmp_path / "midi" / "*.mid")) == 0
    first = _contents(tmp_path / "out")
    script = render(midi=tmp_path / "midi" / "*.mid")
    monkeypatch.setattr(fluidsynth, "render", None)  # Would be an error to call.
    assert _run(script) == 0 and _contents(tmp_path / "out") == first
    _midi(tmp_path / "midi" / "a.mid", PIANO)  # Of which there is none yet.
    assert _run(render(midi=tmp_path / "midi" / "*.mid")) == 0
    assert [_programs(tmp_path / "out" / "train" / f"Track0000{number}") for number in (1, 2)] == [[33], [0]]
    assert first.items() <= _contents(tmp_path / "out").items()
    (tmp_path / "midi" / "b.mid").unlink()
    before = _contents(tmp_path / "out")
    script = render(midi=tmp_path / "midi" / "*.mid")
    monkeypatch.setattr(fluidsynth, "render", None)
    assert _run(script) == 0 and _contents(tmp_path / "out") == before


def test_a_track_that_another_run_has_rendered_meanwhile_stays(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    _midi(tmp_path / "midi" / "a.mid", PIANO)
    script = render(midi=tmp_path / "midi" / "a.mid")
    track, original = tmp_path / "out" / "train" / "Track00001", fluidsynth.render

    def meanwhile(*arguments: Any) -> np.ndarray:
        track.mkdir()
        (track / "of the other").touch()
        return original(*arguments)

    monkeypatch.setattr(fluidsynth, "render", meanwhile)
    assert _run(script) == 1
    assert "Track00001: has been rendered by another run meanwhile; run the same command again" in caplog.text
    assert [path.name for path in track.parent.iterdir()] == ["Track00001"]
    assert [path.name for path in track.iterdir()] == ["of the other"]


def test_files_of_one_name_in_two_folders_have_tracks_of_their_own(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    both = [_midi(tmp_path / folder / "a.mid", notes) for folder, notes in (("one", BASS), ("two", PIANO))]
    programs = []
    for midi in (both, both[::-1]):
        assert _run(render(midi=",".join(map(str, midi)))) == 0
        programs.append([_programs(track) for track in sorted((tmp_path / "out" / "train").iterdir())])
    assert programs == [[[33], [0]]] * 2


def test_files_that_are_the_same_keep_their_tracks_when_others_come(render: Callable, tmp_path: Path):
    both = [_midi(tmp_path / folder / "a.mid", BASS) for folder in ("one", "two")]
    assert _run(render(midi=",".join(map(str, both)))) == 0
    before = _contents(tmp_path / "out")
    midi = [*both, _midi(tmp_path / "b.mid", PIANO)]
    assert _run(render(midi=",".join(map(str, midi)))) == 0
    assert before.items() <= _contents(tmp_path / "out").items()
    assert [_programs(track) for track in sorted((tmp_path / "out" / "train").iterdir())] == [[33], [33], [0]]


def test_files_that_cannot_be_read_do_not_keep_the_others_from_being_rendered(
    render: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    midi = _midi(tmp_path / "midi" / "a.mid", BASS)
    assert _run(render(midi=midi)) == 0
    before = _contents(tmp_path / "out")
    midi.unlink()
    midi.symlink_to(tmp_path / "absent")
    (tmp_path / "midi" / "x.mid").mkdir()
    _midi(tmp_path / "midi" / "c.mid", PIANO)
    assert _run(render(midi=tmp_path / "midi" / "*.mid")) == 1
    assert sorted(Path(message.split(": ")[0]).name for message in caplog.messages) == ["a.mid", "x.mid"]
    assert before.items() <= _contents(tmp_path / "out").items()
    assert [_programs(track) for track in sorted((tmp_path / "out" / "train").iterdir())] == [[33], [0]]


def test_more_variants_are_added_and_other_settings_refused(
    render: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [(0.1 * i, 0.1 * i + 0.1, 40 + i, 90) for i in range(60)]
    for name in ("a", "b"):
        _midi(tmp_path / "midi" / f"{name}.mid", (0, False, rows))
    settings = {"midi": tmp_path / "midi" / "*.mid", "transpose": 12, "excerpt": 2}
    assert _run(render(**settings, variants=2)) == 0
    first = _contents(tmp_path / "out")
    assert _run(render(**settings, variants=3)) == 0
    assert first.items() <= _contents(tmp_path / "out").items()
    tracks = sorted((tmp_path / "out" / "train").iterdir())
    assert len(tracks) == len({(track / "mix.flac").read_bytes() for track in tracks}) == 6
    before = _contents(tmp_path / "out")
    for other in ({"seed": 1}, {"seed": 1, "variants": 1}, {"seed": 1, "midi": tmp_path / "midi" / "b.mid"}):
        assert _run(render(**settings | {"variants": 4} | other)) == 1
        assert "Track00001: was rendered with other settings or SoundFonts" in capsys.readouterr().err
        assert _contents(tmp_path / "out") == before


def test_another_soundfont_of_that_name_is_refused(render: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    _midi(tmp_path / "midi" / "a.mid", PIANO)
    assert _run(render(midi=tmp_path / "midi" / "a.mid")) == 0
    before = _contents(tmp_path / "out")
    _soundfont(tmp_path / "font.sf2", SOUNDS[:3])
    assert _run(render(midi=tmp_path / "midi" / "a.mid")) == 1
    assert "Track00001: was rendered with other settings or SoundFonts" in capsys.readouterr().err
    assert _contents(tmp_path / "out") == before


@pytest.mark.parametrize("folder", ["midi", "other"])
def test_another_file_of_that_name_replaces_none(
    render: Callable, tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
):
    assert _run(render(midi=_midi(tmp_path / "midi" / "a.mid", PIANO))) == 0
    before = _contents(tmp_path / "out")
    assert _run(render(midi=_midi(tmp_path / folder / "a.mid", BASS))) == 1
    assert "Track00001: was rendered from another a.mid; remove it, or write elsewhere." in capsys.readouterr().err
    assert _contents(tmp_path / "out") == before


def test_tracks_of_earlier_versions_count_as_finished(render: Callable, tmp_path: Path):
    midi = _midi(tmp_path / "midi" / "a.mid", BASS)
    assert _run(render(midi=midi)) == 0
    metadata = tmp_path / "out" / "train" / "Track00001" / "metadata.yaml"
    old = [line for line in metadata.read_text().splitlines() if not line.startswith(("variant", "fingerprint", "midi:"))]
    metadata.write_text("\n".join(old))
    assert _run(render(midi=midi)) == 0
    assert metadata.read_text() == "\n".join(old)


@pytest.mark.parametrize("metadata", [None, b"stems: {}", b"source: \xff", b"- 1"])
def test_what_it_did_not_render_is_left_alone(
    render: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: bytes | None
):
    track = tmp_path / "out" / "train" / "Track00001"
    track.mkdir(parents=True)
    (track / "mix.flac").write_bytes(b"of Slakh itself")
    if metadata:
        (track / "metadata.yaml").write_bytes(metadata)
    before = _contents(tmp_path / "out")
    assert _run(render(midi=_midi(tmp_path / "midi" / "a.mid", BASS))) == 1
    assert "Track00001: is there already and no track that was rendered" in capsys.readouterr().err
    assert _contents(tmp_path / "out") == before


def test_a_file_in_place_of_the_folder_is_one_line(render: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train").touch()
    assert _run(render(midi=_midi(tmp_path / "midi" / "a.mid", BASS))) == 1
    assert "train: cannot be made a folder" in capsys.readouterr().err


def test_a_full_disk_is_a_line_for_each_track(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    midi = [_midi(tmp_path / "midi" / name, BASS) for name in ("a.mid", "b.mid")]
    script = render(midi=",".join(map(str, midi)))

    def write(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tracks.soundfile, "write", write)
    assert _run(script) == 1
    assert [message.partition("train/")[2] for message in caplog.messages] == [
        f"Track0000{number}: cannot be written (No space left on device)." for number in (1, 2)
    ]
    assert not list((tmp_path / "out" / "train").iterdir())


def test_a_file_or_soundfont_named_twice_counts_once(render: Callable, tmp_path: Path):
    midi = _midi(tmp_path / "midi" / "a.mid", BASS)
    font = tmp_path / "font.sf2"
    assert _run(render(midi=f"{midi},{tmp_path}/midi/*.mid", soundfonts=f"{font},{font}", substitute=1)) == 0
    assert [track.name for track in (tmp_path / "out" / "train").iterdir()] == ["Track00001"]
    once = _contents(tmp_path / "out")
    assert _run(render(midi=midi, output_dir=tmp_path / "again", substitute=1)) == 0
    assert _contents(tmp_path / "again") == once


def test_the_flags_have_the_defaults_of_the_settings(load: Callable, tmp_path: Path):
    script, _ = load("render_midi", output_dir=tmp_path)
    assert players.Settings(**{name: flag.default for name, flag in script._SETTINGS.items()}) == players.Settings()


def test_ctrl_c_ends_it_after_the_tracks_in_progress(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for number in range(20):
        _midi(tmp_path / "midi" / f"{number:02d}.mid", PIANO)
    script = render(midi=tmp_path / "midi" / "*.mid")

    def play(midi: Path, *others: Any) -> np.ndarray:
        time.sleep(0.1)
        return _synthesise(midi, *others)

    def watched(futures: Any, **_: Any) -> Iterator[Any]:
        yield next(iter(futures))
        raise KeyboardInterrupt

    monkeypatch.setattr(fluidsynth, "render", play)
    monkeypatch.setattr("tqdm.tqdm", watched)
    with pytest.raises(KeyboardInterrupt):
        script._run()
    assert 1 <= len(list((tmp_path / "out" / "train").iterdir())) < 5


def test_a_failure_is_a_line_leaves_nothing_half_written_and_the_others_are_done(
    render: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    _midi(tmp_path / "midi" / "a.mid", PIANO, BASS)
    _midi(tmp_path / "midi" / "b.mid", PIANO)
    (tmp_path / "midi" / "c.mid").write_bytes(b"no MIDI")
    script = render(midi=tmp_path / "midi" / "*.mid")

    def fail_for_the_bass(midi: Path, *others: Any) -> np.ndarray:
        if pretty_midi.PrettyMIDI(str(midi)).instruments[0].program == 33:
            raise PolyampError("the bass cannot be rendered")
        return _synthesise(midi, *others)

    monkeypatch.setattr(fluidsynth, "render", fail_for_the_bass)
    assert _run(script) == 1
    assert [path.name for path in (tmp_path / "out" / "train").iterdir()] == ["Track00002"]
    assert "the bass cannot be rendered" in caplog.text and "c.mid: is not a usable MIDI file" in caplog.text
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: 2 of 3 could not be rendered")


def test_a_doubled_stem_sounds_with_two_presets_and_is_labelled_once(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _midi(tmp_path / "a.mid", BASS)
    font = _soundfont(tmp_path / "two.sf2", [(0, 33), (1, 34)])
    script = render(midi=tmp_path / "a.mid", soundfonts=font, double=1)
    played = []

    def listen(midi: Path, *others: Any) -> np.ndarray:
        read = pretty_midi.PrettyMIDI(str(midi)).instruments[0]
        played.append((read.program, [(note.start, note.pitch) for note in read.notes]))
        return _synthesise(midi, *others)

    monkeypatch.setattr(fluidsynth, "render", listen)
    assert _run(script) == 0
    (_, first), (_, second) = played
    assert first == second and {program for program, _ in played} <= {33, 34}
    assert len(list((tmp_path / "out" / "train" / "Track00001" / "MIDI").iterdir())) == 1


def test_synthesized_stems_keep_program_and_notes_but_no_pedal(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _midi(tmp_path / "a.mid", BASS, DRUMS, controls=((64, 127, 0.0),))
    script = render(midi=tmp_path / "a.mid", synthesize=1)
    played = []
    monkeypatch.setattr(fluidsynth, "render", lambda midi, *others: played.append(midi.name) or _synthesise(midi, *others))
    assert _run(script) == 0
    (track,) = sources.find("slakh", tmp_path / "out")
    stems_of = yaml.safe_load((track.audio.parent / "metadata.yaml").read_text())["stems"].values()
    assert sorted((stem["plugin_name"], stem["program_num"]) for stem in stems_of) == [("font.sf2", 128), ("synthesizer", 33)]
    assert len(played) == 1  # The drums.
    audio, notes = sources.load(track)
    np.testing.assert_allclose([notes.onset, notes.offset], [[0.5, 1.0], [1.0, 1.5]], atol=2e-3)  # Not held by the pedal.
    assert notes.pitch.tolist() == [40, 43] and set(notes.program) == {33}
    second = np.abs(np.fft.rfft(audio[17_000:23_000] * np.hanning(6000)))
    hz = np.fft.rfftfreq(6000, 1 / 16_000)
    multiples = np.abs(hz / 98.0 - np.round(hz / 98.0)) < 0.1  # G2.
    assert second[multiples].max() > 5 * second[~multiples & (hz > 60)].max()


def test_effects_change_stems_and_mix_and_leave_the_labels(render: Callable, tmp_path: Path):
    _midi(tmp_path / "a.mid", BASS, PIANO)
    made = {}
    for name, share in (("dry", 0), ("wet", 1), ("again", 1)):
        assert _run(render(midi=tmp_path / "a.mid", effects=share, output_dir=tmp_path / name)) == 0
        made[name] = _contents(tmp_path / name)
    assert made["wet"] == made["again"]
    (dry, notes), (wet, same) = (sources.load(sources.find("slakh", tmp_path / name)[0]) for name in ("dry", "wet"))
    assert len(wet) > len(dry) + 16_000  # Time to fade.
    assert same == notes
    assert np.abs(np.corrcoef(dry, wet[: len(dry)])[0, 1]) < 0.999


def test_effects_without_pedalboard_are_one_line_before_anything_is_made(
    render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    _midi(tmp_path / "a.mid", BASS)
    script = render(midi=tmp_path / "a.mid", effects=0.5)
    monkeypatch.setitem(sys.modules, "pedalboard", None)
    assert _run(script) == 1
    assert "pip install pedalboard" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_hanging_fluidsynth_is_stopped(
    load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    _midi(tmp_path / "a.mid", PIANO)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "fluidsynth"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    font = _soundfont(tmp_path / "font.sf2", SOUNDS)
    script, _ = load("render_midi", midi=tmp_path / "a.mid", soundfonts=font, output_dir=tmp_path / "out", timeout=1)
    assert _run(script) == 1
    assert "a.mid, stem S00: FluidSynth could not render it with font.sf2 (not done after 1 s)" in caplog.text
    assert not list((tmp_path / "out" / "train").iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --midi or --single_notes"),
        ({"midi": "{folder}/absent*.mid"}, "--midi: no file is called"),
        ({"midi": "{folder}/a.mid", "soundfonts": "absent"}, "--soundfonts: no file 'absent'"),
        ({"midi": "{folder}/a.mid", "soundfonts": "{folder}/a.mid"}, "a.mid: is no SoundFont"),
        ({"midi": "{folder}/a.mid", "output_dir": "{folder}/a.mid"}, "a.mid: cannot be made"),
        ({"midi": "{folder}/a.mid", "drums": "0"}, "1 of 1 could not be rendered"),
        ({"single_notes": "drums"}, "--single_notes: 'drums' is none of bass, brass"),
        ({"single_notes": "organ"}, "none of the SoundFonts has a preset of these families"),
    ],
)
def test_problems_are_one_line_errors(
    render: Callable, tmp_path: Path, settings: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
):
    _midi(tmp_path / "a.mid", DRUMS)
    assert _run(render(**{name: value.format(folder=tmp_path) for name, value in settings.items()})) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_without_fluidsynth_it_says_what_to_install(
    load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    script, _ = load("render_midi", midi="a.mid", output_dir=tmp_path / "out")
    assert _run(script) == 1
    assert "fluidsynth is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_single_notes_are_in_nsynths_layout(render: Callable, tmp_path: Path):
    assert _run(render(single_notes="bass,flute", split="validation", variants=2)) == 0
    found = note_files.find("nsynth", tmp_path / "out")
    listing = json.loads((tmp_path / "out" / "nsynth-valid" / "examples.json").read_text())
    assert {note.id for note in found} == set(listing)
    instruments = collections.defaultdict(list)
    for note in found:
        assert (note.split, note.source) == ("validation", "synthetic")
        assert listing[note.id]["instrument_family"] == constants.FAMILIES.index(note.family)
        instruments[note.instrument].append(note)
    assert instruments.keys() == {"bass_synthetic_000", "bass_synthetic_001", "flute_synthetic_000"}
    for notes in instruments.values():
        assert 8 < len({note.pitch for note in notes}) <= 16
        example = note_files.load(notes[-1])
        spectrum = np.abs(np.fft.rfft(example.audio[:32_000]))
        frequency = 440 * 2 ** ((example.pitch - 69) / 12)
        assert spectrum.argmax() / 2 == pytest.approx(frequency, rel=0.02)
        assert np.abs(example.audio).max() == pytest.approx(0.8, abs=0.01)
        assert np.flatnonzero(example.audio)[-1] / 16_000 == pytest.approx(3.0, abs=0.01)


def test_single_notes_are_added_to_those_that_are_there(
    render: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    listing = tmp_path / "out" / "nsynth-train" / "examples.json"
    instruments = []
    kept: set[str] = set()
    for settings in (
        {"single_notes": "bass"},
        {"single_notes": "flute"},
        {"single_notes": "bass", "variants": 2},
        {"single_notes": "bass"},
    ):
        assert _run(render(**settings)) == 0
        entries = json.loads(listing.read_text())
        assert kept <= set(entries)
        kept = set(entries)
        assert kept == {path.stem for path in (listing.parent / "audio").iterdir()}
        instruments.append(collections.Counter(entry["instrument_str"] for entry in entries.values()))
    both = {"bass_synthetic_000", "bass_synthetic_001"}
    assert [set(counts) for counts in instruments] == [both, *[both | {"flute_synthetic_000"}] * 3]
    before = json.loads(listing.read_text())
    script = render(single_notes="bass")

    def fail(*_: Any) -> None:
        raise PolyampError("no")

    monkeypatch.setattr(fluidsynth, "render", fail)
    assert _run(script) == 1 and json.loads(listing.read_text()) == before
    for other in ({"seed": 1}, {"soundfonts": _soundfont(tmp_path / "other.sf2", SOUNDS)}):
        assert _run(render(single_notes="bass", **other)) == 1
        assert "holds notes of bass_synthetic_000 of another --seed or SoundFont" in capsys.readouterr().err
        assert json.loads(listing.read_text()) == before
    for text in ("{", "[1]", '{"a": 1}', '{"a": {}}'):
        listing.write_text(text)
        assert _run(render(single_notes="flute")) == 1
        assert "examples.json: not NSynth's, nothing can be added to it" in capsys.readouterr().err
        assert listing.read_text() == text


def test_single_notes_do_not_ring_into_the_next(render: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = render(single_notes="flute")
    ended = []

    def listen(midi: Path, *others: Any) -> np.ndarray:
        (instrument,) = pretty_midi.PrettyMIDI(str(midi)).instruments
        ended.extend(control.time for control in instrument.control_changes if control.number == 120)
        np.testing.assert_allclose([note.start for note in instrument.notes], 4.0 * np.arange(len(ended) + 1), atol=2e-3)
        return _synthesise(midi, *others)

    monkeypatch.setattr(fluidsynth, "render", listen)
    assert _run(script) == 0 and len(ended) > 3
    np.testing.assert_allclose(ended, 4.0 * np.arange(1, len(ended) + 1) - 0.01, atol=2e-3)


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="fluidsynth is not installed")
def test_fluidsynth_plays_tracks_where_their_notes_are(load: Callable, tmp_path: Path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    soundfile.write(tmp_path / "A4.wav", tone, 16_000)
    maker, _ = load("make_soundfont", samples=tmp_path / "A4.wav", output=tmp_path / "a.sf2")
    assert maker.main(["make_soundfont"]) == 0
    rows = [(0.5, 1.0, 69, 100), (1.5, 2.0, 72, 100)]
    _midi(tmp_path / "a.mid", (0, False, rows))
    settings = {"soundfonts": tmp_path / "a.sf2", "output_dir": tmp_path / "out", "room": 0, "timeout": 60}
    script, _ = load("render_midi", midi=tmp_path / "a.mid", **settings)
    assert _run(script) == 0
    audio, notes = sources.load(sources.find("slakh", tmp_path / "out")[0])
    for onset, pitch in zip(notes.onset, notes.pitch, strict=True):
        attack = round(onset * 16_000)
        before, after = audio[attack - 800 : attack - 160], audio[attack + 320 : attack + 6_720]
        assert np.abs(before).max() < 0.1 * np.abs(after).max()
        heard = np.abs(np.fft.rfft(after * np.hanning(len(after)))).argmax() * 16_000 / len(after)
        assert heard == pytest.approx(440 * 2 ** ((pitch - 69) / 12), abs=3)


def test_stems_are_written_as_they_sound(render: Callable, tmp_path: Path):
    rows = [(0.0, 0.5, 60, 64), (0.5, 1.0, 60, 65), (0.25, 0.25, 62, 1)]  # A repeated note, one of no length.
    stem = stems.Stem("", 5, False, rows, [(0.75, 64, 127)])
    for is_drum in (False, True):
        stems.write_stem(dataclasses.replace(stem, is_drum=is_drum), soundfonts.Sound(Path("x"), 0, 5), tmp_path / "s.mid")
        (read,) = pretty_midi.PrettyMIDI(str(tmp_path / "s.mid")).instruments
        assert read.is_drum == is_drum and (read.program == 5 or is_drum)
        found = sorted((note.start, note.end, note.pitch, note.velocity) for note in read.notes)
        np.testing.assert_allclose(found, [(0.0, 0.5, 60, 64), (0.25, 0.252, 62, 1), (0.5, 1.0, 60, 65)], atol=2e-3)
        assert [(c.number, c.value) for c in read.control_changes if c.number == 64] == [(64, 127)]
