"""Filling: all that may differ between two messages of one template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["Filler", "Filling", "Piece"]


class Filling:
    """What one message is filled with: the recipient, the fields of its row, its Message-ID and Date."""

    __slots__ = ("_names", "_variables", "date", "fields", "message_id", "to")

    def __init__(
        self, to: Mailbox, fields: Mapping[str, str], message_id: str, date: datetime, names: Mapping[str, str]
    ) -> None:
        self.to = to
        self.fields = fields
        self.message_id = message_id
        self.date = date
        self._names = names
        self._variables: dict[str, object] | None = None

    @property
    def variables(self) -> dict[str, object]:
        """The names a template may use, built when the first slot needs more than one field."""
        if self._variables is None:
            fields = self.fields
            self._variables = {name: fields[column] for name, column in self._names.items() if column in fields}
            self._variables["row"] = dict(fields)
        return self._variables

    def field(self, column: str) -> str:
        try:
            return self.fields[column]
        except KeyError:
            raise MessageError(f"the column “{column}” has no value in this row") from None


Filler = Callable[[Filling], bytes]
Piece = bytes | Filler
