"""A small PNG, drawn in code: the sample's logo (an envelope), so that no binary file is shipped."""

from __future__ import annotations

import struct
import zlib

__all__ = ["logo"]

WIDTH, HEIGHT = 160, 100  # pixels
_PAPER, _EDGE, _SEAL, _NONE = range(4)
_PALETTE = bytes((255, 255, 255, 37, 84, 150, 214, 69, 65, 0, 0, 0))
_ALPHA = bytes((255, 255, 255, 0))


def logo() -> bytes:
    """An envelope with a seal, as a PNG with transparent corners (ISO/IEC 15948)."""
    rows = b"".join(b"\0" + bytes(_pixel(x, y) for x in range(WIDTH)) for y in range(HEIGHT))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)  # eight bits an index into the palette
    chunks = (
        (b"IHDR", header),
        (b"PLTE", _PALETTE),
        (b"tRNS", _ALPHA),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixel(x: int, y: int) -> int:
    from_left, from_top = min(x, WIDTH - 1 - x), min(y, HEIGHT - 1 - y)
    if (8 - from_left) ** 2 + (8 - from_top) ** 2 > 64 and from_left < 8 and from_top < 8:
        return _NONE
    flap = 8 + from_left * (HEIGHT * 0.55) / (WIDTH / 2)  # the slanted line from a corner to the middle
    if (x - WIDTH / 2) ** 2 + (y - HEIGHT * 0.6) ** 2 < 14**2:
        return _SEAL
    return _EDGE if from_left < 5 or from_top < 5 or abs(y - flap) < 3 else _PAPER
