"""Writes a trained checkpoint as weights to ship: half precision, no optimizer state, decoding settings as given.

Beside them comes the network for the runtime on which predictions start fast, for models with the log-frequency front end.

    python scripts/export_weights.py --model_dir=runs --load_id=ID/best --output_dir=polyamp/checkpoints --model_id=NAME \
        --hparams='{"predict_onset_threshold": 0.35}'
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

_MODEL_TYPE = flags.DEFINE_string("model_type", "MELODIC", "Which model.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_ID = flags.DEFINE_string("load_id", "*", "Which checkpoint, as for polyamp_runner.py.")
_LOAD_FULL = flags.DEFINE_bool("load_full", None, "As for polyamp_runner.py: False joins FULL out of MELODIC and TIMBRE.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "polyamp/checkpoints", "Model folder to write to, such as the package's own.")
_MODEL_ID = flags.DEFINE_string("model_id", None, "Name under it.", required=True)
_HPARAMS = flags.DEFINE_multi_string("hparams", [], "Decoding settings to write beside the weights, as JSON.")


def main(argv: Sequence[str]) -> int:
    """Exports; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _export)


def _export() -> None:
    startup.start_keras()
    from polyamp import checkpoint, checkpoint_file, hparams, light
    from polyamp.atomic import make_folder, write_text
    from polyamp.errors import PolyampError
    from polyamp.naming import check_model_id
    from polyamp.overrides import parse_overrides

    check_model_id(_MODEL_ID.value)
    startup.require_tensorflow("exporting")
    settings = parse_overrides(_HPARAMS.value)
    loaded = checkpoint.load_model(
        _MODEL_TYPE.value, _MODEL_DIR.value, _LOAD_ID.value, load_full=_LOAD_FULL.value, overrides=settings
    )
    directory = make_folder(checkpoint.folder(_OUTPUT_DIR.value, _MODEL_TYPE.value, _MODEL_ID.value), "--output_dir")
    path = checkpoint.step_path(directory, loaded.step)
    # The same weights may be exported again, but not over the training that they are from.
    others = [str(other) for other in checkpoint.numbered(directory) if other != path or checkpoint_file.has_optimizer(other)]
    if others:
        raise PolyampError(f"{', '.join(others)}: is there already; remove it, or give another --model_id.")
    checkpoint_file.save(path, loaded.model, {"step": loaded.step}, dtype="float16")
    write_text(directory / checkpoint.HPARAMS_FILE, hparams.to_json(loaded.hparams))
    logging.info("%s: %d bytes", path, path.stat().st_size)
    if light.is_possible(_MODEL_TYPE.value, loaded.hparams):
        from polyamp import light_export

        # Of the weights as they were written.
        stored = checkpoint.load_model(_MODEL_TYPE.value, _OUTPUT_DIR.value, _MODEL_ID.value)
        network = light_export.write(stored.model, stored.hparams, path)
        logging.info("%s: %d bytes", network, network.stat().st_size)


if __name__ == "__main__":
    startup.run(main)
