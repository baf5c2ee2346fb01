"""What a Melodic or Full model answers for a recording, piece after piece, each computed once, without Keras."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from polyamp import constants
from polyamp.audio import log_frequency
from polyamp.notes.growing_rolls import GrowingRolls
from polyamp.windows import filled

_SPECTRUM = "spectrum"  # What a network takes that is not kept from the piece before.


class RollNetwork:
    """A network that hears a spectrum in pieces.

    The answers are those for the whole recording, preceded and followed by silence.

    Args:
        run: Takes and gives arrays by name, as `polyamp.models.pitch_shared.stream_of` has them.
        shapes: Of what it takes, by name.
        hop_length: Samples from frame to frame.
    """

    def __init__(self, run: Callable[..., dict[str, np.ndarray]], shapes: Mapping[str, tuple[int, ...]], hop_length: int):
        self._run = run
        self._hop = hop_length
        self._num_frames = shapes[_SPECTRUM][1]
        self._kept = {name: shape for name, shape in shapes.items() if name != _SPECTRUM}
        self._reach = sum(shape[1] for shape in self._kept.values()) // 2  # Frames that it hears ahead.

    def predict(self, blocks: Iterable[np.ndarray]) -> GrowingRolls:
        """Rolls of audio of any length; memory grows with the rolls only.

        Args:
            blocks: The audio, 16 kHz mono float32 [samples], in blocks of any length.

        Returns:
            Rolls by name, `[1 + samples // hop_length, 88]`.
        """
        source = iter(blocks)
        half = max(log_frequency.WINDOWS) // 2
        step = self._num_frames * self._hop
        length = step - self._hop + 2 * half  # Of a piece, whose first and last frame's windows are whole.
        needed = max(length, step)  # The next piece begins after this one's end where hops are longer than windows.
        # As many samples of silence before the recording as decide the first frame's answers, which come as much later again.
        silence = self._reach * self._hop + half
        pending = np.zeros(silence, np.float32)
        first, last = -2 * self._reach, None  # The frame that the next piece's first answers are for, and the recording's last.
        kept: dict[str, np.ndarray] = {name: np.zeros(shape, np.float32) for name, shape in self._kept.items()}
        rolls = GrowingRolls()
        while last is None or first <= last:
            pending = filled(pending, source, needed)
            if len(pending) < needed:
                if last is None:
                    last = first + 2 * self._reach + (len(pending) - silence) // self._hop
                pending = np.pad(pending, (0, needed - len(pending)))
            answer = self._run(spectrum=log_frequency.frames(pending[:length], self._hop)[np.newaxis], **kept)
            kept = {name: answer.pop(name) for name in kept}
            begin, end = max(0, -first), self._num_frames if last is None else min(self._num_frames, last + 1 - first)
            if begin < end:
                rolls.add({name: roll[0, begin:end] for name, roll in answer.items()})
            first += self._num_frames
            pending = pending[step:]
        return rolls

    def predict_on_batch(self, audio: np.ndarray) -> dict[str, np.ndarray]:
        """Rolls `[batch, time, 88]` of clips `[batch, samples]`, each by itself, as Keras models have this method."""
        answers = [self.predict([clip]) for clip in audio]
        return {name: np.stack([answer[name] for answer in answers]) for name in constants.ROLLS}
