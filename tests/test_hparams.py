"""Hyperparameters: the lenient parser of `--hparams`, the strict merge, presets."""

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyamp import checkpoint, hparams
from polyamp.errors import HParamsError
from polyamp.hparams import FullHParams, MelodicHParams, TimbreHParams
from polyamp.overrides import parse_overrides

PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.json"))
SHARED = {"architecture": "pitch_shared", "spec_type": "log_frequency"}
PUBLISHED = {"frames_true_weighing": 3, "frame_prediction_threshold": 0.4}


def _after_bash(command_line):
    """The arguments that bash makes of a piece of command line."""
    script = f"for argument in {command_line}; do printf '%s\\0' \"$argument\"; done"
    output = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    return output.split("\0")[:-1]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        # As in the issue tracker and the published README: bash expands the braces where there is a comma.
        ('--hparams={"frames_true_weighing":3,"frame_prediction_threshold":0.4}', PUBLISHED),
        (r"--hparams={\"frames_true_weighing\":3,\"frame_prediction_threshold\":0.4}", PUBLISHED),
        (r"--hparams={\"frames_true_weighing\":3}", {"frames_true_weighing": 3}),
        ('--hparams={"frames_true_weighing":3}', {"frames_true_weighing": 3}),
        ("""--hparams='{"frames_true_weighing":3, "frame_prediction_threshold": 0.4}'""", PUBLISHED),
        (r'''--hparams="{\"frames_true_weighing\":3,\"frame_prediction_threshold\":0.4}"''', PUBLISHED),
        ("--hparams={frames_true_weighing:3,frame_prediction_threshold:0.4}", PUBLISHED),
        ("""--hparams='{frames_true_weighing:3}'""", {"frames_true_weighing": 3}),
        (
            '--hparams={"num_filters":[16,16],"spec_type":"mel","share_conv_features":true,"learning_rate":1e-3}',
            {"num_filters": [16, 16], "spec_type": "mel", "share_conv_features": True, "learning_rate": 1e-3},
        ),
        ('--hparams={"onset_bias_ms":-2.5,"decay_rate":.5e-1}', None),  # JSON has no number that starts with a point.
        ("--hparams={}", {}),
        ("--hparams=", {}),
        ("""--hparams='{"a":1}' --hparams='{"b":2}'""", {"a": 1, "b": 2}),
    ],
)
def test_overrides_as_bash_hands_them_over(typed, expected):
    fragments = [argument.removeprefix("--hparams=") for argument in _after_bash(typed)]
    if expected is None:
        with pytest.raises(HParamsError, match="not a JSON object"):
            parse_overrides(fragments)
    else:
        assert parse_overrides(fragments) == expected


def test_escaped_quotes_inside_quotes():
    assert parse_overrides([r"{\"frames_true_weighing\":3}"]) == {"frames_true_weighing": 3}


NO_OBJECTS = ["[1]", "3", "learning_rate", "{", '{"a":}', '{"a" 1}', "learning_rate=0.1", '{"a":1}}', "[" * 100_000]
NO_OBJECTS += ["9" * 5_000]


@pytest.mark.parametrize("text", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_what_is_not_an_object_is_an_error(text):
    with pytest.raises(HParamsError, match="not a JSON object"):
        parse_overrides([text])


def test_of_several_objects_the_last_one_counts():
    assert parse_overrides(['{"batch_size":1,"hop_length":2}', '{"batch_size":3}']) == {"batch_size": 3, "hop_length": 2}


def test_a_name_given_twice_is_an_error():
    with pytest.raises(HParamsError, match="'batch_size' twice"):
        parse_overrides(['{"batch_size":1,"batch_size":2}'])
    with pytest.raises(HParamsError, match="given twice"):
        hparams.merge(MelodicHParams(), {"predict_frame_threshold": 0.1, "frame_prediction_threshold": 0.2})


_names = st.sampled_from([field.name for field in dataclasses.fields(FullHParams)])
_values = st.one_of(
    st.booleans(),
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["mel", "cqt", "one_cycle"]),
    st.lists(st.integers(1, 99), min_size=1, max_size=4),
)


@given(st.dictionaries(_names, _values, min_size=1, max_size=4))
def test_any_object_survives_with_and_without_quotes_and_cut_at_its_commas(overrides):
    text = json.dumps(overrides, separators=(",", ":"))
    assert parse_overrides([text]) == overrides
    assert parse_overrides([text.replace('"', '\\"')]) == overrides
    assert parse_overrides([text.replace('"', "")]) == overrides
    assert parse_overrides(text[1:-1].replace('"', "").split(",")) == overrides


@given(st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_say_why_not(text):
    try:
        assert isinstance(parse_overrides([text]), dict)
    except HParamsError:
        pass


def test_numbers_of_numpy_are_numbers():
    values = {"predict_onset_threshold": np.float32(0.25), "batch_size": np.int64(3), "onset_peak_picking": np.bool_(True)}
    merged = hparams.merge(MelodicHParams(), values)
    assert (merged.predict_onset_threshold, merged.batch_size, merged.onset_peak_picking) == (0.25, 3, True)
    with pytest.raises(HParamsError, match="batch_size must be a int"):
        hparams.merge(MelodicHParams(), {"batch_size": np.float32(0.5)})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"frames_true_weighting": 3}, ["frames_true_weighting", "Did you mean frames_true_weighing"]),
        ({"frame_predicton_threshold": 0.3}, ["frame_prediction_threshold"]),
        ({"learning_rat": 1}, ["learning_rate"]),
        ({"qqq": 1}, ["'qqq' is not a hyperparameter of MelodicHParams."]),
        ({"multiple_instruments_threshold": 1.5}, ["between 0.0 and 1.0"]),
        ({"predict_onset_threshold": 1.5}, ["predict_onset_threshold", "float between 0.0 and 1.0", "1.5"]),
        ({"predict_onset_threshold": -0.1}, ["float between 0.0 and 1.0"]),
        ({"predict_onset_threshold": float("nan")}, ["float between", "nan"]),
        ({"frames_true_weighing": float("inf")}, ["frames_true_weighing", "inf"]),
        ({"learning_rate": "fast"}, ["learning_rate must be a float", "'fast'"]),
        ({"learning_rate": True}, ["float"]),
        ({"learning_rate": None}, ["float"]),
        ({"learning_rate": 10**400}, ["learning_rate", "float"]),
        ({"batch_size": 2.5}, ["batch_size must be a int", "2.5"]),
        ({"batch_size": 0}, ["between 1 and"]),
        ({"use_batch_normalization": 1}, ["bool"]),
        ({"spec_type": "mfcc"}, ["one of cqt, mel"]),
        ({"num_filters": []}, ["list of int"]),
        ({"num_filters": 48}, ["list of int"]),
        ({"num_filters": [48, "x"]}, ["list of int"]),
        ({"pool_sizes": [1, 99]}, ["pool_sizes", "between 1 and 16"]),
    ],
)
def test_errors_name_the_field_its_type_and_range(overrides, words):
    with pytest.raises(HParamsError) as error:
        hparams.merge(MelodicHParams(), overrides)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"num_filters": [48]}, "one entry per layer"),
        ({"spec_type": "mel", "spec_fmin": 8000.0}, "below mel_fmax"),
        ({"architecture": "pitch_shared"}, "'pitch_shared' cannot read spec_type 'cqt'"),
        ({"spec_type": "log_frequency"}, "'onsets_frames' cannot read spec_type 'log_frequency'"),
        (SHARED | {"temporal_dilations": [1, 2]}, "mixing_after names block 6; temporal_dilations has 2 blocks"),
        ({"pool_sizes": [16, 16, 16, 16]}, r"pool_sizes \[16, 16, 16, 16\] leave nothing of spec_n_bins \(229\)"),
    ],
)
def test_settings_that_do_not_fit_together_are_errors(overrides, words):
    with pytest.raises(HParamsError, match=words):
        hparams.merge(MelodicHParams(), overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"timbre_pool_size": [3]}, "timbre_pool_size needs two entries"),
        ({"timbre_pool_size": [3, 2, 2]}, "timbre_pool_size needs two entries"),
        ({"timbre_temporal_sizes": [1, 3]}, r"timbre_temporal_sizes \(2 entries\) and timbre_temporal_filters \(3 entries\)"),
        ({"timbre_temporal_sizes": [1, 1, 3]}, "timbre_temporal_sizes names a size twice"),
        ({"timbre_freq_sizes": [3, 3]}, "timbre_freq_sizes names a size twice"),
    ],
)
@pytest.mark.parametrize("kind", [TimbreHParams, FullHParams])
def test_timbre_settings_that_do_not_fit_together_are_errors(kind, overrides, words):
    with pytest.raises(HParamsError, match=words):
        hparams.merge(kind(), overrides)


def test_the_lowest_bin_of_a_timbre_model_from_before_it_had_a_setting_of_its_own(tmp_path):
    path = tmp_path / "hparams.json"
    path.write_text('{"spec_fmin": 20.0}')
    stored = hparams.from_json("TIMBRE", path)
    assert stored.timbre_lowest_hz == 20.0
    assert hparams.structure(stored) == hparams.structure(hparams.resolve("TIMBRE", None, {"timbre_spec_fmin": 20.0}))
    assert hparams.joined(MelodicHParams(spec_fmin=30.0), stored).timbre_lowest_hz == 20.0
    path.write_text('{"spec_fmin": 20.0, "timbre_spec_fmin": 25.0}')
    assert hparams.from_json("FULL", path).timbre_lowest_hz == 25.0


def test_merge_converts_what_json_writes_and_leaves_the_base_alone():
    base = MelodicHParams()
    merged = hparams.merge(base, {"frames_true_weighing": 3, "batch_size": 4.0, "num_filters": [8, 8, 8, 8]})
    assert (merged.frames_true_weighing, merged.batch_size, merged.num_filters) == (3.0, 4, (8, 8, 8, 8))
    assert isinstance(merged.frames_true_weighing, float) and isinstance(merged.batch_size, int)
    assert base == MelodicHParams()


@pytest.mark.parametrize("roll", ["frame", "onset", "offset"])
def test_published_threshold_names_mean_ours(roll):
    merged = hparams.merge(MelodicHParams(), {f"{roll}_prediction_threshold": 0.25})
    assert getattr(merged, f"predict_{roll}_threshold") == 0.25


def test_the_published_overrides_exist():
    names = "predict_frame_threshold predict_onset_threshold predict_offset_threshold active_onset_threshold"
    names += " frames_true_weighing onsets_true_weighing offsets_true_weighing"
    names += " multiple_instruments_threshold use_all_instruments family_recall_weight"
    known = {field.name for field in dataclasses.fields(FullHParams)}
    assert known.issuperset(names.split())


def test_defaults_are_within_their_own_ranges():
    for settings in (MelodicHParams(), FullHParams()):
        assert hparams.merge(type(settings)(), dataclasses.asdict(settings)) == settings


def test_settings_survive_a_file(tmp_path):
    settings = hparams.merge(MelodicHParams(), {"temporal_dilations": [8], "spec_type": "mel", "learning_rate": 1e-5})
    path = tmp_path / "hparams.json"
    path.write_text(hparams.to_json(settings))
    assert hparams.from_json("MELODIC", path) == settings


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b""])
def test_a_damaged_settings_file_is_named(tmp_path, content):
    path = tmp_path / "hparams.json"
    path.write_bytes(content)
    with pytest.raises(HParamsError, match="hparams.json"):
        hparams.from_json("MELODIC", path)


def test_presets_are_there():
    assert {"melodic", "melodic_compact", "onsets_frames", "tiny"} <= {path.stem for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_resolves_and_holds_only_what_differs_from_the_defaults(path):
    model_type = {"timbre": "TIMBRE", "full": "FULL", "autoregressive": "AUTOREGRESSIVE"}.get(
        path.stem.partition("_")[0], "MELODIC"
    )
    resolved = hparams.resolve(model_type, path.stem)
    assert resolved == hparams.resolve(model_type, str(path))
    defaults = hparams.resolve(model_type)
    for name in json.loads(path.read_text()):
        assert getattr(resolved, name) != getattr(defaults, name), name


def test_the_command_line_goes_on_top_of_the_preset(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"batch_size": 3, "learning_rate": 0.5}')
    resolved = hparams.resolve("MELODIC", str(path), {"batch_size": 5})
    assert (resolved.batch_size, resolved.learning_rate, resolved.fc_size) == (5, 0.5, MelodicHParams().fc_size)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(HParamsError, match="presets: .*melodic_compact"):
        hparams.preset_path("melodic_compct")
    with pytest.raises(HParamsError, match="no preset of that name"):
        hparams.preset_path('{"learning_rate": 0.1}' + " " * 300)  # What belongs to --hparams, too long for a file's name.


def test_an_error_in_a_preset_names_its_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"batch_sise": 3}')
    with pytest.raises(HParamsError, match=r"mine\.json: 'batch_sise'.*batch_size"):
        hparams.resolve("MELODIC", str(path))


def test_an_unknown_model_type_names_those_that_there_are():
    with pytest.raises(HParamsError, match="'LYRIC'; there are MELODIC, TIMBRE, FULL, AUTOREGRESSIVE"):
        hparams.resolve("LYRIC")


def test_names_of_another_model_are_checked_and_then_left_out():
    merged = hparams.merge(MelodicHParams(), {"use_all_instruments": True, "predict_frame_threshold": 0.25})
    assert merged == MelodicHParams(predict_frame_threshold=0.25)
    assert hparams.merge(FullHParams(), {"use_all_instruments": True}).use_all_instruments


@pytest.mark.parametrize("kind", hparams.HPARAMS.values())
def test_a_setting_that_another_type_has_anew_is_as_structural_as_it_was(kind):
    base = {field.name: field.metadata["structural"] for field in dataclasses.fields(MelodicHParams)}
    found = {field.name: field.metadata["structural"] for field in dataclasses.fields(kind) if field.name in base}
    assert found == base
    assert base["temporal_dilations"] and base["spec_type"] and not base["conv_dropout"] and not base["predict_level_db"]


@pytest.mark.parametrize(
    ("model_type", "overrides", "said"),
    [
        ("AUTOREGRESSIVE", {"predict_onset_threshold": 0.3}, "predict_onset_threshold has no effect on AutoregressiveHParams."),
        (
            "AUTOREGRESSIVE",
            {"onset_prediction_threshold": 0.3},
            "predict_onset_threshold has no effect on AutoregressiveHParams.",
        ),
        (
            "AUTOREGRESSIVE",
            {"num_filters": [8, 8, 8, 8]},
            "num_filters has no effect on AutoregressiveHParams with architecture",
        ),
        ("TIMBRE", {"fc_size": 8}, "fc_size has no effect on TimbreHParams."),
        ("MELODIC", {"onset_boost": 1.0}, "onset_boost has no effect on MelodicHParams."),
        ("MELODIC", {"weight_decay": 0.1}, "weight_decay has no effect on MelodicHParams with optimizer 'adam'."),
        ("MELODIC", SHARED | {"spec_fmin": 40.0}, "spec_fmin has no effect on MelodicHParams with spec_type 'log_frequency'."),
        ("TIMBRE", {"timbre_spec_fmin": 40.0, "spec_fmin": 40.0}, "spec_fmin has no effect on TimbreHParams."),
        (
            "MELODIC",
            SHARED | {"mixing_after": [0], "mixing_channels": 2},
            "mixing_channels has no effect on MelodicHParams with",
        ),
        ("TIMBRE", {"family_loss": "crossentropy", "family_recall_weight": 2.0}, "family_recall_weight has no effect on"),
        ("TIMBRE", {"spec_fmin": 40.0}, None),
        ("FULL", {"family_loss": "crossentropy", "family_recall_weight": 2.0}, None),
        ("FULL", {"timbre_channels": 8}, "timbre_channels has no effect on FullHParams with timbre_architecture 'filters'."),
        ("AUTOREGRESSIVE", {"onset_boost": 1.0, "fc_size": 8, "onset_bias_ms": 3.0, "window": 1024}, None),
        (
            "MELODIC",
            {"weight_decay": 0.1, "optimizer": "adamw", "num_filters": [8, 8, 8, 8], "predict_onset_threshold": 0.3},
            None,
        ),
        ("TIMBRE", {"timbre_num_filters": [8, 8], "timbre_spec_fmin": 30.0, "batch_size": 2}, None),
        ("FULL", {"use_all_instruments": True, "multiple_instruments_threshold": 0.3, "frame_loss_weight": 2.0}, None),
    ],
)
def test_settings_without_effect_are_warned_of(model_type, overrides, said, caplog):
    hparams._warn_once.cache_clear()
    hparams.resolve(model_type, None, overrides)
    assert [message.startswith(str(said)) for message in caplog.messages] == ([True] if said else [])


def test_a_preset_is_warned_of_unless_the_overrides_are_why(tmp_path, caplog):
    hparams._warn_once.cache_clear()
    path = tmp_path / "mine.json"
    path.write_text('{"weight_decay": 0.1, "decay_rate": 0.5, "timbre_channels": 8}')
    hparams.resolve("MELODIC", str(path), {"lr_schedule": "constant", "decay_rate": 0.9})
    assert caplog.messages == [
        "decay_rate has no effect on MelodicHParams with lr_schedule 'constant'.",
        "timbre_channels has no effect on MelodicHParams.",
        "weight_decay has no effect on MelodicHParams with optimizer 'adam'.",
    ]
    hparams._warn_once.cache_clear()
    path.write_text('{"spec_type": "mel", "window": 1024}')  # An alias.
    caplog.clear()
    hparams.resolve("MELODIC", str(path), {"spec_type": "cqt"})
    assert not caplog.messages


@pytest.mark.parametrize(
    ("config", "model_type"),
    [("melodic", "MELODIC"), ("onsets_frames", "MELODIC"), ("melodic_compact", "MELODIC"), ("timbre_compact", "TIMBRE")]
    + [("full_compact", "FULL"), ("tiny", "MELODIC")]
    + [(f"autoregressive{kind}", "AUTOREGRESSIVE") for kind in ("", "_compact", "_low_latency", "_tiny")],
)
def test_all_of_a_preset_has_an_effect(config, model_type, caplog):
    hparams._warn_once.cache_clear()
    hparams.resolve(model_type, config)
    assert not caplog.messages


def test_settings_without_effect_do_not_keep_weights_from_being_used():
    stored = hparams.resolve("MELODIC", "melodic_compact")
    checkpoint.require_same_structure(stored, hparams.merge(stored, {"fc_size": 8, "mel_window": 512}), Path("a"))
    with pytest.raises(HParamsError, match="channels"):
        checkpoint.require_same_structure(stored, hparams.merge(stored, {"channels": 8}), Path("a"))
    with pytest.raises(HParamsError, match="architecture"):
        stacks = hparams.merge(stored, {"architecture": "onsets_frames", "spec_type": "cqt"})
        checkpoint.require_same_structure(stored, stacks, Path("a"))
