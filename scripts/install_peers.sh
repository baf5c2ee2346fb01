#!/bin/sh
# Installs other transcribers for scripts/benchmark_peers.py, each into a virtual environment of its own, because their
# requirements do not go together.
#
#   bash scripts/install_peers.sh [FOLDER] [PEER ...]      (default: peers, basic_pitch; also known: transkun)
set -eu

folder="${1:-peers}"
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- basic_pitch
PYTHON="${PYTHON:-python3}"

for peer in "$@"; do
  case "$peer" in
    basic_pitch | transkun) ;;
    *)
      echo "error: $peer is not known; there are basic_pitch and transkun." >&2
      exit 1
      ;;
  esac
done

pip_install() { "$folder/$peer/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

for peer in "$@"; do
  "$PYTHON" -m venv "$folder/$peer"
  case "$peer" in
    basic_pitch)
      # Its requirements pin versions that Python 3.12 cannot install; without them it runs. resampy needs pkg_resources, which
      # setuptools 80 takes away.
      pip_install --no-deps basic-pitch
      pip_install onnxruntime librosa mir_eval pretty_midi resampy scikit-learn "setuptools<80"
      ;;
    transkun)
      # With PyTorch, some 5 GB. torchaudio's last version, 2.11, loads beside the PyTorch of its number only; Transkun also needs
      # pkg_resources, which setuptools 80 takes away.
      pip_install transkun "torch==2.11.*" "torchaudio==2.11.*" "setuptools<80"
      ;;
  esac
  echo "$folder/$peer"
done
