"""What globs mean."""

import glob
import os


def matching(pattern: str) -> list[str]:
    """The files and folders that a glob means, in any depth where it has `**`, sorted.

    Brackets in the names of folders are these names where such a folder is there and nothing else is meant.
    """
    found = glob.glob(pattern, recursive=True)
    if not found:
        there = literal_folder(pattern)
        found = glob.glob(glob.escape(there) + pattern[len(there) :], recursive=True)
    return sorted(found)


def literal_folder(pattern: str) -> str:
    """The part of a glob up to its last folder that is there as it is written, with the separator; empty if there is none."""
    end = 0
    for begin, character in enumerate(pattern):
        if character in (os.sep, os.altsep):
            if not os.path.isdir(pattern[: begin + 1]):
                break
            end = begin + 1
    return pattern[:end]
