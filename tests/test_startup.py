"""How programs start and end."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys, threading
from polyamp import startup
threading.Thread(target=threading.Event().wait).start()  # Never ends, as a thread of TensorFlow's now and then.
print("last words")
startup.leave(3)
"""


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
