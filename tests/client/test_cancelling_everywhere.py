"""Every coroutine of the public API, cancelled at every await of it.

A coroutine is driven step by step, and its task cancelled at its first suspension, in a second run at its second,
and so on until it comes to its end before; each time as it begins to wait, and as what it waits for is done.
Afterwards: what it told is true, the session is in step or gone, the pool serves, nothing leaks.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.sending import send
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import LocalProtocolError, SMTPError
from asyncsmtp.protocol.commands import NOOP
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.testing import DEFAULT_REPLY, ScriptedRelay, Stage, Wait
from tests.client.support import BY_DATA, big, message, relay_of, token, told

pytestmark = pytest.mark.usefixtures("nothing_leaks")

MOST = 60  # suspensions of one call; more would be a loop


class Cancelled:
    """Drives a coroutine, and cancels the task it runs in at its `at`-th suspension.

    Args:
        late: not as it begins to wait, but just as what it waits for is done.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object], at: int, *, late: bool) -> None:
        self._coroutine = coroutine
        self._at = at
        self._late = late
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, object]:
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                waits_for = step()
            except StopIteration as end:
                return end.value
            self.suspensions += 1
            if self.suspensions == self._at:
                if self._late and waits_for is not None:
                    waits_for.add_done_callback(lambda _: task.cancel())
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waits_for
                step = lambda: self._coroutine.send(None)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self._coroutine.throw(error)  # type: ignore[misc]  # noqa: E731


@dataclass
class World:
    """A relay, an open session, one that is not open, a pool of one session, and messages of others in that."""

    server: ScriptedRelay
    session: Session
    closed: Session
    pool: Pool
    others: list[asyncio.Future[Delivery]] = field(default_factory=list)


@asynccontextmanager
async def world(dialogue: Dialogue) -> AsyncIterator[World]:
    async with ScriptedRelay({Stage.END_OF_DATA: (Wait(0.001), DEFAULT_REPLY)}, on_accept=token) as server:
        relay = relay_of(server, dialogue=dialogue)
        made = World(server, Session(relay), Session(relay), Pool(relay, sessions=1, depth=2))
        await made.session.connect()
        await made.pool.send(message(90))
        try:
            yield made
        finally:
            await made.session.aclose()
            await made.closed.aclose()
            await made.pool.aclose()
            assert all(delivery.accepted for delivery in await asyncio.gather(*made.others))


async def _ended(world: World) -> None:
    later = asyncio.get_running_loop().call_later(0.005, world.session.abort)
    try:
        await world.session.ended()
    finally:
        later.cancel()  # who no longer waits goes on with the session


async def _retired(world: World) -> Delivery:
    """By a pool whose session has died: it must open another one."""
    for service in world.pool._slots.services:
        service.session.abort()
    return await world.pool.send(message())


async def _behind(world: World) -> Delivery:
    """Behind two others that fill the pool, so that it waits for its turn."""
    world.others += [asyncio.ensure_future(world.pool.send(message(90 + n))) for n in (1, 2)]
    await asyncio.sleep(0)
    return await world.pool.send(message())


async def _drained(world: World) -> bool:
    world.others.append(asyncio.ensure_future(world.pool.send(message(91))))
    await asyncio.sleep(0)
    return await world.pool.drain(5.0)


async def _marked(world: World) -> Delivery:
    return await world.pool.send(message(), before_end=lambda: asyncio.sleep(0))


Case = tuple[str, Callable[[World], Awaitable[object]]]

CASES: list[Case] = [
    ("send", lambda world: send(message(), relay=world.session.relay)),
    ("Session.__aenter__", lambda world: world.closed.__aenter__()),
    ("Session.__aexit__", lambda world: world.session.__aexit__(None, None, None)),
    ("Session.aclose", lambda world: world.session.aclose()),
    ("Session.ask", lambda world: world.session.ask(NOOP)),
    ("Session.connect", lambda world: world.closed.connect()),
    ("Session.ended", _ended),
    ("Session.noop", lambda world: world.session.noop()),
    ("Session.vrfy", lambda world: world.session.vrfy("ann")),
    ("Session.expn", lambda world: world.session.expn("staff")),
    ("Session.send", lambda world: world.session.send(message())),
    ("Session.send", lambda world: world.session.send(big(2_000_000))),
    ("Session.send", lambda world: world.session.send(message(), before_end=lambda: asyncio.sleep(0.001))),
    ("Session.transact", lambda world: world.session.transact(message().envelope, message().content)),
    ("Pool.__aenter__", lambda world: world.pool.__aenter__()),
    ("Pool.__aexit__", lambda world: world.pool.__aexit__(None, None, None)),
    ("Pool.aclose", lambda world: world.pool.aclose()),
    ("Pool.drain", _drained),
    ("Pool.send", lambda world: world.pool.send(message())),
    ("Pool.send", _retired),
    ("Pool.send", _behind),
    ("Pool.send", _marked),
]
CLOSES = {"Pool.__aexit__", "Pool.aclose"}


def public_coroutines() -> set[str]:
    """What a program can await: of `Session`, `Pool` and `send`; by inspection, so that a new one needs a case."""
    found = {"send"}
    for kind in (Session, Pool):
        for name, _ in inspect.getmembers(kind, inspect.iscoroutinefunction):
            if not name.startswith("_") or name.startswith("__"):
                found.add(f"{kind.__name__}.{name}")
    return found


def test_every_coroutine_of_the_public_api_has_a_case() -> None:
    """A new one that nobody has cancelled is one that nobody knows."""
    assert {name for name, _ in CASES} == public_coroutines()


async def _run(case: Callable[[World], Awaitable[object]], made: World, at: int, late: bool) -> tuple[object, int]:
    async def call() -> object:
        return await case(made)

    driven = Cancelled(call(), at, late=late)

    async def drive() -> object:
        return await driven

    [result] = await asyncio.gather(asyncio.ensure_future(drive()), return_exceptions=True)
    return result, driven.suspensions


@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as the wait ends"])
@pytest.mark.parametrize("dialogue", BY_DATA)
@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CASES)])
async def test_cancelled_at_each_await(
    name: str, case: Callable[[World], Awaitable[object]], dialogue: Dialogue, late: bool
) -> None:
    """Issue of every client that was looked at: replies shifted, locks held, a pool with a place less."""
    for at in range(1, MOST):
        async with world(dialogue) as made, asyncio.timeout(20):
            result, suspensions = await _run(case, made, at, late)
            await _check(name, result, made)
        if suspensions < at:
            return  # it came to its end before
    pytest.fail(f"{name} waits more than {MOST} times")


async def _check(name: str, result: object, made: World) -> None:
    if isinstance(result, BaseException):
        assert isinstance(result, asyncio.CancelledError | SMTPError), repr(result)
    await made.pool.drain()
    if made.session.usable:
        assert told(await made.session.send(message(77))) == "2.0.0 taken for to77@example.net"
    else:
        with pytest.raises(SMTPError):
            await made.session.send(message(77))
    if name in CLOSES:
        await made.pool.aclose()
        with pytest.raises(LocalProtocolError, match="closed"):
            await made.pool.send(message(78))
    else:
        assert told(await made.pool.send(message(78))) == "2.0.0 taken for to78@example.net"
    _check_truth(result, made)


def _check_truth(result: object, made: World) -> None:
    """A message whose sender was not told "in doubt" is there once, or not at all, as it was told."""
    taken = [received for received in made.server.received if received.forward_paths == ("to1@example.net",)]
    assert len(taken) <= 1
    if isinstance(result, Delivery):
        assert told(result) == "2.0.0 taken for to1@example.net"
        assert len(taken) == 1
    elif isinstance(result, BaseException) and not getattr(result, "in_doubt", False):
        assert not taken, repr(result)
