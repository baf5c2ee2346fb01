"""The recurrence of the Autoregressive model: LSTMs that hear, besides the audio, which states were answered the frame before.

Kwon, Jeong and Nam 2020 (arXiv 2010.01104), section 2.2, with one row for the whole keyboard; the same authors' later model
(2024, arXiv 2404.06818), section III, with one row per pitch whose weights all pitches share.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from polyamp import constants
from polyamp.layer_bases import Float32Layer
from polyamp.notes.states import NUM_STATES, OFF, OFFSET, OLDEST, ONSET, SUSTAIN, age_table, boosts

NUM_ANSWERS = NUM_STATES + 2  # Logits of the states, velocity, and time within the frame.
_PRIOR_LOGITS = (2.0, -2.0, 0.0, -2.0, -4.0, 0.0, 0.0)  # Where training starts: most cells are off.


@keras.saving.register_keras_serializable(package="polyamp")
class StateRecurrence(Float32Layer):
    """Features to states, velocities and times, given the states of the frame before: the true ones or those it answers itself.

    Rows are what the LSTM sees as its batch: examples, or with `per_pitch` the pitches of all examples. Times are the first
    axis inside. A context is the number of a pitch's state and age: `state * age_buckets + step of age`.

    Args:
        units: Of each LSTM layer.
        num_layers: LSTM layers, one upon the other.
        embedding_size: Dimensions that stand for a context.
        age_buckets: Steps of age; 1 for none.
        per_pitch: Features are `[batch, time, 88, channels]`, else `[batch, time, channels]`.
        onset_boost, offset_boost: Added to logits before the likeliest state is answered.
    """

    def __init__(
        self,
        units: int,
        num_layers: int,
        embedding_size: int,
        age_buckets: int,
        per_pitch: bool,
        onset_boost: float = 0.0,
        offset_boost: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units, self.num_layers, self.embedding_size = units, num_layers, embedding_size
        self.age_buckets, self.per_pitch = age_buckets, per_pitch
        self.onset_boost, self.offset_boost = onset_boost, offset_boost
        self.pitches_per_row = 1 if per_pitch else constants.NUM_PITCHES
        self.boosts = boosts(onset_boost, offset_boost)

    def build(self, features_shape, *_):
        gates, columns = 4 * self.units, self.pitches_per_row
        contexts = NUM_STATES * self.age_buckets

        def add(name, shape, initializer):
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self.feature_kernel = add("feature_kernel", (features_shape[-1], gates), "glorot_uniform")
        self.embedding = add("embedding", (contexts, self.embedding_size), keras.initializers.RandomNormal(stddev=0.5))
        self.context_kernel = add("context_kernel", (columns * self.embedding_size, gates), "glorot_uniform")
        self.kernels = [add(f"kernel{n}", (self.units, gates), "glorot_uniform") for n in range(2, self.num_layers + 1)]
        self.recurrent_kernels, self.biases = [], []
        for n in range(1, self.num_layers + 1):
            self.recurrent_kernels.append(add(f"recurrent_kernel{n}", (self.units, gates), "orthogonal"))
            self.biases.append(add(f"bias{n}", (gates,), _forget_bias))
        # Not a scan: TensorFlow's compiler finds no gradient of one.
        cells = [_LSTMCell(kernel, name=f"cell{n}") for n, kernel in enumerate(self.recurrent_kernels, start=1)]
        self.over_time = [
            keras.layers.RNN(cell, return_sequences=True, dtype="float32", name=f"rnn_{cell.name}") for cell in cells
        ]
        for layer in self.over_time:  # Keras on JAX runs models with layers that are not built eagerly first, at every call.
            layer.build((None, None, gates))
        self.head_kernel = add("head_kernel", (self.units, columns * NUM_ANSWERS), "glorot_uniform")
        priors = np.tile(_PRIOR_LOGITS, columns)
        self.head_bias = add("head_bias", (columns * NUM_ANSWERS,), lambda shape, dtype=None: ops.cast(priors, dtype))

    # --- Parts that the parallel pass and the loop share -------------------------------------------------------------

    def gates_of_features(self, features):
        """What the features say to the first layer's gates, `[time, row, 4 * units]`."""
        if self.per_pitch:
            batch, time = ops.shape(features)[:2]
            features = ops.reshape(ops.transpose(features, (1, 0, 2, 3)), (time, batch * constants.NUM_PITCHES, -1))
        else:
            features = ops.transpose(features, (1, 0, 2))
        return ops.matmul(ops.cast(features, "float32"), self.feature_kernel) + self.biases[0]

    def _gates_of_context(self, context):
        """What contexts `[..., row, pitch of row]` say to the first layer's gates, `[..., row, 4 * units]`."""
        embedded = ops.take(self.embedding, context, axis=0)  # [..., row, pitch, embedding]
        return ops.matmul(ops.reshape(embedded, (*ops.shape(context)[:-1], -1)), self.context_kernel)

    def _heads(self, hidden):
        """Answers `[..., row, pitch of row, NUM_ANSWERS]`: logits, velocity's logit, time."""
        answers = ops.matmul(hidden, self.head_kernel) + self.head_bias
        return ops.reshape(answers, (*ops.shape(hidden)[:-1], self.pitches_per_row, NUM_ANSWERS))

    def _context(self, state, age):
        return state * self.age_buckets + ops.take(age_table(self.age_buckets), age, axis=0)

    # --- The loop ----------------------------------------------------------------------------------------------------

    def initial_carry(self, rows, state=None):
        """What the first frame is given: nothing heard, all off and never on, or the given states `[row, pitch of row]`."""
        zeros = ops.zeros((rows, self.units), "float32")
        if state is None:
            state = ops.full((rows, self.pitches_per_row), OFF, "int32")
        age = ops.full((rows, self.pitches_per_row), OLDEST, "int32")
        return ((zeros,) * self.num_layers, (zeros,) * self.num_layers, state, age)

    def free_run(self, gates, carry):
        """Answers frame after frame, each in the light of the answers before.

        Args:
            gates: Of the features, `[time, row, 4 * units]`.
            carry: As `initial_carry` gives it, or an earlier call gave it back.

        Returns:
            The carry after the last frame; and the carries after every frame, with time as first axis: a tuple of the layers'
            outputs, their cells, states and ages.
        """
        table = ops.matmul(self.embedding, self.context_kernel) if self.per_pitch else None  # [context, 4 * units]

        def step(carry, of_features):
            hidden, cells, state, age = carry
            context = self._context(state, age)
            of_context = self._gates_of_context(context) if table is None else ops.take(table, context[:, 0], axis=0)
            hidden, cells = self._lstm_layers(of_features + of_context, hidden, cells)
            logits = self._heads(hidden[-1])[..., :NUM_STATES]
            state = ops.cast(ops.argmax(logits + self.boosts, axis=-1), "int32")
            age = _next_age(age, state)
            after = (hidden, cells, state, age)
            return after, after  # On TensorFlow, what is collected must be built like the carry.

        return ops.scan(step, carry, gates)

    def _lstm_layers(self, gates, hidden, cells):
        """One frame of all LSTM layers, from the first one's gates without what its own output before says to them."""
        new_hidden: list[Any] = []
        new_cells: list[Any] = []
        for number in range(self.num_layers):
            if number:
                gates = ops.matmul(new_hidden[-1], self.kernels[number - 1]) + self.biases[number]
            output, cell = lstm(gates + ops.matmul(hidden[number], self.recurrent_kernels[number]), cells[number])
            new_hidden.append(output)
            new_cells.append(cell)
        return tuple(new_hidden), tuple(new_cells)

    def answers(self, states, top):
        """Heads of a free run's outcome, for the whole batch.

        Args:
            states: `[time, row, pitch of row]`.
            top: Outputs of the last layer, `[time, row, units]`.

        Returns:
            "state" int32, "velocity", "timing" and "onset", the probability of one, float32, each `[batch, time, 88]`.
        """
        answers = self._answers(top)
        onset = ops.sum(ops.softmax(answers.pop("logits"), axis=-1)[..., ONSET:], axis=-1)
        return answers | {"onset": onset, "state": self._by_pitch(states[..., None])[..., 0]}

    def _answers(self, top):
        """Of the last layer's outputs "logits" `[batch, time, 88, 5]`, "velocity" and "timing" `[batch, time, 88]`."""
        heads = self._by_pitch(self._heads(top))
        return {
            "logits": heads[..., :NUM_STATES],
            "velocity": ops.sigmoid(heads[..., NUM_STATES]),
            "timing": heads[..., NUM_STATES + 1],
        }

    # --- Training ----------------------------------------------------------------------------------------------------

    def call(self, features, state, free_run):
        """All frames at once, given their contexts.

        Args:
            features: `[batch, time, 88, channels]` or `[batch, time, channels]`.
            state: True states, int32 `[batch, time, 88]`.
            free_run: Float `[batch]`: above 0.5 contexts are what the model answers on its own, run without gradient.

        Returns:
            "logits" `[batch, time, 88, 5]`, "velocity" and "timing" `[batch, time, 88]`, and "context", the state that was
            taken for the frame before, int32 `[batch, time, 88]`.
        """
        gates = self.gates_of_features(features)
        rows = self._by_row(state)
        # Before the first frame: on where the first frame is no beginning. Their age is not known.
        begun = (rows[0] == SUSTAIN) | (rows[0] == OFFSET) | (rows[0] > ONSET)
        carry = self.initial_carry(ops.shape(gates)[1], ops.where(begun, SUSTAIN, OFF))

        def emitted():
            _, (_, _, states, ages) = self.free_run(ops.stop_gradient(gates), carry)
            return states, ages

        truth = (rows, _ages(rows))
        is_free = self._by_row(ops.broadcast_to((free_run > 0.5)[:, None, None], ops.shape(state)))
        answered = ops.cond(ops.any(is_free), emitted, lambda: truth)
        states, ages = (ops.where(is_free, *both) for both in zip(answered, truth, strict=True))
        states = ops.concatenate([carry[2][None], states[:-1]], axis=0)
        ages = ops.concatenate([carry[3][None], ages[:-1]], axis=0)
        hidden = gates + self._gates_of_context(self._context(states, ages))
        for number in range(self.num_layers):
            if number:
                hidden = ops.matmul(hidden, self.kernels[number - 1]) + self.biases[number]
            by_example = ops.transpose(hidden, (1, 0, 2))  # [row, time, 4 * units], as Keras wants it.
            hidden = ops.transpose(self.over_time[number](by_example), (1, 0, 2))
        return self._answers(hidden) | {"context": self._by_pitch(states[..., None])[..., 0]}

    def _by_row(self, roll):
        """`[batch, time, 88]` to `[time, row, pitch of row]`."""
        batch, time = ops.shape(roll)[:2]
        return ops.reshape(ops.transpose(roll, (1, 0, 2)), (time, -1, self.pitches_per_row))

    def _by_pitch(self, of_rows):
        """`[time, row, pitch of row, answers]` to `[batch, time, 88, answers]`."""
        time = ops.shape(of_rows)[0]
        of_batch = ops.reshape(of_rows, (time, -1, constants.NUM_PITCHES, of_rows.shape[-1]))
        return ops.transpose(of_batch, (1, 0, 2, 3))

    def compute_output_shape(self, features_shape, state_shape, free_run_shape):
        roll = tuple(state_shape)
        return {"logits": (*roll, NUM_STATES), "velocity": roll, "timing": roll, "context": roll}

    def compute_output_spec(self, features, state, free_run):
        shapes = self.compute_output_shape(features.shape, state.shape, free_run.shape)
        types = {"context": "int32"}
        return {name: keras.KerasTensor(shape, dtype=types.get(name, "float32")) for name, shape in shapes.items()}

    def get_config(self):
        names = ("units", "num_layers", "embedding_size", "age_buckets", "per_pitch", "onset_boost", "offset_boost")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _LSTMCell(keras.layers.Layer):
    """What `keras.layers.RNN` takes over time: an LSTM's own recurrence, where all else that its gates hear is the input."""

    def __init__(self, recurrent_kernel: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.recurrent_kernel = recurrent_kernel
        self.output_size = recurrent_kernel.shape[0]
        self.state_size = [self.output_size, self.output_size]

    def call(self, gates, states):
        output, cell = lstm(gates + ops.matmul(states[0], self.recurrent_kernel), states[1])
        return output, [output, cell]


def lstm(gates, cell):
    """Output and new cell of an LSTM whose gates (input, forget, candidate, output: `[..., 4 * units]`) are summed up."""
    put, keep, candidate, show = ops.split(gates, 4, axis=-1)
    cell = ops.sigmoid(keep) * cell + ops.sigmoid(put) * ops.tanh(candidate)
    return ops.sigmoid(show) * ops.tanh(cell), cell


def _forget_bias(shape, dtype=None):
    """Zeros, but ones at the forget gate (Jozefowicz et al. 2015)."""
    units = shape[0] // 4
    return ops.concatenate([ops.zeros(units, dtype), ops.ones(units, dtype), ops.zeros(2 * units, dtype)])


def _ages(states):
    """Frames since the last onset, `OLDEST` where none was seen; states and answer `[time, row, pitch of row]` int32."""

    def step(age, of_frame):
        age = _next_age(age, of_frame)
        return age, age

    return ops.scan(step, ops.full(ops.shape(states)[1:], OLDEST, "int32"), states)[1]


def _next_age(age, state):
    return ops.where(state >= ONSET, 0, ops.minimum(age + 1, OLDEST))
