"""Several devices and machines: the same weights as one device with all their examples, one that writes, and lost workers."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import polyamp_runner
from polyamp import checkpoint, checkpoint_file, distribution, hparams, rendezvous, train
from polyamp.data import records
from polyamp.data.example import Example
from polyamp.errors import PolyampError
from polyamp.notes import Notes

ROOT = Path(__file__).parents[1]
STEPS = 3
FULL = {
    "timbre_architecture": "harmonics",
    "timbre_hop_length": 512,
    "timbre_patch_units": [8],
    "timbre_max_notes": 16,
    "full_max_notes": 16,
    "timbre_dropout": 0.0,  # The only thing that differs: every device draws its own.
}
# Runs `train.train` with the arguments of JSON, on as many CPU devices as the first argument says.
SCRIPT = """
import json, sys
import tensorflow as tf
from polyamp import hparams, startup, train
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))
for arguments in json.loads(sys.argv[2]):
    settings = hparams.resolve(arguments["model_type"], "tiny", arguments.pop("hparams"))
    try:
        train.train(hparams=settings, **arguments)
    except hparams.HParamsError as error:
        print("refused:", error)
startup.leave(0)
"""


def melody(seed, seconds):
    """An example of tones of two families; one of less than a second is shorter than a crop."""
    rng = np.random.default_rng(seed)
    onset = np.arange(0.1, seconds - 0.4, 0.3)
    pitch = rng.integers(50, 80, len(onset))
    audio = np.zeros(int(seconds * 16_000))
    for start, key in zip(onset, pitch, strict=True):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * np.arange(4800) / 16_000)
        first = int(start * 16_000)
        audio[first : first + 4800] += 0.3 * tone * np.linspace(1, 0, 4800)
    notes = Notes.of(onset, onset + 0.3, pitch, rng.integers(40, 120, len(onset)), np.where(pitch < 65, 33, 73))
    return Example(f"melody-{seed}", audio.astype(np.float32), notes, (40, 120))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distribution")
    records.write(folder / "train.tfrecord", [melody(seed, seconds) for seed, seconds in enumerate((4.0, 0.7, 3.0, 0.9))])
    return folder


def arguments(folder, model_id, batch_size, model_type="MELODIC", **changes):
    settings = {"augment_probability": 0.5, "batch_size": batch_size, **(FULL if model_type == "FULL" else {})}
    return {
        "model_type": model_type,
        "hparams": settings | changes.pop("hparams", {}),
        "examples_path": f"{folder}/train.tfrecord",
        "model_dir": str(folder / "models"),
        "model_id": model_id,
        "load_id": "",
        "num_steps": STEPS,
        "checkpoint_interval": STEPS,
        **changes,
    }


def run(folder, *given, **changes):
    """Trains in this process."""
    named = arguments(folder, *given, **changes)
    return train.train(**named | {"hparams": hparams.resolve(named["model_type"], "tiny", named["hparams"])})


@pytest.fixture(scope="module")
def whole(folder):
    """What one device learns from batches of four, by model type."""
    return {kind: run(folder, "whole", 4, kind) for kind in ("MELODIC", "FULL")}


def assert_same(first, second):
    """The moments of the gradients, within 0.5 % of the largest; and weights, which have moved by up to 0.03, within 0.002.

    Each of the things that make a global batch, left out, gives moments that differ by 4 % or more.

    Adam makes whole steps of gradients that are zero but for rounding, as all those of biases before a normalization are: of
    weights those are compared whose moments are at least 2 % of the largest, of biases only the moments.
    """
    first, second = checkpoint_file.read(first)[0], checkpoint_file.read(second)[0]
    assert first.keys() == second.keys()
    largest = max(np.abs(array).max() for name, array in first.items() if name.endswith("_momentum"))
    for name in first:
        if name.endswith("_momentum"):
            np.testing.assert_allclose(first[name], second[name], rtol=0, atol=5e-3 * largest, err_msg=name)
        elif name.startswith("weights/") and not name.endswith("bias"):
            moment = first.get(f"optimizer/{name.removeprefix('weights/').replace('/', '_')}_momentum")
            where = slice(None) if moment is None else np.abs(moment) >= 0.02 * largest
            np.testing.assert_allclose(first[name][where], second[name][where], rtol=0, atol=2e-3, err_msg=name)


def start(*command, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process, status=0):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == status, output
    assert "Traceback" not in output
    return output


def free_addresses(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def start_workers(folder, model_id, *flags):
    """Two processes with batches of two."""
    addresses = free_addresses(2)
    places = [f"--examples_path={folder}/train.tfrecord", f"--model_dir={folder}/models", f"--model_id={model_id}"]
    settings = '--hparams={"augment_probability":0.5,"batch_size":2}'
    configs = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    command = [ROOT / "polyamp_runner.py", "--config=tiny", "--strategy=multi_worker", "--load_id=", settings, *places, *flags]
    return [start(*command, TF_CONFIG=json.dumps(config)) for config in configs]


@pytest.mark.parametrize("cached", [False, True])
def test_one_mirrored_device_learns_what_a_plain_one_does(folder, cached):
    cache_dir = str(folder / "cache") if cached else None
    plain, mirrored = (run(folder, f"{s}-{cached}", 2, cache_dir=cache_dir, strategy=s) for s in ("none", "mirrored"))
    first, second = checkpoint_file.read(plain)[0], checkpoint_file.read(mirrored)[0]
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_two_devices_learn_what_one_with_twice_the_batch_does(folder, whole):
    runs = [arguments(folder, "mirrored", 2, kind, strategy="mirrored") for kind in whole]
    refused = [{"jit_compile": True}, {"precision": "mixed_float16"}]
    runs += [arguments(folder, "refused", 2, strategy="mirrored", hparams=settings) for settings in refused]
    output = end(start("-c", SCRIPT, 2, json.dumps(runs)))
    assert "refused: jit_compile" in output and "refused: precision" in output
    for kind, path in whole.items():
        assert_same(path, folder / "models" / kind / "mirrored" / path.name)


@pytest.mark.slow
def test_two_workers_learn_what_one_with_twice_the_batch_does_and_one_of_them_writes(folder, whole):
    directory = checkpoint.folder(folder / "models", "MELODIC", "workers")
    flags = [f"--num_steps={STEPS}", f"--checkpoint_interval={STEPS}", f"--validation_examples_path={folder}/train.tfrecord"]
    for worker in start_workers(folder, "workers", *flags):
        assert f"trained: {checkpoint.step_path(directory, STEPS)}" in end(worker)
    assert_same(whole["MELODIC"], checkpoint.step_path(directory, STEPS))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [STEPS, STEPS]  # Of training and of validation, each once.
    alone = [json.loads(line) for line in (whole["MELODIC"].parent / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-4)
    assert json.loads((directory / "hparams.json").read_text())["batch_size"] == 2


def test_a_worker_that_left_first_is_missed_only_if_something_is_left_to_do(monkeypatch):
    devices = distribution._Replicated(distribution.tf.distribute.get_strategy(), workers=2)

    def gone(self, number):
        raise distribution.tf.errors.UnavailableError(None, None, "socket closed")

    monkeypatch.setattr(distribution._Replicated, "_sum", gone)
    devices.leave(lambda: True)
    with pytest.raises(distribution.tf.errors.UnavailableError):
        devices.leave(lambda: False)


@pytest.mark.slow
def test_a_lost_worker_ends_the_others_and_all_go_on_when_they_are_started_again(folder):
    directory = checkpoint.folder(folder / "models", "MELODIC", "killed")
    flags = [f"--cache_dir={folder}/cache", "--checkpoint_interval=5"]
    chief, killed = start_workers(folder, "killed", *flags, "--num_steps=1000000")
    deadline = time.monotonic() + 200
    while not checkpoint.numbered(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (line,) = [line for line in end(chief, status=1).splitlines() if line.startswith("polyamp: error:")]
    assert "another worker is gone. Start all workers again" in line
    path = checkpoint.numbered(directory)[-1]
    reached = checkpoint_file.read(path)[1]["step"]
    for worker in start_workers(folder, "killed", *flags, f"--num_steps={reached + 5}"):
        assert f"Going on from {path}" in end(worker)
    assert checkpoint_file.read(checkpoint.numbered(directory)[-1])[1]["step"] == reached + 5


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_two_devices_on_jax_learn_what_one_with_twice_the_batch_does(folder):
    cached = {"cache_dir": str(folder / "cache-jax")}
    runs = [arguments(folder, "jax", 4, **cached), arguments(folder, "jax-2", 2, strategy="mirrored", **cached)]
    flags = "--xla_force_host_platform_device_count=2"
    # One after the other in one process: the strategy ends with its run.
    end(start("-c", SCRIPT, 1, json.dumps([runs[1], runs[0]]), KERAS_BACKEND="jax", XLA_FLAGS=flags))
    models = folder / "models" / "MELODIC"
    assert_same(*(checkpoint.step_path(models / name, STEPS) for name in ("jax", "jax-2")))


def config(cluster, task):
    return json.dumps({"cluster": cluster, "task": task})


FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is not set"),
        ("{", "is not JSON"),
        ("[1]", 'needs "cluster" and "task"'),
        (config({"worker": ["a:1"]}, None), 'needs "cluster" and "task"'),
        (config({"worker": ["a:1"], "ps": ["b:1"]}, FIRST), "nothing else"),
        (config({"worker": "a:1"}, FIRST), "nothing else"),
        (config({"worker": ["a:1", "b"]}, FIRST), "not 'b'"),
        (config({"worker": ["a:1", "b:70000"]}, FIRST), "not 'b:70000'"),
        (config({"worker": ["a:1", 2]}, FIRST), "not 2"),
        (config({"worker": ["a:1", "a:1"]}, FIRST), "not 'a:1'"),
        (config({"worker": ["a:1"]}, {"type": "worker", "index": 1}), "none of its cluster"),
        (config({"worker": ["a:1"]}, {"type": "worker", "index": "0"}), "none of its cluster"),
        (config({"worker": ["a:1"]}, {"type": "chief", "index": 0}), "none of its cluster"),
    ],
)
def test_a_bad_tf_config_is_one_line_before_anything_is_written(folder, tmp_path, monkeypatch, capsys, text, problem):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    flags = ["--config=tiny", "--strategy=multi_worker", "--model_id=a", f"--model_dir={tmp_path}/models"]
    assert polyamp_runner.main(["polyamp", f"--examples_path={folder}/train.tfrecord", *flags]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("polyamp: error:")]
    assert "TF_CONFIG" in line and problem in line
    assert not (tmp_path / "models").exists()


def test_several_workers_need_the_name_that_they_share(folder, capsys):
    assert polyamp_runner.main(["polyamp", f"--examples_path={folder}/train.tfrecord", "--strategy=multi_worker"]) == 1
    assert "needs --model_id" in capsys.readouterr().err


def test_the_chief_comes_first_whatever_the_job_is_called(monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    monkeypatch.setenv("TF_CONFIG", config(cluster, {"type": "worker", "index": 1}))
    assert rendezvous.read_cluster() == rendezvous.Cluster(("a:1", "b:1", "c:1"), 2)
    assert not distribution.is_chief("multi_worker")
    assert distribution.is_chief("none")  # Left over from another program.


def test_workers_wait_for_one_another():
    addresses, met = tuple(free_addresses(3)), []

    def come(index):
        rendezvous.meet(rendezvous.Cluster(addresses, index), seconds=30)
        met.append(index)

    threads = [threading.Thread(target=come, args=(index,)) for index in (2, 0, 1)]
    for thread in threads[:2]:
        thread.start()
    time.sleep(0.5)
    assert not met
    threads[2].start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1, 2]


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_does_not_come_is_named(index):
    addresses = tuple(free_addresses(2))
    with pytest.raises(PolyampError, match=f"missing: {addresses[1 - index]}"):
        rendezvous.meet(rendezvous.Cluster(addresses, index), seconds=0.5)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PolyampError, match=f"{address}: the chief cannot listen"):
            rendezvous.meet(rendezvous.Cluster((address, "127.0.0.1:1"), 0), seconds=0.5)


@pytest.mark.parametrize(("backend", "strategy"), [("jax", "multi_worker"), ("torch", "mirrored")])
def test_a_backend_without_the_strategy_is_named(monkeypatch, backend, strategy):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(PolyampError, match=f"--strategy={strategy} needs the TensorFlow"):
        with distribution.opened(strategy):
            pass
