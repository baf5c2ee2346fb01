"""From rolls of probabilities to notes: the onsets-and-frames decoder, vectorised over frames and pitches."""

import numpy as np

from polyamp import constants
from polyamp.hparams import MelodicHParams
from polyamp.notes import ends, evidence, strikes
from polyamp.notes.arrays import Notes, to_midi_velocity
from polyamp.notes.dynamics import smoothed_velocities
from polyamp.notes.growing_rolls import Roll, Rolls

# Silent frames after each pitch where all pitches lie one after another in a flat array: neighbours up to so many frames away
# can be compared without mixing pitches. Also the radius in which an onset must be the highest.
_GAP = 2
_CELLS = 50_000  # Of whole pitches that are decoded at once, as intermediate results take more memory than kept rolls.
_MAX_SHIFT = 0.49  # Frames by which refinement may move an event: below a half, so that no note loses its whole length.


def from_rolls(rolls: Rolls, hparams: MelodicHParams) -> Notes:
    """Decodes rolls into notes.

    A note starts at an onset, sounds while its frames do and ends at an offset, at the next onset of its pitch or with its
    frames (Hawthorne et al. 2018, section 3). An onset makes its frame active, even if the frame roll does not, and so does
    every onset probability above `active_onset_threshold`; an offset silences its frame. Without `onset_peak_picking` and
    `onset_refinement` the notes are those of `note_seq.sequences_lib.pianoroll_to_note_sequence`.

    Thresholds of 0 switch an input off: without onsets (roll not read at all, but by `predict_strikes`) a note starts where
    its frames do; without offsets frames alone end it; without frames it lasts until an offset or the next onset, at most
    to the end.

    With `onset_peak_picking` only local maxima above the threshold count, of a plateau its first frame, so that a peak several
    frames wide is one onset; maxima closer than three frames are one. The same goes for offsets, and an offset in the frame of
    an onset belongs to the note before. `onset_refinement` moves both between frames.

    With `predict_offset_weight` above 0, notes that onsets start end where frames and offsets together make it most likely, at
    the next onset of their pitch at the latest, instead of where the first of them crosses its threshold (`_likely_ends`):
    neither a weak frame in between nor a doubtful offset cuts a note short.

    `predict_strikes` names a network that moves onsets and velocities in the light of the notes around, instead of
    `velocity_smoothing` (`polyamp.notes.strikes`), `predict_ends` one that then chooses ends in the light of when other notes
    begin (`polyamp.notes.ends`).

    Args:
        rolls: Probabilities "onset", "offset", "frame" and "velocity", `[time, 88]`, or bool.
        hparams: Decoding settings and hop.

    Returns:
        Notes sorted by onset; those of one pitch never overlap and none is shorter than `min_note_ms` (before cutting at 0
        what `onset_bias_ms` moves below it) or of no length.

    Raises:
        ValueError: The rolls are not of one shape `[time, 88]`, or one is missing.
        PolyampError: `predict_strikes` or `predict_ends` is no such network.
    """
    _check(rolls)
    groups = []
    size = max(1, _CELLS // max(1, len(rolls["onset"])))
    for first in range(0, constants.NUM_PITCHES, size):
        group = {name: _group(rolls[name], first, size) for name in constants.ROLLS}
        onset_frame, offset_frame, pitch_index, velocity = _decode(group, hparams)
        groups.append((onset_frame, offset_frame, pitch_index + first + constants.MIN_MIDI_PITCH, velocity))
    onset_frame, offset_frame, pitch, velocity = (np.concatenate(column) for column in zip(*groups, strict=True))
    found = _notes(onset_frame, offset_frame, pitch, velocity, hparams)
    if hparams.predict_strikes:
        found = strikes.as_struck(found, rolls, hparams)
    else:
        found = smoothed_velocities(found, hparams.velocity_smoothing)
    return ends.with_likelier_ends(found, rolls, hparams) if hparams.predict_ends else found


def _decode(rolls: dict[str, np.ndarray], hparams: MelodicHParams) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of rolls `[time, pitches]` each note's first frame, that after its last, both refined, its column and MIDI velocity."""
    num_frames = len(rolls["frame"])
    onset, offset = _flatten(rolls["onset"]), _flatten(rolls["offset"])
    starts = _events(onset, hparams.predict_onset_threshold, hparams.onset_peak_picking)
    stops = _events(offset, hparams.predict_offset_threshold, hparams.onset_peak_picking)
    if hparams.onset_peak_picking and starts is not None and stops is not None:
        stops &= ~starts
    if starts is None or not (hparams.predict_offset_weight and hparams.predict_frame_threshold):
        start, end = _spans(_active(rolls["frame"], onset, starts, stops, hparams), starts)
    else:
        start = np.flatnonzero(starts & ~_previous(starts))
        end = _likely_ends(start, rolls["frame"], None if stops is None else rolls["offset"], hparams)
        stops = None if stops is None else offset > 0  # Any end may lie at a peak of the offset roll.

    stride = num_frames + _GAP
    pitch_index = start // stride
    first = pitch_index * stride  # Flat index of the pitch's frame 0.
    onset_frame, offset_frame = start - first, end - first
    velocity = to_midi_velocity(np.asarray(rolls["velocity"])[onset_frame, pitch_index])
    if hparams.onset_refinement:
        if starts is not None:
            onset_frame = onset_frame + _shift(onset, start, onset_frame, num_frames)
        if stops is not None:
            offset_frame = offset_frame + _shift(offset, end, offset_frame, num_frames) * stops[end]
        restarted = np.flatnonzero(end[:-1] == start[1:])
        offset_frame[restarted] = onset_frame[restarted + 1]
    return onset_frame, offset_frame, pitch_index, velocity


def _group(roll: Roll, first: int, size: int) -> np.ndarray:
    """A roll's probabilities of so many pitches from one on."""
    group = np.asarray(roll[:, first : first + size])
    return group.astype(np.float32) if group.dtype == bool else group


def _check(rolls: Rolls) -> None:
    """Raises `ValueError` where rolls do not fit together."""
    missing = [name for name in constants.ROLLS if name not in rolls]
    if missing:
        raise ValueError(f"rolls need {', '.join(constants.ROLLS)}; {', '.join(missing)} is missing.")
    shapes = {name: np.shape(rolls[name]) for name in constants.ROLLS}
    num_frames = shapes["onset"][0] if shapes["onset"] else 0
    if any(shape != (num_frames, constants.NUM_PITCHES) for shape in shapes.values()):
        raise ValueError(f"rolls must all be [time, {constants.NUM_PITCHES}]; got {shapes}.")


def _flatten(roll: np.ndarray) -> np.ndarray:
    """All pitches one after another in time order, each followed by `_GAP` zeros: `[time, 88] -> [88 * (time + _GAP)]`."""
    roll = np.asarray(roll)
    padded = np.zeros((roll.shape[1], roll.shape[0] + _GAP), roll.dtype)
    padded[:, : roll.shape[0]] = roll.T
    return padded.ravel()


def _previous(flat: np.ndarray) -> np.ndarray:
    """Each frame's predecessor; the first frames get silence, wrapped around from the last gap."""
    return np.roll(flat, 1)


def _events(probability: np.ndarray, threshold: float, peaks_only: bool) -> np.ndarray | None:
    """Where a flat roll says that something happens; None where a threshold of 0 switches it off."""
    if not threshold:
        return None
    above = probability > threshold
    return _local_maxima(probability, above) if peaks_only else above


def _local_maxima(probability: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Marks candidates that are highest within `_GAP` frames on both sides; of equal ones the first."""
    highest = candidates.copy()
    for distance in range(1, _GAP + 1):
        highest &= probability > np.roll(probability, distance)
        highest &= probability >= np.roll(probability, -distance)
    index = np.flatnonzero(highest)
    if len(index):
        # A plateau that rises again after more than _GAP frames is a step, not a peak: nothing below it before the next peak.
        lowest_until_next = np.minimum.reduceat(probability, index)
        highest[index[:-1][lowest_until_next[:-1] >= probability[index[:-1]]]] = False
    return highest


def _active(
    frame_roll: np.ndarray,
    onset: np.ndarray,
    starts: np.ndarray | None,
    stops: np.ndarray | None,
    hparams: MelodicHParams,
) -> np.ndarray:
    """Flat boolean roll of the frames in which a note may sound."""
    if hparams.predict_frame_threshold:
        active = _flatten(np.asarray(frame_roll) > hparams.predict_frame_threshold)
    else:
        active = _flatten(np.ones(np.shape(frame_roll), bool))
    if starts is not None:
        active |= starts
        if hparams.active_onset_threshold:
            active |= onset > hparams.active_onset_threshold
    if stops is not None:
        active &= ~stops
    return active


def _spans(active: np.ndarray, starts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of each note's first frame and of the one after its last, in ascending order."""
    was_active = _previous(active)
    # An onset of several frames starts one note, unless something silenced the frame before.
    begins = active & ~was_active if starts is None else active & starts & ~(was_active & _previous(starts))
    start = np.flatnonzero(begins)
    run_end = np.flatnonzero(was_active & ~active)
    end = run_end[np.searchsorted(run_end, start)]
    end[:-1] = np.minimum(end[:-1], start[1:])
    return start, end


def _likely_ends(
    start: np.ndarray, frame_roll: np.ndarray, offset_roll: np.ndarray | None, hparams: MelodicHParams
) -> np.ndarray:
    """Flat indices of each note's end: of all frames up to the next onset of its pitch (or the end) the most likely one.

    The evidence for an end is the sum of the log odds of the frames before it, beyond those of `predict_frame_threshold`, since
    frames then sound up to it and not after, and `predict_offset_weight` times the log of its offset probability. Neighbouring
    frames say much the same, so an offset weighs more than one of them.

    Args:
        start: Flat indices of the notes' first frames, ascending (`_flatten`).
        frame_roll: Probabilities `[time, 88]`.
        offset_roll: Probabilities `[time, 88]`; None: frames alone say where notes end.
        hparams: The two settings.
    """
    num_frames = len(frame_roll)
    end = np.empty_like(start)
    pitch_index, first = np.divmod(start, num_frames + _GAP)
    for pitch in np.unique(pitch_index):
        of_pitch = pitch_index == pitch
        begin = first[of_pitch]
        of_end = evidence.of_frames(np.asarray(frame_roll)[:, pitch], hparams.predict_frame_threshold)
        if offset_roll is not None:
            of_end += hparams.predict_offset_weight * evidence.of_offsets(np.asarray(offset_roll)[:, pitch])
        best = np.maximum.reduceat(of_end, begin + 1)
        lengths = np.diff(begin, append=num_frames)
        found = np.flatnonzero(of_end[begin[0] + 1 :] == np.repeat(best, lengths)) + begin[0] + 1
        end[of_pitch] = start[of_pitch] - begin + found[np.searchsorted(found, begin + 1)]
    return end


def _shift(flat: np.ndarray, index: np.ndarray, frame: np.ndarray, num_frames: int) -> np.ndarray:
    """How far the true peak lies from each frame, in frames within +-`_MAX_SHIFT`; 0 where the frame is no local maximum.

    A symmetric triangle through the frame and its neighbours, exact for the targets of `onset_mode` "triangle" whatever their
    height: both sides have the slope of the steeper one.
    """
    left, centre, right = flat[index - 1], flat[index], flat[(index + 1) % len(flat)]
    drop = centre - np.minimum(left, right)
    peak = (drop > 0) & (centre >= np.maximum(left, right)) & (frame > 0) & (frame < num_frames - 1)
    shift = (right - left) / (2 * np.where(peak, drop, 1))
    return np.where(peak, np.clip(shift, -_MAX_SHIFT, _MAX_SHIFT), 0.0)


def _notes(
    onset_frame: np.ndarray, offset_frame: np.ndarray, pitch: np.ndarray, velocity: np.ndarray, hparams: MelodicHParams
) -> Notes:
    """Notes from frames, without those that are too short."""
    frame_seconds = 1 / hparams.frames_per_second
    onset, offset = onset_frame * frame_seconds, offset_frame * frame_seconds
    bias = hparams.onset_bias_ms / 1000.0
    kept = ((offset - onset) * 1000 >= hparams.min_note_ms) & (offset - bias > 0)
    onset, offset = np.maximum(onset[kept] - bias, 0.0), offset[kept] - bias
    return Notes.of(onset, offset, pitch[kept], velocity[kept])
