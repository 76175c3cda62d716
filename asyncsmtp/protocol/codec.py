"""Content that comes in blocks: checked, mended and made transparent as it passes, wherever it is cut."""

from __future__ import annotations

import re

from asyncsmtp.errors import MessageError

__all__ = ["Canonical", "Transparency"]

MAX_LINE = 998  # octets without CRLF, RFC 5322 §2.1.1

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Transparency:
    """Doubles the dot that begins a line (RFC 5321 §4.5.2); remembers whether a line begins."""

    __slots__ = ("_line_begins",)

    def __init__(self) -> None:
        self._line_begins = True

    def pass_on(self, block: bytes) -> bytes:
        """The block as it stands behind DATA; without such a dot it is passed on uncopied."""
        if not block:
            return block
        doubled = block.replace(b"\n.", b"\n..") if b"\n." in block else block
        if self._line_begins and block[0] == 0x2E:
            doubled = b"." + doubled
        self._line_begins = block[-1] == 0x0A
        return doubled


class Canonical:
    """Lets blocks of octets pass that are right, and says where they are not (RFC 5321 §2.3.8).

    What it has let pass, and what `end` returns, has CRLF and no other CR or LF, no NUL, no line over 998 octets, and
    a CRLF at its end.

    Args:
        fix_eols: whether other line ends become CRLF; without it they are an error.
    Attributes:
        size: octets so far, as declared by SIZE. eight_bit: whether one of them is above 127.
        utf8_headers: whether one of the header section is.
    """

    def __init__(self, *, fix_eols: bool = False) -> None:
        self.size = 0
        self.eight_bit = False
        self.utf8_headers = False
        self._fix_eols = fix_eols
        self._held = b""  # a CR whose LF may begin the next block
        self._line = 0  # octets of the line that has not ended
        self._last = b""  # the last octets of the header section, in which its end may be cut
        self._in_headers = True

    def pass_on(self, block: bytes) -> bytes:
        """The block, less what can be judged only with the next one, and with what was held before.

        Raises:
            MessageError: a bare CR or LF, a NUL or a line too long, with the octet at which it stands.
        """
        block = self._held + block
        self._held = b""
        if block.endswith(b"\r"):
            self._held, block = b"\r", block[:-1]
        return self._judge(block)

    def end(self) -> bytes:
        """What is still missing: the line end that was held or not there.

        Raises:
            MessageError: as above.
        """
        held, self._held = self._held, b""
        rest = self._judge(held)
        ended = self.size > 0 and self._line == 0
        return rest if ended else rest + self._judge(b"\r\n")

    def _judge(self, block: bytes) -> bytes:
        if self._fix_eols:
            block = _ANY_LINE_END.sub(b"\r\n", block)
        elif found := _BARE.search(block):
            name = "CR" if found[0] == b"\r" else "LF"
            raise MessageError(f"a bare {name} at octet {self.size + found.start()} of the content: use fix_eols=True")
        if b"\0" in block:
            place = self.size + block.index(0)
            raise MessageError(f"a NUL at octet {place} of the content: encode the part as base64")
        self._measure(block)
        if not block.isascii():
            self.eight_bit = True
        if self._in_headers:
            self._look_for_the_body(block)
        self.size += len(block)
        return block

    def _measure(self, block: bytes) -> None:
        lines = block.split(b"\r\n")
        lengths = [self._line + len(lines[0]), *map(len, lines[1:])]
        if max(lengths) > MAX_LINE:
            raise MessageError(
                f"a line of more than {MAX_LINE} octets ends at or behind octet {self.size} of the content: "
                "encode the part as quoted-printable or base64"
            )
        self._line = lengths[-1]

    def _look_for_the_body(self, block: bytes) -> None:
        seen = self._last + block
        end = 0 if self.size == 0 and block.startswith(b"\r\n") else seen.find(b"\r\n\r\n")
        self._in_headers = end < 0
        self.utf8_headers |= not (seen if end < 0 else seen[:end]).isascii()
        self._last = seen[-3:]
