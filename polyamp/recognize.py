"""Which instrument families play in a recording, with a Timbre model: for single notes, solos and bands.

A Timbre model tells the families of notes that it is given. The notes come from the Melodic model in the package.
"""

import dataclasses
from typing import Any

from polyamp import checkpoint, constants, notes
from polyamp.audio.reading import Blocks
from polyamp.hparams import TimbreHParams
from polyamp.notes import instruments
from polyamp.transcribe import Model, as_heard, predict_families, rolls_of


def recognize(model: Model, melodic: checkpoint.Loaded, blocks: Blocks, hparams: TimbreHParams) -> dict[str, Any]:
    """The families of a recording and of each of its notes.

    Args:
        model: A Timbre model.
        melodic: The Melodic model that finds the notes.
        blocks: Gives the audio, 16 kHz mono float32, in blocks of any length; called several times.
        hparams: The Timbre model's.

    Returns:
        "family", the likeliest; "probabilities" by family, the most probable first, that a note of the recording is of it (the
        mean over all notes, in the light of the piece: see `instruments.choose_families`); "notes", a list of dicts of "onset"
        and "offset" in seconds, MIDI "pitch", "velocity", "family" and its "probability".
        Without notes "family" is None and the others are empty.
    """
    heard, stretch = as_heard(blocks, hparams)
    # Whatever plays, and it may be no piano.
    as_they_sound = dataclasses.replace(melodic.hparams, predict_ends="", predict_strikes="")
    found = notes.from_rolls(rolls_of(melodic.model, heard, melodic.hparams), as_they_sound)
    if not len(found):
        return {"family": None, "probabilities": {}, "notes": []}
    posteriors = instruments.choose_families(predict_families(model, heard, found, hparams), found, hparams)
    found = notes.stretched(found, 1 / stretch)
    mean = posteriors.mean(axis=0)
    order = mean.argsort(kind="stable")[::-1]
    listed = [
        {**note, "family": constants.FAMILIES[posterior.argmax()], "probability": round(float(posterior.max()), 4)}
        for note, posterior in zip(notes.listed(found), posteriors, strict=True)
    ]
    probabilities = {constants.FAMILIES[family]: round(float(mean[family]), 4) for family in order}
    return {"family": constants.FAMILIES[order[0]], "probabilities": probabilities, "notes": listed}
