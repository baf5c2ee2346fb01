"""Trained networks on what starts in a fraction of the time that TensorFlow takes: what predictions run on.

The Autoregressive model runs in numpy, as when it listens live (`polyamp.state_stream`), the others on LiteRT.

Beside a checkpoint `ckpt-<step>.npz` may lie `ckpt-<step>-<checksum of it>.tflite.xz`, the same network as
`polyamp.light_export` writes it. It answers what the Keras model answers, to a hundred-thousandth. Where it or the runtime is
missing, Keras does the work.

Spectrograms are computed by `polyamp.audio.log_frequency`; the networks take them, and have one signature for each part: that
for rolls hears pieces of a recording one after the other (`polyamp.roll_stream`), that for families windows.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from polyamp import checkpoint, checkpoint_file, startup, state_stream
from polyamp.audio import log_frequency
from polyamp.errors import CheckpointError
from polyamp.hparams import MelodicHParams, TimbreHParams
from polyamp.roll_stream import RollNetwork
from polyamp.windows import window_frames

SUFFIX = ".tflite.xz"  # Compressed, as layers that all pitches share are laid out as matrices over all of them.
ROLLS, FAMILIES = "rolls", "families"  # Signatures.
_NEEDED = ("ai_edge_litert", "lzma")  # The second is missing where Python was built without it.


@dataclasses.dataclass
class Part:
    """A part of a model, called like that of a Keras model."""

    predict_on_batch: Callable[[Any], Any]


class LightModel:
    """A network and its front end; `part` has the parts that `polyamp.transcribe` runs. Threads may share it.

    Attributes:
        num_frames: Frames of the spectrum in the longest windows of which it tells families, if it does.
        is_outdated: It has been written by an older version, which heard rolls in windows, too.

    Args:
        path: A file that `polyamp.light_export` wrote.
        hparams: The settings of the checkpoint beside it.

    Raises:
        CheckpointError: The file is missing or damaged.
    """

    def __init__(self, path: Path, hparams: MelodicHParams):
        import lzma

        self._hparams = hparams
        self._lock = threading.Lock()  # Of the interpreter, which holds one call's inputs and outputs at a time.
        try:
            self._content = lzma.decompress(path.read_bytes())
            self._interpreter = self._new_interpreter()
            self._signatures = set(self._interpreter.get_signature_list())
            tells_families = FAMILIES in self._signatures and isinstance(hparams, TimbreHParams)
            self.num_frames = self._signature(FAMILIES).num_frames if tells_families else None
            self.is_outdated = ROLLS in self._signatures and len(self._signature(ROLLS).shapes) == 1
        except (OSError, lzma.LZMAError, ValueError) as error:
            raise CheckpointError(f"{path}: not a readable network ({error}); remove it, or write it again.") from error
        self._running: str | None = None

    def _new_interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(model_content=self._content, num_threads=num_threads())

    def _signature(self, name: str) -> "_Signature":
        return _Signature(self._interpreter.get_signature_runner(name), self._lock)

    def _rolls(self) -> RollNetwork:
        run = self._signature(ROLLS)
        return RollNetwork(run, run.shapes, self._hparams.hop_length)

    def part(self, name: str) -> Part | RollNetwork:
        """The part with that signature: audio to rolls, or audio and notes to families; see `polyamp.models.parts`.

        What the part asked for before held in memory is given up with the last reference to it.
        """
        if name not in self._signatures:
            raise CheckpointError(f"the network has no part {name!r}; it has {', '.join(sorted(self._signatures))}.")
        with self._lock:
            if self._running not in (None, name):
                self._interpreter = self._new_interpreter()
            self._running = name
            if name == ROLLS:
                return self._rolls()
            assert isinstance(self._hparams, TimbreHParams)
            return Part(functools.partial(_families, self._signature(name), self._hparams.timbre_hop_length))


class _Signature:
    """One of a network's signatures, which threads run one after the other.

    In its first run the runtime lays out memory and announces itself, which stays unseen.
    """

    def __init__(self, run: Any, lock: threading.Lock):
        self._run, self._lock = run, lock
        self._has_run = False
        self.shapes = {name: tuple(of["shape"].tolist()) for name, of in run.get_input_details().items()}
        self.num_frames = self.shapes["spectrum"][1]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock, contextlib.nullcontext() if self._has_run else startup.silent_stderr():
            self._has_run = True
            return self._run(**inputs)


def _families(run: _Signature, hop_length: int, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Families of the notes in one window."""
    return run(spectrum=_spectrum(run, inputs["audio"][0], hop_length), notes=inputs["notes"])


def _spectrum(run: _Signature, window: np.ndarray, hop_length: int) -> np.ndarray:
    """A window `[samples]` as `[1, time, 294]`, as long as the network's."""
    spectrum = log_frequency.spectrogram(window, hop_length)
    missing = run.num_frames - len(spectrum)
    return np.pad(spectrum, [[0, missing], [0, 0]])[np.newaxis]


def num_threads() -> int:
    """As many as OMP_NUM_THREADS says, or else as the process has processors."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said):
        return int(said)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_possible(model_type: str, hparams: MelodicHParams) -> bool:
    """Whether networks of these settings can be written for the light runtime: those with the log-frequency front end."""
    melodic = model_type == "TIMBRE" or (model_type in ("MELODIC", "FULL") and hparams.spec_type == "log_frequency")
    timbre = not isinstance(hparams, TimbreHParams) or hparams.timbre_architecture != "filters"
    return melodic and timbre


def window_length(hparams: MelodicHParams) -> int:
    """Frames of the spectrum of the windows, margins included, in which families are told: see `windows.window_frames`."""
    assert isinstance(hparams, TimbreHParams)
    core, margin = window_frames(hparams)
    return 1 + (core + 2 * margin - 1) * hparams.hop_length // hparams.timbre_hop_length


def path_beside(path: Path) -> Path:
    """Where the network of a checkpoint lies, if there is one; by its name it belongs to no other weights than these.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    return path.with_name(f"{path.stem}-{checkpoint_file.checksum(path)}{SUFFIX}")


def load(
    model_type: str,
    model_dir: str | Path | None = None,
    load_id: str = "*",
    model_id: str | None = None,
    load_full: bool | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> checkpoint.Loaded | None:
    """What `checkpoint.load_model` would load, on the light runtime; None if that cannot be.

    Raises:
        CheckpointError, HParamsError: As `checkpoint.load_model`.
    """
    if model_type == "AUTOREGRESSIVE":
        return _load_states(checkpoint.locate(model_type, model_dir, load_id, model_id, load_full, overrides))
    joined = model_type == "FULL" and load_full is False  # Of two checkpoints.
    if joined or any(importlib.util.find_spec(module) is None for module in _NEEDED):
        return None
    path, hparams = checkpoint.locate(model_type, model_dir, load_id, model_id, load_full, overrides)
    network = path_beside(path)
    if hparams.predict_runtime == "keras" or not network.is_file():
        return None
    model = LightModel(network, hparams)
    if model.is_outdated:
        logging.warning("%s: of an older version; predicting with Keras. scripts/export_weights.py writes it anew.", network)
        return None
    if model.num_frames is not None and window_length(hparams) > model.num_frames:
        logging.info("%s: has not been written for windows of that length; predicting with Keras.", network)
        return None
    logging.debug("%s: on LiteRT.", network)
    _, meta = checkpoint_file.read(path)
    return checkpoint.Loaded(model, hparams, path, meta["step"])


def _load_states(where: tuple[Path, MelodicHParams]) -> checkpoint.Loaded | None:
    """The compact Autoregressive network in numpy. The published one is large enough for Keras to be faster."""
    path, hparams = where
    if hparams.predict_runtime == "keras" or hparams.architecture != "pitch_shared":
        return None
    return checkpoint.Loaded(state_stream.load(path, hparams), hparams, path, checkpoint_file.read(path)[1]["step"])
