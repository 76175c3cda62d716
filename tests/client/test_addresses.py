"""From a host to a connected socket: addresses raced, the winner kept, every other socket closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection import addresses
from asyncsmtp.client.connection.addresses import HEAD_START, MOST, dial, look_up
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import PATIENT, QUICK, message, relay_of, rounds

pytestmark = pytest.mark.usefixtures("nothing_leaks")

Answers = Callable[..., None]
HOLE = "127.0.0.77"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Have the resolver answer with these addresses, whatever the name."""

    def resolve(*hosts: str) -> None:
        async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            def place(found: str) -> tuple[int, tuple[object, ...]]:
                if ":" in found:
                    return socket.AF_INET6, (found, port, 0, 0)
                return socket.AF_INET, (found, port)

            return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in map(place, hosts)]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return resolve


@contextmanager
def black_hole(port: int) -> Iterator[None]:
    """An address that never answers: a backlog that is full, so that the kernel drops what comes."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((HOLE, port))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((HOLE, port))
        yield


async def test_a_black_hole_costs_a_head_start(answers: Answers) -> None:
    """RE-08, RFC 8305 §5: the next address is tried beside it, on both loops; uvloop alone would wait for ever."""
    async with ScriptedRelay() as server:
        with black_hole(server.port):
            answers(HOLE, "127.0.0.1")
            began = asyncio.get_running_loop().time()
            relay = Relay("relay.test", server.port, Security.PLAINTEXT, timeouts=PATIENT)
            async with Session(relay) as session:
                assert (await session.send(message())).accepted
            assert asyncio.get_running_loop().time() - began >= HEAD_START
    assert server.connections == 1


async def test_a_refusal_costs_no_head_start(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8305 §5: what fails lets the next begin at once."""
    monkeypatch.setattr(addresses, "HEAD_START", 3600.0)
    async with ScriptedRelay() as server:
        answers("127.0.0.5", "127.0.0.6", "127.0.0.1")
        (await dial("relay.test", server.port)).close()


async def test_five_addresses_are_tried_of_a_thousand(answers: Answers) -> None:
    """RE-08: families in turns, so that neither is left out (RFC 8305 §4)."""
    answers(*(f"2001:db8::{number:x}" for number in range(500)), *(f"192.0.2.{number}" for number in range(250)))
    found = await look_up("relay.test", 25)
    assert len(found) == MOST
    assert [address.place[0] for address in found] == [
        "2001:db8::0",
        "192.0.2.0",
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::2",
    ]


async def test_an_address_is_looked_up_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no thread and no resolver."""
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", None)
    assert [address.place for address in await look_up("192.0.2.1", 25)] == [("192.0.2.1", 25)]
    assert [address.place for address in await look_up("2001:db8::1", 25)] == [("2001:db8::1", 25, 0, 0)]


async def test_a_resolver_that_hangs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """RE-08: a look-up has a limit of its own within that of the connection."""

    async def getaddrinfo(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(addresses, "LOOKUP", 0.01)
    relay = Relay("relay.test", 25, Security.PLAINTEXT, timeouts=replace(QUICK, connect=30.0))
    with pytest.raises(ConnectFailed, match="check the resolver"):
        await Session(relay).connect()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "a\0b"])
async def test_a_name_that_cannot_be_is_not_known(host: str) -> None:
    """The standard library raises a ValueError or a UnicodeError for some of them."""
    with pytest.raises(ConnectFailed, match="not known"):
        await Session(Relay(host, 25, Security.PLAINTEXT, timeouts=PATIENT)).connect()


async def test_when_all_fail_the_refusal_is_what_is_told(answers: Answers) -> None:
    """Somebody was there: that says more than a network that cannot be reached."""
    async with ScriptedRelay() as server:
        port = server.port
    answers("255.255.255.255", "127.0.0.1", "255.255.255.255")
    with pytest.raises(ConnectFailed, match="nothing answers there"):
        await Session(Relay("relay.test", port, Security.PLAINTEXT, timeouts=PATIENT)).connect()


async def test_a_name_without_any_address_that_works_tells_why(answers: Answers) -> None:
    """The system's own reason, where nobody refused."""
    answers("255.255.255.255")
    with pytest.raises(ConnectFailed, match="cannot connect to relay"):
        await Session(Relay("relay.test", 25, Security.PLAINTEXT, timeouts=PATIENT)).connect()


async def test_cancelled_at_any_moment_no_socket_is_left(answers: Answers) -> None:
    """RE-07, RE-08: while it is looked up, while it races, and in the very moment of success."""
    async with ScriptedRelay() as server:
        with black_hole(server.port):
            answers(HOLE, "127.0.0.1")
            for turns in range(12):
                race = asyncio.ensure_future(dial("relay.test", server.port))
                await rounds(turns)
                race.cancel()
                await asyncio.gather(race, return_exceptions=True)
                assert race.cancelled()


async def test_cancelled_as_it_wins_the_winner_is_closed(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedRelay
) -> None:
    """asyncio's own race forgets it."""
    loop = asyncio.get_running_loop()
    race = asyncio.ensure_future(dial("127.0.0.1", server.port))
    add = loop.add_writer

    def add_writer(sock: socket.socket, answered: Callable[..., None], *args: object) -> None:
        def won() -> None:
            answered(*args)  # type: ignore[arg-type]
            race.cancel()

        add(sock, won)

    monkeypatch.setattr(loop, "add_writer", add_writer)
    with pytest.raises(asyncio.CancelledError):
        await race
    await server.wait_until_idle()


@pytest.mark.parametrize("way", ["connect", "tls"])
async def test_cancelling_a_session_while_it_connects_leaves_nothing(
    way: str, server_tls: object, client_tls: object
) -> None:
    """RE-07: round by round, with TLS from the first octet and without."""
    tls = {"tls": server_tls, "implicit_tls": True} if way == "tls" else {}
    security = Security.IMPLICIT_TLS if way == "tls" else Security.PLAINTEXT
    async with ScriptedRelay(**tls) as server:  # type: ignore[arg-type]
        for turns in range(40):
            session = Session(relay_of(server, security=security, **({"context": client_tls} if tls else {})))
            connecting = asyncio.ensure_future(session.connect())
            await rounds(turns)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await session.aclose()
        await server.wait_until_idle()


# --- the source address ---


async def test_a_session_comes_from_the_address_it_was_given() -> None:
    """And greets with it, being the address of our end."""
    async with ScriptedRelay() as server, Session(relay_of(server, source_address="127.0.0.9")) as session:
        assert (await session.send(message())).accepted
        assert "C: EHLO [127.0.0.9]" in server.dialogue


async def test_only_addresses_of_its_family_are_tried(answers: Answers) -> None:
    async with ScriptedRelay() as server:
        answers("::1", "127.0.0.1")
        (await dial("relay.test", server.port, "127.0.0.9")).close()
        answers("::1")
        relay = Relay("relay.test", 25, Security.PLAINTEXT, timeouts=PATIENT, source_address="127.0.0.9")
        with pytest.raises(ConnectFailed, match=r"no address that can be reached from the source address 127\.0\.0\.9"):
            await Session(relay).connect()


async def test_an_address_that_is_not_ours_says_so(server: ScriptedRelay) -> None:
    with pytest.raises(ConnectFailed, match="assign"):
        await Session(relay_of(server, source_address="192.0.2.1")).connect()
