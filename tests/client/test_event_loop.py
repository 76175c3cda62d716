"""One owner: a session or pool belongs to the event loop, the thread and the process that used it first."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.event_loop import LoopOwner, defer_cancellation
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import RANDOM
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import LocalProtocolError
from asyncsmtp.protocol.commands import NOOP
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import message, relay_of, until

Use = Callable[[], Awaitable[object]]


async def _await(call: Use) -> object:
    return await call()


@contextmanager
def relay_in_a_thread() -> Iterator[ScriptedRelay]:
    """A relay on an event loop of its own, so that the test may start, block and end others."""
    loop, server = asyncio.new_event_loop(), ScriptedRelay()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(_await(server.start), loop).result(5)
        yield server
        asyncio.run_coroutine_threadsafe(_await(server.aclose), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def uses(pool: Pool, session: Session) -> list[Use]:
    """Everything that can be awaited of a pool and a session that are in use."""
    return [
        lambda: pool.send(message(3)),
        lambda: anext(pool.send_all([message(4)])),
        pool.aclose,
        pool.drain,
        lambda: pool.__aexit__(None, None, None),
        lambda: session.send(message(5)),
        lambda: session.transact(message(5).envelope, message(5).content),
        session.noop,
        lambda: session.vrfy("ann"),
        lambda: session.ask(NOOP),
        session.wait_closed,
        session.aclose,
        lambda: session.__aexit__(None, None, None),
    ]


def refused(run: Callable[[Use], object], pool: Pool, session: Session, match: str) -> None:
    """Check that every use is refused at once."""
    for use in uses(pool, session):
        with pytest.raises(LocalProtocolError, match=match):
            run(use)


async def _use(pool: Pool, session: Session) -> None:
    await session.connect()
    assert (await pool.send(message(1))).accepted
    assert (await session.send(message(2))).accepted


async def _close(pool: Pool, session: Session) -> None:
    await pool.aclose()
    await session.aclose()


def test_a_second_event_loop_is_refused_while_the_first_one_runs() -> None:
    """FT-11: what pytest-asyncio does to a pool of a module; then the first loop goes on."""
    with relay_in_a_thread() as server, asyncio.Runner() as first, asyncio.Runner() as second:
        pool, session = Pool(relay_of(server)), Session(relay_of(server))
        first.run(_use(pool, session))
        refused(lambda use: second.run(_await(use)), pool, session, "another event loop: create one in each$")
        assert first.run(pool.send(message(6))).accepted
        first.run(_close(pool, session))


def test_a_second_asyncio_run_is_refused_and_told_why() -> None:
    """FT-11: `asyncio.run` for each mail, and one pool: the first loop is closed, with all its streams."""
    with relay_in_a_thread() as server:
        pool, session = Pool(relay_of(server), messages=1), Session(relay_of(server))

        async def use() -> None:
            await _use(pool, session)
            await session.aclose()
            await until(lambda: not server.open_connections)

        asyncio.run(use())
        refused(lambda use: asyncio.run(_await(use)), pool, session, "is closed: create one in each asyncio.run$")
        for use in (session.abort, pool.stop):
            with pytest.raises(LocalProtocolError, match="is closed"):
                use()


def test_another_thread_is_refused() -> None:
    """FT-11: Celery, or `async_to_sync`: each thread has a loop of its own."""
    with relay_in_a_thread() as server, asyncio.Runner() as first, ThreadPoolExecutor(1) as threads:
        pool, session = Pool(relay_of(server)), Session(relay_of(server))
        first.run(_use(pool, session))

        def run(use: Use) -> object:
            return threads.submit(lambda: asyncio.run(_await(use))).result(5)

        refused(run, pool, session, "in another thread: create one in each, or call it there with asyncio.run_corout")
        for use in (session.abort, pool.stop):
            with pytest.raises(LocalProtocolError, match="in another thread"):
                threads.submit(use).result(5)
        assert session.usable
        first.run(_close(pool, session))


def test_of_two_threads_that_come_first_together_one_is_the_owner() -> None:
    """FT-11: neither waits for the futures of the other."""
    owner, start = LoopOwner("pool"), threading.Barrier(8)

    async def bind() -> bool:
        start.wait(5)
        try:
            owner.bind()
        except LocalProtocolError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        bound = [each.result(5) for each in [threads.submit(asyncio.run, bind()) for _ in range(8)]]
    assert sum(bound) == 1


def test_an_unused_pool_or_session_may_be_made_anywhere() -> None:
    """FT-11: at the top of a module, in another thread, before another loop."""
    with relay_in_a_thread() as server, ThreadPoolExecutor(1) as threads:
        pool, session = threads.submit(lambda: (Pool(relay_of(server)), Session(relay_of(server)))).result(5)
        asyncio.run(_await(pool.drain))  # which is no use yet

        async def use() -> None:
            await _use(pool, session)
            await _close(pool, session)

        asyncio.run(use())


async def test_without_an_event_loop_of_asyncio_it_says_so() -> None:
    """FT-11: trio and others; the standard library's RuntimeError says less."""

    def drive(use: Use) -> None:
        asyncio._set_running_loop(None)
        try:
            _await(use).send(None)  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(loop)

    loop, pool = asyncio.get_running_loop(), Pool("smtp://mail.example.org")
    calls: list[Use] = [
        lambda: pool.send(message()),
        pool.aclose,
        Session("smtp://mail.example.org").connect,
        lambda: send(message(), relay="smtp://mail.example.org", deadline=5),
    ]
    for use in calls:
        with pytest.raises(LocalProtocolError, match="no event loop of asyncio is running: await this in a coroutine"):
            drive(use)


# --- fork ---


def in_a_child(check: Callable[[], object]) -> None:
    """Fork; fail with the traceback of the child, if it has one. The child runs nothing else, and no clean-up."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            check()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    assert os.waitpid(child, 0)[1] == 0, text


BEFORE = "was used before the fork of this process, and belongs to the parent: create one in each process"
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@forks
def test_after_a_fork_what_the_parent_has_used_is_refused() -> None:
    """FT-11: a worker of gunicorn, or multiprocessing: both would write to one connection."""
    with relay_in_a_thread() as server, asyncio.Runner() as first:
        pool, session = Pool(relay_of(server)), Session(relay_of(server))
        first.run(_use(pool, session))

        def check() -> None:
            refused(lambda use: asyncio.run(_await(use)), pool, session, BEFORE)
            for use in (session.abort, pool.stop):  # they would change the selector that parent and child share
                with pytest.raises(LocalProtocolError, match=BEFORE):
                    use()

        in_a_child(check)
        assert first.run(pool.send(message(6))).accepted
        assert first.run(session.send(message(7))).accepted
        first.run(_close(pool, session))
        assert server.connections == 2


@forks
def test_after_a_fork_inside_a_coroutine_it_is_refused_too() -> None:
    """FT-11: the child goes on in the loop of the parent, which is no running loop any more."""
    with relay_in_a_thread() as server, asyncio.Runner() as first:
        pool, session = Pool(relay_of(server)), Session(relay_of(server))

        async def use() -> None:
            await _use(pool, session)

            def check() -> None:
                refused(lambda use: _await(use).send(None), pool, session, BEFORE)  # type: ignore[attr-defined]

            in_a_child(check)
            assert (await pool.send(message(6))).accepted
            await _close(pool, session)

        first.run(use())


@forks
def test_a_pool_that_is_made_and_unused_may_be_used_after_the_fork() -> None:
    """FT-11: the pool of a module, in a server that forks its workers; in several of them, and in the parent."""
    with relay_in_a_thread() as server:
        pool, session = Pool(relay_of(server)), Session(relay_of(server))

        async def use() -> None:
            await _use(pool, session)
            await _close(pool, session)

        for _ in range(2):
            in_a_child(lambda: asyncio.run(use()))
        asyncio.run(use())
        assert len(server.received) == 6


@forks
def test_after_a_fork_delays_are_spread_anew() -> None:
    """FT-11: all workers of a server would try again at the same moment."""
    state = RANDOM.getstate()

    def check() -> None:
        assert RANDOM.getstate() != state

    in_a_child(check)


@pytest.mark.parametrize("earlier", [0, 1])
async def test_a_cancellation_that_was_taken_back_is_not_raised_later(earlier: int) -> None:
    """As `asyncio.timeout` does with its own; a request from before, which nobody took back, stays."""

    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(earlier):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asyncio.sleep(0)
        assert defer_cancellation(None, caught.value)
        task.uncancel()
        for _ in range(3):
            await asyncio.sleep(0)
        return f"{task.cancelling()} requests"

    assert await asyncio.create_task(work()) == f"{earlier} requests"


async def test_a_cancellation_that_is_deferred_is_raised_by_the_next_wait() -> None:
    """With its message, by which a cancel scope knows its own."""

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("mine")
        with pytest.raises(asyncio.CancelledError) as caught:
            await asyncio.sleep(0)
        assert defer_cancellation(None, caught.value)
        with pytest.raises(asyncio.CancelledError, match="mine"):
            await asyncio.sleep(10)
        assert task.cancelling() == 1

    await asyncio.create_task(work())
