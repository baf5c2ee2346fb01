"""Pictures of transcriptions."""

import os

import numpy as np

from polyamp import atomic, constants
from polyamp.notes import Notes

_INCHES_PER_SECOND = 0.35
_WIDTH_LIMITS = (8.0, 60.0)  # Inches.


def save_piano_rolls(reference: Notes, estimate: Notes, path: str | os.PathLike, title: str = "") -> None:
    """Saves a picture of two piano rolls on one time axis, the reference above the prediction; louder notes are darker.

    Args:
        reference: Reference notes.
        estimate: Predicted notes.
        path: Picture to write; the extension chooses the format.
        title: Text above the picture.

    Raises:
        PolyampError: The file cannot be written.
    """
    # matplotlib takes long to import and only evaluation draws. Without pyplot no window system is asked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [part for part in (reference, estimate) if len(part)]
    seconds = max((float(part.offset.max()) for part in parts), default=1.0)
    pitches = np.concatenate([part.pitch for part in parts]) if parts else np.array([60])
    figure = Figure(figsize=(float(np.clip(seconds * _INCHES_PER_SECOND, *_WIDTH_LIMITS)), 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for axis, notes, name in zip(axes, (reference, estimate), ("reference", "prediction"), strict=True):
        _draw(axis, notes)
        axis.set_ylabel(f"{name}\nMIDI pitch")
        axis.grid(alpha=0.3)
    axes[0].set(xlim=(0, seconds), ylim=(pitches.min() - 1, pitches.max() + 1), title=title)
    axes[1].set_xlabel("seconds")
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=80)


def _draw(axis, notes: Notes) -> None:
    """Adds one bar per note."""
    from matplotlib.collections import PolyCollection

    left, right = notes.onset, np.maximum(notes.offset, notes.onset + 0.01)
    low, high = notes.pitch - 0.4, notes.pitch + 0.4
    corners = np.stack([np.stack([left, left, right, right], 1), np.stack([low, high, high, low], 1)], axis=2)
    colours = np.tile([0.10, 0.25, 0.55, 1.0], (len(notes), 1))
    colours[:, 3] = 0.35 + 0.65 * notes.velocity / constants.MAX_MIDI_VELOCITY
    axis.add_collection(PolyCollection(list(corners), facecolors=colours, edgecolors="none"))


def save_confusion(confusion: np.ndarray, path: str | os.PathLike, title: str = "") -> None:
    """Saves a picture of which families were taken for which, as shares of each true family's notes.

    Args:
        confusion: `[12, 12]` counts, true families in rows.
        path: Picture to write; the extension chooses the format.
        title: Text above the picture.

    Raises:
        PolyampError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    names = range(len(constants.FAMILIES))
    axis.set_xticks(names, constants.FAMILIES, rotation=60)
    axis.set_yticks(names, [f"{name} ({count})" for name, count in zip(constants.FAMILIES, confusion.sum(axis=1), strict=True)])
    axis.set(xlabel="answered", ylabel="true (notes)", title=title)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, f"{share[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=80)
