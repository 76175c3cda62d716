"""Whose ledger a place is: a file is one campaign's, a database has many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.output.failures import Failed

__all__ = ["of_campaign"]


def of_campaign(place: Path | Database, name: str) -> Path | Database:
    """A database holds many campaigns: it is this one.

    Raises:
        Failed: the URL names another.
    """
    if isinstance(place, Path):
        return place
    if place.campaign not in ("", name):
        raise Failed(f"{place} is the ledger of another campaign than {name}", "leave out what follows the #")
    return replace(place, campaign=name)
