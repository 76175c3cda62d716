"""A text as a part of a message, encoded once as far as it is the same for everyone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.headers import encode_utf8
from asyncsmtp.mail.mime import (
    Entity,
    Piece,
    RowValues,
    SlotEncoder,
    TransferEncoding,
    build_text_entity,
    encode_quoted_printable,
    encode_with_soft_break,
    format_text_headers,
    normalize_line_ends,
)
from asyncsmtp.mail.templates.environment import MAX_OUTPUT
from asyncsmtp.mail.templates.slots import Slot, SlottedText

__all__ = ["text_part"]

MAX_RECODED_LITERAL = 120  # characters of a literal that are encoded again with the slot beside them
MIN_BLOCK_LENGTH = 80  # characters that make a cut worth it


def text_part(subtype: str, text: SlottedText, file: str) -> Entity:
    """A text with slots: quoted-printable around them, or base64 when the literals ask for it.

    Args:
        file: what a MessageError names when a filler is called and a value cannot stand in a text.
    """
    if (constant := text.constant) is not None:
        return build_text_entity(subtype, constant)
    pieces = [normalize_line_ends(piece) if isinstance(piece, str) else piece for piece in text.pieces]
    if not (isinstance(pieces[-1], str) and pieces[-1].endswith("\n")):
        pieces.append("\n")
    text = SlottedText(pieces)
    transfer = TransferEncoding.of_any(text.literals)
    if transfer is TransferEncoding.BASE64:
        return format_text_headers(subtype, transfer), _make_slot_encoder(text, transfer.apply, file)
    return format_text_headers(subtype, transfer), *(_encode_block(block, file) for block in _split_blocks(text.pieces))


def _split_blocks(pieces: Sequence[str | Slot]) -> Iterator[SlottedText]:
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
        if tail - head < MIN_BLOCK_LENGTH:
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
    return literal.find("\n", 0, MAX_RECODED_LITERAL) + 1 or min(MAX_RECODED_LITERAL, len(literal))


def _line_begin_before(literal: str) -> int:
    """Where the line of the slot after it begins, or far enough from it."""
    return literal.rfind("\n", max(len(literal) - MAX_RECODED_LITERAL, 0)) + 1 or max(
        len(literal) - MAX_RECODED_LITERAL, 0
    )


def _encode_block(block: SlottedText, file: str) -> Piece:
    last = block.pieces[-1]
    write = _encode_whole_lines if isinstance(last, str) and last.endswith("\n") else _encode_cut_line
    return write(block.literals) if block.constant is not None else _make_slot_encoder(block, write, file)


def _encode_whole_lines(text: str) -> bytes:
    return encode_quoted_printable(encode_utf8(text))


def _encode_cut_line(text: str) -> bytes:
    return encode_with_soft_break(encode_utf8(text))


def _make_slot_encoder(text: SlottedText, write: Callable[[str], bytes], file: str) -> SlotEncoder:
    def fill(filling: RowValues) -> bytes:
        filled = text(filling)
        try:
            if len(filled) > MAX_OUTPUT:
                raise MessageError(f"more than {MAX_OUTPUT >> 20} MiB of text")
            return write(normalize_line_ends(filled))
        except MessageError as error:
            raise MessageError(str(error), file) from error

    return fill
