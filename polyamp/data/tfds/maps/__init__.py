"""MAPS for tensorflow-datasets."""
