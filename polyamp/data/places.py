"""Files of data sets wherever they are: in folders here, or at gs://, s3:// and what else Apache Beam's file systems know."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyamp import atomic, globs
from polyamp.errors import DataError


def is_remote(place: str | Path) -> bool:
    """Whether a file or folder is named by a URL."""
    return "://" in str(place)


def join(folder: str, *names: str) -> str:
    """The name of what is in a folder."""
    return "/".join((folder.rstrip("/"), *names)) if is_remote(folder) else os.path.join(folder, *names)


def folder(place: str) -> str:
    """The folder that a file is in."""
    return place.rsplit("/", 1)[0] if is_remote(place) else os.path.dirname(place)


def name(place: str) -> str:
    """A file's name in its folder."""
    return place.rsplit("/", 1)[-1] if is_remote(place) else os.path.basename(place)


def _systems() -> Any:
    """Beam's file systems; `DataError` without Beam."""
    try:
        from apache_beam.io.filesystems import FileSystems
    except ImportError as error:
        raise DataError(
            'gs://, s3:// and the like need Apache Beam: pip install -e ".[beam]" "apache-beam[gcp]" (or aws).'
        ) from error
    return FileSystems


@contextlib.contextmanager
def _named(place: str, doing: str) -> Iterator[None]:
    """Makes a `DataError` that names the place of what goes wrong there."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{place}: cannot be {doing} ({error.strerror or error}).") from error
    except Exception as error:
        if not is_remote(place):
            raise
        # Beam's file systems raise whatever comes up.
        raise DataError(f"{place}: cannot be {doing} ({' '.join(str(error).split())[:200]}).") from error


def make_folder(folder: str) -> None:
    """Makes a folder if it is not there; where there are only names of files, as in gs://, nothing has to be done."""
    with _named(folder, "made"):
        if not is_remote(folder):
            os.makedirs(folder, exist_ok=True)


def names(folder: str, pattern: str) -> list[str]:
    """Names of the files directly in a folder that match a glob, sorted."""
    with _named(folder, "read"):
        if not is_remote(folder):
            return sorted(path.name for path in Path(folder).glob(pattern) if path.is_file())
        found = _systems().match([join(folder, pattern)])[0].metadata_list
        return sorted(one.path[len(folder.rstrip("/")) + 1 :] for one in found)


def matching(pattern: str) -> list[str]:
    """The files that a glob means, in any depth where it has `**`, sorted."""
    with _named(pattern, "read"):
        if not is_remote(pattern):
            return list(filter(os.path.isfile, globs.matching(pattern)))
        return sorted(one.path for one in _systems().match([pattern])[0].metadata_list)


def read(place: str) -> bytes | None:
    """The contents of a file; None if there is none."""
    with _named(place, "read"):
        if not is_remote(place):
            return Path(place).read_bytes() if os.path.isfile(place) else None
        systems = _systems()
        if not systems.exists(place):
            return None
        with systems.open(place, compression_type="uncompressed") as file:
            return file.read()


def exists(place: str) -> bool:
    """Whether there is such a file."""
    with _named(place, "read"):
        return os.path.isfile(place) if not is_remote(place) else _systems().exists(place)


def remove(place: str) -> None:
    """Removes a file if it is there."""
    with _named(place, "removed"):
        if exists(place):
            os.remove(place) if not is_remote(place) else _systems().delete([place])


def write(place: str, content: bytes) -> None:
    """Writes a file that is there as a whole or not at all; `PolyampError` if it cannot be written."""
    with writing(place) as local:
        local.write_bytes(content)


@contextlib.contextmanager
def writing(place: str) -> Iterator[Path]:
    """Gives a local file to write to, which gets its name and place when the block is left, unless by an exception.

    Raises:
        PolyampError: It cannot be written.
    """
    if not is_remote(place):
        with atomic.replacing(place) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / name(place)
        yield temporary
        with _named(place, "written"):
            systems = _systems()
            # Object stores show a file when it is complete; others get it under another name first.
            unfinished = f"{place}.{atomic.unique()}.tmp"
            with open(temporary, "rb") as source, systems.create(unfinished, compression_type="uncompressed") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            if systems.exists(place):
                systems.delete([place])
            systems.rename([unfinished], [place])


def fetch(place: str, path: Path) -> None:
    """Copies a remote file to a local one, whose folder is made."""
    with _named(place, "read"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _systems().open(place, compression_type="uncompressed") as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)


def tree(folder: str) -> list[str]:
    """Names of all files in any depth below a remote folder, relative to it, sorted."""
    with _named(folder, "read"):
        found = _systems().match([join(folder, "**")])[0].metadata_list
        return sorted(one.path[len(folder.rstrip("/")) + 1 :] for one in found)
