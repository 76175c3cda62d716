"""The SQL of the operating page does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import readers, states
from tests.bulk.ledger.postgres.homes import Cluster
from tests.interop.postgres import Postgres

PAGE = Path(__file__).parents[4] / "docs" / "howto" / "operating.md"
NAME = "november-news"


async def test_a_campaign_is_put_on_hold_and_released(postgres: Postgres) -> None:
    """BL-18: after the failover to an asynchronous standby: on hold, a row by the relay's log, and on."""
    hold, *corrections = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    home = Cluster(postgres)
    async with home.open(name=NAME) as ledger:
        await ledger.load(readers(20))
    postgres.execute(hold)
    with pytest.raises(LedgerError, match="on hold: failover of 1 December"):
        async with home.open(name=NAME):
            pass
    for statement in ";".join(corrections).split(";"):
        if statement.strip():
            postgres.execute(statement)
    async with home.open(name=NAME) as ledger:
        found = await states(ledger)
        assert {row for row, state in found.items() if state is RowState.ACCEPTED} == {17}
        assert len(await ledger.claim(50)) == 19
