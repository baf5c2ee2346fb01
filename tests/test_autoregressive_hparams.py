"""The latency of the Autoregressive model, against the published table, and what its settings refuse."""

import pytest

from polyamp import hparams
from polyamp.errors import HParamsError

# Kernels, label shift, window, hop and latency in ms, from Table 1 of the published low-latency-amt.
PUBLISHED = """
3-3-3 0 2048 512 160
1-3-3 0 2048 512 128
3-1-3 0 2048 512 128
3-3-1 0 2048 512 128
1-1-3 0 2048 512 96
1-3-1 0 2048 512 96
3-1-1 0 2048 512 96
1-1-1 0 2048 512 64
3-3-3 1 2048 512 128
3-3-3 2 2048 512 96
3-3-3 3 2048 512 64
1-3-3 1 2048 512 96
3-1-3 1 2048 512 96
3-3-1 1 2048 512 96
3-3-3 0 1024 512 128
3-3-3 1 1024 512 96
3-3-3 2 1024 512 64
3-3-3 3 1024 512 32
3-3-1 1 1024 512 64
3-3-3 0 1024 256 80
3-3-3 1 1024 256 64
3-3-3 2 1024 256 48
3-3-3 3 1024 256 32
""".split("\n")[1:-1]


@pytest.mark.parametrize("row", PUBLISHED)
def test_latency_is_the_published_one(row):
    kernels, *numbers = row.split()
    shift, window, hop, latency = map(int, numbers)
    settings = {"acoustic_kernels": [int(size) for size in kernels.split("-")], "label_shift": shift}
    resolved = hparams.resolve("AUTOREGRESSIVE", None, settings | {"window": window, "hop": hop})
    assert resolved.latency_ms == latency
    assert resolved.variant == f"{kernels}-shift{shift}"


def test_all_published_rows_are_there():
    assert len(PUBLISHED) == 23


@pytest.mark.parametrize(("preset", "latency"), [("autoregressive_compact", 128), ("autoregressive_low_latency", 64)])
def test_latency_of_the_presets_that_ship(preset, latency):
    assert hparams.resolve("AUTOREGRESSIVE", preset).latency_ms == latency


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"acoustic_kernels": [3, 3]}, "three entries"),
        ({"acoustic_kernels": [3, 4, 3]}, "odd"),
        ({"spec_windows": [1024, 2048]}, "longer one first"),
        ({"spec_windows": [2048]}, "two even lengths"),
        ({"mel_window": 1023}, "mel_window must be even"),
        ({"architecture": "pitch_shared"}, "log_frequency"),
        ({"architecture": "onsets_frames"}, "one of conv_lstm, pitch_shared"),
        ({"label_shif": 1}, "label_shift"),
        ({"label_shift": -32, "train_frames": 32}, "label_shift -32 leaves nothing to learn of train_frames"),
        ({"label_shift": 6}, "label_shift 6 asks for answers 32 ms before they can be heard"),
    ],
)
def test_settings_that_cannot_be_are_errors(settings, words):
    with pytest.raises(HParamsError, match=words):
        hparams.resolve("AUTOREGRESSIVE", None, settings)
