"""Opening a ledger to write: place, lock, checks, recovery, in this order, and nothing changed until all is well."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asyncsmtp.bulk.keeping.columns import CampaignRow
from asyncsmtp.bulk.keeping.fingerprint import refuse_changes
from asyncsmtp.bulk.ledger import InDoubt, Recovery
from asyncsmtp.bulk.sqlite.doubts import recover
from asyncsmtp.bulk.sqlite.failures import ledger_error
from asyncsmtp.bulk.sqlite.lock import Lock
from asyncsmtp.bulk.sqlite.place import Ballast, refuse_network
from asyncsmtp.bulk.sqlite.rows import read_campaign, read_counts
from asyncsmtp.bulk.sqlite.schema import open_ledger
from asyncsmtp.bulk.states import Counts
from asyncsmtp.errors import LedgerError, LedgerMismatch
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Opened", "prepare"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger's file that this process may write.

    Attributes:
        campaign: None when its recipients are yet to be loaded.
        run: the number of this run, from 1.
    """

    path: Path
    lock: Lock
    ballast: Ballast
    connection: sqlite3.Connection
    campaign: CampaignRow | None
    counts: Counts
    run: int
    recovery: Recovery

    def release(self) -> None:
        """Let go of everything but the connection."""
        self.ballast.drop()
        self.lock.release()


def prepare(path: Path, name: str, parts: Mapping[str, str] | None, policy: InDoubt, now: int) -> Opened:
    """Open, check, recover; blocks. Arguments as in `SqliteLedger.open`.

    Raises:
        LedgerError: with nothing held and nothing changed.
    """
    refuse_network(path)
    lock = Lock.take(path.with_name(f"{path.name}.lock"))
    try:
        connection = open_ledger(path)
        try:
            return _begin(path, lock, connection, name, parts, policy, now)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        lock.release()
        raise ledger_error(path, error) from error
    except BaseException:
        lock.release()
        raise


def _begin(
    path: Path,
    lock: Lock,
    connection: sqlite3.Connection,
    name: str,
    parts: Mapping[str, str] | None,
    policy: InDoubt,
    now: int,
) -> Opened:
    campaign = read_campaign(connection)
    if campaign is not None:
        _refuse_another(path, campaign, name, parts)
    ballast = Ballast(path.with_name(f"{path.name}.ballast"))
    try:
        ballast.load()
    except OSError as error:
        raise LedgerError(f"{path}: there is no room for a ledger ({error.strerror}): free at least 16 MiB") from error
    if campaign is None:
        return Opened(path, lock, ballast, connection, None, Counts(), 1, Recovery())
    try:
        recovery = recover(connection, policy, campaign.run + 1, now)
        counts = read_counts(connection)
    except BaseException:
        ballast.drop()
        raise
    return Opened(path, lock, ballast, connection, campaign, counts, campaign.run + 1, recovery)


def _refuse_another(path: Path, campaign: CampaignRow, name: str, parts: Mapping[str, str] | None) -> None:
    if campaign.name != name:
        raise LedgerMismatch(
            f"{path} is the ledger of the campaign “{safe_text(campaign.name, 80)}”, not of “{safe_text(name, 80)}”:"
            " give each campaign a ledger of its own"
        )
    if parts is not None:
        refuse_changes(campaign.name, campaign.parts, parts)
