"""A text as a part of a message, encoded once as far as it is the same for everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.headers import encode
from asyncsmtp.mail.mime import (
    Entity,
    Piece,
    RowValues,
    SlotEncoder,
    TransferEncoding,
    lines,
    quoted_printable,
    soft_broken,
    text_entity,
    text_fields,
)
from asyncsmtp.mail.templates.environment import MAX_OUTPUT
from asyncsmtp.mail.templates.slots import Slot, SlottedText

__all__ = ["text_part"]

REACH = 120  # characters of a literal that are encoded again with the slot beside them
WORTH = 80  # characters that make a cut worth it


def text_part(subtype: str, text: SlottedText, file: str) -> Entity:
    """A text with slots: quoted-printable around them, or base64 when the literals ask for it.

    Args:
        file: what a MessageError names when a filler is called and a value cannot stand in a text.
    """
    if (constant := text.constant) is not None:
        return text_entity(subtype, constant)
    pieces = [lines(piece) if isinstance(piece, str) else piece for piece in text.pieces]
    if not (isinstance(pieces[-1], str) and pieces[-1].endswith("\n")):
        pieces.append("\n")
    text = SlottedText(pieces)
    transfer = TransferEncoding.of_any(text.literals)
    if transfer is TransferEncoding.BASE64:
        return text_fields(subtype, transfer), _filler(text, transfer.apply, file)
    return text_fields(subtype, transfer), *(_quoted(block, file) for block in _blocks(text.pieces))


def _blocks(pieces: Sequence[str | Slot]) -> Iterator[SlottedText]:
    """Cut between blocks that are encoded apart, at a line end where one is near.

    A literal is cut in the neighbourhood of its slots: what is left in the middle is a block that never
    changes, encoded once.
    """
    block: list[str | Slot] = []
    for index, piece in enumerate(pieces):
        if not isinstance(piece, str):
            block.append(piece)
            continue
        head = _line_end_after(piece) if index else 0
        tail = _line_begin_before(piece) if index < len(pieces) - 1 else len(piece)
        if tail - head < WORTH:
            block.append(piece)
            continue
        if block or head:
            yield SlottedText([*block, piece[:head]])
        yield SlottedText([piece[head:tail]])
        block = [piece[tail:]] if piece[tail:] else []
    if block:
        yield SlottedText(block)


def _line_end_after(literal: str) -> int:
    """Where the line of the slot before it ends, or far enough from it."""
    return literal.find("\n", 0, REACH) + 1 or min(REACH, len(literal))


def _line_begin_before(literal: str) -> int:
    """Where the line of the slot after it begins, or far enough from it."""
    return literal.rfind("\n", max(len(literal) - REACH, 0)) + 1 or max(len(literal) - REACH, 0)


def _quoted(block: SlottedText, file: str) -> Piece:
    last = block.pieces[-1]
    write = _whole_lines if isinstance(last, str) and last.endswith("\n") else _cut_line
    return write(block.literals) if block.constant is not None else _filler(block, write, file)


def _whole_lines(text: str) -> bytes:
    return quoted_printable(encode(text))


def _cut_line(text: str) -> bytes:
    return soft_broken(encode(text))


def _filler(text: SlottedText, write: Callable[[str], bytes], file: str) -> SlotEncoder:
    def fill(filling: RowValues) -> bytes:
        filled = text(filling)
        try:
            if len(filled) > MAX_OUTPUT:
                raise MessageError(f"more than {MAX_OUTPUT >> 20} MiB of text")
            return write(lines(filled))
        except MessageError as error:
            raise MessageError(str(error), file) from error

    return fill
