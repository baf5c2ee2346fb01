"""`scripts/create_tfrecords.py` as a user runs it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyamp import notes
from polyamp.data import records
from polyamp.notes import Notes

SCRIPT = Path(__file__).parents[2] / "scripts" / "create_tfrecords.py"


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, timeout=120)


def _here(load: Callable, *flags: str) -> int:
    """The status of the script in this process, which has TensorFlow already."""
    script, _ = load("create_tfrecords", **dict(flag.removeprefix("--").split("=", 1) for flag in flags))
    return script.main(["create_tfrecords"])


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
    assert _visible(tmp_path / "out") == names
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


def test_whole_recordings_of_one_split(load: Callable, folder: Path, tmp_path: Path):
    flags = ("--dataset=folder", f"--input_dir={folder}", f"--output_dir={tmp_path}", "--num_shards=1", "--split=train")
    assert _here(load, *flags, "--max_length=0") == 0
    assert _visible(tmp_path) == ["train.tfrecord-00000-of-00001"]
    ids = [example.id for example in records.read([str(tmp_path / "train.tfrecord-00000-of-00001")])]
    assert sorted(ids) == ["train/a", "train/b", "train/c"]


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


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--runner=DirectRunner",), marks=pytest.mark.slow)], ids=["here", "Beam"]
)
def test_a_recording_that_cannot_be_read_does_not_stop_the_others(
    load: Callable, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
):
    def run() -> tuple[int, str]:
        flags = ("--dataset=folder", f"--input_dir={source}", f"--output_dir={output}", "--num_shards=1")
        if not options:
            return _here(load, *flags), capsys.readouterr().err
        done = _run(*flags, *options)
        return done.returncode, done.stderr

    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, source)
    (source / "train" / "b.wav").write_bytes(b"no audio")
    status, said = run()
    assert status == 1 and "Traceback" not in said
    assert f"error: 1 of the recordings could not be used, see {output}/train.failed.jsonl" in said
    assert _visible(output) == [
        "test.tfrecord-00000-of-00001",
        "train.failed.jsonl",
        "train.tfrecord-00000-of-00001",
    ]
    (failure,) = [json.loads(line) for line in (output / "train.failed.jsonl").read_text().splitlines()]
    assert failure["id"] == "train/b" and "b.wav" in failure["error"]
    examples = list(records.read(records.expand_paths(f"{output}/train.tfrecord-*")))
    assert {example.id.partition("@")[0] for example in examples} == {"train/a", "train/c"}
    if options:
        assert "counter recordings: 3" in said and "counter failed: " in said

    shutil.copy(folder / "train" / "b.wav", source / "train" / "b.wav")
    status, said = run()
    assert status == 0, said
    assert ("of 3 recordings" in said or not options) and not (output / "train.failed.jsonl").exists()


def _files(output: Path) -> dict[str, bytes]:
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(
    load: Callable, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[str, ...], dict[str, bytes]]:
    """Flags, and the files that they give without Beam."""
    flags = ("--dataset=folder", f"--input_dir={folder}", "--num_shards=3", "--min_length=0.5", "--max_length=1")
    output = tmp_path_factory.mktemp("undisturbed")
    assert _here(load, *flags, f"--output_dir={output}") == 0
    return flags, _files(output)


@pytest.mark.parametrize(
    "options",
    [
        ("--runner=DirectRunner",),
        pytest.param(
            ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"),
            marks=pytest.mark.slow,
        ),
        ("--runner", "PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"),
    ],
    ids=["one process", "two processes", "portable"],
)
def test_beam_writes_the_same_bytes(
    undisturbed: tuple[tuple[str, ...], dict[str, bytes]], tmp_path: Path, options: tuple[str, ...]
):
    flags, files = undisturbed
    done = _run(*flags, f"--output_dir={tmp_path / 'out'}", *options)
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "out") == files
    assert "counter shards: 6" in done.stderr


def test_a_killed_run_goes_on_to_the_same_bytes(load: Callable, tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(12):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 30 * 44_100)
        soundfile.write(source / f"{number}.flac", samples, 44_100)
        (source / f"{number}.tsv").write_text("0.5\t0.9\t60\t80\n")
    flags = ("--dataset=folder", f"--input_dir={source}", "--num_shards=12", "--max_length=0")
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, str(SCRIPT), *flags, f"--output_dir={killed}"], stderr=subprocess.DEVNULL)
    first = killed / ".prepared" / "train.tfrecord-00000-of-00012.json"
    deadline = time.monotonic() + 60
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    written = first.stat().st_mtime_ns
    left = [name for name in _visible(killed) if name.startswith("train.tfrecord")]
    assert 0 < len(left) < 12
    for output in (killed, tmp_path / "whole"):
        assert _here(load, *flags, f"--output_dir={output}") == 0
    whole = _files(tmp_path / "whole")
    found = {name: content for name, content in _files(killed).items() if ".tmp" not in name}
    assert found == whole and len(whole) == 24
    assert first.stat().st_mtime_ns == written


def test_flags_that_are_nobodys_are_errors(folder: Path, tmp_path: Path):
    flags = ("--dataset=folder", f"--input_dir={folder}", f"--output_dir={tmp_path}")
    without_beam = _run(*flags, "--direct_num_workers=2")
    assert without_beam.returncode != 0 and "direct_num_workers" in without_beam.stderr
    misspelt = _run(*flags, "--max_lenght=3", "--runner=DirectRunner")
    assert misspelt.returncode != 0 and "max_length" in misspelt.stderr
    assert not list(tmp_path.iterdir())


def test_without_beam_it_says_what_to_install(folder: Path, tmp_path: Path):
    code = f"import sys; sys.modules['apache_beam'] = None; sys.argv[0] = {str(SCRIPT)!r}; import runpy; "
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    flags = ("--dataset=folder", f"--input_dir={folder}", f"--output_dir={tmp_path}", "--runner=DirectRunner")
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'pip install -e ".[beam]"' in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


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
