"""What MP3 and Ogg files say of how long they are, beyond what libsndfile makes of it."""

import os
from pathlib import Path

_ID3, _ID3_HEADER = b"ID3", 10
_LENGTH_TAGS = (b"Xing", b"Info")  # In the first frame of files whose encoder could go back to it.
_HAS_FRAMES, _HAS_BYTES = 1, 2
_SLACK_BYTES = 4096  # Of tags after the sound.
_OGG_HEADER = 27
_BEGIN_OF_STREAM = 2


def tells_its_length(name: str | os.PathLike[str]) -> bool:
    """Whether the first frame of an MP3 file says how many follow, and that they are the whole file.

    Where it does not, libsndfile guesses from the rate of the first frames, and reads no further than that.
    """
    with open(name, "rb") as file:
        start = 0
        while (header := file.read(_ID3_HEADER))[:3] == _ID3 and len(header) == _ID3_HEADER:
            start += _ID3_HEADER + sum(byte << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
            file.seek(start)
        file.seek(start)
        head = file.read(2048)
    for tag in _LENGTH_TAGS:
        at = head.find(tag)
        if at >= 0:
            flags, _, size = (int.from_bytes(head[at + skip : at + skip + 4], "big") for skip in (4, 8, 12))
            is_whole = not flags & _HAS_BYTES or start + size + _SLACK_BYTES >= os.path.getsize(name)
            return bool(flags & _HAS_FRAMES) and is_whole
    return b"VBRI" in head


def is_chained(name: str | os.PathLike[str]) -> bool:
    """Whether an Ogg file is several ones after each other, of which libsndfile reads the first."""
    with Path(name).open("rb") as file:
        has_begun = False
        while (header := file.read(_OGG_HEADER))[:4] == b"OggS" and len(header) == _OGG_HEADER:
            begins = bool(header[5] & _BEGIN_OF_STREAM)
            if begins and has_begun:
                return True
            has_begun |= not begins  # Streams that sound together begin before any goes on.
            file.seek(sum(file.read(header[26])), os.SEEK_CUR)
    return False
