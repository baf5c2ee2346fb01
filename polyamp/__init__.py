"""PolyAMP: audio to MIDI with four transcription models behind one runner."""

__version__ = "0.1.0"
