"""Reads the text of `--hparams`: JSON, and what a shell makes of JSON that was not quoted."""

import json
import re
from collections.abc import Sequence
from typing import Any

from polyamp.errors import HParamsError


def parse_overrides(fragments: Sequence[str]) -> dict[str, Any]:
    """Parses the values given to `--hparams`, leniently where a shell has taken something away.

    Besides JSON objects it understands what bash makes of an unquoted `--hparams={"a":1,"b":[2,3]}`: brace expansion and quote
    removal turn it into several flags such as `a:1`, `b:[2`, `3]`. Backslashes before quotes are dropped.

    Args:
        fragments: The values of all `--hparams` flags, in order.

    Returns:
        Names and values, of several objects with a name the last one's; nothing is checked against any model yet.

    Raises:
        HParamsError: The text is not an object, or names something twice.
    """
    texts = [fragment.replace('\\"', '"').strip() for fragment in fragments if fragment.strip()]
    if not texts:
        return {}
    if all(text.startswith("{") and text.endswith("}") for text in texts):
        merged: dict[str, Any] = {}
        for text in texts:
            merged |= _parse_object(text)
        return merged
    joined = ",".join(texts)
    return _parse_object(joined if joined.startswith("{") else "{" + joined + "}")


def _parse_object(text: str) -> dict[str, Any]:
    """Parses one JSON object, or the same with its quotes removed."""

    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise HParamsError(f"--hparams gives {name!r} twice; give it once.")
        return dict(pairs)

    quoted = re.sub(r'(?<!["\w.+-])([A-Za-z_][\w.-]*)(?!["\w.])', r'"\1"', text)
    quoted = re.sub(r'"(true|false|null|NaN|Infinity)"(?!\s*:)', r"\1", quoted)
    for candidate in (text, quoted):
        try:
            value = json.loads(candidate, object_pairs_hook=reject_duplicates)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    raise HParamsError(f"--hparams is not a JSON object: {text!r}. Write it like --hparams='{{\"learning_rate\": 0.001}}'.")
