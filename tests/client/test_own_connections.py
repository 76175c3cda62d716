"""Connections that the caller made: a socket for one session, an opener for any number (W-15)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp import send
from asyncsmtp.client.config.login_config import Login
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    AuthenticationRefused,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgument,
    LocalProtocolError,
    MessageError,
    ReplyTimeout,
    StartTlsInjection,
    TokenFailed,
)
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import Fin, ScriptedRelay, Stage
from tests.client.support import LIMIT, PATIENT, QUICK, message, relay_of, serving

pytestmark = pytest.mark.usefixtures("nothing_leaks")

ANY = pytest.mark.parametrize("security", [Security.PLAINTEXT, Security.STARTTLS, Security.IMPLICIT_TLS])
UNDER_TLS = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])


def serve(security: Security, tls: ssl.SSLContext, **more: object) -> ScriptedRelay:
    implicit = security is Security.IMPLICIT_TLS
    context = None if security is Security.PLAINTEXT else tls
    return ScriptedRelay(tls=context, implicit_tls=implicit, **more)  # type: ignore[arg-type]


def connected(server: ScriptedRelay) -> socket.socket:
    return socket.create_connection((server.host, server.port))


@ANY
async def test_a_session_takes_over_a_socket_that_is_connected(
    security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """W-15: also with TLS, for the name that was configured."""
    async with serve(security, server_tls) as server:
        sock = connected(server)
        relay = Relay("relay.example", security=security, context=client_tls, timeouts=PATIENT)
        async with Session(relay, sock=sock) as session:
            assert (await session.send(message())).accepted
            assert (session.tls is None) == (security is Security.PLAINTEXT)
        assert sock.fileno() == -1
        assert server.connections == 1


@UNDER_TLS
async def test_the_name_is_checked_on_a_socket_too(
    security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """W-15, W-41: nobody asks where the socket came from."""
    async with serve(security, server_tls) as server:
        sock = connected(server)
        relay = Relay("other.example", security=security, context=client_tls, timeouts=PATIENT)
        with pytest.raises(ConnectFailed, match="certificate"):
            await Session(relay, sock=sock).connect()
        again = Session(
            Relay("other.example", security=security, context=client_tls, verify_name="relay.example"),
            sock=connected(server),
        )
        async with again:
            pass


@ANY
async def test_a_unix_socket_will_do(
    security: Security, tmp_path: Path, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """W-15: with TLS too, for the name that was configured."""
    path = tmp_path / "socket"
    async with serve(security, server_tls, unix_path=path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        relay = Relay(
            unix_path=path, security=security, context=client_tls, verify_name="relay.example", timeouts=PATIENT
        )
        assert (await send(message(), relay=relay, sock=sock)).accepted


async def test_a_socket_serves_one_session(server: ScriptedRelay) -> None:
    """The second is told so, and the first cannot connect twice."""
    sock = connected(server)
    session = Session(relay_of(server), sock=sock)
    async with session:
        pass
    with pytest.raises(LocalProtocolError, match="make another Session"):
        await session.connect()
    with pytest.raises(InvalidArgument, match="one socket serves one session"):
        await Session(relay_of(server), sock=sock).connect()


async def test_a_refused_token_is_not_tried_again_on_a_socket() -> None:
    """There is no second connection to try it on: the refusal is the answer."""
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        return f"token {asked}"

    async with ScriptedRelay(users={"ann": "token 2"}, mechanisms=["XOAUTH2"]) as server:
        relay = relay_of(server, login=Login("ann", token=token), cleartext_login=True)
        with pytest.raises(AuthenticationRefused):
            await Session(relay, sock=connected(server)).connect()
        assert (server.connections, asked) == (1, 1)


async def test_what_is_no_connected_stream_is_refused(server: ScriptedRelay) -> None:
    """And closed: it was given to the session."""
    for kind, why in ((socket.SOCK_STREAM, "not connected"), (socket.SOCK_DGRAM, "no stream")):
        sock = socket.socket(type=kind)
        with pytest.raises(InvalidArgument, match=why):
            await Session(relay_of(server), sock=sock).connect()
        assert sock.fileno() == -1


async def test_a_socket_is_closed_where_nothing_can_begin(server: ScriptedRelay, tmp_path: Path) -> None:
    """It was given to the session, whatever becomes of that."""
    sock = connected(server)
    relay = Relay("relay.example", security=Security.IMPLICIT_TLS, ca_file=tmp_path / "nothing.pem")
    with pytest.raises(ConnectFailed, match="CA file"):
        await Session(relay, sock=sock).connect()
    assert sock.fileno() == -1


async def test_a_socket_leads_to_one_host_by_one_way(server: ScriptedRelay) -> None:
    """There is no session then: it stays the caller's."""
    with socket.socket() as sock:
        with pytest.raises(InvalidArgument, match="one host"):
            Session(Relay("one.example", fallback_hosts=("two.example",)), sock=sock)
        assert sock.fileno() != -1


async def no_token() -> str:
    raise LookupError("no token today")


async def slow_token() -> str:
    await asyncio.sleep(60)
    return ""


def with_token(server: ScriptedRelay, token: Callable[[], Awaitable[str]]) -> Relay:
    return relay_of(server, login=Login("ann", token=token), cleartext_login=True)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"relay": "gopher://relay.example"}, ValueError),
        ({"relay": Relay("one.example", fallback_hosts=("two.example",))}, InvalidArgument),
        ({"message": EmailMessage()}, MessageError),
        ({"message": None}, TypeError),
        ({"deadline": "soon"}, TypeError),
    ],
)
async def test_send_closes_a_socket_that_it_has_no_use_for(
    server: ScriptedRelay, what: dict[str, Any], error: type[Exception]
) -> None:
    """It was given to `send`, whatever becomes of that."""
    sock = connected(server)
    with pytest.raises(error):
        await send(**{"message": message(), "relay": relay_of(server), "sock": sock} | what)
    assert sock.fileno() == -1


async def test_send_closes_a_socket_for_which_there_is_no_token(server: ScriptedRelay) -> None:
    """The source of tokens fails, or is too slow for the caller's limit."""
    sock = connected(server)
    with pytest.raises(TokenFailed):
        await send(message(), relay=with_token(server, no_token), sock=sock)
    assert sock.fileno() == -1
    sock = connected(server)
    with pytest.raises(DeadlineExceeded):
        await send(message(), relay=with_token(server, slow_token), sock=sock, deadline=0.05)
    assert sock.fileno() == -1


async def test_a_session_closes_a_socket_for_which_there_is_no_token(server: ScriptedRelay) -> None:
    """Also where nobody waits for the token any more."""
    sock = connected(server)
    with pytest.raises(TokenFailed):
        await Session(with_token(server, no_token), sock=sock).connect()
    assert sock.fileno() == -1
    sock = connected(server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await Session(with_token(server, slow_token), sock=sock).connect()
    assert sock.fileno() == -1


async def test_a_session_that_is_closed_before_it_connects_closes_its_socket(server: ScriptedRelay) -> None:
    """It is closed with the session; connecting then does not go another way."""
    sock = connected(server)
    session = Session(relay_of(server), sock=sock)
    await session.aclose()
    assert sock.fileno() == -1
    with pytest.raises(InvalidArgument, match="the socket is closed"):
        await session.connect()


async def test_closing_a_session_that_waits_for_its_token_leaves_the_socket_to_it() -> None:
    """Whoever connects has it in hand, and is not to find it closed."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        asked.set()
        await answered.wait()
        return "token"

    async with ScriptedRelay(users={"ann": "token"}, mechanisms=["XOAUTH2"]) as server:
        session = Session(with_token(server, token), sock=connected(server))
        connecting = asyncio.ensure_future(session.connect())
        await asked.wait()
        await session.aclose()
        answered.set()
        await connecting
        await session.aclose()


async def test_cancelled_round_by_round_a_socket_is_closed(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """RE-07."""
    async with serve(Security.IMPLICIT_TLS, server_tls) as server:
        for turns in range(1, 30):
            sock = connected(server)
            session = Session(relay_of(server, security=Security.IMPLICIT_TLS, context=client_tls), sock=sock)
            connecting = asyncio.ensure_future(session.connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await session.aclose()
            await server.wait_until_idle()


# --- openers ---


@ANY
@pytest.mark.parametrize("streams", [False, True], ids=["socket", "streams"])
async def test_an_opener_makes_the_connections_of_a_pool(
    security: Security, streams: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """It is asked for the host that is meant, once for each session; TLS is put on top of what it returns."""
    asked: list[tuple[str, int]] = []
    async with serve(security, server_tls) as server:

        async def opener(host: str, port: int) -> socket.socket | tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            asked.append((host, port))
            return await asyncio.open_connection(server.host, server.port) if streams else connected(server)

        relay = Relay("relay.example", 2525, security=security, context=client_tls, timeouts=PATIENT, opener=opener)
        async with Pool(relay, sessions=2, messages=1) as pool:
            for number in range(3):
                delivery = await pool.send(message(number))
                assert delivery.accepted
                assert (delivery.tls is None) == (security is Security.PLAINTEXT)
                assert delivery.host == "relay.example:2525"
        assert asked == [("relay.example", 2525)] * 3


async def test_what_an_opener_raises_is_a_connection_that_failed() -> None:
    async def opener(host: str, port: int) -> socket.socket:
        raise LookupError("no tunnel today")

    with pytest.raises(ConnectFailed, match="LookupError: no tunnel today") as caught:
        await Session(Relay("relay.example", opener=opener)).connect()
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("error", [OSError("no route"), ConnectFailed("no route"), ConnectionRefusedError()])
async def test_what_an_opener_says_of_the_network_is_reported_as_ours(error: Exception) -> None:
    """It may speak our language."""

    async def opener(host: str, port: int) -> socket.socket:
        raise error

    with pytest.raises(ConnectFailed, match=r"no route|nothing answers there"):
        await Session(Relay("relay.example", opener=opener)).connect()


async def test_what_an_opener_returns_is_looked_at() -> None:
    """Forgetting the `return` for one."""

    async def opener(host: str, port: int) -> None:
        return None

    with pytest.raises(InvalidArgument, match="returned NoneType"):
        await Session(Relay("relay.example", opener=opener)).connect()  # type: ignore[arg-type]

    async def unconnected(host: str, port: int) -> socket.socket:
        return sock

    sock = socket.socket()
    with pytest.raises(InvalidArgument, match="not connected"):
        await Session(Relay("relay.example", opener=unconnected)).connect()
    assert sock.fileno() == -1


async def test_an_opener_that_hangs_is_bounded() -> None:
    """By the relay's own limit for connecting."""

    async def opener(host: str, port: int) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    relay = Relay("relay.example", opener=opener, timeouts=replace(QUICK, connect=LIMIT))
    with pytest.raises(ConnectFailed, match=r"did not answer within 0\.25 s"):
        await Session(relay).connect()


async def test_bytes_in_clear_never_pass_for_what_was_said_under_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-01 once more: streams may hold what came before the handshake, a greeting forged on the way for one."""

    async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 evil.example\r\n")
        await reader.read()

    async with serving(forge) as port:

        async def opener(host: str, _: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            first = await reader.readexactly(1)
            reader.feed_data(first)
            return reader, writer

        relay = Relay(
            "relay.example", security=Security.IMPLICIT_TLS, context=client_tls, timeouts=PATIENT, opener=opener
        )
        with pytest.raises(StartTlsInjection, match="bytes in clear"):
            await Session(relay).connect()


async def test_streams_whose_handshake_fails_are_closed(client_tls: ssl.SSLContext) -> None:
    """A server that hangs up in the midst of it."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with serving(hang_up) as port:

        async def opener(host: str, _: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", port)

        relay = Relay(
            "relay.example", security=Security.IMPLICIT_TLS, context=client_tls, timeouts=PATIENT, opener=opener
        )
        with pytest.raises((ConnectFailed, ReplyTimeout)):
            await Session(relay).connect()


async def test_streams_of_a_program_that_end_are_noticed_at_once() -> None:
    """W-15: not only when a timeout is over."""
    async with ScriptedRelay({Stage.RCPT: Fin()}) as server:
        relay = Relay(
            "relay.example",
            security=Security.PLAINTEXT,
            timeouts=PATIENT,
            opener=lambda host, port: asyncio.open_connection(server.host, server.port),
        )
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionLost):
                await send(message(), relay=relay)


async def test_a_socket_serves_one_attempt() -> None:
    """It is connected once; a retry would need another."""
    with socket.socket() as sock, pytest.raises(InvalidArgument, match="sock= and retry= exclude each other"):
        await send(message(), relay=Relay("relay.example"), sock=sock, retry=Retry())
