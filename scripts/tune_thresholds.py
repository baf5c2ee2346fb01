"""Chooses decoding settings by their note F1 on examples that were not trained on, one coordinate at a time.

    python scripts/tune_thresholds.py --model_dir=runs --load_id=ID --examples_path='validation.tfrecord-*'

Each example is transcribed to rolls (for AUTOREGRESSIVE to features) once; only the decoder (the recurrence) runs again. With
--disturbed each counts a second time with room, equalisation, noise and gain (`polyamp.audio.augmentation`), so that settings
suit recordings other than those trained on. Prints the settings as JSON for --hparams or scripts/export_weights.py, and the
scores that they give.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags, logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from polyamp.checkpoint import Loaded
    from polyamp.hparams import MelodicHParams
    from polyamp.notes import Notes

    Decode = Callable[[Any], Notes]

_MODEL_TYPE = flags.DEFINE_string("model_type", "MELODIC", "Which model.")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of all models.", required=True)
_LOAD_ID = flags.DEFINE_string("load_id", "*", "Which checkpoint, as for polyamp_runner.py.")
_EXAMPLES_PATH = flags.DEFINE_string("examples_path", None, "TFRecords that the model was not trained on.", required=True)
_DISTURBED = flags.DEFINE_bool("disturbed", False, "Use each example a second time, disturbed as in augmented training.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the disturbances.", lower_bound=0)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "How often to go through all settings.", lower_bound=1)

_CANDIDATES: dict[str, list[float]] = {
    "predict_onset_threshold": [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5],
    "predict_offset_weight": [0.0, 4.0, 8.0, 12.0, 20.0, 30.0],
    "predict_frame_threshold": [0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8],
    "predict_offset_threshold": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
    "active_onset_threshold": [0.0, 0.2, 0.3, 0.4],
    "min_note_ms": [0.0, 20.0, 35.0, 50.0],
    "onset_bias_ms": [-8.0, -4.0, 0.0, 4.0, 8.0, 12.0, 16.0],
}
_CANDIDATES_OF_STATES: dict[str, list[float]] = {
    "onset_boost": [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0],
    "offset_boost": [-1.0, -0.5, 0.0, 0.5, 1.0],
    "onset_bias_ms": [-8.0, -4.0, 0.0, 4.0, 8.0, 12.0, 16.0],
}

_LEAST_GAIN = 0.001  # Of the merit; a smaller one on a few pieces is chance, and the setting stays.


def main(argv: Sequence[str]) -> int:
    """Prints the best settings found; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _tune)


def _tune() -> None:
    startup.start_keras()
    import numpy as np

    from polyamp import checkpoint, hparams
    from polyamp.audio import augmentation
    from polyamp.data import pipeline, records
    from polyamp.errors import DataError, PolyampError

    if _MODEL_TYPE.value == "TIMBRE":
        raise PolyampError("--model_type=TIMBRE finds no notes, so there is no threshold to choose.")
    records.check_labelled(records.expand_paths(_EXAMPLES_PATH.value))
    loaded = checkpoint.load_model(_MODEL_TYPE.value, _MODEL_DIR.value, _LOAD_ID.value)
    heavy = hparams.merge(loaded.hparams, {"augment_probability": 1.0})
    rng = np.random.default_rng(_SEED.value)
    pieces = []
    for example in pipeline.whole_examples(_EXAMPLES_PATH.value):
        versions = [example.audio, augmentation.augment(example.audio, heavy, rng)[0]] if _DISTURBED.value else [example.audio]
        pieces += [(example.notes, _heard(loaded, audio)) for audio in versions]
    if not pieces:
        raise DataError(f"{_EXAMPLES_PATH.value}: holds no example.")
    candidates = _CANDIDATES_OF_STATES if _MODEL_TYPE.value == "AUTOREGRESSIVE" else _CANDIDATES
    best = loaded.hparams
    best_scores = _scores(pieces, best)
    for number in range(_ROUNDS.value):
        for name, values in candidates.items():
            for value in values:
                changed: dict[str, Any] = {name: value}
                trial = dataclasses.replace(best, **changed)
                if name in best.unused() and name in trial.unused():
                    continue  # The notes are the same.
                scores = _scores(pieces, trial)
                if _merit(scores) > _merit(best_scores) + _LEAST_GAIN:
                    best, best_scores = trial, scores
            logging.info("round %d, %s = %g: %.4f", number + 1, name, getattr(best, name), _merit(best_scores))
    if not _merit(best_scores):
        raise PolyampError("no note is found as it should be with any of the settings, so none can be chosen.")
    print(json.dumps({name: getattr(best, name) for name in candidates}))
    print(json.dumps({name: round(value, 4) for name, value in best_scores.items() if name.endswith("f1")}))


def _heard(loaded: "Loaded", audio: "np.ndarray") -> "Decode":
    """All that does not depend on the settings that are tried; gives the function from these to notes."""
    import numpy as np

    from polyamp import checkpoint_file, hparams, live_layers, notes, transcribe

    if not isinstance(loaded.hparams, hparams.AutoregressiveHParams):
        heard, stretch = transcribe.as_heard(lambda: [audio], loaded.hparams)
        rolls = transcribe.rolls_of(loaded.model, heard, loaded.hparams)
        return lambda settings: notes.stretched(notes.from_rolls(rolls, settings), 1 / stretch)
    features = np.concatenate(list(transcribe.acoustic_features(loaded.model, [audio], loaded.hparams)), axis=1)[0]
    weights = checkpoint_file.network_weights(loaded.path)

    def decode(settings: Any) -> "Notes":
        step = live_layers.RecurrenceStep(weights, settings)
        rolls = (np.stack(of_frames) for of_frames in zip(*map(step, features), strict=True))
        return transcribe.notes_of_states(dict(zip(("state", "velocity", "timing", "onset"), rolls, strict=True)), settings)

    return decode


def _merit(scores: dict[str, float]) -> float:
    """What is maximised: finding notes counts as much as ending them."""
    return scores["note_onset_f1"] + scores["note_offset_f1"]


def _scores(pieces: "list[tuple[Notes, Decode]]", settings: "MelodicHParams") -> dict[str, float]:
    """Mean note scores over the pieces."""
    from polyamp import metrics

    return metrics.aggregate([metrics.note_metrics(reference, decode(settings)) for reference, decode in pieces])


if __name__ == "__main__":
    startup.run(main)
