"""Stems played in other ways and with other sounds: what may change does, and nothing else."""

import mido
import numpy as np
import pytest

from polyamp import notes
from polyamp.rendering import stems
from polyamp.rendering.soundfonts import Sound
from polyamp.rendering.stems import Stem

CHORDS = Stem("x", 48, False, [(t, t + 0.9, p, 80) for t in (0.0, 1.0, 2.5, 4.0) for p in (60, 64)], [(0.0, 7, 100)])


def _manners():
    """Many articulations of CHORDS, by what they are."""
    found = {"short": [], "repeated": [], "held": []}
    for seed in range(60):
        stem = stems.articulated(CHORDS, np.random.default_rng(seed))
        longest = max(off - on for on, off, *_ in stem.notes)
        manner = "repeated" if len(stem.notes) > 8 else "short" if longest < 0.3 else "held"
        found[manner].append(stem)
    return found


def test_every_manner_occurs_and_keeps_onsets_pitches_and_controls():
    manners = _manners()
    assert all(len(some) > 8 for some in manners.values())
    for manner, some in manners.items():
        for stem in some:
            assert stem.notes == sorted(stem.notes) and all(off > on for on, off, *_ in stem.notes)
            assert {row[2:] for row in stem.notes} == {(60, 80), (64, 80)} and stem.controls == CHORDS.controls
            onsets = {on for on, *_ in stem.notes}
            assert onsets >= {0.0, 1.0, 2.5, 4.0} and (manner == "repeated" or len(onsets) == 4)


def test_repeated_notes_stay_within_the_written_ones_and_held_ones_never_overlap_their_own_pitch():
    manners = _manners()
    for stem in manners["repeated"]:
        assert all(any(on <= start and end <= off + 1e-6 for on, off, *_ in CHORDS.notes) for start, end, *_ in stem.notes)
    assert any(stem.notes[0][1] == pytest.approx(1.0) for stem in manners["held"])  # Until the next chord.
    for stem in (one for some in manners.values() for one in some):
        for pitch in (60, 64):
            rows = [row for row in stem.notes if row[2] == pitch]
            assert all(first[1] <= second[0] + 1e-6 for first, second in zip(rows[:-1], rows[1:], strict=True))


def test_the_sound_is_altered_by_nrpn_messages_that_fluidsynth_reads_before_the_first_note(tmp_path):
    numbers = set()
    for seed in range(30):
        stem = stems.altered(CHORDS, np.random.default_rng(seed))
        assert stem.notes == CHORDS.notes and stem.controls[-1] == CHORDS.controls[-1]
        stems.write_stem(stem, Sound(tmp_path / "x.sf2", 0, 48), tmp_path / "x.mid")
        messages = [m for m in mido.MidiFile(tmp_path / "x.mid") if not m.is_meta]
        first_note = next(i for i, m in enumerate(messages) if m.type == "note_on")
        controls = [(m.control, m.value) for m in messages[:first_note] if m.type == "control_change"]
        at = [i for i, (control, _) in enumerate(controls) if control == 99]
        for index in at:
            assert [control for control, _ in controls[index : index + 4]] == [99, 98, 38, 6]  # The coarse value acts.
            assert controls[index][1] == 120
            numbers.add(controls[index + 1][1])
    assert numbers == {8, 6, 34, 38, 52}


def test_amounts_are_in_units_of_the_generator_around_the_middle():
    assert stems._generator((8, 2), -4800.0)[2:] == [(0.0, 38, (8192 - 2400) % 128), (0.0, 6, (8192 - 2400) // 128)]
    assert stems._generator((52, 1), 0.0)[2:] == [(0.0, 38, 0), (0.0, 6, 64)]


def test_notes_struck_again_are_labelled_as_they_are_played(tmp_path):
    """Also where written ones of a pitch follow each other faster than they are struck."""
    rows = [(0.1 * i, 0.1 * i + 0.1, 60, 80) for i in range(20)]
    for seed in range(30):
        played = stems.articulated(Stem("x", 48, False, rows, []), np.random.default_rng(seed))
        stems.write_stem(played, Sound(tmp_path, 0, 48), tmp_path / "s.mid")
        read = notes.read_midi(tmp_path / "s.mid")
        found = np.stack([read.onset, read.offset, read.pitch, read.velocity], axis=1)
        np.testing.assert_allclose(found, played.notes, atol=3e-3)
