"""Notes as arrays, and their ways to and from rolls, NoteSequences and MIDI; numpy only (note-seq and mido for files)."""

from polyamp.notes.arrays import Notes, concatenate, crop, listed, shifted, stretched
from polyamp.notes.decoding import from_rolls
from polyamp.notes.files import from_sequence, read_midi, read_tsv, to_sequence, write_midi
from polyamp.notes.rolls import to_rolls

__all__ = [
    "Notes",
    "concatenate",
    "crop",
    "from_rolls",
    "from_sequence",
    "listed",
    "read_midi",
    "read_tsv",
    "shifted",
    "stretched",
    "to_rolls",
    "to_sequence",
    "write_midi",
]
