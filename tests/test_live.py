"""Live transcription: PCM from a pipe, pacing, timing, and the script as a user runs it."""

import functools
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import mido
import numpy as np
import pytest
import soundfile
import soxr

from polyamp import checkpoint, hparams, live, models, notes, state_stream, streaming, transcribe
from polyamp.audio import reading
from polyamp.errors import AudioError, PolyampError

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "tests/data/handel_air.ogg"


@pytest.fixture(scope="module")
def transcriber():
    settings = hparams.resolve("AUTOREGRESSIVE", "autoregressive_tiny", {"onset_boost": 4.0})
    keras.utils.set_random_seed(2)  # With other weights there may be no event at all.
    network = state_stream.of_model(models.build("AUTOREGRESSIVE", settings), settings)
    return lambda: streaming.StreamingTranscriber(network)


@pytest.fixture(scope="module")
def pcm(tmp_path_factory):
    """A recording as the script's stdin takes it, and as floats."""
    audio = reading.read(RECORDING)[:160_000]
    data = np.round(audio * 32_767).astype("<i2")
    return data.tobytes(), data.astype(np.float32) / 32_768


# --- Sound ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pcm_format", live.PCM_FORMATS)
def test_pcm_is_read_as_it_is_written(pcm_format):
    wave = np.random.default_rng(0).uniform(-1, 1, (5000, 2)).astype(np.float32)
    raw = (wave * 32_767).astype("<i2") if pcm_format == "s16le" else wave.astype("<f4")
    found = np.concatenate(list(live.from_pcm(io.BytesIO(raw.tobytes()), 16_000, pcm_format, channels=2)))
    np.testing.assert_allclose(found, wave.mean(axis=1), atol=1e-4)


def test_pcm_of_another_rate_is_resampled():
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype("<f4")
    found = np.concatenate(list(live.from_pcm(io.BytesIO(tone.tobytes()), 44_100, "f32le")))
    assert abs(len(found) - 16_000) <= 2
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=0.01)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 5, "ends within a sample"),
        (np.array([0.1, np.nan], "<f4").tobytes(), "no sound"),
        (np.array([0.1, 1e18], "<f4").tobytes(), "no sound"),
    ],
)
def test_what_is_no_pcm_is_an_error(data, words):
    with pytest.raises(AudioError, match=words):
        list(live.from_pcm(io.BytesIO(data), 16_000, "f32le" if len(data) == 8 else "s16le"))


def test_a_file_is_played_at_its_speed():
    blocks = [np.zeros(8_000, np.float32), np.zeros(4_000, np.float32)]
    start = time.monotonic()
    parts = list(live.at_speed(iter(blocks), 3.0, 512))
    assert 0.24 < time.monotonic() - start < 0.6
    assert max(map(len, parts)) == 512 and sum(map(len, parts)) == 12_000
    start = time.monotonic()
    list(live.at_speed(iter(blocks * 20), 0.0, 512))
    assert time.monotonic() - start < 0.2


# --- Running -------------------------------------------------------------------------------------------------------------


def test_run_reports_all_events_and_the_time_of_each_frame(transcriber, pcm):
    heard = []
    timing = live.run(transcriber(), iter([pcm[1]]), heard.append)
    whole = transcriber()
    assert heard and heard == whole.push(pcm[1]) + whole.finish()
    assert timing.seconds == pytest.approx(10.0) and timing.events == len(heard)
    assert 0 < timing.mean_ms <= timing.p99_ms and str(timing).count("ms") == 3


@pytest.mark.parametrize("size", [1, 256, 341, 1000])
def test_every_frame_is_timed_however_sound_comes(size):
    fake = types.SimpleNamespace(hop_length=512, push=lambda part: time.sleep(1e-5) or [], finish=list)
    sound = np.zeros(5000, np.float32)
    timing = live.run(fake, (sound[start : start + size] for start in range(0, 5000, size)), print)
    assert len(timing._frame_ms) == 5000 // 512 and min(timing._frame_ms) > 0.009 * min(512 / size, 1)
    assert timing.seconds == pytest.approx(5000 / 16_000)


def test_wherever_computing_is_interrupted_every_begin_has_an_end(transcriber, pcm, monkeypatch):
    """Events of the block in which it happens may be lost, but none that would sound on."""
    sound = pcm[1][:64_000]
    answers = streaming.StreamingTranscriber._events
    for last in range(2, 60, 3):
        numbers = itertools.count()

        def interrupted(self, frames, numbers=numbers, last=last):
            found = answers(self, frames)
            if found and next(numbers) == last:
                raise KeyboardInterrupt
            return found

        monkeypatch.setattr(streaming.StreamingTranscriber, "_events", interrupted)
        heard = []
        live.run(transcriber(), iter([sound]), heard.append)
        assert len(heard) > 2
        for pitch in {event.pitch for event in heard}:
            kinds = [event.is_on for event in heard if event.pitch == pitch]
            assert kinds == [True, False] * (len(kinds) // 2), (last, pitch)


def test_an_interruption_ends_the_stream_in_good_order(transcriber, pcm):
    def blocks():
        yield pcm[1][:80_000]
        raise KeyboardInterrupt

    heard = []
    live.run(transcriber(), blocks(), heard.append)
    whole = transcriber()
    assert heard and heard == whole.push(pcm[1][:80_000]) + whole.finish()


def _event(time, velocity, pitch):
    return streaming.NoteEvent(time, pitch, velocity)


def test_an_interruption_while_events_are_told_loses_none():
    on, off = functools.partial(_event, 1.0, 80), functools.partial(_event, 2.0, 0)
    push, finish = iter([[on(60), on(64), on(67)], [off(60), off(64)]]), [off(67)]
    fake = types.SimpleNamespace(hop_length=512, push=lambda part: next(push), finish=lambda: finish)
    heard = []

    def report(event):
        heard.append(event)
        if event == off(60) and heard.count(event) == 1:
            raise KeyboardInterrupt

    live.run(fake, iter([np.zeros(1024, np.float32)]), report)
    # Whether the one that was interrupted had been told is not known.
    assert heard == [on(60), on(64), on(67), off(60), off(60), off(64), off(67)]
    assert streaming.to_notes(heard).pitch.tolist() == [60, 64, 67]


def test_what_was_heard_before_an_error_is_reported(transcriber, pcm):
    def blocks():
        yield pcm[1][:80_000]
        raise AudioError("broken")

    heard = []
    with pytest.raises(AudioError, match="broken"):
        live.run(transcriber(), blocks(), heard.append)
    whole = transcriber()
    assert heard and heard == whole.push(pcm[1][:80_000]) + whole.finish()


def test_says_when_it_falls_behind(transcriber, monkeypatch):
    said = []
    monkeypatch.setattr(live.logging, "warning", lambda message, *values: said.append(message % values))
    slow = transcriber()
    push = slow.push
    slow.push = lambda block: (time.sleep(0.1), push(block))[1]
    live.run(slow, iter([np.zeros(4096, np.float32)]), lambda event: None)
    assert len(said) == 1 and "behind the sound" in said[0]
    live.run(transcriber(), iter([np.zeros(16_000, np.float32)]), lambda event: None)
    assert len(said) == 1


def test_timing_by_hand():
    timing = live.Timing(hop_ms=32.0)
    assert timing.mean_ms == timing.p99_ms == 0
    for milliseconds in range(1, 102):
        timing.add(milliseconds)
    assert (timing.mean_ms, timing.p99_ms) == (51, 100)


# --- The script ----------------------------------------------------------------------------------------------------------


def script(*arguments, **kwargs):
    command = [sys.executable, str(ROOT / "scripts/live.py"), *arguments]
    return subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, **kwargs)


@pytest.fixture(scope="module")
def of_file(pcm):
    """The notes that the weights in the package find in the whole recording."""
    loaded = checkpoint.load_model("AUTOREGRESSIVE")
    return transcribe.transcribe(loaded.model, lambda: [pcm[1]], loaded.hparams)


def test_stdin_faster_than_real_time_gives_the_notes_of_the_file(pcm, of_file, tmp_path):
    result = script("--input=-", f"--output={tmp_path / 'out.mid'}", input=pcm[0])
    assert result.returncode == 0, result.stderr.decode()
    lines = [line.split() for line in result.stdout.decode().splitlines()]
    begun = sorted((round(float(line[0]), 3), int(line[3])) for line in lines if line[1] == "on")
    expected = sorted(zip(np.round(of_file.onset, 3).tolist(), of_file.pitch.tolist(), strict=True))
    assert len(begun) == len(of_file) > 10
    np.testing.assert_allclose(begun, expected, atol=2e-3)
    written = notes.read_midi(tmp_path / "out.mid")
    np.testing.assert_allclose(np.sort(written.onset), np.sort(of_file.onset), atol=2e-3)
    assert b"p99" in result.stderr and b"latency 128 ms" in result.stderr


def test_says_which_tuning_it_should_be_told(pcm, tmp_path):
    soundfile.write(tmp_path / "sharp.wav", soxr.resample(pcm[1], 2 ** (40 / 1200), 1), 16_000)
    arguments = (f"--input={tmp_path / 'sharp.wav'}", "--speed=0", "--quiet")
    told = script(*arguments)
    assert told.returncode == 0, told.stderr.decode()
    a4_hz = float(re.search(r"tuning is A4 = ([\d.]+) Hz; with --a4=\1 it is heard better", told.stderr.decode())[1])
    assert a4_hz == pytest.approx(440 * 2 ** (40 / 1200), abs=1.0)
    assert b"A4" not in script(*arguments, f"--a4={a4_hz}").stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
def test_a_reader_that_stops_costs_no_recording(pcm, of_file, tmp_path):
    path = tmp_path / "out.mid"
    for output in ([f"--output={path}"], []):
        command = [sys.executable, str(ROOT / "scripts/live.py"), "--input=-", *output]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, **pipes)
        process.stdout.close()
        _, errors = process.communicate(pcm[0], timeout=120)
        assert process.returncode == 0 and b"Traceback" not in errors and b"Broken pipe" not in errors, errors
    assert len(notes.read_midi(path)) == len(of_file)


@pytest.mark.skipif(os.name == "nt", reason="signals of another kind")
@pytest.mark.parametrize("number", [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)])
def test_ctrl_c_writes_what_it_has(pcm, tmp_path, number):
    path = tmp_path / "out.mid"
    command = [sys.executable, str(ROOT / "scripts/live.py"), "--input=-", f"--output={path}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Tests in the background may have to ignore Ctrl-C and a terminal that is closed.
    default = {"preexec_fn": lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)]}
    process = subprocess.Popen(command, cwd=ROOT, **default, **pipes)
    process.stdin.write(pcm[0])
    process.stdin.flush()
    begun = 0
    while begun <= 10 and (line := process.stdout.readline()):  # It waits for more when it has told all.
        begun += line.split()[1] == b"on"
    process.send_signal(number)
    process.wait(timeout=60)  # Although its input goes on.
    _, errors = process.communicate()
    assert process.returncode == 0 and b"written" in errors and b"Traceback" not in errors
    assert len(notes.read_midi(path)) > 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input=missing.wav"], "missing.wav: no such file"),
        (["--input=-", "--load_id=nothing"], "no checkpoint for --load_id=nothing"),
        (["--input=-", "--output=missing/out.mid"], "cannot be written"),
        (["--input=-", f"--output={'x' * 300}.mid"], "cannot be written (File name too long)"),
        (["--input=-", "--output=tests"], "cannot be written (it is a folder)"),
        (["--input=-", "--output="], "--output= is empty"),
        (["--input="], "--input= is empty"),
        (["--input=-", "--speed=nan"], "--speed=nan: not a finite number"),
        (["--input=-", "--speed=1e-300"], "--speed=1e-300: from 0.01"),
        ([f"--input={RECORDING}", f"--output={RECORDING}"], "is the recording itself"),
        (["--inptu=-"], "Unknown command line flag 'inptu'. Did you mean: input; --help"),
        (["file.wav"], "not a flag: file.wav"),
        (["--input=-", "--format=f32le"], "no sound|ends within a sample"),
        ([f"--input={RECORDING}", "--rate=44100"], "--rate is for raw samples from a pipe"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    result = script(*arguments, input=b"\xff" * 4001)
    errors = [line for line in result.stderr.decode().splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1, result.stderr.decode()
    assert any(word in errors[0] for word in words.split("|"))
    assert "Traceback" not in result.stderr.decode() and "Warning" not in result.stderr.decode()


def test_a_failure_before_the_first_note_costs_no_older_recording(tmp_path):
    path = tmp_path / "keep.mid"
    path.write_bytes(b"of yesterday")
    result = script("--input=-", f"--output={path}", input=b"\0" * 32_001)
    assert result.returncode == 1 and b"no note was heard" in result.stderr and b"ends within a sample" in result.stderr
    assert path.read_bytes() == b"of yesterday" and os.listdir(tmp_path) == ["keep.mid"]


def test_without_its_library_the_microphone_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(PolyampError, match="pip install sounddevice"):
        next(live.from_microphone())


def test_messages_for_a_midi_port():
    import importlib.util

    spec = importlib.util.spec_from_file_location("live_script", ROOT / "scripts/live.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    on, off = streaming.NoteEvent(1.0, 61, 90), streaming.NoteEvent(2.5, 61, 0)
    assert module._message(on) == mido.Message("note_on", note=61, velocity=90)
    assert module._message(off) == mido.Message("note_off", note=61, velocity=0)
    assert module._line(on).split() == ["1.000", "on", "C#4", "61", "velocity", "90"]
