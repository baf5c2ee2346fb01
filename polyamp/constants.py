"""Facts that are never tuned: sample rate, pitch range, file schema names, model types.

Imported by everything, imports nothing.
"""

SAMPLE_RATE = 16_000  # Hz, mono, everywhere inside the package.

MIN_MIDI_PITCH = 21  # A0, the lowest piano key.
MAX_MIDI_PITCH = 108  # C8, the highest piano key.
NUM_PITCHES = MAX_MIDI_PITCH - MIN_MIDI_PITCH + 1  # 88

MAX_MIDI_VELOCITY = 127

DEFAULT_QPM = 120.0
DEFAULT_PROGRAM = 0  # Acoustic grand piano.

MODEL_TYPES = ("MELODIC", "TIMBRE", "FULL", "AUTOREGRESSIVE")

ROLLS = ("onset", "offset", "frame", "velocity")  # What a melodic model answers, each [batch, time, 88].
