"""scripts/prepare_maestro.sh: from a folder and from a zip file, interrupted and run again, and what it says of bad input."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyamp import notes
from polyamp.audio import reading
from polyamp.data import records
from polyamp.notes import Notes

SCRIPT = Path(__file__).parents[2] / "scripts/prepare_maestro.sh"
SPLITS = {"2004/a b": "train", "2004/b": "validation", "2018/c": "test"}

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg") or not shutil.which("bash"), reason="needs ffmpeg and bash")


def run(*arguments, path=None, **kwargs):
    # The python3 that the script finds is this one.
    env = os.environ | {"PATH": path or f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, env=env, timeout=300, **kwargs)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A small data set in MAESTRO's layout: 44.1 kHz stereo."""
    folder = tmp_path_factory.mktemp("source") / "maestro-v3.0.0"
    rows = ["canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration"]
    for number, (name, split) in enumerate(SPLITS.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * np.sin(2 * np.pi * 440 * (number + 1) * np.arange(44_100 * 6) / 44_100)
        soundfile.write(folder / f"{name}.wav", np.stack([tone, tone], 1), 44_100)
        notes.write_midi(Notes.of([0.5], [2.0], [60 + number], 80), folder / f"{name}.midi")
        rows.append(f"x,y,{split},2004,{name}.midi,{name}.wav,6.0")
    (folder / "maestro-v3.0.0.csv").write_text("\n".join(rows) + "\n")
    (folder / "LICENSE").write_text("CC BY-NC-SA\n")
    return folder


@pytest.fixture(scope="module")
def archive(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "maestro.zip"
    with zipfile.ZipFile(path, "w") as file:
        for one in sorted(source.rglob("*")):
            file.write(one, one.relative_to(source.parent))
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


EXPECTED = sorted([*(f"{n}.{kind}" for n in SPLITS for kind in ("flac", "midi")), "LICENSE", "maestro-v3.0.0.csv"])


def test_a_folder_becomes_flac_and_tfrecords(source, tmp_path):
    result = run(f"--source={source}", f"--output={tmp_path}", "--jobs=2")
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "flac") == EXPECTED
    info = soundfile.info(tmp_path / "flac/2004/a b.flac")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    converted = reading.read(tmp_path / "flac/2018/c.flac")
    np.testing.assert_allclose(converted[800:-800], reading.read(source / "2018/c.wav")[800:-800], atol=2e-3)
    for split in SPLITS.values():
        examples = list(records.read(sorted(map(str, (tmp_path / "tfrecords").glob(f"{split}.tfrecord*"))), on_error="raise"))
        assert len(examples) >= 1 and sum(len(example.begun) for example in examples) == 1
    assert "8 of 8 files" in result.stderr


def test_a_zip_file_gives_the_same_and_needs_no_unpacking(source, archive, tmp_path):
    assert run(f"--source={archive}", f"--output={tmp_path / 'zip'}", "--no-tfrecords").returncode == 0
    assert run(f"--source={source}", f"--output={tmp_path / 'folder'}", "--no-tfrecords").returncode == 0
    assert files(tmp_path / "zip/flac") == files(tmp_path / "folder/flac") == EXPECTED
    for name in EXPECTED:
        assert (tmp_path / "zip/flac" / name).read_bytes() == (tmp_path / "folder/flac" / name).read_bytes()


def test_what_is_done_is_not_done_again(source, tmp_path):
    arguments = [f"--source={source}", f"--output={tmp_path}", "--no-tfrecords"]
    assert run(*arguments).returncode == 0
    done = tmp_path / "flac/2004/b.flac"
    done.write_bytes(b"kept")
    (tmp_path / "flac/2018/c.flac").unlink()
    for half in (".123.c.flac", ".123.c.midi"):  # Of a run that was killed.
        (tmp_path / "flac/2018" / half).write_bytes(b"half")
    assert run(*arguments).returncode == 0
    assert done.read_bytes() == b"kept" and files(tmp_path / "flac") == EXPECTED


def test_interrupted_it_leaves_nothing_half_written(source, tmp_path):
    # An ffmpeg that never ends.
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "ffmpeg").write_text('#!/bin/bash\nfor last; do :; done\necho half >"$last"\nexec sleep 60\n')
    (slow / "ffmpeg").chmod(0o755)
    path = os.pathsep.join([str(slow), str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [str(SCRIPT), f"--source={source}", f"--output={tmp_path / 'out'}", "--no-tfrecords", "--jobs=2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PATH": path}, start_new_session=True
    )
    flac = tmp_path / "out/flac"
    for _ in range(100):
        if any(flac.rglob(".*.flac")):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(path.name[0] != "." for path in flac.rglob("*.flac"))
    assert run(f"--source={source}", f"--output={tmp_path / 'out'}", "--no-tfrecords").returncode == 0
    assert files(flac) == EXPECTED


def test_a_damaged_recording_fails_alone(source, tmp_path):
    copy = tmp_path / "maestro-v3.0.0"
    shutil.copytree(source, copy)
    (copy / "2004/b.wav").write_bytes(b"no sound")
    result = run(f"--source={copy}", f"--output={tmp_path / 'out'}", "--no-tfrecords", "--jobs=1")
    assert result.returncode == 1
    assert "2004/b.wav: could not be converted" in result.stderr and "1 of 8 files" in result.stderr.splitlines()[-1]
    assert files(tmp_path / "out/flac") == [name for name in EXPECTED if name != "2004/b.flac"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source=missing"], "missing: no such file"),
        (["--sauce=x"], "--sauce=x: unknown"),
        (["--jobs=0"], "--jobs=0"),
        (["--source=bad.zip"], "no complete zip file"),
        (["--source=empty"], "no recordings"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    (tmp_path / "empty").mkdir()
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 1 and words in result.stderr and result.stderr.count("\n") == 1


def test_without_ffmpeg_it_says_so(source, tmp_path):
    for name in ("bash", "sed", "dirname", "nproc", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    result = run(f"--source={source}", f"--output={tmp_path / 'out'}", path=str(tmp_path))
    assert result.returncode == 1 and "ffmpeg is not installed" in result.stderr
