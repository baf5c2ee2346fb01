"""Command lines of scripts that take Apache Beam's options beside flags of their own."""

import difflib
from collections.abc import Sequence

from absl import app, flags


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags and gives back what else there is, which is for Beam; if nothing asks for Beam, it is an error.

    Args:
        argv: The command line; options for Beam are those that no flag knows, and `--runner` is among them.

    Returns:
        The program's name and Beam's options, none without `--runner`.
    """
    program, *others = flags.FLAGS(argv, known_only=True)
    # Beam also takes the value of a flag as a word of its own.
    words = [word for before, word in zip(["", *others], others, strict=False) if word[:2] != "--" and before[:2] != "--"]
    names = [_name(word) for word in others if word.startswith("--")]
    misspelt = [name for name in names if difflib.get_close_matches(name, list(flags.FLAGS), cutoff=0.85)]
    if words or misspelt or "runner" not in names:
        return app.parse_flags_with_usage(list(argv))  # Which says what is wrong.
    return [program, *others]


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]
