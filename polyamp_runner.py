"""Trains, evaluates and runs PolyAMP's transcription models.

python polyamp_runner.py recording.flac
python polyamp_runner.py --mode=predict --model_type=FULL --audio_filename='band/*.mp3' --output_dir=midi
python polyamp_runner.py --mode=train   --model_type=MELODIC --examples_path=train.tfrecord-* --model_dir=models
python polyamp_runner.py --mode=eval    --model_type=MELODIC --examples_path=test.tfrecord-*  --model_dir=models
"""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging

from polyamp import constants, hparams, naming, startup
from polyamp.errors import PolyampError
from polyamp.overrides import parse_overrides

# TensorFlow, Keras and the audio libraries take seconds to import: they are, where a mode begins. --help and mistakes in flags
# answer at once.

_LOG_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PATH_ENDINGS = ("_path", "_dir", "_filename", "config")

# The flags that not all modes use. Setting one in another mode is said, but no error: one set of flags may serve all three.
_MODE_FLAGS = {
    "train": (
        *("cache_dir", "checkpoint_interval", "dataset_type", "examples_path", "keep_checkpoint_max", "nsynth_examples_path"),
        *("num_steps", "seed", "strategy", "teacher_id", "validation_examples_path"),
    ),
    "eval": ("dataset_type", "eval_name", "eval_num_steps", "examples_path", "output_dir", "save_path"),
    "predict": ("audio_filename", "beats", "output_dir", "qpm", "transcribed_file_suffix"),
}


def _define_flags() -> flags.FlagValues:
    """Fresh flags; not absl's global ones, to which libraries add theirs."""
    values = flags.FlagValues()
    string, enum = functools.partial(_string, values), functools.partial(flags.DEFINE_enum, flag_values=values)
    enum("mode", "train", ["train", "eval", "predict"], "What to do.")
    enum("model_type", "MELODIC", constants.MODEL_TYPES, "Which model.")
    string("model_dir", "Folder of checkpoints (default: train: ./runs; eval and predict: the weights in the package).")
    string("model_id", "Name of a training, whose files are in <model_dir>/<model_type>/<model_id> (default: a fresh one).")
    text = "Weights to start from or to use: an id, or ID/best; * is the most recent that fits; empty for none, in training."
    string("load_id", text, "*")
    text = "Load from a checkpoint of the Full model; False: FULL from Melodic and Timbre ones (default: only FULL does)."
    flags.DEFINE_bool("load_full", None, text, flag_values=values)
    text = 'Hyperparameters as JSON, on top of --config: --hparams={"predict_frame_threshold":0.4}'
    flags.DEFINE_multi_string("hparams", [], text, flag_values=values)
    string("config", "Preset of hyperparameters: a name from configs/ or a JSON file.")
    string("examples_path", "TFRecords to train on or to evaluate: files, globs and names like tfds:maps:test.")
    enum("log", "info", list(_LOG_LEVELS), "Least severe messages to show on stderr; debug also shows TensorFlow's own.")
    _define_training_flags(values)
    _define_answer_flags(values)
    return values


def _string(values: flags.FlagValues, name: str, text: str, default: str | None = None) -> None:
    flags.DEFINE_string(name, default, text, flag_values=values)


def _define_training_flags(values: flags.FlagValues) -> None:
    string, enum = functools.partial(_string, values), functools.partial(flags.DEFINE_enum, flag_values=values)
    count = functools.partial(flags.DEFINE_integer, lower_bound=1, flag_values=values)
    string("nsynth_examples_path", "TFRecords of single notes as NSynth has them, or tfds:nsynth/full, mixed into others.")
    enum("dataset_type", None, ["nsynth", "slakh"], "What --examples_path holds for TIMBRE: single notes, or recordings.")
    string("validation_examples_path", "TFRecords to validate on while training; the best checkpoint is kept as well.")
    text = "Training steps in all, those before a resumption included; each a batch of batch_size on every device."
    count("num_steps", 100_000, text)
    flags.DEFINE_alias("iterations", "num_steps", flag_values=values)
    count("checkpoint_interval", 1_000, "Training steps between checkpoints.")
    count("keep_checkpoint_max", 3, "How many checkpoints of a training are kept, besides the best.")
    string("cache_dir", "Folder where the features of the training audio are kept once computed; for training on a CPU.")
    string(
        "teacher_id",
        "Melodic models, comma-separated, whose mean answer is part of the labels; for small networks; with --cache_dir.",
    )
    text = "Start of all random numbers of a training."
    flags.DEFINE_integer("seed", 0, text, lower_bound=0, upper_bound=2**32 - 1, flag_values=values)
    text = "Devices to train on: one; mirrored: all of this machine; multi_worker: of all machines that TF_CONFIG names."
    enum("strategy", "none", ["none", "mirrored", "multi_worker"], text)


def _define_answer_flags(values: flags.FlagValues) -> None:
    string = functools.partial(_string, values)
    count = functools.partial(flags.DEFINE_integer, lower_bound=1, flag_values=values)
    count("eval_num_steps", None, "How many examples to evaluate (default: all).")
    string("eval_name", "Name of the files with the scores (AUTOREGRESSIVE: the variant).", "eval")
    string("save_path", "Folder for each evaluated example's predicted MIDI and a picture of its piano rolls.")
    flags.DEFINE_alias("save-path", "save_path", flag_values=values)
    string("audio_filename", "Recordings to transcribe: files and globs, comma-separated.")
    string("output_dir", "Folder for MIDI files (default: beside the audio) or for scores (default: the model's, or ./eval).")
    string("transcribed_file_suffix", "Comes between the recording's name and .mid (of TIMBRE .json).", "-polyamp")
    tempo = functools.partial(flags.DEFINE_float, lower_bound=4, upper_bound=4000, flag_values=values)
    tempo("qpm", constants.DEFAULT_QPM, "Tempo that the MIDI files state.")
    flags.DEFINE_bool("beats", False, "Find the beats, and let the tempo of the MIDI files follow them.", flag_values=values)


def _parse(argv: Sequence[str]) -> flags.FlagValues:
    """The flags of a command line; `PolyampError` for anything in it that is not understood.

    Words that are no flags are recordings to transcribe, as --audio_filename has them, if they are there.
    """
    values = _define_flags()
    _, *words = startup.parse_flags(argv, values, words=True)
    for name in filter(lambda name: name.endswith(_PATH_ENDINGS), values):
        given = values[name].value  # A shell leaves ~ alone where it follows an equals sign.
        if given == "":
            raise PolyampError(f"--{name}= is empty; leave it out, or give a value.")
        values[name].value = given and ",".join(os.path.expanduser(part) for part in given.split(","))
    if words:
        # With the others they come from a glob without quotes.
        if values.mode != "predict" and values["mode"].present or values.audio_filename or values.examples_path:
            startup.refuse(words)
        startup.refuse([word for word in words if not os.path.lexists(word)], " or a file that is there")
        values["mode"].value = "predict"
        values["audio_filename"].value = words
    return values


def _help() -> str:
    """The module's text and every flag, without absl's own."""
    text = _define_flags().get_help().partition("\nabsl.flags:")[0]
    return f"{__doc__}\nFlags:\n" + text.partition(":\n")[2]


def _start_logging(level: str) -> None:
    """Sets up the logs of this program and of TensorFlow's C++ side, which must be done before its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if level == "debug" else "3")
    flags.FLAGS.mark_as_parsed()  # absl's logging looks at the global flags.
    logging.use_absl_handler()
    logging.set_verbosity(_LOG_LEVELS[level])


def _need(values: flags.FlagValues, name: str) -> None:
    """`PolyampError` unless the flag was given, with the likely reasons."""
    if values[name].value:
        return
    hint = "If the command has several lines, each but the last must end with a backslash."
    if values.audio_filename:
        hint = "To transcribe the file of --audio_filename, say --mode=predict."
    raise PolyampError(f"--mode={values.mode} needs --{name}. {hint}")


def _train(values: flags.FlagValues, overrides: dict[str, Any]) -> int:
    _need(values, "examples_path")
    if values.strategy == "multi_worker" and not values.model_id:
        raise PolyampError("--strategy=multi_worker needs --model_id, the same for all workers.")
    settings = hparams.resolve(values.model_type, values.config, overrides)
    model_id = values.model_id or naming.fresh_model_id(values.model_type)
    startup.say(f"model id: {model_id}")
    startup.start_keras()
    from polyamp import train

    path = train.train(
        model_type=values.model_type,
        hparams=settings,
        examples_path=values.examples_path,
        model_dir=values.model_dir or "runs",
        model_id=model_id,
        load_id=values.load_id,
        load_full=values.load_full,
        nsynth_examples_path=values.nsynth_examples_path,
        dataset_type=values.dataset_type,
        num_steps=values.num_steps,
        checkpoint_interval=values.checkpoint_interval,
        keep_checkpoint_max=values.keep_checkpoint_max,
        validation_examples_path=values.validation_examples_path,
        cache_dir=values.cache_dir,
        teacher_id=values.teacher_id,
        seed=values.seed,
        strategy=values.strategy,
    )
    startup.say(f"trained: {path}")
    return 0


def _run_time_overrides(values: flags.FlagValues, overrides: dict[str, Any]) -> dict[str, Any]:
    """What the command line changes of a checkpoint's own settings, with names, types and ranges checked."""
    hparams.checked(values.model_type, values.config, overrides)
    preset = hparams.read_json(hparams.preset_path(values.config)) if values.config else {}
    return {hparams.ALIASES.get(name, name): value for name, value in [*preset.items(), *overrides.items()]}


def _eval(values: flags.FlagValues, overrides: dict[str, Any]) -> int:
    _need(values, "examples_path")
    if values.dataset_type and values.model_type != "TIMBRE":
        raise PolyampError("--dataset_type is for TIMBRE only; leave it out.")
    overrides = _run_time_overrides(values, overrides)
    startup.start_keras()
    from polyamp import checkpoint, evaluate
    from polyamp.data import nsynth_mixes, records

    if values.dataset_type == "nsynth":
        examples = nsynth_mixes.single_notes(values.examples_path)
    else:
        examples = records.read(records.expand_paths(values.examples_path), on_error="raise")
    loaded = checkpoint.load_model(
        values.model_type, values.model_dir, values.load_id, values.model_id, values.load_full, overrides
    )
    path = Path(loaded.path)
    own_folder = path.parent if values.model_dir and not values.output_dir else None
    eval_name, suffix = values.eval_name, "" if own_folder else f"-{path.parent.name}"
    if isinstance(loaded.hparams, hparams.AutoregressiveHParams):  # Named after the variant, as in the published code.
        suffix = f"-{path.parent.name}"
        eval_name = eval_name if values["eval_name"].present else loaded.hparams.variant
    if path.parent.parent.name != values.model_type:  # A part of a Full model, whose own scores are in the same folder.
        suffix += f"-{values.model_type.lower()}"
    if loaded.timbre_path:  # Of several that may be joined with the Melodic model in whose folder the scores are.
        suffix += f"-{loaded.timbre_path.parent.name}"
    result = evaluate.evaluate(
        loaded,
        loaded.hparams,
        examples,
        output_dir=values.output_dir or own_folder or "eval",
        eval_name=eval_name,
        num_steps=values.eval_num_steps,
        save_path=values.save_path,
        suffix=suffix,
    )
    startup.say(f"{result['table']}\n\nwritten: {result['json']}, {result['csv']}")
    return 0


def _predict(values: flags.FlagValues, overrides: dict[str, Any]) -> int:
    _need(values, "audio_filename")
    if values.beats and values["qpm"].present:
        raise PolyampError("--beats and --qpm are two tempos; leave one of them out.")
    if values.model_type == "TIMBRE":
        for name in ("beats", "qpm"):
            if values[name].present:
                logging.warning("--%s has no effect with --model_type=TIMBRE, which writes no MIDI file.", name)
    overrides = _run_time_overrides(values, overrides)
    startup.limit_blas_threads()
    from polyamp import predict

    summary = predict.predict(
        values.model_type,
        values.audio_filename,
        model_dir=values.model_dir,
        load_id=values.load_id,
        model_id=values.model_id,
        load_full=values.load_full,
        overrides=overrides,
        output_dir=values.output_dir,
        transcribed_file_suffix=values.transcribed_file_suffix,
        qpm=values.qpm,
        on_beats=values.beats,
        report=_report,
    )
    for message in summary.failures:
        _complain(message)
    number, total = len(summary.failures), len(summary.failures) + len(summary.written)
    if number and total > 1:
        _complain(f"{number} of {total} recordings were not transcribed.")
    return 1 if number else 0


def _report(done: Any) -> None:
    """Prints what became of a recording, a `predict.Transcript`."""
    startup.say(f"{done.audio} -> {done.output} ({done.num_notes} notes)")
    if done.families is not None:
        for family, probability in done.families.items():
            if probability >= 5e-4:
                startup.say(f"  {family:<12}{probability:7.1%}")


def _complain(message: object) -> None:
    print("polyamp: error: " + " ".join(str(message).split()), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, `sys.argv` by default, and returns the exit status."""
    argv = sys.argv if argv is None else argv
    startup.open_streams()
    try:
        if any(argument in startup.HELP_FLAGS for argument in argv[1:]):
            startup.say(_help())
            return 0
        values = _parse(argv)
        _start_logging(values.log)
        if values.model_id:
            naming.check_model_id(values.model_id)
        for name in sorted({*sum(_MODE_FLAGS.values(), ())} - {*_MODE_FLAGS[values.mode]}):
            if values[name].value != values[name].default:
                logging.warning("--%s has no effect with --mode=%s.", name, values.mode)
        run = {"train": _train, "eval": _eval, "predict": _predict}[values.mode]
        return run(values, parse_overrides(values.hparams))
    except PolyampError as error:
        _complain(error)
        return 1
    except KeyboardInterrupt as interrupt:
        _complain(str(interrupt) or "interrupted.")
        return 130


def command() -> NoReturn:
    """What the installed command `polyamp` runs."""
    startup.interrupt_on_signals()
    startup.leave(main())


if __name__ == "__main__":
    command()
