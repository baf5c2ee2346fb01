"""Files whose tracks say what others obey, against how mido plays them and hand-computed notes."""

import mido
import numpy as np
import pytest

from polyamp import notes
from polyamp.errors import DataError
from polyamp.rendering import stems

HALF = 500_000  # Microseconds per quarter note, the default; 480 ticks are half a second.


def save(path, *tracks, kind=1):
    """A file of tracks, each a list of (tick, message)."""
    midi = mido.MidiFile(type=kind, ticks_per_beat=480)
    for timed in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in timed:
            track.append(message.copy(time=tick - now))
            now = tick
        midi.tracks.append(track)
    midi.type = 1  # mido refuses to write more than one track as type 0.
    midi.save(str(path))
    content = bytearray(path.read_bytes())
    content[9] = kind
    path.write_bytes(content)
    return path


def note(start, end, pitch, channel=0):
    return [
        (start, mido.Message("note_on", note=pitch, velocity=80, channel=channel)),
        (end, mido.Message("note_on", note=pitch, velocity=0, channel=channel)),
    ]


def tempo(tick, microseconds):
    return (tick, mido.MetaMessage("set_tempo", tempo=microseconds))


def program(tick, number, channel=0):
    return (tick, mido.Message("program_change", program=number, channel=channel))


def pedal(tick, value, channel=0):
    return (tick, mido.Message("control_change", control=64, value=value, channel=channel))


@pytest.mark.parametrize("kind", [1, 0])
def test_tempos_of_any_track_hold_for_all(tmp_path, kind):
    second = [tempo(0, 2 * HALF), *note(480, 960, 64), tempo(960, HALF), tempo(1920, 4 * HALF)]
    path = save(tmp_path / "a.mid", note(960, 1920, 60) + note(2400, 2880, 62), second, kind=kind)
    found = notes.read_midi(path)
    np.testing.assert_allclose(found.onset, [1.0, 2.0, 5.0])
    np.testing.assert_allclose(found.offset, [2.0, 3.0, 7.0])
    midi = mido.MidiFile(str(path))
    midi.type = 1
    played = [second for second, one in zip(np.cumsum([one.time for one in midi]), midi, strict=True) if one.type == "note_on"]
    np.testing.assert_allclose(np.sort([*found.onset, *found.offset]), played, atol=1e-6)
    (first,) = [stem for stem in stems.read_stems(path) if stem.notes[0][2] == 60]
    assert first.notes[0][:2] == pytest.approx((2.0, 3.0))


def test_the_hands_of_a_pianist_have_one_pedal(tmp_path):
    right = [pedal(0, 127), *note(0, 240, 72), pedal(1920, 0)]
    left = note(480, 960, 40)
    found = notes.read_midi(save(tmp_path / "a.mid", right, left))
    np.testing.assert_allclose(found.offset, [2.0, 2.0])
    of_setup = [pedal(0, 127), pedal(1920, 0)]
    found = notes.read_midi(save(tmp_path / "b.mid", of_setup, left, note(480, 960, 41, channel=1)))
    np.testing.assert_allclose(found.offset[np.argsort(found.pitch)], [2.0, 1.0])  # Not that of another channel.


def test_programs_may_come_from_a_track_without_notes(tmp_path):
    setup = [program(0, 40), program(0, 71, channel=1), program(960, 56)]
    played = note(0, 480, 60) + note(960, 1440, 62)
    found = notes.read_midi(save(tmp_path / "a.mid", setup, played, note(0, 480, 50, channel=1)))
    assert dict(zip(found.pitch.tolist(), found.program.tolist(), strict=True)) == {60: 40, 62: 56, 50: 71}


def test_a_track_has_the_program_of_others_until_it_has_its_own(tmp_path):
    first = [program(0, 40), *note(0, 480, 60), program(480, 41)]
    second = [*note(0, 480, 50), program(960, 5), *note(960, 1440, 52)]
    found = notes.read_midi(save(tmp_path / "a.mid", first, second))
    assert dict(zip(found.pitch.tolist(), found.program.tolist(), strict=True)) == {60: 40, 50: 40, 52: 5}


def test_tracks_that_share_a_channel_with_programs_of_their_own_stay_apart(tmp_path):
    piano = [program(0, 0), pedal(0, 127), *note(0, 240, 60), pedal(1920, 0)]
    bass = [program(0, 33), *note(0, 480, 40)]
    found = notes.read_midi(save(tmp_path / "a.mid", piano, bass))
    by_pitch = {
        row[0]: row[1:] for row in zip(found.pitch.tolist(), found.program.tolist(), found.offset.tolist(), strict=True)
    }
    assert by_pitch == {60: (0, 2.0), 40: (33, 0.5)}


def test_a_note_that_nothing_ends_does_so_with_the_file(tmp_path):
    endless = [(480, mido.Message("note_on", note=60, velocity=80))]
    found = notes.read_midi(save(tmp_path / "a.mid", endless, note(0, 960, 64)))
    assert found.pitch.tolist() == [64, 60]
    np.testing.assert_allclose(found.offset, [1.0, 1.0])


@pytest.mark.parametrize("tracks", [1, 2])
def test_the_end_of_the_file_ends_notes_also_where_nothing_else_is_there(tmp_path, tracks):
    begin = (0, mido.Message("note_on", note=60, velocity=80))
    late = (960, mido.MetaMessage("end_of_track"))
    path = save(tmp_path / "a.mid", *([[begin, late]] if tracks == 1 else [[begin], [late]]))
    found = notes.read_midi(path)
    assert (found.onset.tolist(), found.offset.tolist()) == ([0.0], [1.0])


@pytest.mark.parametrize("control", [120, 123])
@pytest.mark.parametrize("track", [0, 1])
def test_a_channel_that_is_told_to_be_silent_is(tmp_path, control, track):
    off = (480, mido.Message("control_change", control=control, value=0))
    held = [(0, mido.Message("note_on", note=60, velocity=80))]
    others = [*note(0, 1440, 64, channel=1), *note(480, 960, 67)]
    tracks = [held, others]
    tracks[track].insert(0, off)
    tracks = [sorted(track, key=lambda one: one[0]) for track in tracks]
    found = notes.read_midi(save(tmp_path / "a.mid", *tracks))
    ends = dict(zip(found.pitch.tolist(), found.offset.tolist(), strict=True))
    assert ends == {60: 0.5, 64: 1.5, 67: 1.0}  # One that begins then sounds, and so do other channels.


def test_midi_in_a_riff_file(tmp_path):
    content = save(tmp_path / "a.mid", note(0, 480, 60)).read_bytes()
    header = b"RIFF" + (len(content) + 12).to_bytes(4, "little") + b"RMIDdata" + len(content).to_bytes(4, "little")
    (tmp_path / "a.rmi").write_bytes(header + content)
    assert notes.read_midi(tmp_path / "a.rmi") == notes.read_midi(tmp_path / "a.mid")
    (tmp_path / "a.rmi").write_bytes(header)
    with pytest.raises(DataError, match="not a usable MIDI file"):
        notes.read_midi(tmp_path / "a.rmi")


def test_files_that_count_in_frames_say_so(tmp_path):
    path = save(tmp_path / "a.mid", note(0, 480, 60))
    content = bytearray(path.read_bytes())
    content[12:14] = b"\xe7\x28"  # 25 frames a second, 40 ticks each.
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.mid: is not a usable MIDI file .*SMPTE frames"):
        notes.read_midi(path)
    content[12:14] = b"\0\0"
    path.write_bytes(content)
    with pytest.raises(DataError, match="it counts in no unit of time"):
        notes.read_midi(path)


@pytest.mark.parametrize("is_shared", [True, False])
def test_programs_that_change_where_a_note_ends_are_for_the_next(tmp_path, is_shared):
    changes = [program(0, 5), program(480, 32)]
    played = note(0, 480, 60) + note(480, 960, 62)
    tracks = [changes, played] if is_shared else [sorted(changes + played, key=lambda one: one[0])]
    found = notes.read_midi(save(tmp_path / "a.mid", *tracks))
    assert (found.pitch.tolist(), found.program.tolist()) == ([60, 62], [5, 32])


@pytest.mark.parametrize("channel", [0, 1])
def test_nor_does_a_note_that_begins_there_change_that(tmp_path, channel):
    (on, off), (other_on, other_off) = note(0, 480, 60), note(480, 960, 62, channel)
    changes = [program(0, 7, channel)] if channel else []
    played = [*changes, program(0, 5), on, program(480, 32), other_on, off, other_off]
    found = notes.read_midi(save(tmp_path / "a.mid", played))
    assert (found.pitch.tolist(), found.program.tolist()) == ([60, 62], [5, 7 if channel else 32])


def test_a_pedal_after_a_program_change_is_for_the_notes_after_it(tmp_path):
    (on, off), (other_on, other_off) = note(0, 480, 60), note(480, 960, 62)
    played = [
        program(0, 5),
        on,
        off,
        program(480, 32),
        pedal(480, 127),
        other_on,
        other_off,
        pedal(1920, 0),
        *note(1920, 2400, 70),
    ]
    found = notes.read_midi(save(tmp_path / "a.mid", played))
    assert found.program.tolist() == [5, 32, 32] and found.offset.tolist() == [0.5, 2.0, 2.5]


def test_a_note_that_begins_and_ends_in_the_tick_of_a_program_does_so_in_that_order(tmp_path):
    (on, _), (_, off) = note(480, 480, 60), note(480, 480, 60)
    played = [program(0, 5), program(480, 32), on, off, *note(480, 960, 62)]
    found = notes.read_midi(save(tmp_path / "a.mid", played))
    assert found.program.tolist() == [32] * len(found) and 62 in found.pitch.tolist()


def test_what_was_written_here_reads_the_same(tmp_path):
    rng = np.random.default_rng(0)
    onset = np.sort(rng.uniform(0.0, 60.0, 200))
    # More programs than channels.
    wanted = notes.Notes.of(onset, onset + rng.uniform(0.1, 2.0, 200), 20 + np.arange(200) % 88, None, np.arange(200) % 40)
    notes.write_midi(wanted, tmp_path / "a.mid")
    found = notes.read_midi(tmp_path / "a.mid")
    assert sorted(zip(found.pitch.tolist(), found.program.tolist(), strict=True)) == sorted(
        zip(wanted.pitch.tolist(), wanted.program.tolist(), strict=True)
    )
    np.testing.assert_allclose(np.sort(found.onset), wanted.onset, atol=1e-3)


def test_a_damaged_delta_costs_neither_time_nor_memory(tmp_path):
    save(tmp_path / "a.mid", note(0, 0x0FFFFFFF, 60))
    with pytest.raises(DataError, match="a.mid: is not a usable MIDI file .it lasts for 268435455 ticks"):
        notes.read_midi(tmp_path / "a.mid")
    (tmp_path / "b.mid").write_bytes((tmp_path / "a.mid").read_bytes()[:30])
    with pytest.raises(DataError, match="b.mid: is not a usable MIDI file .it ends too soon"):
        notes.read_midi(tmp_path / "b.mid")
