"""Transcription in programs of one's own: a model that is loaded once, recordings in, notes out."""

import os

from numpy.typing import ArrayLike

from polyamp import constants, predict, transcribe
from polyamp.audio import reading
from polyamp.checkpoint import Loaded
from polyamp.errors import PolyampError
from polyamp.hparams import TimbreHParams
from polyamp.notes import Notes

_PIECE = 10 * constants.SAMPLE_RATE  # Samples that are worked on at a time.


class Transcriber:
    """Finds the notes of recordings, those that `--mode=predict` writes. Threads may share one; they take turns.

        transcriber = Transcriber.load("FULL")
        found = transcriber.transcribe("band.mp3")  # found.onset, .offset, .pitch, .velocity, .program
        notes.write_midi(found, "band.mid")

    For sound that is still to come see `polyamp.streaming.StreamingTranscriber`.

    Args:
        loaded: A Melodic, Full or Autoregressive model; see `predict.load`.

    Raises:
        PolyampError: It is a Timbre model, which finds no notes.
    """

    def __init__(self, loaded: Loaded):
        if type(loaded.hparams) is TimbreHParams:
            raise PolyampError("a Timbre model finds no notes; load MELODIC, FULL or AUTOREGRESSIVE.")
        self._loaded = loaded

    @classmethod
    def load(
        cls, model_type: str = "MELODIC", model_dir: str | None = None, load_id: str = "*", **overrides: object
    ) -> "Transcriber":
        """One with trained weights: those that come with the package, or of a training.

        Args:
            model_type: MELODIC, FULL or AUTOREGRESSIVE.
            model_dir, load_id: As `checkpoint.load_model`.
            overrides: Decoding settings, such as `predict_onset_threshold=0.3`; the names are those of `--hparams`.

        Raises:
            CheckpointError, HParamsError: As `checkpoint.load_model`.
        """
        return cls(predict.load(model_type, model_dir, load_id, None, None, overrides))

    def transcribe(self, audio: str | os.PathLike[str] | ArrayLike, rate: int = constants.SAMPLE_RATE) -> Notes:
        """The notes of a recording.

        Args:
            audio: A file, which is read piece by piece, however long it is; or samples, `[samples]` or `[samples, channels]`,
                float in [-1, 1] or signed integers of their type's full range.
            rate: Of samples, Hz; a file knows its own.

        Raises:
            AudioError: The file cannot be read, or the samples are no sound.
        """
        if isinstance(audio, str | os.PathLike):
            return transcribe.transcribe(self._loaded.model, reading.of_file(audio), self._loaded.hparams)
        samples = reading.convert(audio, rate)
        pieces = [samples[start : start + _PIECE] for start in range(0, len(samples), _PIECE)]
        return transcribe.transcribe(self._loaded.model, lambda: pieces, self._loaded.hparams)
