"""Conformance suite for ledgers: the table of the delivery states, row by row (T0 to T10).

A ledger's own test file subclasses `LedgerConformance` and gives it a `home` fixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.interfaces import Claim, Decision, InDoubt, Ledger, OutcomeStore, RowState, Settlement
from asyncsmtp.bulk.recipients.recipient import Problem
from asyncsmtp.errors import LedgerError, LedgerMismatch
from tests.bulk.ledger.ledgers import (
    Row,
    accepted,
    batches,
    claim_all,
    deferred,
    entries,
    in_doubt,
    readers,
    recipient,
    rejected,
    states,
)


class Home(Protocol):
    """The place of one campaign's ledger."""

    now: int  # microseconds since 1970, UTC: the ledger's clock

    def open(
        self, *, in_doubt: InDoubt = InDoubt.HOLD, fingerprint: dict[str, str] | None = None, name: str = "news"
    ) -> AbstractAsyncContextManager[Ledger]:
        """Open the ledger, and close it at the end."""
        ...

    def crash(self) -> None:
        """Make `open` find from now on what a power cut would have left at this moment."""
        ...


def due_in(home: Home, seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=home.now, seconds=seconds)


class LedgerConformance:
    async def test_loaded_rows_are_pending_in_file_order(self, home: Home) -> None:
        """T0: every row of the file has a state, and its cells are kept."""
        async with home.open() as ledger:
            assert not ledger.loaded
            counts = await ledger.load(readers(3))
            assert ledger.loaded
            assert counts[RowState.PENDING] == counts.total == 3
            assert [claim.recipient for claim in await ledger.claim(10)] == [recipient(row) for row in (1, 2, 3)]

    async def test_the_next_run_needs_no_load(self, home: Home) -> None:
        """A resume needs no CSV."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            created = ledger.created_at
        home.now += 3_600_000_000
        async with home.open() as ledger:
            assert ledger.loaded
            assert ledger.created_at == created  # the Date of every message
            assert len(await ledger.claim(10)) == 3

    async def test_a_second_row_for_a_mailbox_is_suppressed(self, home: Home) -> None:
        """T0: two rows of the file are one message; domains are compared without regard to case."""
        rows = [recipient(1, "a@example.net"), recipient(2, "b@example.net"), recipient(3, "a@EXAMPLE.net")]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows))
            assert (counts[RowState.PENDING], counts[RowState.SUPPRESSED]) == (2, 1)
            (entry,) = await entries(ledger, RowState.SUPPRESSED)
            assert (entry.row, entry.reply, entry.message_id) == (3, "duplicate of row 1", "")
            assert entry.fields["name"] == "Reader 3"

    async def test_a_duplicate_is_found_in_any_batch(self, home: Home) -> None:
        """Duplicates may be in different batches."""
        rows: list[Row] = [recipient(row, f"r{row % 700}@example.net") for row in range(1, 1401)]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows, 100))
            assert counts[RowState.SUPPRESSED] == 700
            assert (await entries(ledger, RowState.SUPPRESSED))[0].reply == "duplicate of row 1"

    async def test_a_row_that_cannot_be_mailed_is_rejected_with_its_reason(self, home: Home) -> None:
        """Every row of the file has an outcome; text quoted in the reason is escaped."""
        rows: list[Row] = [recipient(1), Problem(2, 3, "the e-mail address is empty \x1b[31m")]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows))
            assert (counts[RowState.PENDING], counts[RowState.REJECTED]) == (1, 1)
            (entry,) = await entries(ledger, RowState.REJECTED)
            assert (entry.row, entry.address, entry.reply) == (2, "", "the e-mail address is empty \\x1b[31m")

    async def test_an_interrupted_load_leaves_no_campaign(self, home: Home) -> None:
        """T0: half a file is never sendable; the next load starts again."""

        async def broken() -> AsyncIterator[Sequence[Row]]:
            async for rows in readers(600):
                yield rows
            raise OSError("the file went away")

        async with home.open() as ledger:
            with pytest.raises(OSError, match="went away"):
                await ledger.load(broken())
            assert not ledger.loaded
            with pytest.raises(LedgerError, match="load them first"):
                await ledger.claim(1)
            assert (await ledger.load(readers(2))).total == 2

    async def test_a_cancelled_load_leaves_no_campaign(self, home: Home) -> None:
        """Ctrl-C while a large file is loaded."""
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[Sequence[Row]]:
            yield [recipient(1)]
            begun.set()
            await asyncio.Event().wait()

        async with home.open() as ledger:
            loading = asyncio.create_task(ledger.load(endless()))
            await begun.wait()
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            assert not ledger.loaded
        async with home.open() as ledger:
            assert (await ledger.load(readers(2))).total == 2

    async def test_a_crash_during_the_load_leaves_no_campaign(self, home: Home) -> None:
        """The campaign is written last."""

        async def crashing() -> AsyncIterator[Sequence[Row]]:
            yield [recipient(1)]
            yield [recipient(2)]
            home.crash()

        async with home.open() as ledger:
            await ledger.load(crashing())
        async with home.open() as ledger:
            assert not ledger.loaded
            assert (await ledger.load(readers(2))).total == 2

    async def test_a_second_load_is_refused(self, home: Home) -> None:
        """The campaign is a snapshot."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            with pytest.raises(LedgerError, match="already"):
                await ledger.load(readers(1))

    async def test_each_row_is_claimed_once_in_a_run(self, home: Home) -> None:
        """Two workers never have the same row."""
        async with home.open() as ledger:
            await ledger.load(readers(1200))
            first, second = await asyncio.gather(ledger.claim(700), ledger.claim(700))
            assert [claim.recipient.row for claim in first + second] == list(range(1, 1201))
            assert await ledger.claim(1) == []

    async def test_a_cancelled_claim_loses_no_row(self, home: Home) -> None:
        """Ctrl-C while a claim is under way."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            claiming = asyncio.create_task(ledger.claim(2))
            await asyncio.sleep(0)
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            assert len(await claim_all(ledger)) == 3

    async def test_a_claim_leaves_no_trace(self, home: Home) -> None:
        """T6: a row that was claimed at a crash was not sent, and is pending."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            await ledger.claim(2)
            home.crash()
        async with home.open() as ledger:
            assert ledger.recovery.found == 0
            assert [claim.attempt for claim in await ledger.claim(2)] == [1, 1]

    async def test_a_mark_is_durable_when_it_is_done(self, home: Home) -> None:
        """T2, invariant I1: after it the end of data may be written, and a crash must find it."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, _ = await ledger.claim(2)
            await ledger.mark(first)
            home.crash()
        async with home.open() as ledger:
            assert ledger.recovery.found == ledger.recovery.held == 1
            assert await states(ledger) == {1: RowState.IN_DOUBT, 2: RowState.PENDING}
            (entry,) = await entries(ledger, RowState.IN_DOUBT)
            assert (entry.attempts, entry.doubts, entry.reply) == (1, 1, "the run ended before the relay answered")

    @pytest.mark.parametrize("said", [accepted, deferred, rejected, in_doubt])
    async def test_an_outcome_is_stored_with_the_reply(self, home: Home, said: Callable[[Claim], Settlement]) -> None:
        """T3, T4, T7: the relay's answer to a marked row."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            settlement = said(claim)
            ledger.settle(settlement)
            await ledger.flush()
            assert (await ledger.counts())[settlement.state] == 1
            home.crash()
        async with home.open() as ledger:
            (entry,) = await entries(ledger)
            found = Settlement(entry.row, entry.state, entry.code, entry.status, entry.reply, entry.host)
            assert found == settlement
            assert entry.attempts == 1
            assert entry.doubts == (settlement.state is RowState.IN_DOUBT)

    async def test_an_outcome_is_durable_before_a_later_mark(self, home: Home) -> None:
        """At most one transaction in doubt for each session: its next mark commits its last outcome too."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            await ledger.mark(first)
            ledger.settle(accepted(first))
            await ledger.mark(second)
            home.crash()
        async with home.open() as ledger:
            assert await states(ledger) == {1: RowState.ACCEPTED, 2: RowState.IN_DOUBT}

    async def test_an_outcome_becomes_durable_by_itself(self, home: Home) -> None:
        """The last outcomes of a run have no mark to share a commit with."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
            async with asyncio.timeout(5):
                while not (await ledger.counts())[RowState.ACCEPTED]:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
            home.crash()
        async with home.open() as ledger:
            assert await states(ledger) == {1: RowState.ACCEPTED}

    async def test_closing_writes_what_is_queued(self, home: Home) -> None:
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            ledger.settle(rejected(claim))
        async with home.open() as ledger:
            assert await states(ledger) == {1: RowState.REJECTED}

    async def test_a_refusal_before_the_mark_needs_no_mark(self, home: Home) -> None:
        """T5: 5xx to RCPT; it counts as an attempt, since the relay answered."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            ledger.settle(rejected(first))
            ledger.settle(Settlement(second.recipient.row, RowState.REJECTED, reply="the template needs a name"))
            await ledger.flush()
            assert [(entry.state, entry.attempts) for entry in await entries(ledger)] == [
                (RowState.REJECTED, 1),
                (RowState.REJECTED, 0),
            ]

    async def test_acceptance_needs_a_mark(self, home: Home) -> None:
        """I2: accepted without having passed the point of no return is a bug, and raises an error."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            with pytest.raises(LedgerError, match="cannot go from pending to accepted: this is a bug"):
                ledger.settle(accepted(claim))

    async def test_a_row_settles_once(self, home: Home) -> None:
        """A second outcome for one row would be a reply attributed to the wrong recipient (BL-06)."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
            with pytest.raises(LedgerError, match="row 1 is not claimed"):
                ledger.settle(rejected(claim))
            with pytest.raises(LedgerError, match="row 1 is not claimed"):
                ledger.mark(claim)

    async def test_a_deferred_row_waits_for_the_next_run(self, home: Home) -> None:
        """A relay that answers 4xx is not tried again at once."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            for claim in await ledger.claim(2):
                ledger.settle(deferred(claim))
            assert [claim.recipient.row for claim in await claim_all(ledger)] == [3]
        async with home.open() as ledger:
            assert [(claim.recipient.row, claim.attempt) for claim in await claim_all(ledger)] == [
                (1, 2),
                (2, 2),
                (3, 1),
            ]

    async def test_a_deferred_row_is_claimed_when_it_is_due(self, home: Home) -> None:
        """BL-20, T1: also in the run that deferred it; by the times, before rows that were never tried."""
        async with home.open() as ledger:
            await ledger.load(readers(4))
            first, second, third = await ledger.claim(3)
            ledger.settle(deferred(first, due_in(home, 60)))
            ledger.settle(deferred(second, due_in(home, 30)))
            ledger.settle(deferred(third))
            assert await ledger.next_due() == due_in(home, -home.now / 1e6)  # row 4 may be tried at once
            home.now += 60_000_000 - 1
            (claim,) = await ledger.claim(1)
            assert (claim.recipient.row, claim.attempt, claim.is_retry) == (2, 2, True)
            home.now += 1
            again, new = await claim_all(ledger)  # 2 is claimed, and 3 is the next run's
            assert (again.recipient.row, new.recipient.row) == (1, 4)
            assert (again.first_at, new.first_at) == (due_in(home, -60), None)
            for one in (claim, again):
                ledger.settle(deferred(one, due_in(home, 30)))
            ledger.settle(rejected(new))
            assert await ledger.next_due() == due_in(home, 30)

    async def test_the_time_of_the_next_attempt_outlives_the_run(self, home: Home) -> None:
        """BL-20: a command that is started again too early sends nothing."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            ledger.settle(deferred(first, due_in(home, 60)))
            ledger.settle(deferred(second))
        due = due_in(home, 60)
        async with home.open() as ledger:
            assert await ledger.next_due() is not None  # row 2 need not wait
            assert [claim.recipient.row for claim in await claim_all(ledger)] == [2]
            assert [entry.due_at for entry in await entries(ledger)] == [due, None]
        home.now += 60_000_000
        async with home.open() as ledger:
            (claim,) = [claim for claim in await claim_all(ledger) if claim.recipient.row == 1]
            assert not claim.is_retry  # this run has not tried it

    async def test_a_row_that_is_settled_while_rows_are_read_is_not_claimed(self, home: Home) -> None:
        """T1: what was read is outdated: it would be tried before it is due, or after it was accepted."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            ledger.settle(deferred(claim, due_in(home, 0)))
            (again,) = await ledger.claim(1)
            reading = asyncio.create_task(ledger.claim(1))
            await asyncio.sleep(0)  # the claim is on its way to the file
            ledger.settle(deferred(again, due_in(home, 3600)))
            assert await reading == []
            (entry,) = await entries(ledger)
            assert (entry.attempts, entry.due_at) == (2, due_in(home, 3600))

    async def test_rows_claimed_at_a_crash_are_claimed_again(self, home: Home) -> None:
        """BL-04: a claim is not stored; there is no cursor that could have passed a row."""
        async with home.open() as ledger:
            await ledger.load(readers(1200))
            claims = await claim_all(ledger)
            await ledger.mark(claims[0])
            ledger.settle(accepted(claims[0]))
            await ledger.mark(claims[-1])
            ledger.settle(accepted(claims[-1]))
            await ledger.flush()
            home.crash()
        async with home.open() as ledger:
            assert [claim.recipient.row for claim in await claim_all(ledger)] == list(range(2, 1200))

    async def test_rows_can_be_added_to_a_running_campaign(self, home: Home) -> None:
        """Row numbers continue; a mailbox that is there already is not mailed again; outcomes stay."""
        async with home.open() as ledger:
            await ledger.load(readers(601))
            first = (await claim_all(ledger))[0]
            await ledger.mark(first)
            ledger.settle(accepted(first))
            more: list[Row] = [
                recipient(1, "new@example.net"),
                recipient(2, "reader1@EXAMPLE.net"),
                Problem(3, 4, "no"),
            ]
            counts = await ledger.add(batches(more))
            assert (counts.total, counts[RowState.SUPPRESSED], counts[RowState.REJECTED]) == (604, 1, 1)
            (new,) = await ledger.claim(10)
            assert (new.recipient.row, str(new.recipient.mailbox)) == (602, "new@example.net")
            assert new.message_id.rpartition("@")[2] == first.message_id.rpartition("@")[2]
            assert new.message_id != first.message_id
        async with home.open() as ledger:
            found = await entries(ledger)
            assert [entry.row for entry in found] == list(range(1, 605))
            assert found[602].reply == "duplicate of row 1"
            assert found[0].state is RowState.ACCEPTED
            assert len(await claim_all(ledger)) == 601

    async def test_an_interrupted_addition_adds_nothing(self, home: Home) -> None:
        async def broken() -> AsyncIterator[Sequence[Row]]:
            yield [recipient(1, "new@example.net")]
            raise OSError("the file went away")

        async with home.open() as ledger:
            await ledger.load(readers(3))
            with pytest.raises(OSError, match="went away"):
                await ledger.add(broken())
            assert (await ledger.counts()).total == 3
            assert len(await claim_all(ledger)) == 3

    async def test_a_postponed_row_does_not_delay_others(self, home: Home) -> None:
        """It was not tried, and is claimed when it is due: in this run, or in a later one."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            first, second = await ledger.claim(2)
            ledger.postpone(first, due_in(home, 60))
            ledger.postpone(second, due_in(home, 30))
            with pytest.raises(LedgerError, match="row 1 cannot be postponed: this is a bug"):
                ledger.postpone(first, due_in(home, 60))
            (third,) = await claim_all(ledger)
            await ledger.mark(third)
            with pytest.raises(LedgerError, match="row 3 cannot be postponed: this is a bug"):
                ledger.postpone(third, due_in(home, 60))
            ledger.settle(accepted(third))
            assert await ledger.next_due() == due_in(home, 30)
            home.now += 30_000_000
            (again,) = await claim_all(ledger)
            assert (again.recipient.row, again.attempt, again.is_retry) == (2, 1, False)
            ledger.settle(rejected(again))
            assert [(entry.attempts, entry.due_at) for entry in await entries(ledger, RowState.PENDING)] == [
                (0, due_in(home, 30))
            ]
            await ledger.flush()
            home.crash()
        async with home.open() as ledger:
            assert await claim_all(ledger) == []
            home.now += 30_000_000
            assert [claim.recipient.row for claim in await claim_all(ledger)] == [1]

    async def test_a_stored_value_is_there_for_the_next_run(self, home: Home) -> None:
        """A day's quota outlives the process, also one that is killed."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            assert await ledger.read_value("pace") is None
            await ledger.write_value("pace", "one")
            await ledger.write_value("pace", "two")
            home.crash()
        async with home.open() as ledger:
            assert await ledger.read_value("pace") == "two"

    async def test_outcomes_are_kept_until_they_are_removed(self, home: Home) -> None:
        """FT-67: with the row, whatever ends the process; the oldest first, and some at a time."""
        async with home.open() as ledger:
            assert isinstance(ledger, OutcomeStore)
            await ledger.load(readers(9))
            ledger.keep_outcomes(lambda claim, settlement: f"{claim.recipient.row} {settlement.state} {claim.attempt}")
            await ledger.write_value("outcomes", "not one")
            for claim in reversed(await ledger.claim(9)):
                home.now += 7
                await ledger.mark(claim)
                if claim.recipient.row > 3:
                    ledger.settle(accepted(claim))
                    await ledger.flush()
            home.crash()
        async with home.open() as ledger:
            assert isinstance(ledger, OutcomeStore)
            assert await ledger.count_outcomes() == 6
            first = await ledger.read_outcomes("", 4)
            assert [text for _, text in first] == [f"{row} accepted 1" for row in (9, 8, 7, 6)]
            assert [text for _, text in await ledger.read_outcomes(first[1][0], 9)][:1] == ["7 accepted 1"]
            await ledger.remove_outcomes([name for name, _ in first])
            assert [text for _, text in await ledger.read_outcomes("", 9)] == ["5 accepted 1", "4 accepted 1"]
            home.crash()
        async with home.open() as ledger:
            assert isinstance(ledger, OutcomeStore)
            assert await ledger.count_outcomes() == 2
            assert await ledger.read_value("outcomes") == "not one"

    async def test_a_decision_changes_only_the_rows_that_are_named(self, home: Home) -> None:
        """A person resends row 1; row 2, deferred a moment ago, still waits for the next run."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            ledger.settle(rejected(first))
            ledger.settle(deferred(second))
            assert await ledger.resolve(Decision.RESEND, [1], [RowState.REJECTED]) == 1
            assert [claim.recipient.row for claim in await claim_all(ledger)] == [1]

    async def test_a_released_row_is_claimed_again(self, home: Home) -> None:
        """T6: it was not sent; released rows come before new ones."""
        async with home.open() as ledger:
            await ledger.load(readers(4))
            claims = await ledger.claim(3)
            ledger.release(claims[2])
            ledger.release(claims[0], tried=True)
            assert [(claim.recipient.row, claim.attempt) for claim in await claim_all(ledger)] == [
                (1, 2),
                (3, 1),
                (4, 1),
            ]

    async def test_release_undoes_a_mark(self, home: Home) -> None:
        """Only this process knows that the end of data was never written; then there is no doubt."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.release(claim)
            await ledger.flush()
            home.crash()
        async with home.open() as ledger:
            assert ledger.recovery.found == 0
            (again,) = await ledger.claim(1)
            assert again == claim  # nothing was tried

    async def test_release_undoes_a_mark_before_it_is_durable(self, home: Home) -> None:
        """A cancelled sender does not wait; the row is marked a second time at once."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            ledger.mark(claim).cancel()
            ledger.release(claim, tried=True)
            (again,) = await ledger.claim(1)
            assert again.attempt == 2
            await ledger.mark(again)
            ledger.settle(accepted(again))
            await ledger.flush()
            (entry,) = await entries(ledger)
            assert (entry.state, entry.attempts) == (RowState.ACCEPTED, 2)

    async def test_hold_waits_for_a_decision(self, home: Home) -> None:
        """Nothing is sent twice without a person's decision, in any number of runs."""
        await self.leave_in_doubt(home, 2)
        async with home.open() as ledger:
            assert (ledger.recovery.found, ledger.recovery.resent, ledger.recovery.held) == (2, 0, 2)
        async with home.open() as ledger:
            assert (ledger.recovery.found, ledger.recovery.resent, ledger.recovery.held) == (0, 0, 2)
            assert await ledger.claim(10) == []

    async def test_resend_sends_only_once_more(self, home: Home) -> None:
        """T8: at most one more copy without a person's decision, D = 1."""
        await self.leave_in_doubt(home, 1)
        async with home.open(in_doubt=InDoubt.RESEND) as ledger:
            assert (ledger.recovery.found, ledger.recovery.resent, ledger.recovery.held) == (1, 1, 0)
            (claim,) = await ledger.claim(10)
            assert claim.attempt == 2
            await ledger.mark(claim)
            home.crash()
        async with home.open(in_doubt=InDoubt.RESEND) as ledger:
            assert (ledger.recovery.found, ledger.recovery.resent, ledger.recovery.held) == (1, 0, 1)
            assert await ledger.claim(10) == []

    async def test_a_person_may_resend(self, home: Home) -> None:
        """T8: only the rows in doubt that were named."""
        await self.leave_in_doubt(home, 3)
        async with home.open() as ledger:
            assert await ledger.resolve(Decision.RESEND, [1, 3, 99]) == 2
            assert await states(ledger) == {1: RowState.PENDING, 2: RowState.IN_DOUBT, 3: RowState.PENDING}
            assert (await ledger.counts())[RowState.PENDING] == 2
            assert [claim.recipient.row for claim in await ledger.claim(10)] == [1, 3]

    async def test_a_person_may_skip(self, home: Home) -> None:
        """T9: not accepted, since no relay did; the reply says that a person decided, and that it was in doubt."""
        await self.leave_in_doubt(home, 2)
        async with home.open() as ledger:
            assert await ledger.resolve(Decision.SKIP) == 2
            assert (await ledger.counts())[RowState.REJECTED] == 2
            first, _ = await entries(ledger)
            assert first.doubts == 1
            assert first.reply == ("skipped by a person's decision, after: the run ended before the relay answered")

    async def test_a_person_may_decide_about_refused_rows(self, home: Home) -> None:
        """A mailbox that exists again; a greylisted one that need not be tried again."""
        async with home.open() as ledger:
            await ledger.load(batches([recipient(1), recipient(2), Problem(3, 4, "no address")]))
            first, second = await ledger.claim(2)
            ledger.settle(rejected(first))
            ledger.settle(deferred(second))
            assert await ledger.resolve(Decision.SKIP, states=[RowState.DEFERRED]) == 1
            assert await ledger.resolve(Decision.SKIP, states=[RowState.REJECTED]) == 0
            assert await ledger.resolve(Decision.RESEND, states=[RowState.REJECTED]) == 2  # row 3 has nothing to mail
            assert [claim.attempt for claim in await ledger.claim(10)] == [2, 2]

    async def test_a_decision_does_not_change_claimed_rows(self, home: Home) -> None:
        """Their outcome decides."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            ledger.settle(deferred((await ledger.claim(1))[0]))
        async with home.open() as ledger:
            (claim,) = await ledger.claim(1)
            assert await ledger.resolve(Decision.RESEND, states=[RowState.DEFERRED]) == 0
            assert await ledger.claim(1) == []
            await ledger.mark(claim)

    async def test_message_ids_are_stable(self, home: Home) -> None:
        """BL-23: the same on every attempt, different for every row, and the address cannot be derived from them."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            await ledger.mark(first)
            home.crash()
        async with home.open(in_doubt=InDoubt.RESEND) as ledger:
            again = await ledger.claim(2)
            assert [claim.message_id for claim in again] == [first.message_id, second.message_id]
            assert first.message_id != second.message_id
            name, _, domain = first.message_id.partition("@")
            assert len(name) == 26
            assert domain == "example.org"
            assert [entry.message_id for entry in await entries(ledger)] == [first.message_id, second.message_id]

    async def test_times_of_a_row_never_go_back(self, home: Home) -> None:
        """BL-14: the clock is set back by a day in the middle of a run."""
        home.now = 1_800_000_000_000_000
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            home.now -= 86_400_000_000
            ledger.settle(accepted(claim))
            await ledger.flush()
            (entry,) = await entries(ledger)
            assert entry.first_at == entry.last_at == datetime(2027, 1, 15, 8, tzinfo=UTC)

    async def test_times_are_those_of_the_first_mark_and_the_last_write(self, home: Home) -> None:
        home.now = 1_800_000_000_000_000
        async with home.open() as ledger:
            await ledger.load(readers(1))
            assert (await entries(ledger))[0].first_at is None
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            home.now += 1_500_000
            ledger.settle(accepted(claim))
            await ledger.flush()
            (entry,) = await entries(ledger)
            assert entry.last_at is not None
            assert entry.first_at is not None
            assert entry.last_at - entry.first_at == timedelta(seconds=1.5)

    async def test_a_changed_fingerprint_is_named(self, home: Home) -> None:
        """Half a campaign with one text and half with another is refused; the message names the file."""
        async with home.open(fingerprint={"message.html": "1", "people.csv": "2"}) as ledger:
            await ledger.load(readers(1))
            [claim] = await ledger.claim(1)
            ledger.settle(rejected(claim))
        async with home.open(fingerprint={"people.csv": "2", "message.html": "1"}):
            pass
        with pytest.raises(LedgerMismatch, match=r"message\.html changed since the campaign “news” began"):
            async with home.open(fingerprint={"message.html": "9", "people.csv": "2"}):
                pass
        async with home.open():  # to decide about rows, no file is needed
            pass

    async def test_what_changed_before_anything_was_sent_is_loaded_again(self, home: Home) -> None:
        """FT-72: rows that were claimed and given back, or could not be mailed, are no beginning."""
        first, second = {"message.html": "1"}, {"message.html": "2"}
        async with home.open(fingerprint=first) as ledger:
            await ledger.load(batches([*map(recipient, (1, 2)), Problem(3, 4, "it has no @", {"email": "x"})]))
            claims = await ledger.claim(5)
            await ledger.mark(claims[0])
            for claim in claims:
                ledger.release(claim)
            await ledger.write_value("pace", "{}")
            old = {entry.message_id for entry in await entries(ledger)}
        async with home.open(fingerprint=second) as ledger:
            assert not ledger.loaded
            assert ledger.recovery.changes == "message.html changed"
            assert await ledger.read_value("pace") == "{}"  # what was sent today counts for a quota
            counts = await ledger.load(readers(4))
            assert counts[RowState.PENDING] == counts.total == 4
            assert old.isdisjoint({entry.message_id for entry in await entries(ledger)})
        async with home.open(fingerprint=second) as ledger:
            assert (ledger.loaded, ledger.recovery.changes) == (True, "")
            assert len(await claim_all(ledger)) == 4

    async def test_a_load_that_was_to_follow_and_did_not_may_follow_later(self, home: Home) -> None:
        """FT-72: the process ended, or a person said no, before the rows were loaded again: that is no lost ledger."""
        async with home.open(fingerprint={"message.html": "1"}) as ledger:
            await ledger.load(readers(2))
        for parts in ({"message.html": "2"}, {"message.html": "2"}, {"message.html": "3"}):
            async with home.open(fingerprint=parts) as ledger:
                assert not ledger.loaded
        async with home.open(fingerprint={"message.html": "3"}) as ledger:
            await ledger.load(readers(3))
        async with home.open(fingerprint={"message.html": "3"}) as ledger:
            assert len(await claim_all(ledger)) == 3

    @pytest.mark.parametrize("tried", ["accepted", "deferred", "in doubt", "marked", "skipped"])
    async def test_what_changed_after_the_first_attempt_is_refused(self, home: Home, tried: str) -> None:
        """FT-72: one row that the relay may have seen is enough, whatever became of it."""
        async with home.open(fingerprint={"message.html": "1"}) as ledger:
            await ledger.load(readers(3))
            claim = (await ledger.claim(3))[0]
            marked = ledger.mark(claim)
            if tried != "marked":
                outcome = {"accepted": accepted, "deferred": deferred}.get(tried, in_doubt)(claim)
                ledger.settle(outcome)
            await marked
            if tried == "skipped":
                await ledger.flush()
                assert await ledger.resolve(Decision.SKIP) == 1
        with pytest.raises(LedgerMismatch, match="changed since the campaign “news” began"):
            async with home.open(fingerprint={"message.html": "2"}):
                pass
        async with home.open(fingerprint={"message.html": "1"}) as ledger:
            assert (await ledger.counts()).total == 3

    async def test_what_one_file_would_not_bring_back_is_kept(self, home: Home) -> None:
        """FT-72: rows of a further file would be gone, without a word."""
        async with home.open(fingerprint={"message.html": "1"}) as ledger:
            await ledger.load(readers(2))
            await ledger.add(batches([recipient(1, "dora@example.net")]))
        with pytest.raises(LedgerMismatch, match="from more than one file"):
            async with home.open(fingerprint={"message.html": "2"}):
                pass
        async with home.open(fingerprint={"message.html": "1"}) as ledger:
            assert len(await claim_all(ledger)) == 3

    async def test_another_campaigns_ledger_is_refused(self, home: Home) -> None:
        async with home.open() as ledger:
            await ledger.load(readers(1))
        with pytest.raises(LedgerMismatch, match="of the campaign “news”, not of “offers”"):
            async with home.open(name="offers"):
                pass

    async def test_replies_are_stored_escaped_and_short(self, home: Home) -> None:
        """CT-01: a relay's text may have escape sequences, and may be long."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            await ledger.claim(1)
            ledger.settle(
                Settlement(1, RowState.REJECTED, 550, None, "\x1b]0;pwn\x07" + "x" * 10_000 + "\ud800", "h\0st")
            )
            await ledger.flush()
            (entry,) = await entries(ledger)
            assert entry.reply.startswith("\\x1b]0;pwn\\x07xxx")
            assert len(entry.reply) == 512
            assert entry.host == "h\\x00st"

    async def test_a_bounce_is_found_as_long_as_its_row_is_rejected_for_it(self, home: Home) -> None:
        """FT-66, FT-04: also by a later run; not where the row was never sent, nor in another campaign's ledger."""
        async with home.open() as ledger:
            await ledger.load(readers(4))
            sent, refused, doubtful, _ = await ledger.claim(4)
            for claim in (sent, doubtful):
                await ledger.mark(claim)
            ledger.settle(accepted(sent))
            ledger.settle(in_doubt(doubtful))
            ledger.settle(rejected(refused))
            tokens = {row: claim.message_id.partition("@")[0] for row, claim in enumerate((sent, refused, doubtful), 1)}
            bounces = {
                token: Bounce("other@example.net", True, "5.1.1", "unknown", "", (), report=f"report{row}")
                for row, token in {**tokens, 9: "not-here"}.items()
            }
            assert await ledger.find_bounced(bounces) == []
            assert [address for address, _ in await ledger.record_bounces(bounces)] == [
                "reader1@example.net",
                "reader3@example.net",
            ]
        async with home.open() as ledger:
            assert await ledger.record_bounces(bounces) == []
            found = {
                row.token: (row.address, row.bounce.report, row.rejected) for row in await ledger.find_bounced(bounces)
            }
            assert found == {
                tokens[1]: ("reader1@example.net", "report1", True),
                tokens[2]: ("reader2@example.net", "report2", False),  # the relay rejected it before
                tokens[3]: ("reader3@example.net", "report3", True),
            }
            await ledger.resolve(Decision.RESEND, [1], [RowState.REJECTED])
            again = await ledger.find_bounced(bounces)
            assert [row.rejected for row in again] == [False, False, True]

    async def test_a_bounce_may_be_given_by_the_key_of_the_address(self, home: Home) -> None:
        """Where a report has no token; the Message-ID goes before."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            claims = await ledger.claim(3)
            for claim in claims:
                await ledger.mark(claim)
                ledger.settle(accepted(claim))
            token = claims[0].message_id.partition("@")[0]
            bounces = {
                key: Bounce("", True, "5.1.1", "unknown", "", (), report=report)
                for key, report in {token: "one", "reader1@example.net": "two", "reader2@example.net": "three"}.items()
            }
            assert [address for address, _ in await ledger.record_bounces(bounces)] == [
                "reader1@example.net",
                "reader2@example.net",
            ]
            found = {row.token: row.bounce.report for row in await ledger.find_bounced(bounces)}
            assert found == {token: "one", "reader2@example.net": "three"}

    async def test_a_complaint_changes_no_row_and_is_found(self, home: Home) -> None:
        """RFC 5965: the message arrived."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
            token = claim.message_id.partition("@")[0]
            complaint = Bounce("", False, "", "complaint: abuse", "", (), report="one", complaint=True)
            assert await ledger.record_bounces({token: complaint}) == []
            (found,) = await ledger.find_bounced({token: complaint})
            assert (found.address, found.bounce, found.rejected) == ("reader1@example.net", complaint, False)
            assert (await ledger.counts())[RowState.ACCEPTED] == 1

    async def test_counts_follow_every_transition(self, home: Home) -> None:
        async with home.open() as ledger:
            await ledger.load(readers(5))
            one, two, three, four, _ = await ledger.claim(5)
            await asyncio.gather(*map(ledger.mark, (one, two, three)))
            assert (await ledger.counts())[RowState.SENDING] == 3
            ledger.settle(accepted(one))
            ledger.settle(in_doubt(two))
            ledger.release(three)
            ledger.settle(rejected(four))
            await ledger.flush()
            counts = await ledger.counts()
            assert {str(state): number for state, number in counts.items() if number} == {
                "pending": 2,
                "accepted": 1,
                "rejected": 1,
                "in doubt": 1,
            }

    async def test_rows_of_a_halted_run_are_named_until_something_happens_to_them(self, home: Home) -> None:
        """FT-31: across runs, after a crash, and no longer once a row was resent, skipped or rejected anew."""
        async with home.open() as ledger:
            await ledger.load(readers(1400))
            claims = await claim_all(ledger)
            for claim in (*claims[:4], *claims[1200:1202]):
                ledger.settle(rejected(claim))
            await ledger.record_halt([2, 3, 1201])
            home.crash()
        async with home.open() as ledger:
            assert await ledger.halted_rows() == {2, 3, 1201}
            assert await ledger.resolve(Decision.RESEND, {3}, [RowState.REJECTED]) == 1
            assert await ledger.halted_rows() == {2, 1201}
            ledger.settle(rejected((await ledger.claim(3))[0]))
            await ledger.flush()
            assert (await ledger.counts())[RowState.REJECTED] == 6
            assert await ledger.halted_rows() == {2, 1201}
            await ledger.record_halt([3])
        async with home.open() as ledger:
            assert await ledger.halted_rows() == {2, 3, 1201}
            assert await ledger.resolve(Decision.RESEND, await ledger.halted_rows(), [RowState.REJECTED]) == 3
            assert await ledger.halted_rows() == frozenset()
            assert {row for row, state in (await states(ledger)).items() if state is RowState.REJECTED} == {1, 4, 1202}

    async def test_a_ledger_without_a_halted_run_names_no_rows(self, home: Home) -> None:
        """FT-31: nor does one that was rejected by a run without trouble."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            assert await ledger.halted_rows() == frozenset()
            ledger.settle(rejected((await ledger.claim(2))[0]))
            await ledger.flush()
            assert await ledger.halted_rows() == frozenset()

    async def test_rows_are_counted_by_the_relay_that_answered_last(self, home: Home) -> None:
        """FT-32: rows that no relay has answered are left out."""
        async with home.open() as ledger:
            await ledger.load(readers(6))
            one, two, three, four, five, _ = await ledger.claim(6)
            await asyncio.gather(*map(ledger.mark, (one, two, three)))
            ledger.settle(accepted(one))
            ledger.settle(accepted(two)._replace(host="other.example:25"))
            ledger.settle(in_doubt(three))
            ledger.settle(rejected(four))
            ledger.settle(deferred(five))
            await ledger.flush()
            found = await ledger.counts_by_relay()
        assert {host: {str(state): n for state, n in counts.items() if n} for host, counts in found.items()} == {
            "other.example:25": {"accepted": 1},
            "relay.example:587": {"accepted": 1, "deferred": 1, "rejected": 1},
        }

    async def test_statistics_are_those_of_the_rows(self, home: Home) -> None:
        """Each figure of a report is a count of what `entries` yields."""
        home.now -= home.now % 60_000_000
        rows = [recipient(row, f"r{row}@{'big' if row % 3 else 'Small'}.example") for row in range(1, 13)]
        async with home.open() as ledger:
            await ledger.load(batches([*rows, Problem(13, 14, "no address")]))
            one, two, three, four, five, six, *_ = await ledger.claim(12)
            await asyncio.gather(*map(ledger.mark, (one, two, three, six)))
            home.now += 40_000  # microseconds
            ledger.settle(accepted(one))
            ledger.settle(in_doubt(three))
            ledger.settle(rejected(four)._replace(reply=f"<{four.recipient.mailbox}> no such user 0A1", status="5.1.1"))
            ledger.settle(rejected(five)._replace(reply=f"<{five.recipient.mailbox}> no such user 0B2", status="5.1.1"))
            await ledger.flush()
            home.now += 90_000_000
            ledger.settle(accepted(two)._replace(host="other.example:25"))
            ledger.settle(deferred(six))
            await ledger.flush()
            found, counts = await ledger.statistics(), await ledger.counts()
            rows_ = await entries(ledger)
            relays = await ledger.counts_by_relay()
        assert found.counts == counts
        assert counts.total == 13
        assert found.by_relay == relays
        assert sum(each.total for each in found.by_domain.values()) == 12
        assert [*found.by_domain] == ["big.example", "small.example"]
        assert found.domains == 2
        assert found.attempts == sum(entry.attempts for entry in rows_)
        assert {number: each.total for number, each in found.by_attempts.items()} == {1: 6}
        assert found.first_at == min(entry.first_at for entry in rows_ if entry.first_at)
        assert found.last_at == max(entry.last_at for entry in rows_ if entry.last_at)
        assert found.duration == timedelta(microseconds=90_040_000)
        assert sum(number for _, number in found.reply_times) == counts[RowState.ACCEPTED] == 2
        assert (found.reply_time(0.5), found.reply_time(1)) == (40, 90_040)
        assert [sum(each.total for each in found.over_time.values()), len(found.over_time)] == [6, 2]
        alike = [each for each in found.refusals if each.number == 2]
        assert [(each.state, each.status, each.row) for each in alike] == [(RowState.REJECTED, "5.1.1", 4)]
        assert [entry.row for entry in found.in_doubt] == [3]
        assert found.in_doubt[0].message_id == three.message_id

    async def test_statistics_before_the_first_message(self, home: Home) -> None:
        """Nothing was tried: there is no time, and no reply."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            found = await ledger.statistics()
        assert (found.first_at, found.last_at, found.duration) == (None, None, timedelta())
        assert (found.over_time, found.reply_times, found.by_attempts, found.by_relay) == ({}, [], {}, {})
        assert found.reply_time(0.5) is None
        assert found.counts[RowState.PENDING] == 2

    async def leave_in_doubt(self, home: Home, number: int) -> None:
        """End a run with `number` rows past their mark."""
        async with home.open() as ledger:
            await ledger.load(readers(number))
            await asyncio.gather(*map(ledger.mark, await ledger.claim(number)))
            home.crash()
