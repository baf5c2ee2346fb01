"""MAESTRO for tensorflow-datasets."""
