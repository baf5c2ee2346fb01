"""What is installed where the package is not used from its folder."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_all_files_of_the_package_are_installed(tmp_path: Path):
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    built = _files(tmp_path / "polyamp")
    assert {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.json")} <= built
    assert _files(ROOT / "polyamp") <= built
    assert (tmp_path / "polyamp_runner.py").is_file()
