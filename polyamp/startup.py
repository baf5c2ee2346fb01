"""The one place that starts Keras and its backend, so that a program's first lines on stderr are its own."""

import importlib
import os
import sys


def start_keras() -> None:
    """Imports Keras and its backend, which takes seconds; without TensorFlow's messages where they are unwanted.

    TensorFlow writes some while it is imported whatever `TF_CPP_MIN_LOG_LEVEL` says. Where that is above 0, they go nowhere:
    exceptions are not affected, but should an import end the process, `TF_CPP_MIN_LOG_LEVEL=0` shows why.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        importlib.import_module("keras")
        return
    sys.stderr.flush()
    standard_error, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # Not sys.stderr: the messages come from C++.
    try:
        importlib.import_module("keras")
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)
