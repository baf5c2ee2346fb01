"""Prediction in windows, against the same model over the whole clip, and what becomes of usable and unusable files."""

import dataclasses
import re
import shutil

import keras
import numpy as np
import pytest
import soundfile

import polyamp_runner
from polyamp import checkpoint, hparams, light, models, notes, predict
from polyamp.errors import PolyampError
from polyamp.hparams import MelodicHParams

HOP = 512
REACH = 5  # Frames to each side that the fake model sees.
KERNEL = np.random.default_rng(0).uniform(0.1, 1.0, (2 * REACH + 1, 88))


class FakeModel:
    """Level around each frame, weighted by a kernel: a model with a known reach, in numpy.

    All rolls but the offsets are near 0 where the clip is silent and near 1 where it is loud.
    """

    jit_compile = None

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, audio):
        self.shapes.append(audio.shape)
        roll = _roll(audio[0])[np.newaxis]
        return {"onset": roll, "offset": np.zeros_like(roll), "frame": roll, "velocity": roll}


def _expected_roll(audio):
    """The fake model's roll of a whole clip that silence follows."""
    return _roll(np.pad(audio, (0, (REACH + 2) * HOP)))[: 1 + len(audio) // HOP]


def _roll(audio):
    """[1 + samples // HOP, 88]: mean level of the hop before and after each frame's centre, smoothed and saturated."""
    frames = 1 + len(audio) // HOP
    padded = np.pad(np.abs(audio), (HOP, 2 * HOP))
    level = np.array([padded[t * HOP : (t + 2) * HOP].mean() for t in range(frames)])
    level = np.pad(level, REACH)
    smooth = np.stack([np.convolve(level, KERNEL[:, pitch], mode="valid") for pitch in range(88)], axis=1)
    return np.tanh(smooth * 10).astype(np.float32)


def _noise(samples, seed=0):
    """Noise with a slowly changing level, so that no two places are alike."""
    random = np.random.default_rng(seed)
    corners = np.arange(0, samples + 4000, 4000)
    level = np.interp(np.arange(samples), corners, random.random(len(corners)))
    return (random.normal(size=samples) * level * 0.01).astype(np.float32)


@pytest.mark.parametrize("window", [1.0, 2.7, 20.0])
@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, 31 * HOP, 32 * HOP, 16_000, 100_000, 200 * HOP])
def test_rolls_do_not_depend_on_window_borders(window, samples):
    audio = _noise(samples)
    settings = MelodicHParams(predict_window_seconds=window, predict_margin_seconds=0.25)
    rolls = predict.predict_rolls(FakeModel(), np.array_split(audio, 7), settings)
    assert set(rolls) == {"onset", "offset", "frame", "velocity"}
    assert rolls["onset"].shape == (1 + samples // HOP, 88) and rolls["onset"].dtype == np.float32
    np.testing.assert_allclose(rolls["onset"], _expected_roll(audio), atol=1e-6)


def test_every_frame_count_near_a_window_border_is_exact():
    settings = MelodicHParams(predict_window_seconds=1.0, predict_margin_seconds=0.2)
    for samples in range(30 * HOP, 64 * HOP, 217):
        rolls = predict.predict_rolls(FakeModel(), [_noise(samples)], settings)
        np.testing.assert_allclose(rolls["frame"], _expected_roll(_noise(samples)), atol=1e-6)


def test_no_margin_keeps_frames_in_step():
    settings = MelodicHParams(predict_window_seconds=1.0, predict_margin_seconds=0.0)
    audio = _noise(100_000)
    rolls = predict.predict_rolls(FakeModel(), [audio], settings)["onset"]
    expected = _expected_roll(audio)
    assert rolls.shape == expected.shape
    inside = [t for t in range(len(rolls)) if REACH < t % 32 < 32 - REACH - 2]  # 32 frames are the window of one second.
    np.testing.assert_allclose(rolls[inside], expected[inside], atol=1e-6)


def test_block_sizes_do_not_matter_and_blocks_are_taken_as_they_are_needed():
    taken = []

    def blocks():
        for start in range(0, 640_000, 16_000):
            taken.append(start)
            yield audio[start : start + 16_000]

    audio = _noise(640_000)
    settings = MelodicHParams(predict_window_seconds=4.0, predict_margin_seconds=0.25)
    windows = predict.windows(blocks(), core=126, margin=8, hop=HOP)
    next(windows)
    assert len(taken) <= 5  # Four seconds and a margin, not the whole clip.
    rolls = predict.predict_rolls(FakeModel(), blocks(), settings)
    np.testing.assert_array_equal(rolls["onset"], predict.predict_rolls(FakeModel(), [audio], settings)["onset"])


def test_samples_that_are_enough_are_not_copied():
    pending = _noise(1_000)
    assert predict.filled(pending, iter([_noise(5)]), 1_000) is pending
    joined = predict.filled(pending, iter([_noise(5), _noise(7)]), 1_003)
    np.testing.assert_array_equal(joined, np.concatenate([pending, _noise(5)]))
    assert len(predict.filled(pending, iter([]), 2_000)) == 1_000


def test_all_windows_of_a_long_clip_have_one_shape_and_clips_that_fit_take_one_or_a_smaller_one():
    settings = MelodicHParams(predict_window_seconds=4.0, predict_margin_seconds=0.25)
    model = FakeModel()
    predict.predict_rolls(model, [_noise(16_000 * 30)], settings)
    assert len(model.shapes) == 8 and set(model.shapes) == {(1, (126 + 16 - 1) * HOP)}
    shapes = set()
    for seconds in (0.01, 0.5, 0.9, 1.5, 2.0, 3.0, 3.9, 4.0):
        short = FakeModel()
        predict.predict_rolls(short, [_noise(round(16_000 * seconds))], settings)
        assert len(short.shapes) == 1
        shapes |= set(short.shapes)
    assert len(shapes) == 3 and max(shapes) == model.shapes[0]


def test_a_keras_model_gives_the_same_rolls_at_all_window_sizes():
    audio = keras.Input((None,))
    x = keras.layers.ZeroPadding1D((HOP // 2, HOP // 2))(keras.layers.Reshape((-1, 1))(audio))
    x = keras.layers.AveragePooling1D(HOP)(x)
    x = keras.layers.Conv1D(88, 2 * REACH + 1, padding="same", activation="sigmoid", dtype="float32")(x)
    model = keras.Model(audio, {"onset": x, "frame": x})
    clip = _noise(16_000 * 9) * 10_000
    rolls = [
        predict.predict_rolls(model, [clip], MelodicHParams(predict_window_seconds=window, predict_margin_seconds=0.25))
        for window in (1.5, 4.0, 30.0)
    ]
    assert rolls[0]["onset"].std() > 0.01
    for other in rolls[1:]:
        np.testing.assert_allclose(other["onset"], rolls[0]["onset"], atol=1e-6)


def test_a_pitch_shared_model_does_not_depend_on_window_borders():
    settings = hparams.resolve("MELODIC", "tiny")  # Sees 4 frames to each side, and half a second with its spectrogram.
    model = models.build("MELODIC", settings)
    clip = _noise(16_000 * 9) * 10
    rolls = [
        predict.predict_rolls(model, [clip], dataclasses.replace(settings, predict_window_seconds=window))
        for window in (2.0, 3.1, 30.0)
    ]
    for name in rolls[0]:
        assert rolls[0][name].std() > 1e-4
        for other in rolls[1:]:
            np.testing.assert_allclose(other[name], rolls[0][name], atol=1e-5)


def test_a_model_with_another_number_of_frames_is_refused():
    class Short(FakeModel):
        def predict_on_batch(self, audio):
            return {name: roll[:, 1:] for name, roll in super().predict_on_batch(audio).items()}

    with pytest.raises(ValueError, match="frames for"):
        predict.predict_rolls(Short(), [_noise(1000)], MelodicHParams())


# --- Files --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_model(monkeypatch):
    """Makes `checkpoint.load_model` give the fake model, and be asked for it; counts how often it is."""
    calls = []

    def load_model(*arguments):
        calls.append(arguments)
        return checkpoint.Loaded(FakeModel(), MelodicHParams(), None, 0)

    monkeypatch.setattr(checkpoint, "load_model", load_model)
    monkeypatch.setattr(light, "load", lambda *_: None)
    return calls


def _write_burst(path, rate=16_000, channels=1):
    """One second: silence, then half a second of loud noise."""
    audio = np.zeros((rate, channels), np.float32)
    audio[rate // 2 :] = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 2, channels))
    soundfile.write(path, audio, rate)


def test_writes_beside_the_audio_with_one_model_load(tmp_path, fake_model):
    for name in ("b.wav", "a.flac", "c (live), part [2].wav"):
        _write_burst(tmp_path / name)
    seen = []
    summary = predict.predict("MELODIC", f"{tmp_path}/*.wav,{tmp_path}/a.flac,{tmp_path}/b.wav", report=seen.append, qpm=90.0)
    assert [done.audio.name for done in summary.written] == ["b.wav", "c (live), part [2].wav", "a.flac"]
    assert list(summary.written) == seen and not summary.failures and len(fake_model) == 1
    for done in summary.written:
        assert done.output == done.audio.with_name(f"{done.audio.stem}-polyamp.mid")
        assert len(notes.read_midi(done.output)) == done.num_notes > 0
    assert [path for path in tmp_path.iterdir() if path.suffix not in (".wav", ".flac", ".mid")] == []


def test_a_name_with_commas_and_brackets_is_taken_as_it_is(tmp_path, fake_model):
    path = tmp_path / "take [1], loud.wav"
    _write_burst(path)
    (done,) = predict.predict("MELODIC", str(path)).written
    assert done.audio == path


def test_output_dir_is_made_and_suffix_used(tmp_path, fake_model):
    _write_burst(tmp_path / "a.wav")
    out = tmp_path / "new" / "folder"
    (done,) = predict.predict("MELODIC", str(tmp_path / "a.wav"), output_dir=str(out), transcribed_file_suffix="").written
    assert done.output == out / "a.mid" and done.output.is_file()


def test_a_midi_file_that_may_be_the_reference_is_not_replaced(tmp_path, fake_model):
    _write_burst(tmp_path / "a.wav")
    (tmp_path / "a.mid").write_bytes(b"mine")
    summary = predict.predict("MELODIC", str(tmp_path / "a.wav"), transcribed_file_suffix="")
    assert "is there already" in summary.failures[0] and (tmp_path / "a.mid").read_bytes() == b"mine"
    beside = {"output_dir": f"{tmp_path}/../{tmp_path.name}", "transcribed_file_suffix": ""}
    summary = predict.predict("MELODIC", str(tmp_path / "a.wav"), **beside)
    assert "is there already" in summary.failures[0] and (tmp_path / "a.mid").read_bytes() == b"mine"
    assert not fake_model


def test_an_earlier_transcript_is_replaced(tmp_path, fake_model):
    _write_burst(tmp_path / "a.wav")
    (tmp_path / "a-polyamp.mid").write_bytes(b"old")
    predict.predict("MELODIC", str(tmp_path / "a.wav"))
    assert (tmp_path / "a-polyamp.mid").read_bytes() != b"old"


def test_of_two_recordings_for_one_midi_file_the_first_is_written_and_others_are_done(tmp_path, fake_model):
    for name in ("a.wav", "a.flac", "b.wav"):
        _write_burst(tmp_path / name)
    summary = predict.predict("MELODIC", f"{tmp_path}/*.*")
    assert [done.audio.name for done in summary.written] == ["a.flac", "b.wav"]
    (failure,) = summary.failures
    assert re.search(r"a\.wav: would be written to .*a-polyamp\.mid, as .*a\.flac is", failure)
    (tmp_path / "a.flac").write_bytes(b"no audio")
    summary = predict.predict("MELODIC", f"{tmp_path}/*.*a*")
    assert [done.audio.name for done in summary.written] == ["a.wav", "b.wav"] and "a.flac" in summary.failures[0]


@pytest.mark.parametrize("suffix", ["/x", "/../x"])
def test_a_suffix_cannot_lead_elsewhere(tmp_path, suffix):
    with pytest.raises(PolyampError, match="cannot end a file name"):
        predict.predict("MELODIC", "a.wav", transcribed_file_suffix=suffix)


def test_unwritable_output_is_said_before_anything_is_loaded(tmp_path, fake_model):
    _write_burst(tmp_path / "a.wav")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PolyampError, match=r"file/out: cannot be written to \(Not a directory\)"):
        predict.predict("MELODIC", str(tmp_path / "a.wav"), output_dir=str(tmp_path / "file" / "out"))
    assert not fake_model


def test_output_that_is_a_folder_fails_that_file_only(tmp_path, fake_model):
    for name in ("a.wav", "b.wav"):
        _write_burst(tmp_path / name)
    (tmp_path / "a-polyamp.mid").mkdir()
    summary = predict.predict("MELODIC", f"{tmp_path}/*.wav")
    assert [done.audio.name for done in summary.written] == ["b.wav"]
    assert len(summary.failures) == 1 and "a-polyamp.mid" in summary.failures[0]


def _truncated_flac(path):
    _write_burst(path)
    path.write_bytes(path.read_bytes()[:-8_000])


def _not_finite(path):
    soundfile.write(path, np.array([0.0, np.nan, np.inf, 0.1], np.float32), 16_000, subtype="FLOAT")


BAD_FILES = {
    "missing.wav": lambda path: None,
    "empty.wav": lambda path: path.write_bytes(b""),
    "folder.wav": lambda path: path.mkdir(),
    "text.wav": lambda path: path.write_text("These are words, not samples.\n" * 50),
    "truncated.flac": _truncated_flac,
    "zero_length.wav": lambda path: soundfile.write(path, np.zeros(0, np.float32), 16_000),
    "not_finite.wav": _not_finite,
}


def test_bad_files_fail_with_one_line_each_and_the_others_are_done(tmp_path, fake_model):
    for name, make in BAD_FILES.items():
        make(tmp_path / name)
    _write_burst(tmp_path / "good.wav")
    names = [*BAD_FILES, "good.wav", "*.nothing"]
    summary = predict.predict("MELODIC", ",".join(str(tmp_path / name) for name in names))
    assert [done.audio.name for done in summary.written] == ["good.wav"]
    assert len(summary.failures) == len(BAD_FILES) + 1
    for name in [*BAD_FILES, "*.nothing"]:
        assert sum(name in message for message in summary.failures) == 1, name
    assert all("\n" not in message and len(message) < 400 for message in summary.failures)
    assert sorted(path.name for path in tmp_path.glob("*.mid")) == ["good-polyamp.mid"]


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 2), (44_100, 7)])
def test_any_rate_and_channel_count(tmp_path, fake_model, rate, channels):
    _write_burst(tmp_path / "a.wav", rate, channels)
    (done,) = predict.predict("MELODIC", str(tmp_path / "a.wav")).written
    found = notes.read_midi(done.output)
    assert done.num_notes == len(found) > 0
    assert 0.3 < found.onset.min() < 0.6  # The noise begins at 0.5 s; the fake model sees 0.16 s ahead.


def test_ten_milliseconds_and_silence_give_valid_files(tmp_path, fake_model):
    soundfile.write(tmp_path / "short.wav", np.full(160, 1e-4, np.float32), 16_000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(48_000, np.float32), 16_000)
    summary = predict.predict("MELODIC", f"{tmp_path}/*.wav")
    assert not summary.failures
    written = {done.audio.name: done for done in summary.written}
    assert len(notes.read_midi(written["silence.wav"].output)) == written["silence.wav"].num_notes == 0
    assert len(notes.read_midi(written["short.wav"].output)) == written["short.wav"].num_notes


# --- Checkpoints, through the runner ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of models with one checkpoint of the tiny preset, its weights random, and a recording."""
    folder = tmp_path_factory.mktemp("models")
    settings = hparams.resolve("MELODIC", "tiny")
    target = checkpoint.folder(folder, "MELODIC", "mine")
    target.mkdir(parents=True)
    checkpoint.save(checkpoint.step_path(target, 5), models.build("MELODIC", settings), {"step": 5})
    (target / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))
    _write_burst(folder / "a.wav")
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of that folder to damage, and the path of its checkpoint."""
    folder = tmp_path / "models"
    shutil.copytree(trained, folder)
    return folder, checkpoint.step_path(checkpoint.folder(folder, "MELODIC", "mine"), 5)


def _runner(*arguments):
    return polyamp_runner.main(["polyamp", "--mode=predict", "--model_type=MELODIC", *arguments])


def test_predicts_with_a_checkpoint_and_says_where(copy, capsys):
    folder, _ = copy
    status = _runner(f"--audio_filename={folder}/a.wav", f"--model_dir={folder}", "--hparams={predict_frame_threshold:0.3}")
    assert status == 0 and (folder / "a-polyamp.mid").is_file()
    found = len(notes.read_midi(folder / "a-polyamp.mid"))
    assert capsys.readouterr().out == f"{folder}/a.wav -> {folder}/a-polyamp.mid ({found} notes)\n"


def _no_checkpoints(path):
    shutil.rmtree(path.parent)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_dimensions(path):
    settings = dataclasses.replace(hparams.from_json("MELODIC", path.parent / checkpoint.HPARAMS_FILE), channels=16)
    (path.parent / checkpoint.HPARAMS_FILE).write_text(hparams.to_json(settings))


@pytest.mark.parametrize(
    ("damage", "arguments", "pattern"),
    [
        (_no_checkpoints, [], "no MELODIC checkpoint at all"),
        (_truncate, [], r"ckpt-00000005\.npz: not a readable checkpoint"),
        (_other_dimensions, [], r"ckpt-00000005\.npz: does not fit the model: .* in the file and .* in the model"),
        (lambda path: None, ["--load_id=other"], "no checkpoint for --load_id=other; ids there: mine"),
        (lambda path: None, ["--hparams={channels:16}"], r"other settings .*channels \(8 there, 16 here\)"),
        (lambda path: None, ["--hparams={chanels:16}"], "'chanels' is not a hyperparameter.*channels"),
    ],
    ids=["none", "truncated", "other-dimensions", "other-id", "override-of-dimensions", "unknown-hparam"],
)
def test_a_bad_checkpoint_is_one_line_and_nothing_is_written(copy, capsys, damage, arguments, pattern):
    folder, path = copy
    damage(path)
    assert _runner(f"--audio_filename={folder}/a.wav", f"--model_dir={folder}", *arguments) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(rf"polyamp: error: .*{pattern}.*\n", captured.err) and captured.out == ""
    assert not (folder / "a-polyamp.mid").exists()
