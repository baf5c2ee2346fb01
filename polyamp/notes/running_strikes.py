"""When and how loud notes are struck, in the light of those before: `polyamp.notes.strikes` for notes as they come."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from polyamp import constants
from polyamp.notes import context, strike_network
from polyamp.notes.states import ONSET, REONSET, SUSTAIN, StateFrame
from polyamp.notes.strike_network import StrikeNetwork, log_odds

BEFORE = 20  # Notes that count: the latest that began before or in the same frame.
NUM_OWN = 8  # Numbers per note.

_MOST = np.array([0.05, 30.0])  # Seconds and units of velocity by which a note is moved at most.
_FRAMES = 200  # At a time, at most: what is computed of the notes that begin there fits into a cache.


@dataclasses.dataclass(frozen=True)
class Begun:
    """The notes that begin in one frame, and what is known of them and of those before.

    Attributes:
        pitch: Columns of the rolls, `[notes]`.
        heard: Onset in seconds, end, pitch and velocity (0 to 127) of each, `[notes, 4]`.
        own: What is known of each by itself, float32 `[notes, NUM_OWN]`, all of it about -4 to 4: velocity, timing, whether the
            pitch sounded before, how much louder the velocity roll was one and two frames before, and log odds of an onset now
            and then.
        around: The notes before, float32 `[notes, BEFORE, NUM_AROUND]`, the latest first: see `context.around`. One that still
            sounds ends in this frame, as far as is known.
    """

    pitch: np.ndarray
    heard: np.ndarray
    own: np.ndarray
    around: np.ndarray


class Memory:
    """What is remembered of the notes and frames before; it does not grow.

    Args:
        frames_per_second: Of the frames.
    """

    def __init__(self, frames_per_second: float):
        self._rate = frames_per_second
        self._notes = np.zeros((0, 4))  # As `Begun.heard`, in the order in which they began; what sounds ends in infinity.
        # Velocities and probabilities of onsets, in this frame, the one before, and that before it.
        self._recent = [(np.zeros(constants.NUM_PITCHES), np.zeros(constants.NUM_PITCHES))] * 3

    def next(self, frame: StateFrame) -> Begun | None:
        """What begins in the next frame; None if nothing does."""
        self._recent = [(frame.velocity, frame.onset), *self._recent[:2]]
        now = frame.number / self._rate
        sounding, pitches = np.isinf(self._notes[:, 1]), self._notes[:, 2].astype(int)
        self._notes[sounding & (frame.state[pitches] != SUSTAIN), 1] = now
        pitch = np.flatnonzero(frame.state >= ONSET)
        return self._begun(frame, pitch, now) if len(pitch) else None

    def _begun(self, frame: StateFrame, pitch: np.ndarray, now: float) -> Begun:
        timing = np.nan_to_num(frame.timing[pitch].astype(np.float64))
        velocities, onsets = np.nan_to_num(np.stack(self._recent, axis=1)[..., pitch])  # Each `[3, notes]`.
        velocity, *earlier = velocities * constants.MAX_MIDI_VELOCITY
        own = [(velocity - 60) / 30, timing, frame.state[pitch] == REONSET]
        own += [(before - velocity) / 30 for before in earlier]
        own += [*log_odds(onsets)]
        heard = np.stack([now + timing / self._rate, np.full(len(pitch), np.inf), pitch, velocity], axis=-1)
        self._notes = np.concatenate([self._notes[-BEFORE:], heard])
        index = _latest_others(len(self._notes), len(heard))
        notes = np.minimum(self._notes, [np.inf, now, np.inf, np.inf])
        around = context.beside(heard, notes[np.maximum(index, 0)], index >= 0)
        return Begun(pitch, heard, np.stack(own, axis=-1).astype(np.float32), around)


def _latest_others(count: int, new: int) -> np.ndarray:
    """Of each of the last `new` of so many notes the latest others, the latest first, `[new, BEFORE]`; below 0: none."""
    index = np.broadcast_to(count - 1 - np.arange(BEFORE + 1), (new, BEFORE + 1))
    itself = index == np.arange(count - new, count)[:, np.newaxis]
    itself[~itself.any(axis=1), -1] = True  # The earliest goes instead.
    return index[~itself].reshape(new, BEFORE)


class RunningStrikes:
    """Moves onsets and velocities as a network says, as frames come, in memory that does not grow.

    Args:
        network: See `load`.
        frames_per_second: Of the frames.
    """

    def __init__(self, network: StrikeNetwork, frames_per_second: float):
        self._network, self._rate = network, frames_per_second
        self._memory = Memory(frames_per_second)

    def next(self, frames: Iterable[StateFrame]) -> Iterator[StateFrame]:
        """The next frames, of which there may be any number, with other velocities and times of the notes that begin there."""
        source = iter(frames)
        while some := list(itertools.islice(source, _FRAMES)):
            begun = [self._memory.next(frame) for frame in some]
            struck = self._struck([one for one in begun if one])
            for frame, one in zip(some, begun, strict=True):
                yield self._moved(frame, one, *next(struck)) if one else frame

    def _struck(self, begun: Sequence[Begun]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Velocities from 0 to 1 of the notes that begin in each of some frames, and how many seconds later they begin.

        Where there are not as many notes before as the network has learned from, they are moved by so much less.
        """
        if not begun:
            return
        heard, own, around = (np.concatenate([getattr(one, name) for one in begun]) for name in ("heard", "own", "around"))
        share = around[..., 4:].mean(axis=1)
        later, louder = (np.clip(self._network.moves(own, around), -_MOST, _MOST) * share).T
        velocity = np.clip((heard[:, 3] + louder) / constants.MAX_MIDI_VELOCITY, 0, 1)
        ends = np.cumsum([len(one.pitch) for one in begun])[:-1]
        yield from zip(np.split(velocity, ends), np.split(later, ends), strict=True)

    def _moved(self, frame: StateFrame, begun: Begun, velocity: np.ndarray, later: np.ndarray) -> StateFrame:
        velocities, timing = np.array(frame.velocity), np.array(frame.timing)
        velocities[begun.pitch] = velocity
        timing[begun.pitch] += later * self._rate
        return dataclasses.replace(frame, velocity=velocities, timing=timing)


def load(which: str) -> StrikeNetwork:
    """Networks that `scripts/fit_strikes.py` has written of an Autoregressive model.

    Args:
        which: One of `constants.RUNNING_STRIKE_KINDS`, or the path of a file.

    Raises:
        PolyampError: There is no such file, or it is another one.
    """
    return strike_network.load(which, "running_strikes", constants.RUNNING_STRIKE_KINDS, NUM_OWN)


def frames(rolls: Mapping[str, np.ndarray]) -> Iterator[StateFrame]:
    """The frames of "state", "velocity", "timing" and "onset", each `[time, 88]`."""
    names = ("state", "velocity", "timing", "onset")
    for number, rows in enumerate(zip(*(rolls[name] for name in names), strict=True)):
        yield StateFrame(number, *rows)


def as_struck(rolls: Mapping[str, np.ndarray], which: str, frames_per_second: float) -> dict[str, np.ndarray]:
    """What `RunningStrikes` makes of a whole recording.

    Args:
        rolls: "state", "velocity", "timing" and "onset", each `[time, 88]`.
        which: As of `load`.
        frames_per_second: Of the rolls.

    Returns:
        The same with other "velocity" and "timing".

    Raises:
        PolyampError: See `load`.
    """
    struck = {**rolls, "velocity": np.array(rolls["velocity"]), "timing": np.array(rolls["timing"])}
    for frame in RunningStrikes(load(which), frames_per_second).next(frames(rolls)):
        struck["velocity"][frame.number], struck["timing"][frame.number] = frame.velocity, frame.timing
    return struck
