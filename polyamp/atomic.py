"""Files and folders that appear under their name only when they are complete."""

import contextlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from polyamp.errors import PolyampError

_ABANDONED_SECONDS = 3600.0


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary name in the folder of `path` to write to, and renames it to `path` when the block is left.

    An exception in the block leaves an existing file as it was. A link stays, and what it stands for is replaced. The temporary
    name keeps the extension alone, by which some libraries choose the format: with more it might be too long.

    Raises:
        PolyampError: The file cannot be written.
    """
    path = Path(path)
    target = _target(path)
    temporary = target.with_name(f".{unique()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise PolyampError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike, flag: str = "") -> Iterator[Path]:
    """Gives a folder of a temporary, hidden name beside `path` to fill, and renames it to `path` when the block is left.

    An exception in the block leaves nothing behind but the folders that it would lie in.

    Raises:
        PolyampError: It cannot be made, or files in it cannot be, or something is there under its name that is no empty folder;
            says to choose another by `flag` if that is given.
    """
    path = Path(path)
    unfinished = path.with_name(f".{unique()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise PolyampError(f"{path}: cannot be written ({error.strerror or error}){_advice(flag)}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _target(path: Path) -> Path:
    """What a link stands for; `PolyampError` for what is there and no file: a folder, a device, a pipe."""
    try:
        target = Path(os.path.realpath(path))
        if path.exists() and not path.is_file():
            raise PolyampError(f"{path}: cannot be written (it is {'a folder' if path.is_dir() else 'no file'}).")
    except OSError as error:
        raise PolyampError(f"{path}: cannot be written ({error.strerror}).") from error
    return target


def remove_abandoned(folder: str | os.PathLike) -> None:
    """Removes what `replacing` and `new_folder` left in a folder when their process was killed.

    That is what nothing has been written to for an hour: another process may be at it.
    """
    for path in Path(folder).glob(".*.tmp*"):
        if re.fullmatch(r"\.[0-9a-f]{12}\.tmp(\.\w+)?", path.name):
            with contextlib.suppress(OSError):  # Gone meanwhile.
                last = max(one.stat().st_mtime for one in (path, *path.rglob("*")))
                if time.time() - last > _ABANDONED_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def unique() -> str:
    """Twelve random hexadecimal digits: part of a name that no process has, here or on other machines that share the folder."""
    return uuid.uuid4().hex[:12]


def check_replaceable(path: str | os.PathLike) -> None:
    """Finds out, before anything is computed, whether `replacing` will be able to write a file.

    Raises:
        PolyampError: It is there and no file, or lies in a folder that is not there or cannot be written to.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryFile(dir=_target(path).parent):
            pass
    except OSError as error:
        raise PolyampError(f"{path}: cannot be written ({error.strerror}).") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, UTF-8, that is there as a whole or not at all.

    Raises:
        PolyampError: The file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: str | os.PathLike, flag: str = "") -> Path:
    """Makes a folder, and those that it lies in, if it is not there.

    Raises:
        PolyampError: It cannot be made; says so, and to choose another by `flag` if that is given.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolyampError(f"{path}: cannot be made a folder ({error.strerror}){_advice(flag)}.") from error
    return path


def check_folder(path: str | os.PathLike, flag: str = "") -> None:
    """Finds out, before anything is computed, whether files can be written to a folder.

    Raises:
        PolyampError: They cannot; says so, and to choose another by `flag` if that is given.
    """
    try:
        with tempfile.TemporaryFile(dir=Path(path)):
            pass
    except OSError as error:
        raise PolyampError(f"{path}: cannot be written to ({error.strerror}){_advice(flag)}.") from error


def _advice(flag: str) -> str:
    return f"; choose another {flag}" if flag else ""
