"""Writes a Melodic, Timbre or Autoregressive model as one with more layers, which hears the same until it is trained on.

Training a deeper network from another's weights takes a fraction of the steps that it would from random ones (Chen, Goodfellow
and Shlens, "Net2Net", ICLR 2016, section 2.3). With three blocks more:

    python scripts/deepen_network.py --model_dir=runs --load_id=flat --model_id=deep \\
        --hparams='{"temporal_dilations": [1, 2, 4, 8, 16, 32, 1, 2, 4, 1], "mixing_after": [2, 4, 6, 8]}'
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import keras

_MODEL_TYPE = flags.DEFINE_enum("model_type", "MELODIC", ["MELODIC", "TIMBRE", "AUTOREGRESSIVE"], "Which model.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_ID = flags.DEFINE_string("load_id", None, "Which checkpoint: as --load_id of polyamp_runner.py.", required=True)
_LOAD_FULL = flags.DEFINE_bool("load_full", False, "It is a Full model's, of which the part is taken.")
_MODEL_ID = flags.DEFINE_string("model_id", None, "Name of the deeper one in the same folder; must be new.", required=True)
_HPARAMS = flags.DEFINE_multi_string("hparams", None, "What differs in the deeper one, as JSON.", required=True)

_SMALL = 0.05  # Scale of what a new block adds; from 0 no gradient would come back through its ReLU.


def main(argv: Sequence[str]) -> int:
    """Writes it; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _deepen)


def _deepen() -> None:
    startup.start_keras()
    from polyamp import checkpoint, hparams, models
    from polyamp.overrides import parse_overrides

    kind = _MODEL_TYPE.value
    directory = checkpoint.new_folder(_MODEL_DIR.value, kind, _MODEL_ID.value)
    shallow = checkpoint.load_model(kind, _MODEL_DIR.value, _LOAD_ID.value, load_full=_LOAD_FULL.value)
    after = hparams.merge(shallow.hparams, parse_overrides(_HPARAMS.value))
    _require_only_more(hparams.structure(shallow.hparams), hparams.structure(after))
    deep = models.build(kind, after)
    added = _take_over(cast("keras.Model", shallow.model).get_layer("network"), deep.get_layer("network"))
    checkpoint.save_as_new(directory, deep, after, shallow.step)
    logging.info("%s: %s with %s more", directory, shallow.path, ", ".join(added))


def _require_only_more(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raises `HParamsError` if settings of the architecture differ by anything but numbers added at the end of lists."""
    from polyamp.errors import HParamsError

    for name, value in before.items():
        longer = after[name][: len(value)] if isinstance(value, tuple) else after.get(name)
        if longer != value:
            raise HParamsError(f"--hparams: {name} can only be added to, {value} being what the weights were trained with.")


def _take_over(shallow: "keras.Model", deep: "keras.Model") -> list[str]:
    """Gives a deeper network the weights of another; returns the names of the layers that only the deeper one has.

    New normalisations, which end residual blocks, make what these add small; other new layers start as identity.

    Raises:
        HParamsError: A layer has another shape in the deeper network, or what is new there would not start so, or nothing is.
    """
    import keras
    import numpy as np

    from polyamp.errors import HParamsError
    from polyamp.models import parts

    weighted = {layer.name: layer for layer in parts.weighted_layers(deep)}
    for layer in parts.weighted_layers(shallow):
        same = weighted.pop(layer.name)  # Lists of blocks have only become longer.
        if [w.shape for w in same.weights] != [w.shape for w in layer.weights]:
            raise HParamsError(f"--hparams: {layer.name} would have another shape; only add blocks.")
        same.set_weights(layer.get_weights())
    if not weighted:
        raise HParamsError("--hparams adds no layer; see the head of this script.")
    for name in weighted:
        if "block" not in name and "mixing" not in name:
            raise HParamsError(f"--hparams: {name} would be new and change what is heard; only add blocks of pitch_shared.")
    for layer in weighted.values():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.full(layer.gamma.shape, _SMALL))
    return list(weighted)


if __name__ == "__main__":
    startup.run(main)
