"""F6: content framed for DATA and for BDAT, by whichever pieces, is the content again for whoever unframes it."""

from __future__ import annotations

from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.content import Content, dot_stuff, split_chunks

__all__ = ["target"]


def target(data: bytes) -> None:
    """The first octet says how long the pieces are; the rest is the content, its line ends made right."""
    if not data:
        return
    size = data[0] % 32 + 1
    try:
        content = bytes(Content.of(data[1:], fix_eols=True))
    except MessageError:
        return  # a NUL, or a line too long
    assert content.endswith(b"\r\n")
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    image = b"".join(dot_stuff(parts)) + b".\r\n"
    assert image == b"".join(dot_stuff([content])) + b".\r\n"
    assert (b"\r\n" + image).count(b"\r\n.\r\n") == 1
    assert undo(image) == content
    cut = list(split_chunks(parts, size))
    assert b"".join(cut) == content
    assert all(len(chunk) == size for chunk in cut[:-1])


def undo(image: bytes) -> bytes:
    """RFC 5321 §4.5.2 as the receiver must do it, line by line."""
    lines = image.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""]
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])
