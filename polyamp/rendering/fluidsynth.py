"""FluidSynth, the program that plays MIDI files with SoundFonts."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from polyamp import constants
from polyamp.errors import PolyampError

_RENDER_RATE = 44_100  # Hz; lower, FluidSynth would alias.


def check_installed() -> None:
    """Raises `PolyampError` that says what to install."""
    if shutil.which("fluidsynth") is None:
        raise PolyampError("the program fluidsynth is not installed; on Debian: apt-get install fluidsynth fluid-soundfont-gm.")


def render(midi: Path, soundfont: Path, room: bool, name: str, timeout: float) -> np.ndarray:
    """What FluidSynth makes of a MIDI file: float32 [samples] at 16 kHz.

    Args:
        midi: The file.
        soundfont: What to play it with.
        room: Whether with reverb.
        name: What error messages call the file.
        timeout: Seconds after which FluidSynth counts as hung.

    Raises:
        PolyampError: It failed or did not end in time.
    """
    import soxr

    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "out.wav"
        options = ["-ni", "-q", "-R", str(int(room)), "-C", "0", "-r", str(_RENDER_RATE), "-g", "0.4"]
        options += ["-T", "wav", "-F", str(wav)]
        options += ["-o", "synth.dynamic-sample-loading=1"]  # Of a large SoundFont only what the piece needs.
        try:
            subprocess.run(
                ["fluidsynth", *options, str(soundfont), str(midi)],
                check=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
        except (OSError, subprocess.SubprocessError, soundfile.LibsndfileError) as error:
            reason = f"not done after {timeout:g} s" if isinstance(error, subprocess.TimeoutExpired) else error
            raise PolyampError(f"{name}: FluidSynth could not render it with {soundfont.name} ({reason}).") from error
    return soxr.resample(samples.mean(axis=1), rate, constants.SAMPLE_RATE).astype(np.float32)
