"""A person's data goes, and what is known of the campaign stays: in a file and in a database."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.interfaces import TOTALS_NAME, RelayTotals, RunTotals
from asyncsmtp.bulk.ledger.erasure import ErasedRows
from asyncsmtp.bulk.ledger.interfaces import Claim, Counts, Decision, InDoubt, RowState, Settlement
from asyncsmtp.bulk.running.webhook import describe_outcome
from asyncsmtp.errors import LedgerError, RecipientError
from tests.bulk.ledger.ledgers import accepted, batches, claim_all, deferred, entries, in_doubt, recipient, rejected
from tests.bulk.ledger.postgres.homes import Cluster
from tests.bulk.ledger.sqlite.test_ledger import Folder

ANN = "Ann.Lee@example.net"
SETTLED = {1: accepted, 2: rejected, 3: deferred, 4: in_doubt}
STATES = (RowState.ACCEPTED, RowState.REJECTED, RowState.DEFERRED, RowState.IN_DOUBT, RowState.PENDING)


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return Folder(tmp_path) if request.param == "sqlite" else Cluster(request.getfixturevalue("postgres"))


def rows(*others: str) -> Any:
    """Six rows, of which `others` name somebody else; each has a cell that only it has."""
    names = dict(enumerate(others, 1))
    return batches(
        [recipient(n, names.get(n, f"reader{n}@example.net"), phone=f"+43 55{n}", by="") for n in range(1, 7)]
    )


async def send(ledger: Any, settled: dict[int, Any] | None = None) -> None:
    """Settle the first four rows, each in another way; the replies repeat the address."""
    for claim in await claim_all(ledger):
        make = (SETTLED if settled is None else settled).get(claim.recipient.row)
        if make is None:
            ledger.release(claim)
            continue
        await ledger.mark(claim)
        settlement = make(claim)
        ledger.settle(settlement._replace(reply=f"{settlement.reply} <{claim.recipient.mailbox}>"))
    await ledger.flush()


@pytest.mark.parametrize("row", range(1, 6))
async def test_a_row_loses_its_data_and_the_counts_add_up(home: Any, row: int) -> None:
    """Accepted and rejected stay; what was to be sent is suppressed, what is in doubt is given up."""
    async with home.open() as ledger:
        await ledger.load(rows(*(f"r{n}@example.net" if n != row else ANN for n in range(1, 7))))
        await send(ledger)
        before = await ledger.counts()
        assert (await ledger.forget("ANN.lee@EXAMPLE.net")).rows == {STATES[row - 1]: 1}
        counts, found = await ledger.counts(), {entry.row: entry for entry in await entries(ledger)}
    async with home.open() as again:
        assert await again.counts() == counts, "those in memory are those of the ledger"
        assert row not in {claim.recipient.row for claim in await claim_all(again)}
    erased = found.pop(row)
    was = STATES[row - 1]
    after = {RowState.DEFERRED: RowState.SUPPRESSED, RowState.PENDING: RowState.SUPPRESSED}.get(was, was)
    after = RowState.REJECTED if was is RowState.IN_DOUBT else after
    assert (erased.address, erased.message_id, erased.fields, erased.state) == ("", "", {}, after)
    assert erased.reply.startswith("forgotten")
    assert (erased.code, erased.attempts) == ({1: 250, 2: 550}.get(row), 0 if row == 5 else 1)
    assert counts.total == before.total == 6
    moved = Counter(before)
    moved[was] -= 1
    moved[after] += 1
    assert counts == Counts(dict(moved))
    assert all(entry.address and entry.fields["phone"] for entry in found.values())


@pytest.mark.parametrize("decision", list(Decision))
async def test_nobody_decides_about_a_row_without_data(home: Any, decision: Decision) -> None:
    """Neither a person, nor a policy, nor a bounce that comes late."""
    async with home.open() as ledger:
        await ledger.load(rows(*[ANN if n == 4 else f"r{n}@example.net" for n in range(1, 5)]))
        await send(ledger)
        token = next(entry.message_id for entry in await entries(ledger) if entry.row == 4).partition("@")[0]
        await ledger.forget(ANN)
    async with home.open(in_doubt=InDoubt.RESEND) as ledger:
        every = [RowState.IN_DOUBT, RowState.REJECTED, RowState.DEFERRED, RowState.SUPPRESSED]
        await ledger.resolve(decision, [4], every)
        assert await ledger.record_bounces({token: Bounce(ANN, True, "5.1.1", "gone", "", (), report="r")}) == []
        (found,) = [entry for entry in await entries(ledger) if entry.row == 4]
        assert (found.state, found.reply) == (RowState.REJECTED, "forgotten while it was in doubt")
        assert 4 not in {claim.recipient.row for claim in await claim_all(ledger)}


async def test_the_address_goes_from_the_rows_of_others(home: Any) -> None:
    """From their replies and cells; a message that is still to be sent does not change."""
    async with home.open() as ledger:
        await ledger.load(
            batches([recipient(n, by=f"Ann <{ANN.lower()}>, friends") for n in (1, 2, 3)] + [recipient(4, ANN)])
        )
        for claim in await claim_all(ledger):
            if claim.recipient.row in (1, 2):
                await ledger.mark(claim)
                ledger.settle(accepted(claim)._replace(reply=f"queued, copy to {ANN}"))
            else:
                ledger.release(claim)
        await ledger.flush()
        erased = await ledger.forget(ANN)
        assert (erased.rows, erased.mentions, erased.kept) == ({RowState.PENDING: 1}, 2, 1)
        found = await entries(ledger)
        assert [entry.fields.get("by") for entry in found] == [
            "Ann <forgotten>, friends",
            "Ann <forgotten>, friends",
            f"Ann <{ANN.lower()}>, friends",
            None,
        ]
        assert [entry.reply for entry in found[:2]] == ["queued, copy to forgotten"] * 2


@pytest.mark.parametrize("begun", [False, True])
async def test_a_person_is_not_loaded_again(home: Any, begun: bool) -> None:
    """Neither by a further file, nor where the recipients are loaded anew: he is recognised by the hash."""
    async with home.open(fingerprint={"people.csv": "1"}) as ledger:
        await ledger.load(batches([recipient(1), recipient(2, ANN)]))
        if begun:
            await send(ledger, {1: accepted, 2: accepted})
        assert (await ledger.forget(ANN)).rows.total() == 1
    async with home.open(fingerprint={"people.csv": "1" if begun else "2"}) as ledger:
        assert ledger.loaded == begun
        further = batches([recipient(1, "Dan@example.net"), recipient(2, "ann.lee@Example.NET", phone="+43 1")])
        await (ledger.add if begun else ledger.load)(further)
        last = (await entries(ledger))[-1]
        assert (last.address, last.state, last.fields) == ("", RowState.SUPPRESSED, {})
        assert last.reply == "forgotten: not loaded again"
        assert [str(claim.recipient.mailbox) for claim in await claim_all(ledger)] == ["Dan@example.net"]


async def test_outcomes_that_were_not_posted_yet_have_no_data_either(home: Any) -> None:
    """They are posted, without it."""
    async with home.open() as ledger:
        await ledger.load(batches([recipient(1, ANN), recipient(2)]))
        ledger.keep_outcomes(describe_outcome)
        await send(ledger, {1: rejected, 2: accepted})
        await ledger.forget(ANN)
        texts = [text for _, text in await ledger.read_outcomes()]
    assert "ann" not in "".join(texts).lower()
    first, second = sorted(map(json.loads, texts), key=lambda outcome: int(outcome["row"]))
    assert (first["state"], first["code"], first["email"], first["message_id"]) == ("rejected", 550, "", "")
    assert second["email"] == "reader2@example.net"


async def test_somebody_else_is_left_alone(home: Any) -> None:
    """An address is compared as a whole, and as duplicates are."""
    async with home.open() as ledger:
        await ledger.load(batches([recipient(1, "joann.lee@example.net"), recipient(2, "ann.lee@example.net.org")]))
        assert not await ledger.forget("dan@example.net")
        assert await ledger.forget("dan@example.net") == ErasedRows()
        with pytest.raises(RecipientError):
            await ledger.forget("no address")
        assert {entry.fields["name"] for entry in await entries(ledger)} == {"Reader 1", "Reader 2"}


@pytest.mark.parametrize(
    "address", ["josé@bücher.example", "JOSE\u0301@xn--bcher-kva.example", '"josé"@bücher.example']
)
async def test_every_spelling_is_the_person_s(home: Any, address: str) -> None:
    """Also that of a duplicate, which was never to be mailed."""
    async with home.open() as ledger:
        await ledger.load(batches([recipient(1, "José@bücher.example"), recipient(2, "josé@bücher.example")]))
        assert (await ledger.forget(address)).rows == {RowState.PENDING: 1, RowState.SUPPRESSED: 1}
        assert [entry.address for entry in await entries(ledger)] == ["", ""]


def days(number: float) -> float:
    return number * 86400


@pytest.mark.parametrize(("retention", "age", "erased"), [(90, 91, True), (90, 89, False), (None, 999, False)])
async def test_everybody_s_data_goes_when_the_retention_has_passed(
    home: Any, retention: float | None, age: float, erased: bool
) -> None:
    """Counted from the last change of a campaign of which nothing is left to be sent."""
    home.now = int((datetime.now(UTC) - timedelta(days=age)).timestamp() * 1e6)
    async with home.open() as ledger:
        await ledger.load(rows())
        await send(ledger, dict.fromkeys(range(1, 7), accepted) | {4: in_doubt, 2: rejected})
        before = await ledger.counts()
        totals = RunTotals(1, 9.0, {"relay": RelayTotals(6, 600)}, slowed={"lee.example": (1, 2.0)})
        await ledger.write_value(f"{TOTALS_NAME}1", totals.to_json())
    async with home.open() as ledger:
        assert await ledger.apply_retention(None if retention is None else days(retention)) == erased
        found, counts = await entries(ledger), await ledger.counts()
        assert [bool(entry.address or entry.fields) for entry in found] == [not erased] * 6
        assert counts.total == 6
        assert counts[RowState.ACCEPTED] == before[RowState.ACCEPTED] == 4
        kept = (await ledger.statistics()).totals
        assert (kept.size, kept.slowed) == (600, {} if erased else totals.slowed), "a domain may be one person's"
        if erased:
            assert counts[RowState.REJECTED] == 2, "the one in doubt is given up"
            assert not await ledger.apply_retention(days(90)), "once"
            with pytest.raises(LedgerError, match="begin a new campaign"):
                await ledger.add(batches([recipient(1, ANN)]))


@pytest.mark.parametrize("left", [{1: accepted}, {1: accepted, **dict.fromkeys(range(2, 7), deferred)}])
async def test_nobody_s_data_goes_while_rows_are_left_to_send(home: Any, left: dict[int, Any]) -> None:
    """However long ago something happened."""
    home.now = int((datetime.now(UTC) - timedelta(days=999)).timestamp() * 1e6)
    async with home.open() as ledger:
        await ledger.load(rows())
        await send(ledger, left)
    async with home.open() as ledger:
        assert not await ledger.apply_retention(1.0)
        assert all(entry.address for entry in await entries(ledger))


async def test_the_retention_of_the_last_run_is_in_the_ledger(home: Any) -> None:
    """For commands that have no campaign file."""
    home.now = int((datetime.now(UTC) - timedelta(days=10)).timestamp() * 1e6)
    async with home.open() as ledger:
        await ledger.load(rows())
        await send(ledger, dict.fromkeys(range(1, 7), accepted))
        assert not await ledger.apply_retention(days(20))
        assert not await ledger.is_expired(-1.0, datetime.now(UTC))
        assert await ledger.is_expired(-1.0, datetime.now(UTC) + timedelta(days=11))
        assert not await ledger.apply_retention(None)
        assert not await ledger.is_expired(-1.0, datetime.now(UTC) + timedelta(days=11))


def find_bytes(folder: Path, *needles: bytes) -> list[str]:
    """Return the files that have one of them, in either case."""
    return [path.name for path in folder.iterdir() if any(needle in path.read_bytes().lower() for needle in needles)]


@pytest.mark.parametrize("whole", [False, True])
async def test_the_bytes_are_gone_from_the_file(tmp_path: Path, whole: bool) -> None:
    """From free pages and from the write-ahead log too, also while the ledger is open."""
    home = Folder(tmp_path)
    home.now = int((datetime.now(UTC) - timedelta(days=10)).timestamp() * 1e6)

    def reply(claim: Claim) -> Settlement:
        return rejected(claim)._replace(reply=f"no {claim.recipient.mailbox} here" + "x" * 200)

    async with home.open() as ledger:
        people = [recipient(n, phone=f"555-{n:04}" + "y" * 100) for n in range(1, 801)]
        people[499] = recipient(500, ANN, name="Lee, Ann", phone="555-secret")
        await ledger.load(batches(people))
        claims = await claim_all(ledger)
        await asyncio.gather(*map(ledger.mark, claims))
        for claim in claims:
            ledger.settle(reply(claim))
        await ledger.flush()
        needles = (b"ann.lee@", b"lee, ann", b"555-secret")
        assert find_bytes(tmp_path, *needles)
        if whole:
            assert await ledger.apply_retention(days(1))
            needles += (b"reader7@", b"555-0007", b"no reader")
        else:
            assert (await ledger.forget(ANN)).is_clean
        assert find_bytes(tmp_path, *needles) == []
        assert (await ledger.counts())[RowState.REJECTED] == 800
    assert find_bytes(tmp_path, *needles) == []


async def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the commit and the new file, which is what takes the time."""
    home = Folder(tmp_path)
    async with home.open() as ledger:
        await ledger.load(batches([recipient(n, phone="y" * 500) for n in range(1, 400)] + [recipient(400, ANN)]))

        async def killed() -> bool:
            home.crash()
            return False

        monkeypatch.setattr(ledger._store, "clean", killed)
        await ledger.forget(ANN)
    assert find_bytes(home.path.parent, b"ann.lee@")
    async with home.open() as ledger:
        await ledger.apply_retention(None)
    assert find_bytes(home.path.parent, b"ann.lee@") == []
