"""MAESTRO: recordings of piano performances with their notes. Hawthorne et al. 2019."""

from polyamp.data import tfds_builder


class Builder(tfds_builder.RecordingsBuilder):
    """MAESTRO, with its own splits; v3.0.0 where it is downloaded."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: unpack MAESTRO (v1 to v3, https://magenta.tensorflow.org/datasets/maestro) into <manual_dir>/maestro-v3.0.0, or
    what scripts/prepare_maestro.sh made of it. If it is not there, v3.0.0 is downloaded: 101 GB, 120 GB unpacked.
    """

    DATASET = "maestro"
    FOLDERS = ("maestro-v*",)
    MARKERS = ("maestro*.csv", "maestro*.json")
    URL = "https://storage.googleapis.com/magentadata/datasets/maestro/v3.0.0/maestro-v3.0.0.zip"
    HOMEPAGE = "https://magenta.tensorflow.org/datasets/maestro"
    LICENSE = "CC BY-NC-SA 4.0"
