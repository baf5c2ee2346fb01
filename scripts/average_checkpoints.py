"""Writes the mean of the weights of checkpoints as a model of its own, to evaluate, export or train further.

For checkpoints of one training, or of one that started from the other: their mean is often better than each (Wortsman et al.,
"Model soups", 2022).

    python scripts/average_checkpoints.py --model_type=AUTOREGRESSIVE --model_dir=runs --load_ids=ar128m,ar128n --model_id=mean
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

_MODEL_TYPE = flags.DEFINE_string("model_type", "MELODIC", "Which model.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_IDS = flags.DEFINE_list("load_ids", None, "Which checkpoints: each as --load_id of polyamp_runner.py.", required=True)
_MODEL_ID = flags.DEFINE_string("model_id", None, "Name of the mean in the same folder; must be new.", required=True)


def main(argv: Sequence[str]) -> int:
    """Averages; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _average)


def _average() -> None:
    startup.start_keras()
    import keras
    import numpy as np

    from polyamp import checkpoint
    from polyamp.errors import CheckpointError

    directory = checkpoint.new_folder(_MODEL_DIR.value, _MODEL_TYPE.value, _MODEL_ID.value)
    if len(_LOAD_IDS.value) < 2:
        raise CheckpointError(f"--load_ids={','.join(_LOAD_IDS.value)} names fewer than two checkpoints: nothing to average.")
    loaded = [checkpoint.load_model(_MODEL_TYPE.value, _MODEL_DIR.value, load_id) for load_id in _LOAD_IDS.value]
    first = loaded[0]
    for other in loaded[1:]:
        checkpoint.require_same_structure(first.hparams, other.hparams, first.path)
    networks = [cast(keras.Model, of.model) for of in loaded]
    weights = zip(*(network.get_weights() for network in networks), strict=True)
    networks[0].set_weights([np.mean(of_all, axis=0, dtype=np.float64) for of_all in weights])
    path = checkpoint.save_as_new(directory, networks[0], first.hparams, max(of.step for of in loaded))
    logging.info("%s: mean of %s", path, ", ".join(str(of.path) for of in loaded))


if __name__ == "__main__":
    startup.run(main)
