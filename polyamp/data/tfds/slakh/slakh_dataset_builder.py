"""Slakh: synthesized mixes of several instruments with their notes. Manilow et al. 2019."""

from polyamp.data import tfds_builder


class Builder(tfds_builder.RecordingsBuilder):
    """The mixes of Slakh with the notes of all stems but the drums; Slakh2100-redux where it is downloaded."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: unpack Slakh2100 (https://zenodo.org/records/4599666) into <manual_dir>/slakh2100_flac_redux or BabySlakh
    (https://zenodo.org/records/4603870) into <manual_dir>/babyslakh_16k. If neither is there, Slakh2100-redux is downloaded:
    104 GB.
    """

    DATASET = "slakh"
    FOLDERS = ("babyslakh*", "slakh2100*")
    MARKERS = ("**/metadata.yaml",)
    URL = "https://zenodo.org/records/4599666/files/slakh2100_flac_redux.tar.gz"
    HOMEPAGE = "http://www.slakh.com"
    LICENSE = "CC BY 4.0"
