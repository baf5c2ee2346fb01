"""How programs start and end."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polyamp import notes

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys, threading
from polyamp import startup
threading.Thread(target=threading.Event().wait).start()  # Never ends, as a thread of TensorFlow's now and then.
print("last words")
startup.leave(3)
"""


SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


def _answer(script, *arguments):
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_of_scripts_is_no_mistake_and_mistakes_are_one_line(script):
    helped = _answer(script, "--help")
    assert helped.returncode == 0 and "flags:" in helped.stdout and not helped.stderr
    mistaken = _answer(script, "--nonesuch=1")
    assert mistaken.returncode == 1 and not mistaken.stdout
    assert mistaken.stderr == "error: Unknown command line flag 'nonesuch'; --help lists all flags.\n"


@pytest.mark.parametrize("backend", ["nonesuch", "torch"])
def test_a_backend_that_is_not_there_is_one_line(backend):
    if importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is installed")
    command = [sys.executable, str(ROOT / "polyamp_runner.py"), "--mode=eval", "--examples_path=x"]
    environment = os.environ | {"KERAS_BACKEND": backend}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"polyamp: error: KERAS_BACKEND={backend}: Keras cannot use it (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset is needed; --input_dir is needed; --output_dir is needed; --help lists all flags."),
        (["--dataset=maps", "--input_dir=a", "--output_dir=b", "stray"], "not a flag: stray."),
        (["stray", "--dataset=maps", "--input_dir=a", "--output_dir=b", "--runner=DirectRunner"], "not a flag: stray."),
        (["--dataset=maps", "--input_dir=a", "--output_dir=b", "--runner=DirectRunner", "stray"], "not a flag: stray."),
        (
            ["--dataset=maps", "--input_dir=a", "--output_dir=b", "--direct_num_workers=2"],
            "Unknown command line flag 'direct_num",
        ),
        (
            ["--dataset=maps", "--input_dir=a", "--output_dir=b", "--runner=X", "--num_shard=2"],
            "Did you mean: num_shards; --help",
        ),
        (["--dataset=maps", "--input_dir=a", "--output_dir=b", "--max_length=inf"], "flag --max_length=inf: not a finite"),
        (["--dataset=maps", "--input_dir", "runner", "--output_dir=b", "stray"], "not a flag: stray."),
        (
            ["--dataset=maps", "--input_dir=a", "--output_dir=b", "--min_length=nan"],
            "flag --min_length=nan: not a finite number;",
        ),
    ],
)
def test_mistakes_where_beam_has_options_too(arguments, message):
    mistaken = _answer(ROOT / "scripts" / "create_tfrecords.py", *arguments)
    assert mistaken.returncode == 1 and mistaken.stderr.count("\n") == 1 and mistaken.stderr.startswith("error: ")
    assert message in mistaken.stderr


def test_values_of_beams_options_may_be_words_of_their_own():
    code = "import sys; sys.path.insert(0, 'scripts'); import transcribe_corpus as script\n"
    code += "print(script.beam_options.parse_flags(sys.argv))"
    line = ["--runner", "X", "--input=a", "--output_dir", "b", "--streaming", "--job_name=c"]
    result = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.stdout == "['-c', '--runner', 'X', '--streaming', '--job_name=c']\n", result.stderr


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_names_that_the_terminal_has_no_letters_for_are_said(tmp_path):
    shutil.copy(ROOT / "tests/data/handel_air.ogg", tmp_path / os.fsdecode(b"caf\xe9 \xc3\xa9.ogg"))
    command = [sys.executable, ROOT / "polyamp_runner.py", "--mode=predict", f"--audio_filename={tmp_path}/*.ogg"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    assert result.returncode == 0 and not result.stderr, result.stderr.decode()
    assert rb"caf\udce9 \xe9.ogg -> " in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="pipes of another kind")
def test_a_reader_that_stops_does_not_keep_recordings_from_being_done(tmp_path):
    for name in "ab":
        shutil.copy(ROOT / "tests/data/handel_air.ogg", tmp_path / f"{name}.ogg")
    command = [sys.executable, ROOT / "polyamp_runner.py", "--mode=predict", f"--audio_filename={tmp_path}/*.ogg"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and not errors, errors.decode()
    assert all((tmp_path / f"{name}-polyamp.mid").exists() for name in "ab")


@pytest.mark.skipif(os.name != "posix", reason="streams of another kind")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_cost_no_notes(tmp_path, closed):
    shutil.copy(ROOT / "tests/data/handel_air.ogg", tmp_path / "a.ogg")
    command = f"{sys.executable} {ROOT / 'polyamp_runner.py'} --mode=predict --audio_filename={tmp_path}/a.ogg"
    result = subprocess.run(f"{command} {closed}", shell=True, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and not result.stderr
    assert len(notes.read_midi(tmp_path / "a-polyamp.mid")) > 55  # Of the 65 that there are.
    live = f"{sys.executable} {ROOT / 'scripts/live.py'} --input={tmp_path}/a.ogg --speed=0 --output={tmp_path}/live.mid"
    assert subprocess.run(f"{live} {closed}", shell=True, capture_output=True, timeout=60).returncode == 0
    assert (tmp_path / "live.mid").stat().st_size > 300


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only where there is a disk that is always full")
def test_a_full_disk_behind_stdout_is_one_line(tmp_path):
    shutil.copy(ROOT / "tests/data/handel_air.ogg", tmp_path / "a.ogg")
    live = f"scripts/live.py --input={tmp_path}/a.ogg --speed=0 --output={tmp_path}/a.mid"
    for words in (f"polyamp_runner.py {tmp_path}/a.ogg", "polyamp_runner.py --help", live):
        command = f"{sys.executable} {words} > /dev/full"
        result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1 and "standard output: cannot be written to (No space left" in result.stderr, words
        assert "Traceback" not in result.stderr
    assert (tmp_path / "a-polyamp.mid").exists() and (tmp_path / "a.mid").exists()  # What was heard is kept.


@pytest.mark.skipif(os.name != "posix", reason="signals of another kind")
@pytest.mark.parametrize("number", [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)])
def test_signals_to_end_are_one_line_and_leave_nothing(tmp_path, number):
    code = (
        "import signal, sys; sys.argv = ['polyamp', '--mode=train', '--examples_path=x']\n"
        "import polyamp_runner; from polyamp import startup, atomic\n"
        "def start_keras():\n"
        f"    with atomic.new_folder({str(tmp_path / 'new')!r}):\n"
        f"        signal.raise_signal({int(number)})\n"
        "startup.start_keras = start_keras\n"
        "polyamp_runner.command()"
    )
    # Tests in the background may have to ignore Ctrl-C.
    default = {"preexec_fn": lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)]}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, **default)
    assert result.returncode == 130 and result.stderr == "polyamp: error: interrupted.\n"
    assert os.listdir(tmp_path) == []


def test_leaving_waits_for_no_thread_and_loses_no_output():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 3 and result.stdout == "last words\n"


def test_predictions_use_one_thread_for_matrix_products_unless_told_otherwise():
    code = (
        "import os, sys\nimport polyamp_runner\nassert 'numpy' not in sys.modules\n"
        "status = polyamp_runner.main(['polyamp', '--mode=predict', '--audio_filename=nowhere.wav'])\n"
        "print(status, os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)\n"
    )
    for given, expected in ((None, "1"), ("3", "3")):
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
        environment |= {"OPENBLAS_NUM_THREADS": given} if given else {}
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT
        )
        assert result.stdout == f"1 {expected} True\n", result.stderr


def test_threads_that_are_silent_at_once_leave_standard_error_as_it_was():
    code = """
import os, sys, threading, time
from polyamp import startup
def quiet(seconds):
    with startup.silent_stderr():
        os.write(2, b"hidden ")
        time.sleep(seconds)
threads = [threading.Thread(target=quiet, args=(seconds,)) for seconds in (0.03, 0.01, 0.02)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
os.write(2, b"seen")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "seen")


def test_silence_needs_no_standard_error():
    code = "from polyamp import startup\nwith startup.silent_stderr(): print('done')"
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
