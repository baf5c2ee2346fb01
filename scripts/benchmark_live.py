#!/usr/bin/env python3
"""Measures what a frame of live transcription costs on one core: the numpy step that is used, and the same in compiled Keras.

    taskset -c 0 env OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
        python scripts/benchmark_live.py

Prints for each preset the mean, median and 99th percentile over the frames of a recording, from samples to events, beside the
length of a frame. Weights are those of the package where there are some, else random: they don't change what is computed.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from polyamp.hparams import AutoregressiveHParams

_RECORDING = Path(__file__).resolve().parent.parent / "tests" / "data" / "handel_air.ogg"
_PRESETS = flags.DEFINE_list(
    "presets", ["autoregressive_compact", "autoregressive_low_latency", "autoregressive"], "Presets to measure."
)
_AUDIO = flags.DEFINE_string("audio_filename", str(_RECORDING), "Recording to play, again and again.")
_SECONDS = flags.DEFINE_float("seconds", 30.0, "Sound to transcribe with each.", lower_bound=1.0)
_KERAS = flags.DEFINE_bool("keras", True, "Also measure a compiled Keras function of one frame's network.")

_WARM_UP = 50  # Frames.


def main(argv: Sequence[str]) -> int:
    """Measures; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _measure)


def _measure() -> None:
    from polyamp import constants, startup
    from polyamp.audio import reading
    from polyamp.errors import PolyampError

    audio = reading.read(_AUDIO.value)
    if len(audio) < constants.SAMPLE_RATE:
        raise PolyampError(f"{_AUDIO.value}: is shorter than a second, too short to measure with.")
    startup.start_keras()
    if _KERAS.value:
        startup.require_tensorflow("--keras")
    print(f"{'preset':<28}{'step':<10}{'parameters':>11}{'latency':>9}{'frame':>8}{'mean':>8}{'median':>8}{'p99':>8}  (ms)")
    for preset in _PRESETS.value:
        model, settings = _model(preset)
        frames = int(_SECONDS.value * settings.frames_per_second)
        kinds: dict[str, Callable[..., Callable[[np.ndarray], Any]]] = {"numpy": _numpy_step}
        if _KERAS.value:
            kinds["keras"] = _keras_step
        for kind, make in kinds.items():
            times = _times(make(model, settings), audio, settings.hop_length, frames)
            frame_ms = 1000.0 / settings.frames_per_second
            print(
                f"{preset:<28}{kind:<10}{model.count_params():>11,}{settings.latency_ms:>9.0f}{frame_ms:>8.0f}"
                f"{times.mean():>8.2f}{_percentile(times, 50):>8.2f}{_percentile(times, 99):>8.2f}",
                flush=True,
            )


def _model(preset: str) -> "tuple[Any, AutoregressiveHParams]":
    """A model of the preset: the package's, or a random one."""
    from typing import cast

    from polyamp import checkpoint, hparams, models

    if checkpoint.numbered(checkpoint.folder(checkpoint.EMBEDDED, "AUTOREGRESSIVE", preset)):
        loaded = checkpoint.load_model("AUTOREGRESSIVE", load_id=preset)
        return loaded.model, cast(hparams.AutoregressiveHParams, loaded.hparams)
    settings = cast(hparams.AutoregressiveHParams, hparams.resolve("AUTOREGRESSIVE", preset))
    return models.build("AUTOREGRESSIVE", settings), settings


def _numpy_step(model: Any, settings: "AutoregressiveHParams") -> "Callable[[np.ndarray], Any]":
    """From a hop of samples to events, as it is used live."""
    from polyamp import state_stream
    from polyamp.streaming import StreamingTranscriber

    return StreamingTranscriber(state_stream.of_model(model, settings)).push


def _keras_step(model: Any, settings: "AutoregressiveHParams") -> "Callable[[np.ndarray], Any]":
    """From a hop of samples to states, by a compiled function over the frames that a frame's features depend on."""
    import numpy as np
    import tensorflow as tf

    from polyamp.models import autoregressive

    acoustic, recurrent = autoregressive.acoustic_part(model), autoregressive.RecurrentPart(model)
    context = (2 * settings.margin_frames) * settings.hop_length
    carry = recurrent.initial_carry()

    @tf.function(reduce_retracing=True)
    def step(window: Any, carry: Any) -> Any:
        features = acoustic(window)[:, settings.margin_frames : settings.margin_frames + 1]
        return recurrent({"features": features, "carry": carry})

    window = np.zeros((1, context), np.float32)

    def push(block: "np.ndarray") -> Any:
        nonlocal window, carry
        window = np.concatenate([window[:, len(block) :], block[None]], axis=1)
        answer = step(window, carry)
        carry = answer["carry"]
        return answer["state"].numpy()

    return push


def _times(push: "Callable[[np.ndarray], Any]", audio: "np.ndarray", hop: int, frames: int) -> "np.ndarray":
    """Milliseconds of each frame."""
    import numpy as np

    times = []
    for frame in range(_WARM_UP + frames):
        start = frame * hop % (len(audio) - hop)
        block = audio[start : start + hop]
        begun = time.perf_counter()
        push(block)
        times.append(1000.0 * (time.perf_counter() - begun))
    return np.array(times[_WARM_UP:])


def _percentile(times: "np.ndarray", percent: float) -> float:
    import numpy as np

    return float(np.percentile(times, percent))


if __name__ == "__main__":
    startup.run(main)
