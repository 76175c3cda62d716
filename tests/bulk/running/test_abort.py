"""An abort leaves each row in the state that its sender had come to, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import DeliveryInDoubt
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.testing import NO_REPLY, ScriptedRelay, Stage, StageContext
from tests.bulk.ledger.ledgers import entries, states
from tests.bulk.running.test_runner import Plain, campaign
from tests.bulk.running.test_storms import YES
from tests.bulk.test_campaign import make, until, url
from tests.cli.serving import serving

STAGES = ["before its mark", "marked", "marked", "past the point of no return", "answered", "marked"]
LEFT = {
    "before its mark": RowState.PENDING,
    "marked": RowState.PENDING,
    "past the point of no return": RowState.IN_DOUBT,
    "answered": RowState.ACCEPTED,
}


class Staged:
    """A pool that takes the message of each row to its stage of `stages`, and waits there."""

    def __init__(self, stages: list[str]) -> None:
        self.stages = stages
        self.waiting = 0
        self.all_wait = asyncio.Event()

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        assert before_end is not None
        assert isinstance(message.content, Content)
        row = int(bytes(message.content).split(b"Subject: ")[1].split(b"\r\n")[0])
        stage = self.stages[row - 1]
        if stage != "before its mark":
            await before_end()
        if stage == "answered":
            return Delivery(message.envelope, YES, (YES,), (YES,), host="relay.example")
        self.waiting += 1
        if self.waiting == len(self.stages) - self.stages.count("answered"):
            self.all_wait.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            if stage == "past the point of no return":
                raise DeliveryInDoubt(message.envelope, "the sender gave up waiting") from error
            raise
        raise AssertionError


def abort(run: Run, task: asyncio.Task[None]) -> None:
    run.abort()


def abort_twice(run: Run, task: asyncio.Task[None]) -> None:
    run.abort()
    run.abort()


def cancel(run: Run, task: asyncio.Task[None]) -> None:
    task.cancel()


@pytest.mark.parametrize("end", [abort, abort_twice, cancel])
@pytest.mark.parametrize("stages", [STAGES, STAGES[::-1], ["marked"] * 6])
async def test_a_cancelled_sender_gives_its_row_back(
    tmp_path: Path, stages: list[str], end: Callable[[Run, asyncio.Task[None]], None]
) -> None:
    """FT-82: a row whose end of data was not written is pending again, also if it was marked; none stays SENDING."""
    async with campaign(tmp_path, len(stages)) as ledger:
        pool = Staged(stages)
        run = Run(Plain(), ledger, pool, concurrency=10)
        task = asyncio.create_task(run.run())
        async with asyncio.timeout(10):
            await pool.all_wait.wait()
            end(run, task)
            with suppress(asyncio.CancelledError):
                await task
        await ledger.flush()
        found = await states(ledger)
        tried = {entry.row: entry.attempts for entry in await entries(ledger)}
    assert found == {row: LEFT[stage] for row, stage in enumerate(stages, 1)}
    assert tried == {row: int(LEFT[stage] is not RowState.PENDING) for row, stage in enumerate(stages, 1)}


async def test_rows_that_were_given_back_are_sent_by_the_same_ledger(tmp_path: Path) -> None:
    """FT-82: each once more, and no other."""
    async with campaign(tmp_path, 6) as ledger:
        pool = Staged(STAGES)
        run = Run(Plain(), ledger, pool, concurrency=10)
        task = asyncio.create_task(run.run())
        async with asyncio.timeout(10):
            await pool.all_wait.wait()
            run.abort()
            await task
            await Run(Plain(), ledger, Staged(["answered"] * 6), concurrency=10).run()
        found = await states(ledger)
    assert [row for row, state in found.items() if state is RowState.IN_DOUBT] == [4]
    assert set(found.values()) == {RowState.ACCEPTED, RowState.IN_DOUBT}


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.END_OF_DATA])
async def test_an_abort_over_a_real_session_gives_rows_back(tmp_path: Path, stage: Stage) -> None:
    """FT-82: three rows accepted, three that wait for a reply: pending unless their content is past its end."""
    heard: list[bytes] = []

    def rule(context: StageContext) -> object:
        heard.append(context.line)
        return NO_REPLY if len(heard) > 3 else None

    rows = [{"email": f"a{number}@example.org", "name": "A"} for number in range(6)]
    with serving(ScriptedRelay({stage: rule})) as relay:  # type: ignore[dict-item]
        lone = make(tmp_path, rows, concurrency=6, sessions=1, dialogue="lockstep")
        running = asyncio.ensure_future(lone.run(relay=url(relay)))
        await until(lambda: len(heard) == 4)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    found = [entry.state async for entry in lone.results()]
    waiting = RowState.IN_DOUBT if stage is Stage.END_OF_DATA else RowState.PENDING
    assert found == [RowState.ACCEPTED] * 3 + [waiting] + [RowState.PENDING] * 2
