"""What becomes of usable and unusable files."""

import dataclasses
import re
import shutil

import numpy as np
import pretty_midi
import pytest
import soundfile

import polyamp_runner
from polyamp import checkpoint, checkpoint_file, hparams, light, models, notes, predict
from polyamp.errors import PolyampError
from polyamp.hparams import MelodicHParams


class LoudModel:
    """Hears every pitch where the audio is loud; in numpy."""

    def predict_on_batch(self, audio):
        frames = 1 + audio.shape[1] // 512
        level = np.abs(np.pad(audio[0], (256, 512)))[: frames * 512].reshape(frames, 512).mean(axis=1)
        roll = np.tile(np.tanh(100 * level)[np.newaxis, :, np.newaxis], (1, 1, 88)).astype(np.float32)
        return {"onset": roll, "offset": np.zeros_like(roll), "frame": roll, "velocity": roll}


@pytest.fixture
def fake_model(monkeypatch):
    """Makes `checkpoint.load_model` give `LoudModel`, and be asked for it; counts how often it is."""
    calls = []

    def load_model(*arguments):
        calls.append(arguments)
        return checkpoint.Loaded(LoudModel(), MelodicHParams(), None, 0)

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


def test_the_tempo_of_files_follows_the_beats_if_it_should(tmp_path, fake_model):
    audio = np.zeros(12 * 16_000, np.float32)
    for start in np.arange(0.3, 11.5, 0.6):
        audio[int(16_000 * start) :][:3200] = np.random.default_rng(0).uniform(-0.5, 0.5, 3200)
    soundfile.write(tmp_path / "a.wav", audio, 16_000)
    tempos = []
    for on_beats in (False, True):
        (done,) = predict.predict("MELODIC", str(tmp_path / "a.wav"), qpm=90.0, on_beats=on_beats).written
        tempos.append(pretty_midi.PrettyMIDI(str(done.output)).get_tempo_changes()[1])
    assert tempos[0] == pytest.approx([90.0], rel=1e-4)
    assert np.median(tempos[1]) == pytest.approx(100.0, abs=3.0) and len(tempos[1]) > 3


def test_a_name_with_commas_and_brackets_is_taken_as_it_is(tmp_path, fake_model):
    path = tmp_path / "take [1], loud.wav"
    _write_burst(path)
    (done,) = predict.predict("MELODIC", str(path)).written
    assert done.audio == path


def test_names_in_a_list_are_taken_as_they_are_and_once(tmp_path, fake_model):
    names = [str(tmp_path / name) for name in ("a,b.wav", "[a].wav")]
    for name in names:
        _write_burst(name)
    summary = predict.predict("MELODIC", [*names, names[0], str(tmp_path / "*.wav")])
    assert [str(done.audio) for done in summary.written] == names
    assert len(summary.failures) == 1 and "*.wav: no such file" in summary.failures[0]


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


def test_neither_is_one_file_that_is_spelled_in_two_ways(tmp_path, fake_model, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    for name in ("a.wav", "a.flac"):
        _write_burst(tmp_path / "one" / name)
    monkeypatch.chdir(tmp_path)
    for second in ("link/a.flac", str(tmp_path / "one" / "a.flac"), "link/../one/a.flac"):
        summary = predict.predict("MELODIC", ["one/a.wav", second])
        assert [str(done.audio) for done in summary.written] == ["one/a.wav"]
        assert len(summary.failures) == 1 and "as one/a.wav is" in summary.failures[0]


@pytest.mark.parametrize("suffix", ["/x", "/../x"])
def test_a_suffix_cannot_lead_elsewhere(tmp_path, suffix):
    with pytest.raises(PolyampError, match="cannot end a file name"):
        predict.predict("MELODIC", "a.wav", transcribed_file_suffix=suffix)


def test_unwritable_output_is_said_before_anything_is_loaded(tmp_path, fake_model):
    _write_burst(tmp_path / "a.wav")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PolyampError, match=r"file/out: cannot be made a folder \(Not a directory\); choose another --out"):
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
    checkpoint_file.save(checkpoint.step_path(target, 5), models.build("MELODIC", settings), {"step": 5})
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
        (_truncate, [], r"ckpt-00000005\.npz: not a readable checkpoint, perhaps truncated"),
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
