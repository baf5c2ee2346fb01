"""Command lines of scripts that take Apache Beam's options beside flags of their own."""

import difflib
import itertools
from collections.abc import Sequence

from absl import flags

from polyamp import startup
from polyamp.errors import PolyampError


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags and gives back what else there is, which is for Beam; if nothing asks for Beam, it is an error.

    Args:
        argv: The command line; options for Beam are those that no flag knows, and `--runner` is among them.

    Returns:
        The program's name and Beam's options, none without `--runner`.

    Raises:
        PolyampError: Something is neither the script's nor Beam's.
    """
    if "runner" not in (_name(word) for word in argv if word.startswith("-")):
        return startup.parse_flags(argv)
    program, *others = startup.parse_flags(argv, known_only=True)
    options = [word for word in others if word.startswith("--")]
    for name in map(_name, options):
        near = difflib.get_close_matches(name, list(flags.FLAGS), n=1, cutoff=0.85)
        if near:
            raise PolyampError(f"Unknown command line flag '{name}'. Did you mean: {near[0]}; --help lists all flags.")
    # Beam also takes the value of an option as a word of its own.
    startup.refuse([word for before, word in itertools.pairwise(["", *others]) if not (_is_open(before) or word in options)])
    return [program, *others]


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]


def _is_open(word: str) -> bool:
    """Whether it is an option whose value may follow."""
    return word.startswith("--") and "=" not in word
