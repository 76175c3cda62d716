"""Where a shared ledger is: a database, and the campaign in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from asyncsmtp.errors import BadArgument

__all__ = ["SCHEMES", "Database"]

SCHEMES = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Database:
    """A campaign's place in a database of PostgreSQL.

    Attributes:
        url: as libpq has it (PostgreSQL documentation, 34.1.1.2), without a password: that is the driver's to find,
            in `PGPASSWORD` or in `~/.pgpass`.
        campaign: the campaign's name; "" where nobody said.
    """

    url: str
    campaign: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `postgresql://user@host/database#campaign`.

        Raises:
            BadArgument: it is no such URL, or there is a password in it, which is not repeated.
        """
        if not text.startswith(SCHEMES):
            raise BadArgument("the ledger's URL must begin with postgresql://")
        try:
            parts = urlsplit(text)
            secret = parts.password is not None or any("password" in key for key in parse_qs(parts.query))
        except ValueError:
            raise BadArgument("the ledger's URL cannot be read: write postgresql://user@host/database") from None
        if secret:
            raise BadArgument(
                "there is a password in the ledger's URL, where others can read it: change it, leave it out of the URL,"
                " and put the new one into ~/.pgpass or PGPASSWORD"
            )
        return cls(text.partition("#")[0], unquote(parts.fragment))

    def __str__(self) -> str:
        return f"{self.url}#{self.campaign}" if self.campaign else self.url
