"""What rolls say of where a note of one pitch ends: evidence that adds up, of an end in each frame or after all of them."""

import numpy as np

_LEAST = 1e-4  # Probabilities count as at least that far from certain, so that no single one decides.


def of_frames(frame: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """That frames sound up to an end: their log odds beyond those of a threshold, summed, of a pitch's frame roll `[time]`.

    Returns:
        float64 `[time + 1]`.
    """
    return np.concatenate([[0.0], np.cumsum(_log_odds(frame) - _log_odds(np.array(threshold)))])


def of_offsets(offset: np.ndarray) -> np.ndarray:
    """That there is an offset at an end: the log of its probability, of a pitch's offset roll `[time]`.

    Returns:
        float64 `[time + 1]`; after the last frame there is no offset.
    """
    return np.log(np.clip(np.append(_without_nan(offset), 0.0), _LEAST, 1))


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(_without_nan(probability), _LEAST, 1 - _LEAST)
    return np.log(clipped / (1 - clipped))


def _without_nan(probability: np.ndarray) -> np.ndarray:
    """The same in double precision; what is no number is no evidence of anything, and crosses no threshold either."""
    return np.nan_to_num(probability.astype(np.float64))
