"""When and how loud notes are struck, in the light of the notes around.

What is heard of one note is uncertain: rooms and instruments colour single pitches, other notes cover it, and mechanisms
strike what is soft early or late. What a score would say helps: what is written together begins together, chords have
one loudness, tunes are louder than what accompanies them. A small network that has read many transcriptions beside their
true notes (`scripts/fit_strikes.py`) moves every onset and velocity towards what the others make likely.
"""

import numpy as np

from polyamp import constants
from polyamp.hparams import MelodicHParams
from polyamp.notes import context, strike_network
from polyamp.notes.arrays import Notes
from polyamp.notes.growing_rolls import Roll, Rolls
from polyamp.notes.strike_network import StrikeNetwork, log_odds

BEFORE = AFTER = 20  # Notes around that count, in the order of their onsets.
NUM_OWN = 12  # Numbers per note.

_SHORTEST = 0.03  # Seconds that a note lasts at least, if its onset is moved.
_MOST = np.array([0.1, 30.0])  # Seconds and units of velocity by which a note is moved at most.
_STEP = 50  # Notes at a time: what of these is computed fits into a cache.


def around(notes: Notes, some: slice = slice(None)) -> np.ndarray:
    """The notes around each, or each of some: see `context.around`."""
    return context.around(notes, np.arange(len(notes))[some], BEFORE, AFTER)


def own(notes: Notes, rolls: Rolls, hparams: MelodicHParams) -> np.ndarray:
    """What is known of each note by itself.

    Args:
        notes: As decoded from the rolls.
        rolls: Probabilities "onset" and "frame" and the roll "velocity", `[time, 88]`.
        hparams: The settings of the decoder.

    Returns:
        float32 `[notes, NUM_OWN]`, all of them about -2 to 2: velocity, duration, how much louder the velocity roll is around
        the onset, and log odds of onsets and frames there. (Where a note that `onset_bias_ms` would have moved below 0 began is
        not known any more: as if it were at 0 now.)
    """
    frame = np.rint((notes.onset + hparams.onset_bias_ms / 1000) * hparams.frames_per_second).astype(int)
    by_itself = [(notes.velocity - 60) / 30, np.clip(notes.offset - notes.onset, 0, 2)]
    loudness = _near(rolls["velocity"], frame + np.array([[-1], [0], [1], [2]]), notes.pitch) * constants.MAX_MIDI_VELOCITY
    onset = _near(rolls["onset"], frame + np.array([[-1], [0], [1]]), notes.pitch)
    sounding = _near(rolls["frame"], frame + np.array([[0], [1], [3]]), notes.pitch)
    known = by_itself, (loudness - notes.velocity) / 30, log_odds(onset), log_odds(sounding)
    return np.concatenate(known).T.astype(np.float32)


def _near(roll: Roll, frame: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """What a roll says in some frames of notes' MIDI pitches, from 0 to 1, float32 `[frames, notes]`, as `frame` is."""
    said = np.zeros(frame.shape, np.float32)
    for one in np.unique(pitch):
        at = np.clip(frame[:, pitch == one], 0, len(roll) - 1)
        said[:, pitch == one] = roll[:, one - constants.MIN_MIDI_PITCH][at]
    return np.clip(np.nan_to_num(said), 0, 1)


def load(which: str) -> StrikeNetwork:
    """Networks that `scripts/fit_strikes.py` has written.

    Args:
        which: One of `constants.STRIKE_KINDS`, or the path of a file.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    return strike_network.load(which, "strikes", constants.STRIKE_KINDS, NUM_OWN)


def _moves(network: StrikeNetwork, notes: Notes, own: np.ndarray) -> np.ndarray:
    """What a network says of notes of which `own` is known: see `StrikeNetwork.moves`."""
    steps = (slice(first, first + _STEP) for first in range(0, len(notes), _STEP))
    return np.concatenate([network.moves(own[some], around(notes, some)) for some in steps])


def as_struck(notes: Notes, rolls: Rolls, hparams: MelodicHParams) -> Notes:
    """The notes that were decoded from rolls, beginning when and as loud as the network `predict_strikes` says.

    As it has learned what single notes are beside the others, on the whole they stay when and as loud as they were heard; and
    where there are not as many notes around as it has learned from, they are moved by so much less.

    Args:
        notes, rolls, hparams: As of `own`.

    Returns:
        Notes of the same pitches, sorted by onset; those of one pitch do not overlap, and none is shorter than `min_note_ms`
        that was not. Velocities are 1 to 127.

    Raises:
        PolyampError: See `load`.
    """
    network = load(hparams.predict_strikes)
    if not len(notes):
        return notes
    moves = _moves(network, notes, own(notes, rolls, hparams)).astype(np.float64)
    moves -= [np.median(moves[:, 0]), moves[:, 1].mean()]
    later, louder = np.clip(moves, -_MOST, _MOST).T * min(1.0, (len(notes) - 1) / AFTER)
    velocity = np.clip(np.rint(notes.velocity + louder), 1, constants.MAX_MIDI_VELOCITY).astype(notes.velocity.dtype)
    onset, offset = notes.onset.copy(), notes.offset.copy()
    shortest = max(hparams.min_note_ms / 1000, _SHORTEST) + 1e-9  # So that rounding makes none shorter.
    for pitch in np.unique(notes.pitch):
        index = np.flatnonzero(notes.pitch == pitch)
        begin, end = onset[index], offset[index]
        # Of two in a row each keeps to its side of the middle, so that none becomes too short; what is too short stays.
        middle = (begin[1:] + begin[:-1]) / 2
        earliest = np.minimum(np.append(0.0, middle + shortest / 2), begin)
        latest = np.maximum(np.minimum(np.append(middle - shortest / 2, np.inf), end - shortest), begin)
        moved = np.clip(begin + later[index], earliest, latest)
        onset[index] = moved
        offset[index[:-1]] = np.where(end[:-1] == begin[1:], moved[1:], np.minimum(end[:-1], moved[1:]))
    return Notes.of(onset, offset, notes.pitch, velocity, notes.program)
