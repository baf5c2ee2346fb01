"""`scripts/benchmark_peers.py` with two recordings: a program that is always right, one that is always wrong, and our own."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

from polyamp import notes
from polyamp.notes import Notes

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings, notes of one in MIDI and of the other too; and programs that answer these or nothing of them."""
    audio = tmp_path / "audio"
    audio.mkdir()
    shutil.copy(DATA / "handel_air.ogg", audio / "b.ogg")
    shutil.copy(DATA / "handel_air_reference.mid", audio / "b.mid")
    soundfile.write(audio / "a.wav", np.zeros(8000), 16_000)
    notes.write_midi(Notes.of([0.1, 0.2], [0.2, 0.4], [60, 64], [80, 90], [0, 40]), audio / "a.mid")
    # Recordings come in the order of their names, under numbers.
    (tmp_path / "right.py").write_text(
        "import pathlib, shutil, sys, time\n"
        "for stem in (pathlib.Path(path).stem for path in sys.argv[2:]):\n"
        f"    shutil.copy({str(audio)!r} + '/' + 'ab'[int(stem) % 2] + '.mid', sys.argv[1] + '/' + stem + '_right.mid')\n"
        "    time.sleep(0.5)\n"
    )
    notes.write_midi(Notes.of([0.1], [0.2], [61], [80]), tmp_path / "wrong.mid")
    (tmp_path / "wrong.py").write_text(f"import shutil, sys; shutil.copy({str(tmp_path / 'wrong.mid')!r}, sys.argv[2])\n")
    return tmp_path


def right(folder: Path) -> str:
    return f"Right={sys.executable} {folder / 'right.py'} {{output_dir}} {{audio}}"


def test_scores_costs_and_table(load: Callable, folder: Path, capsys: pytest.CaptureFixture[str]):
    script, values = load("benchmark_peers", data=folder / "audio", output_dir=folder / "out", speed_seconds=2, repeats=1)
    values.cores = [1]
    values.systems = ["MELODIC", "Right", "Wrong"]
    wrong = f"Wrong={sys.executable} {folder / 'wrong.py'} {{file}} {{output}}"
    values.command = [right(folder), wrong + """ '--any={"other": {}}'"""]
    assert script.main(["benchmark_peers"]) == 0
    results = json.loads((folder / "out" / "results.json").read_text())
    assert list(results["systems"]) == ["MELODIC", "Right", "Wrong"]
    scores = {name: of["accuracy"][str(folder / "audio")] for name, of in results["systems"].items()}
    kinds = ("note_onset_f1", "note_offset_f1", "note_velocity_f1", "note_frame_f1", "family_onset_f1")
    assert all(scores["Right"]["mean"][kind] == pytest.approx(1.0) for kind in kinds)
    assert all(scores["Wrong"]["mean"][kind] == 0.0 for kind in kinds)
    # Ours is scored on both, and hears nothing in silence; the recording's score is mir_eval's.
    assert scores["MELODIC"]["by_recording"]["a"]["note_onset_f1"] == 0.0
    ours = scores["MELODIC"]["by_recording"]["b"]["note_onset_f1"]
    assert 0.8 < ours < 1.0 and scores["MELODIC"]["mean"]["note_onset_f1"] == pytest.approx(ours / 2)
    for name, of in results["systems"].items():
        took = of["speed"]["1"]
        assert 0 < took["start"] and 0 < took["cpu"] and 5 < took["memory"] < 2000
        # Wrong has one process for each file; what two seconds take ours is less than what starting varies by.
        assert name == "MELODIC" or (took["steady"] is None) == (name == "Wrong")
    table = (folder / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows == ["", "---", "MELODIC", "Right", "Wrong"] * 2
    assert f"| Right | {1:.3f} | {1:.3f} |" in table


def test_memory_and_times_are_those_of_the_command_alone(load: Callable, folder: Path):
    """However much of them the benchmark itself has taken."""
    script, _ = load("benchmark_peers", data=folder / "audio")
    mine = np.ones(200 * 2**20, np.uint8)
    code = "import time; kept = bytearray(40 * 2**20); time.sleep(0.3)"
    cost = script._run("Small", [sys.executable, "-S", "-c", code], 1)
    assert 40 < cost.memory < 100 < mine.nbytes / 2**20
    assert 0.3 < cost.wall < 5 and cost.cpu < cost.wall


def test_the_oracle_agrees(load: Callable, folder: Path):
    """Scores of an answer that is neither right nor wrong, against mir_eval called here."""
    script, _ = load("benchmark_peers", data=folder / "audio")
    reference = notes.read_midi(folder / "audio" / "b.mid")
    half = reference[np.arange(len(reference)) % 2 == 0]
    notes.write_midi(half, folder / "half.mid")
    (folder / "half.py").write_text(f"import shutil, sys; shutil.copy({str(folder / 'half.mid')!r}, sys.argv[2])\n")
    system = script.System("Half", f"{sys.executable} {folder / 'half.py'} {{file}} {{output}}", "")
    recordings = [one for one in script.read_data(str(folder / "audio")) if one.name == "b"]
    found = script.accuracy(system, recordings)["by_recording"]["b"]
    pairs = [(np.stack([n.onset, n.offset], 1), mir_eval.util.midi_to_hz(n.pitch)) for n in (reference, half)]
    precision, recall, f1, _ = mir_eval.transcription.precision_recall_f1_overlap(*pairs[0], *pairs[1], offset_ratio=None)
    assert (found["note_onset_precision"], found["note_onset_recall"], found["note_onset_f1"]) == pytest.approx(
        (precision, recall, f1)
    )


def test_recordings_come_in_the_order_of_their_names_and_may_share_one(load: Callable, tmp_path: Path):
    script, values = load("benchmark_peers", data=tmp_path / "audio", output_dir=tmp_path / "out")
    for name in ("z/a", "b/a", "m/a", "c"):
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "audio" / f"{name}.wav", np.zeros(100), 16_000)
    for name in ("a", "c"):
        notes.write_midi(Notes.empty(), tmp_path / f"{name}.mid")
    found = script.read_data(f"{tmp_path / 'audio'}:{tmp_path}")
    assert [recording.name for recording in found] == ["b/a", "c", "m/a", "z/a"]
    values.limit = 2
    assert [recording.name for recording in script.read_data(f"{tmp_path / 'audio'}:{tmp_path}")] == ["b/a", "c"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "{folder}/absent"}, "absent"),
        ({"data": "{folder}/audio:{folder}"}, "no notes of that name"),
        ({"systems": "Nobody"}, "Nobody"),
        ({"output_dir": "{folder}/right.py"}, "right.py: cannot be made a folder"),
        ({"command": "Broken"}, "NAME=COMMAND"),
        ({"command": "Broken=true --in={audio} {output_dir}"}, "a word of its own"),
        ({"command": "Broken=true {audio}"}, "NAME=COMMAND"),
        ({"command": "Broken=true '{audio} {output_dir}"}, "no closing quotation"),
        ({"command": "Fails=false {audio} {output_dir}", "systems": "Fails"}, "exit status 1"),
        ({"command": "Silent=true {audio} {output_dir}", "systems": "Silent"}, "wrote no MIDI"),
        ({"command": "Absent=/absent/program {audio} {output_dir}", "systems": "Absent"}, "cannot be run"),
    ],
)
def test_problems_are_one_line_errors(
    load: Callable, folder: Path, settings: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
):
    given = {"data": "{folder}/audio", "output_dir": "{folder}/out", **settings}
    replaced = {name: value.replace("{folder}", str(folder)) for name, value in given.items()}
    script, _ = load("benchmark_peers", speed_seconds=0, **replaced)
    assert script.main(["benchmark_peers"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
