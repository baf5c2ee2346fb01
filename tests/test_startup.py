"""How programs start and end."""

import subprocess
import sys

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
