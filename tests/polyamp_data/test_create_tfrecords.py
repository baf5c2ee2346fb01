"""`scripts/create_tfrecords.py` as a user runs it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyamp import notes
from polyamp.data import records
from polyamp.notes import Notes

SCRIPT = Path(__file__).parents[2] / "scripts" / "create_tfrecords.py"


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of 7 s in train, one in test, a note every half second."""
    path = tmp_path_factory.mktemp("folder")
    onset = np.arange(14) * 0.5
    rows = np.stack([onset, onset + 0.4, 60 + np.arange(14), np.full(14, 80)], -1)
    for name in ("train/a", "train/b", "train/c", "test/d"):
        (path / name).parent.mkdir(exist_ok=True)
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, 7 * 22_050)
        soundfile.write(path / f"{name}.wav", samples, 22_050)
        np.savetxt(path / f"{name}.tsv", rows, "%.3f\t%.3f\t%d\t%d")
    return path


def test_writes_shards_of_each_split(folder: Path, tmp_path: Path):
    flags = (f"--input_dir={folder}", f"--output_dir={tmp_path / 'out'}", "--dataset=folder", "--num_shards=2")
    done = _run(*flags, "--min_length=2", "--max_length=3")
    assert done.returncode == 0, done.stderr
    names = [f"{split}.tfrecord-0000{shard}-of-00002" for split in ("test", "train") for shard in range(2)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    train = list(records.read(records.expand_paths(f"{tmp_path}/out/train.tfrecord-*")))
    assert len(train) == 9 and max(example.duration for example in train) <= 3
    assert sum(example.duration for example in train) == pytest.approx(21, abs=1e-3)
    assert sum(int((example.notes.onset >= 0).sum()) for example in train) == 3 * 14
    (test,) = records.read(records.expand_paths(f"{tmp_path}/out/test.tfrecord-*"))
    assert test.id == "test/d" and test.duration == pytest.approx(7, abs=1e-3)
    assert test.notes == notes.read_tsv(folder / "test" / "d.tsv")
    assert test.notes == Notes.of(test.notes.onset, test.notes.offset, 60 + np.arange(14), 80)

    other = _run(*flags[:-1], "--num_shards=3", "--split=train")
    assert other.returncode == 1 and "another --num_shards" in other.stderr


def test_whole_recordings_of_one_split(folder: Path, tmp_path: Path):
    flags = ("--dataset=folder", f"--input_dir={folder}", f"--output_dir={tmp_path}", "--num_shards=1", "--split=train")
    done = _run(*flags, "--max_length=0")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    assert path.name == "train.tfrecord-00000-of-00001"
    assert [example.id for example in records.read([str(path)])] == ["train/a", "train/b", "train/c"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--input_dir={folder}", "--split=validation"), "nothing in 'validation'; it has test, train"),
        (("--input_dir={folder}/absent",), "no such folder"),
        (("--input_dir={folder}", "--min_length=9", "--max_length=3"), "--min_length=9 is above --max_length=3"),
        (("--input_dir={folder}", "--output_dir={folder}/train/a.tsv"), "cannot be made"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(folder: Path, tmp_path: Path, flags: tuple[str, ...], message: str):
    given = [flag.format(folder=folder) for flag in flags]
    done = _run("--dataset=folder", f"--output_dir={tmp_path}", *given)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ") and message in line]
    assert not list(tmp_path.iterdir())


def test_a_recording_that_cannot_be_read_leaves_no_files(tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.wav").write_bytes(b"no audio")
    (source / "a.tsv").write_text("0.1,0.2,60,64\n")
    done = _run("--dataset=folder", f"--input_dir={source}", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 1 and "a.wav" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_help_and_flag_errors_answer_at_once():
    def best_of_three(*flags: str) -> subprocess.CompletedProcess[str]:  # Since other tests may be running.
        times = []
        while not times or (min(times) >= 1.5 and len(times) < 3):
            start = time.monotonic()
            done = _run(*flags)
            times.append(time.monotonic() - start)
        assert min(times) < 1.5
        return done

    shown = best_of_three("--help")
    missing = best_of_three("--dataset=folder")
    wrong = best_of_three("--dataset=nonsense", "--input_dir=.", "--output_dir=.")
    assert "--max_length" in shown.stdout and "test" in shown.stdout
    assert missing.returncode != 0 and "--input_dir" in missing.stderr
    assert wrong.returncode != 0 and "maps" in wrong.stderr
