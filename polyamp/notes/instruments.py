"""From families' probabilities, note by note, to who plays what in a piece: a band has few instruments."""

import dataclasses

import numpy as np

from polyamp import constants
from polyamp.hparams import FullHParams, TimbreHParams
from polyamp.notes.arrays import Notes, concatenate
from polyamp.notes.neighbours import neighbourhoods

_ROUNDS = 30
_NEAR_SEMITONES, _NEAR_SECONDS, _NEAR_SOUND = 4.0, 4.0, 0.5  # How fast notes cease to be neighbours; see `agreed`.
_REACH = 4 * _NEAR_SECONDS
_FLOOR = 1e-4  # Probability below which no difference is made.


def families_of(notes: Notes) -> np.ndarray:
    """The family of each note's program, an index of `constants.FAMILIES`."""
    return np.array(constants.PROGRAM_FAMILY)[notes.program]


def piece_posteriors(probabilities: np.ndarray, strength: float) -> np.ndarray:
    """Families of notes in the light of all the piece's notes.

    Expectation maximisation of a mixture: how common each family is in the piece is the mean of the notes' posteriors, which
    are in proportion to the notes' own probabilities times the commonness to the power of `strength`.

    Args:
        probabilities: `[notes, 12]`, each note by itself.
        strength: 1 is the mixture proper; 0 leaves all as it is. Below 1 rare families live longer.

    Returns:
        `[notes, 12]`, rows summing to 1 (rows of zeros become even).
    """
    own = np.maximum(np.asarray(probabilities, np.float64), 1e-9)
    posterior = own / own.sum(axis=1, keepdims=True)
    if not strength or not len(own):
        return posterior
    for _ in range(_ROUNDS):
        common = posterior.mean(axis=0)
        posterior = own * common**strength
        posterior /= posterior.sum(axis=1, keepdims=True)
    return posterior


def agreed(probabilities: np.ndarray, of: Notes, share: float) -> np.ndarray:
    """Families of notes in the light of their neighbours: what follows at about the same pitch is mostly of one instrument.

    Logarithms of probabilities are averaged over notes with weights that fall with the distance in pitch (to exp(-1/2) over 4
    semitones), in onset (to 1/e over 4 s) and of what was heard (`exp(-d² / 0.5)`, d being the Euclidean distance of the square
    roots of two notes' probabilities), so that two instruments that play side by side stay apart.

    Args:
        probabilities: `[notes, 12]`, each note by itself. Rows of zeros, of notes that were not heard, count for no others.
        of: The notes.
        share: Of the neighbours, themselves included, in what comes out; 0 leaves all as it is.

    Returns:
        `[notes, 12]`, rows summing to 1 (also those of zeros, where they have neighbours).
    """
    if not share or not len(of):
        return np.asarray(probabilities)
    order = np.argsort(of.onset, kind="stable")
    onset, pitch = of.onset[order], of.pitch[order].astype(np.float64)
    given = np.asarray(probabilities, np.float64)[order]
    own = np.maximum(given, _FLOOR)
    own /= own.sum(axis=1, keepdims=True)
    logarithm, root = np.log(own), np.sqrt(own)
    was_heard: np.ndarray = np.any(given > 0, axis=1)
    smooth = np.empty_like(own)
    for rows, near in neighbourhoods(onset, _REACH):
        weight = np.exp(-0.5 * np.square((pitch[rows, None] - pitch[near]) / _NEAR_SEMITONES))
        apart = np.abs(onset[rows, None] - onset[near])
        weight *= np.exp(-apart / _NEAR_SECONDS) * (apart < _REACH)
        weight *= np.exp(-np.square(root[rows, None] - root[near]).sum(axis=2) / _NEAR_SOUND) * was_heard[near]
        total = weight.sum(axis=1, keepdims=True)
        mean = np.where(total > 0, weight @ logarithm[near] / np.maximum(total, 1e-300), logarithm[rows])
        smooth[rows] = np.exp((1 - share) * logarithm[rows] + share * mean)
    result = np.empty_like(smooth)
    result[order] = smooth / smooth.sum(axis=1, keepdims=True)
    return result


def choose_families(probabilities: np.ndarray, of: Notes, hparams: TimbreHParams) -> np.ndarray:
    """The family of each note of a piece.

    Args:
        probabilities: `[notes, 12]`, each note by itself.
        of: The notes.
        hparams: `family_smoothing` as in `agreed`; `present_instruments` are the only ones answered; `family_prior_strength` as
            in `piece_posteriors`; families with less than `family_min_share` of the notes are given up one by one, the rarest
            first.

    Returns:
        `[notes, 12]` posteriors of the families that are left (rows sum to 1), 0 elsewhere; the likeliest is a note's family.
    """
    probabilities = agreed(probabilities, of, hparams.family_smoothing)
    allowed = np.isin(constants.FAMILIES, hparams.present_instruments)
    while True:
        posterior = piece_posteriors(np.where(allowed, np.maximum(probabilities, 1e-6), 0.0), hparams.family_prior_strength)
        posterior = np.where(allowed, posterior, 0.0)
        posterior /= posterior.sum(axis=1, keepdims=True)
        if not len(posterior) or not hparams.family_min_share:
            return posterior
        share = np.bincount(posterior.argmax(axis=1), minlength=constants.NUM_FAMILIES) / len(posterior)
        rare = allowed & (share < hparams.family_min_share)
        if not rare.any() or allowed.sum() == 1:
            return posterior
        allowed = allowed.copy()
        allowed[np.flatnonzero(rare)[np.argmin(share[rare])]] = False


def with_programs(notes: Notes, posteriors: np.ndarray, hparams: TimbreHParams) -> Notes:
    """The notes with the representative program of their family.

    Each note goes to its likeliest family; with `use_all_instruments` to all families at least as likely as
    `multiple_instruments_threshold` too, as one note each.
    """
    if not len(notes):
        return notes
    likeliest = np.arange(constants.NUM_FAMILIES) == posteriors.argmax(axis=1)[:, None]  # [notes, 12]
    chosen = likeliest
    if isinstance(hparams, FullHParams) and hparams.use_all_instruments:
        chosen = likeliest | ((posteriors >= hparams.multiple_instruments_threshold) & (posteriors > 0))
    parts = []
    for family in np.flatnonzero(chosen.any(axis=0)):
        of_family = notes[chosen[:, family]]
        program = np.full(len(of_family), constants.FAMILY_PROGRAMS[family], np.int64)
        parts.append(dataclasses.replace(of_family, program=program))
    return concatenate(parts)
