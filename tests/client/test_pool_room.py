"""A relay, or a process, without room for all the sessions a pool may have: it goes on with those that are open."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from asyncsmtp.client.config.relay import Login
from asyncsmtp.client.events.types import Event, MessageRetried, PoolResized
from asyncsmtp.client.pool import pool_limits, session_slots
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.errors import AuthenticationRefused, ConnectFailed, DeliveryInDoubt, LocalProtocolError, Refused
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Hang, Rst, Rule, ScriptedRelay, Stage, StageContext, Wait
from tests.client.support import message, pooling, relay_of, token, told, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")


class Crowded:
    """A rule: no more than `limit` connections at a time; the rest meet `move`."""

    def __init__(self, limit: int, move: Action) -> None:
        self.limit = limit
        self.move = move
        self.server: ScriptedRelay | None = None
        self.refused = 0

    def __call__(self, context: StageContext) -> Action | None:
        assert self.server is not None
        if self.server.open_connections <= self.limit:
            return None
        self.refused += 1
        return self.move


REFUSALS: list[tuple[Stage, Action]] = [
    (Stage.GREETING, "421 4.7.0 too many connections from you"),
    (Stage.GREETING, "454 4.7.0 too many sessions"),
    (Stage.EHLO, "421 4.3.2 too many"),
    (Stage.MAIL, "421 4.7.0 too many concurrent connections"),
    (Stage.CONNECT, Fin()),
    (Stage.CONNECT, Rst()),
    (Stage.MAIL, "432 4.3.2 sender thread limit exceeded"),
    (Stage.RCPT, "452 4.7.0 too many concurrent sessions"),
    (Stage.DATA, "421 4.7.0 too many connections"),
    (Stage.END_OF_DATA, "432 4.3.2 sender thread limit exceeded"),
]


@pytest.mark.parametrize(("stage", "move"), REFUSALS)
@pytest.mark.parametrize(("limit", "depth", "messages"), [(3, 1, None), (3, 4, None), (1, 2, None), (3, 2, 5)])
async def test_a_relay_with_room_for_fewer_takes_every_message_once(
    stage: Stage, move: Action, limit: int, depth: int, messages: int | None
) -> None:
    """FT-17, WI-11, WI-15: the fourth is refused; its message waits for one of the three, and none is told."""
    rule = Crowded(limit, move)
    settings = {"sessions": 8, "depth": depth, "messages": messages}
    async with pooling({stage: rule}, pool=settings, on_accept=token) as (server, pool):
        rule.server = server
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(60)))
        assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(60)]
        assert 1 <= pool.counts.allowed <= limit + 1  # one more may be tried by now, on a slow machine
        assert pool.open_sessions <= limit
    taken = Counter(path for received in server.received for path in received.forward_paths)
    assert set(taken.values()) == {1}
    assert len(taken) == 60
    closes = not isinstance(move, str) or move.startswith(("421", "454"))
    assert 0 < rule.refused <= (14 if closes else 8 * depth + 6)  # else what was handed to a session is refused on it


@pytest.mark.parametrize(
    "words",
    [
        "450 4.7.0 greylisted",
        "451 4.7.0 Temporary server error. Please try again later",
        "452 4.3.2 try again tomorrow",
        "452 4.5.3 too many recipients",
        "450 4.2.1 the user you are trying to contact receives mail at a rate that prevents delivery",
    ],
)
@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.END_OF_DATA])
async def test_a_message_that_is_deferred_for_itself_lowers_no_pool(stage: Stage, words: str) -> None:
    """FT-17: 4.7.0 and 4.3.2 say many things; sessions cost nothing if they are not the reason."""
    async with pooling({stage: dict.fromkeys(range(1, 20, 3), words)}, pool={"sessions": 4, "depth": 1}) as (_, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(40)))
        assert sum(delivery.accepted for delivery in deliveries) == 33
        assert pool.counts.allowed == 4


async def test_a_message_that_makes_a_relay_hang_up_with_421_costs_one_session_at_the_most() -> None:
    """FT-17: with the others the relay is content; the sender of this one is told."""

    def rcpt(context: StageContext) -> Action | None:
        return "421 4.2.0 something is wrong here" if b"to7@" in context.line else None

    async with pooling({Stage.RCPT: rcpt}, pool={"sessions": 4, "depth": 1}) as (_, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(40)))
        assert [n for n, delivery in enumerate(deliveries) if not delivery.accepted] == [7]
        assert deliveries[7].replies[0].code == 421
        assert pool.counts.allowed >= 3


async def test_a_login_that_is_deferred_for_too_many_sessions_lowers_the_pool() -> None:
    """FT-17: 432 and 421 to AUTH say nothing about the password."""
    rule = Crowded(2, "432 4.3.2 too many concurrent logins")
    async with ScriptedRelay({Stage.AUTH: rule}, users={"ann": "secret"}, mechanisms=["PLAIN"]) as server:
        rule.server = server
        relay = relay_of(server, login=Login("ann", Secret("secret")), cleartext_login=True)
        async with Pool(relay, sessions=6, depth=1) as pool:
            deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(30)))
            assert all(delivery.accepted for delivery in deliveries)
            assert pool.counts.allowed <= 3


async def test_a_message_that_one_recipient_has_is_not_sent_again() -> None:
    """FT-17: the other one is deferred, whatever the relay says about its sessions."""

    def rcpt(context: StageContext) -> Action | None:
        return "452 4.3.2 too many concurrent connections" if b"later@" in context.line else None

    async with pooling({Stage.RCPT: rcpt}, pool={"sessions": 4, "depth": 1}) as (server, pool):
        both = ("now@example.net", "later@example.net")
        deliveries = await asyncio.gather(*(pool.send(message(n, to=both)) for n in range(8)))
        assert {delivery.outcomes for delivery in deliveries} == {(Outcome.ACCEPTED, Outcome.DEFERRED)}
        assert len(server.received) == 8
        assert pool.counts.allowed == 4


async def test_one_session_alone_is_told_what_the_relay_says() -> None:
    """FT-17: with no other session there is nobody to make room."""
    async with pooling({Stage.DATA: "432 4.3.2 sender thread limit exceeded"}, pool={"sessions": 1}) as (server, pool):
        delivery = await pool.send(message())
        assert delivery.replies[0].code == 432
        assert len(server.get_dialogue(1)) > 0
        assert server.connections == 1


async def test_messages_wait_for_the_sessions_that_are_open_and_not_more_than_its_depth_at_each() -> None:
    rule = Crowded(2, "421 4.7.0 too many")
    gate = asyncio.Event()

    def data(_: StageContext) -> Action | None:
        return None if gate.is_set() else (Wait(0.3), DEFAULT_REPLY)

    async with pooling({Stage.GREETING: rule, Stage.DATA: data}, pool={"sessions": 6, "depth": 1}) as (server, pool):
        rule.server = server
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(6)]
        await until(lambda: pool.counts.busy == pool.counts.allowed == 6 - pool.waiting)
        assert pool.counts.allowed <= 2
        assert pool.counts.in_hand == 6
        assert pool.counts.waiting == pool.waiting
        gate.set()
        assert all(delivery.accepted for delivery in await asyncio.gather(*sending))


async def test_one_session_more_is_tried_once_the_others_have_worked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Room comes back when others leave; up to what the pool may have."""
    monkeypatch.setattr(pool_limits, "GROW_DELAY", 0.01)
    rule = Crowded(2, "421 4.7.0 too many")
    events: list[Event] = []
    settings = {"sessions": 4, "depth": 1, "on_event": events.append}
    async with pooling({Stage.GREETING: rule, Stage.END_OF_DATA: (Wait(0.002), DEFAULT_REPLY)}, pool=settings) as (
        server,
        pool,
    ):
        rule.server = server
        await asyncio.gather(*(pool.send(message(n)) for n in range(10)))
        assert pool.counts.allowed <= 2
        rule.limit = 10
        for _ in range(20):
            await asyncio.gather(*(pool.send(message(n)) for n in range(15)))
            if pool.counts.open == 4:
                break
        assert (pool.counts.allowed, pool.counts.open) == (4, 4)
    sizes = [event.sessions for event in events if isinstance(event, PoolResized)]
    assert sizes[-2:] == [3, 4]
    assert any(isinstance(event, MessageRetried) and "too many" in event.why for event in events)


async def test_the_last_refusal_is_raised_to_everyone_who_waits() -> None:
    """With no session open there is none to wait for: the answer is the relay's."""
    closed = asyncio.Event()
    script: dict[Stage, Rule] = {
        Stage.GREETING: lambda _: "421 4.3.2 closing for today" if closed.is_set() else None,
        Stage.END_OF_DATA: lambda _: (DEFAULT_REPLY, Fin()) if closed.is_set() else None,
    }
    async with pooling(script, pool={"sessions": 3, "depth": 2}) as (server, pool), asyncio.timeout(10):
        await asyncio.gather(*(pool.send(message(n)) for n in range(12)))
        closed.set()
        results = await asyncio.gather(*(pool.send(message(n)) for n in range(60)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, Refused)]
        assert len(refused) + sum(not isinstance(result, BaseException) for result in results) == 60
        assert len(refused) >= 50
        assert server.connections < 12
        closed.clear()
        assert (await pool.send(message(99))).accepted


async def test_a_refused_password_is_no_want_of_room() -> None:
    """It is said to the sender, though other sessions are open."""
    async with ScriptedRelay(
        {Stage.AUTH: {2: "535 5.7.8 no"}}, users={"ann": "secret"}, mechanisms=["PLAIN"]
    ) as server:
        relay = relay_of(server, login=Login("ann", Secret("secret")), cleartext_login=True)
        async with Pool(relay, sessions=2, depth=1) as pool:
            results = await asyncio.gather(*(pool.send(message(n)) for n in range(2)), return_exceptions=True)
            assert sum(isinstance(result, AuthenticationRefused) for result in results) == 1
            assert pool.counts.allowed == 2


async def test_less_room_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncsmtp.pool")
    rule = Crowded(3, "421 4.7.0 too many\n2026-01-01 forged")
    async with pooling({Stage.GREETING: rule}, pool={"sessions": 8, "depth": 1}) as (server, pool):
        rule.server = server
        await asyncio.gather(*(pool.send(message(n)) for n in range(20)))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "no further session with 127.0.0.1" in warnings[0]
    assert all(record.getMessage().isprintable() for record in caplog.records)


CLIENT = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
from asyncsmtp import Envelope, Content, Message, Pool, Relay, Security

async def main():
    relay = Relay("127.0.0.1", int(sys.argv[1]), Security.PLAINTEXT)
    async with Pool(relay, sessions=60, depth=1) as pool:
        messages = [
            Message(Envelope.of("a@example.org", [f"to{n}@example.net"]), Content.of(b"Subject: x\\r\\n\\r\\n"))
            for n in range(200)
        ]
        deliveries = await asyncio.gather(*map(pool.send, messages))
        print(sum(d.accepted for d in deliveries), 1 < pool.counts.allowed < 24)

asyncio.run(main())
"""


async def test_without_file_descriptors_the_pool_does_with_the_sessions_it_has() -> None:
    """RE-02: EMFILE is no failure of a message while there are sessions that work."""
    async with ScriptedRelay({Stage.END_OF_DATA: (Wait(0.005), DEFAULT_REPLY)}) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", CLIENT, str(server.port)),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    assert re.search(r"no further session with .* can be opened \(cannot connect", said.decode())
    assert said.decode().splitlines()[-1] == "200 True", said.decode()
    assert len({received.forward_paths for received in server.received}) == len(server.received) == 200


@pytest.mark.slow
async def test_a_relay_that_accepts_and_closes_is_not_asked_as_fast_as_the_machine_can() -> None:
    """RE-04: each sender has its error, and the tries are further and further apart; hardly any CPU goes into it."""
    began, spent = time.monotonic(), time.process_time()
    tries = 0
    async with pooling({Stage.CONNECT: Fin()}, pool={"sessions": 4}) as (server, pool):
        while time.monotonic() < began + 2.0:
            with pytest.raises(ConnectFailed):
                await pool.send(message())
            tries += 1
        assert server.connections <= tries <= 10
    assert time.process_time() - spent < 0.05 * (time.monotonic() - began) + 0.05


async def test_nor_one_that_closes_at_the_first_command() -> None:
    """It greets, so connecting was no failure; that no message is taken is."""
    async with pooling({Stage.MAIL: Fin()}, pool={"sessions": 1}) as (server, pool):
        began = time.monotonic()
        await asyncio.gather(*(pool.send(message(n)) for n in range(7)), return_exceptions=True)
        assert time.monotonic() - began > session_slots.FIRST_DELAY * (2**6 - 1) * 0.9
    assert server.connections == 8  # one more, to see whether it takes commands one at a time


async def test_closing_does_not_wait_for_the_next_try() -> None:
    """RE-04: the pause is broken off as well."""
    async with pooling({Stage.CONNECT: Fin()}, pool={"sessions": 1}) as (_, pool):
        for _ in range(6):
            with pytest.raises(ConnectFailed):
                await pool.send(message())
        sending = asyncio.create_task(pool.send(message()))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            await pool.aclose()
            with pytest.raises(LocalProtocolError, match="closed"):
                await sending


async def test_a_drain_is_over_in_time_and_says_what_it_broke_off() -> None:
    """What is past the dot is in doubt, what waits was not sent; nobody is left without an answer."""
    script: dict[Stage, Rule] = {Stage.END_OF_DATA: Hang()}
    async with pooling(script, pool={"sessions": 1, "depth": 1}) as (server, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(3)]
        await server.wait_for_stage(Stage.END_OF_DATA)
        began = time.monotonic()
        assert await pool.drain(0.05) is False
        assert time.monotonic() - began < 2.5
        results = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(results[0], DeliveryInDoubt)
    assert all(isinstance(result, LocalProtocolError) for result in results[1:])


async def test_a_drain_that_has_time_enough_leaves_the_pool_open() -> None:
    async with pooling({Stage.END_OF_DATA: (Wait(0.02), DEFAULT_REPLY)}, pool={"sessions": 2}) as (_, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(6)]
        await asyncio.sleep(0)
        assert await pool.drain(10.0) is True
        assert all(delivery.accepted for delivery in await asyncio.gather(*sending))
        assert (await pool.send(message(7))).accepted


@pytest.mark.parametrize("seed", range(3))
async def test_senders_who_give_up_meanwhile_take_nobodys_place(seed: int) -> None:
    """A place lost with each of them would be a pool that stands still after a while."""
    rule = Crowded(2, "421 4.7.0 too many")
    script: dict[Stage, Rule] = {Stage.GREETING: rule, Stage.END_OF_DATA: (Wait(0.002), DEFAULT_REPLY)}
    async with pooling(script, pool={"sessions": 6, "depth": 2}, on_accept=token) as (server, pool):
        rule.server = server
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(60)]
        for number, task in enumerate(sending):
            if number % 3 == seed:
                await asyncio.sleep(0.001)
                task.cancel()
        results = await asyncio.gather(*sending, return_exceptions=True)
        await pool.drain()
        for number, result in enumerate(results):
            if not isinstance(result, BaseException):
                assert told(result) == f"2.0.0 taken for to{number}@example.net"
            else:
                assert number % 3 == seed
        assert pool.counts.in_hand == pool.counts.waiting == pool.counts.busy == 0
        both = await asyncio.gather(*(pool.send(message(n)) for n in range(70, 74)))
        assert all(delivery.accepted for delivery in both)


async def test_a_pool_with_little_room_closes_in_time() -> None:
    """Those who wait for the one session are told, whoever holds it."""
    rule = Crowded(1, "421 4.7.0 too many")
    script: dict[Stage, Rule] = {Stage.GREETING: rule, Stage.END_OF_DATA: {2: Hang()}}
    async with pooling(script, pool={"sessions": 4, "depth": 1}) as (server, pool):
        rule.server = server
        await pool.send(message())
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(8)]
        await until(lambda: pool.counts.allowed == 1)
        await server.wait_for_stage(Stage.END_OF_DATA, 2)
        began = time.monotonic()
        await pool.aclose()
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert time.monotonic() - began < 2.5
    assert sorted({type(result) for result in results}, key=repr) == [DeliveryInDoubt, LocalProtocolError]
