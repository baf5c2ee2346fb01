"""Facts that are never tuned: sample rate, pitch range, file schema names, model types.

Imported by everything, imports nothing.
"""

SAMPLE_RATE = 16_000  # Hz, mono, everywhere inside the package.

MIN_MIDI_PITCH = 21  # A0, the lowest piano key.
MAX_MIDI_PITCH = 108  # C8, the highest piano key.
NUM_PITCHES = MAX_MIDI_PITCH - MIN_MIDI_PITCH + 1  # 88

MAX_MIDI_VELOCITY = 127

A4_RANGE_HZ = (420.0, 460.0)  # The tunings of which a model can be told: more than a semitone.

DEFAULT_QPM = 120.0
DEFAULT_PROGRAM = 0  # Acoustic grand piano.
DRUM_PROGRAM = 118  # Synth drum, of the family "other": what drum notes get where they are labelled.

BALANCE_KINDS = ("pianos", "bands")  # Of music, whose usual balance of bass, middle and treble is known (`audio.balance`).

END_KINDS = ("pianos",)  # Of music, in which it is known where notes end (`notes.ends`).
STRIKE_KINDS = ("pianos",)  # Of music, in which it is known when and how loud notes are struck (`notes.strikes`).
RUNNING_STRIKE_KINDS = ("pianos", "pianos_low_latency")  # The same, told by notes before alone (`notes.running_strikes`).

MODEL_TYPES = ("MELODIC", "TIMBRE", "FULL", "AUTOREGRESSIVE")

ROLLS = ("onset", "offset", "frame", "velocity")  # What a melodic model answers, each [batch, time, 88].

# The instrument families of NSynth (Engel et al. 2017), in its order, and one for all else.
FAMILIES = (
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal"),
    "other",
)
NUM_FAMILIES = len(FAMILIES)  # 12

# General MIDI programs, counted from 0: (family, first program, how many). Banjo, shamisen, koto and kalimba are guitars,
# synthetic voices vocals; pads, effects, percussion, sounds and what else folk plays are "other".
_PROGRAM_RANGES = (
    *(("keyboard", 0, 8), ("mallet", 8, 8), ("organ", 16, 8), ("guitar", 24, 8), ("bass", 32, 8), ("string", 40, 12)),
    *(("vocal", 52, 3), ("string", 55, 1), ("brass", 56, 8), ("reed", 64, 8), ("flute", 72, 8), ("synth_lead", 80, 5)),
    *(("vocal", 85, 1), ("synth_lead", 86, 2), ("other", 88, 17), ("guitar", 105, 4), ("other", 109, 19)),
)
PROGRAM_FAMILY = tuple(FAMILIES.index(family) for family, _, count in _PROGRAM_RANGES for _ in range(count))  # [128]

# The program that stands for each family in what is written: finger bass, brass section, flute, steel guitar, grand piano,
# vibraphone, drawbar organ, clarinet, string ensemble, saw lead, choir, warm pad.
FAMILY_PROGRAMS = (33, 61, 73, 25, 0, 11, 16, 71, 48, 81, 52, 89)
