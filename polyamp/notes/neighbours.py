"""Notes near others in time, a bounded number at once."""

from collections.abc import Iterator

import numpy as np

_ROWS = 64  # Notes at a time, for the sake of memory.


def neighbourhoods(onset: np.ndarray, reach: float) -> Iterator[tuple[slice, slice]]:
    """Goes through notes sorted by onset: slices of some, and of all that begin within `reach` seconds of any of these."""
    for first in range(0, len(onset), _ROWS):
        rows = slice(first, first + _ROWS)
        yield rows, slice(*np.searchsorted(onset, [onset[rows][0] - reach, onset[rows][-1] + reach]))
