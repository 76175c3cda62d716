"""F7: fields and bodies in DKIM's relaxed form are what dkimpy makes of them, wherever a body is cut."""

from __future__ import annotations

import hashlib
import re

from dkim.canonicalization import Relaxed

from asyncsmtp.mail.signing.dkim import BodyHash, fields_of, relaxed_field

__all__ = ["target"]


NAME = re.compile(rb"[!-9;-~]+[ \t]*")


def target(data: bytes) -> None:
    """The first octet says how long the pieces are; then a header section, an empty line, a body."""
    if not data:
        return
    size = data[0] % 16 + 1
    # White space is a space or a tab (RFC 6376 §2.8); to dkimpy it is whatever a pattern calls so.
    plain = data[1:].replace(b"\r", b"\n").translate(None, b"\0\x0b\x0c")
    canonical = b"\r\n".join(plain.split(b"\n")) + b"\r\n"
    section, _, body = canonical.partition(b"\r\n\r\n")
    check_body(body, size)
    check_fields(section)


def check_body(body: bytes, size: int) -> None:
    theirs = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    for pieces in ([body], [body[at : at + size] for at in range(0, len(body), size)]):
        ours = BodyHash()
        for piece in pieces:
            ours.update(piece)
            assert ours.copy().digest() == ours.digest()
        assert ours.digest() == theirs


def check_fields(section: bytes) -> None:
    for name, field in fields_of(section + b"\r\n"):
        raw_name, colon, value = field.partition(b":")
        if not (colon and NAME.fullmatch(raw_name) and field.isascii()):
            continue  # no field
        assert name == raw_name.rstrip(b" \t").lower()
        ((their_name, their_value),) = Relaxed.canonicalize_headers([(raw_name, value + b"\r\n")])
        assert relaxed_field(field) + b"\r\n" == their_name + b":" + their_value
