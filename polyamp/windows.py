"""Models over audio of any length, in windows of constant size with context on both sides."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from polyamp.hparams import MelodicHParams
from polyamp.notes.growing_rolls import GrowingRolls

if TYPE_CHECKING:
    import keras

# A clip that fits into one window takes the smallest of these fractions of it that holds the clip. Only a few, because each new
# size may cost a compilation.
_WINDOW_FRACTIONS = (4, 2, 1)


def predict_rolls(model: "keras.Model", blocks: Iterable[np.ndarray], hparams: MelodicHParams) -> GrowingRolls:
    """Runs a model over audio of any length in overlapping windows; memory grows with the rolls only.

    The audio counts as preceded and followed by silence. Each window has `predict_margin_seconds` of context on both sides,
    whose frames are thrown away: where the model sees no further than that, the rolls do not depend on where windows begin.

    Args:
        model: Audio [1, samples] to a dict of rolls [1, 1 + samples // hop_length, pitches], from 0 to 1.
        blocks: The audio, 16 kHz mono float32 [samples], in blocks of any length.
        hparams: The model's.

    Returns:
        Rolls by name, each with exactly `1 + samples // hop_length` frames.

    Raises:
        ValueError: The model answers with another number of frames.
    """
    hop = hparams.hop_length
    core, margin = window_frames(hparams)
    rolls = GrowingRolls()
    for window, kept in windows(blocks, core, margin, hop):
        answer = model.predict_on_batch(window[np.newaxis])
        for name, roll in answer.items():
            if roll.shape[1] != 1 + len(window) // hop:
                raise ValueError(f"{name}: {roll.shape[1]} frames for {len(window)} samples, not 1 + samples // {hop}.")
        rolls.add({name: roll[0, margin : margin + kept] for name, roll in answer.items()})
    return rolls


def window_frames(hparams: MelodicHParams) -> tuple[int, int]:
    """Frames of a window's core, as many as audio of that length has, and of each of its margins."""
    core = 1 + round(hparams.predict_window_seconds * hparams.frames_per_second)
    return core, int(np.ceil(hparams.predict_margin_seconds * hparams.frames_per_second))


def windows(blocks: Iterable[np.ndarray], core: int, margin: int, hop: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields windows of samples and how many frames after the margin are new.

    Frame t of the audio is centred at sample t * hop. A window of `core` frames and their margins covers the samples from its
    first frame's centre to its last frame's: (core + 2 * margin - 1) * hop.
    """
    source = iter(blocks)
    pending = np.zeros(margin * hop, np.float32)  # From the first sample of the next window on.
    for number in itertools.count():
        length = (core + 2 * margin - 1) * hop
        needed = max(length, core * hop)
        pending = filled(pending, source, needed)
        ended = len(pending) < needed
        frames = 1 + (len(pending) - margin * hop) // hop if ended else core  # That are new; before the end, all of the core.
        if number == 0 and ended:
            core = min((size for size in (-(-core // part) for part in _WINDOW_FRACTIONS) if size >= frames), default=core)
            length = (core + 2 * margin - 1) * hop
        if frames > 0:
            window = pending[:length]
            yield np.pad(window, (0, length - len(window))), min(frames, core)
        if ended and frames <= core:
            return
        pending = pending[core * hop :]


def filled(pending: np.ndarray, source: Iterator[np.ndarray], length: int) -> np.ndarray:
    """Samples `pending` and as many blocks as make it `length` samples long, if the source has them."""
    received = [pending]
    size = len(pending)
    while size < length and (block := next(source, None)) is not None:
        received.append(block)
        size += len(block)
    return np.concatenate(received) if len(received) > 1 else pending
