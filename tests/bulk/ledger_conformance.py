"""What every ledger must do, whatever keeps its rows: the tables of the delivery states, row by row (T0 to T10).

A ledger's own test file subclasses `LedgerConformance` and gives it a `home` fixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from asyncsmtp.bulk.ledger import Claim, Decision, InDoubt, Ledger, Settlement
from asyncsmtp.bulk.recipients.recipient import Problem
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError, LedgerMismatch
from tests.bulk.ledgers import (
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
    """Where one campaign's ledger is."""

    now: int  # microseconds since 1970, UTC: the ledger's clock

    def open(
        self, *, in_doubt: InDoubt = InDoubt.HOLD, fingerprint: dict[str, str] | None = None, name: str = "news"
    ) -> AbstractAsyncContextManager[Ledger]:
        """Open the ledger, and close it in the end."""
        ...

    def crash(self) -> None:
        """From now on `open` finds what a power cut would have left at this moment."""
        ...


def due_in(home: Home, seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=home.now, seconds=seconds)


class LedgerConformance:
    async def test_a_loaded_file_is_pending_in_its_order(self, home: Home) -> None:
        """T0: every row of the file has a state, and what the file said of it is kept."""
        async with home.open() as ledger:
            assert not ledger.loaded
            counts = await ledger.load(readers(3))
            assert ledger.loaded
            assert counts[State.PENDING] == counts.total == 3
            assert [claim.recipient for claim in await ledger.claim(10)] == [recipient(row) for row in (1, 2, 3)]

    async def test_a_load_is_there_for_the_next_run(self, home: Home) -> None:
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
        """T0: nobody gets two mails because the file has two rows; domains do not differ by their case."""
        rows = [recipient(1, "a@example.net"), recipient(2, "b@example.net"), recipient(3, "a@EXAMPLE.net")]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows))
            assert (counts[State.PENDING], counts[State.SUPPRESSED]) == (2, 1)
            (entry,) = await entries(ledger, State.SUPPRESSED)
            assert (entry.row, entry.reply, entry.message_id) == (3, "duplicate of row 1", "")
            assert entry.fields["name"] == "Reader 3"

    async def test_a_duplicate_is_found_over_any_distance(self, home: Home) -> None:
        """Batches of rows know of each other."""
        rows: list[Row] = [recipient(row, f"r{row % 700}@example.net") for row in range(1, 1401)]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows, 100))
            assert counts[State.SUPPRESSED] == 700
            assert (await entries(ledger, State.SUPPRESSED))[0].reply == "duplicate of row 1"

    async def test_a_row_that_cannot_be_mailed_is_rejected_with_its_reason(self, home: Home) -> None:
        """Every row of the file has an outcome; and what the reason quotes is harmless on a terminal."""
        rows: list[Row] = [recipient(1), Problem(2, 3, "the e-mail address is empty \x1b[31m")]
        async with home.open() as ledger:
            counts = await ledger.load(batches(rows))
            assert (counts[State.PENDING], counts[State.REJECTED]) == (1, 1)
            (entry,) = await entries(ledger, State.REJECTED)
            assert (entry.row, entry.address, entry.reply) == (2, "", "the e-mail address is empty \\x1b[31m")

    async def test_a_load_that_breaks_off_leaves_no_campaign(self, home: Home) -> None:
        """T0: half a file is never sendable; the next load begins anew."""

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
        """Ctrl-C while a large file is read in."""
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
        """Two workers never have one row."""
        async with home.open() as ledger:
            await ledger.load(readers(1200))
            first, second = await asyncio.gather(ledger.claim(700), ledger.claim(700))
            assert [claim.recipient.row for claim in first + second] == list(range(1, 1201))
            assert await ledger.claim(1) == []

    async def test_a_cancelled_claim_loses_no_row(self, home: Home) -> None:
        """Ctrl-C between asking and getting."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            claiming = asyncio.create_task(ledger.claim(2))
            await asyncio.sleep(0)
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            assert len(await claim_all(ledger)) == 3

    async def test_a_claim_leaves_no_trace(self, home: Home) -> None:
        """T6: a row in hand at a crash was not sent, and is pending."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            await ledger.claim(2)
            home.crash()
        async with home.open() as ledger:
            assert ledger.recovery.found == 0
            assert [claim.attempt for claim in await ledger.claim(2)] == [1, 1]

    async def test_a_mark_is_durable_when_it_is_done(self, home: Home) -> None:
        """T2, invariant I1: after it the end of the content may be written, and a crash must find it."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, _ = await ledger.claim(2)
            await ledger.mark(first)
            home.crash()
        async with home.open() as ledger:
            assert ledger.recovery.found == ledger.recovery.held == 1
            assert await states(ledger) == {1: State.IN_DOUBT, 2: State.PENDING}
            (entry,) = await entries(ledger, State.IN_DOUBT)
            assert (entry.attempts, entry.doubts, entry.reply) == (1, 1, "the run ended before the relay answered")

    @pytest.mark.parametrize("said", [accepted, deferred, rejected, in_doubt])
    async def test_an_outcome_is_kept_with_the_relays_words(
        self, home: Home, said: Callable[[Claim], Settlement]
    ) -> None:
        """T3, T4, T7: what the relay answered to a marked row."""
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
            assert entry.doubts == (settlement.state is State.IN_DOUBT)

    async def test_an_outcome_is_durable_before_a_later_mark(self, home: Home) -> None:
        """One transaction in doubt for each session at the most: its next mark carries its last outcome."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            await ledger.mark(first)
            ledger.settle(accepted(first))
            await ledger.mark(second)
            home.crash()
        async with home.open() as ledger:
            assert await states(ledger) == {1: State.ACCEPTED, 2: State.IN_DOUBT}

    async def test_an_outcome_becomes_durable_by_itself(self, home: Home) -> None:
        """The last outcomes of a run have no mark to ride with."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
            async with asyncio.timeout(5):
                while not (await ledger.counts())[State.ACCEPTED]:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.01)
            home.crash()
        async with home.open() as ledger:
            assert await states(ledger) == {1: State.ACCEPTED}

    async def test_closing_writes_what_waits(self, home: Home) -> None:
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            ledger.settle(rejected(claim))
        async with home.open() as ledger:
            assert await states(ledger) == {1: State.REJECTED}

    async def test_a_refusal_before_the_mark_needs_none(self, home: Home) -> None:
        """T5: 5yz to RCPT; it counts as an attempt, since the relay answered."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            ledger.settle(rejected(first))
            ledger.settle(Settlement(second.recipient.row, State.REJECTED, reply="the template needs a name"))
            await ledger.flush()
            assert [(entry.state, entry.attempts) for entry in await entries(ledger)] == [
                (State.REJECTED, 1),
                (State.REJECTED, 0),
            ]

    async def test_acceptance_needs_a_mark(self, home: Home) -> None:
        """I2: accepted without having been past the point of no return is a bug, and ends in an error."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            with pytest.raises(LedgerError, match="cannot go from pending to accepted: this is a bug"):
                ledger.settle(accepted(claim))

    async def test_a_row_settles_once(self, home: Home) -> None:
        """A second outcome for one row would be a reply booked on the wrong recipient (BL-06)."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
            with pytest.raises(LedgerError, match="row 1 is not in hand"):
                ledger.settle(rejected(claim))
            with pytest.raises(LedgerError, match="row 1 is not in hand"):
                ledger.mark(claim)

    async def test_a_deferred_row_waits_for_the_next_run(self, home: Home) -> None:
        """A relay that says "later" is not asked again at once."""
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

    async def test_a_deferred_row_is_claimed_when_its_time_has_come(self, home: Home) -> None:
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
            assert (claim.recipient.row, claim.attempt, claim.again) == (2, 2, True)
            home.now += 1
            again, new = await claim_all(ledger)  # 2 is in hand, and 3 is the next run's
            assert (again.recipient.row, new.recipient.row) == (1, 4)
            assert (again.first_at, new.first_at) == (due_in(home, -60), None)
            for one in (claim, again):
                ledger.settle(deferred(one, due_in(home, 30)))
            ledger.settle(rejected(new))
            assert await ledger.next_due() == due_in(home, 30)

    async def test_the_time_of_the_next_attempt_outlives_the_run(self, home: Home) -> None:
        """BL-20: a command that is started again too early asks nobody."""
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
            assert not claim.again  # this run has not tried it

    async def test_a_row_that_is_settled_while_rows_are_read_is_not_taken_as_it_was(self, home: Home) -> None:
        """T1: what was read of it is old: it would be tried before its time, or after it was accepted."""
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

    async def test_rows_in_hand_at_a_crash_are_claimed_again(self, home: Home) -> None:
        """BL-04: that a row was handed out is written nowhere; there is no cursor that would have passed it."""
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

    async def test_rows_can_be_added_to_a_campaign_that_was_begun(self, home: Home) -> None:
        """Their numbers go on; who is there already is not mailed again; what was sent stays so; a crash adds none."""
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
            assert (counts.total, counts[State.SUPPRESSED], counts[State.REJECTED]) == (604, 1, 1)
            (new,) = await ledger.claim(10)
            assert (new.recipient.row, str(new.recipient.mailbox)) == (602, "new@example.net")
            assert new.message_id.rpartition("@")[2] == first.message_id.rpartition("@")[2]
            assert new.message_id != first.message_id
        async with home.open() as ledger:
            found = await entries(ledger)
            assert [entry.row for entry in found] == list(range(1, 605))
            assert found[602].reply == "duplicate of row 1"
            assert found[0].state is State.ACCEPTED
            assert len(await claim_all(ledger)) == 601

    async def test_an_addition_that_breaks_off_adds_nothing(self, home: Home) -> None:
        async def broken() -> AsyncIterator[Sequence[Row]]:
            yield [recipient(1, "new@example.net")]
            raise OSError("the file went away")

        async with home.open() as ledger:
            await ledger.load(readers(3))
            with pytest.raises(OSError, match="went away"):
                await ledger.add(broken())
            assert (await ledger.counts()).total == 3
            assert len(await claim_all(ledger)) == 3

    async def test_a_row_that_is_put_off_lets_the_others_pass(self, home: Home) -> None:
        """It was not tried, and comes when its time has come: in this run, or in a later one."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            first, second = await ledger.claim(2)
            ledger.put_off(first, due_in(home, 60))
            ledger.put_off(second, due_in(home, 30))
            with pytest.raises(LedgerError, match="row 1 cannot be put off: this is a bug"):
                ledger.put_off(first, due_in(home, 60))
            (third,) = await claim_all(ledger)
            await ledger.mark(third)
            with pytest.raises(LedgerError, match="row 3 cannot be put off: this is a bug"):
                ledger.put_off(third, due_in(home, 60))
            ledger.settle(accepted(third))
            assert await ledger.next_due() == due_in(home, 30)
            home.now += 30_000_000
            (again,) = await claim_all(ledger)
            assert (again.recipient.row, again.attempt, again.again) == (2, 1, False)
            ledger.settle(rejected(again))
            assert [(entry.attempts, entry.due_at) for entry in await entries(ledger, State.PENDING)] == [
                (0, due_in(home, 30))
            ]
            await ledger.flush()
            home.crash()
        async with home.open() as ledger:
            assert await claim_all(ledger) == []
            home.now += 30_000_000
            assert [claim.recipient.row for claim in await claim_all(ledger)] == [1]

    async def test_what_a_run_remembers_the_next_one_recalls(self, home: Home) -> None:
        """A day's quota outlives the process, also one that is killed."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            assert await ledger.recall("pace") is None
            await ledger.remember("pace", "one")
            await ledger.remember("pace", "two")
            home.crash()
        async with home.open() as ledger:
            assert await ledger.recall("pace") == "two"

    async def test_a_decision_brings_back_only_what_it_is_about(self, home: Home) -> None:
        """A person resends row 1; row 2, deferred a moment ago, still waits for the next run."""
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            ledger.settle(rejected(first))
            ledger.settle(deferred(second))
            assert await ledger.resolve(Decision.RESEND, [1], [State.REJECTED]) == 1
            assert [claim.recipient.row for claim in await claim_all(ledger)] == [1]

    async def test_a_row_given_back_is_claimed_again(self, home: Home) -> None:
        """T6: it was not sent; rows given back come before new ones."""
        async with home.open() as ledger:
            await ledger.load(readers(4))
            claims = await ledger.claim(3)
            ledger.give_back(claims[2])
            ledger.give_back(claims[0], tried=True)
            assert [(claim.recipient.row, claim.attempt) for claim in await claim_all(ledger)] == [
                (1, 2),
                (3, 1),
                (4, 1),
            ]

    async def test_a_mark_can_be_taken_back_by_who_made_it(self, home: Home) -> None:
        """Only this process knows that the end of the content was never written; then there is no doubt."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.give_back(claim)
            await ledger.flush()
            home.crash()
        async with home.open() as ledger:
            assert ledger.recovery.found == 0
            (again,) = await ledger.claim(1)
            assert again == claim  # nothing was tried

    async def test_a_mark_that_is_taken_back_before_it_is_durable(self, home: Home) -> None:
        """A cancelled sender does not wait; the row is marked a second time in the same breath."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            ledger.mark(claim).cancel()
            ledger.give_back(claim, tried=True)
            (again,) = await ledger.claim(1)
            assert again.attempt == 2
            await ledger.mark(again)
            ledger.settle(accepted(again))
            await ledger.flush()
            (entry,) = await entries(ledger)
            assert (entry.state, entry.attempts) == (State.ACCEPTED, 2)

    async def test_hold_keeps_doubts_for_a_person(self, home: Home) -> None:
        """Nothing goes twice without a person's word, in any number of runs."""
        await self.leave_in_doubt(home, 2)
        async with home.open() as ledger:
            assert (ledger.recovery.found, ledger.recovery.resent, ledger.recovery.held) == (2, 0, 2)
        async with home.open() as ledger:
            assert (ledger.recovery.found, ledger.recovery.resent, ledger.recovery.held) == (0, 0, 2)
            assert await ledger.claim(10) == []

    async def test_resend_sends_once_more_and_no_more(self, home: Home) -> None:
        """T8: at most one copy more without a person, D = 1."""
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
        """T8: of the rows in doubt only those that were named."""
        await self.leave_in_doubt(home, 3)
        async with home.open() as ledger:
            assert await ledger.resolve(Decision.RESEND, [1, 3, 99]) == 2
            assert await states(ledger) == {1: State.PENDING, 2: State.IN_DOUBT, 3: State.PENDING}
            assert (await ledger.counts())[State.PENDING] == 2
            assert [claim.recipient.row for claim in await ledger.claim(10)] == [1, 3]

    async def test_a_person_may_skip(self, home: Home) -> None:
        """T9: not accepted, as no relay said so; the reply says who decided, and that it was in doubt."""
        await self.leave_in_doubt(home, 2)
        async with home.open() as ledger:
            assert await ledger.resolve(Decision.SKIP) == 2
            assert (await ledger.counts())[State.REJECTED] == 2
            first, _ = await entries(ledger)
            assert first.doubts == 1
            assert first.reply == ("skipped by a person's decision, after: the run ended before the relay answered")

    async def test_a_person_may_decide_about_refused_rows(self, home: Home) -> None:
        """A mailbox that is mended since; a greylisted one that need not be tried again."""
        async with home.open() as ledger:
            await ledger.load(batches([recipient(1), recipient(2), Problem(3, 4, "no address")]))
            first, second = await ledger.claim(2)
            ledger.settle(rejected(first))
            ledger.settle(deferred(second))
            assert await ledger.resolve(Decision.SKIP, states=[State.DEFERRED]) == 1
            assert await ledger.resolve(Decision.SKIP, states=[State.REJECTED]) == 0
            assert await ledger.resolve(Decision.RESEND, states=[State.REJECTED]) == 2  # row 3 has nothing to mail
            assert [claim.attempt for claim in await ledger.claim(10)] == [2, 2]

    async def test_a_decision_leaves_rows_in_hand_alone(self, home: Home) -> None:
        """Who has the row decides."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            ledger.settle(deferred((await ledger.claim(1))[0]))
        async with home.open() as ledger:
            (claim,) = await ledger.claim(1)
            assert await ledger.resolve(Decision.RESEND, states=[State.DEFERRED]) == 0
            assert await ledger.claim(1) == []
            await ledger.mark(claim)

    async def test_message_ids_stay(self, home: Home) -> None:
        """BL-23: the same on every attempt, different for every row, and they do not give the address away."""
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

    async def test_times_are_those_of_the_first_mark_and_the_last_word(self, home: Home) -> None:
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

    async def test_what_changed_is_named(self, home: Home) -> None:
        """Half a campaign with one text and half with another is refused, and says which file it is."""
        async with home.open(fingerprint={"message.html": "1", "people.csv": "2"}) as ledger:
            await ledger.load(readers(1))
        async with home.open(fingerprint={"people.csv": "2", "message.html": "1"}):
            pass
        with pytest.raises(LedgerMismatch, match=r"message\.html changed since the campaign “news” began"):
            async with home.open(fingerprint={"message.html": "9", "people.csv": "2"}):
                pass
        async with home.open():  # to decide about rows, no file is needed
            pass

    async def test_another_campaigns_ledger_is_refused(self, home: Home) -> None:
        async with home.open() as ledger:
            await ledger.load(readers(1))
        with pytest.raises(LedgerMismatch, match="of the campaign “news”, not of “offers”"):
            async with home.open(name="offers"):
                pass

    async def test_foreign_words_are_kept_harmless_and_short(self, home: Home) -> None:
        """CT-01: a relay's text may hold escape sequences, and be long."""
        async with home.open() as ledger:
            await ledger.load(readers(1))
            await ledger.claim(1)
            ledger.settle(Settlement(1, State.REJECTED, 550, None, "\x1b]0;pwn\x07" + "x" * 10_000 + "\ud800", "h\0st"))
            await ledger.flush()
            (entry,) = await entries(ledger)
            assert entry.reply.startswith("\\x1b]0;pwn\\x07xxx")
            assert len(entry.reply) == 512
            assert entry.host == "h\\x00st"

    async def test_counts_follow_every_step(self, home: Home) -> None:
        async with home.open() as ledger:
            await ledger.load(readers(5))
            one, two, three, four, _ = await ledger.claim(5)
            await asyncio.gather(*map(ledger.mark, (one, two, three)))
            assert (await ledger.counts())[State.SENDING] == 3
            ledger.settle(accepted(one))
            ledger.settle(in_doubt(two))
            ledger.give_back(three)
            ledger.settle(rejected(four))
            await ledger.flush()
            counts = await ledger.counts()
            assert {str(state): number for state, number in counts.items() if number} == {
                "pending": 2,
                "accepted": 1,
                "rejected": 1,
                "in doubt": 1,
            }

    async def leave_in_doubt(self, home: Home, number: int) -> None:
        """A run that dies with `number` rows past their mark."""
        async with home.open() as ledger:
            await ledger.load(readers(number))
            await asyncio.gather(*map(ledger.mark, await ledger.claim(number)))
            home.crash()
