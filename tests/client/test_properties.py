"""What holds for any replies, any faults and any cancelling: P4 and P6."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import DeliveryInDoubt, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Action, Fin, Rst, Rule, ScriptedRelay, Stage, StageContext
from tests.client.support import message, relay_of, rounds, token, until

EXAMPLES = settings(
    max_examples=500,
    deadline=None,
    derandomize="CI" in os.environ,  # there the same each time; elsewhere it goes on searching
    suppress_health_check=[HealthCheck.too_slow],
)
PATIENCE = 30.0  # seconds: who waits longer than that waits for ever

OUT_OF_SEQUENCE = "503 5.5.1 MAIL was refused"
CODES = st.sampled_from([250, 250, 250, 450, 550])
ENVELOPES = st.tuples(CODES, st.lists(CODES, min_size=1, max_size=3), CODES, CODES)


class Book:
    """The server's own log: the token in each reply, by what it was about."""

    def __init__(self, wanted: list[tuple[int, list[int], int, int]]) -> None:
        self.tokens: dict[tuple[str, ...], str] = {}
        self._wanted = wanted
        self._numbers = count(1)

    def script(self) -> dict[Stage, Rule]:
        return {Stage.MAIL: self._mail, Stage.RCPT: self._rcpt, Stage.DATA: self._data, Stage.END_OF_DATA: self._dot}

    def _say(self, code: int, *about: str) -> str:
        self.tokens[about] = f"token-{next(self._numbers)}."
        return f"{code} {self.tokens[about]}"

    def _mail(self, context: StageContext) -> Action:
        name = context.line.split(b"<")[1].split(b"@")[0].decode()
        return self._say(self._of(name)[0], "mail", name)

    def _rcpt(self, context: StageContext) -> Action:
        if context.reverse_path is None:
            return OUT_OF_SEQUENCE
        path = context.line.split(b"<")[1].split(b">")[0].decode()
        name = str(context.reverse_path).partition("@")[0]
        return self._say(self._of(name)[1][int(path[0])], "rcpt", name, path)

    def _data(self, context: StageContext) -> Action:
        if context.reverse_path is None:
            return OUT_OF_SEQUENCE
        name = str(context.reverse_path).partition("@")[0]
        code = self._of(name)[2]
        return self._say(354 if code == 250 and context.forward_paths else max(code, 450), "data", name)

    def _dot(self, context: StageContext) -> Action:
        name = str(context.reverse_path).partition("@")[0]
        return self._say(self._of(name)[3], "dot", name)

    def _of(self, name: str) -> tuple[int, list[int], int, int]:
        return self._wanted[int(name)]

    def expected(self, number: int) -> list[str]:
        """The token that decided the fate of each recipient of one message."""
        mail, rcpts, data, _ = self._wanted[number]
        name = str(number)
        if mail != 250:
            return [self.tokens["mail", name]] * len(rcpts)
        last = self.tokens.get(("dot" if data == 250 else "data", name), "")
        return [
            last if code == 250 else self.tokens["rcpt", name, f"{place}@example.net"]
            for place, code in enumerate(rcpts)
        ]


@EXAMPLES
@given(st.lists(ENVELOPES, min_size=1, max_size=5), st.sampled_from([Dialogue.LOCKSTEP, Dialogue.PIPELINED]))
@pytest.mark.slow
def test_each_reply_belongs_to_the_command_it_answers(
    wanted: list[tuple[int, list[int], int, int]], dialogue: Dialogue
) -> None:
    """P4, BL-06: several messages at once on a session, any mix of replies; told by tokens, from the server's log."""

    async def play() -> None:
        book = Book(wanted)
        async with ScriptedRelay(book.script()) as server, Session(relay_of(server, dialogue=dialogue)) as session:
            deliveries = await asyncio.gather(
                *(session.send(_numbered(number, len(rcpts))) for number, (_, rcpts, _, _) in enumerate(wanted))
            )
        for number, delivery in enumerate(deliveries):
            assert [reply.text for reply in delivery.replies] == book.expected(number)

    asyncio.run(_in_time(play()))


def _numbered(number: int, recipients: int) -> Message:
    paths = [f"{place}@example.net" for place in range(recipients)]
    return Message(Envelope.of(f"{number}@example.org", paths), Content.of("Subject: x\n\nhello\n"))


FAULTS = st.dictionaries(
    st.integers(1, 12),  # the occasion
    st.tuples(
        st.sampled_from([Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA, Stage.RSET]),
        st.sampled_from(
            [Fin(), Rst(), (NO_REPLY, Fin()), "451 4.3.0 later", "421 4.3.2 closing", (DEFAULT_REPLY, Fin())]
        ),
    ),
    max_size=4,
)
ACTS = st.lists(st.tuples(st.integers(0, 8), st.none() | st.integers(0, 40)), min_size=1, max_size=8)


@EXAMPLES
@given(FAULTS, ACTS, st.integers(1, 3), st.integers(1, 3))
@pytest.mark.slow
def test_a_pool_mixes_nothing_up_and_leaks_nothing(
    faults: dict[int, tuple[Stage, Action]], acts: list[tuple[int, int | None]], sessions: int, depth: int
) -> None:
    """P6: sends that are cancelled at any await, connections that break anywhere; and then the pool still serves."""
    before = _descriptors()

    async def play() -> None:
        script: dict[Stage, Rule] = {}
        for occasion, (stage, move) in faults.items():
            moves = script.setdefault(stage, {})
            assert isinstance(moves, dict)
            moves[occasion] = move
        async with (
            ScriptedRelay(script, on_accept=token) as server,
            Pool(relay_of(server), sessions=sessions, depth=depth) as pool,
        ):
            sending = []
            for number, (pause, patience) in enumerate(acts):
                task = asyncio.create_task(pool.send(message(number)))
                sending.append(task)
                if patience is not None:
                    asyncio.get_running_loop().call_soon(_cancel_later, task, patience)
                await rounds(pause)
            results = await asyncio.gather(*sending, return_exceptions=True)
            await _serves(pool, len(acts))
            taken = Counter(path for received in server.received for path in received.forward_paths)
            for number, result in enumerate(results):
                copies = taken[f"to{number}@example.net"]
                assert copies <= 1
                if isinstance(result, Delivery):
                    assert copies == result.accepted
                elif not isinstance(result, DeliveryInDoubt):
                    assert isinstance(result, SMTPError | asyncio.CancelledError), repr(result)
                    assert copies == 0
            await until(lambda: server.open_connections <= sessions)  # one that was cut off is closed a moment later
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(_in_time(play()))
    assert _descriptors() <= before


async def _in_time(play: Coroutine[None, None, None]) -> None:
    async with asyncio.timeout(PATIENCE):
        await play


def _cancel_later(task: asyncio.Task[Delivery], turns: int) -> None:
    if turns:
        asyncio.get_running_loop().call_soon(_cancel_later, task, turns - 1)
    else:
        task.cancel()


async def _serves(pool: Pool, number: int) -> None:
    """A message is taken, once the faults are used up."""
    for attempt in range(20):
        try:
            if (await pool.send(message(1_000 * number + attempt))).accepted:
                return
        except SMTPError:
            continue
    raise AssertionError("the pool serves no more")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


@pytest.mark.parametrize("turns", range(40))
async def test_a_message_given_up_while_its_session_opens_leaves_no_connection(turns: int) -> None:
    """In one of these turns the session is open, and the sender has not heard of it yet."""
    async with ScriptedRelay() as server, Pool(relay_of(server), sessions=1) as pool:
        task = asyncio.create_task(pool.send(message(1)))
        await rounds(turns)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await pool.send(message(2))).accepted
        await until(lambda: server.open_connections == 1)
