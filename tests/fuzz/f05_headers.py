"""F5: any text as a header field is one field, which reads back as the text; or it is refused."""

from __future__ import annotations

import re
from email.header import decode_header, make_header

from asyncsmtp.errors import MessageError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["target"]

BOB = Mailbox.parse("bob@x.example")
MAX_LINE = 998  # octets


def target(data: bytes) -> None:
    """The first octet says which kind of field; the rest is its text in UTF-8."""
    if not data:
        return
    text = data[1:].decode("utf-8", "replace")
    kinds = (_text, _name, _tokens)
    refusal = ""
    try:
        kinds[data[0] % len(kinds)](text)
    except MessageError as error:
        refusal = str(error)
    assert refusal.isprintable()


def _text(text: str) -> None:
    value = one_field(headers.format_unstructured("Subject", text), b"Subject:")
    assert decoded(value) == text.strip(" \t")


def _name(text: str) -> None:
    value = one_field(headers.format_addresses("To", [Address(text, BOB)]), b"To:")
    assert value.endswith("bob@x.example>" if text.strip(" \t") else "bob@x.example")
    phrase = value.removesuffix("<bob@x.example>").removesuffix("bob@x.example").strip(" ")
    if phrase.startswith('"'):
        assert re.sub(r"\\(.)", r"\1", phrase[1:-1]) == text.strip(" \t")
    else:
        assert decoded(phrase) == text.strip(" \t")


def _tokens(text: str) -> None:
    value = one_field(headers.format_tokens("References", text), b"References:")
    assert value.split() == text.strip(" \t").split()


def one_field(field: bytes, name: bytes) -> str:
    """The value of what must be one field in canonical lines, unfolded."""
    assert field.startswith(name)
    assert field.endswith(b"\r\n")
    lines = field[:-2].split(b"\r\n")
    assert all(
        len(line) <= MAX_LINE and b"\r" not in line and b"\n" not in line and b"\0" not in line for line in lines
    )
    assert all(line[:1] in b" \t" and line.strip() for line in lines[1:])
    return b"".join(lines).removeprefix(name).decode("utf-8").strip(" \t")


def decoded(value: str) -> str:
    return str(make_header(decode_header(value))) if "=?" in value else value
