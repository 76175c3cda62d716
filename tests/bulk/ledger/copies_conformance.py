"""Conformance suite for ledgers: Cc and Bcc, each a recipient with an outcome of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.interfaces import (
    Claim,
    Decision,
    Entry,
    InDoubt,
    Ledger,
    OutcomeStore,
    RowState,
    find_file_row,
    list_numbers,
    number_copy,
)
from asyncsmtp.bulk.ledger.suppression_list import Suppressed, SuppressionList
from asyncsmtp.bulk.recipients.recipient import CopyRecipient, RecipientWithCopies
from asyncsmtp.bulk.running.webhook import describe_outcome
from asyncsmtp.protocol.envelope import Mailbox
from tests.bulk.ledger.ledgers import (
    Row,
    accepted,
    batches,
    claim_all,
    deferred,
    entries,
    in_doubt,
    recipient,
    rejected,
)


class Home(Protocol):
    """The place of one campaign's ledger, as in `ledger_conformance`."""

    now: int

    def open(
        self,
        *,
        in_doubt: InDoubt = InDoubt.HOLD,
        fingerprint: dict[str, str] | None = None,
        name: str = "news",
        suppressions: Sequence[Path] = (),
    ) -> AbstractAsyncContextManager[Ledger]: ...
    def crash(self) -> None: ...


def row(number: int, cc: str = "", bcc: str = "", address: str | None = None) -> RecipientWithCopies:
    """Return row `number` with copies for these addresses."""
    plain = recipient(number, address)
    copies = [("cc", Mailbox.parse(each)) for each in cc.split()] + [
        ("bcc", Mailbox.parse(each)) for each in bcc.split()
    ]
    return RecipientWithCopies(plain.row, plain.mailbox, plain.fields, copies=tuple(copies))


THREE: list[Row] = [row(1, "boss@x.example vice@x.example", "archive@y.example"), row(2), row(3, "boss@x.example")]
ORDER = [
    (1, "to", "reader1@example.net"),
    (1, "cc", "boss@x.example"),
    (1, "cc", "vice@x.example"),
    (1, "bcc", "archive@y.example"),
    (2, "to", "reader2@example.net"),
    (3, "to", "reader3@example.net"),
    (3, "cc", "boss@x.example"),
]


def person(claim: Claim) -> tuple[int, str, str]:
    kind = claim.recipient.kind if isinstance(claim.recipient, CopyRecipient) else "to"
    return find_file_row(claim.recipient.row), kind, str(claim.recipient.mailbox)


def listed(found: Sequence[Entry]) -> list[tuple[int, str, str]]:
    return [(entry.row, entry.kind, entry.address) for entry in found]


async def settle_all(ledger: Ledger) -> dict[tuple[int, str], Claim]:
    """Have everyone accepted; return the claims by row and address."""
    claims = await claim_all(ledger)
    for claim in claims:
        await ledger.mark(claim)
        ledger.settle(accepted(claim))
    await ledger.flush()
    return {(find_file_row(claim.recipient.row), str(claim.recipient.mailbox)): claim for claim in claims}


def bounce(recipient: str, report: str = "one", status: str = "5.1.1") -> Bounce:
    return Bounce(recipient, True, status, "unknown", "", (), report=report)


def token(claim: Claim) -> str:
    return claim.message_id.partition("@")[0]


class CopiesConformance:
    async def test_everyone_is_a_recipient(self, home: Home) -> None:
        """Each has a state; a row is followed by its copies, in the results and when it is sent."""
        async with home.open() as ledger:
            counts = await ledger.load(batches(THREE))
            assert (counts[RowState.PENDING], counts.total) == (7, 7)
            assert listed(await entries(ledger)) == ORDER
            assert await ledger.count_ready() == 7
            assert [person(claim) for claim in await ledger.claim(100)] == ORDER

    async def test_the_order_holds_in_any_batch(self, home: Home) -> None:
        """Rows and copies are read apart, some at a time."""
        rows: list[Row] = [
            row(number, "boss@x.example" if number % 3 else "", "a@y.example") for number in range(1, 1201)
        ]
        async with home.open() as ledger:
            await ledger.load(batches(rows))
            claims: list[tuple[int, str, str]] = []
            while found := await ledger.claim(7):
                claims += map(person, found)
            assert claims == listed(await entries(ledger))
            assert len(claims) == 1200 + 800 + 1200
            assert [number for number, kind, _ in claims if kind == "to"] == list(range(1, 1201))
            assert [number for number, _, _ in claims] == sorted(number for number, _, _ in claims)

    async def test_a_copy_has_what_its_message_needs(self, home: Home) -> None:
        """The cells and the Message-ID of its row, and an identifier of its own; the same in the next run."""
        seen = []
        for _ in range(2):
            async with home.open() as ledger:
                if not ledger.loaded:
                    await ledger.load(batches(THREE))
                to, copy, *others = await ledger.claim(100)
                assert isinstance(copy.recipient, CopyRecipient)
                assert copy.recipient.to == to.recipient.mailbox
                assert copy.recipient.message_id == to.message_id
                assert copy.recipient.fields == to.recipient.fields
                assert len({claim.message_id for claim in (to, copy, *others)}) == 7
                entry = (await entries(ledger))[1]
                assert (entry.message_id, entry.to, entry.copy) == (to.message_id, "reader1@example.net", 1)
                assert entry.number == copy.recipient.row
                assert entry.fields == to.recipient.fields
                seen.append(copy)
        assert seen[0] == seen[1]

    async def test_each_has_its_own_outcome(self, home: Home) -> None:
        """The one in To is rejected, one in Cc accepted, one deferred, one in doubt."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE[:1]))
            claims = await ledger.claim(100)
            for claim, settle in zip(claims, (rejected, accepted, deferred, in_doubt), strict=True):
                await ledger.mark(claim)
                ledger.settle(settle(claim))
        async with home.open() as ledger:
            assert [(entry.address, str(entry.state)) for entry in await entries(ledger)] == [
                ("reader1@example.net", "rejected"),
                ("boss@x.example", "accepted"),
                ("vice@x.example", "deferred"),
                ("archive@y.example", "in doubt"),
            ]
            assert [person(claim)[2] for claim in await claim_all(ledger)] == ["vice@x.example"]

    async def test_a_crash_leaves_a_doubt_of_those_under_way(self, home: Home) -> None:
        """T7: who was marked is in doubt, alone; the others are pending."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            claims = await ledger.claim(100)
            await ledger.mark(claims[1])
            home.crash()
        async with home.open() as ledger:
            assert (ledger.recovery.found, (await ledger.counts())[RowState.PENDING]) == (1, 6)
            assert listed(await entries(ledger, RowState.IN_DOUBT)) == [ORDER[1]]
            assert isinstance(ledger, OutcomeStore)
            ledger.keep_outcomes(describe_outcome)
            ((_, kept),) = await ledger.read_outcomes()
            assert '"row": 1, "email": "boss@x.example", "state": "in doubt"' in kept
            assert '"kind": "cc"' in kept

    async def test_a_deferred_copy_is_due_by_itself(self, home: Home) -> None:
        """A retry goes only to who is left."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            later = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=home.now, seconds=60)
            for claim in await claim_all(ledger):
                await ledger.mark(claim)
                ledger.settle(deferred(claim, later) if person(claim) == ORDER[3] else accepted(claim))
            await ledger.flush()
            assert await ledger.next_due() == later
            home.now += 61_000_000
            (again,) = await ledger.claim(100)
            assert (person(again), again.attempt, again.is_retry) == (ORDER[3], 2, True)

    async def test_a_decision_is_about_one_or_all_of_a_row(self, home: Home) -> None:
        """`resolve` takes numbers of the ledger: those of a row are its own and those of its copies."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            for claim in await claim_all(ledger):
                await ledger.mark(claim)
                ledger.settle(in_doubt(claim))
            assert await ledger.resolve(Decision.RESEND, [number_copy(1, 2)]) == 1
            assert await ledger.resolve(Decision.SKIP, list_numbers(3)) == 2
            assert await ledger.resolve(Decision.RESEND) == 4
            assert [person(claim) for claim in await claim_all(ledger)] == ORDER[:5]

    async def test_the_copies_of_a_duplicate_are_not_sent(self, home: Home) -> None:
        """There is no message of that row; nobody in its Cc is left without an outcome either."""
        rows: list[Row] = [row(1, address="a@x.example"), row(2, "b@x.example", "c@x.example", address="A@x.example")]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows))
            assert (counts[RowState.PENDING], counts[RowState.SUPPRESSED]) == (1, 3)
            found = await entries(ledger, RowState.SUPPRESSED)
            assert [(entry.kind, entry.address, entry.reply) for entry in found] == [
                ("to", "A@x.example", "duplicate of row 1"),
                ("cc", "b@x.example", "row 2 is a duplicate of row 1"),
                ("bcc", "c@x.example", "row 2 is a duplicate of row 1"),
            ]
            assert {entry.message_id for entry in found} == {""}
            assert [person(claim)[2] for claim in await claim_all(ledger)] == ["a@x.example"]

    async def test_who_is_in_cc_may_have_a_row_as_well(self, home: Home) -> None:
        """A copy is no duplicate of a row, nor of another copy: those are other messages."""
        rows: list[Row] = [row(1, "b@x.example", address="a@x.example"), row(2, "a@x.example", address="b@x.example")]
        async with home.open() as ledger:
            assert (await ledger.load(batches(rows)))[RowState.PENDING] == 4

    async def test_added_rows_bring_their_copies(self, home: Home) -> None:
        """T0: numbers go on behind the last row of the file."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            before = await settle_all(ledger)
            more: list[Row] = [row(1, "boss@x.example", address="new@x.example"), row(2, "new@x.example")]
            counts = await ledger.add(batches(more))
            assert (counts[RowState.PENDING], counts[RowState.SUPPRESSED], counts.total) == (2, 2, 11)
            assert [person(claim) for claim in await claim_all(ledger)] == [
                (4, "to", "new@x.example"),
                (4, "cc", "boss@x.example"),
            ]
            assert len(before) == 7

    async def test_an_added_file_may_be_the_first_with_copies(self, home: Home) -> None:
        """A template may name nobody in the rows before."""
        async with home.open() as ledger:
            await ledger.load(batches([row(1), row(2)]))
            await ledger.add(batches([row(1, "boss@x.example", address="new@x.example")]))
            assert len(await claim_all(ledger)) == 4

    async def test_nobody_on_a_list_gets_a_copy(self, home: Home, tmp_path: Path) -> None:
        """Neither who is on it, nor anybody where the one in To is: that message is not sent."""
        path = tmp_path / "gone.db"
        SuppressionList(path).add([Suppressed("BOSS@x.example", "asked"), Suppressed("reader3@example.net", "bounced")])
        rows: list[Row] = [*THREE, row(4, "vice@x.example", "reader3@example.net")]
        rows[2] = row(3, "vice@x.example")
        async with home.open(suppressions=[path]) as ledger:
            await ledger.load(batches(rows))
            assert await ledger.suppress() == 4
            found = await entries(ledger, RowState.SUPPRESSED)
            assert [(entry.row, entry.address, entry.reply) for entry in found] == [
                (1, "boss@x.example", "on a suppression list: asked"),
                (3, "reader3@example.net", "on a suppression list: bounced"),
                (3, "vice@x.example", "on a suppression list: the recipient in To of row 3"),
                (4, "reader3@example.net", "on a suppression list: bounced"),
            ]
            SuppressionList(path).add([Suppressed("@y.example", "")])  # while it runs
            assert [person(claim)[2] for claim in await claim_all(ledger)] == [
                *("reader1@example.net", "vice@x.example", "reader2@example.net"),
                *("reader4@example.net", "vice@x.example"),
            ]
            assert (await ledger.counts())[RowState.SUPPRESSED] == 5

    async def test_a_bounce_by_the_return_path_is_about_its_recipient(self, home: Home) -> None:
        """The token of each is its own; the others stay accepted."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            claims = await settle_all(ledger)
            found = {token(claims[1, "vice@x.example"]): bounce("forwarded@z.example")}
            assert [address for address, _ in await ledger.record_bounces(found)] == ["vice@x.example"]
            assert listed(await entries(ledger, RowState.REJECTED)) == [ORDER[2]]
            assert [row.address for row in await ledger.find_bounced(found)] == ["vice@x.example"]
            assert await ledger.record_bounces(found) == []

    @pytest.mark.parametrize(
        ("failed", "wanted"), [("BOSS@x.example", ORDER[6]), ("forwarded@z.example", ORDER[5]), ("", ORDER[5])]
    )
    async def test_a_bounce_by_the_message_id_is_about_the_address_that_failed(
        self, home: Home, failed: str, wanted: tuple[int, str, str]
    ) -> None:
        """All of a row have one Message-ID. An address that is none of theirs is where the one in To forwards to."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            claims = await settle_all(ledger)
            found = {token(claims[3, "reader3@example.net"]): bounce(failed)}
            assert [address for address, _ in await ledger.record_bounces(found)] == [wanted[2]]
            assert listed(await entries(ledger, RowState.REJECTED)) == [wanted]
            (again,) = await ledger.find_bounced(found)
            assert (again.address, again.rejected) == (wanted[2], True)

    async def test_a_report_with_an_address_alone_is_about_one_copy(self, home: Home) -> None:
        """Of two rows; read again it changes nothing, and another report is about the next one."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            await settle_all(ledger)
            one, two = {"boss@x.example": bounce("boss@x.example")}, {"boss@x.example": bounce("boss@x.example", "two")}
            assert len(await ledger.record_bounces(one)) == 1
            assert listed(await entries(ledger, RowState.REJECTED)) == [ORDER[1]]
            assert await ledger.record_bounces(one) == []
            assert len(await ledger.record_bounces(two)) == 1
            assert listed(await entries(ledger, RowState.REJECTED)) == [ORDER[1], ORDER[6]]
            assert [row.bounce.report for row in await ledger.find_bounced(two)] == ["two"]

    async def test_who_is_forgotten_leaves_no_data_in_copies(self, home: Home) -> None:
        """A copy has the cells of its row: it loses them with the one in To, and is not sent any more."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            for claim in (await ledger.claim(3))[:2]:
                await ledger.mark(claim)
                ledger.settle(accepted(claim))
            await ledger.flush()
            found = await ledger.forget("Reader1@example.net")  # type: ignore[attr-defined]
            assert (found.rows[RowState.ACCEPTED], found.mentions) == (1, 3)
            gone = [entry for entry in await entries(ledger) if entry.row == 1]
            assert [str(entry.state) for entry in gone] == ["accepted", "accepted", "suppressed", "suppressed"]
            assert [entry.kind for entry in gone] == ["to", "cc", "cc", "bcc"]
            assert {(entry.message_id, entry.to, *entry.fields) for entry in gone} == {("", "")}

    async def test_who_is_forgotten_gets_no_copy(self, home: Home) -> None:
        """Neither of the rows that are there, nor of those that are added; the others get theirs."""
        async with home.open() as ledger:
            await ledger.load(batches(THREE))
            assert (await ledger.forget("boss@x.example")).rows[RowState.PENDING] == 2  # type: ignore[attr-defined]
            await ledger.add(batches([row(1, "boss@x.example", "archive@y.example", address="new@x.example")]))
            assert [person(claim)[2] for claim in await claim_all(ledger)] == [
                *("reader1@example.net", "vice@x.example", "archive@y.example"),
                *("reader2@example.net", "reader3@example.net", "new@x.example", "archive@y.example"),
            ]
            suppressed = await entries(ledger, RowState.SUPPRESSED)
            assert [(entry.row, entry.kind, entry.address) for entry in suppressed] == [
                *((1, "cc", ""), (3, "cc", ""), (4, "cc", ""))
            ]
