"""Data sets for tensorflow-datasets: importing this package makes `tfds.load("maps")`, "maestro" and "slakh" known.

Named after the library as its users write it; the library itself is `tensorflow_datasets`.
"""

from polyamp.data.tfds.maestro import maestro_dataset_builder
from polyamp.data.tfds.maps import maps_dataset_builder
from polyamp.data.tfds.slakh import slakh_dataset_builder

__all__ = ["maestro_dataset_builder", "maps_dataset_builder", "slakh_dataset_builder"]
