"""The weights that ship, on the recording that the README's first command transcribes; scored by mir_eval against its notes."""

from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile
import soxr

import polyamp_runner
from polyamp import assess, checkpoint, notes, predict, recognize, streaming, transcribe
from polyamp.audio import reading
from polyamp.data.example import Example

DATA = Path(__file__).parent / "data"
RECORDING, REFERENCE = DATA / "handel_air.ogg", DATA / "handel_air_reference.mid"


@pytest.fixture(scope="module")
def transcript(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transcript")
    command = ["polyamp", "--mode=predict", "--model_type=MELODIC", f"--audio_filename={RECORDING}", f"--output_dir={folder}"]
    assert polyamp_runner.main(command) == 0
    return notes.read_midi(folder / "handel_air-polyamp.mid")


def _intervals_and_pitches(found):
    return np.stack([found.onset, np.maximum(found.offset, found.onset + 1e-3)], axis=1), 440 * 2 ** ((found.pitch - 69) / 12)


def test_finds_the_notes_of_the_recording(transcript):
    reference = _intervals_and_pitches(notes.read_midi(REFERENCE))
    estimate = _intervals_and_pitches(transcript)
    f1 = mir_eval.transcription.precision_recall_f1_overlap(*reference, *estimate, offset_ratio=None)[2]
    assert f1 > 0.8
    # Onset times are not late or early as a whole: the limit for a match is 50 ms.
    pairs = mir_eval.transcription.match_note_onsets(reference[0], estimate[0], onset_tolerance=0.05)
    shift = np.median([estimate[0][j, 0] - reference[0][i, 0] for i, j in pairs])
    assert abs(shift) < 0.016


def test_hears_which_notes_are_loud(transcript):
    reference = notes.read_midi(REFERENCE)
    pairs = [
        (velocity, transcript.velocity[near[0]])
        for onset, pitch, velocity in zip(reference.onset, reference.pitch, reference.velocity, strict=True)
        if len(near := np.flatnonzero((transcript.pitch == pitch) & (np.abs(transcript.onset - onset) < 0.05)))
    ]
    assert np.corrcoef(np.transpose(pairs))[0, 1] > 0.5


def test_a_flat_recording_is_scored_and_its_families_told_at_its_own_times():
    melodic, timbre = predict.load("MELODIC"), predict.load("TIMBRE")
    model = checkpoint.load_model("MELODIC").model
    truth, audio = notes.read_midi(REFERENCE), reading.read(RECORDING)
    scores, told = [], []
    for factor in (1.0, 2 ** (-35 / 1200)):
        samples = audio if factor == 1.0 else soxr.resample(audio, factor, 1)  # Plays so much slower.
        example = Example("air", samples, notes.stretched(truth, 1 / factor), (1, 127))
        scores.append(assess.assess_melodic(model, melodic.hparams, example).metrics)
        told.append(recognize.recognize(timbre.model, melodic, lambda samples=samples: [samples], timbre.hparams))
    for name in ("note_onset_f1", "note_offset_f1", "onset_f1", "frame_f1", "note_frame_f1"):
        assert scores[1][name] == pytest.approx(scores[0][name], abs=0.05), name
    last = [max(note["onset"] for note in one["notes"]) for one in told]
    assert last[1] == pytest.approx(last[0] / 2 ** (-35 / 1200), abs=0.02) and told[1]["family"] == "keyboard"


def test_the_full_model_hears_that_a_piano_plays(tmp_path):
    command = ["polyamp", "--mode=predict", "--model_type=FULL", f"--audio_filename={RECORDING}", f"--output_dir={tmp_path}"]
    assert polyamp_runner.main(command) == 0
    found = notes.read_midi(tmp_path / "handel_air-polyamp.mid")
    assert len(found) > 40
    assert np.mean(found.program == 0) > 0.9


def test_the_autoregressive_model_hears_an_instrument_in_its_own_tuning(tmp_path, caplog):
    factor = 2 ** (40 / 1200)
    sharp = soxr.resample(reading.read(RECORDING), factor, 1)
    reference = _intervals_and_pitches(notes.stretched(notes.read_midi(REFERENCE), 1 / factor))
    f1 = {}
    for a4_hz in (440.0, 440.0 * factor):
        transcriber = streaming.StreamingTranscriber.load(a4_hz=a4_hz)
        heard = streaming.to_notes([*transcriber.push(sharp), *transcriber.finish()])
        estimate = _intervals_and_pitches(heard)
        f1[a4_hz] = mir_eval.transcription.precision_recall_f1_overlap(*reference, *estimate, offset_ratio=None)[2]
    loaded = checkpoint.load_model("AUTOREGRESSIVE", overrides={"a4_hz": a4_hz})  # In Keras the last one is the same.
    in_keras = _intervals_and_pitches(transcribe.transcribe(loaded.model, lambda: [sharp], loaded.hparams))
    np.testing.assert_array_equal(in_keras[1], estimate[1])
    np.testing.assert_allclose(in_keras[0], estimate[0], atol=1e-3)
    assert f1[440.0 * factor] > 0.85 and f1[440.0] < 0.75, f1
    soundfile.write(tmp_path / "sharp.wav", sharp[: 10 * 16_000], 16_000)
    for overrides, is_told in (({}, True), ({"a4_hz": a4_hz}, False)):  # Of a tuning that it should be told.
        caplog.clear()
        predict.predict("AUTOREGRESSIVE", str(tmp_path / "sharp.wav"), overrides=overrides)
        assert ("its tuning is A4 = 450" in caplog.text) is is_told


@pytest.mark.parametrize("load_id", ["autoregressive_compact", "autoregressive_low_latency"])
def test_the_autoregressive_models_find_the_notes_file_and_stream_alike(tmp_path, load_id):
    command = ["polyamp", "--mode=predict", "--model_type=AUTOREGRESSIVE", f"--load_id={load_id}"]
    assert polyamp_runner.main([*command, f"--audio_filename={RECORDING}", f"--output_dir={tmp_path}"]) == 0
    found = notes.read_midi(tmp_path / "handel_air-polyamp.mid")
    pairs = _intervals_and_pitches(notes.read_midi(REFERENCE)), _intervals_and_pitches(found)
    assert mir_eval.transcription.precision_recall_f1_overlap(*pairs[0], *pairs[1], offset_ratio=None)[2] > 0.75

    transcriber = streaming.StreamingTranscriber.load(load_id=load_id)
    audio = reading.read(RECORDING)
    events = [event for begin in range(0, len(audio), 1000) for event in transcriber.push(audio[begin : begin + 1000])]
    streamed = streaming.to_notes(events + transcriber.finish())
    assert len(streamed) == len(found)
    np.testing.assert_allclose(np.sort(streamed.onset), np.sort(found.onset), atol=2e-3)
