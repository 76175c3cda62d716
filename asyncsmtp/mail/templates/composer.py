"""Composer: a compiled template, filled in for one recipient after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.filling import Filling, Piece
from asyncsmtp.mail.unsubscribe import UNSUBSCRIBE_URL
from asyncsmtp.mail.words import UnfitCharacter
from asyncsmtp.protocol.content import Content, has_dots
from asyncsmtp.protocol.envelope import Envelope, Mailbox

if TYPE_CHECKING:
    from asyncsmtp.mail.returnpath import ReturnPath
    from asyncsmtp.mail.signing.dkim import Signer
    from asyncsmtp.mail.signing.smime import Seal
    from asyncsmtp.mail.unsubscribe import Unsubscribe

__all__ = ["Composer"]

SHARED = 2048  # octets from which a piece is a part of its own: handing it on beats copying it


class Composer:
    """Made by `Template.compile`. The octets that all messages share are the same `bytes` in all of them."""

    def __init__(
        self,
        author: Mailbox,
        head: Sequence[Piece],
        body: Sequence[Piece],
        names: Mapping[str, str],
        signer: Signer | None = None,
        *,
        unsubscribe: Unsubscribe | None = None,
        return_path: ReturnPath | None = None,
        seal: Seal | None = None,
    ) -> None:
        self._author = author
        self._head = _joined(head)
        self._body = tuple(_gathered(body))
        self._dotted = any(has_dots(piece) for piece in self._body if isinstance(piece, bytes))
        self._names = names
        self._signer = signer
        self._unsubscribe = unsubscribe
        self._return_path = return_path
        self._seal = seal

    @property
    def author(self) -> Mailbox:
        """The mailbox in From, which is the reverse-path as well unless there is a return path."""
        return self._author

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        """The message for one recipient; the same arguments give the same octets.

        Args:
            fields: column to cell, as text. A cell is a value: nothing in it is interpreted.
            message_id: left@right, without angle brackets.
            row: named by the error, if there is one.
        Raises:
            RecipientError: this row cannot be composed: a line break in a header, a missing value, a
                character no encoding can carry, a condition or calculation that fails.
        """
        if self._unsubscribe is not None:
            fields = {**fields, UNSUBSCRIBE_URL: self._unsubscribe.url_of(to)}
        filling = Filling(to, fields, message_id, date, self._names)
        try:
            head = _filled(self._head, filling)
            parts = [head]
            dotted = self._dotted or has_dots(head)
            for piece in self._body:
                if isinstance(piece, bytes):
                    parts.append(piece)
                else:
                    parts.append(filled := piece(filling))
                    dotted = dotted or has_dots(filled)
        except RecipientError as error:
            raise RecipientError(error.reason, row) from error
        except MessageError as error:
            raise RecipientError(f"{error}{_suspect(error, fields)}", row) from error
        beyond_ascii = not head.isascii()  # bodies never are: the encodings see to it
        content = Content(tuple(parts), sum(map(len, parts)), beyond_ascii, beyond_ascii, dotted=dotted)
        if self._seal is not None:
            content = self._seal.signed(content)
        if self._signer is not None:  # over what became of the body
            content = self._signer.signed(content, date)
        reverse_path = self._author if self._return_path is None else self._return_path.of(message_id)
        return Message(Envelope(reverse_path, (to,)), content)


def _filled(piece: Piece, filling: Filling) -> bytes:
    return piece if isinstance(piece, bytes) else piece(filling)


def _gathered(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Large octets by themselves; what is small, or filled, joined with its neighbours."""
    for shared, group in groupby(pieces, lambda piece: isinstance(piece, bytes) and len(piece) >= SHARED):
        if shared:
            yield from group
        else:
            yield _joined(list(group))


def _joined(pieces: Sequence[Piece]) -> Piece:
    """One piece of many: octets if all are, otherwise a filler."""
    run: list[Piece] = []
    for piece in pieces:
        if run and isinstance(piece, bytes) and isinstance(run[-1], bytes):
            run[-1] += piece
        else:
            run.append(piece)
    if all(isinstance(piece, bytes) for piece in run):
        return b"".join(piece for piece in run if isinstance(piece, bytes))
    return lambda filling: b"".join([piece if isinstance(piece, bytes) else piece(filling) for piece in run])


def _suspect(error: BaseException | None, fields: Mapping[str, str]) -> str:
    """The column that holds the character an error is about, for the sentence that complains."""
    while error is not None and not isinstance(error, UnfitCharacter):
        error = error.__cause__
    columns = [] if error is None else [column for column, value in fields.items() if error.character in value]
    return f" (look at the column “{columns[0]}”)" if columns else ""
