"""A campaign in the tests' own PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from asyncsmtp.bulk.ledger.interfaces import InDoubt
from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.errors import LedgerError
from tests.interop.postgres import Postgres

__all__ = ["Cluster"]


class Cluster:
    """A ledger in a database; a crash ends its process and its sessions."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.now = 1_800_000_000_000_000
        self._crashed = False

    @asynccontextmanager
    async def open(
        self,
        *,
        in_doubt: InDoubt = InDoubt.HOLD,
        fingerprint: dict[str, str] | None = None,
        name: str = "news",
        suppressions: Sequence[Path] = (),
    ) -> AsyncIterator[PostgresLedger]:
        ledger = await PostgresLedger.open(
            self.server.url,
            name=name,
            from_domain="example.org",
            fingerprint=fingerprint,
            in_doubt=in_doubt,
            suppressions=suppressions,
            clock=lambda: self.now,
        )
        self._crashed = False
        try:
            yield ledger
        except LedgerError:
            if not self._crashed:
                raise
        finally:
            if self._crashed:  # it writes nothing any more
                task = ledger._store._task
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                await ledger.aclose()

    def crash(self) -> None:
        self._crashed = True
        self.server.cut()
