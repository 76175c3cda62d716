"""A ledger in a database that machines share (PostgreSQL), and `Database`, the URL of a campaign in it.

`Database` is here because options and campaign files name a ledger by it: it must not import the driver, which is
optional, and which would make every command start later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from asyncsmtp.errors import InvalidArgument

__all__ = ["COLUMNS", "LISTS_STORED", "SCHEMES", "Database"]

COLUMNS = "columns"  # name of the stored value: what workers must know of the recipients' file
LISTS_STORED = "suppression lists"  # and that of the table `suppressed`: it changes whenever entries are stored

SCHEMES = ("postgresql://", "postgres://")

# Also a password with /, ? or # in it, which no URL may have: after a port, an @ may stand only in what follows the ?.
_PASSWORD = re.compile(r"\w+://[^@:/?#]*:(?:(?!\d{1,5}(?:,[^@/?#]*)?[/?#])[^@]*|[^@?]*)@")


@dataclass(frozen=True, slots=True)
class Database:
    """URL of a PostgreSQL database, and the name of a campaign in it.

    Attributes:
        url: as libpq has it (PostgreSQL documentation, 34.1.1.2), without a password: the driver takes that from
            `PGPASSWORD` or `~/.pgpass`.
        campaign: the campaign's name; "" where none was given.
    """

    url: str
    campaign: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `postgresql://user@host/database#campaign`.

        Raises:
            InvalidArgument: it is not such a URL, or has a password in it, which is not repeated.
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
