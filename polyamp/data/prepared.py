"""Data sets that tensorflow-datasets has prepared, where a path of TFRecords is asked for: `tfds:maps/segments:validation`.

After the prefix come the data set's name, with its config if it has several, and the split, "train" if none is given; they are
looked for where tensorflow-datasets keeps them (TFDS_DATA_DIR).
"""

from typing import Any

from polyamp.errors import DataError

PREFIX = "tfds:"


def dataset(path: str) -> Any:
    """The shuffled `tf.data.Dataset` that a path such as `tfds:nsynth/full:valid` names; `DataError` if there is none."""
    builder, split = _builder(path)
    try:
        return builder.as_dataset(split=split, shuffle_files=True)
    except Exception as error:  # tensorflow-datasets raises whatever comes up.
        raise _unreadable(path, error) from error


def files(path: str) -> list[str]:
    """The TFRecord files of a split, whose records are the examples as the data set's builder stored them.

    Raises:
        DataError: There is no such data set or split, or it is stored in another format.
    """
    builder, split = _builder(path)
    try:
        paths = [str(file) for file in builder.info.splits[split].filepaths]
    except Exception as error:
        raise _unreadable(path, error) from error
    if builder.info.file_format.file_suffix != "tfrecord":
        raise DataError(f"{path}: is stored as {builder.info.file_format.file_suffix}; prepare it as tfrecord.")
    return paths


def _builder(path: str) -> tuple[Any, str]:
    """The builder that a path names, and the split."""
    import tensorflow_datasets as tfds  # Only for such paths.

    name, _, split = path.removeprefix(PREFIX).partition(":")
    try:
        return tfds.builder(name), split or "train"
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{path}: tensorflow-datasets cannot read it ({reason}); prepare it with `tfds build`.")
