"""Data sets as they are distributed: which recordings a folder has, in which split, and where their notes are."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from absl import logging

from polyamp import constants, notes
from polyamp.audio import balance as balancing
from polyamp.audio import level, meters, reading, rooms
from polyamp.data import maestro, segments, slakh
from polyamp.data.example import Example
from polyamp.data.recording import Recording, audio_files, find_with, split_of_folder
from polyamp.errors import DataError
from polyamp.notes import Notes
from polyamp.notes.arrays import UNKNOWN_VELOCITY

LABEL_SUFFIXES = (".tsv", ".mid", ".midi", ".txt")  # In this order of preference: MAPS' .txt has no velocities.

_NO_LABELS = f"no notes with that name ({', '.join(LABEL_SUFFIXES)}) beside it or in the folder labels"

_LEAST_MEASURED = 30 * constants.SAMPLE_RATE  # Samples, see `_balanced`.

# The two real pianos of MAPS are its test set ("configuration 2" of Sigtia et al. 2016).
_MAPS_TEST_PIANOS = ("ENSTDkAm", "ENSTDkCl")


def find(dataset: str, input_dir: str | Path) -> list[Recording]:
    """All recordings of a data set.

    Args:
        dataset: One of `DATASETS`.
        input_dir: Its folder, as distributed.

    Returns:
        Recordings sorted by id.

    Raises:
        DataError: The folder is missing or holds no such data set, or no recording has notes.
    """
    return find_with(DATASETS, dataset, input_dir)


def load(recording: Recording, use_drums: bool = False) -> tuple[np.ndarray, Notes]:
    """Audio, float32 [samples] at 16 kHz, and the notes that begin before its end, with those of drums if asked for.

    There are none where nobody knows them. A note that goes on after the end of the audio, as in a clip from a longer
    recording, keeps its offset.

    Raises:
        AudioError: The audio cannot be read.
        DataError: The notes are not there or cannot be read.
    """
    if recording.labels is not None and not recording.labels.is_file():
        raise DataError(f"{recording.audio}: {_NO_LABELS}.")
    audio = reading.read(recording.audio)
    if recording.labels is None:
        return audio, Notes.empty()
    labels, seconds = read_labels(recording.labels, use_drums), len(audio) / constants.SAMPLE_RATE
    found = notes.crop(labels, 0.0, seconds, clip=False)
    if len(labels) and not len(found):
        logging.warning("%s: none of its notes are within its %.1f s; are they of this recording?", recording.audio, seconds)
    return audio, found


def examples(
    recording: Recording,
    min_length: float,
    max_length: float,
    use_drums: bool = False,
    room_copies: int = 0,
    level_db: float = 0.0,
    balance: float = 0.0,
    balance_of: str = "pianos",
) -> list[Example]:
    """What TFRecords hold of a recording: see `polyamp.data.segments.examples`; `max_length` 0 keeps it whole.

    After that follow `room_copies` times the same as recorded in random rooms (see `polyamp.audio.rooms`), always the same ones
    for a recording's id. Theirs end in "@room1", "@room2" ... All are brought to `level_db` first (`polyamp.audio.level`), and
    balanced by the share `balance` as music of that kind, each by itself (`polyamp.audio.balance`), after that.
    """
    audio, labels = load(recording, use_drums)
    audio = np.concatenate(list(level.brought_to(lambda: [audio], level_db)()))
    balanced = functools.partial(_balanced, share=balance, kind=balance_of)
    found = segments.examples(recording.id, balanced(audio, recording.id), labels, min_length, max_length)
    for number in range(1, room_copies + 1):
        name = f"{recording.id}@room{number}"
        in_room = rooms.record(audio, np.random.default_rng(list(name.encode())))
        found += segments.examples(name, balanced(in_room, name), labels, min_length, max_length)
    return [dataclasses.replace(one, is_labelled=recording.labels is not None) for one in found]


def _balanced(audio: np.ndarray, name: str, share: float, kind: str) -> np.ndarray:
    """A recording as it, or a random stretch of it, is heard with `predict_balance`, and turned down where it would be clipped.

    Stretches are 30 s or longer, as recordings are: of how a whole piece is balanced, an excerpt tells less.
    """
    if not share or not len(audio):
        return audio
    rng = np.random.default_rng(list(name.encode()))
    length = round(len(audio) * np.exp(rng.uniform(np.log(min(1.0, _LEAST_MEASURED / len(audio))), 0.0)))
    first = rng.integers(0, len(audio) - length + 1)
    gains = meters.fed(balancing.Meter(), [audio[first : first + length]]).gains(share, kind)
    balanced = np.concatenate(list(balancing.equalized(lambda: [audio], gains)()))
    return balanced / max(1.0, float(np.abs(balanced).max(initial=0.0)))


def read_labels(path: Path, use_drums: bool = False) -> Notes:
    """The notes of a file of labels of any of the known kinds, those of drums only if asked for.

    Raises:
        DataError: It cannot be read.
    """
    if path.name == slakh.METADATA:
        return slakh.read_notes(path, use_drums)
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return notes.read_tsv(path)
    return _read_maps_txt(path) if suffix == ".txt" else notes.read_midi(path, use_drums=use_drums)


def _read_maps_txt(path: Path) -> Notes:
    """Notes from the lines `OnsetTime OffsetTime MidiPitch` of MAPS, below a header; they have no velocities."""
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if number == 1 and line.startswith("OnsetTime") or not line.strip():
                continue
            onset, offset, pitch = (float(value) for value in line.split())
            rows.append((onset, onset if offset < onset else offset, pitch, UNKNOWN_VELOCITY))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file of notes.") from error
    except ValueError as error:
        raise DataError(f"{path}, line {number}: expected onset, offset, pitch; got {line!r}.") from error
    try:
        return Notes.of(*np.array(rows, np.float64).reshape(-1, 4).T)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def labels_of(audio: Path, places: Iterable[Path]) -> Path | None:
    """The file of notes of the audio's name in the first folder that has one."""
    for place in places:
        for suffix in LABEL_SUFFIXES:
            for spelled in (suffix, suffix.upper()):
                if (place / (audio.stem + spelled)).is_file():
                    return place / (audio.stem + spelled)
    return None


def _labelled(recordings: Iterable[Recording], folder: Path) -> list[Recording]:
    """Recordings with the file of notes beside the audio, or in the data set's folder `labels`, which one or other may lack."""
    found = [(one, labels_of(one.audio, (one.audio.parent, folder / "labels"))) for one in recordings]
    if not any(labels for _, labels in found):
        raise DataError(f"{found[0][0].audio}: {_NO_LABELS}, nor have the others.")
    return [dataclasses.replace(one, labels=labels or one.audio.with_suffix(LABEL_SUFFIXES[0])) for one, labels in found]


def _find_maps(folder: Path) -> list[Recording]:
    """MAPS: the pieces (MUS) of the original layout, or of one with the folders train, test (or devtest) and labels.

    Where folders do not say the split the two real pianos are "test" and the others "train", but for pieces that are also
    in the test set.
    """
    files = audio_files(folder, "MAPS_MUS-*")
    if not files:
        raise DataError(f"{folder}: no MAPS pieces (audio files named MAPS_MUS-*) in it.")
    test_pieces = {_maps_piece(audio) for audio in files if _is_maps_test(audio, folder)}
    recordings = []
    for audio in files:
        is_test = _is_maps_test(audio, folder)
        split = split_of_folder(audio, folder) or ("test" if is_test else "train")
        if split == "train" and split_of_folder(audio, folder) is None and _maps_piece(audio) in test_pieces:
            continue
        recordings.append(Recording(audio.stem, split, audio, None))
    return _labelled(recordings, folder)


def _maps_piece(audio: Path) -> str:
    """`alb_se2` of `MAPS_MUS-alb_se2_ENSTDkCl`."""
    return audio.stem.removeprefix("MAPS_MUS-").rsplit("_", 1)[0]


def _is_maps_test(audio: Path, folder: Path) -> bool:
    said = split_of_folder(audio, folder)
    return said == "test" if said else audio.stem.endswith(_MAPS_TEST_PIANOS)


def _find_folder(folder: Path) -> list[Recording]:
    """Any audio with notes of the same name; folders named train, validation or test say the split, "train" is the default."""
    return _labelled(_find_audio(folder), folder)


def _find_audio(folder: Path) -> list[Recording]:
    """Any audio, without notes."""
    files = audio_files(folder)
    if not files:
        raise DataError(f"{folder}: no audio files in it.")
    return [
        Recording(audio.relative_to(folder).with_suffix("").as_posix(), split_of_folder(audio, folder) or "train", audio, None)
        for audio in files
    ]


DATASETS: dict[str, Callable[[Path], list[Recording]]] = {
    "maps": _find_maps,
    "maestro": maestro.find,
    "folder": _find_folder,
    "audio": _find_audio,
    "slakh": slakh.find,
}
