"""Transcribes a corpus with Apache Beam, on its local runner, Flink, Spark, Dataflow and others.

A Melodic or Full model's windows go through Beam's RunInference, which batches those of different recordings together and loads
the model once a process, at the cost of their margins; the rolls of a recording come together again and are decoded as
`polyamp.predict` does. A Full model's second part and an Autoregressive model, whose state goes on from window to window, take
recordings as a whole.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.utils import shared

from polyamp import checkpoint_file, constants, corpus, light, notes, predict, windows
from polyamp.audio import reading
from polyamp.checkpoint import Loaded
from polyamp.corpus import Job, Weights
from polyamp.data import beam_preparation
from polyamp.errors import PolyampError
from polyamp.hparams import ALIASES, FullHParams, MelodicHParams
from polyamp.notes.growing_rolls import GrowingRolls

# A window of a recording: (where its notes go, number of the window, frames that are new in it). Bytes, as Beam's strings are
# UTF-8 and names of files need not be.
Key = tuple[bytes, int, int]
_FAILED = "failed"
_DONE = "done"


class RollsHandler(ModelHandler[np.ndarray, dict[str, np.ndarray], Any]):
    """Runs windows of audio through a Melodic or Full model, whatever it runs on.

    Args:
        weights: Which model.
        batch_size: Windows at a time, at most.
    """

    def __init__(self, weights: Weights, batch_size: int):
        super().__init__(max_batch_size=batch_size)
        self._weights = weights

    def load_model(self) -> Any:
        """Audio `[batch, samples]` to rolls `[batch, time, 88]` by name."""
        from polyamp import transcribe

        loaded = predict.load(*self._weights.where)
        return transcribe.part(loaded.model, light.ROLLS, loaded.hparams)

    def run_inference(
        self, batch: Sequence[np.ndarray], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[dict[str, np.ndarray]]:
        """The rolls `[time, 88]` of windows `[samples]`, which may differ in length."""
        answers: list[dict[str, np.ndarray]] = [{} for _ in batch]
        for length in {len(window) for window in batch}:
            same = [number for number, window in enumerate(batch) if len(window) == length]
            rolls = model.predict_on_batch(np.stack([batch[number] for number in same]))
            for row, number in enumerate(same):
                answers[number] = {name: np.array(roll[row], np.float32) for name, roll in rolls.items()}
        return answers

    def get_num_bytes(self, batch: Sequence[np.ndarray]) -> int:
        """Of the windows."""
        return sum(window.nbytes for window in batch)

    def get_metrics_namespace(self) -> str:
        """Where Beam counts what it infers."""
        return beam_preparation.NAMESPACE


class CutWindows(beam.DoFn):
    """A recording's windows under their keys, and last under the tag "done" what all have in common.

    What cannot be read is noted; some of its windows may be on their way then, but nothing that says that they are all.
    """

    def __init__(self, hparams: MelodicHParams):
        self._hparams = hparams

    def process(self, job: Job) -> Iterator[Any]:
        from polyamp import transcribe

        core, margin = windows.window_frames(self._hparams)
        samples = _Counter()
        count = 0
        try:
            with corpus.local(job.audio) as path:
                blocks = reading.of_file(path)
                heard, stretch = transcribe.as_heard(lambda: samples.of(_named(blocks(), path, job)), self._hparams)
                for_rolls = transcribe.for_rolls(heard, self._hparams)
                for window, kept in windows.windows(for_rolls(), core, margin, self._hparams.hop_length):
                    yield (os.fsencode(job.output), count, kept), window
                    count += 1
        except PolyampError as error:
            _fail(job, error)
            return
        _count("windows", count)
        yield beam.pvalue.TaggedOutput(_DONE, (os.fsencode(job.output), (job, count, samples.seconds, stretch)))


class WriteNotes(beam.DoFn):
    """Decodes the rolls of a recording, tells the instruments if the model is a Full one, and writes the files."""

    def __init__(self, weights: Weights, hparams: MelodicHParams, model: dict[str, Any], handle: shared.Shared):
        self._weights, self._hparams, self._model, self._handle = weights, hparams, model, handle

    def process(self, element: tuple[bytes, dict[str, list[Any]]]) -> None:
        _, of_recording = element
        for job, count, seconds, stretch in of_recording[_DONE]:
            parts = [rolls for _, rolls in sorted(of_recording["rolls"], key=lambda numbered: numbered[0])]
            if len(parts) != count:
                raise RuntimeError(f"{job.audio}: {len(parts)} windows came back, not {count}.")
            rolls = GrowingRolls()
            for part in parts:
                rolls.add(part)
            del parts
            try:
                found = notes.from_rolls(rolls, self._hparams)
                if isinstance(self._hparams, FullHParams):
                    found = self._with_programs(job, found, self._hparams)
                corpus.write(job, notes.stretched(found, 1 / stretch), seconds, self._model)
            except PolyampError as error:
                _fail(job, error)
                continue
            _count_recording(seconds)

    def _with_programs(self, job: Job, found: notes.Notes, hparams: FullHParams) -> notes.Notes:
        from polyamp import transcribe

        loaded = _loaded(self._weights, self._handle)
        with corpus.local(job.audio) as path:
            blocks = reading.of_file(path)
            heard, _ = transcribe.as_heard(lambda: _named(blocks(), path, job), hparams)
            return transcribe.with_programs(loaded.model, heard, found, hparams)


class TranscribeWhole(beam.DoFn):
    """Transcribes a recording as `polyamp.predict` does, from its audio to its files."""

    def __init__(self, weights: Weights, model: dict[str, Any], handle: shared.Shared):
        self._weights, self._model, self._handle = weights, model, handle

    def process(self, job: Job) -> None:
        from polyamp import transcribe

        loaded = _loaded(self._weights, self._handle)
        samples = _Counter()
        try:
            with corpus.local(job.audio) as path:
                blocks = reading.of_file(path)
                found = transcribe.transcribe(loaded.model, lambda: samples.of(_named(blocks(), path, job)), loaded.hparams)
            corpus.write(job, found, samples.seconds, self._model)
        except PolyampError as error:
            _fail(job, error)
            return
        _count_recording(samples.seconds)


class _Counter:
    """Counts the samples of blocks that pass."""

    def __init__(self) -> None:
        self._samples = 0

    @property
    def seconds(self) -> float:
        """Of what has passed last."""
        return self._samples / constants.SAMPLE_RATE

    def of(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        self._samples = 0
        for block in blocks:
            self._samples += len(block)
            yield block


def _named(blocks: Iterator[np.ndarray], path: Any, job: Job) -> Iterator[np.ndarray]:
    """The blocks of a file that may be a temporary copy; errors name the recording itself."""
    try:
        yield from blocks
    except PolyampError as error:
        raise type(error)(str(error).replace(str(path), job.audio)) from error


def _loaded(weights: Weights, handle: shared.Shared) -> Loaded:
    """The model, loaded once a process."""
    return handle.acquire(functools.partial(predict.load, *weights.where))


def _count(name: str, value: int = 1) -> None:
    beam.metrics.Metrics.counter(beam_preparation.NAMESPACE, name).inc(value)


def _count_recording(seconds: float) -> None:
    _count("recordings")
    _count("seconds", round(seconds))


def _fail(job: Job, error: PolyampError) -> None:
    corpus.note_failure(job, error)
    _count(_FAILED)


def _numbered(answer: tuple[Key, dict[str, np.ndarray]], margin: int) -> tuple[bytes, tuple[int, dict[str, np.ndarray]]]:
    """A window's rolls without its margins, under where the recording's notes go."""
    (output, number, kept), rolls = answer
    return output, (number, {name: roll[margin : margin + kept] for name, roll in rolls.items()})


def described(weights: Weights, loaded: Loaded) -> dict[str, Any]:
    """A model, and how its answers are decoded, as the files of a corpus name them."""
    model: dict[str, Any] = {
        "type": weights.model_type,
        "checkpoint": " and ".join(f"{path.parent.name}/{path.name}" for path in loaded.paths),
        "checksum": " and ".join(map(checkpoint_file.checksum, loaded.paths)),
        "step": loaded.step,
    }
    if weights.overrides:
        model["hparams"] = {ALIASES.get(name, name): value for name, value in sorted(weights.overrides.items())}
    return model


def transcribe(jobs: Sequence[Job], weights: Weights, options: Sequence[str], batch_size: int = 8) -> dict[str, int]:
    """Transcribes recordings with as many workers as the runner has; what fails is noted (`corpus.collect_failures`).

    Rolls are held by the runner until a recording's are complete: 44 kB for each second of sound with the weights in the
    package, 160 MB for an hour.

    Args:
        jobs: What to transcribe; workers read and write the same places.
        weights: Which model; workers load it from the same place.
        options: Beam's command line, such as `--runner=DirectRunner --direct_num_workers=2`.
        batch_size: Windows at a time, at most.

    Returns:
        The counters of the job, as far as its runner knows them.

    Raises:
        CheckpointError, HParamsError: The model cannot be loaded.
        PolyampError: Beam does not understand the options.
    """
    loaded = predict.load(*weights.where)
    model = described(weights, loaded)
    pipeline = beam_preparation.make_pipeline(options)
    recordings = pipeline | "Recordings" >> beam.Create(list(jobs)) | beam.Reshuffle()
    if weights.model_type == "AUTOREGRESSIVE":
        _ = recordings | "Transcribe" >> beam.ParDo(TranscribeWhole(weights, model, shared.Shared()))
    else:
        margin = windows.window_frames(loaded.hparams)[1]
        cut = recordings | "Cut" >> beam.ParDo(CutWindows(loaded.hparams)).with_outputs(_DONE, main="windows")
        rolls = (
            cut.windows
            | "Rolls" >> RunInference(KeyedModelHandler(RollsHandler(weights, batch_size)))
            | "Number" >> beam.Map(_numbered, margin)
        )
        _ = (
            {"rolls": rolls, _DONE: cut[_DONE]}
            | "Gather" >> beam.CoGroupByKey()
            | "Write" >> beam.ParDo(WriteNotes(weights, loaded.hparams, model, shared.Shared()))
        )
    result = pipeline.run()
    result.wait_until_finish()
    return beam_preparation.counters(result)
