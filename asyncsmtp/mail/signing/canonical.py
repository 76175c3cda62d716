"""The relaxed canonical form of fields and bodies, in which DKIM signs them (RFC 6376 §3.4.2, §3.4.4).

Octets in, octets out; line ends are CRLF, as in every `Content`.
"""

from __future__ import annotations

import re
from hashlib import sha256

__all__ = ["BodyHash", "fields_of", "relaxed_field"]

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_BLANK = b" \t\r\n"


def fields_of(section: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a header section, each as its name in lower case and its octets without the last CRLF."""
    fields = [field for field in _FIELD_END.split(section) if field]
    return [(field.partition(b":")[0].rstrip(b" \t").lower(), field) for field in fields]


def relaxed_field(field: bytes) -> bytes:
    """Name in lower case, unfolded, each white space one space, none at the ends or around the colon; no CRLF."""
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + _single_spaced(value.replace(b"\r\n", b"")).strip(b" ")


class BodyHash:
    """SHA-256 of a body's relaxed form: each white space one space, none before a line end, no empty lines at the end.

    The body comes in parts, wherever they are cut; a state can be kept and gone on from (`copy`).
    """

    __slots__ = ("_begun", "_blank", "_hash")

    def __init__(self) -> None:
        self._hash = sha256()
        self._blank = b""  # the end so far, which counts only if something follows it
        self._begun = False

    def copy(self) -> BodyHash:
        """The same state, to go on from twice."""
        twin = BodyHash()
        twin._hash, twin._blank, twin._begun = self._hash.copy(), self._blank, self._begun
        return twin

    def update(self, part: bytes) -> None:
        """Take the next part."""
        octets = self._blank + part if self._blank else part
        kept = octets.rstrip(_BLANK)
        self._blank = octets[len(kept) :]
        if kept:
            self._hash.update(_relaxed(kept))
            self._begun = True

    def digest(self) -> bytes:
        """The hash of all that came; a body of nothing but blanks is an empty one (§3.4.4)."""
        if not self._begun:
            return sha256().digest()
        whole = self._hash.copy()
        whole.update(b"\r\n")
        return whole.digest()


def _relaxed(octets: bytes) -> bytes:
    """Octets that end with what is no blank, so that nothing behind them can change how they are written."""
    return _single_spaced(octets).replace(b" \r\n", b"\r\n")


def _single_spaced(octets: bytes) -> bytes:
    """Most of what is signed, base64 above all, has no such blanks; looking for them costs next to nothing."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets
