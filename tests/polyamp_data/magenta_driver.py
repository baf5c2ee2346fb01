"""Runs Magenta's own data code, for `test_magenta.py`: in a process of its own, since it turns TensorFlow 2 off.

  python magenta_driver.py MAESTRO OUTPUT TFRECORDS...

makes data sets of the MAESTRO-like folder in OUTPUT/whole and, cut, OUTPUT/cut with its two Beam pipelines, and writes what its
`data.provide_batch` gives for each file of TFRECORDS to OUTPUT/batch-0.npz and so on. Two things that its environment had are
put in place first: `tf.estimator`, which it imports beside what is used here, and librosa's positional arguments.
"""

import sys
import types

import librosa
import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

tf.estimator = sys.modules["tensorflow.compat.v1.estimator"] = types.ModuleType("estimator")
tf.estimator.tpu = types.SimpleNamespace()
_melspectrogram = librosa.feature.melspectrogram
librosa.feature.melspectrogram = lambda y, sr, **settings: _melspectrogram(y=y, sr=sr, **settings)

from magenta.models.onsets_frames_transcription import configs, create_dataset, data  # noqa: E402


def main(maestro: str, output: str, *tfrecords: str) -> None:
    """See above."""
    flags.FLAGS.remove_flag_values(["output_directory", "pipeline_options"])  # The other pipeline defines them too.
    from magenta.models.onsets_frames_transcription import onsets_frames_transcription_create_tfrecords as create_tfrecords

    arguments = [f"--csv={maestro}/maestro-v3.0.0.csv", f"--wav_dir={maestro}", f"--midi_dir={maestro}"]
    lengths = ("--min_length=2", "--max_length=4")  # Of the second pipeline.
    flags.FLAGS(["create_tfrecords", *arguments, f"--output_directory={output}/whole", *lengths])
    create_tfrecords.main([])
    datasets = [
        configs.DatasetConfig(name, f"{output}/whole/{name}.tfrecord@1", num_mixes=None, process_for_training=name == "train")
        for name in ("train", "validation", "test")
    ]
    flags.FLAGS.output_directory, flags.FLAGS.pipeline_options = f"{output}/cut", "--runner=DirectRunner"
    create_dataset.pipeline(configs.CONFIG_MAP, {"maestro": datasets}, data.preprocess_example, data.input_tensors_to_example)
    for number, path in enumerate(tfrecords):
        _provide_batch(path, f"{output}/batch-{number}.npz")


def _provide_batch(tfrecords: str, output: str) -> None:
    """All examples of a file of TFRecords as one batch with the settings of Onsets and Frames."""
    params = configs.CONFIG_MAP["onsets_frames"].hparams
    params.batch_size = sum(1 for _ in tf.python_io.tf_record_iterator(tfrecords))
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = data.provide_batch(
            tfrecords, True, params, is_training=False, shuffle_examples=False, skip_n_initial_records=0
        )
        features, labels = session.run(tf.data.make_one_shot_iterator(dataset).get_next())
    arrays = {**features._asdict(), **labels._asdict()}
    for name in ("sequence_id", "note_sequence"):
        arrays[name] = np.array([value.hex() for value in arrays[name]])
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
