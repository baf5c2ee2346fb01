"""How one example is scored, for each model type: what the model made of it beside what is true."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from polyamp import metrics, notes, transcribe
from polyamp.errors import DataError
from polyamp.hparams import AutoregressiveHParams, FullHParams, MelodicHParams, TimbreHParams
from polyamp.notes import Notes, instruments, states

if TYPE_CHECKING:
    from polyamp.data.records import Example


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What a model made of one example.

    Attributes:
        metrics: Scores by name.
        reference: Notes that there are to find.
        estimate: Notes that were found.
        families: True and estimated families of the notes that can be compared, for the models that answer families.
    """

    metrics: dict[str, float]
    reference: Notes
    estimate: Notes
    families: tuple[np.ndarray, np.ndarray] | None = None


Assess = Callable[[keras.Model, Any, "Example"], Assessment]


def assessor(hparams: MelodicHParams) -> Assess:
    """The function that scores models with these settings."""
    if isinstance(hparams, FullHParams):
        return assess_full
    if isinstance(hparams, AutoregressiveHParams):
        return assess_autoregressive
    return assess_timbre if isinstance(hparams, TimbreHParams) else assess_melodic


def main_metric(hparams: MelodicHParams) -> str:
    """The metric by which the best checkpoint is chosen."""
    if isinstance(hparams, FullHParams):
        return "family_onset_f1"
    return "family_macro_f1" if isinstance(hparams, TimbreHParams) else "note_onset_f1"


def overall(hparams: MelodicHParams, assessments: Sequence[Assessment]) -> dict[str, float]:
    """The mean of every metric over examples; the families that a Timbre model tells are scored over the notes of all of them.

    Of single notes the mean of macro F1 would be the share that is right, in which rare families hardly count.
    """
    mean = metrics.aggregate([assessment.metrics for assessment in assessments])
    if type(hparams) is not TimbreHParams:
        return mean
    matrices = [metrics.confusion_matrix(*assessment.families) for assessment in assessments if assessment.families]
    return mean | _family_scores(np.sum(matrices, axis=0))


def _family_scores(confusion: np.ndarray) -> dict[str, float]:
    report = metrics.family_report(confusion)
    return {f"family_{name}": report[name] for name in ("accuracy", "macro_f1", "weighted_f1")}


def can_score(hparams: MelodicHParams, example: "Example") -> bool:
    """Whether there is something to score: a Timbre model, which says something of given notes, has to be given some."""
    return type(hparams) is not TimbreHParams or len(example.begun) > 0


def assess_melodic(model: keras.Model, hparams: MelodicHParams, example: "Example") -> Assessment:
    """Scores onset, offset and frame rolls cell by cell, and the notes decoded from them.

    Predicted rolls count as true above their thresholds (above 0.5 where a threshold of 0 switches that input of the decoder
    off), reference rolls above 0.5, which matters for `onset_mode` "triangle" only. Reference notes that began before the
    example have no onset in it and are no notes to find; those that outlast it end with it.
    """
    heard, stretch = transcribe.as_heard(lambda: [example.audio], hparams)
    rolls = transcribe.rolls_of(model, heard, hparams)
    played = notes.stretched(example.notes, stretch)
    labels = notes.to_rolls(played, len(rolls["frame"]), hparams, total_time=example.duration * stretch)
    scores: dict[str, float] = {}
    for name in ("frame", "onset", "offset"):
        threshold = getattr(hparams, f"predict_{name}_threshold") or 0.5
        scores |= metrics.roll_metrics(labels[name] > 0.5, np.asarray(rolls[name]) > threshold, name)
    reference = example.begun
    estimate = notes.stretched(notes.from_rolls(rolls, hparams), 1 / stretch)
    scores |= metrics.note_metrics(reference, estimate) | metrics.note_frame_metrics(reference, estimate)
    return Assessment(scores, reference, estimate)


def assess_timbre(model: keras.Model, hparams: TimbreHParams, example: "Example") -> Assessment:
    """Scores the families of the true notes, in the light of the whole example (see `instruments.choose_families`).

    Raises:
        DataError: The example has no note that begins in it.
    """
    reference = example.begun
    if not len(reference):
        raise DataError(f"{example.id}: has no notes whose families could be told.")
    heard, stretch = transcribe.as_heard(lambda: [example.audio], hparams)
    probabilities = transcribe.predict_families(model, heard, notes.stretched(reference, stretch), hparams)
    posteriors = instruments.choose_families(probabilities, reference, hparams)
    estimate = instruments.with_programs(reference, posteriors, hparams)
    families = metrics.families_of(reference), posteriors.argmax(axis=1)
    by_itself = float(np.mean(probabilities.argmax(axis=1) == families[0]))
    scores = _family_scores(metrics.confusion_matrix(*families))
    return Assessment(scores | {"family_accuracy_by_note": by_itself}, reference, estimate, families)


def assess_full(model: keras.Model, hparams: FullHParams, example: "Example") -> Assessment:
    """Scores the notes that were found: whatever plays them, with their families, and frame by frame and family by family."""
    estimate = transcribe.transcribe(model, lambda: [example.audio], hparams)
    reference = example.begun
    scores = metrics.note_metrics(reference, estimate) | metrics.note_frame_metrics(reference, estimate)
    scores |= metrics.family_note_metrics(reference, estimate)
    scores |= metrics.family_frame_metrics(reference, estimate)
    return Assessment(scores, reference, estimate, metrics.matched_families(reference, estimate))


def assess_autoregressive(model: keras.Model, hparams: AutoregressiveHParams, example: "Example") -> Assessment:
    """Scores the notes against their true times, and as "quantised_..." with the times of both rounded to frames.

    The second is how the published table was made: there a note is right whose frame is right, whatever the true time.
    """
    rolls = transcribe.predict_states(model, [example.audio], hparams)
    rate, reference = hparams.frames_per_second, example.begun
    estimate = transcribe.notes_of_states(rolls, hparams)
    scores = metrics.note_metrics(reference, estimate) | metrics.note_frame_metrics(reference, estimate)
    truth = states.to_states(reference, len(rolls["state"]), rate)
    rounded = states.to_notes(truth["state"], truth["velocity"], rate), transcribe.notes_of_states(rolls, hparams, rounded=True)
    sounding = [np.isin(of["state"], (states.SUSTAIN, states.ONSET, states.REONSET)) for of in (truth, rolls)]
    quantised = metrics.note_metrics(*rounded) | metrics.roll_metrics(sounding[0], sounding[1])
    return Assessment(scores | {f"quantised_{name}": value for name, value in quantised.items()}, reference, estimate)
