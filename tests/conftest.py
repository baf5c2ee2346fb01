"""What holds for all tests; and scripts as modules, each with flags of its own, so that one process can load several."""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from absl import flags, logging

if "PYTEST_XDIST_WORKER" in os.environ:  # Test processes share the cores. Before anything imports TensorFlow or numpy.
    for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    """Gives each test the verbosity of warnings: `polyamp_runner.main` sets it for its process, and tests share one."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    yield
    logging.set_verbosity(before)


@pytest.fixture(scope="session")
def load() -> Callable[..., tuple[ModuleType, flags.FlagValues]]:
    """A function that loads a script of a name with these settings, and gives it and its flags."""

    def load(name: str, /, **settings: Any) -> tuple[ModuleType, flags.FlagValues]:
        values = flags.FlagValues()
        with pytest.MonkeyPatch.context() as patched:
            for define in [define for define in dir(flags) if define.startswith("DEFINE_")]:
                patched.setattr(flags, define, functools.partial(getattr(flags, define), flag_values=values))
            spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            patched.setitem(sys.modules, spec.name, module)  # Where dataclasses look.
            spec.loader.exec_module(module)
        values([name, *(f"--{flag}={value}" for flag, value in settings.items())])
        return module, values

    return load
