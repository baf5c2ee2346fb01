"""Learns from recordings what `polyamp.audio.balance` knows: how music is balanced, how it varies, and how its colour does.

    python scripts/fit_balance.py --audio='maps/train/*.ogg' --output=polyamp/audio/balance_pianos.npz

Of the mean spectra of minutes of music, what differs between those of one instrument is taken for music, and what its mean
differs from that of the others, or from itself in a random room (`polyamp.audio.rooms`), for colour. Written are the mean of
the instruments' means ("usual") and the covariances of both ("music", "colour"). The instrument is the last word of a file's
name, after "_"; for bands, what rendered them.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Runs from a checkout that is not installed, too.
from polyamp import startup  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

_AUDIO = flags.DEFINE_string("audio", None, "Recordings of several instruments: files and globs.", required=True)
_HOLD_OUT = flags.DEFINE_list("hold_out", [], "Pieces to leave out, comma-separated, named as for create_tfrecords.py.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .npz.", required=True)
_ROOMS = flags.DEFINE_integer("rooms", 2, "In how many random rooms each recording is heard.", lower_bound=1)

_SECONDS = 60.0  # Of a stretch.
_LEAST_SECONDS = 25.0  # What is left at the end counts if it is as long.
_NOISE_DB = 0.3  # Of each band's measurement; keeps the covariances invertible.


def main(argv: Sequence[str]) -> int:
    """Writes the file; 1 with one line on stderr for bad input."""
    return startup.run_script(argv, _fit)


def _fit() -> None:
    import numpy as np
    from tqdm import tqdm

    from polyamp import atomic
    from polyamp.audio import balance, reading, rooms
    from polyamp.data.recording import Recording, hold_out
    from polyamp.errors import DataError
    from polyamp.predict import expand_audio

    paths, failures = expand_audio(_AUDIO.value)
    if failures:
        raise DataError(f"--audio: {failures[0]}")
    recordings = hold_out([Recording(path.stem, "train", path, None) for path in sorted(paths)], _HOLD_OUT.value)
    paths = [one.audio for one in recordings if one.split == "train"]
    of_instruments: dict[str, list[np.ndarray]] = {}
    of_rooms: list[np.ndarray] = []
    for number, path in enumerate(tqdm(paths, unit="recording", disable=None)):
        stretches = list(_stretches(reading.read(path)))
        spectra = [balance.measure([stretch]) for stretch in stretches]
        of_instruments.setdefault(path.stem.rsplit("_", 1)[-1], []).extend(one for one in spectra if one is not None)
        if spectra and spectra[0] is not None:
            for room in range(_ROOMS.value):
                in_room = balance.measure([rooms.record(stretches[0], np.random.default_rng([room, number]))])
                of_rooms.append(in_room - spectra[0])
    groups = [np.array(spectra) for _, spectra in sorted(of_instruments.items()) if len(spectra) > 1]
    if len(groups) < 2:
        raise DataError("--audio: needs two instruments or more, two minutes of each; names are to end in _INSTRUMENT.")
    means = np.array([spectra.mean(axis=0) for spectra in groups])
    music = np.cov(np.concatenate([spectra - spectra.mean(axis=0) for spectra in groups]).T)
    colour = np.cov(means.T) + np.cov(np.array(of_rooms).T)
    fitted = {"usual": means.mean(axis=0), "colour": colour, "music": music + _NOISE_DB**2 * np.eye(len(music))}
    with atomic.replacing(_OUTPUT.value) as path, open(path, "wb") as file:
        np.savez(file, **{name: array.astype(np.float32) for name, array in fitted.items()})


def _stretches(audio: "np.ndarray") -> "Iterator[np.ndarray]":
    """The minutes of a recording, one after the other, the last one perhaps shorter."""
    from polyamp import constants

    length, least = (round(seconds * constants.SAMPLE_RATE) for seconds in (_SECONDS, _LEAST_SECONDS))
    for first in range(0, len(audio) - least + 1, length):
        yield audio[first : first + length]


if __name__ == "__main__":
    startup.run(main)
