"""How long MP3 and Ogg files are, where libsndfile does not read them to their end."""

import os
from typing import BinaryIO

_ID3, _ID3_HEADER = b"ID3", 10  # A tag before the sound, or between joined files.
_OLD_TAG, _OLD_TAG_BYTES = b"TAG", 128  # One after it.
# Of layer III by MPEG version, as headers number them: sample rates in Hz, kbit/s, and samples in a frame.
_LOW_RATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_VERSIONS = {
    3: ((44_100, 48_000, 32_000), (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320), 1152),
    2: ((22_050, 24_000, 16_000), _LOW_RATES, 576),
    0: ((11_025, 12_000, 8_000), _LOW_RATES, 576),
}
_LAYER_3 = 1
_OGG_HEADER = 27
_BEGIN_OF_STREAM = 2


def mp3_samples(name: str | os.PathLike[str]) -> int:
    """Samples of each channel that the frames of an MP3 file hold, as far as one follows the other; tags do not count.

    Without a tag of its encoder libsndfile guesses the length from the first frames, and reads no further; with one it reads
    what that says, although another file may have been joined to it.
    """
    samples = 0
    with open(name, "rb") as file:
        while size := _unit(file):
            length, of_frame = size
            samples += of_frame
            file.seek(length, os.SEEK_CUR)
    return samples


def _unit(file: BinaryIO) -> tuple[int, int] | None:
    """Bytes of the frame or tag that begins here, and samples in it; None for anything else. The file stays where it is."""
    header = file.read(_ID3_HEADER)
    file.seek(-len(header), os.SEEK_CUR)
    if header.startswith(_ID3) and len(header) == _ID3_HEADER:
        return _ID3_HEADER + sum(byte << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True)), 0
    if header.startswith(_OLD_TAG):
        return _OLD_TAG_BYTES, 0
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, sample_rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version not in _VERSIONS or layer != _LAYER_3 or not 0 < bit_rate < 15 or sample_rate == 3:
        return None
    sample_rates, bit_rates, samples = _VERSIONS[version]
    return samples // 8 * 1000 * bit_rates[bit_rate] // sample_rates[sample_rate] + padding, samples


def is_chained(name: str | os.PathLike[str]) -> bool:
    """Whether an Ogg file is several ones after each other, of which libsndfile reads the first."""
    with open(name, "rb") as file:
        has_begun = False
        while (header := file.read(_OGG_HEADER))[:4] == b"OggS" and len(header) == _OGG_HEADER:
            begins = bool(header[5] & _BEGIN_OF_STREAM)
            if begins and has_begun:
                return True
            has_begun |= not begins  # Streams that sound together begin before any goes on.
            file.seek(sum(file.read(header[26])), os.SEEK_CUR)
    return False
