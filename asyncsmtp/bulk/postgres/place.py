"""Where a shared ledger is: a database, and the campaign in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from asyncsmtp.errors import InvalidArgument

__all__ = ["SCHEMES", "Database"]

SCHEMES = ("postgresql://", "postgres://")

# Also one with /, ? or # in it, which no URL may have: behind a port there may be an @ only in what follows the ?.
_PASSWORD = re.compile(r"\w+://[^@:/?#]*:(?:(?!\d{1,5}(?:,[^@/?#]*)?[/?#])[^@]*|[^@?]*)@")


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
            InvalidArgument: it is no such URL, or there is a password in it, which is not repeated.
        """
        if not text.startswith(SCHEMES):
            raise InvalidArgument("the ledger's URL must begin with postgresql://")
        if _PASSWORD.match(text) or "password=" in text.lower():
            raise InvalidArgument(
                "there is a password in the ledger's URL, where others can read it: change it, leave it out of the URL,"
                " and put the new one into ~/.pgpass or PGPASSWORD"
            )
        url, _, campaign = text.partition("#")
        return cls(url, unquote(campaign))

    def __str__(self) -> str:
        return f"{self.url}#{self.campaign}" if self.campaign else self.url
