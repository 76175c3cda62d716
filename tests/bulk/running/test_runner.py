"""A run: what must not hurt the messages in flight, and what must not leave it waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from threading import get_ident
from time import sleep
from typing import ClassVar

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.running.balancer import RelayBalancer, WeightedRelay
from asyncsmtp.bulk.running.row_sender import ReconnectPolicy
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import (
    CertificateRefused,
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    LedgerError,
    SuppressionError,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.testing import DEFAULT_REPLY, ScriptedRelay, Stage, Wait
from tests.bulk.ledger.ledgers import readers, states
from tests.client.support import until


class Plain:
    """Composes a line for each row."""

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        return Message(
            Envelope.of("news@example.org", [to.address]), Content.of(f"Subject: {row}\n\n{fields['name']}\n")
        )


class Gated:
    """A pool whose relay has every content it was sent, and answers when `gate` is opened; the first at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.under_way = 0

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        self.under_way += 1
        first = self.under_way == 1
        assert before_end is not None
        await before_end()
        if not first:
            await self.gate.wait()
        yes = Reply(250, (b"ok",))
        return Delivery(message.envelope, yes, (yes,), (yes,), host="relay.example")


@asynccontextmanager
async def campaign(folder: Path, rows: int) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(folder / "news.ledger", name="news", from_domain="example.org") as ledger:
        await ledger.load(readers(rows))
        yield ledger


@pytest.mark.parametrize("failure", [ValueError("no such key"), LedgerError("raised by a watch")])
async def test_a_watch_that_raises_puts_no_row_in_doubt(tmp_path: Path, failure: Exception) -> None:
    """What an application does with an outcome is not the relay's affair: what is in flight is answered and settled."""
    pool = Gated()

    def watch(claim: Claim, settlement: Settlement) -> None:
        pool.gate.set()
        raise failure

    async with campaign(tmp_path, 20) as ledger:
        with pytest.raises(type(failure), match=str(failure)):
            await Run(Plain(), ledger, pool, concurrency=5, watch=watch).run()
        found = await states(ledger)
    assert set(found.values()) == {RowState.ACCEPTED, RowState.PENDING}
    assert list(found.values()).count(RowState.ACCEPTED) == pool.under_way


async def test_a_composer_that_breaks_does_not_hurt_the_others(tmp_path: Path) -> None:
    """A bug for one row ends the run as itself, gently; the others have the relay's word."""
    pool = Gated()

    class Breaking(Plain):
        def compose(
            self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
        ) -> Message:
            if row == 3:
                asyncio.get_running_loop().call_later(0.05, pool.gate.set)
                raise ZeroDivisionError
            return super().compose(to, fields, message_id=message_id, date=date, row=row)

    async with campaign(tmp_path, 5) as ledger:
        with pytest.raises(ZeroDivisionError):
            await Run(Breaking(), ledger, pool, concurrency=5).run()
        found = await states(ledger)
    assert found.pop(3) is RowState.PENDING
    assert RowState.IN_DOUBT not in found.values()
    assert RowState.SENDING not in found.values()


async def test_a_suppression_list_that_breaks_puts_no_row_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent without the list; what is in flight is answered and settled."""
    pool, claimed = Gated(), list[Claim]()

    async with campaign(tmp_path, 20) as ledger:
        claim = ledger.claim

        async def broken(limit: int) -> list[Claim]:
            if not claimed:
                claimed.extend(await claim(5))
                return claimed
            asyncio.get_running_loop().call_later(0.05, pool.gate.set)
            raise SuppressionError("gone.txt cannot be read")

        monkeypatch.setattr(ledger, "claim", broken)
        with pytest.raises(SuppressionError, match="cannot be read"):
            await Run(Plain(), ledger, pool, concurrency=10).run()
        found = await states(ledger)
    assert list(found.values()).count(RowState.ACCEPTED) == pool.under_way == 5
    assert set(found.values()) == {RowState.ACCEPTED, RowState.PENDING}


async def test_conversions_are_done_in_a_thread_one_at_a_time(tmp_path: Path) -> None:
    """They take longer than a step of the event loop may, and hold the interpreter's lock; the loop goes on."""
    pool = Gated()
    pool.gate.set()
    threads: list[int] = []
    at_once: list[int] = []

    class Converting(Plain):
        converted: ClassVar[set[str]] = set()
        under_way = 0

        def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
            return None if fields["name"][-1] in self.converted else lambda: self.convert(fields["name"][-1])

        def convert(self, variant: str) -> None:
            self.under_way += 1
            at_once.append(self.under_way)
            threads.append(get_ident())
            sleep(0.01)
            self.converted.add(variant)
            self.under_way -= 1

    async with campaign(tmp_path, 20) as ledger:
        await Run(Converting(), ledger, pool, concurrency=20).run()
        found = await states(ledger)
    assert list(found.values()) == [RowState.ACCEPTED] * 20
    assert set(at_once) == {1}
    assert get_ident() not in threads


async def test_a_run_cut_before_its_messages_begin_ends(tmp_path: Path) -> None:
    """BL-10: a task that is cancelled before its first step must not keep its place at the gate."""

    async with campaign(tmp_path, 20) as ledger:
        run = Run(Plain(), ledger, Gated(), concurrency=5)
        claim = ledger.claim

        async def claim_and_cut(limit: int) -> list[Claim]:
            claims = await claim(limit)
            asyncio.get_running_loop().call_soon(run.abort)  # it runs before the tasks that are made of these
            return claims

        ledger.claim = claim_and_cut  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await run.run()
        assert RowState.IN_DOUBT not in (await states(ledger)).values()


async def test_a_stopped_run_does_not_wait_for_a_relay_that_is_gone(tmp_path: Path) -> None:
    """BL-16: nothing is under way during an outage, so the first Ctrl-C ends the run; the rows stay pending."""
    pool = Gated()

    class Gone(Gated):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            if not pool.under_way:
                return await pool.send(message, before_end=before_end)
            asyncio.get_running_loop().call_later(0.05, run.stop)
            raise ConnectFailed("nothing answers there")

    async with campaign(tmp_path, 20) as ledger:
        run = Run(Plain(), ledger, Gone(), concurrency=1, reconnect=ReconnectPolicy([60.0]))
        async with asyncio.timeout(5):
            await run.run()
        found = await states(ledger)
    assert list(found.values()) == [RowState.ACCEPTED] + [RowState.PENDING] * 19


async def test_a_certificate_that_is_refused_in_mid_run_ends_it_there(tmp_path: Path) -> None:
    """TL-05: waiting does not mend it, and somebody may be on the line; the rows stay pending."""
    pool = Gated()

    class Changed(Gated):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            if not pool.under_way:
                return await pool.send(message, before_end=before_end)
            raise CertificateRefused("the certificate is not the one that is pinned", "ab" * 32)

    async with campaign(tmp_path, 20) as ledger:
        run = Run(Plain(), ledger, Changed(), concurrency=1, reconnect=ReconnectPolicy([60.0]))
        async with asyncio.timeout(5):
            with pytest.raises(CertificateRefused):
                await run.run()
        found = await states(ledger)
    assert list(found.values()) == [RowState.ACCEPTED] + [RowState.PENDING] * 19


async def test_the_log_tells_of_the_run_of_the_relay_and_of_doubt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A library's user has no summary on a terminal: what a person must look after is a warning, one line each."""
    caplog.set_level(logging.INFO, "asyncsmtp.campaign")

    class Failing(Gated):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            if self.under_way == 1:
                self.under_way += 1
                raise ConnectFailed("nothing answers there")
            if self.under_way == 2:
                self.under_way += 1
                assert before_end is not None
                await before_end()
                raise DeliveryInDoubt(message.envelope, "hung up") from ConnectionLost("hung up: try again")
            if self.under_way == 3:
                self.under_way += 1
                assert before_end is not None
                await before_end()
                raise DeliveryInDoubt(message.envelope, "the sender gave up waiting") from asyncio.CancelledError()
            self.gate.set()
            return await super().send(message, before_end=before_end)

    async with campaign(tmp_path, 3) as ledger:
        await Run(Plain(), ledger, Failing(), concurrency=1, reconnect=ReconnectPolicy([0.0])).run()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "the run begins"),
        (
            logging.WARNING,
            "the relay cannot be used: the campaign waits, and tries again in 0 s (nothing answers there)",
        ),
        (logging.WARNING, "row 2 is in doubt: hung up"),  # and not "try again"
        (logging.WARNING, "row 3 is in doubt: the sender gave up waiting"),
        (logging.INFO, "the run ends: all is sent"),
    ]


async def test_a_run_that_is_stopped_gives_back_what_has_not_begun(tmp_path: Path) -> None:
    """FT-74: 40 rows have a slot, one session has a transaction: that one and the next are answered, not 38 more."""
    script = {Stage.END_OF_DATA: (Wait(0.02), DEFAULT_REPLY)}
    async with campaign(tmp_path, 60) as ledger, ScriptedRelay(script) as server:
        async with Pool(f"smtp://127.0.0.1:{server.port}?security=none", sessions=1) as pool:
            run = Run(Plain(), ledger, pool, concurrency=40)
            assert (run.is_stopped, run.is_paused, run.waits_until) == (False, False, None)
            ended = asyncio.create_task(run.run())
            await until(lambda: bool(server.received))
            run.stop()
            await ended
            assert (run.is_stopped, run.in_progress) == (True, 0)
        found = list((await states(ledger)).values())
    assert 1 <= found.count(RowState.ACCEPTED) == len(server.received) <= 4
    assert found.count(RowState.PENDING) == 60 - found.count(RowState.ACCEPTED)


async def test_several_relays_give_back_what_has_not_begun(tmp_path: Path) -> None:
    """FT-74: through a balancer as well, whose relays each have a queue."""
    script = {Stage.END_OF_DATA: (Wait(0.02), DEFAULT_REPLY)}
    async with campaign(tmp_path, 60) as ledger, ScriptedRelay(script) as one, ScriptedRelay(script) as other:
        urls = [f"smtp://127.0.0.1:{server.port}?security=none" for server in (one, other)]
        async with Pool(urls[0], sessions=1) as first, Pool(urls[1], sessions=1) as second:
            run = Run(Plain(), ledger, RelayBalancer([WeightedRelay(first), WeightedRelay(second)]), concurrency=40)
            ended = asyncio.create_task(run.run())
            await until(lambda: bool(one.received and other.received))
            run.stop()
            await ended
        found = list((await states(ledger)).values())
    assert found.count(RowState.ACCEPTED) == len(one.received) + len(other.received) <= 8
    assert found.count(RowState.PENDING) == 60 - found.count(RowState.ACCEPTED)
