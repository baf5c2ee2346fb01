#!/usr/bin/env bash
# Prepares MAESTRO: 16 kHz mono FLAC, in a sixth of the space, and TFRecords. May be interrupted and run again at any time.
#
#   scripts/prepare_maestro.sh                                   # downloads MAESTRO v3.0.0 (101 GB) to ./maestro first
#   scripts/prepare_maestro.sh --source=maestro-v3.0.0.zip       # from a zip file, without unpacking it
#   scripts/prepare_maestro.sh --source=maestro-v3.0.0 --output=data/maestro --jobs=8
#
#   --source=ZIP_OR_FOLDER   MAESTRO as distributed, any version (default: download it)
#   --output=FOLDER          where everything goes (default: maestro): flac/, tfrecords/, and the download
#   --jobs=N                 recordings at a time (default: all cores)
#   --no-tfrecords           only the FLAC files
#
# Needs ffmpeg and python3 with PolyAMP installed (for the TFRecords). MAESTRO is CC BY-NC-SA 4.0 (Hawthorne et al. 2019).
set -euo pipefail

url=https://storage.googleapis.com/magentadata/datasets/maestro/v3.0.0/maestro-v3.0.0.zip
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source="" output=maestro tfrecords=1
jobs=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

fail() {
  echo "error: $*" >&2
  exit 1
}

for argument in "$@"; do
  case $argument in
    --source=*) source=${argument#*=} ;;
    --output=*) output=${argument#*=} ;;
    --jobs=*) jobs=${argument#*=} ;;
    --no-tfrecords) tfrecords=0 ;;
    -h | --help)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "$argument: unknown; --help lists what there is." ;;
  esac
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "--jobs=$jobs: must be a number from 1 on."
command -v ffmpeg >/dev/null || fail "ffmpeg is not installed; get it from your system's packages or ffmpeg.org."
command -v python3 >/dev/null || fail "python3 is not installed."
if [[ -n $source && ! -e $source ]]; then fail "$source: no such file or folder."; fi
mkdir -p "$output/flac" || fail "$output: cannot be made; choose another --output."

if [[ -z $source ]]; then
  source=$output/maestro-v3.0.0.zip
  if [[ ! -f $source ]]; then
    command -v curl >/dev/null || fail "curl is not installed; download $url yourself and give it as --source."
    echo "Downloading $url (resumed if it was begun)"
    curl --fail --location --continue-at - --output "$source.part" "$url" ||
      fail "the download did not end; run this again to go on, or download $url yourself and give it as --source."
    mv "$source.part" "$source"
  fi
fi

# One line per file of the source, relative to the data set's own folder.
list() {
  python3 - "$source" <<'PYTHON'
import sys, zipfile
from pathlib import Path

source = Path(sys.argv[1])
try:
    names = [n for n in zipfile.ZipFile(source).namelist() if not n.endswith("/")] if source.is_file() else [
        p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()
    ]
except zipfile.BadZipFile:
    sys.exit(f"error: {source}: is no complete zip file; download it again.")
wanted = (".wav", ".flac", ".mp3", ".midi", ".mid", ".csv", ".json", "LICENSE", "README")
print("\n".join(sorted(n for n in names if n.endswith(wanted) and "/." not in "/" + n)))
PYTHON
}

# Writes one file of the source to stdout.
member() {
  if [[ -d $source ]]; then
    cat "$source/$1"
  else
    python3 -c 'import shutil, sys, zipfile; shutil.copyfileobj(zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]), sys.stdout.buffer, 1 << 20)' "$source" "$1"
  fi
}

# The name of a file below $output/flac: without the folder that the zip file has around everything.
target() {
  local name=$1
  [[ -d $source ]] || name=${name#maestro-v*/}
  case $name in
    *.wav | *.flac | *.mp3) echo "$output/flac/${name%.*}.flac" ;;
    *) echo "$output/flac/$name" ;;
  esac
}

# Converts or copies one file, unless that has been done; under another name until it is complete.
convert() {
  local to
  to=$(target "$1")
  if [[ ! -f $to ]]; then
    mkdir -p "$(dirname "$to")"
    temporary=$(dirname "$to")/.$$.$(basename "$to")
    trap 'rm -f "${temporary:-}"' EXIT
    case $to in
      *.flac)
        member "$1" | ffmpeg -nostdin -v error -y -i pipe:0 -map 0:a:0 -ac 1 -ar 16000 -sample_fmt s16 -f flac "$temporary" ||
          fail "$1: could not be converted."
        [[ -s $temporary ]] || fail "$1: holds no sound."
        ;;
      *) member "$1" >"$temporary" || fail "$1: could not be read." ;;
    esac
    mv "$temporary" "$to"
  fi
  echo "$1"
}
export -f member target convert fail
export source output

names=$(list)
total=$(grep -c . <<<"$names" || true)
recordings=$(grep -c -E '\.(wav|flac|mp3)$' <<<"$names" || true)
((recordings > 0)) || fail "$source: no recordings in it."
find "$output/flac" -type f -name '.[0-9]*' -delete # Of a run that was killed.
echo "$recordings recordings in $source, $jobs at a time"
done=0
status=$(mktemp)
trap 'rm -f "$status"' EXIT
while IFS= read -r _; do
  done=$((done + 1))
  printf '\r%d of %d files' "$done" "$total" >&2
done < <(tr '\n' '\0' <<<"$names" | xargs -0 -n 1 -P "$jobs" bash -c 'set -euo pipefail; [[ -z $1 ]] || convert "$1"' _ || echo failed >"$status")
echo >&2
[[ ! -s $status ]] || fail "$((total - done)) of $total files are missing; run this again to try them once more."

if ((tfrecords)); then
  python3 "$here/create_tfrecords.py" --dataset=maestro --input_dir="$output/flac" --output_dir="$output/tfrecords"
  echo "Ready: $output/tfrecords/train.tfrecord-* and so on"
else
  echo "Ready: $output/flac"
fi
