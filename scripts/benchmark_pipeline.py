#!/usr/bin/env python3
"""Measures whether the data or the model is the limit of a training, and how fast data sets are prepared.

    python scripts/benchmark_pipeline.py --model_type=MELODIC --config=melodic_compact --examples_path='maps/train*'
    python scripts/benchmark_pipeline.py --dataset=maps --input_dir=MAPS --recordings=10

The first counts the examples that the input pipeline gives in 1, 2, ... processes, as workers of one training have them, each
on a core of its own, without and with the augmentation of the settings; beside them what training steps take on all cores, and,
for the published Melodic network and where PyTorch is installed, those of the same layout in PyTorch. The second times what
create_tfrecords.py does with a recording, from files to records, on one core; and what Magenta's `process_record` and what its
pipelines do before it take for the same files, where that is installed (scripts/install_magenta.sh). Prints a table.
"""

import concurrent.futures
import dataclasses
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    from polyamp.data.recording import Recording
    from polyamp.hparams import MelodicHParams

_EXAMPLES_PATH = flags.DEFINE_string("examples_path", None, "TFRecords to read: files and globs, comma-separated.")
_MODEL_TYPE = flags.DEFINE_string("model_type", "MELODIC", "Which model.")
_CONFIG = flags.DEFINE_string("config", None, "Preset; default: the published settings of the model.")
_HPARAMS = flags.DEFINE_multi_string("hparams", [], "Hyperparameters, as JSON.")
_PROCESSES = flags.DEFINE_list(
    "processes", [str(n) for n in range(1, (os.cpu_count() or 1) + 1)], "Numbers of processes to measure the pipeline with."
)
_SECONDS = flags.DEFINE_float("seconds", 10.0, "Of each measurement of the pipeline.", lower_bound=0.1)
_MODEL_STEPS = flags.DEFINE_integer("model_steps", 5, "Training steps to time; 0: none.", lower_bound=0)
_DATASET = flags.DEFINE_string("dataset", None, "Data set to prepare, as for create_tfrecords.py.")
_INPUT_DIR = flags.DEFINE_string("input_dir", None, "Its folder.")
_RECORDINGS = flags.DEFINE_integer("recordings", 5, "How many of its recordings to prepare.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the figures to as well.")

_LENGTHS = (5.0, 20.0)  # Shortest and longest segment in seconds, as create_tfrecords.py and Magenta cut by default.

_start: Any = None  # In a process of a measurement: the barrier that all of them pass together.


def main(argv: Sequence[str]) -> int:
    """Measures; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _benchmark)


def _benchmark() -> None:
    from polyamp.atomic import write_text
    from polyamp.errors import PolyampError

    found: dict[str, Any] = {}
    if _DATASET.value and _INPUT_DIR.value:
        found["preparation"] = _print_preparation(_DATASET.value, _INPUT_DIR.value)
    elif _DATASET.value or _INPUT_DIR.value:
        raise PolyampError("--dataset and --input_dir go together; give both.")
    if _EXAMPLES_PATH.value:
        found["pipeline"] = _print_pipeline(_EXAMPLES_PATH.value)
    if not found:
        raise PolyampError("nothing to measure: give --examples_path, or --dataset and --input_dir.")
    if _OUTPUT.value:
        write_text(Path(_OUTPUT.value), json.dumps(found, indent=1) + "\n")


# --- The input pipeline beside the model ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Rate:
    """How fast examples are given or trained on, all processes together.

    Attributes:
        examples: Each second.
        audio_seconds: Of sound in them, each second.
    """

    examples: float
    audio_seconds: float

    @classmethod
    def of(cls, examples_a_second: float, hparams: "MelodicHParams") -> "Rate":
        """With the seconds of the settings' training crops."""
        return cls(examples_a_second, examples_a_second * hparams.train_frames / hparams.frames_per_second)


def _print_pipeline(examples_path: str) -> list[dict[str, Any]]:
    from polyamp import hparams as hparams_lib
    from polyamp.data import records
    from polyamp.errors import PolyampError
    from polyamp.overrides import parse_overrides

    if not all(text.isdigit() and int(text) for text in _PROCESSES.value):
        raise PolyampError(f"--processes={','.join(_PROCESSES.value)}: give whole numbers from 1 on.")
    settings = hparams_lib.resolve(_MODEL_TYPE.value, _CONFIG.value, parse_overrides(_HPARAMS.value))
    records.expand_paths(examples_path)
    plain = dataclasses.replace(settings, augment_probability=0.0)
    kinds = {"without augmentation": plain} | ({"with augmentation": settings} if settings.augment_probability else {})
    print(f"{'':<32}{'processes':>9}{'examples/s':>12}{'audio s/s':>12}")
    rows = []

    def show(name: str, processes: int, rate: Rate) -> None:
        print(f"{name:<32}{processes:>9}{rate.examples:>12.1f}{rate.audio_seconds:>12.1f}", flush=True)
        rows.append({"name": name, "processes": processes, **dataclasses.asdict(rate)})

    for name, of_kind in kinds.items():
        for processes in map(int, _PROCESSES.value):
            show(f"pipeline {name}", processes, pipeline_rate(examples_path, of_kind, processes, _SECONDS.value))
    if _MODEL_STEPS.value:
        show("training steps", 1, model_rate(examples_path, settings, _MODEL_STEPS.value))
        fed = rows[-2]["examples"]
        limit = "model" if rows[-1]["examples"] < fed else "data"
        print(f"The {limit} is the limit: the pipeline gives {fed / rows[-1]['examples']:.1f} times what training takes.")
        if _MODEL_TYPE.value == "MELODIC" and settings.architecture == "onsets_frames":
            in_pytorch = pytorch_rate(settings, _MODEL_STEPS.value)
            if in_pytorch is not None:
                show("training steps in PyTorch", 1, in_pytorch)
    return rows


def pipeline_rate(examples_path: str, hparams: "MelodicHParams", processes: int, seconds: float) -> Rate:
    """What so many processes together read, cut, augment and label, each on a core of its own where the system allows that.

    Raises:
        PolyampError: One of them fails.
    """
    from polyamp.errors import PolyampError

    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork.
    start = context.Barrier(processes)
    with concurrent.futures.ProcessPoolExecutor(processes, context, _share, (start,)) as pool:
        work = [pool.submit(_read_for, examples_path, hparams, number, seconds) for number in range(processes)]
        failed = [error for error in (one.exception() for one in work) if error is not None]
    if failed:  # Where one failed, the others only say that they waited for it.
        said = [str(error) for error in failed if not isinstance(error, threading.BrokenBarrierError)]
        raise PolyampError(" ".join(said[0].split())[:300] if said and said[0] else "a process of the pipeline was ended.")
    return Rate.of(sum(one.result() for one in work), hparams)


def _share(start: Any) -> None:
    """Keeps what the processes of a measurement begin together with, and lets Ctrl-C end them, which would be their result."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    global _start
    _start = start


def _read_for(examples_path: str, hparams: "MelodicHParams", number: int, seconds: float) -> float:
    """The examples a second of one process."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    try:
        batches = _batches(examples_path, hparams, seed=number)
        next(batches)  # What starting takes is not counted.
        _start.wait()
    except BaseException:
        _start.abort()
        raise
    begun = time.perf_counter()
    count = 0
    while time.perf_counter() - begun < seconds:
        next(batches)
        count += hparams.batch_size
    return count / (time.perf_counter() - begun)


def _batches(examples_path: str, hparams: "MelodicHParams", seed: int) -> Iterator[Any]:
    """The training batches of a model with these settings, whatever its type."""
    from polyamp import startup
    from polyamp.hparams import AutoregressiveHParams, TimbreHParams

    startup.start_keras()
    from polyamp.data import note_batches, pipeline, state_batches

    if isinstance(hparams, AutoregressiveHParams):
        return iter(state_batches.training_dataset(examples_path, hparams, seed, 0, 1_000_000))
    if isinstance(hparams, TimbreHParams):
        return iter(note_batches.training_dataset(examples_path, hparams, seed))
    return iter(pipeline.training_dataset(examples_path, hparams, seed))


def model_rate(examples_path: str, hparams: "MelodicHParams", steps: int) -> Rate:
    """What training steps on one and the same batch take in, from audio on, on all cores; their compilation is not counted."""
    import keras
    import numpy as np

    from polyamp import models, train

    batch = keras.tree.map_structure(np.asarray, next(_batches(examples_path, hparams, seed=0)))  # For any backend.
    with train.precision_policy(hparams.precision):
        model = models.build(_MODEL_TYPE.value, hparams)
        model.compile(train.make_optimizer(hparams, steps + 1), **models.compile_arguments(_MODEL_TYPE.value, hparams))
    return _step_rate(lambda: model.train_on_batch(*batch), steps, hparams)


def _step_rate(step: Callable[[], object], steps: int, hparams: "MelodicHParams") -> Rate:
    """Of so many training steps of one batch, after a first that compiles or warms up and is not counted."""
    step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    return Rate.of(steps * hparams.batch_size / (time.perf_counter() - begun), hparams)


def pytorch_rate(hparams: "MelodicHParams", steps: int) -> Rate | None:
    """What training steps of Onsets and Frames in PyTorch take in, from audio on, on all cores; None without PyTorch.

    The layout that is usual there: a stack of three convolutions and a dense layer for each of onsets, offsets, frames and
    velocities, a bidirectional LSTM after the first two and after all three together; float32, its sizes those of the settings.
    """
    try:
        import torch
    except ImportError:
        return None
    import librosa
    from torch import nn

    from polyamp import constants

    class Stack(nn.Module):
        """Convolutions over the spectrogram, and a dense layer over what they give in each frame."""

        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            bins, before = hparams.spec_n_bins, 1
            for filters, pool in zip(hparams.num_filters, hparams.pool_sizes, strict=True):
                layers += [nn.Conv2d(before, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
                if pool > 1:
                    layers += [nn.MaxPool2d((1, pool)), nn.Dropout(hparams.conv_dropout)]
                bins, before = bins // pool, filters
            self.convolutions = nn.Sequential(*layers)
            self.dense = nn.Sequential(nn.Linear(before * bins, hparams.fc_size), nn.Dropout(hparams.fc_dropout))

        def forward(self, spectrogram: Any) -> Any:
            return self.dense(self.convolutions(spectrogram[:, None]).transpose(1, 2).flatten(2))

    class Recurrent(nn.Module):
        """A bidirectional LSTM and the probabilities that it leads to."""

        def __init__(self, size: int, units: int) -> None:
            super().__init__()
            self.lstm = nn.LSTM(size, units, batch_first=True, bidirectional=True)
            self.answer = nn.Linear(2 * units, constants.NUM_PITCHES)

        def forward(self, features: Any) -> Any:
            return torch.sigmoid(self.answer(self.lstm(features)[0]))

    class OnsetsAndFrames(nn.Module):
        """The whole network, from audio to rolls."""

        mel: Any

        def __init__(self) -> None:
            super().__init__()
            mel = librosa.filters.mel(
                sr=constants.SAMPLE_RATE,
                n_fft=hparams.mel_window,
                n_mels=hparams.spec_n_bins,
                fmin=hparams.spec_fmin,
                fmax=hparams.mel_fmax,
            )
            self.register_buffer("mel", torch.from_numpy(mel))
            self.stacks = nn.ModuleList(Stack() for _ in range(4))
            self.onset = Recurrent(hparams.fc_size, hparams.onset_lstm_units)
            self.offset = Recurrent(hparams.fc_size, hparams.offset_lstm_units)
            self.answers = nn.ModuleList(nn.Linear(hparams.fc_size, constants.NUM_PITCHES) for _ in range(2))
            self.combined = Recurrent(3 * constants.NUM_PITCHES, hparams.combined_lstm_units)

        def forward(self, audio: Any) -> Any:
            size = hparams.mel_window
            power = torch.stft(audio, size, hparams.hop_length, window=torch.hann_window(size), return_complex=True).abs() ** 2
            spectrogram = torch.log(torch.clamp(self.mel @ power, min=1e-5)).transpose(1, 2)[:, : hparams.train_frames]
            onset, offset, frame, velocity = (stack(spectrogram) for stack in self.stacks)
            onset, offset = self.onset(onset), self.offset(offset)
            frame = torch.sigmoid(self.answers[0](frame))
            together = self.combined(torch.cat([onset.detach(), offset.detach(), frame], dim=-1))
            return onset, offset, together, self.answers[1](velocity)

    shape = hparams.batch_size, hparams.train_frames
    audio = torch.randn(shape[0], shape[1] * hparams.hop_length)
    label = (torch.rand(*shape, constants.NUM_PITCHES) < 0.05).float()
    network = OnsetsAndFrames()
    optimizer = torch.optim.Adam(network.parameters(), hparams.learning_rate)

    def step() -> None:
        optimizer.zero_grad()
        *rolls, velocity = network(audio)
        loss = sum(nn.functional.binary_cross_entropy(roll, label) for roll in rolls)
        loss = loss + (label * (velocity - label) ** 2).sum() / label.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), hparams.clip_norm or 3.0)
        optimizer.step()

    return _step_rate(step, steps, hparams)


# --- Preparation beside Magenta's ----------------------------------------------------------------------------------------


def _print_preparation(dataset: str, input_dir: str) -> list[dict[str, Any]]:
    from polyamp import constants
    from polyamp.audio import reading
    from polyamp.data import sources

    recordings = sources.find(dataset, input_dir)[: _RECORDINGS.value]
    seconds = sum(len(reading.read(one.audio)) for one in recordings) / constants.SAMPLE_RATE  # Files are warm from here on.
    kinds: dict[str, Callable[[Recording], list[bytes]]] = {"polyamp": _prepare}
    magenta = magenta_preparation()
    if magenta is not None:
        kinds["magenta process_record"] = magenta
    print(f"{'preparation of ' + str(len(recordings)) + ' recordings':<32}{'segments':>9}{'CPU s':>12}{'audio s/s':>12}")
    rows = []
    for name, prepare in kinds.items():
        prepare(recordings[0])  # Imports and caches.
        begun = time.process_time()
        segments = sum(len(prepare(one)) for one in recordings)
        spent = time.process_time() - begun
        print(f"{name:<32}{segments:>9}{spent:>12.2f}{seconds / spent:>12.1f}", flush=True)
        rows.append({"name": name, "segments": segments, "cpu_seconds": spent, "audio_seconds": seconds / spent})
    return rows


def _prepare(recording: "Recording") -> list[bytes]:
    """The records of a recording, from its files on, as create_tfrecords.py makes them."""
    from polyamp.data import records, sources

    return [records.serialize(one) for one in sources.examples(recording, *_LENGTHS)]


def magenta_preparation() -> "Callable[[Recording], list[bytes]] | None":
    """The same of Magenta's code, None where it is not installed: its `process_record` with what its pipelines do before."""
    import warnings

    import soundfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from magenta.models.onsets_frames_transcription import audio_label_data_utils
            from note_seq import midi_io, sequences_lib
    except ImportError:
        return None
    from polyamp import constants, notes
    from polyamp.data import sources
    from polyamp.errors import DataError

    def prepare(recording: "Recording") -> list[bytes]:
        midi = recording.labels
        assert midi is not None
        if midi.suffix in (".mid", ".midi"):
            sequence = midi_io.midi_file_to_note_sequence(str(midi))
        else:  # Which Magenta reads for MAPS only.
            sequence = notes.to_sequence(sources.read_labels(midi))
        wav = recording.audio.read_bytes()
        if recording.audio.suffix != ".wav":  # Which is all that it takes.
            file = io.BytesIO()
            samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
            soundfile.write(file, samples, rate, format="WAV")
            wav = file.getvalue()
        sequence = sequences_lib.apply_sustain_control_changes(sequence)
        try:
            found = audio_label_data_utils.process_record(
                wav, sequence, recording.id, *_LENGTHS, constants.SAMPLE_RATE, allow_empty_notesequence=True
            )
            return [example.SerializeToString() for example in found]
        except ValueError as error:
            raise DataError(f"{recording.audio}: Magenta refuses it ({error}).") from error

    return prepare


if __name__ == "__main__":
    startup.run(main)
