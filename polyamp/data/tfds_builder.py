"""What the builders in `polyamp/data/tfds/` share: recordings as data sets of tensorflow-datasets.

Outside that folder, so that `tfds build`, which imports one builder alone, does not import (and register) the others.

The files that tensorflow-datasets prepares are records of the schema in `polyamp.data.records` with some more features:
whatever reads that schema, this package or Magenta, reads them as they are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from polyamp import constants
from polyamp.audio import reading
from polyamp.data import parsing, records, sources, threads
from polyamp.data.recording import Recording
from polyamp.errors import DataError

# As scripts/create_tfrecords.py cuts by default, seconds.
MIN_LENGTH, MAX_LENGTH = 5.0, 20.0

SPLITS = ("train", "validation", "test")

_NOTE_TYPES = {"onset": np.float64, "offset": np.float64, "pitch": np.int32, "velocity": np.int32, "program": np.int32}


class WavAudio(tfds.features.Tensor):
    """Audio that is stored as the bytes of a WAV file and read as float32 [samples] at 16 kHz, in [-1, 1].

    In `_generate_examples` it takes the bytes. `tfds.features.Audio` would decode them with pydub, outside of TensorFlow.
    """

    sample_rate = constants.SAMPLE_RATE

    def __init__(self) -> None:
        super().__init__(shape=(None,), dtype=np.float32, serialized_dtype=tf.string, serialized_shape=())

    def decode_example(self, tfexample_data: tf.Tensor) -> tf.Tensor:
        """The bytes as float32 [samples]."""
        return parsing.decode_audio(tfexample_data)

    def decode_example_np(self, example_data: bytes) -> np.ndarray:
        """As `decode_example`, without TensorFlow."""
        return reading.decode_wav(example_data)

    @classmethod
    def from_json_content(cls, value: Any) -> "WavAudio":
        """The feature again; there is nothing to configure."""
        return cls()

    def to_json_content(self) -> dict[str, Any]:
        """Nothing: see `from_json_content`."""
        return {}


def features() -> tfds.features.FeaturesDict:
    """What an example holds.

    "id"; "audio" float32 [samples] at 16 kHz; "notes", arrays of one length: "onset" and "offset" float64, seconds, the sustain
    pedal applied, beyond the ends of the audio where a segment's borders cut the note, "pitch", "velocity" and "program" int32;
    and as Magenta's records have it, "sequence", a serialized NoteSequence with the same notes cut at the borders,
    "velocity_range", a serialized VelocityRange of the whole recording, with "seconds_before" and "seconds_after" (see
    `polyamp.data.records`).
    """
    # Only as bytes are float64 kept: as numbers they would become float32.
    notes = {
        name: tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes" if dtype == np.float64 else "none")
        for name, dtype in _NOTE_TYPES.items()
    }
    cut = {name: tfds.features.Tensor(shape=(None,), dtype=np.float32) for name in ("seconds_before", "seconds_after")}
    serialized = {name: tfds.features.Scalar(tf.string) for name in ("sequence", "velocity_range")}
    return tfds.features.FeaturesDict({"id": tfds.features.Text(), "audio": WavAudio(), "notes": notes, **serialized, **cut})


class RecordingsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set of recordings, found by `polyamp.data.sources` in the manual directory, or downloaded.

    Attributes:
        DATASET: Its name among `sources.DATASETS`.
        FOLDERS: Globs of the folder in the manual directory that holds it, as distributed; else it is the directory itself.
        MARKERS: Globs of files that a folder with the data set has.
        URL: Where to download it if the manual directory does not have it; None if that is not possible.
        HOMEPAGE: Of the data set.
        LICENSE: Of the data set.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="segments",
            description=f"Segments of {MIN_LENGTH:g} to {MAX_LENGTH:g} s, cut at silences where there are any; test is whole.",
        ),
        tfds.core.BuilderConfig(name="full", description="Whole recordings."),
    ]

    DATASET: ClassVar[str]
    FOLDERS: ClassVar[tuple[str, ...]]
    MARKERS: ClassVar[tuple[str, ...]]
    URL: ClassVar[str | None] = None
    HOMEPAGE: ClassVar[str]
    LICENSE: ClassVar[str]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=features(), homepage=self.HOMEPAGE, license=self.LICENSE)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        recordings = sources.find(self.DATASET, self._folder(dl_manager))
        splits = {split: [one for one in recordings if one.split == split] for split in SPLITS}
        return {split: self._generate_examples(split, found) for split, found in splits.items() if found}

    def _folder(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """The data set's own folder; `DataError` if it is neither there nor can be downloaded."""
        try:
            manual = dl_manager.manual_dir
        except AssertionError as error:  # There is no such directory.
            if self.URL is None:
                raise DataError(" ".join(str(error).split())) from error
        else:
            found = self._find_in(Path(manual))
            if found:
                return found
            if self.URL is None:
                wanted = " ".join(self.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
                raise DataError(f"{manual}: has no {' or '.join(self.MARKERS)}. {wanted}")
        extracted = Path(dl_manager.download_and_extract(self.URL))
        found = self._find_in(extracted)
        if not found:
            raise DataError(f"{extracted}: what {self.URL} unpacked to has no {' or '.join(self.MARKERS)}.")
        return found

    def _find_in(self, directory: Path) -> Path | None:
        """The last of the folders that hold the data set, since the names end in a version; None where there is none."""
        named = sorted(path for pattern in self.FOLDERS for path in directory.glob(pattern) if path.is_dir())
        for folder in (*reversed(named), directory):
            if any(next(folder.glob(marker), None) for marker in self.MARKERS):
                return folder
        return None

    def _generate_examples(self, split: str, recordings: Sequence[Recording]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and features of every example of a split."""
        whole = self.builder_config.name == "full" or split == "test"
        lengths = (0.0, 0.0) if whole else (MIN_LENGTH, MAX_LENGTH)
        for found in threads.ahead(lambda recording: _converted(recording, *lengths), recordings):
            yield from found


def _converted(recording: Recording, min_length: float, max_length: float) -> list[tuple[str, dict[str, Any]]]:
    """Key and features of the examples of a recording."""
    examples = sources.examples(recording, min_length, max_length)
    return [(example.id, _features_of(records.serialize(example))) for example in examples]


def _features_of(serialized: bytes) -> dict[str, Any]:
    """What a record has, and what parsing it gives, so that both are the same here and there."""
    feature = tf.train.Example.FromString(serialized).features.feature
    texts = {name: feature[name].bytes_list.value[0] for name in ("id", "audio", "sequence", "velocity_range")}
    cut = {name: np.array(feature[name].float_list.value, np.float32) for name in ("seconds_before", "seconds_after")}
    parsed = parsing.parse(tf.constant(serialized))
    return {**texts, **cut, "notes": {name: parsed[name].numpy() for name in _NOTE_TYPES}}
