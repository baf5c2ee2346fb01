"""Repairing in overlapping frames: every sample comes out once, where it was, and from the frame in whose middle it is."""

import numpy as np
import pytest

from polyamp.audio import prediction


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 28, 29, 100])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_frames_join_without_a_gap(length, size):
    samples = np.arange(length, dtype=np.float32)
    blocks = [samples[start : start + size] for start in range(0, length, size)]
    seen = []

    def doubled(frame):
        seen.append(frame.copy())
        return 2 * frame

    joined = np.concatenate([samples[:0], *prediction.by_frames(lambda: blocks, 16, 12, doubled)()])
    np.testing.assert_array_equal(joined, 2 * samples)
    assert joined.dtype == np.float32
    starts = [frame[0] for frame in seen]
    assert starts == [12 * number for number in range(len(seen))]
    assert all(len(frame) == 16 for frame in seen[:-1]) and (length <= 16 or len(seen[-1]) > 4)


def test_what_is_at_the_edge_of_a_frame_comes_from_the_next():
    edges = []

    def marked(frame):
        edges.append(np.zeros(len(frame)))
        edges[-1][:2] = edges[-1][-2:] = 1.0
        return edges[-1]

    joined = np.concatenate(list(prediction.by_frames(lambda: [np.zeros(40, np.float32)], 16, 12, marked)()))
    assert np.flatnonzero(joined).tolist() == [0, 1, 38, 39]
