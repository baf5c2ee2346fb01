#!/bin/sh
# Installs what tests need of Magenta, as an independent oracle, into the current Python environment.
#
# magenta 2.1.4 pins numpy 1.21.6, numba 0.49 and TensorFlow 2.9.1, which no Python above 3.8 can install; without its pins, its
# onsets_frames_transcription.{constants,melspec_input,audio_label_data_utils,infer_util,metrics,data} work with the TensorFlow
# that this project uses, and with apache-beam, which the tests bring, its pipelines, create_dataset and
# onsets_frames_transcription_create_tfrecords.
#
#   PYTHON=python3.12 scripts/install_magenta.sh      (PYTHON: the interpreter to install for, python by default)
set -eu

PYTHON="${PYTHON:-python}"

# tf_keras has the version of the TensorFlow that it belongs to, and would replace any other.
tensorflow=$("$PYTHON" -c 'import importlib.metadata as m
names = ("tensorflow", "tensorflow-cpu")
found = [d.version for n in names for d in m.distributions(name=n)]
print(".".join(found[0].split(".")[:2]) if found else "")')
if [ -z "$tensorflow" ]; then
  echo "error: no TensorFlow in this environment; install this project first: pip install -e ." >&2
  exit 1
fi

"$PYTHON" -m pip install --no-deps magenta==2.1.4 sox "tf_keras==$tensorflow.*"
"$PYTHON" -m pip install tf-slim dm-sonnet tensorflow-probability
"$PYTHON" -c 'from magenta.models.onsets_frames_transcription import audio_label_data_utils, data, infer_util, melspec_input'
