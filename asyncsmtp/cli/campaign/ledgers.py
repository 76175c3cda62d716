"""Which ledger a command is about, a file or a campaign in a database, and how either is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.whose import of_campaign
from asyncsmtp.cli.output.failures import Failed

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import InDoubt
    from asyncsmtp.bulk.postgres.ledger import PostgresLedger
    from asyncsmtp.bulk.postgres.reader import PostgresReader
    from asyncsmtp.bulk.sqlite.ledger import SqliteLedger
    from asyncsmtp.bulk.sqlite.reader import SqliteReader

__all__ = ["Named", "decided", "named", "opened", "read"]


@dataclass(frozen=True, slots=True)
class Named:
    """A ledger's place, and how the campaign is named on a command line."""

    place: Path | Database
    reference: str


def named(campaign: Path | None, ledger: Path | Database | None, *, sandbox: bool) -> Named:
    """Find the ledger of CAMPAIGN.toml, or take the one that --ledger names.

    Raises:
        Failed: neither was given, or the campaign file cannot be used.
    """
    if ledger is not None and (campaign is None or isinstance(ledger, Path)):
        return Named(ledger, f"--ledger {ledger}")
    if campaign is None:
        raise Failed("no campaign was given", "name its file, such as campaign.toml; or: --ledger NAME.ledger")
    from asyncsmtp.cli.campaign import campaignfile
    from asyncsmtp.cli.campaign.settings import settle

    settings = settle(campaignfile.read(campaign), {}, campaign)
    if ledger is not None:
        return Named(of_campaign(ledger, settings.name), f"{campaign} --ledger {ledger}")
    return Named(settings.ledger(sandbox=sandbox), f"{campaign}{' --sandbox' if sandbox else ''}")


async def opened(
    place: Path | Database,
    *,
    name: str,
    from_domain: str,
    fingerprint: Mapping[str, str] | None,
    in_doubt: InDoubt,
    suppressions: Sequence[Path],
) -> SqliteLedger | PostgresLedger:
    """Open a campaign's ledger to send, as `SqliteLedger.open` and `PostgresLedger.open` do."""
    if isinstance(place, Path):
        from asyncsmtp.bulk.sqlite.ledger import SqliteLedger

        return await SqliteLedger.open(
            place,
            name=name,
            from_domain=from_domain,
            fingerprint=fingerprint,
            in_doubt=in_doubt,
            suppressions=suppressions,
        )
    from asyncsmtp.bulk.postgres.ledger import PostgresLedger

    return await PostgresLedger.open(
        place.url,
        name=name,
        from_domain=from_domain,
        fingerprint=fingerprint,
        in_doubt=in_doubt,
        suppressions=suppressions,
    )


async def read(place: Path | Database) -> SqliteReader | PostgresReader:
    """Open a ledger to look at it.

    Raises:
        LedgerEmpty: there is none, or it holds no campaign yet. LedgerError: it cannot be read.
    """
    if isinstance(place, Path):
        from asyncsmtp.bulk.sqlite.reader import SqliteReader

        return await SqliteReader.open(place)
    from asyncsmtp.bulk.postgres.reader import PostgresReader

    return await PostgresReader.open(place.url, name=place.campaign)


async def decided(place: Path | Database) -> SqliteLedger | PostgresLedger:
    """Open a ledger that holds a campaign, to decide about its rows.

    Raises:
        LedgerEmpty: it holds none. LedgerBusy: a run has it. LedgerError: it cannot be used.
    """
    from asyncsmtp.bulk.ledger import InDoubt

    async with await read(place) as reader:
        name = reader.name
    return await opened(
        place, name=name, from_domain="localhost", fingerprint=None, in_doubt=InDoubt.HOLD, suppressions=()
    )
