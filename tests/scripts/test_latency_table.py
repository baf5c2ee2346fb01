"""scripts/latency_table.py: trains what is missing, prints the published columns; and scripts/benchmark_live.py."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from polyamp import checkpoint, evaluate
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.notes import Notes

ROOT = Path(__file__).parents[2]
SMALL = '{"label_shift":2,"hop":1024,"model_complexity":2,"fc_size":8,"recurrent_units":8,"batch_size":1,"train_frames":32}'


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT.parent, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )


@pytest.fixture
def examples(tmp_path):
    audio = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    records.write(tmp_path / "x.tfrecord", [Example("x", audio, Notes.of([0.5], [1.0], [60], 80), (80, 80))])
    return tmp_path / "x.tfrecord"


@pytest.mark.slow
def test_variants_are_trained_once_and_listed_with_their_latency(load, examples, tmp_path, capsys):
    def table(**changes):
        settings = {"variants": "1-3-1:1:1024:256,3-3-3:0:2048:512", "hparams": SMALL, "num_steps": 2} | changes
        places = {"model_dir": tmp_path, "test_examples_path": examples, "output": tmp_path / "table.csv"}
        script, _ = load("latency_table", **places, **settings)
        return script.main(["latency_table"]), *capsys.readouterr()

    status, first, _ = table(examples_path=examples)
    assert status == 0
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["kernels"], row["shift"], row["window"], row["hop"], float(row["latency_ms"])) for row in rows] == [
        ("1-3-1", "1", "1024", "256", 32.0),
        ("3-3-3", "0", "2048", "512", 160.0),
    ]
    assert all(
        0 <= float(row[f"{kind}_{letter}"]) <= 1 for row in rows for kind in ("onset", "offset", "frame") for letter in "prf"
    )
    weights = tmp_path / "AUTOREGRESSIVE/1-3-1_1_1024_256/ckpt-00000002.npz"
    written = weights.stat().st_mtime_ns
    status, second, _ = table(examples_path=examples)  # Nothing is left to train.
    assert status == 0 and weights.stat().st_mtime_ns == written
    assert second.count("\n") == 4 and second == first
    status, third, _ = table(variants="1-3-1:1:1024:256", num_steps=1, examples_path=examples)  # It is beyond that.
    assert status == 0 and third.count("\n") == 3
    other = SMALL.replace('"recurrent_units":8', '"recurrent_units":24')
    status, _, errors = table(hparams=other)  # The models that are there have other weights.
    assert status == 1 and "recurrent_units" in errors


@pytest.mark.parametrize("quantised", [False, True])
def test_the_table_has_true_times_or_those_of_frames(load, monkeypatch, examples, tmp_path, capsys, quantised):
    names = ["note_onset", "note_offset", "note_frame", "quantised_note_onset", "quantised_note_offset", "quantised_frame"]
    scores = {f"{name}_{part}": 0.1 * place for place, name in enumerate(names) for part in ("precision", "recall", "f1")}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: {"mean": scores})
    places = {"model_dir": checkpoint.EMBEDDED, "test_examples_path": examples, "output": tmp_path / "table.csv"}
    script, _ = load("latency_table", variants="autoregressive_compact", quantised=quantised, **places)
    assert script.main(["latency_table"]) == 0
    (row,) = csv.DictReader((tmp_path / "table.csv").open())
    expected = (0.3, 0.4, 0.5) if quantised else (0.0, 0.1, 0.2)
    assert tuple(float(row[f"{kind}_f"]) for kind in ("onset", "offset", "frame")) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("3-3-3:0:2048", "write KERNELS:SHIFT:WINDOW:HOP"),
        ("3-2-3:0:2048:512", "must be odd"),
        ("nothing", "no checkpoint for --load_id"),
        ("", "names none"),
    ],
)
def test_mistakes_are_one_line(variant, words, examples, tmp_path):
    result = run("latency_table.py", f"--variants={variant}", f"--model_dir={tmp_path}", f"--test_examples_path={examples}")
    assert result.returncode == 1 and words in result.stderr and "Traceback" not in result.stderr


def test_mistakes_are_told_before_anything_is_trained(examples, tmp_path):
    arguments = [f"--examples_path={examples}", f"--hparams={SMALL}", "--num_steps=1", f"--model_dir={tmp_path / 'models'}"]
    for wrong, words in (
        ([f"--test_examples_path={tmp_path}/none*"], "none*: no TFRecord file"),
        ([f"--test_examples_path={examples}", f"--output={tmp_path}/absent/x.csv"], "x.csv: cannot be written"),
        ([f"--test_examples_path={examples}", "--variants=1-3-1:1:1024:256,absent"], "no checkpoint for --load_id=absent"),
    ):
        result = run("latency_table.py", "--variants=1-3-1:1:1024:256", *arguments, *wrong)
        assert result.returncode == 1 and words in result.stderr and "Traceback" not in result.stderr
        assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_an_interrupted_training_is_in_no_table(examples, tmp_path):
    arguments = [f"--examples_path={examples}", f"--test_examples_path={examples}", f"--hparams={SMALL}", "--num_steps=100000"]
    command = [sys.executable, ROOT / "scripts/latency_table.py", *arguments, "--variants=1-3-1:1:1024:256,1-1-1:0:1024:256"]
    command += [f"--model_dir={tmp_path}", "--checkpoint_interval=2", f"--output={tmp_path}/table.csv"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("AUTOREGRESSIVE/*/ckpt-*.npz")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "error: interrupted." in err and "|" not in out
    assert [folder.name for folder in (tmp_path / "AUTOREGRESSIVE").iterdir()] == ["1-3-1_1_1024_256"]
    assert not (tmp_path / "table.csv").exists()


def test_the_benchmark_measures_both_kinds_of_step():
    result = run("benchmark_live.py", "--presets=autoregressive_tiny", "--seconds=2")  # From another folder.
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [line[1] for line in lines] == ["numpy", "keras"]
    assert all(0 < float(line[6]) <= float(line[7]) for line in lines)  # Median and 99th percentile.
