"""Evaluation from examples to files, with a model that reads its answer out of the audio."""

import csv
import dataclasses
import json
import types

import numpy as np
import pytest

from polyamp import assess, constants, notes
from polyamp import evaluate as evaluation
from polyamp.data.example import Example
from polyamp.errors import DataError, PolyampError
from polyamp.hparams import AutoregressiveHParams, FullHParams, MelodicHParams, TimbreHParams
from polyamp.metrics import roll_metrics
from polyamp.notes import Notes, states

HOP = 500  # 32 frames a second.
HPARAMS = MelodicHParams(hop_length=HOP, predict_offset_threshold=0.0, onset_length=10.0)
TRUTH = Notes.of([0.25, 1.0, 2.0], [0.75, 1.5, 3.0], [60, 60, 60], [127, 127, 127])


class AudioIsTheAnswer:
    """One pitch, 60: an onset where the sample in the middle of a frame is above 0.6, sounding where it is above 0.3."""

    def predict_on_batch(self, audio):
        centres = np.pad(audio, ((0, 0), (0, 1)))[:, ::HOP]  # 1 + samples // HOP of them.
        level = centres[..., np.newaxis] * (np.arange(21, 109) == 60)  # [batch, time, 88]
        return {
            "onset": (level > 0.6).astype(np.float32),
            "offset": np.zeros_like(level),
            "frame": (level > 0.3).astype(np.float32),
            "velocity": (level > 0.6).astype(np.float32),
        }


LOADED = types.SimpleNamespace(model=AudioIsTheAnswer(), step=1200)


def example(played, name="piece/1.wav", truth=TRUTH, seconds=4):
    """An example in whose audio `played` can be heard."""
    rolls = notes.to_rolls(played, 32 * seconds, HPARAMS)
    audio = np.zeros(16_000 * seconds, np.float32)
    audio[::HOP] = np.maximum(rolls["onset"] * 0.9, rolls["frame"] * 0.5)[:, 39]
    return Example(name, audio, truth, (0, 127))


def test_perfect_and_partial_transcriptions(tmp_path):
    missing_one = example(TRUTH[:2], "piece/2.wav")
    result = evaluation.evaluate(LOADED, HPARAMS, [example(TRUTH), missing_one], tmp_path, "devtest")
    first, second = result["examples"]
    kinds = ("frame", "onset", "note_onset", "note_offset", "note_velocity", "note_onset_100ms", "note_frame")
    assert {first[f"{kind}_f1"] for kind in kinds} == {1.0}
    assert second["note_onset_precision"] == 1 and second["note_onset_recall"] == pytest.approx(2 / 3)
    assert second["frame_recall"] == pytest.approx(1 / 2) and second["frame_precision"] == 1  # A second of two.
    assert first["offset_f1"] == 0  # The model knows no offsets.
    assert result["mean"]["note_onset_f1"] == pytest.approx((1 + 0.8) / 2)
    assert result["step"] == 1200 and result["num_examples"] == 2


def test_files_hold_what_is_returned(tmp_path):
    result = evaluation.evaluate(LOADED, HPARAMS, [example(TRUTH)] * 2, tmp_path / "new" / "folder", "maps test")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "maps_test-1200.csv",
        "maps_test-1200.json",
    ]
    with open(result["json"], encoding="utf-8") as file:
        stored = json.load(file)
    assert stored == {key: result[key] for key in ("eval_name", "step", "num_examples", "mean", "examples")}
    with open(result["csv"], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["piece/1.wav", "piece/1.wav", "MEAN"]
    assert {name: float(value) for name, value in rows[-1].items() if name != "id"} == pytest.approx(result["mean"], abs=1e-6)


def test_table_shows_examples_and_means(tmp_path):
    table = evaluation.evaluate(LOADED, HPARAMS, [example(TRUTH, "a" * 80 + "-end")], tmp_path, "e")["table"].splitlines()
    assert table[0].split() == ["example", *(name for name in evaluation.TABLE_COLUMNS if not name.startswith("family"))]
    assert table[1].split()[0].endswith("-end") and table[2].startswith("MEAN of 1")
    assert len({len(line) for line in table[:3]}) == 1
    assert ["note_velocity", "1.0000", "1.0000", "1.0000"] in [line.split() for line in table]


def test_num_steps_reads_no_more_than_that(tmp_path):
    def endless():
        while True:
            yield example(TRUTH)

    assert evaluation.evaluate(LOADED, HPARAMS, endless(), tmp_path, "e", num_steps=2)["num_examples"] == 2


def test_save_path_gets_midi_and_pictures_of_every_example(tmp_path):
    pieces = [example(TRUTH), example(TRUTH[:1]), example(Notes.empty(), "silence", Notes.empty())]
    evaluation.evaluate(LOADED, HPARAMS, pieces, tmp_path / "results", "e", save_path=tmp_path / "heard")
    names = sorted(path.name for path in (tmp_path / "heard").iterdir())
    stems = ["piece_1.wav", "piece_1.wav-2", "silence"]
    assert names == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".mid", ".png"))
    assert len(notes.read_midi(tmp_path / "heard" / "piece_1.wav.mid")) == 3
    assert len(notes.read_midi(tmp_path / "heard" / "piece_1.wav-2.mid")) == 1
    for path in (tmp_path / "heard").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_picture_has_the_reference_above_the_prediction(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    evaluation.evaluate(LOADED, HPARAMS, [example(Notes.empty())], tmp_path / "results", "e", save_path=tmp_path / "heard")
    pixels = image.imread(next((tmp_path / "heard").glob("*.png")))[..., :3]
    blue = (pixels[..., 2] - pixels[..., 0]) > 0.2
    half = len(blue) // 2
    assert blue[:half].any() and not blue[half:].any()


def test_notes_from_before_a_segment_are_not_to_be_found_and_later_ends_are_cut(tmp_path):
    whole = Notes.of([0.0, 1.5, 3.0], [1.25, 2.0, 9.0], [60, 60, 60], [127] * 3)
    segment = notes.crop(whole, 1.0, 5.0, clip=False)
    heard = notes.crop(whole, 1.0, 5.0, clip=True)[1:]
    row = evaluation.evaluate(LOADED, HPARAMS, [example(heard, truth=segment)], tmp_path, "e")["examples"][0]
    assert row["note_onset_f1"] == row["note_offset_f1"] == row["onset_f1"] == 1


def test_triangular_labels_count_above_a_half():
    hparams = MelodicHParams(hop_length=HOP, onset_mode="triangle")
    labels = notes.to_rolls(TRUTH, 129, hparams)
    model = types.SimpleNamespace(predict_on_batch=lambda audio: {k: labels[k][np.newaxis] for k in labels})
    assessment = assess.assess_melodic(model, hparams_of_one_window(hparams), example(TRUTH))
    assert {assessment.metrics[f"{name}_f1"] for name in ("frame", "onset", "offset")} == {1.0}
    assert roll_metrics(labels["onset"] > 0, labels["onset"] > 0.5)["frame_f1"] < 1


def hparams_of_one_window(hparams):
    """Settings whose windows have no margins and just fit the example's 129 frames."""
    return MelodicHParams(
        hop_length=hparams.hop_length,
        onset_mode=hparams.onset_mode,
        predict_window_seconds=128 / hparams.frames_per_second,
        predict_margin_seconds=0.0,
    )


def test_another_assessment_can_be_plugged_in(tmp_path):
    def other(model, hparams, piece):
        return assess.Assessment({"family_f1": 0.5, "family_precision": 0.4, "family_recall": 0.6}, piece.notes, piece.notes)

    result = evaluation.evaluate(LOADED, HPARAMS, [example(TRUTH)], tmp_path, "e", assess=other)
    assert result["mean"]["family_f1"] == 0.5 and "family" in result["table"]


def test_examples_without_notes_are_left_out_where_notes_are_given(tmp_path, caplog):
    settings = TimbreHParams()
    scored = []

    def score(model, hparams, piece):
        scored.append(piece.id)
        return assess.Assessment({"family_accuracy": 1.0}, piece.notes, piece.notes)

    pieces = [example(TRUTH, "a"), example(TRUTH, "b", truth=Notes.empty()), example(TRUTH, "c")]
    result = evaluation.evaluate(LOADED, settings, pieces, tmp_path, "e", assess=score)
    assert scored == ["a", "c"] and result["num_examples"] == 2 and "b: has no notes" in caplog.text
    with pytest.raises(DataError, match="no examples"):
        evaluation.evaluate(LOADED, settings, pieces[1:2], tmp_path, "e", assess=score)


def test_no_examples_and_unwritable_folders_are_one_line(tmp_path):
    with pytest.raises(DataError, match="no examples"):
        evaluation.evaluate(LOADED, HPARAMS, [], tmp_path, "e")
    unknown = dataclasses.replace(example(TRUTH, truth=Notes.empty()), is_labelled=False)
    with pytest.raises(DataError, match="1.wav: a recording without notes"):
        evaluation.evaluate(LOADED, HPARAMS, [unknown], tmp_path, "e")
    (tmp_path / "file").write_text("")
    with pytest.raises(PolyampError, match="file"):
        evaluation.evaluate(LOADED, HPARAMS, [example(TRUTH)], tmp_path / "file" / "folder", "e")


def test_the_full_models_notes_are_compared_with_those_that_begin_in_the_example(monkeypatch):
    whole = Notes.of([0.5, 1.25, 2.0], [1.75, 1.75, 2.5], [50, 60, 64], [100] * 3, [0, 0, 40])
    reference = notes.crop(whole, 1.0, 5.0, clip=False)
    found = Notes.of([0.25, 1.0], [0.75, 1.5], [60, 64], [100] * 2, [0, 73])  # A flute where there is a violin.
    monkeypatch.setattr(assess.transcribe, "transcribe", lambda *_: found)
    assessment = assess.assess_full(None, FullHParams(), example(found, truth=reference))
    scores = assessment.metrics
    assert scores["note_onset_f1"] == scores["note_offset_f1"] == 1.0
    assert scores["family_onset_f1"] == 0.5
    assert len(assessment.reference) == 2
    true, estimated = assessment.families
    assert sorted(zip(true, estimated, strict=True)) == sorted(
        [(constants.FAMILIES.index("keyboard"),) * 2, (constants.FAMILIES.index("string"), constants.FAMILIES.index("flute"))]
    )


def test_quantised_scores_compare_the_frames_of_both(monkeypatch):
    """Frames of 128 ms: a note is 10 ms before the border between two, and is found 10 ms after it or one frame later."""
    hparams = AutoregressiveHParams(hop_length=2048, mel_window=2048)
    rate = hparams.frames_per_second
    truth = Notes.of([3.48 / rate, 10.0 / rate], [6 / rate, 13 / rate], [60, 72], 100)

    def scores_of(found):
        rolls = states.to_states(found, 32, rate)
        monkeypatch.setattr(assess.transcribe, "predict_states", lambda *_: rolls)
        return assess.assess_autoregressive(None, hparams, example(found, truth=truth)).metrics

    # Rounded to frame 4, not 3.
    near = scores_of(Notes.of([3.58 / rate, 10.0 / rate], truth.offset, truth.pitch, truth.velocity))
    assert near["note_onset_f1"] == 1.0 and near["quantised_note_onset_f1"] == 0.5
    assert near["quantised_frame_recall"] == 5 / 6 and near["quantised_frame_precision"] == 1.0
    # Rounded to frame 3 as well.
    far = scores_of(Notes.of([2.52 / rate, 10.0 / rate], truth.offset, truth.pitch, truth.velocity))
    assert far["note_onset_f1"] == 0.5 and far["quantised_note_onset_f1"] == far["quantised_frame_f1"] == 1.0
