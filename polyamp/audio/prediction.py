"""Linear prediction of sound: each sample from those before it, and what is missing from what is on both sides."""

from collections.abc import Callable, Iterator

import numpy as np

from polyamp.audio import filters
from polyamp.audio.reading import Blocks


def by_frames(blocks: Blocks, length: int, hop: int, repaired: Callable[[np.ndarray], np.ndarray]) -> Blocks:
    """A recording repaired in overlapping frames, each of which gives its middle; the first and the last also their ends.

    Args:
        blocks: Gives the audio.
        length: Of a frame, samples, which the last one may lack.
        hop: Samples from one frame to the next, at least half of that.
        repaired: Makes of a frame, float64 [up to `length`], what it should be, and leaves that itself as it is.
    """
    margin = (length - hop) // 2

    def all_repaired() -> Iterator[np.ndarray]:
        pending, first = np.zeros(0), 0
        for block in blocks():
            pending = np.concatenate([pending, block])
            while len(pending) > length:  # Or there would be nothing left for the last one.
                yield repaired(pending[:length])[first : margin + hop].astype(np.float32)
                pending, first = pending[hop:], margin
        if len(pending):
            yield repaired(pending)[first:].astype(np.float32)

    return all_repaired


def fitted(samples: np.ndarray, order: int) -> np.ndarray:
    """The filter that leaves of samples what those before them do not tell (autocorrelation method).

    Args:
        samples: float64 [samples].
        order: How many samples each is predicted from.

    Returns:
        float64 [1 + order], the first of which is 1; of silence nothing else is anything.
    """
    spectrum = np.fft.rfft(samples * filters.hann(len(samples)), 2 * max(len(samples), order))
    correlation = np.fft.irfft(np.square(np.abs(spectrum)))[: order + 1]
    if not correlation[0]:  # The only sample that is not 0 is where the window is.
        return np.eye(1, order + 1)[0]
    correlation[0] *= 1 + 1e-6  # Noise 60 dB below, so that the equations can be solved whatever the sound.
    apart = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    return np.concatenate([[1.0], -np.linalg.solve(correlation[apart], correlation[1:])])


def filled(samples: np.ndarray, prediction: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """What missing samples must be for the squared error of the prediction to be the least.

    Janssen, Veldhuis and Vries 1986, "Adaptive interpolation of discrete-time signals that can be modeled as autoregressive
    processes", section II.

    Args:
        samples: float64 [samples], before and after which there is silence. What they are where they are missing is ignored.
        prediction: As `fitted` gives it.
        missing: Where they are missing: indices in ascending order.

    Returns:
        float64 [missing].
    """
    from scipy.linalg import solveh_banded  # Takes a while to import: only where something is missing.

    order = len(prediction) - 1
    effect = np.correlate(prediction, prediction, "full")  # Of a sample on the error of those up to `order` before and after.
    effect[order] *= 1 + 1e-10  # However well pure tones can be predicted.
    later = np.arange(order + 1)[:, np.newaxis] + np.arange(len(missing))  # [up to order, missing]
    apart = missing[np.minimum(later, len(missing) - 1)] - missing
    bands = np.where((later < len(missing)) & (apart <= order), effect[order + np.minimum(apart, order)], 0.0)
    known = samples.copy()
    known[missing] = 0.0
    return solveh_banded(bands, -np.convolve(known, effect)[order + missing], lower=True)
