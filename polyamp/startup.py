"""How programs start and end: Keras and its backend without their own messages, and scripts whose errors are one line."""

import contextlib
import importlib
import io
import math
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags

from polyamp.errors import PolyampError

_SILENCE = threading.RLock()  # Of what `silent_stderr` changes, which all threads share.

HELP_FLAGS = ("--help", "-help", "-h", "--helpshort", "--helpfull")


def parse_flags(
    argv: Sequence[str], values: flags.FlagValues = flags.FLAGS, known_only: bool = False, words: bool = False
) -> list[str]:
    """Parses a command line, of a script or of the runner, where all settings are flags.

    Args:
        argv: The program's name and its arguments.
        values: The flags.
        known_only: Other flags, and words, may be among them and are given back.
        words: Words that are no flags may be, and are given back.

    Returns:
        The program's name, and after it what is left with `known_only` or `words`.

    Raises:
        PolyampError: Anything in it is not understood.
    """
    values.set_gnu_getopt(True)  # So that flags after a stray argument are not taken for stray ones as well.
    try:
        program, *stray = values(list(argv), known_only)
    except flags.Error as error:
        lines = [re.sub(r"^flag (--\w+)=None: .*", r"\1 is needed", line) for line in str(error).splitlines()]
        raise PolyampError("; ".join(lines).removesuffix(" ?").removesuffix(".") + "; --help lists all flags.") from error
    if not (known_only or words):
        refuse(stray)
    for name, value in values.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):  # absl lets NaN through its bounds.
            raise PolyampError(f"flag --{name}={value}: not a finite number; --help lists all flags.")
    return [program, *stray]


def refuse(stray: Sequence[str], nor: str = "") -> None:
    """`PolyampError` if there are words where only flags may be, or what else `nor` says that they are not."""
    if any(not word.strip() for word in stray):
        raise PolyampError("an argument of spaces: probably a space after the backslash at a line's end; remove the space.")
    if stray:
        listed = " ".join(stray[:3]) + (" ..." if len(stray) > 3 else "")
        raise PolyampError(
            f"not a flag{nor}: {listed}. Write flags as --name=value, and put values with spaces, quotes or globs in "
            "single quotes."
        )


def run(main: Callable[[Sequence[str]], int], parse: Callable[[Sequence[str]], list[str]] = parse_flags) -> NoReturn:
    """Runs a script with the flags of its command line and ends the process with the status that its `main` returns.

    Mistakes on the command line are one line on stderr and status 1; `--help` prints the flags on stdout, and status 0.

    Args:
        main: Takes what `parse` returns.
        parse: Parses the flags and gives back the program's name and what else there is; a `PolyampError` is a mistake.
    """
    open_streams()
    interrupt_on_signals()

    def parsed(argv: Sequence[str]) -> list[str]:
        if any(argument in HELP_FLAGS for argument in argv[1:]):
            app.usage(shorthelp=True, writeto_stdout=True)
            sys.exit(0)
        try:
            return parse(argv)
        except PolyampError as error:
            sys.exit(f"error: {error}")

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Of what a script says TensorFlow's own is no part.
    try:
        app.run(main, flags_parser=parsed)
    except KeyboardInterrupt:
        sys.exit(_interrupted())
    raise AssertionError("absl ends the process")


def run_script(argv: Sequence[str], work: Callable[[], None]) -> int:
    """Does the work of a script all of whose settings are flags, and returns its exit status.

    Args:
        argv: What the flags left over; only the program's name may be.
        work: Does it. A `PolyampError` from it becomes one line on stderr and status 1, Ctrl-C another and 130.
    """
    try:
        refuse(argv[1:])
        work()
    except PolyampError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if not _was_interrupted(error):
            raise
        return _interrupted()
    return 0


def _interrupted() -> int:
    """Says so and gives the exit status."""
    sys.stderr.write("error: interrupted.\n")
    return 130


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether what an error comes from is Ctrl-C, of which Apache Beam makes a `RuntimeError` and imports an `ImportError`."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def open_streams() -> None:
    """Standard streams that can be written to: what is closed goes nowhere, and stdout takes every file name.

    Also names that its encoding has no characters for.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # The lowest that is free; libraries in C write to 1 and 2.
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process lives.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str) -> bool:
    """Prints a line at once.

    Returns:
        False if nobody reads on (`| head`). That line and those after it go nowhere, of which those after it give True.

    Raises:
        PolyampError: It cannot be, as a disk is full.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        _to_nowhere(sys.stdout.fileno())  # What is left there would fail at the end.
        if not isinstance(error, BrokenPipeError):
            raise PolyampError(f"standard output: cannot be written to ({error.strerror}).") from error
        return False
    return True


def limit_blas_threads() -> None:
    """Keeps numpy's matrix products to one thread, unless the environment says otherwise. Has to come before numpy is imported.

    Those of predictions are small: more threads make them slower, take all processors, and wait for one another where other
    programs compute as well. What networks take long for has threads of its own.
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def other_signals() -> list[int]:
    """What ends a process as Ctrl-C does, unless it is ignored, as under nohup: SIGTERM, and SIGHUP where there is one."""
    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    return [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


def interrupt_on_signals() -> None:
    """Makes of `other_signals` what Ctrl-C is, so that nothing half-written stays."""

    def interrupt(number, frame):
        if is_hang_up(number):
            forget_terminal()
        raise KeyboardInterrupt

    for number in other_signals():
        signal.signal(number, interrupt)


def is_hang_up(number: int) -> bool:
    """Whether a signal says that the terminal is gone."""
    return number == getattr(signal, "SIGHUP", None)


def forget_terminal() -> None:
    """Lets what is written to a terminal that is gone go nowhere, instead of being an error."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            _to_nowhere(stream)


def _to_nowhere(stream: int) -> None:
    """What is written to a stream, by its number, is lost from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


def start_keras() -> None:
    """Imports Keras and its backend, which takes seconds; without TensorFlow's messages where they are unwanted.

    TensorFlow writes some while it is imported whatever `TF_CPP_MIN_LOG_LEVEL` says. Where that is above 0, they go nowhere:
    exceptions are not affected, but should an import end the process, `TF_CPP_MIN_LOG_LEVEL=0` shows why.

    Raises:
        PolyampError: KERAS_BACKEND names something that is not installed, or no backend.
    """
    silence = contextlib.nullcontext() if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0" else silent_stderr()
    try:
        with silence:
            importlib.import_module("keras")
    except (ImportError, ValueError) as error:
        if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            raise
        raise PolyampError(f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}: Keras cannot use it ({error}).") from error


def require_tensorflow(what: str) -> None:
    """Raises `PolyampError` if Keras, which has been started, computes with something else."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise PolyampError(f"{what} needs TensorFlow, not KERAS_BACKEND={keras.backend.backend()}; leave that out.")


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Nothing is written to the process' standard error, not from C++ either; one thread at a time."""
    with _SILENCE:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            standard_error = os.dup(2)
        except OSError:  # There is none.
            yield
            return
        _to_nowhere(2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def leave(status: int) -> NoReturn:
    """Ends the process with this exit status, all output written, but without tearing TensorFlow down.

    Python would delete what is left of a training's input pipeline while holding its lock, and wait for a thread of it that
    waits for that lock: now and then a finished training never ended.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # A closed pipe.
            stream.flush()
    os._exit(status)
