"""A relay's input: octets to lines, content and chunks (RFC 5321 §2.3.8, §4.5.2; RFC 3030 §2)."""

from __future__ import annotations

__all__ = ["Input"]

END_OF_DATA = b"\r\n.\r\n"


class Input:
    """What was read and not yet looked at. Only CR LF ends a line; a bare CR or LF is an octet like others."""

    __slots__ = ("_buffer", "_dropped", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._dropped = False

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def peek(self) -> bytes:
        return bytes(self._buffer)

    def clear(self) -> None:
        self._buffer.clear()
        self._searched = 0
        self._dropped = False

    def line(self) -> bytes | None:
        """The next line without its CR LF, or None until it is complete."""
        end = self._buffer.find(b"\r\n", self._searched)
        if end < 0:
            self._searched = max(len(self._buffer) - 1, 0)
            return None
        return self._take(end, 2)

    def chunk(self, octets: int) -> bytes | None:
        """So many octets, whatever they are, or None until they are all there."""
        return self._take(octets, 0) if len(self._buffer) >= octets else None

    def content(self, limit: int) -> tuple[bytes, bool] | None:
        """The content up to its end of data, transparency undone, or None until it is complete.

        With it comes whether it stayed within `limit` octets; beyond that it is dropped as it comes in, and empty.
        """
        if not self._dropped and self._buffer.startswith(b".\r\n"):
            return self._take(0, 3), True
        end = self._buffer.find(END_OF_DATA, self._searched)
        if end < 0:
            self._search_on(limit)
            return None
        octets = _undo_transparency(self._take(end + 2, 3))
        fits = not self._dropped and len(octets) <= limit
        self._dropped = False
        return (octets, True) if fits else (b"", False)

    def _search_on(self, limit: int) -> None:
        overlap = len(END_OF_DATA) - 1
        if len(self._buffer) > 2 * limit + overlap:  # transparency at most doubles it
            del self._buffer[:-overlap]
            self._dropped = True
        self._searched = max(len(self._buffer) - overlap, 0)

    def _take(self, octets: int, end: int) -> bytes:
        taken = bytes(self._buffer[:octets])
        del self._buffer[: octets + end]
        self._searched = 0
        return taken


def _undo_transparency(octets: bytes) -> bytes:
    """Delete the dot that begins a line (RFC 5321 §4.5.2)."""
    if b"\r\n." in octets:
        octets = octets.replace(b"\r\n.", b"\r\n")
    return octets[1:] if octets[:1] == b"." else octets
