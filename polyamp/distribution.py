"""Training on several devices or machines: TensorFlow's strategies, data parallelism on JAX, and which process writes files.

Every replica takes its part of one and the same stream of global batches, and what is computed over a batch (losses, moments of
batch normalization, the norm of gradients) is computed over the global one. So R replicas with batches of B learn what one
device with batches of R x B learns.
"""

import contextlib
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from polyamp import rendezvous
from polyamp.errors import HParamsError, PolyampError
from polyamp.hparams import MelodicHParams

STRATEGIES = ("none", "mirrored", "multi_worker")
_WAIT_SECONDS = 300.0  # For the other workers, at the start.

# What TensorFlow's collective operations raise when another worker is gone.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError),
)


class Distribution:
    """One process, which Keras needs no help with: one device or, on JAX, several.

    Attributes:
        replicas: Devices in all; a global batch is as many times `batch_size`.
        is_chief: Whether this process writes checkpoints and logs.
    """

    def __init__(self, replicas: int = 1, is_chief: bool = True):
        self.replicas, self.is_chief = replicas, is_chief

    def check(self, hparams: MelodicHParams) -> None:
        """`HParamsError` if these settings cannot be trained on these devices."""

    def scope(self) -> contextlib.AbstractContextManager:
        """Where models and optimizers are made."""
        return contextlib.nullcontext()

    def prepare(self, model: keras.Model) -> None:
        """Makes ready for `fit` a model, made in the scope, with batches as `distribute` gives them."""

    def optimizer(self, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        """The optimizer, with gradients of the global batch."""
        return optimizer

    def losses(self, losses: dict[str, keras.losses.Loss]) -> dict[str, keras.losses.Loss]:
        """The losses of a prepared model, scaled as it needs them."""
        return losses

    def distribute(self, batches: Any) -> Any:
        """Global batches, of a `tf.data.Dataset` or an iterator over arrays, as `fit` takes them."""
        return batches

    def any(self, flag: bool) -> bool:
        """Whether any process says so. All call it together, and go on when all have."""
        return flag

    def leave(self, is_done: Callable[[], bool]) -> None:
        """Waits for all processes at the end. That some have left already is an error only if `is_done` denies."""

    def require_same(self, step: int, settings: str) -> None:
        """`PolyampError` in all processes unless all start from the same; all call it together."""


class _Replicated(Distribution):
    """A `tf.distribute` strategy: several devices of this process, of which one process may be one of several."""

    def __init__(self, strategy: tf.distribute.Strategy, workers: int = 1, index: int = 0):
        super().__init__(strategy.num_replicas_in_sync, index == 0)
        self._strategy, self._workers, self._index = strategy, workers, index
        self._sum_of_workers = tf.function(lambda number: strategy.reduce("SUM", number, axis=None))

    def check(self, hparams: MelodicHParams) -> None:
        if self.replicas > 1 and hparams.jit_compile:
            raise HParamsError("jit_compile: XLA cannot compile the exchange between several devices; set it to false.")
        if self.replicas > 1 and hparams.precision == "mixed_float16":
            raise HParamsError("precision: mixed_float16 is for one device; mixed_bfloat16 works on several.")

    def scope(self) -> contextlib.AbstractContextManager:
        return self._strategy.scope()

    def prepare(self, model: keras.Model) -> None:
        model.__class__ = type("Replicated", (_Replica, type(model)), {})
        for layer in model._flatten_layers() if self.replicas > 1 else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True

    def optimizer(self, optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
        if self.replicas > 1:
            _sum_before_clipping(optimizer)
        return optimizer

    def losses(self, losses: dict[str, keras.losses.Loss]) -> dict[str, keras.losses.Loss]:
        if self.replicas == 1:
            return losses
        return {name: _ShareOfSum(loss) if loss.reduction == "sum" else loss for name, loss in losses.items()}

    def distribute(self, batches: Any) -> tf.distribute.DistributedDataset:
        local = self.replicas // self._workers
        first = self._index * local

        def own(whole: tf.Tensor) -> tf.Tensor:
            """This process' part: [replicas * batch, ...] to [replicas of this process, batch, ...]."""
            return tf.reshape(whole, [self.replicas, -1, *whole.shape[1:]])[first : first + local]

        parts = _as_dataset(batches).flat_map(
            lambda *batch: tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(own, batch))
        )
        return self._strategy.distribute_datasets_from_function(lambda _: parts.prefetch(local))

    def any(self, flag: bool) -> bool:
        return self._sum(int(flag)) > 0

    def leave(self, is_done: Callable[[], bool]) -> None:
        try:
            self.any(False)
        except _LOST:  # The last sum may reach one process, which then ends, before the others have it.
            if not is_done():
                raise

    def require_same(self, step: int, settings: str) -> None:
        number = zlib.crc32(f"{step} {settings}".encode())
        if self.any(self._sum(number) != self._workers * number):
            raise PolyampError(
                f"the workers don't start from the same step and settings (this one from step {step}); give all of them the "
                "same flags, and one --model_dir that all see."
            )

    def _sum(self, number: int) -> int:
        """Over all processes."""
        if self._workers == 1:
            return number
        return int(self._sum_of_workers(tf.constant(number, tf.int64)))


def _as_dataset(batches: Any) -> tf.data.Dataset:
    if isinstance(batches, tf.data.Dataset):
        return batches
    first = next(batches)
    specs = tf.nest.map_structure(tf.type_spec_from_value, first)
    return tf.data.Dataset.from_generator(lambda: itertools.chain([first], batches), output_signature=specs)


class _Replica(keras.Model):
    """What `_Replicated.prepare` puts before the class of a model."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """This replica's share of the loss of the global batch, whatever that takes its means over.

        Each computes it from what all predicted, divided by their number; the sum of their gradients is the loss' gradient.
        """
        y, y_pred, sample_weight = tf.nest.map_structure(_gathered, (y, y_pred, sample_weight))
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Makes the metrics' variables, in the scope, from the shapes alone.

        Keras' own takes them from the first batch, which is then lost, and fails where that is on several devices.
        """
        if iterator is None:
            return super()._maybe_symbolic_build(data_batch=data_batch)
        specs = iterator._distributed_dataset.element_spec
        local = tf.nest.map_structure(lambda spec: getattr(spec, "_value_specs", [spec])[0], specs)
        return super()._maybe_symbolic_build(data_batch=local)

    def train_step(self, data):
        logs = super().train_step(data)
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes their mean along the first axis, which scalars don't have.
            logs = {name: value[tf.newaxis] for name, value in logs.items()}
        return logs


class _ShareOfSum(keras.losses.Loss):
    """A sum divided by the replicas' number, as Keras divides means by itself."""

    def __init__(self, loss: keras.losses.Loss):
        super().__init__(name=loss.name, reduction=loss.reduction)
        self._loss = loss

    def __call__(self, y_true, y_pred, sample_weight=None):
        return self._loss(y_true, y_pred, sample_weight) / tf.distribute.get_strategy().num_replicas_in_sync


def _gathered(local: tf.Tensor) -> tf.Tensor:
    """The parts of all replicas, one after the other: `[batch, ...]` to `[replicas * batch, ...]`."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:  # None while Keras finds out about shapes.
        return local
    size, replicas = tf.shape(local)[0], context.num_replicas_in_sync
    first = context.replica_id_in_sync_group * size
    # A sum with zeros: TensorFlow's own `all_gather` fails with several workers.
    around = [[first, (replicas - 1) * size - first]] + [[0, 0]] * (local.shape.rank - 1)

    @tf.custom_gradient
    def gather(part):
        def gradient(upstream):  # Of a loss that is the same on all replicas, divided by their number.
            return tf.cast(replicas, upstream.dtype) * upstream[first : first + size]

        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.pad(part, around)), gradient

    return gather(local if local.dtype.is_floating else tf.stop_gradient(local))


def _sum_before_clipping(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets the optimizer sum the replicas' gradients before it clips them; Keras does it afterwards."""
    apply = optimizer.apply

    def apply_sum(grads, trainable_variables=None):
        own = [grad for grad in grads if grad is not None]
        summed = iter(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own))
        apply([None if grad is None else next(summed) for grad in grads], trainable_variables)

    optimizer.apply = apply_sum
    optimizer._all_reduce_sum_gradients = list


def is_chief(strategy: str) -> bool:
    """Whether this process is the one that writes; `PolyampError` as `read_cluster`, or where there can be none."""
    _check_backend(strategy)
    return strategy != "multi_worker" or rendezvous.read_cluster().is_chief


def _check_backend(strategy: str) -> None:
    """`PolyampError` if Keras computes with what cannot train, or not on these devices."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax", "torch"):
        raise PolyampError(f"KERAS_BACKEND={backend}: cannot train; TensorFlow, JAX and PyTorch can.")
    if strategy == "multi_worker" and backend == "jax":
        raise PolyampError("--strategy=multi_worker needs the TensorFlow backend; on JAX there is --strategy=mirrored.")
    if strategy != "none" and backend == "torch":
        raise PolyampError(f"--strategy={strategy} needs the TensorFlow or JAX backend, not {backend}.")


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    """One for all trainings of a process: TensorFlow would take a second one's collective operations for those of the first."""
    return tf.distribute.MirroredStrategy()


@contextlib.contextmanager
def opened(strategy: str, wait_seconds: float = _WAIT_SECONDS) -> Iterator[Distribution]:
    """The devices that a training runs on, while the block lasts.

    Args:
        strategy: One of `STRATEGIES`: one device; all devices of this machine; all of the machines that TF_CONFIG names.
        wait_seconds: How long to wait for other workers at the start.

    Raises:
        PolyampError: TF_CONFIG is malformed, a worker does not come, or one is lost on the way; or the backend cannot train so.
    """
    _check_backend(strategy)
    if logging.get_verbosity() < logging.DEBUG:
        tf.get_logger().setLevel("WARNING")  # Not a line for every sum that is made ready.
    if strategy == "none":
        yield Distribution()
    elif keras.backend.backend() == "jax":
        parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
        with parallel.scope():
            yield Distribution(parallel.device_mesh.devices.size)
    elif strategy == "mirrored":
        yield _Replicated(_mirrored())
    else:
        cluster = rendezvous.read_cluster()
        rendezvous.meet(cluster, wait_seconds)
        try:
            workers = tf.distribute.MultiWorkerMirroredStrategy()
            yield _Replicated(workers, len(cluster.addresses), cluster.index)
        except _LOST as error:
            logging.debug("%s", error)
            raise PolyampError(
                "another worker is gone. Start all workers again, with the same commands: they go on from the last checkpoint."
            ) from error
