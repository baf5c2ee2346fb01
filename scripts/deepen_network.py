"""Writes a Melodic model as one with more blocks at its end, which hears the same until it is trained on.

Training a deeper network from another's weights takes a fraction of the steps that it would from random ones (Chen, Goodfellow
and Shlens, "Net2Net", ICLR 2016, section 2.3).

    python scripts/deepen_network.py --model_dir=runs --load_id=flat --model_id=deep --temporal_dilations=2,4,1 --mixing_after=8
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from absl import app, flags, logging

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_ID = flags.DEFINE_string("load_id", None, "Which checkpoint: as --load_id of polyamp_runner.py.", required=True)
_LOAD_FULL = flags.DEFINE_bool("load_full", False, "It is a Full model's, of which the Melodic part is taken.")
_MODEL_ID = flags.DEFINE_string("model_id", None, "Name of the deeper one in the same folder; must be new.", required=True)
_DILATIONS = flags.DEFINE_list("temporal_dilations", None, "Of the new blocks, one number each.", required=True)
_MIXING = flags.DEFINE_list("mixing_after", [], "New blocks that pitch mixing follows, counted from the first of the network.")

_SMALL = 0.05  # Scale of what a new block adds; from 0 no gradient would come back through its ReLU.


def main(argv: Sequence[str]) -> int:
    """Writes it; 1 with one line on stderr for bad input."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
    from polyamp import startup

    return startup.run_script(argv, _deepen)


def _deepen() -> None:
    import keras
    import numpy as np

    from polyamp import checkpoint, hparams, models
    from polyamp.atomic import write_text
    from polyamp.errors import CheckpointError, HParamsError

    directory = checkpoint.folder(_MODEL_DIR.value, "MELODIC", _MODEL_ID.value)
    if directory.exists():
        raise CheckpointError(f"{directory} exists; give another --model_id.")
    shallow = checkpoint.load_model("MELODIC", _MODEL_DIR.value, _LOAD_ID.value, load_full=_LOAD_FULL.value)
    before = shallow.hparams
    if before.architecture != "pitch_shared":
        raise HParamsError(f"{shallow.path}: its architecture is {before.architecture}; only pitch_shared has such blocks.")
    try:
        dilations, mixing = (list(map(int, flag.value)) for flag in (_DILATIONS, _MIXING))
    except ValueError as error:
        raise HParamsError(f"--temporal_dilations and --mixing_after take whole numbers ({error}).") from error
    old = len(before.temporal_dilations)
    if any(number <= old for number in mixing):
        raise HParamsError(f"--mixing_after names an old block; the new ones begin with {old + 1}.")
    changes = {
        "temporal_dilations": [*before.temporal_dilations, *dilations],
        "mixing_after": [*before.mixing_after, *mixing],
    }
    after = hparams.merge(before, changes)
    deep = models.build("MELODIC", after)
    network = deep.get_layer("network")
    for layer in cast(keras.Model, shallow.model).get_layer("network").layers:
        network.get_layer(layer.name).set_weights(layer.get_weights())
    for number in range(old + 1, old + 1 + len(dilations)):
        norm: keras.layers.BatchNormalization = network.get_layer(f"block{number}_norm")
        norm.gamma.assign(np.full(norm.gamma.shape, _SMALL))
    directory.mkdir(parents=True)
    checkpoint.save(checkpoint.step_path(directory, shallow.step), deep, {"step": shallow.step})
    write_text(directory / checkpoint.HPARAMS_FILE, hparams.to_json(after))
    logging.info("%s: %s with %d blocks more", directory, shallow.path, len(dilations))


if __name__ == "__main__":
    app.run(main)
