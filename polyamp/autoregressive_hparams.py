"""The settings of the Autoregressive model, and the latency that follows from them."""

import dataclasses

from polyamp import constants
from polyamp.errors import HParamsError
from polyamp.model_hparams import ROLL_SETTINGS, MelodicHParams, field, structural

_CONV_LSTM = ("architecture", "conv_lstm")


@dataclasses.dataclass(frozen=True)
class AutoregressiveHParams(MelodicHParams):
    """Settings of the Autoregressive model. Of the Melodic ones it uses spectrogram, sizes, training and augmentation.

    The defaults are the published network (Kwon, Jeong and Nam 2020, arXiv 2010.01104) in its variant 3-3-3 without label
    shift; `configs/autoregressive_compact.json` is the one that ships.
    """

    UNUSED = ROLL_SETTINGS | {
        "cqt_bins_per_octave",
        "predict_declick",
        "predict_declip",
        "predict_in_tune",
        "predict_margin_seconds",
    }

    spec_type: str = structural("mel", choices=("mel", "log_frequency"))
    spec_fmin: float = structural(30.0, 1.0, 8000.0, only=("spec_type", "mel"))  # Hz
    architecture: str = structural("conv_lstm", choices=("conv_lstm", "pitch_shared"))
    batch_size: int = field(16, 1, 65_536)
    train_frames: int = field(641, 8, 1_000_000)  # 327,680 samples.

    # Samples; two window lengths of the spectrum of `pitch_shared`, for low and high pitches. They end together.
    spec_windows: tuple[int, ...] = structural((2048, 1024), 64, 65_536, only=("architecture", "pitch_shared"))
    label_shift: int = structural(0, -64, 64)  # Frames by which the label is later than what the kernels centre on.
    acoustic_kernels: tuple[int, ...] = structural((3, 3, 3), 1, 63, only=_CONV_LSTM)  # Frames; one convolution each.
    model_complexity: int = structural(48, 1, 1024, only=_CONV_LSTM)  # Filters of the first two; the third has twice so many.
    recurrent_units: int = structural(768, 1, 8192)
    recurrent_layers: int = structural(2, 1, 8)
    state_embedding: int = structural(2, 1, 1024)  # Dimensions that stand for a pitch's state in the frame before.
    age_buckets: int = structural(1, 1, 16)  # Steps of how long ago a pitch's onset was, as context; 1: none.

    # Scheduled sampling: batches whose context is what the model itself answered, run freely and without gradient. Their share
    # rises evenly from 0, after that part of the training, to what is said here at its end.
    free_running: float = field(0.0, 0.0, 1.0)
    free_running_after: float = field(0.1, 0.0, 1.0)
    state_velocity_weight: float = field(4.0, 0.0, 1000.0)  # Of the squared error of velocities, summed over onsets.
    state_time_weight: float = field(1.0, 0.0, 1000.0)  # Of that of the times of onsets and offsets, in frames.

    # --- Hearing and choosing states (may be changed at run time) ----------------------------------------------------
    a4_hz: float = field(440.0, *constants.A4_RANGE_HZ, only=("spec_type", "log_frequency"))  # Tuning of the instrument.
    onset_boost: float = field(0.0, -20.0, 20.0)  # Added to the logits of onset and re-onset: more notes, or fewer.
    offset_boost: float = field(0.0, -20.0, 20.0)  # Added to the logit of offset: shorter notes, or longer.

    def __post_init__(self):
        """Checks what no field can check by itself."""
        super().__post_init__()
        if any(size % 2 == 0 for size in self.acoustic_kernels):
            raise HParamsError(
                f"acoustic_kernels must be odd, so that a kernel has a middle; got {list(self.acoustic_kernels)}."
            )
        if len(self.acoustic_kernels) != 3:
            raise HParamsError(f"acoustic_kernels needs three entries, one per convolution, not {len(self.acoustic_kernels)}.")
        if len(self.spec_windows) != 2 or self.spec_windows[0] <= self.spec_windows[1] or any(w % 2 for w in self.spec_windows):
            raise HParamsError(f"spec_windows needs two even lengths, the longer one first; got {list(self.spec_windows)}.")
        if abs(self.label_shift) >= self.train_frames:
            raise HParamsError(f"label_shift {self.label_shift} leaves nothing to learn of train_frames ({self.train_frames}).")
        if self.latency_ms < 0:
            raise HParamsError(
                f"label_shift {self.label_shift} asks for answers {-self.latency_ms:g} ms before they can be heard."
            )

    @property
    def told_a4_hz(self) -> float | None:
        """The tuning that is heard as in tune, `a4_hz`; None for the spectrograms that can be told no other than 440 Hz."""
        return None if "a4_hz" in self.unused() else self.a4_hz

    @property
    def lookahead_frames(self) -> int:
        """Frames after its own middle one that a frame of acoustic features depends on."""
        return sum(size // 2 for size in self.acoustic_kernels) if self.architecture == "conv_lstm" else 0

    @property
    def history_frames(self) -> int:
        """Frames before its own middle one that a frame of acoustic features depends on."""
        if self.architecture == "conv_lstm":
            return self.lookahead_frames
        return 2 + 2 * sum(self.temporal_dilations)

    @property
    def margin_frames(self) -> int:
        """Frames of context on each side of which no answer depends on what lies beyond."""
        beyond_window = -(-self.window_length // self.hop_length) + abs(self.label_shift)
        return max(self.history_frames, self.lookahead_frames) + beyond_window

    @property
    def window_length(self) -> int:
        """Samples of the longest window of the spectrum."""
        return self.mel_window if self.spec_type == "mel" else self.spec_windows[0]

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency: from a frame's time to when all samples that its label depends on have been heard.

        Half a window, and the frames that the kernels look ahead less those that the label is shifted. What computing takes
        comes on top.
        """
        frames = self.lookahead_frames - self.label_shift
        return 1000.0 * (self.window_length / 2 + frames * self.hop_length) / constants.SAMPLE_RATE

    @property
    def variant(self) -> str:
        """A short name in the published form: kernels and shift."""
        kernels = "-".join(map(str, self.acoustic_kernels)) if self.architecture == "conv_lstm" else "causal"
        return f"{kernels}-shift{self.label_shift}"
