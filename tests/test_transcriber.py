"""polyamp.transcriber: the notes of predict, of files and of samples."""

import concurrent.futures
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from polyamp import notes, predict, transcribe
from polyamp.audio import reading
from polyamp.errors import AudioError, CheckpointError, HParamsError, PolyampError
from polyamp.transcriber import Transcriber

RECORDING = Path(__file__).parent / "data" / "handel_air.ogg"


@pytest.fixture(scope="module")
def melodic():
    return Transcriber.load()


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL", "AUTOREGRESSIVE"])
def test_the_notes_of_a_file_are_those_of_predict(model_type, tmp_path):
    found = Transcriber.load(model_type).transcribe(RECORDING)
    (done,) = predict.predict(model_type, str(RECORDING), output_dir=str(tmp_path)).written
    written = notes.read_midi(done.output)
    assert len(found) == len(written) > 40
    order, of_file = (np.lexsort((one.pitch, np.round(one.onset, 2))) for one in (found, written))
    np.testing.assert_array_equal(found.program[order], written.program[of_file])
    np.testing.assert_allclose(np.sort(found.onset), np.sort(written.onset), atol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "int16", "int32"])
def test_samples_are_heard_as_the_same_samples_of_a_file(melodic, tmp_path, dtype):
    samples, rate = soundfile.read(RECORDING)
    stereo = samples * [1.0, 0.5]
    if dtype != "float64":
        stereo = np.rint(stereo * 30_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="PCM_16" if dtype != "float64" else "DOUBLE")
    given = stereo.astype(np.int32) * 65_536 if dtype == "int32" else stereo
    assert melodic.transcribe(given, rate) == melodic.transcribe(tmp_path / "a.wav")


def _same_notes(found, expected):
    """F1 of onsets within 50 ms, by mir_eval."""
    intervals, hertz = (
        [np.stack([one.onset, one.offset], axis=1) for one in (expected, found)],
        [440 * 2 ** ((one.pitch - 69) / 12) for one in (expected, found)],
    )
    return mir_eval.transcription.precision_recall_f1_overlap(
        intervals[0], hertz[0], intervals[1], hertz[1], offset_ratio=None
    )[2]


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL"])
@pytest.mark.parametrize("cents", [-40, 40])
def test_a_recording_of_another_tuning_has_the_same_notes(model_type, cents):
    model = Transcriber.load(model_type)
    factor = 2 ** (cents / 1200)
    samples = reading.read(RECORDING)
    expected = notes.stretched(model.transcribe(samples), 1 / factor)
    sharp = soxr.resample(samples, factor, 1)
    assert _same_notes(model.transcribe(sharp), expected) > 0.97
    assert _same_notes(Transcriber.load(model_type, predict_in_tune=False).transcribe(sharp), expected) < 0.94


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL"])
def test_a_crackling_record_has_the_same_notes(model_type):
    model = Transcriber.load(model_type)
    samples = reading.read(RECORDING)
    expected = model.transcribe(samples)
    rng = np.random.default_rng(5)
    crackling = samples.copy()
    for start in rng.integers(0, len(samples) - 20, len(samples) // 800):  # Twenty clicks a second.
        crackling[start : start + rng.integers(1, 16)] += rng.normal(0.0, 6.0 * samples.std())
    assert _same_notes(model.transcribe(crackling), expected) > 0.9
    assert _same_notes(Transcriber.load(model_type, predict_declick=False).transcribe(crackling), expected) < 0.85


@pytest.mark.parametrize(("model_type", "with_peaks", "without"), [("MELODIC", 0.95, 0.94), ("FULL", 0.93, 0.93)])
def test_a_recording_that_was_too_loud_has_the_same_notes(model_type, with_peaks, without):
    model = Transcriber.load(model_type)
    samples = reading.read(RECORDING)
    expected = model.transcribe(samples)
    limit = np.quantile(np.abs(samples), 0.9)
    clipped = np.clip(samples, -limit, limit)
    assert _same_notes(model.transcribe(clipped), expected) > with_peaks
    assert _same_notes(Transcriber.load(model_type, predict_declip=False).transcribe(clipped), expected) < without


def _with_and_without_bass_and_treble():
    samples = np.tile(reading.read(RECORDING), 4)  # 44 s: of short ones less is known.
    band = scipy.signal.butter(4, (600, 2000), "band", fs=16_000, output="sos")
    return samples, scipy.signal.sosfilt(band, samples).astype(np.float32)


@pytest.mark.parametrize(
    ("model_type", "balanced", "plain"), [("MELODIC", 0.8, 0.75), ("FULL", 0.94, 0.93), ("AUTOREGRESSIVE", 0.56, 0.55)]
)
def test_a_recording_without_bass_and_treble_has_more_of_its_notes(model_type, balanced, plain):
    model, without = Transcriber.load(model_type), Transcriber.load(model_type, predict_balance=0.0)
    samples, heard = _with_and_without_bass_and_treble()
    expected = model.transcribe(samples)
    assert _same_notes(model.transcribe(heard), expected) > balanced
    assert _same_notes(without.transcribe(heard), expected) < plain


def test_what_is_balanced_as_bands_are_is_heard_as_it_is():
    plain, as_it_comes = (Transcriber.load("FULL", **given).transcribe(RECORDING) for given in ({"predict_balance": 0.0}, {}))
    for name in ("onset", "offset", "pitch", "velocity", "program"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(as_it_comes, name))


def test_families_are_told_by_sounds_with_their_colour(monkeypatch):
    _, heard = _with_and_without_bass_and_treble()
    asked = []
    real = transcribe.predict_families

    def predict_families(model, blocks, of, hparams):
        asked.append(np.concatenate(list(blocks())))
        return real(model, blocks, of, hparams)

    monkeypatch.setattr(transcribe, "predict_families", predict_families)
    Transcriber.load("FULL", predict_declick=False, predict_declip=False, predict_in_tune=False).transcribe(heard)
    np.testing.assert_array_equal(asked[0], heard)


def test_settings_may_differ(melodic):
    more = Transcriber.load(predict_onset_threshold=0.1).transcribe(RECORDING)
    assert len(more) > len(melodic.transcribe(RECORDING))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 16_000)), "give .samples. or .samples, channels."),
        (np.zeros((2, 2, 2)), "give .samples. or .samples, channels."),
        (np.zeros((16_000, 0)), "give .samples. or .samples, channels."),
        (np.zeros(0), "no samples"),
        (np.full(16_000, np.nan), "NaN"),
        (np.zeros(16_000, np.uint8), "type uint8"),
        (np.zeros(16_000, complex), "type complex128"),
    ],
)
def test_what_is_no_sound_is_an_error(melodic, samples, message):
    with pytest.raises(AudioError, match=message):
        melodic.transcribe(samples, 16_000)


def test_what_finds_no_notes_is_an_error(tmp_path):
    with pytest.raises(PolyampError, match="finds no notes; load MELODIC"):
        Transcriber.load("TIMBRE")
    with pytest.raises(CheckpointError):
        Transcriber.load(model_dir=str(tmp_path))
    with pytest.raises(HParamsError):
        Transcriber.load(predict_onset=0.1)
    with pytest.raises(HParamsError, match="there is no model type 'melodic'; there are MELODIC"):
        Transcriber.load("melodic")


@pytest.mark.parametrize("model_type", ["MELODIC", "FULL", "AUTOREGRESSIVE"])
def test_threads_may_share_one(model_type):
    samples, rate = soundfile.read(RECORDING)
    shared = Transcriber.load(model_type)
    clips = [samples[: 8 * rate], samples[8 * rate :]] * 4
    expected = [shared.transcribe(clip, rate) for clip in clips[:2]]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda clip: shared.transcribe(clip, rate), clips))
    assert found == expected * 4
