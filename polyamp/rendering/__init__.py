"""Rendering MIDI with SoundFonts: training data for those who have no data set."""
