"""Writes a Melodic or Autoregressive model with every block's convolution in two, over time and over pitch, which is faster.

A convolution of 3 x 3 to 48 channels is close to one over time to 32 and one over pitch from them, found by a singular value
decomposition of its weights (Jaderberg, Vedaldi and Zisserman, "Speeding up convolutional neural networks with low rank
expansions", BMVC 2014, scheme 2). They take 0.44 times the multiplications. What is lost comes back with further training:

    python scripts/factor_network.py --model_dir=runs --load_id=square --model_id=fast --rank=32
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from absl import app, flags, logging

if TYPE_CHECKING:
    import keras
    import numpy as np

_MODEL_TYPE = flags.DEFINE_enum("model_type", "MELODIC", ["MELODIC", "AUTOREGRESSIVE"], "Which model.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_ID = flags.DEFINE_string("load_id", None, "Which checkpoint: as --load_id of polyamp_runner.py.", required=True)
_LOAD_FULL = flags.DEFINE_bool("load_full", False, "It is a Full model's, of which the part is taken.")
_MODEL_ID = flags.DEFINE_string("model_id", None, "Name of the factored one in the same folder; must be new.", required=True)
_RANK = flags.DEFINE_integer("rank", 32, "Channels between the two convolutions.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
    """Writes it; 1 with one line on stderr for bad input."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
    from polyamp import startup

    return startup.run_script(argv, _factor)


def _factor() -> None:
    from polyamp import checkpoint, hparams, models
    from polyamp.atomic import make_folder, write_text
    from polyamp.errors import CheckpointError, HParamsError

    kind = _MODEL_TYPE.value
    directory = checkpoint.folder(_MODEL_DIR.value, kind, _MODEL_ID.value)
    if directory.exists():
        raise CheckpointError(f"{directory} exists; give another --model_id.")
    before = checkpoint.load_model(kind, _MODEL_DIR.value, _LOAD_ID.value, load_full=_LOAD_FULL.value)
    if before.hparams.architecture != "pitch_shared" or before.hparams.conv_rank:
        raise HParamsError(f"{before.path}: only networks of architecture pitch_shared that are not factored yet can be.")
    if _RANK.value > 3 * before.hparams.channels:
        raise HParamsError(f"--rank={_RANK.value}: already 3 * {before.hparams.channels}, of the channels, is exact.")
    after = hparams.merge(before.hparams, {"conv_rank": _RANK.value})
    factored = models.build(kind, after)
    kept = _take_over(cast("keras.Model", before.model), factored)
    make_folder(directory, "--model_dir")
    checkpoint.save(checkpoint.step_path(directory, before.step), factored, {"step": before.step})
    write_text(directory / checkpoint.HPARAMS_FILE, hparams.to_json(after))
    logging.info("%s: %s with at least %.0f %% of its convolutions' energy", directory, before.path, 100 * min(kept))


def _take_over(before: "keras.Model", factored: "keras.Model") -> list[float]:
    """Gives a factored model the weights of another; returns the share of the energy that each convolution keeps."""
    from polyamp.train import layers_of

    targets = {layer.name: layer for layer in layers_of(factored)}
    kept = []
    for layer in layers_of(before):
        if not layer.weights:
            continue
        if layer.name in targets:
            targets[layer.name].set_weights(layer.get_weights())
            continue
        over_time, over_pitch = (targets[f"{layer.name}_{part}"] for part in ("time", "pitch"))
        (kernel,) = layer.get_weights()
        time, pitch, share = _factors(kernel, over_time.filters)
        over_time.set_weights([time])
        over_pitch.set_weights([pitch])
        kept.append(share)
    return kept


def _factors(kernel: "np.ndarray", rank: int) -> "tuple[np.ndarray, np.ndarray, float]":
    """The two kernels whose product is nearest to one `[frames, pitches, in, out]`, and its share of the sum of squares.

    They are `[frames, 1, in, rank]` and `[1, pitches, rank, out]`.
    """
    import numpy as np

    frames, pitches, channels, filters = kernel.shape
    matrix = kernel.transpose(0, 2, 1, 3).reshape(frames * channels, pitches * filters)
    left, strengths, right = np.linalg.svd(matrix, full_matrices=False)
    scale = np.sqrt(strengths[:rank])
    time = (left[:, :rank] * scale).reshape(frames, 1, channels, rank)
    pitch = (scale[:, np.newaxis] * right[:rank]).reshape(rank, pitches, filters).transpose(1, 0, 2)[np.newaxis]
    return time, pitch, float(np.sum(strengths[:rank] ** 2) / np.sum(strengths**2))


if __name__ == "__main__":
    app.run(main)
