"""Hyperparameters: one frozen dataclass per model, its defaults, and the strict JSON merge.

Resolution order: dataclass defaults -> preset (`--config`) -> `--hparams`. Nothing is changed after that; derived values are
properties. This module imports no TensorFlow, so that flag errors answer at once.
"""

import dataclasses
import difflib
import json
import math
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from polyamp import constants
from polyamp.errors import HParamsError


def _field(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    structural: bool = False,
) -> Any:
    """A dataclass field with the values that it may take: `[low, high]` or one of `choices` (of each item, for a tuple).

    Weights depend on a `structural` one, as they do on all that come before `onset_length`.
    """
    metadata = {"low": low, "high": high, "choices": tuple(choices), "structural": structural}
    return dataclasses.field(default=default, metadata=metadata)


def _probability(default: float) -> Any:
    return _field(default, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class MelodicHParams:
    """Settings of the Melodic model. The defaults are the published configuration (see `configs/` for the others).

    Sources: Hawthorne et al. 2018 (arXiv 1710.11153) for the onsets-and-frames family, Hawthorne et al. 2019
    (arXiv 1810.12247) for the offset head and augmentation.
    """

    # --- Spectrogram -----------------------------------------------------------------------------------------------
    spec_type: str = _field("cqt", choices=("cqt", "mel", "log_frequency"))
    hop_length: int = _field(512, 1, 16_384)  # Samples.
    spec_n_bins: int = _field(229, 1, 2048)
    cqt_bins_per_octave: int = _field(28, 1, 240)
    spec_fmin: float = _field(27.5, 1.0, 8000.0)  # Hz; the lowest CQT bin or mel edge.
    mel_fmax: float = _field(8000.0, 1.0, 8000.0)  # Hz
    mel_window: int = _field(2048, 64, 65_536)  # Samples.

    # --- Architecture ----------------------------------------------------------------------------------------------
    architecture: str = _field("onsets_frames", choices=("onsets_frames", "pitch_shared"))
    # Convolutional stacks of `onsets_frames`; one entry per layer.
    temporal_sizes: tuple[int, ...] = _field((3, 3, 3, 3), 1, 63)
    freq_sizes: tuple[int, ...] = _field((3, 3, 3, 3), 1, 63)
    num_filters: tuple[int, ...] = _field((48, 48, 96, 96), 1, 4096)
    pool_sizes: tuple[int, ...] = _field((1, 2, 2, 1), 1, 16)  # In frequency only; 1 is no pooling.
    conv_dropout: float = _field(0.25, 0.0, 0.95)
    fc_size: int = _field(768, 1, 16_384)
    fc_dropout: float = _field(0.5, 0.0, 0.95)
    onset_lstm_units: int = _field(256, 0, 8192)  # Per direction; 0 is no LSTM.
    offset_lstm_units: int = _field(256, 0, 8192)
    frame_lstm_units: int = _field(0, 0, 8192)  # Inside the activation stack, before the combined LSTM.
    combined_lstm_units: int = _field(256, 0, 8192)
    share_conv_features: bool = _field(False)  # One convolutional stack for all heads.
    use_batch_normalization: bool = _field(False)
    stop_activation_gradient: bool = _field(False)
    stop_onset_gradient: bool = _field(True)  # Onset probabilities enter the frame stack detached.
    stop_offset_gradient: bool = _field(True)
    # The network of `pitch_shared`: weights shared over the 88 pitches.
    harmonics: tuple[float, ...] = _field((0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0), 0.125, 64.0)
    channels: int = _field(48, 1, 1024)
    temporal_dilations: tuple[int, ...] = _field((1, 2, 4, 8, 16, 32, 1), 1, 256)  # One residual block each.
    mixing_after: tuple[int, ...] = _field((2, 4, 6), 0, 64)  # Pitch mixing follows these blocks, counted from 1; 0: none.
    mixing_channels: int = _field(16, 1, 1024)
    mixing_intervals: tuple[int, ...] = _field((3, 4, 5, 7, 12, 19, 24, 28, 31, 34, 36), 1, 87)  # Semitones, both ways.

    # --- Labels ----------------------------------------------------------------------------------------------------
    onset_length: float = _field(32.0, 0.0, 1000.0)  # Milliseconds marked after an onset.
    offset_length: float = _field(32.0, 0.0, 1000.0)
    onset_mode: str = _field("length_ms", choices=("length_ms", "window", "triangle"))
    onset_window: int = _field(2, 0, 32)  # Frames on each side, for modes `window` and `triangle`.
    onset_delay: float = _field(0.0, 0.0, 1000.0)  # Milliseconds.
    min_frame_occupancy_for_label: float = _field(0.0, 0.0, 1.0)
    decay_frame_weights: bool = _field(False)  # Hawthorne et al. 2018, section 3: full weight at the onset, then decaying.
    frame_weight_onset: float = _field(5.0, 0.0, 1000.0)  # The c of that section.

    # --- Loss ------------------------------------------------------------------------------------------------------
    onsets_true_weighing: float = _field(1.0, 0.0, 1000.0)  # Weight of the frames where the label is true (recall).
    offsets_true_weighing: float = _field(1.0, 0.0, 1000.0)
    frames_true_weighing: float = _field(1.0, 0.0, 1000.0)
    onset_loss_weight: float = _field(1.0, 0.0, 1000.0)
    offset_loss_weight: float = _field(1.0, 0.0, 1000.0)
    frame_loss_weight: float = _field(1.0, 0.0, 1000.0)
    velocity_loss_weight: float = _field(1.0, 0.0, 1000.0)

    # --- Training --------------------------------------------------------------------------------------------------
    batch_size: int = _field(8, 1, 65_536)
    train_frames: int = _field(640, 8, 1_000_000)  # Length of a random training crop.
    optimizer: str = _field("adam", choices=("adam", "adamw"))
    learning_rate: float = _field(6e-4, 0.0, 10.0)
    lr_schedule: str = _field("exponential", choices=("exponential", "one_cycle", "constant"))
    decay_rate: float = _field(0.98, 0.0, 1.0)
    decay_steps: int = _field(10_000, 1, 1_000_000_000)
    warmup_fraction: float = _field(0.1, 0.0, 1.0)  # Of the steps, for `one_cycle`.
    weight_decay: float = _field(0.0, 0.0, 10.0)  # `adamw` only.
    clip_norm: float = _field(3.0, 0.0, 1e6)  # L2 norm; 0 is no clipping.
    clip_each_parameter: bool = _field(True)  # Each parameter's gradient by itself, else all together.
    precision: str = _field("float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    jit_compile: bool = _field(False)

    # --- Augmentation (off by default; Hawthorne et al. 2019, appendix B) -------------------------------------------
    augment_probability: float = _probability(0.0)  # Share of the training crops disturbed; above 0 all crops change level.
    augment_pitch_semitones: float = _field(0.1, 0.0, 12.0)  # Detuning of audio, at most; labels stay.
    augment_transpose_semitones: int = _field(0, 0, 12)  # Transposition of audio features and labels, at most.
    augment_contrast: float = _field(100.0, 0.0, 100.0)
    augment_eq_db: float = _field(10.0, 0.0, 30.0)
    augment_reverb: float = _field(70.0, 0.0, 100.0)
    augment_noise: float = _field(0.04, 0.0, 1.0)  # Pink noise, amplitude at most, relative to full scale.
    augment_gain_db: float = _field(12.0, 0.0, 60.0)

    # --- Decoding (may be changed at run time; the published names `frame_prediction_threshold` … are aliases) --------
    predict_onset_threshold: float = _probability(0.5)  # 0 switches that input of the decoder off.
    predict_frame_threshold: float = _probability(0.5)
    predict_offset_threshold: float = _probability(0.5)
    active_onset_threshold: float = _probability(0.5)  # An onset above this makes its frame active; 0: never.
    min_note_ms: float = _field(0.0, 0.0, 10_000.0)
    onset_peak_picking: bool = _field(False)  # Only local maxima of the onset (offset) roll start (end) notes.
    onset_refinement: bool = _field(False)  # Onset (offset) times below the hop by interpolating the peak.
    onset_bias_ms: float = _field(0.0, -1000.0, 1000.0)  # Subtracted from every decoded onset and offset time.
    predict_window_seconds: float = _field(20.0, 1.0, 3600.0)
    predict_margin_seconds: float = _field(2.5, 0.0, 600.0)  # Context on both sides of a window, thrown away after.

    def __post_init__(self):
        """Checks what no field can check by itself."""
        layers = {name: len(getattr(self, name)) for name in ("num_filters", "temporal_sizes", "freq_sizes", "pool_sizes")}
        if len(set(layers.values())) > 1:
            lengths = ", ".join(f"{name} has {length}" for name, length in layers.items())
            raise HParamsError(f"The settings of the convolutional layers need one entry per layer each: {lengths}.")
        if self.spec_type == "mel" and self.spec_fmin >= self.mel_fmax:
            raise HParamsError(f"spec_fmin ({self.spec_fmin}) must be below mel_fmax ({self.mel_fmax}).")
        if (self.architecture == "pitch_shared") != (self.spec_type == "log_frequency"):
            raise HParamsError(
                f"architecture {self.architecture!r} cannot read spec_type {self.spec_type!r}: pitch_shared needs "
                "log_frequency, and nothing else does."
            )
        blocks = len(self.temporal_dilations)
        if self.architecture == "pitch_shared" and max(self.mixing_after) > blocks:
            raise HParamsError(f"mixing_after names block {max(self.mixing_after)}; temporal_dilations has {blocks} blocks.")

    @property
    def frames_per_second(self) -> float:
        """Frames per second: sample rate over hop."""
        return constants.SAMPLE_RATE / self.hop_length


@dataclasses.dataclass(frozen=True)
class TimbreHParams(MelodicHParams):
    """Settings of the Timbre model. Of the Melodic ones it uses those of training and augmentation.

    The defaults are the published network and loss; `configs/timbre_compact.json` is the one that ships.
    """

    timbre_architecture: str = _field("filters", choices=("filters", "harmonics"), structural=True)
    timbre_hop_length: int = _field(256, 1, 16_384, structural=True)  # Samples.
    # The published network, `filters`, on a constant-Q spectrogram.
    timbre_spec_n_bins: int = _field(229, 24, 2048, structural=True)
    timbre_bins_per_octave: int = _field(28, 12, 240, structural=True)
    timbre_num_filters: tuple[int, ...] = _field((128, 128), 1, 4096, structural=True)
    timbre_pool_size: tuple[int, ...] = _field((3, 2), 1, 16, structural=True)  # Time, frequency; after each block.
    timbre_freq_sizes: tuple[int, ...] = _field((3, 7), 1, 63, structural=True)  # Of the parallel filters.
    timbre_temporal_sizes: tuple[int, ...] = _field((1, 3, 5), 1, 63, structural=True)
    timbre_temporal_filters: tuple[int, ...] = _field((96, 64, 32), 1, 4096, structural=True)
    timbre_dense_units: int = _field(256, 1, 4096, structural=True)
    timbre_gradient_exp: float = _field(8.0, 0.1, 1000.0, structural=True)  # Octaves above the note in which weights fall by e.
    timbre_below_weight: float = _field(2e-3, 0.0, 1.0, structural=True)  # Of the frequencies below the note.
    # The network that ships, `harmonics`: a small image of each note's own partials.
    timbre_patch_frames: int = _field(24, 4, 512, structural=True)
    timbre_patch_harmonics: int = _field(13, 2, 40, structural=True)
    timbre_patch_units: tuple[int, ...] = _field((320, 160), 1, 4096, structural=True)  # Of its dense layers.

    # --- Training --------------------------------------------------------------------------------------------------
    timbre_max_notes: int = _field(96, 1, 4096)  # Of a crop; of more, so many at random.
    timbre_dropout: float = _field(0.3, 0.0, 0.95)
    timbre_note_jitter_ms: float = _field(0.0, 0.0, 500.0)  # Standard deviation of errors put into onsets (offsets: 4 times).
    timbre_max_start_offset: float = _field(16_000.0, 0.0, 160_000.0)  # Samples before a note of a mix of single notes.
    timbre_training_max_instruments: int = _field(8, 1, 64)  # Single notes in one mix.
    timbre_gain_db: float = _field(6.0, 0.0, 60.0)  # Difference of the loudness of the single notes of a mix, at most.
    family_loss: str = _field("log", choices=("log", "crossentropy"))
    family_recall_weight: float = _field(1.0, 0.0, 1000.0)  # Weight of what is true, for the loss "log".
    family_absent_weight: float = _field(1e-2, 0.0, 1.0)  # Of families that no note of the batch has, for the loss "log".
    family_balance: float = _field(0.0, 0.0, 1.0)  # Weight of a note: how many of the batch are of its family, to minus this.

    # --- Choosing families (may be changed at run time) --------------------------------------------------------------
    family_prior_strength: float = _field(1.0, 0.0, 10.0)  # How much a piece's other notes count; 0: every note by itself.
    family_min_share: float = _field(0.0, 0.0, 1.0)  # A family with fewer of the notes is given to the likeliest of the others.
    present_instruments: tuple[str, ...] = _field(constants.FAMILIES, choices=constants.FAMILIES)  # No others are answered.


@dataclasses.dataclass(frozen=True)
class FullHParams(TimbreHParams):
    """Settings of the Full model: those of its two parts, and how they go together."""

    melodic_trainable: bool = _field(True)
    full_max_notes: int = _field(192, 1, 4096)  # Decoded notes of a training crop; of more, the most probable.
    instruments_loss_weight: float = _field(1.0, 0.0, 1000.0)  # Of the rolls by family.
    family_loss_weight: float = _field(1.0, 0.0, 1000.0)  # Of the families of the true notes.
    multiple_instruments_threshold: float = _probability(0.5)  # With the next: a note goes to all families as likely as that.
    use_all_instruments: bool = _field(False)  # As said; otherwise a note goes to its likeliest family alone.


HPARAMS: dict[str, type[MelodicHParams]] = {"MELODIC": MelodicHParams, "TIMBRE": TimbreHParams, "FULL": FullHParams}
BUILT = ("MELODIC", "TIMBRE", "FULL")  # Those whose networks exist.

# Published spellings that mean one of ours.
ALIASES = {
    "frame_prediction_threshold": "predict_frame_threshold",
    "onset_prediction_threshold": "predict_onset_threshold",
    "offset_prediction_threshold": "predict_offset_threshold",
}

_FIRST_FIELD_AFTER_STRUCTURE = "onset_length"


def structure(hparams: MelodicHParams) -> dict[str, Any]:
    """The settings that trained weights depend on (spectrogram and architecture); all others may change between runs."""
    names = [field.name for field in dataclasses.fields(hparams)]
    marked = [field.name for field in dataclasses.fields(hparams) if field.metadata["structural"]]
    return {name: getattr(hparams, name) for name in names[: names.index(_FIRST_FIELD_AFTER_STRUCTURE)] + marked}


def part(model_type: str, hparams: MelodicHParams) -> MelodicHParams:
    """The settings of one part of a Full model, or the settings themselves if they are of that type."""
    kind = model_hparams(model_type)
    return kind(**{field.name: getattr(hparams, field.name) for field in dataclasses.fields(kind)})


def joined(melodic: MelodicHParams, timbre: MelodicHParams) -> "FullHParams":
    """The settings of a Full model made of a Melodic and a Timbre one: what both have is the Melodic one's."""
    own = {field.name for field in dataclasses.fields(MelodicHParams)}
    of_timbre = {f.name: getattr(timbre, f.name) for f in dataclasses.fields(timbre) if f.name not in own}
    return FullHParams(**{name: getattr(melodic, name) for name in own}, **of_timbre)


def model_hparams(model_type: str) -> type[MelodicHParams]:
    """The dataclass of a model type; `HParamsError` where there is none."""
    if model_type not in BUILT:
        raise HParamsError(f"model type {model_type!r} is not built yet; built so far: {', '.join(BUILT)}.")
    return HPARAMS[model_type]


def merge(base: MelodicHParams, overrides: Mapping[str, Any], source: str = "--hparams") -> MelodicHParams:
    """Returns `base` with `overrides` applied, every name, type and range checked.

    Args:
        base: Settings to start from; not changed.
        overrides: Names (aliases allowed) and JSON values; lists become tuples, whole floats become ints where an int is due.
            Names that only another model has are checked, and ignored with a warning.
        source: Where the overrides come from, for error messages.

    Raises:
        HParamsError: Names the field, its type and range, and for an unknown name the nearest known ones.
    """
    fields = {field.name: field for field in dataclasses.fields(base)}
    types = typing.get_type_hints(type(base))
    values = {}
    for given, value in overrides.items():
        name = ALIASES.get(given, given)
        other = _of_other_model(name) if name not in fields else None
        if other:
            field, kind = other
            _checked(field, kind, value, source)
            logging.warning("%s: %s is checked but has no effect on %s.", source, name, type(base).__name__)
            continue
        if name not in fields:
            near = difflib.get_close_matches(name, [*fields, *ALIASES], n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise HParamsError(f"{source}: {given!r} is not a hyperparameter of {type(base).__name__}.{hint}")
        if name in values:
            raise HParamsError(f"{source}: {name!r} is given twice (once as an alias); give it once.")
        values[name] = _checked(fields[name], types[name], value, source)
    return dataclasses.replace(base, **values)


def _of_other_model(name: str) -> tuple[dataclasses.Field, Any] | None:
    """The field of that name, and its type, of any model: one command line may serve several model types."""
    for model in HPARAMS.values():
        for field in dataclasses.fields(model):
            if field.name == name:
                return field, typing.get_type_hints(model)[name]
    return None


def _describe(field: dataclasses.Field, kind: Any) -> str:
    """Type and range of a field in words, such as `float between 0.0 and 1.0`."""
    if typing.get_origin(kind) is tuple:
        words = f"list of {typing.get_args(kind)[0].__name__}"
    else:
        words = kind.__name__
    meta = field.metadata
    if meta.get("choices"):
        return f"{words}, one of {', '.join(meta['choices'])}"
    return words if meta.get("low") is None else f"{words} between {meta['low']} and {meta['high']}"


def _checked(field: dataclasses.Field, kind: Any, value: Any, source: str) -> Any:
    """The value as the field's type, or an error that says what is due."""
    problem = HParamsError(f"{source}: {field.name} must be a {_describe(field, kind)}, not {value!r}.")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not value:
            raise problem
        return tuple(_checked_scalar(field, typing.get_args(kind)[0], item, problem) for item in value)
    return _checked_scalar(field, kind, value, problem)


def _checked_scalar(field: dataclasses.Field, kind: type, value: Any, problem: HParamsError) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise problem
    if isinstance(value, float) and not math.isfinite(value):
        raise problem
    low, high, choices = field.metadata["low"], field.metadata["high"], field.metadata["choices"]
    if (low is not None and not low <= value <= high) or (choices and value not in choices):
        raise problem
    return value


def read_json(path: str | Path, source: str | None = None) -> dict[str, Any]:
    """Reads a JSON object of hyperparameters; `HParamsError` with the file's name if that is not what it holds."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise HParamsError(f"{source or path}: cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise HParamsError(f"{source or path}: must hold a JSON object of hyperparameters.")
    return value


def preset_path(config: str) -> Path:
    """The file of a preset: `config` itself if it is a path to a file, else `configs/<config>.json`.

    Raises:
        HParamsError: Neither exists; names the presets that do.
    """
    if os.path.isfile(config):  # Unlike Path's method it takes any text, such as misplaced JSON.
        return Path(config)
    folders = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
    for folder in folders:
        candidate = folder / f"{config.removesuffix('.json')}.json"
        if os.path.isfile(candidate):
            return candidate
    known = sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.json")})
    near = difflib.get_close_matches(config, known, n=3) or known
    raise HParamsError(f"--config: no file {config!r} and no preset of that name; presets: {', '.join(near)}.")


def resolve(model_type: str, config: str | None = None, overrides: Mapping[str, Any] | None = None) -> MelodicHParams:
    """Defaults of `model_type`, then the preset, then the overrides."""
    resolved = model_hparams(model_type)()
    if config:
        path = preset_path(config)
        resolved = merge(resolved, read_json(path), source=str(path))
    return merge(resolved, overrides or {})


def to_json(hparams: MelodicHParams) -> str:
    """All settings as indented JSON, to be read back by `from_json`."""
    return json.dumps(dataclasses.asdict(hparams), indent=2) + "\n"


def from_json(model_type: str, path: str | Path) -> MelodicHParams:
    """Reads settings that `to_json` wrote; unknown names are errors, absent ones take their defaults."""
    return merge(model_hparams(model_type)(), read_json(path), source=str(path))
