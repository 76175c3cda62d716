"""Text parts of a template: the fixed text is encoded once, the slots and their surroundings for each row."""

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

MAX_RECODED_LITERAL = 120  # characters beside a slot that are encoded again with it for each row
MIN_BLOCK_LENGTH = 80  # shorter literals are encoded again: cutting them saves nothing


def text_part(subtype: str, text: SlottedText, file: str) -> Entity:
    """Return a text part with slots: quoted-printable around them, or base64 if that is shorter for the literals.

    Args:
        file: the name in the MessageError of a slot encoder whose value cannot be encoded.
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
    """Split into blocks that are encoded apart, at a line end if one is near.

    A literal is cut near its slots: the middle of it becomes a block that never changes and is encoded once.
    """
    # Quoted-printable breaks lines at 76 bytes, so the length of a value shifts the breaks behind it, up to the next
    # line end. Everything from the beginning of a slot's line to its end must therefore be encoded with the value,
    # for each row; text further away is the same for every row. Where no line end is near, the text is cut after
    # MAX_RECODED_LITERAL characters instead and the part before the cut ends with a soft line break, which the reader
    # removes. Either way the next block begins at the beginning of a line, and blocks can be encoded apart.
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
    """Return the index behind the line of the slot before the literal, at most `MAX_RECODED_LITERAL`."""
    return literal.find("\n", 0, MAX_RECODED_LITERAL) + 1 or min(MAX_RECODED_LITERAL, len(literal))


def _line_begin_before(literal: str) -> int:
    """Return the index of the beginning of the line of the slot behind the literal, within the same limit."""
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
                raise MessageError(f"the text has more than {MAX_OUTPUT >> 20} MiB")
            return write(normalize_line_ends(filled))
        except MessageError as error:
            raise MessageError(str(error), file) from error

    return fill
