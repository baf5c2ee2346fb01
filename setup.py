"""Package metadata; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = (ROOT / "polyamp/__init__.py").read_text(encoding="utf-8").split('__version__ = "')[1].split('"')[0]

BEAM = ["apache-beam[tfrecord]>=2.77"]
RENDERING = ["pedalboard"]  # For render_midi.py --effects.
TEST = [*BEAM, *RENDERING, "dill", "hypothesis", "jax", "pytest", "pytest-xdist"]

setup(
    name="polyamp",
    version=VERSION,
    description="Audio to MIDI with four transcription models behind one runner",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    py_modules=["polyamp_runner"],
    # The presets of configs/ are installed inside the package, where a non-editable install finds them.
    packages=[*find_packages(include=["polyamp", "polyamp.*"]), "polyamp.configs"],
    package_dir={"polyamp.configs": "configs"},
    package_data={
        "polyamp": ["py.typed", "checkpoints/**/*", "checkpoints/*"],
        "polyamp.audio": ["*.npz"],
        "polyamp.configs": ["*.json"],
        "polyamp.notes": ["*.npz"],
        "polyamp.data.tfds": ["*/README.md", "*/*.bib", "*/TAGS.txt"],
    },
    install_requires=[
        "absl-py",
        "ai-edge-litert",
        "audioop-lts; python_version>='3.13'",
        "keras>=3.12",
        "librosa>=0.11",
        "matplotlib",
        "mido",
        "mir_eval",
        "note-seq==0.0.5",
        "numpy>=1.26",
        "pyyaml",
        "scipy",
        "soundfile",
        "soxr",
        "tensorboard",
        "tensorflow>=2.18",
        "tensorflow-datasets",
        "tqdm",
    ],
    extras_require={
        "beam": BEAM,
        "rendering": RENDERING,
        "live": ["python-rtmidi", "sounddevice"],
        "test": TEST,
        "dev": [*TEST, "mypy", "pre-commit", "ruff"],
    },
    entry_points={"console_scripts": ["polyamp = polyamp_runner:command"]},
)
