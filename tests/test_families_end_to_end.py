"""Timbre and Full: the published commands on small data, and weights that go from part to whole and back exactly."""

import json

import keras
import mido
import numpy as np
import pytest
import soundfile

import polyamp_runner
from polyamp import checkpoint, checkpoint_file, constants
from polyamp.data import nsynth, records
from polyamp.data.example import Example, NoteExample
from polyamp.notes import Notes

SMALL = {
    "timbre_architecture": "harmonics",
    "timbre_hop_length": 512,
    "timbre_patch_units": [8],
    "timbre_max_notes": 16,
    "full_max_notes": 16,
    "train_frames": 40,
}
AS_JSON = json.dumps(SMALL)


def tone(pitch, seconds=4.0, partials=4):
    time = np.arange(round(seconds * 16_000)) / 16_000
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return (0.2 * sum(np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, partials + 1))).astype(np.float32)


def band(seed):
    """Two instruments: a bass of many partials, a flute of one."""
    rng = np.random.default_rng(seed)
    onset = np.arange(0.2, 3.4, 0.4)
    pitch = np.where(np.arange(len(onset)) % 2, rng.integers(36, 48, len(onset)), rng.integers(72, 84, len(onset)))
    audio = np.zeros(64_000, np.float32)
    for start, key in zip(onset, pitch, strict=True):
        first = round(start * 16_000)
        audio[first : first + 5600] += tone(key, 0.35, 8 if key < 60 else 1)
    return Example(f"band-{seed}", audio, Notes.of(onset, onset + 0.35, pitch, None, np.where(pitch < 60, 33, 73)), (80, 80))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    records.write(folder / "slakh.tfrecord-00000-of-00001", [band(seed) for seed in range(3)])
    singles = [
        NoteExample(
            id=f"{family}_synthetic_000-{pitch:03d}-100",
            audio=tone(pitch),
            pitch=pitch,
            velocity=100,
            family=family,
            instrument=f"{family}_synthetic_000",
            source="synthetic",
            qualities=(),
            number=pitch,
            instrument_number=0,
        )
        for family, pitch in [("bass", 40), ("flute", 76), ("bass", 43), ("flute", 79)] * 3
    ]
    records.write(folder / "nsynth.tfrecord-00000-of-00001", singles, nsynth.serialize)
    return folder


def run(*arguments):
    assert polyamp_runner.main(["polyamp", *arguments]) == 0


def train(folder, model_type, model_id, *arguments, examples="slakh"):
    run(
        f"--examples_path={folder}/{examples}.tfrecord-*",
        f"--model_dir={folder}/models",
        f"--model_type={model_type}",
        f"--model_id={model_id}",
        "--config=tiny",
        f"--hparams={AS_JSON}",
        "--num_steps=2",
        "--checkpoint_interval=2",
        *arguments,
    )


@pytest.fixture(scope="module")
def trained(folder):
    """Checkpoints of all three types: a Full model out of the other two, trained on mixes of all kinds."""
    train(folder, "MELODIC", "notes", "--load_id=")
    train(folder, "TIMBRE", "families", "--load_id=", "--dataset_type=slakh")
    nsynth_path = f"--nsynth_examples_path={folder}/nsynth.tfrecord-*"
    train(folder, "FULL", "both", "--load_full=False", nsynth_path)
    return folder / "models"


def weights(path):
    arrays, _ = checkpoint_file.read(path)
    return {name: array for name, array in arrays.items() if name.startswith("weights/")}


def assert_same_weights(model, *paths):
    expected = {name: array for path in paths for name, array in weights(path).items()}
    for variable in model.variables:
        if not variable.path.startswith("seed"):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), expected["weights/" + variable.path])


def test_timbre_trains_on_mixed_single_notes(folder, capsys):
    published = json.dumps({**SMALL, "timbre_architecture": "filters", "timbre_num_filters": [2, 2], "timbre_spec_n_bins": 96})
    train(folder, "TIMBRE", "singles", "--load_id=", "--dataset_type=nsynth", f"--hparams={published}", examples="nsynth")
    assert "trained" in capsys.readouterr().out


def test_timbre_trains_on_recordings_and_single_notes_together(folder, capsys):
    nsynth_path = f"--nsynth_examples_path={folder}/nsynth.tfrecord-*"
    train(folder, "TIMBRE", "together", "--load_id=", nsynth_path)
    assert "trained" in capsys.readouterr().out
    only = ["--dataset_type=nsynth", f"--examples_path={folder}/nsynth.tfrecord-*", f"--model_dir={folder}/models"]
    arguments = ["--model_type=TIMBRE", "--model_id=twice", "--load_id=", *only, nsynth_path]
    assert polyamp_runner.main(["polyamp", *arguments]) == 1
    assert "leave out --nsynth_examples_path" in capsys.readouterr().err
    for flags in (only, [f"--examples_path={folder}/slakh.tfrecord-*", f"--model_dir={folder}/models", nsynth_path]):
        arguments = ["--model_type=TIMBRE", "--model_id=cached", "--load_id=", *flags, f"--cache_dir={folder}/cache"]
        assert polyamp_runner.main(["polyamp", *arguments]) == 1
        assert "mixes of single notes are made anew" in capsys.readouterr().err
        assert not (folder / "models" / "TIMBRE" / "cached").exists()


@pytest.mark.parametrize(("rests", "status"), [(1, 0), (3, 1)], ids=["some", "all"])
def test_validation_of_timbre_leaves_rests_out(folder, tmp_path, capsys, rests, status):
    rest = Example("rest", np.zeros(16_000, np.float32), Notes.of([], [], []), (0, 0))
    records.write(tmp_path / "validation.tfrecord", [rest] * rests + [band(9)] * (3 - rests))
    places = [f"--examples_path={folder}/slakh.tfrecord-*", f"--model_dir={tmp_path}", "--model_type=TIMBRE", "--model_id=a"]
    steps = ["--config=tiny", f"--hparams={AS_JSON}", "--num_steps=2", "--checkpoint_interval=2"]
    validation = f"--validation_examples_path={tmp_path}/validation.tfrecord"
    assert polyamp_runner.main(["polyamp", *places, *steps, validation]) == status
    assert ("holds no example with notes" in capsys.readouterr().err) == bool(status)
    checkpoint.step_path(tmp_path / "TIMBRE" / "a", 2).stat()  # It is there in any case.


def test_full_of_two_parts_has_their_weights(trained):
    melodic, timbre = (checkpoint.find(trained, kind) for kind in ("MELODIC", "TIMBRE"))
    joined = checkpoint.load_model("FULL", trained, "*", load_full=False)
    assert_same_weights(joined.model, melodic, timbre)


@pytest.mark.parametrize("kind", ["MELODIC", "TIMBRE", "FULL"])
def test_parts_of_a_full_checkpoint_have_its_weights(trained, kind):
    loaded = checkpoint.load_model(kind, trained, "both", load_full=None if kind == "FULL" else True)
    assert_same_weights(loaded.model, checkpoint.find(trained, "FULL", "both"))


def test_full_and_timbre_are_evaluated_family_by_family(trained, folder, capsys):
    path = f"--examples_path={folder}/slakh.tfrecord-*"
    for kind, load_id in (("TIMBRE", "families"), ("FULL", "both")):
        run("--mode=eval", path, f"--model_dir={trained}", f"--model_type={kind}", f"--load_id={load_id}", "--eval_num_steps=2")
    result = json.loads((trained / "TIMBRE/families/eval-2.json").read_text())
    assert sum(row["support"] for row in result["families"]["families"].values()) == 16
    assert np.sum(result["families"]["confusion"]) == 16
    assert (trained / "TIMBRE/families/eval-2-confusion.png").is_file()
    assert {"family_onset_f1", "class_onset_f1", "note_onset_f1"} <= set(
        json.loads((trained / "FULL/both/eval-2.json").read_text())["mean"]
    )
    run("--mode=eval", path, f"--model_dir={trained}", "--model_type=MELODIC", "--load_id=both", "--load_full=True")
    assert "note_onset" in capsys.readouterr().out


def test_timbre_is_evaluated_on_single_notes(trained, folder, capsys):
    arguments = [f"--model_dir={trained}", "--model_type=TIMBRE", "--load_id=families", "--dataset_type=nsynth"]
    run("--mode=eval", f"--examples_path={folder}/nsynth.tfrecord-*", "--eval_name=singles", *arguments)
    families = json.loads((trained / "TIMBRE/families/singles-2.json").read_text())["families"]["families"]
    assert {name: row["support"] for name, row in families.items() if row["support"]} == {"bass": 6, "flute": 6}
    assert polyamp_runner.main(["polyamp", "--mode=eval", f"--examples_path={folder}/slakh.tfrecord-*", *arguments]) == 1
    assert "something else than single notes" in capsys.readouterr().err


def test_full_writes_a_track_for_each_family(trained, folder):
    soundfile.write(folder / "band.wav", band(0).audio, 16_000)
    settings = {"predict_onset_threshold": 0.01, "present_instruments": ["bass", "flute"], "use_all_instruments": True}
    settings["multiple_instruments_threshold"] = 0.0
    run(
        "--mode=predict",
        f"--audio_filename={folder}/band.wav",
        f"--model_dir={trained}",
        "--model_type=FULL",
        "--load_id=both",
        "--transcribed_file_suffix=-polyamp-multi-track",
        f"--hparams={json.dumps(settings)}",
    )
    messages = [m for track in mido.MidiFile(folder / "band-polyamp-multi-track.mid").tracks for m in track]
    programs = {m.program: m.channel for m in messages if m.type == "program_change"}
    assert set(programs) == {constants.FAMILY_PROGRAMS[constants.FAMILIES.index(name)] for name in ("bass", "flute")}
    assert len(set(programs.values())) == 2 and 9 not in programs.values()


def test_timbre_tells_the_family_of_a_recording(trained, folder, capsys):
    soundfile.write(folder / "flute.wav", tone(76), 16_000)
    soundfile.write(folder / "silence.wav", np.zeros(16_000), 16_000)
    audio = f"--audio_filename={folder}/silence.wav,{folder}/flute.wav"
    status = polyamp_runner.main(
        ["polyamp", "--mode=predict", "--model_type=TIMBRE", audio, f"--model_dir={trained}", "--load_id=families"]
    )
    captured = capsys.readouterr()
    assert status == 1 and "silence.wav: no note is heard" in captured.err and "Traceback" not in captured.err
    answer = json.loads((folder / "flute-polyamp.json").read_text())
    assert {note["pitch"] for note in answer["notes"]} >= {76}
    assert answer["family"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=0.002)
    assert f"{answer['family']:<12}{answer['probabilities'][answer['family']]:7.1%}" in captured.out
    assert not (folder / "silence-polyamp.json").exists()


def test_a_full_model_without_parts_says_what_is_missing(tmp_path, capsys):
    arguments = ["--mode=eval", "--examples_path=x", f"--model_dir={tmp_path}", "--model_type=FULL", "--load_full=False"]
    assert polyamp_runner.main(["polyamp", *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_training_on_single_notes_is_validated_on_single_notes(folder, tmp_path, capsys):
    only = ["--dataset_type=nsynth", f"--examples_path={folder}/nsynth.tfrecord-*", f"--model_dir={tmp_path}"]
    only += ["--model_type=TIMBRE", "--model_id=a", "--load_id=", "--config=tiny", f"--hparams={AS_JSON}"]
    steps = ["--num_steps=2", "--checkpoint_interval=2"]
    missing = f"--validation_examples_path={tmp_path}/missing*"
    assert polyamp_runner.main(["polyamp", *only, *steps, missing]) == 1
    assert "missing*" in capsys.readouterr().err and not (tmp_path / "TIMBRE").exists()
    for number, kind in enumerate(("nsynth", "slakh"), start=1):  # Or on recordings.
        validation = f"--validation_examples_path={folder}/{kind}.tfrecord-*"
        steps = [f"--num_steps={2 * number}", "--checkpoint_interval=2"]
        assert polyamp_runner.main(["polyamp", *only, *steps, validation]) == 0
        logged = (tmp_path / "TIMBRE" / "a" / "metrics.jsonl").read_text().splitlines()
        assert sum("val_family_accuracy" in line for line in logged) == number
    _, meta = checkpoint_file.read(tmp_path / "TIMBRE" / "a" / checkpoint.BEST_FILE)
    assert 0.0 <= meta["best"] <= 1.0


def test_a_frozen_melodic_part_stays_so_whatever_layers_are_named(trained, folder):
    settings = {"melodic_trainable": False, "train_layers": "stem,timbre"}
    train(folder, "FULL", "frozen", "--load_id=both", "--load_full=True", f"--hparams={json.dumps({**SMALL, **settings})}")
    before, after = (weights(checkpoint.find(trained, "FULL", name)) for name in ("both", "frozen"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and all(name.startswith("weights/timbre") for name in changed)
