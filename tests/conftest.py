"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from absl import logging


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    """Gives each test the verbosity of warnings: `polyamp_runner.main` sets it for its process, and tests share one."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    yield
    logging.set_verbosity(before)
