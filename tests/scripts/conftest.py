"""Scripts as modules, each with flags of its own, so that several can be loaded by one process."""

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from absl import flags

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ModuleType, flags.FlagValues]]:
    """A function that loads a script of a name with these settings, and gives it and its flags."""

    def load(name: str, /, **settings: Any) -> tuple[ModuleType, flags.FlagValues]:
        values = flags.FlagValues()
        with monkeypatch.context() as patched:
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
