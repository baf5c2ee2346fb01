"""Slakh for tensorflow-datasets."""
