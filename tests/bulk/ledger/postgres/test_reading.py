"""Which campaign of a database is meant, where it is read without a campaign file."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.errors import LedgerEmpty
from tests.bulk.ledger.ledgers import batches, recipient
from tests.interop.postgres import Postgres


async def begin(postgres: Postgres, *names: str) -> None:
    for name in names:
        async with await PostgresLedger.open(postgres.url, name=name, from_domain="x.example") as ledger:
            await ledger.load(batches([recipient(1, "a@x.example")]))


@pytest.mark.parametrize("number", [2, 5, 6])
async def test_of_several_campaigns_the_first_five_are_named(postgres: Postgres, number: int) -> None:
    """In order, and the URL of the first one as an example."""
    names = [f"news{letter}" for letter in "fedcba"[-number:]]
    await begin(postgres, *names)
    with pytest.raises(LedgerEmpty, match="has several campaigns") as caught:
        await PostgresLedger.read(postgres.url)
    shown = ", ".join(sorted(names)[:5])
    assert f"has several campaigns ({shown}): name one: " in str(caught.value)
    assert str(caught.value).endswith("#newsa")
    async with await PostgresLedger.read(f"{postgres.url}#newsb") as reader:
        assert reader.name == "newsb"


async def test_a_campaign_that_was_not_begun_is_not_there(postgres: Postgres) -> None:
    """Nor is one of another name."""
    await begin(postgres, "news")
    async with await PostgresLedger.read(postgres.url) as reader:
        assert reader.name == "news"
    with pytest.raises(LedgerEmpty, match=r"there is no ledger .*: the campaign was not begun, or has another name"):
        await PostgresLedger.read(f"{postgres.url}#other")
