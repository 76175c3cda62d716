"""Keys of addresses in a ledger of either kind, and the upgrade of a ledger in which case mattered."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Decision, Ledger, RowState
from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.ledger.transitions import from_microseconds
from asyncsmtp.errors import LedgerMismatch
from tests.bulk.ledger.ledger_conformance import Home
from tests.bulk.ledger.ledgers import accepted, batches, claim_all, deferred, entries, recipient, rejected, states
from tests.bulk.ledger.postgres.homes import Cluster
from tests.bulk.ledger.sqlite.test_ledger import Folder

Edit = Callable[[str], object]

OLD_KEYS = "UPDATE recipient SET dedupe = address"  # as `Mailbox.key` was where the domain is in lower case
OLD_FORM = "DELETE FROM memory WHERE name = 'keys'"


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Home, Edit]:
    """A ledger, and a function that executes SQL in it."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        return Cluster(server), lambda sql: server.execute(f"SET search_path = asyncsmtp; {sql}")
    folder = Folder(tmp_path)

    def edit(sql: str) -> None:
        with closing(sqlite3.connect(folder.path, isolation_level=None)) as connection:
            connection.execute(sql)

    return folder, edit


async def load(ledger: Ledger, *addresses: str) -> None:
    await ledger.load(batches([recipient(row, address) for row, address in enumerate(addresses, 1)]))


async def duplicates(ledger: Ledger) -> dict[int, str]:
    return {entry.row: entry.reply for entry in await entries(ledger, RowState.SUPPRESSED)}


async def make_old(kind: tuple[Home, Edit], *addresses: str) -> None:
    """Make a ledger as an older asyncsmtp did: every spelling is a row to be mailed."""
    home, edit = kind
    async with home.open() as ledger:
        await load(ledger, *(f"r{row}.{address}" for row, address in enumerate(addresses, 1)))
    for row, address in enumerate(addresses, 1):
        edit(f"UPDATE recipient SET address = '{address}' WHERE seq = {row}")
    edit(OLD_KEYS)
    edit(OLD_FORM)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("bob@example.com", "Bob@example.com"),
        ("BOB.SMITH@EXAMPLE.COM", "bob.smith@example.com"),
        ("jos\u00e9@example.com", "Jose\u0301@example.com"),  # NFC, NFD
        ("d@b\u00fccher.example", "D@XN--BCHER-KVA.example"),
        ("STRASSE@example.com", "stra\u00dfe@example.com"),
    ],
)
async def test_two_spellings_of_an_address_are_one_message(kind: tuple[Home, Edit], first: str, second: str) -> None:
    """FT-02: also in a file that is added; the address that is mailed is the row's, letter by letter."""
    home, _ = kind
    async with home.open() as ledger:
        await load(ledger, first, second, "other@example.com")
        await ledger.add(batches([recipient(1, second), recipient(2, "new@example.com")]))
        assert await duplicates(ledger) == {2: "duplicate of row 1", 4: "duplicate of row 1"}
        (claim, *_) = await claim_all(ledger)
        assert claim.recipient == recipient(1, first)


async def test_other_addresses_stay_apart(kind: tuple[Home, Edit]) -> None:
    """FT-02: a tag, a dot, another domain or an accent makes another person."""
    home, _ = kind
    async with home.open() as ledger:
        await load(
            ledger, "bob@example.com", "bob+x@example.com", "b.ob@example.com", "b\u00f6b@example.com", "bob@a.b"
        )
        assert await duplicates(ledger) == {}


async def test_an_older_ledger_is_upgraded_when_it_is_opened(
    kind: tuple[Home, Edit], caplog: pytest.LogCaptureFixture
) -> None:
    """FT-02: the first row keeps the key, a later pending one is its duplicate, and the log names both."""
    home, _ = kind
    await make_old(kind, "Bob@example.com", "ann@example.com", "bob@example.com", "BOB@example.com", "ANN@example.com")
    async with home.open() as ledger:
        assert await duplicates(ledger) == {
            3: "duplicate of row 1 (Bob@example.com)",
            4: "duplicate of row 1 (Bob@example.com)",
            5: "duplicate of row 2 (ann@example.com)",
        }
        assert (await ledger.counts())[RowState.PENDING] == 2
        await ledger.add(batches([recipient(1, "bOb@example.com")]))
        assert (await duplicates(ledger))[6] == "duplicate of row 1"
        assert [claim.recipient.mailbox.address for claim in await claim_all(ledger)] == [
            "Bob@example.com",
            "ann@example.com",
        ]
    assert "row 1 (Bob@example.com) and row 3 (bob@example.com) are one address: row 3 is not mailed" in caplog.text
    caplog.clear()
    async with home.open() as ledger:
        assert len(await duplicates(ledger)) == 4
    assert not caplog.records, "once"


async def test_an_older_row_that_repeats_nobody_gets_its_key(kind: tuple[Home, Edit]) -> None:
    """FT-02: the same person in an added file is found by it."""
    home, _ = kind
    await make_old(kind, "Bob@example.com", "ann@example.com")
    async with home.open() as ledger:
        assert await duplicates(ledger) == {}
        await ledger.add(batches([recipient(1, "bob@EXAMPLE.com"), recipient(2, "new@example.com")]))
        assert await duplicates(ledger) == {3: "duplicate of row 1"}


async def test_of_many_repeats_twenty_are_named(kind: tuple[Home, Edit], caplog: pytest.LogCaptureFixture) -> None:
    """FT-02: the others are counted, and all are in the results."""
    home, _ = kind
    await make_old(kind, *(f"{name}{number}@x.example" for number in range(23) for name in ("u", "U")))
    async with home.open() as ledger:
        assert len(await duplicates(ledger)) == 23
    assert caplog.text.count("are one address") == 20
    assert "3 more rows repeat an address; results has them" in caplog.text


async def test_what_was_decided_before_the_upgrade_stays(
    kind: tuple[Home, Edit], caplog: pytest.LogCaptureFixture
) -> None:
    """FT-02: outcomes are kept; a row whose person has the message by a later row is not mailed a second one."""
    home, _ = kind
    names = ("a@x.example", "A@x.example", "b@x.example", "B@x.example", "c@x.example", "C@x.example", "d@x.example")
    await make_old(kind, *names, "D@x.example")
    await settle_old(kind)
    async with home.open() as ledger:
        assert await states(ledger) == {
            1: RowState.ACCEPTED,
            2: RowState.ACCEPTED,
            3: RowState.REJECTED,
            4: RowState.SUPPRESSED,
            5: RowState.SUPPRESSED,
            6: RowState.ACCEPTED,
            7: RowState.ACCEPTED,
            8: RowState.SUPPRESSED,
        }
        assert await duplicates(ledger) == {
            4: "duplicate of row 3 (b@x.example)",
            5: "duplicate of row 6 (C@x.example)",
            8: "duplicate of row 7 (d@x.example)",
        }
        assert await claim_all(ledger) == []
    assert "row 1 (a@x.example) and row 2 (A@x.example) are one address: both stay as they are" in caplog.text


async def settle_old(kind: tuple[Home, Edit]) -> None:
    """Settle the eight rows above in an older ledger: 5 and 8 are deferred, 4 is pending."""
    home, edit = kind
    edit("INSERT INTO memory VALUES ('keys', '2')" if isinstance(home, Folder) else KEEP_OLD)
    async with home.open() as ledger:
        for claim in await ledger.claim(10):
            row = claim.recipient.row
            if row in {1, 2, 6, 7}:
                await ledger.mark(claim)
                ledger.settle(accepted(claim))
            elif row != 4:
                ledger.settle(rejected(claim) if row == 3 else deferred(claim))
    edit(OLD_FORM)


KEEP_OLD = "INSERT INTO memory SELECT id, 'keys', '2' FROM campaign"


async def test_a_large_older_ledger_is_upgraded_in_blocks(kind: tuple[Home, Edit]) -> None:
    """FT-02: the two rows may be in different blocks, and either may be the one whose key changes."""
    home, edit = kind
    async with home.open() as ledger:
        await load(ledger, *(f"r{row}@example.com" for row in range(1, 5001)))
    edit("UPDATE recipient SET address = 'R4000@example.com' WHERE seq = 1")
    edit("UPDATE recipient SET address = 'R2@example.com' WHERE seq = 5000")
    edit(OLD_KEYS)
    edit(OLD_FORM)
    async with home.open() as ledger:
        assert await duplicates(ledger) == {
            4000: "duplicate of row 1 (R4000@example.com)",
            5000: "duplicate of row 2 (r2@example.com)",
        }


REFUSED = {
    "=?x?q?victim=40corp.example=3e=00?=foo@x.example": "an encoded word",
    "a\ufffdb@x.example": "U+FFFD",
    "bob@loc\u00adalhost.example": "",
    "no address": "it has no @",
}


@pytest.mark.parametrize("address", REFUSED)
async def test_an_address_that_is_refused_by_now_rejects_its_row(kind: tuple[Home, Edit], address: str) -> None:
    """FT-01, FT-05: an older asyncsmtp loaded it; the row has the reason, and the others are claimed."""
    home, edit = kind
    async with home.open() as ledger:
        await load(ledger, "a@x.example", "b@x.example", "c@x.example")
    edit(f"UPDATE recipient SET address = '{address}', dedupe = '{address}' WHERE seq = 2")
    edit(OLD_FORM)
    async with home.open() as ledger:
        assert [claim.recipient.row for claim in await claim_all(ledger)] == [1, 3]
        counts = await ledger.counts()
        assert (counts[RowState.REJECTED], counts[RowState.PENDING]) == (1, 2)
    async with home.open() as ledger:
        (entry,) = await entries(ledger, RowState.REJECTED)
        assert (entry.row, entry.address, entry.code) == (2, address, None)
        assert "is not an e-mail address" in entry.reply
        assert REFUSED[address] in entry.reply
        assert await ledger.counts() == counts
        assert await ledger.resolve(Decision.RESEND, [2], [RowState.REJECTED]) == 1  # it changes nothing
        assert len(await claim_all(ledger)) == 2
        assert (await states(ledger))[2] is RowState.REJECTED


async def test_a_deferred_row_with_such_an_address_is_rejected_when_it_is_due(kind: tuple[Home, Edit]) -> None:
    """FT-01: its attempts are kept."""
    home, edit = kind
    async with home.open() as ledger:
        await load(ledger, "a@x.example", "b@x.example")
        for claim in await claim_all(ledger):
            ledger.settle(deferred(claim, from_microseconds(home.now + 1_000_000)))
    edit("UPDATE recipient SET address = 'a\ufffd@x.example' WHERE seq = 1")
    async with home.open() as ledger:
        assert await ledger.claim(10) == []
        home.now += 2_000_000
        assert [claim.recipient.row for claim in await ledger.claim(10)] == [2]
        (entry,) = await entries(ledger, RowState.REJECTED)
        assert (entry.row, entry.attempts, entry.due_at) == (1, 1, None)


async def test_a_whole_ledger_of_such_addresses_is_rejected(kind: tuple[Home, Edit]) -> None:
    """FT-01, FT-05: more rows in a row than are claimed at once."""
    home, edit = kind
    async with home.open() as ledger:
        await load(ledger, *(f"r{row}@x.example" for row in range(1, 1202)))
    edit("UPDATE recipient SET address = '=?x?q?r?=@x.example' WHERE seq <= 1200")
    async with home.open() as ledger:
        assert [claim.recipient.row for claim in await ledger.claim(100)] == [1201]
        assert (await ledger.counts())[RowState.REJECTED] == 1200
        assert await ledger.count_ready() == 1


# An older program must not write to a ledger with keys that it does not make.

OLD_VERSION = {"sqlite": 2, "postgres": 1}  # what asyncsmtp 0.1.0 knows, and refuses if there is more


def set_version(home: Home, edit: Edit) -> None:
    """Make it the version of asyncsmtp 0.1.0."""
    if isinstance(home, Folder):
        edit("PRAGMA user_version = 2")
        return
    edit("DROP TABLE worker, batch, rate, suppressed")
    edit("ALTER TABLE campaign DROP round, DROP state")
    edit("UPDATE version SET number = 1")


def is_refused_by_older(home: Home) -> bool:
    """Whether asyncsmtp 0.1.0 would refuse it."""
    if isinstance(home, Folder):
        with closing(sqlite3.connect(home.path)) as connection:
            return bool(connection.execute("PRAGMA user_version").fetchone()[0] > OLD_VERSION["sqlite"])
    assert isinstance(home, Cluster)
    return home.server.execute("SELECT number FROM asyncsmtp.version") > [(OLD_VERSION["postgres"],)]


async def test_an_older_program_refuses_an_upgraded_ledger(kind: tuple[Home, Edit]) -> None:
    """FT-02: `--add` of an older one would mail somebody twice whose address is spelled in another way."""
    home, edit = kind
    await make_old(kind, "Bob@example.com", "bob@example.com")
    set_version(home, edit)
    assert not is_refused_by_older(home)
    async with home.open() as ledger:
        assert is_refused_by_older(home)
        assert len(await claim_all(ledger)) == 1
    async with home.open() as ledger:
        assert len(await claim_all(ledger)) == 1


async def test_an_older_program_refuses_a_new_ledger(kind: tuple[Home, Edit]) -> None:
    """FT-02: from the load on; before it there is nobody to be mailed twice. A database has the tables of workers."""
    home, edit = kind
    async with home.open():
        set_version(home, edit)
    async with home.open() as ledger:
        assert is_refused_by_older(home) == isinstance(home, Cluster)
        await load(ledger, "Bob@example.com")
        assert is_refused_by_older(home)


async def test_a_ledger_that_is_refused_stays_as_an_older_program_knows_it(kind: tuple[Home, Edit]) -> None:
    """FT-02: whoever cannot go on with this version may do so with the older one; reading changes nothing either."""
    home, edit = kind
    async with home.open(fingerprint={"a.txt": "1"}) as ledger:
        await load(ledger, "a@x.example", "A@x.example")
        (claim,) = await claim_all(ledger)
        await ledger.mark(claim)
        ledger.settle(accepted(claim))
    edit(OLD_FORM)
    set_version(home, edit)
    with pytest.raises(LedgerMismatch):
        async with home.open(fingerprint={"a.txt": "2"}):
            pass
    place = home.path if isinstance(home, Folder) else home.server.url  # type: ignore[attr-defined]
    read = SqliteLedger.read if isinstance(home, Folder) else PostgresLedger.read
    async with await read(place) as reader:
        before = await entries(reader)
    assert not is_refused_by_older(home)
    async with home.open(fingerprint={"a.txt": "1"}) as ledger:
        assert is_refused_by_older(home)
    async with await read(place) as reader:
        assert await entries(reader) == before
