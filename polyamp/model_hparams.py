"""The settings of the Melodic, Timbre and Full models: one frozen dataclass each, with defaults and ranges.

`polyamp.hparams` resolves, merges, reads and writes them; import them from there.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from polyamp import constants
from polyamp.errors import HParamsError


def field(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    structural: bool = False,
    only: tuple[Any, ...] = (),
) -> Any:
    """A dataclass field with the values that it may take: `[low, high]` or one of `choices` (of each item, for a tuple).

    Trained weights depend on a `structural` one. `only` names another setting, and those of its values with which this one has
    an effect.
    """
    metadata = {"low": low, "high": high, "choices": tuple(choices), "structural": structural, "only": only}
    return dataclasses.field(default=default, metadata=metadata)


structural = functools.partial(field, structural=True)
_STACKS = ("architecture", "onsets_frames")
_of_stacks = functools.partial(structural, only=_STACKS)
_of_shared = functools.partial(structural, only=("architecture", "pitch_shared"))
_of_filters, _of_patches, _of_timbre_shared = (
    functools.partial(structural, only=("timbre_architecture", kind)) for kind in ("filters", "harmonics", "pitch_shared")
)

# What makes rolls and reads notes out of them, which not every model does.
ROLL_SETTINGS = frozenset(
    {"onset_length", "offset_length", "onset_mode", "onset_window", "onset_delay", "min_frame_occupancy_for_label"}
    | {"decay_frame_weights", "frame_weight_onset", "onsets_true_weighing", "offsets_true_weighing", "frames_true_weighing"}
    | {"onset_loss_weight", "offset_loss_weight", "frame_loss_weight", "velocity_loss_weight", "teacher_share"}
    | {"predict_onset_threshold", "predict_frame_threshold", "predict_offset_threshold", "predict_offset_weight"}
    | {"predict_ends", "active_onset_threshold", "min_note_ms", "onset_peak_picking", "onset_refinement"}
    | {"predict_level_db"}
)

# How training crops are changed, if at all.
_DISTURBANCES = (
    *("augment_pitch_semitones", "augment_transpose_semitones", "augment_contrast", "augment_eq_db", "augment_reverb"),
    *("augment_noise", "augment_gain_db", "augment_velocity_per_db"),
)


def probability(default: float) -> Any:
    """A `field` in [0, 1]."""
    return field(default, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class MelodicHParams:
    """Settings of the Melodic model. The defaults are the published configuration (see `configs/` for the others).

    Sources: Hawthorne et al. 2018 (arXiv 1710.11153) for the onsets-and-frames family, Hawthorne et al. 2019
    (arXiv 1810.12247) for the offset head and augmentation.

    Attributes:
        UNUSED: Settings, of the types that this one extends, which have no effect on this one.
    """

    UNUSED: ClassVar[frozenset[str]] = frozenset()

    # --- Spectrogram -----------------------------------------------------------------------------------------------
    spec_type: str = structural("cqt", choices=("cqt", "mel", "log_frequency"))
    hop_length: int = structural(512, 1, 16_384)  # Samples.
    spec_n_bins: int = structural(229, 1, 2048, only=("spec_type", "cqt", "mel"))
    cqt_bins_per_octave: int = structural(28, 1, 240, only=("spec_type", "cqt"))
    spec_fmin: float = structural(27.5, 1.0, 8000.0, only=("spec_type", "cqt", "mel"))  # Hz; the lowest CQT bin or mel edge.
    mel_fmax: float = structural(8000.0, 1.0, 8000.0, only=("spec_type", "mel"))  # Hz
    mel_window: int = structural(2048, 64, 65_536, only=("spec_type", "mel"))  # Samples.

    # --- Architecture ----------------------------------------------------------------------------------------------
    architecture: str = structural("onsets_frames", choices=("onsets_frames", "pitch_shared"))
    # Convolutional stacks of `onsets_frames`; one entry per layer.
    temporal_sizes: tuple[int, ...] = _of_stacks((3, 3, 3, 3), 1, 63)
    freq_sizes: tuple[int, ...] = _of_stacks((3, 3, 3, 3), 1, 63)
    num_filters: tuple[int, ...] = _of_stacks((48, 48, 96, 96), 1, 4096)
    pool_sizes: tuple[int, ...] = _of_stacks((1, 2, 2, 1), 1, 16)  # In frequency only; 1 is no pooling.
    conv_dropout: float = field(0.25, 0.0, 0.95, only=("architecture", "onsets_frames", "conv_lstm"))
    fc_size: int = structural(768, 1, 16_384, only=("architecture", "onsets_frames", "conv_lstm"))
    fc_dropout: float = field(0.5, 0.0, 0.95, only=("architecture", "onsets_frames", "conv_lstm"))
    onset_lstm_units: int = _of_stacks(256, 0, 8192)  # Per direction; 0 is no LSTM.
    offset_lstm_units: int = _of_stacks(256, 0, 8192)
    frame_lstm_units: int = _of_stacks(0, 0, 8192)  # Inside the activation stack, before the combined LSTM.
    combined_lstm_units: int = _of_stacks(256, 0, 8192)
    share_conv_features: bool = _of_stacks(False)  # One convolutional stack for all heads.
    use_batch_normalization: bool = _of_stacks(False)
    stop_activation_gradient: bool = field(False, only=_STACKS)
    stop_onset_gradient: bool = field(True, only=_STACKS)  # Onset probabilities enter the frame stack detached.
    stop_offset_gradient: bool = field(True, only=_STACKS)
    # The network of `pitch_shared`: weights shared over the 88 pitches.
    harmonics: tuple[float, ...] = _of_shared((0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0), 0.125, 64.0)
    channels: int = _of_shared(48, 1, 1024)
    temporal_dilations: tuple[int, ...] = _of_shared((1, 2, 4, 8, 16, 32, 1), 1, 256)  # One residual block each.
    conv_rank: int = _of_shared(0, 0, 1024)  # Channels between time and pitch in the blocks' convolutions; 0: both at once.
    mixing_after: tuple[int, ...] = _of_shared((2, 4, 6), 0, 64)  # Pitch mixing follows these blocks, counted from 1; 0: none.
    mixing_channels: int = _of_shared(16, 1, 1024)
    mixing_intervals: tuple[int, ...] = _of_shared((3, 4, 5, 7, 12, 19, 24, 28, 31, 34, 36), 1, 87)  # Semitones, both ways.

    # --- Labels ----------------------------------------------------------------------------------------------------
    onset_length: float = field(32.0, 0.0, 1000.0)  # Milliseconds marked after an onset.
    offset_length: float = field(32.0, 0.0, 1000.0, only=("onset_mode", "length_ms", "window"))
    onset_mode: str = field("length_ms", choices=("length_ms", "window", "triangle"))
    onset_window: int = field(2, 0, 32, only=("onset_mode", "window", "triangle"))  # Frames on each side.
    onset_delay: float = field(0.0, 0.0, 1000.0)  # Milliseconds.
    min_frame_occupancy_for_label: float = field(0.0, 0.0, 1.0)
    decay_frame_weights: bool = field(False)  # Hawthorne et al. 2018, section 3: full weight at the onset, then decaying.
    frame_weight_onset: float = field(5.0, 0.0, 1000.0, only=("decay_frame_weights", True))  # The c of that section.

    # --- Loss ------------------------------------------------------------------------------------------------------
    onsets_true_weighing: float = field(1.0, 0.0, 1000.0)  # Weight of the frames where the label is true (recall).
    offsets_true_weighing: float = field(1.0, 0.0, 1000.0)
    frames_true_weighing: float = field(1.0, 0.0, 1000.0)
    onset_loss_weight: float = field(1.0, 0.0, 1000.0)
    offset_loss_weight: float = field(1.0, 0.0, 1000.0)
    frame_loss_weight: float = field(1.0, 0.0, 1000.0)
    velocity_loss_weight: float = field(1.0, 0.0, 1000.0)

    # --- Training --------------------------------------------------------------------------------------------------
    batch_size: int = field(8, 1, 65_536)
    train_frames: int = field(640, 8, 1_000_000)  # Length of a random training crop.
    optimizer: str = field("adam", choices=("adam", "adamw"))
    learning_rate: float = field(6e-4, 0.0, 10.0)
    lr_schedule: str = field("exponential", choices=("exponential", "one_cycle", "constant"))
    decay_rate: float = field(0.98, 0.0, 1.0, only=("lr_schedule", "exponential"))
    decay_steps: int = field(10_000, 1, 1_000_000_000, only=("lr_schedule", "exponential"))
    warmup_fraction: float = field(0.1, 0.0, 1.0, only=("lr_schedule", "one_cycle"))  # Of the steps, for `one_cycle`.
    weight_decay: float = field(0.0, 0.0, 10.0, only=("optimizer", "adamw"))  # `adamw` only.
    clip_norm: float = field(3.0, 0.0, 1e6)  # L2 norm; 0 is no clipping.
    clip_each_parameter: bool = field(True)  # Each parameter's gradient by itself, else all together.
    train_layers: str = field("")  # Beginnings of layers' names, comma-separated; only these learn. Empty: all.
    teacher_share: float = probability(0.5)  # Share of the labels that is what the models of --teacher_id answer.
    precision: str = field("float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    jit_compile: bool = field(False)

    # --- Augmentation (off by default; Hawthorne et al. 2019, appendix B) -------------------------------------------
    augment_probability: float = probability(0.0)  # Share of the training crops disturbed; above 0 all crops change level.
    augment_pitch_semitones: float = field(0.1, 0.0, 12.0)  # Detuning of audio, at most; labels stay.
    augment_transpose_semitones: int = field(0, 0, 12)  # Transposition of audio features and labels, at most.
    augment_mix_probability: float = probability(0.0)  # Share of the training crops to which another crop is added.
    augment_contrast: float = field(100.0, 0.0, 100.0)  # Of audio; without effect on cached spectrograms.
    augment_eq_db: float = field(10.0, 0.0, 30.0)
    augment_reverb: float = field(70.0, 0.0, 100.0)
    augment_noise: float = field(0.04, 0.0, 1.0)  # Pink noise, amplitude at most, relative to full scale.
    augment_gain_db: float = field(12.0, 0.0, 60.0)
    augment_velocity_per_db: float = field(0.0, 0.0, 10.0)  # Units of MIDI velocity that labels gain per dB; pianos: 4.

    # --- Decoding (may be changed at run time; the published names `frame_prediction_threshold` … are aliases) --------
    predict_onset_threshold: float = probability(0.5)  # 0 switches that input of the decoder off.
    predict_frame_threshold: float = probability(0.5)
    predict_offset_threshold: float = probability(0.5)
    predict_offset_weight: float = field(0.0, 0.0, 1000.0)  # Above 0: notes end where most likely (`from_rolls`).
    # Says when and how loud notes are struck, as `predict_ends` (`notes.strikes`; of states `notes.running_strikes`).
    predict_strikes: str = field("")
    predict_ends: str = field("")  # Network that says when notes end (`notes.ends`): "pianos", or a file. Empty: none.
    active_onset_threshold: float = probability(0.5)  # An onset above this makes its frame active; 0: never.
    min_note_ms: float = field(0.0, 0.0, 10_000.0)
    onset_peak_picking: bool = field(False)  # Only local maxima of the onset (offset) roll start (end) notes.
    onset_refinement: bool = field(False)  # Onset (offset) times below the hop by interpolating the peak.
    onset_bias_ms: float = field(0.0, -1000.0, 1000.0)  # Subtracted from every decoded onset and offset time.
    velocity_smoothing: float = probability(0.0)  # How far velocities go to the mean of the notes around (`notes.dynamics`).
    predict_level_db: float = field(0.0, -80.0, 0.0)  # Level of recordings as the network hears them (`audio.level`); 0: as is.
    predict_declip: bool = field(True)  # Recordings that were too loud to be recorded get their peaks back (`audio.clipping`).
    predict_declick: bool = field(True)  # The clicks of recordings that crackle are taken out (`audio.clicks`).
    predict_balance: float = probability(0.0)  # How much of what room and microphone colour is taken out (`audio.balance`),
    predict_balance_of: str = field("pianos", choices=constants.BALANCE_KINDS)  # as it is told in music of that kind.
    predict_in_tune: bool = field(True)  # Recordings of another tuning than A4 = 440 Hz are brought to it (`audio.tuning`).
    # Windows and the context on both sides that is thrown away after; rolls without Keras need none (`polyamp.roll_stream`).
    predict_window_seconds: float = field(20.0, 1.0, 3600.0)
    predict_margin_seconds: float = field(2.5, 0.0, 600.0)
    predict_runtime: str = field("auto", choices=("auto", "keras"))  # "auto" predicts without TensorFlow where it can.

    def __post_init__(self):
        """Checks what no field can check by itself."""
        unused = self.unused()
        layers = {name: len(getattr(self, name)) for name in ("num_filters", "temporal_sizes", "freq_sizes", "pool_sizes")}
        if "num_filters" not in unused and len(set(layers.values())) > 1:
            lengths = ", ".join(f"{name} has {length}" for name, length in layers.items())
            raise HParamsError(f"The settings of the convolutional layers need one entry per layer each: {lengths}.")
        if "mel_fmax" not in unused and self.spec_fmin >= self.mel_fmax:
            raise HParamsError(f"spec_fmin ({self.spec_fmin}) must be below mel_fmax ({self.mel_fmax}).")
        if "mel_window" not in unused and self.mel_window % 2:
            raise HParamsError(f"mel_window must be even, so that a frame is in the middle of it; got {self.mel_window}.")
        if "architecture" not in unused and (self.architecture == "pitch_shared") != (self.spec_type == "log_frequency"):
            raise HParamsError(
                f"architecture {self.architecture!r} cannot read spec_type {self.spec_type!r}: pitch_shared needs "
                "log_frequency, and nothing else does."
            )
        if "pool_sizes" not in unused and math.prod(self.pool_sizes) > self.spec_n_bins:
            raise HParamsError(f"pool_sizes {list(self.pool_sizes)} leave nothing of spec_n_bins ({self.spec_n_bins}).")
        if "predict_onset_threshold" not in unused and not (self.predict_onset_threshold or self.predict_frame_threshold):
            raise HParamsError(
                "predict_onset_threshold and predict_frame_threshold are both 0 (off); decoding needs one of them."
            )
        blocks = len(self.temporal_dilations)
        if "mixing_after" not in unused and max(self.mixing_after) > blocks:
            raise HParamsError(f"mixing_after names block {max(self.mixing_after)}; temporal_dilations has {blocks} blocks.")

    def unused(self) -> dict[str, str]:
        """The settings that have no effect with the others as they are, and why: "on MelodicHParams with ..."."""
        why = dict.fromkeys(self.UNUSED, "")
        for given in dataclasses.fields(self):
            other, *values = given.metadata["only"] or (None,)
            if other and getattr(self, other) not in values:
                why.setdefault(given.name, f" with {other} {getattr(self, other)!r}")
        for name, other in self._switched_off():
            why.setdefault(name, f" with {other} {getattr(self, other)!r}")
        return {name: f"on {type(self).__name__}{reason}" for name, reason in why.items()}

    def _switched_off(self) -> Iterator[tuple[str, str]]:
        """Settings that another one, whose name follows, makes void in other ways than `only` can say."""
        if not any(self.mixing_after):
            yield from (("mixing_channels", "mixing_after"), ("mixing_intervals", "mixing_after"))
        if self.onset_mode != "length_ms" and not (self.onset_mode == "triangle" and self.decay_frame_weights):
            yield "onset_length", "onset_mode"
        if not self.clip_norm:
            yield "clip_each_parameter", "clip_norm"
        if not self.predict_balance:
            yield "predict_balance_of", "predict_balance"
        if not self.augment_probability:
            yield from ((name, "augment_probability") for name in _DISTURBANCES)
        if self.predict_strikes and "predict_strikes" not in self.UNUSED:
            yield "velocity_smoothing", "predict_strikes"
        for threshold in ("predict_onset_threshold", "predict_frame_threshold"):
            if not getattr(self, threshold):
                yield from (("active_onset_threshold", threshold), ("predict_offset_weight", threshold))
                return
        if self.predict_offset_weight:
            yield "active_onset_threshold", "predict_offset_weight"
            if self.predict_offset_threshold:  # For 0 offsets do not count, for all others they do, however probable.
                yield "predict_offset_threshold", "predict_offset_weight"

    @property
    def frames_per_second(self) -> float:
        """Frames per second: sample rate over hop."""
        return constants.SAMPLE_RATE / self.hop_length


@dataclasses.dataclass(frozen=True)
class TimbreHParams(MelodicHParams):
    """Settings of the Timbre model. Of the Melodic ones it uses those of training and augmentation.

    The defaults are the published network and loss; `configs/timbre_compact.json` is the one that ships.
    """

    UNUSED = (
        ROLL_SETTINGS
        | {"onset_bias_ms", "velocity_smoothing", "spec_type", "architecture", "predict_balance", "predict_balance_of"}
        | {"predict_strikes", "spec_fmin", "spec_n_bins", "cqt_bins_per_octave", "mel_fmax", "mel_window"}
        | {f.name for f in dataclasses.fields(MelodicHParams) if f.metadata["only"][:1] == ("architecture",)}
    )

    timbre_architecture: str = structural("filters", choices=("filters", "harmonics", "pitch_shared"))
    timbre_hop_length: int = structural(256, 1, 16_384)  # Samples.
    # The published network, `filters`, on a constant-Q spectrogram.
    timbre_spec_n_bins: int = _of_filters(229, 24, 2048)
    timbre_spec_fmin: float = _of_filters(0.0, 0.0, 8000.0)  # Hz, the lowest bin; 0: `spec_fmin`.
    timbre_bins_per_octave: int = _of_filters(28, 12, 240)
    timbre_num_filters: tuple[int, ...] = _of_filters((128, 128), 1, 4096)
    timbre_pool_size: tuple[int, ...] = _of_filters((3, 2), 1, 16)  # Time, frequency; after each block.
    timbre_freq_sizes: tuple[int, ...] = _of_filters((3, 7), 1, 63)  # Of the parallel filters.
    timbre_temporal_sizes: tuple[int, ...] = _of_filters((1, 3, 5), 1, 63)
    timbre_temporal_filters: tuple[int, ...] = _of_filters((96, 64, 32), 1, 4096)
    timbre_dense_units: int = _of_filters(256, 1, 4096)
    timbre_gradient_exp: float = _of_filters(8.0, 0.1, 1000.0)  # Octaves above the note in which weights fall by e.
    timbre_below_weight: float = _of_filters(2e-3, 0.0, 1.0)  # Of the frequencies below the note.
    # `harmonics`: a small image of each note's own partials.
    timbre_patch_frames: int = _of_patches(24, 4, 512)
    timbre_patch_harmonics: int = _of_patches(13, 2, 40)
    timbre_patch_units: tuple[int, ...] = _of_patches((320, 160), 1, 4096)  # Of its dense layers.
    # `pitch_shared`: convolutions over time and pitch, as the compact Melodic network has.
    timbre_harmonics: tuple[float, ...] = _of_timbre_shared((0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16), 0.1, 64.0)
    timbre_channels: int = _of_timbre_shared(32, 1, 1024)
    timbre_dilations: tuple[int, ...] = _of_timbre_shared((1, 2, 4, 8), 1, 256)  # In time; one block each.
    timbre_mixing_channels: int = _of_timbre_shared(16, 1, 1024)
    timbre_mixing_intervals: tuple[int, ...] = _of_timbre_shared((3, 4, 5, 7, 12, 19, 24, 28, 31, 34, 36), 1, 87)
    timbre_note_units: tuple[int, ...] = _of_timbre_shared((128,), 1, 4096)  # Of the dense layers on each note.

    # --- Training --------------------------------------------------------------------------------------------------
    timbre_max_notes: int = field(96, 1, 4096)  # Of a crop; of more, so many at random.
    timbre_dropout: float = field(0.3, 0.0, 0.95)
    timbre_note_jitter_ms: float = field(0.0, 0.0, 500.0)  # Standard deviation of errors put into onsets (offsets: 4 times).
    timbre_max_start_offset: float = field(16_000.0, 0.0, 160_000.0)  # Samples before a note of a mix, at most half of it.
    timbre_training_max_instruments: int = field(8, 1, 64)  # Single notes in one mix.
    timbre_gain_db: float = field(6.0, 0.0, 60.0)  # Difference of the loudness of the single notes of a mix, at most.
    family_loss: str = field("log", choices=("log", "crossentropy"))
    family_recall_weight: float = field(1.0, 0.0, 1000.0)  # Weight of what is true, for the loss "log".
    family_absent_weight: float = field(1e-2, 0.0, 1.0)  # Of families that no note of the batch has, for the loss "log".
    # Weight of a note, for the other loss: how many of the batch are of its family, to minus this.
    family_balance: float = field(0.0, 0.0, 1.0, only=("family_loss", "crossentropy"))

    # --- Choosing families (may be changed at run time) --------------------------------------------------------------
    timbre_level_db: float = field(0.0, -80.0, 0.0)  # Level at which families are told, as `predict_level_db`; 0: as it is.
    family_prior_strength: float = field(1.0, 0.0, 10.0)  # How much a piece's other notes count; 0: every note by itself.
    family_smoothing: float = probability(0.0)  # How much neighbours in time and pitch count; 0: nothing.
    family_min_share: float = field(0.0, 0.0, 1.0)  # A family with fewer of the notes is given to the likeliest of the others.
    present_instruments: tuple[str, ...] = field(constants.FAMILIES, choices=constants.FAMILIES)  # No others are answered.

    def __post_init__(self):
        """Checks what no field can check by itself."""
        super().__post_init__()
        if self.timbre_architecture != "filters":
            return
        if len(self.timbre_pool_size) != 2:
            raise HParamsError(f"timbre_pool_size needs two entries, time and frequency; got {list(self.timbre_pool_size)}.")
        if len(self.timbre_temporal_sizes) != len(self.timbre_temporal_filters):
            raise HParamsError(
                f"timbre_temporal_sizes ({len(self.timbre_temporal_sizes)} entries) and timbre_temporal_filters "
                f"({len(self.timbre_temporal_filters)} entries) need to be as many."
            )
        for name in ("timbre_freq_sizes", "timbre_temporal_sizes"):
            sizes = getattr(self, name)
            if len(set(sizes)) < len(sizes):
                raise HParamsError(f"{name} names a size twice: {list(sizes)}.")

    def unused(self) -> dict[str, str]:
        """As of a Melodic model."""
        why = super().unused()
        if self.timbre_architecture == "filters" and not self.timbre_spec_fmin:
            why.pop("spec_fmin", None)
        if self.family_loss == "crossentropy" and not isinstance(self, FullHParams):  # Whose rolls have the other loss.
            reason = f"on {type(self).__name__} with family_loss 'crossentropy'"
            why |= dict.fromkeys(("family_recall_weight", "family_absent_weight"), reason)
        return why

    @property
    def timbre_lowest_hz(self) -> float:
        """The lowest bin of the Timbre model's own constant-Q spectrogram."""
        return self.timbre_spec_fmin or self.spec_fmin


@dataclasses.dataclass(frozen=True)
class FullHParams(TimbreHParams):
    """Settings of the Full model: those of its two parts, and how they go together."""

    UNUSED = frozenset()

    melodic_trainable: bool = field(True)
    full_max_notes: int = field(192, 1, 4096)  # Decoded notes of a training crop; of more, the most probable.
    instruments_loss_weight: float = field(1.0, 0.0, 1000.0)  # Of the rolls by family.
    family_loss_weight: float = field(1.0, 0.0, 1000.0)  # Of the families of the true notes.
    use_all_instruments: bool = field(False)  # A note goes to all families as likely as the next says, else to one alone.
    multiple_instruments_threshold: float = field(0.5, 0.0, 1.0, only=("use_all_instruments", True))
