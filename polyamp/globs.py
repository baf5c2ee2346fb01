"""What globs mean."""

import glob
import os


def matching(pattern: str) -> list[str]:
    """The files and folders that a glob means, in any depth where it has `**`, sorted.

    Brackets in the names of folders are these names where such a folder is there and nothing else is meant.
    """
    found = glob.glob(pattern, recursive=True)
    folder, name = os.path.split(pattern)
    if not found and os.path.isdir(folder):
        found = glob.glob(os.path.join(glob.escape(folder), name), recursive=True)
    return sorted(found)
