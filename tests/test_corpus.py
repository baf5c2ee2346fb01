"""Corpora: `scripts/transcribe_corpus.py` writes what the predict mode writes, on any runner, and goes on after failures."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from polyamp import checkpoint, checkpoint_file, constants, corpus, hparams, models, notes, predict
from polyamp.corpus import Job, Weights
from polyamp.errors import CheckpointError, DataError, PolyampError
from polyamp.notes import Notes

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a piece of 50 s, the same from its middle on and 30 cents sharp, and a second of silence."""
    folder = tmp_path_factory.mktemp("corpus")
    from polyamp.audio import reading

    audio = np.tile(reading.read(DATA / "handel_air.ogg"), 10)[: 50 * constants.SAMPLE_RATE]
    for name, samples in (
        ("a", audio),
        ("b", soxr.resample(audio[len(audio) // 2 :], 2 ** (0.3 / 12), 1)),
        ("below/c", np.zeros(constants.SAMPLE_RATE)),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", samples, constants.SAMPLE_RATE)
    return folder


def run(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/transcribe_corpus.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model_type", corpus.MODEL_TYPES)
def test_the_notes_are_those_of_predict(recordings: Path, tmp_path: Path, model_type: str):
    from polyamp import beam_corpus

    # The last one twice, to be written to two places.
    jobs = corpus.plan([f"{recordings}/**/*.wav", f"{recordings}/below/c.wav"], str(tmp_path / "out"))
    counters = beam_corpus.transcribe(jobs, Weights(model_type), ["--runner=DirectRunner"], batch_size=3)
    assert (counters["recordings"], counters["seconds"]) == (4, 77)
    predict.predict(model_type, f"{recordings}/*.wav,{recordings}/below/c.wav", output_dir=str(tmp_path / "predicted"))
    for name in ("a", "b", "below/c"):
        midi = tmp_path / "predicted" / f"{Path(name).name}{predict.DEFAULT_SUFFIX}.mid"
        assert (tmp_path / "out" / f"{name}.mid").read_bytes() == midi.read_bytes()
        listing = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        expected = notes.read_midi(midi)
        assert sorted(note["pitch"] for note in listing["notes"]) == sorted(expected.pitch)
        assert sorted(note["onset"] for note in listing["notes"]) == pytest.approx(sorted(expected.onset), abs=0.002)
        assert listing["audio"] == str(recordings / f"{name}.wav") and listing["model"]["type"] == model_type
        if model_type == "FULL":
            assert sorted(note["program"] for note in listing["notes"]) == sorted(expected.program)
        else:
            assert not any("program" in note for note in listing["notes"])
    assert len(json.loads((tmp_path / "out/a.json").read_text())["notes"]) > 100
    for place in ("below/c", "c"):
        assert json.loads((tmp_path / f"out/{place}.json").read_text())["notes"] == []


def test_keras_models_get_windows_of_several_recordings_at_once(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from polyamp import beam_corpus

    folder = checkpoint.folder(tmp_path, "MELODIC", "x")
    folder.mkdir(parents=True)
    settings = hparams.resolve("MELODIC", "tiny", {"predict_onset_threshold": 0.5, "predict_window_seconds": 10.0})
    (folder / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
    checkpoint_file.save(checkpoint.step_path(folder, 1), models.build("MELODIC", settings), {"step": 1})
    handler = beam_corpus.RollsHandler(Weights("MELODIC", str(tmp_path)), batch_size=4)
    model = handler.load_model()
    rng = np.random.default_rng(0)
    lengths = (16_000, 32_000, 16_000)
    windows = [rng.normal(0, 0.1, length).astype(np.float32) for length in lengths]
    together = list(handler.run_inference(windows, model))
    for window, rolls in zip(windows, together, strict=True):
        alone = model.predict_on_batch(window[np.newaxis])
        assert rolls.keys() == alone.keys() == set(constants.ROLLS)
        for name, roll in rolls.items():
            np.testing.assert_allclose(roll, alone[name][0], atol=1e-5)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_and_go_on_after_failures(recordings: Path, tmp_path: Path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF no audio")
    (tmp_path / "list.txt").write_text(f"{recordings}/a.wav\n\n{recordings}/b.wav\n{tmp_path}/bad.wav\n{tmp_path}/gone.wav\n")
    flags = (f"--input={tmp_path}/list.txt", f"--output_dir={tmp_path}/two")
    runner = ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
    done = run(*flags, *runner)
    assert done.returncode == 1 and "2 of 4 recordings could not be transcribed" in done.stderr.splitlines()[-1], done.stderr
    failed = [json.loads(line) for line in (tmp_path / "two/failed.jsonl").read_text().splitlines()]
    assert [Path(one["audio"]).name for one in failed] == ["bad.wav", "gone.wav"]
    assert all(one["error"].startswith(one["audio"]) for one in failed)

    from polyamp import beam_corpus

    beam_corpus.transcribe(
        corpus.plan([str(recordings / "a.wav"), str(recordings / "b.wav")], str(tmp_path / "one")),
        Weights(),
        ["--runner=DirectRunner"],
    )
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert sorted(one) == ["a.json", "a.mid", "b.json", "b.mid"] and all(two[name] == one[name] for name in one)

    for name in ("bad", "gone"):  # Both can be read now; only they are transcribed.
        (tmp_path / f"{name}.wav").write_bytes((recordings / "below/c.wav").read_bytes())
    before = (tmp_path / "two/a.mid").stat().st_mtime_ns
    again = run(*flags)
    assert again.returncode == 0, again.stderr
    assert "counter recordings: 2" in again.stderr and "counter done before: 2" in again.stderr
    assert (tmp_path / "two/a.mid").stat().st_mtime_ns == before
    assert sorted(contents(tmp_path / "two")) == [
        f"{name}.{kind}" for name in ("a", "b", "bad", "gone") for kind in ("json", "mid")
    ]


def test_a_recording_that_breaks_off_leaves_no_notes(tmp_path: Path):
    from polyamp import beam_corpus

    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * constants.SAMPLE_RATE)
    soundfile.write(tmp_path / "whole.flac", samples, constants.SAMPLE_RATE)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "broken.flac").write_bytes(content[: len(content) * 2 // 3])
    jobs = corpus.plan([str(tmp_path / "broken.flac")], str(tmp_path / "out"))
    counters = beam_corpus.transcribe(jobs, Weights(), ["--runner=DirectRunner"])
    assert counters["failed"] == 1 and "recordings" not in counters
    (failure,) = corpus.collect_failures(jobs, str(tmp_path / "out/failed.jsonl"))
    assert "broken.flac" in failure["error"]
    assert sorted(contents(tmp_path / "out")) == [".broken.failed.json", "failed.jsonl"]


def test_places_of_the_files(tmp_path: Path):
    for name in ("x/one.wav", "x/deep/two.mp3", "y/one.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    jobs = corpus.plan([f"{tmp_path}/x/**/*.*"], "out")
    assert [job.output for job in jobs] == ["out/deep/two", "out/one"]
    assert corpus.plan([f"{tmp_path}/[xy]/one.wav"], "out")[1].midi == "out/y/one.mid"
    assert corpus.plan([f"{tmp_path}/x/one.wav"], "gs://bucket/out")[0].listing == "gs://bucket/out/one.json"
    with pytest.raises(DataError, match="would both be written to out/one.mid"):
        corpus.plan([f"{tmp_path}/x/one.wav", f"{tmp_path}/y/one.wav"], "out")
    with pytest.raises(DataError, match="no file matches"):
        corpus.plan([f"{tmp_path}/*.flac"], "out")
    with pytest.raises(DataError, match="--input= is empty"):
        corpus.plan([""], "out")
    with pytest.raises(DataError, match="no such list"):
        corpus.plan([f"{tmp_path}/list.txt"], "out")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DataError, match="names no recordings"):
        corpus.plan([f"{tmp_path}/list.txt"], "out")


def test_a_job_is_done_when_both_files_are_there(tmp_path: Path):
    job = Job("a.wav", str(tmp_path / "a"))
    corpus.note_failure(job, DataError("a.wav: is no audio."))
    assert corpus.collect_failures([job], str(tmp_path / "failed.jsonl")) == [
        {"audio": "a.wav", "error": "a.wav: is no audio."}
    ]
    corpus.write(job, Notes.of([0.5], [1.0], [60], 80), 2.0, {"type": "MELODIC"})
    assert corpus.unfinished([job]) == [] and corpus.collect_failures([job], str(tmp_path / "failed.jsonl")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mid"]
    Path(job.midi).unlink()
    assert corpus.unfinished([job]) == [job]


def test_failures_of_other_recordings_stay_listed(tmp_path: Path):
    jobs, place = [Job(f"{name}.wav", str(tmp_path / name)) for name in "ab"], str(tmp_path / "failed.jsonl")
    for job in jobs:
        corpus.note_failure(job, DataError(f"{job.audio}: is no audio."))
        assert [one["audio"] for one in corpus.collect_failures([job], place)] == [job.audio]
    listed = [json.loads(line)["audio"] for line in Path(place).read_text().splitlines()]
    assert listed == ["a.wav", "b.wav"]
    for job in jobs:
        corpus.write(job, Notes.of([0.5], [1.0], [60], 80), 2.0, {"type": "MELODIC"})
        assert corpus.collect_failures([job], place) == []
    assert not Path(place).exists()
    corpus.note_failure(jobs[0], DataError("a.wav: is no audio."))
    corpus.collect_failures(jobs[:1], place)
    corpus.write(Job("elsewhere/a.wav", jobs[0].output), Notes.of([0.5], [1.0], [60], 80), 2.0, {"type": "MELODIC"})
    assert corpus.collect_failures(jobs[1:], place) == [] and not Path(place).exists()  # By whatever name it was mended.
    Path(place).write_text("something else\n")
    assert corpus.collect_failures(jobs, place) == [] and not Path(place).exists()


def test_lists_may_begin_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.wav\r\nb.wav\r\n")
    assert [job.audio for job in corpus.plan([str(tmp_path / "list.txt")], "out")] == ["a.wav", "b.wav"]


def test_files_of_another_model_are_an_error(tmp_path: Path):
    jobs = [Job(f"{name}.wav", str(tmp_path / name)) for name in "abc"]
    model = {"type": "MELODIC", "checkpoint": "x/ckpt-00000001.npz", "step": 1}
    corpus.check_origins(jobs, model)
    corpus.write(jobs[1], Notes.of([0.5], [1.0], [60], 80), 2.0, model)
    corpus.check_origins(jobs, model)
    with pytest.raises(DataError, match=r"b\.json: its notes are those of MELODIC/x/ckpt-00000001.npz, not of FULL/y"):
        corpus.check_origins(jobs, {"type": "FULL", "checkpoint": "y/ckpt-1.npz", "step": 1})
    with pytest.raises(
        DataError, match=r"b\.json: its notes are of MELODIC/x/ckpt-00000001.npz with other weights or --hparams"
    ):
        corpus.check_origins(jobs, model | {"hparams": {"predict_onset_threshold": 0.3}})
    corpus.check_origins(jobs, model | {"checksum": "1 and 2", "checkpoint": "x/ckpt-00000001.npz and y/ckpt-00000001.npz"})
    corpus.write(jobs[2], Notes.of([0.5], [1.0], [60], 80), 2.0, model | {"step": 2})  # Not the first alone.
    with pytest.raises(DataError, match=r"c\.json: its notes are of MELODIC"):
        corpus.check_origins(jobs, model)
    Path(jobs[0].listing).write_text("[]")
    with pytest.raises(DataError, match=r"a\.json: is not a file of this program"):
        corpus.check_origins(jobs, model)


def test_models_are_told_by_their_weights(tmp_path: Path):
    from polyamp import beam_corpus  # Needs Apache Beam.

    paths = [tmp_path / folder / "a" / "ckpt-00000001.npz" for folder in ("MELODIC", "TIMBRE", "moved/MELODIC")]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([number]))

    def described(melodic: Path, timbre: Path | None = None) -> dict:
        loaded: Any = unittest.mock.Mock(paths=(melodic, timbre) if timbre else (melodic,), step=1)
        return beam_corpus.described(Weights("FULL"), loaded)

    joined = described(paths[0], paths[1])
    assert joined["checkpoint"] == "a/ckpt-00000001.npz and a/ckpt-00000001.npz"
    assert described(paths[0])["checkpoint"] == described(paths[2])["checkpoint"]
    assert joined == described(paths[0], paths[1])
    paths[1].write_bytes(b"other")
    answers = [joined, described(paths[0], paths[1]), described(paths[0]), described(paths[2])]
    assert all(first != second for first, second in itertools.combinations(answers, 2))


def test_another_recording_of_the_same_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "01.wav").touch()
    monkeypatch.chdir(tmp_path)
    model = {"type": "MELODIC", "checkpoint": "x/ckpt-00000001.npz", "step": 1}
    found = Notes.of([0.5], [1.0], [60], 80)
    corpus.write(Job("one/01.wav", "out/01"), found, 2.0, model)
    corpus.check_origins([Job(f"{tmp_path}/two/../one/01.wav", "out/01")], model)  # The same by another name.
    with pytest.raises(DataError, match=r"01\.json: its notes are those of one/01.wav, not of two/01.wav; give another"):
        corpus.check_origins([Job("two/01.wav", "out/01")], model)
    corpus.check_origins([Job("none/01.wav", "out/01")], model)  # Which is another mistake.
    shutil.rmtree("one")  # Perhaps moved.
    corpus.check_origins([Job("two/01.wav", "out/01")], model)
    corpus.write(Job("gs://a/01.wav", "out/01"), found, 2.0, model)
    with pytest.raises(DataError, match="those of gs://a/01.wav"):
        corpus.check_origins([Job("gs://b/01.wav", "out/01")], model)


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_names_that_are_no_text(recordings: Path, tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    shutil.copy(recordings / "below/c.wav", tmp_path / f"{name}.wav")
    flags = (f"--input={tmp_path}/*.wav", f"--output_dir={tmp_path}/out")
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    assert sorted(contents(tmp_path / "out")) == [f"{name}.json", f"{name}.mid"]
    assert json.loads((tmp_path / f"out/{name}.json").read_text())["audio"] == f"{tmp_path}/{name}.wav"
    (tmp_path / "list.txt").write_bytes(os.fsencode(f"{tmp_path}/{name}.wav\n"))
    assert [job.audio for job in corpus.plan([f"{tmp_path}/list.txt"], "out")] == [f"{tmp_path}/{name}.wav"]
    decoded = run(*flags, '--hparams={"onset_prediction_threshold":0.9}')
    assert decoded.returncode == 1 and "with other weights or --hparams" in decoded.stderr.splitlines()[-1]
    other = run(*flags, "--model_type=FULL")
    assert other.returncode == 1 and "its notes are those of MELODIC/melodic_compact" in other.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--runner=Nope", "Apache Beam: Unexpected pipeline runner: Nope"),
        ("--direct_running_mode=bogus", "Apache Beam: argument --direct_running_mode: invalid choice: 'bogus'"),
        ("--direct_num_workers=x", "Apache Beam: argument --direct_num_workers: invalid int value: 'x'"),
    ],
)
def test_mistakes_in_beams_options_are_one_line(option: str, message: str):
    from polyamp.data import beam_preparation

    with pytest.raises(PolyampError, match=message) as error:
        beam_preparation.make_pipeline(["--runner=DirectRunner", option])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="signals of another kind")
def test_ctrl_c_is_one_line(recordings: Path, tmp_path: Path):
    for number in range(10):  # Of which there is time to interrupt one.
        shutil.copy(recordings / "a.wav", tmp_path / f"{number}.wav")
    command = [sys.executable, str(ROOT / "scripts/transcribe_corpus.py"), f"--input={tmp_path}/*.wav"]
    process = subprocess.Popen(
        [*command, f"--output_dir={tmp_path}/out"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # Which tests in the background may have to ignore.
    )
    while not (tmp_path / "out").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.splitlines()[-1] == "error: interrupted." and "Traceback" not in errors, errors


def test_bad_settings_are_one_line(recordings: Path, tmp_path: Path):
    from polyamp import beam_corpus

    with pytest.raises(CheckpointError):
        beam_corpus.transcribe([], Weights(load_id="nowhere"), ["--runner=DirectRunner"])
    timbre = run(f"--input={recordings}/a.wav", f"--output_dir={tmp_path}/out", "--model_type=TIMBRE")
    assert timbre.returncode == 1 and timbre.stderr.splitlines()[-1].startswith("error: --model_type=TIMBRE")
    code = f"import sys; sys.modules['apache_beam'] = None; sys.argv[0] = {str(ROOT / 'scripts/transcribe_corpus.py')!r}; "
    code += "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    flags = [f"--input={recordings}/a.wav", f"--output_dir={tmp_path}/out"]
    without = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, timeout=120)
    assert without.returncode == 1 and 'pip install -e ".[beam]"' in without.stderr and "Traceback" not in without.stderr
    assert not (tmp_path / "out").exists()
