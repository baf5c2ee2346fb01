"""Writes trained networks for the light runtime (`polyamp.light`), with TensorFlow's converter."""

import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from polyamp import light, startup
from polyamp.atomic import replacing
from polyamp.audio.log_frequency import NUM_BINS
from polyamp.hparams import FullHParams, MelodicHParams, TimbreHParams
from polyamp.models import pitch_shared

_PIECE = 64  # Frames: what a layer makes of so many stays in a processor's cache until the next layer hears it.
_NOTES = tf.TensorSpec((1, None, 3), tf.float32, name="notes")


def write(model: keras.Model, hparams: MelodicHParams, checkpoint_path: Path) -> Path:
    """Writes the network of a model beside its checkpoint, and removes those of other weights that had this name before.

    Args:
        model: A Melodic, Timbre or Full model for whose settings `light.is_possible`, on TensorFlow.
        hparams: Its settings.
        checkpoint_path: Where its weights have been saved.

    Returns:
        The file that was written.
    """
    network = model.get_layer("network")
    is_full, is_timbre = isinstance(hparams, FullHParams), type(hparams) is TimbreHParams
    functions = {}
    if not is_timbre:
        functions[light.ROLLS] = _rolls(network.get_layer("network") if is_full else network, hparams)
    if is_full or is_timbre:
        families = network.get_layer("timbre_network") if is_full else network
        functions[light.FAMILIES] = _families(families, light.window_length(hparams))
    with tempfile.TemporaryDirectory() as folder, startup.silent_stderr():
        tf.saved_model.save(tf.Module(), folder, signatures=functions)
        content = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions)).convert()
    path = light.path_beside(checkpoint_path)
    with replacing(path) as temporary:
        Path(temporary).write_bytes(lzma.compress(content, preset=9))
    for other in checkpoint_path.parent.glob(f"{checkpoint_path.stem}-*{light.SUFFIX}"):
        if other != path:
            other.unlink()
    return path


# Networks are for one length of window or piece only: so they run faster, and their layers can share memory.


def _rolls(network: keras.Model, hparams: MelodicHParams) -> Any:
    stream = pitch_shared.stream_of(network, hparams, _PIECE)
    answer = _with_constants(stream)
    takes = {of.name: tf.TensorSpec((1, *of.shape[1:]), tf.float32, name=of.name) for of in stream.inputs}
    return tf.function(lambda **pieces: answer(pieces)).get_concrete_function(**takes)


def _families(network: keras.Model, num_frames: int) -> Any:
    answer = _with_constants(network)
    function = tf.function(lambda spectrum, notes: answer({"spectrum": spectrum, "notes": notes}))
    return function.get_concrete_function(spectrum=_spectrum(num_frames), notes=_NOTES)


def _spectrum(num_frames: int) -> tf.TensorSpec:
    return tf.TensorSpec((1, num_frames, NUM_BINS), tf.float32, name="spectrum")


def _with_constants(network: keras.Model) -> Callable[[Any], Any]:
    """The network as a function whose weights are constants, which the converter can fold and pack."""
    trained = [tf.constant(variable.numpy()) for variable in network.trainable_variables]
    others = [tf.constant(variable.numpy()) for variable in network.non_trainable_variables]
    return lambda inputs: network.stateless_call(trained, others, inputs, training=False)[0]
