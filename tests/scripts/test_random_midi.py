"""scripts/random_midi.py: phrases that can be rendered, every family as often as every other."""

import collections

import numpy as np
import pretty_midi
import pytest

from polyamp import constants
from polyamp.errors import PolyampError


def read(folder):
    return [pretty_midi.PrettyMIDI(str(path)) for path in sorted(folder.glob("*.mid"))]


def test_files_hold_phrases_within_their_length_and_register(load, tmp_path):
    script, _ = load("random_midi", output_dir=tmp_path / "out", number=30, seconds=12, seed=4)
    script._write()
    pieces = read(tmp_path / "out")
    assert len(pieces) == 30
    for piece in pieces:
        assert 1 <= len(piece.instruments) <= 3
        assert 4 < piece.get_end_time() <= 12.01
        for instrument in piece.instruments:
            within = next(of for of in script.RANGES.values() if instrument.program in of.programs)
            assert all(within.low <= note.pitch <= within.high and note.end - note.start > 0.05 for note in instrument.notes)


def test_a_seed_gives_the_same_phrases_again_and_another_others(load, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        script, _ = load("random_midi", output_dir=tmp_path / name, number=2, seconds=5, seed=seed)
        script._write()
    first, again, other = ([[n.pitch for i in p.instruments for n in i.notes] for p in read(tmp_path / n)] for n in "abc")
    assert first == again != other


def test_families_are_in_balance(load, tmp_path):
    script, _ = load("random_midi", output_dir=tmp_path)
    rng = np.random.default_rng(3)
    pieces = [script.piece(rng, 2.0) for _ in range(600)]
    programs = [instrument.program for piece in pieces for instrument in piece.instruments]
    counts = collections.Counter(constants.FAMILIES[constants.PROGRAM_FAMILY[program]] for program in programs)
    expected = len(programs) / len(script.RANGES)
    assert set(counts) == set(script.RANGES) == set(constants.FAMILIES) - {"other"}
    assert all(abs(count - expected) < 0.35 * expected for count in counts.values())


def test_two_runs_are_not_mixed(load, tmp_path):
    script, _ = load("random_midi", output_dir=tmp_path / "out", number=3, seconds=3)
    script._write()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    script, _ = load("random_midi", output_dir=tmp_path / "out", number=2, seconds=3, seed=1)
    with pytest.raises(PolyampError, match="choose another --output_dir"):
        script._write()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before and len(before) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_made_is_one_line(load, tmp_path):
    (tmp_path / "file").write_text("")
    script, _ = load("random_midi", output_dir=tmp_path / "file" / "out")
    with pytest.raises(PolyampError, match="--output_dir"):
        script._write()
