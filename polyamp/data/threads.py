"""Threads that prepare what is worked on next."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_MAX_WORKERS = 8  # Items, such as whole recordings, that are in memory at the same time.

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(convert: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """What `convert` gives for each item, in order, prepared by threads that keep a few items ahead."""
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(convert, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
