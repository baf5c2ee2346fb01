"""Writes a Melodic model as one that takes less time, and that answers nearly the same once it has been trained on.

Two things become smaller, each if its flag is given:

- `--rank`: every block's convolution becomes two, over time to so many channels and over pitch from these, found by a singular
  value decomposition of its weights (Jaderberg, Vedaldi and Zisserman, "Speeding up convolutional neural networks with low rank
  expansions", BMVC 2014, scheme 2). 32 between 48 and 48 takes 0.44 times the multiplications.
- `--mixing_channels`: where pitches are mixed only so many of the channels stay, those that make most of a difference to what
  follows in the recordings of `--examples_path`. The others count as their mean. Half the channels take a quarter of the time.

    python scripts/slim_network.py --model_dir=runs --load_id=large --model_id=small --rank=32 --mixing_channels=8 \\
        --examples_path='maps/train*'
    python polyamp_runner.py --model_dir=runs --load_id=small --model_id=trained --config=melodic_compact ...

The first is for networks with whole convolutions (`"conv_rank": 0`); those of the preset `melodic_compact` are in two.
"""

import functools
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import keras

    from polyamp.hparams import MelodicHParams

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_ID = flags.DEFINE_string("load_id", None, "Which checkpoint: as --load_id of polyamp_runner.py.", required=True)
_LOAD_FULL = flags.DEFINE_bool("load_full", False, "It is a Full model's, of which the part is taken.")
_MODEL_ID = flags.DEFINE_string("model_id", None, "Name of the smaller one in the same folder; must be new.", required=True)
_RANK = flags.DEFINE_integer("rank", None, "Channels between a block's two convolutions.", lower_bound=1)
_MIXING_CHANNELS = flags.DEFINE_integer("mixing_channels", None, "Channels that are mixed over pitches.", lower_bound=1)
_EXAMPLES_PATH = flags.DEFINE_string("examples_path", "", "TFRecords that show which of these channels matter.")

_NUM_EXAMPLES = 8  # From which half a minute each is heard.
_SECONDS = 30


def main(argv: Sequence[str]) -> int:
    """Writes it; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _slim)


def _slim() -> None:
    startup.start_keras()
    from polyamp import checkpoint, hparams, models

    directory = checkpoint.new_folder(_MODEL_DIR.value, "MELODIC", _MODEL_ID.value)
    before = checkpoint.load_model("MELODIC", _MODEL_DIR.value, _LOAD_ID.value, load_full=_LOAD_FULL.value)
    after = hparams.merge(before.hparams, _changes(before.hparams))
    large, small = cast("keras.Model", before.model), models.build("MELODIC", after)
    _take_over(large, small, _activations(large, before.hparams, _EXAMPLES_PATH.value) if _MIXING_CHANNELS.value else {})
    checkpoint.save_as_new(directory, small, after, before.step)
    logging.info("%s: %s with %d of %d parameters", directory, before.path, small.count_params(), large.count_params())
    if small.count_params() >= large.count_params():
        logging.warning(
            "That is no smaller: two convolutions are from --rank=%d down.", math.ceil(1.5 * before.hparams.channels) - 1
        )


def _changes(before: "MelodicHParams") -> dict[str, int]:
    """The settings that the flags change; `HParamsError` if for nothing, or for more than is exact."""
    from polyamp.errors import HParamsError

    if before.architecture != "pitch_shared":
        raise HParamsError(f"--load_id={_LOAD_ID.value}: only networks of architecture pitch_shared can be made smaller.")
    changes = {}
    if _RANK.value is not None:
        if before.conv_rank:
            raise HParamsError(
                f"--load_id={_LOAD_ID.value}: has its convolutions in two already (conv_rank); leave out --rank."
            )
        if _RANK.value > 3 * before.channels:
            raise HParamsError(f"--rank={_RANK.value}: already 3 * {before.channels}, of the channels, is exact.")
        changes["conv_rank"] = _RANK.value
    if _MIXING_CHANNELS.value is not None:
        if not any(before.mixing_after):
            raise HParamsError(f"--load_id={_LOAD_ID.value}: mixes no pitches (mixing_after); leave out --mixing_channels.")
        if _MIXING_CHANNELS.value >= before.mixing_channels:
            raise HParamsError(f"--mixing_channels={_MIXING_CHANNELS.value}: must be less than {before.mixing_channels}.")
        if not _EXAMPLES_PATH.value:
            raise HParamsError("--mixing_channels needs --examples_path, to see which of the channels matter.")
        changes["mixing_channels"] = _MIXING_CHANNELS.value
    if not changes:
        raise HParamsError("give --rank, --mixing_channels or both; see the head of this script.")
    return changes


def _activations(model: "keras.Model", hparams: "MelodicHParams", examples_path: str) -> dict[str, np.ndarray]:
    """What is gathered and what is expanded where pitches are mixed, in recordings: `[places, channels]` by layer."""
    import keras

    from polyamp import transcribe
    from polyamp.constants import SAMPLE_RATE
    from polyamp.data import pipeline, records
    from polyamp.errors import DataError

    records.check_recordings(records.expand_paths(examples_path))
    front_end, network = model.get_layer("spectrogram"), model.get_layer("network")
    names = [f"mixing{number}_{part}" for number in hparams.mixing_after if number for part in ("reduce", "relu")]
    heard = keras.Model(network.input, {name: network.get_layer(name).output for name in names})
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for example in itertools.islice(pipeline.whole_examples(examples_path), _NUM_EXAMPLES):
        audio = example.audio[: _SECONDS * SAMPLE_RATE]
        audio = np.concatenate(list(transcribe.for_rolls(functools.partial(list, [audio]), hparams)()))
        for name, roll in heard.predict_on_batch(front_end(audio[np.newaxis])).items():
            found[name].append(roll.reshape(-1, roll.shape[-1]))
    if not all(found.values()):
        raise DataError(f"{examples_path}: holds no example.")
    return {name: np.concatenate(rolls) for name, rolls in found.items()}


def _take_over(large: "keras.Model", small: "keras.Model", activations: dict[str, np.ndarray]) -> None:
    """Gives the smaller model what it can have of the larger one's weights; both have the same layers but for convolutions."""
    from polyamp.models import parts

    sources, targets = (
        {layer.name: layer for layer in parts.weighted_layers(model.get_layer("network"))} for model in (large, small)
    )
    for name, layer in sources.items():
        if name in targets and [w.shape for w in layer.weights] == [w.shape for w in targets[name].weights]:
            targets[name].set_weights(layer.get_weights())
        elif name.endswith("_conv"):
            over_time, over_pitch = targets[f"{name}_time"], targets[f"{name}_pitch"]
            time, pitch = factors(layer.get_weights()[0], over_time.filters)
            over_time.set_weights([time])
            over_pitch.set_weights([pitch])
    for name in (name.removesuffix("_reduce") for name in activations if name.endswith("_reduce")):
        block = [f"{name}_{part}" for part in ("reduce", "gather", "expand")]
        weights = [sources[layer].get_weights() for layer in block]
        num_channels = targets[block[0]].units
        for layer, smaller in zip(
            block, pruned(weights, activations[f"{name}_reduce"], activations[f"{name}_relu"], num_channels), strict=True
        ):
            targets[layer].set_weights(smaller)


def factors(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The two kernels whose product is nearest to one `[frames, pitches, in, out]`.

    They are `[frames, 1, in, rank]` and `[1, pitches, rank, out]`.
    """
    frames, pitches, channels, filters = kernel.shape
    matrix = kernel.transpose(0, 2, 1, 3).reshape(frames * channels, pitches * filters)
    left, strengths, right = np.linalg.svd(matrix, full_matrices=False)
    scale = np.sqrt(strengths[:rank])
    time = (left[:, :rank] * scale).reshape(frames, 1, channels, rank)
    pitch = (scale[:, np.newaxis] * right[:rank]).reshape(rank, pitches, filters).transpose(1, 0, 2)[np.newaxis]
    return time, pitch


def pruned(
    weights: list[list[np.ndarray]], gathered: np.ndarray, expanded: np.ndarray, num_channels: int
) -> list[list[np.ndarray]]:
    """Kernels and biases of a mixing block's three layers with fewer channels between them.

    Args:
        weights: Kernel and bias of each: `[channels, mixed]`, `[intervals, mixed, mixed]` and `[mixed, channels]`.
        gathered: What "gather" takes in recordings, `[places, mixed]`.
        expanded: What "expand" takes.
        num_channels: How many of each stay: those whose changes, times their weights, are largest. The means of the others go
            into the biases after them.
    """
    (reduce, reduce_bias), (gather, gather_bias), (expand, expand_bias) = weights
    keep, drop = _by_strength(gathered.std(0) * np.sqrt(np.square(gather).sum((0, 2))), num_channels)
    gather_bias = gather_bias + np.einsum("c,tcu->u", gathered.mean(0)[drop], gather[:, drop])
    reduce, reduce_bias, gather = reduce[:, keep], reduce_bias[keep], gather[:, keep]
    keep, drop = _by_strength(expanded.std(0) * np.sqrt(np.square(expand).sum(1)), num_channels)
    expand_bias = expand_bias + expanded.mean(0)[drop] @ expand[drop]
    return [[reduce, reduce_bias], [gather[..., keep], gather_bias[keep]], [expand[keep], expand_bias]]


def _by_strength(strengths: np.ndarray, num_kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the strongest, in order, and of the others."""
    order = np.argsort(-strengths, kind="stable")
    return np.sort(order[:num_kept]), order[num_kept:]


if __name__ == "__main__":
    startup.run(main)
