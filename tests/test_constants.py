"""The tables of facts, against what the standards and data sets say."""

import pytest

from polyamp import constants

NSYNTH = ["bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal"]


def test_families_are_those_of_nsynth_in_its_order_and_one_more():
    assert list(constants.FAMILIES) == [*NSYNTH, "other"]
    assert constants.NUM_FAMILIES == 12


@pytest.mark.parametrize(
    ("program", "family"),  # Counted from 0; General MIDI Level 1 Sound Set, written out by hand.
    [
        (0, "keyboard"),  # Acoustic grand piano
        (7, "keyboard"),  # Clavinet
        (8, "mallet"),  # Celesta
        (14, "mallet"),  # Tubular bells
        (16, "organ"),  # Drawbar organ
        (21, "organ"),  # Accordion
        (24, "guitar"),  # Nylon guitar
        (31, "guitar"),  # Guitar harmonics
        (32, "bass"),  # Acoustic bass
        (39, "bass"),  # Synth bass 2
        (40, "string"),  # Violin
        (46, "string"),  # Harp
        (51, "string"),  # Synth strings 2
        (52, "vocal"),  # Choir aahs
        (54, "vocal"),  # Synth voice
        (55, "string"),  # Orchestra hit
        (56, "brass"),  # Trumpet
        (63, "brass"),  # Synth brass 2
        (64, "reed"),  # Soprano saxophone
        (71, "reed"),  # Clarinet
        (72, "flute"),  # Piccolo
        (79, "flute"),  # Ocarina
        (80, "synth_lead"),  # Square lead
        (85, "vocal"),  # Voice lead
        (87, "synth_lead"),  # Bass and lead
        (88, "other"),  # New age pad
        (105, "guitar"),  # Banjo
        (108, "guitar"),  # Kalimba
        (109, "other"),  # Bagpipe
        (127, "other"),  # Gunshot
    ],
)
def test_programs_belong_to_families(program: int, family: str):
    assert constants.FAMILIES[constants.PROGRAM_FAMILY[program]] == family


def test_every_program_has_a_family_and_every_family_a_program_of_its_own():
    assert len(constants.PROGRAM_FAMILY) == 128
    assert set(constants.PROGRAM_FAMILY) == set(range(12))
    assert [constants.PROGRAM_FAMILY[program] for program in constants.FAMILY_PROGRAMS] == list(range(12))
