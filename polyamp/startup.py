"""How programs start and end: Keras and its backend without their own messages, and scripts whose errors are one line."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app

from polyamp.errors import PolyampError


def run_script(argv: Sequence[str], run: Callable[[], None]) -> int:
    """Runs a script all of whose settings are flags, and returns its exit status.

    Args:
        argv: What the flags left over; only the program's name may be.
        run: Does the work. A `PolyampError` from it becomes one line on stderr and status 1.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; all settings are flags.")
    try:
        run()
    except PolyampError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def limit_blas_threads() -> None:
    """Keeps numpy's matrix products to one thread, unless the environment says otherwise. Has to come before numpy is imported.

    Those of predictions are small: more threads make them slower, take all processors, and wait for one another where other
    programs compute as well. What networks take long for has threads of its own.
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def start_keras() -> None:
    """Imports Keras and its backend, which takes seconds; without TensorFlow's messages where they are unwanted.

    TensorFlow writes some while it is imported whatever `TF_CPP_MIN_LOG_LEVEL` says. Where that is above 0, they go nowhere:
    exceptions are not affected, but should an import end the process, `TF_CPP_MIN_LOG_LEVEL=0` shows why.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        importlib.import_module("keras")
        return
    with silent_stderr():
        importlib.import_module("keras")


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Nothing is written to the process' standard error, not from C++ either."""
    sys.stderr.flush()
    standard_error, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)


def leave(status: int) -> NoReturn:
    """Ends the process with this exit status, all output written, but without tearing TensorFlow down.

    Python would delete what is left of a training's input pipeline while holding its lock, and wait for a thread of it that
    waits for that lock: now and then a finished training never ended.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # A closed pipe.
            stream.flush()
    os._exit(status)
