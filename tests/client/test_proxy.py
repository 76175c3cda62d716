"""Through a proxy to a relay: SOCKS 5 and HTTP CONNECT."""

from __future__ import annotations

import asyncio
import builtins
import logging
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from asyncsmtp.client.config.relay import Proxy, ProxyKind, Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed, InvalidArgument, MissingDependency
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.proxies import http_proxy, socks_proxy
from tests.client.support import LIMIT, PATIENT, QUICK_OPENING, everything_of, message, rounds, serving

pytestmark = pytest.mark.usefixtures("nothing_leaks")

CANARY = "hunter2-c4n4ry"
EACH = pytest.mark.parametrize("kind", list(ProxyKind))
SERVERS: dict[ProxyKind, Callable[..., Any]] = {ProxyKind.SOCKS5: socks_proxy, ProxyKind.HTTP: http_proxy}


def relay_by(proxy: Proxy, host: str = "relay.example", **settings: object) -> Relay:
    settings.setdefault("security", Security.PLAINTEXT)
    settings.setdefault("timeouts", PATIENT)
    return Relay(host, 2525, proxy=proxy, **settings)  # type: ignore[arg-type]


@EACH
@pytest.mark.parametrize("security", [Security.PLAINTEXT, Security.STARTTLS, Security.IMPLICIT_TLS])
async def test_a_message_goes_through_a_proxy(
    kind: ProxyKind, security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """The proxy looks the name up, which leads nowhere here; TLS is with the relay, by its own name."""
    tls = None if security is Security.PLAINTEXT else server_tls
    async with (
        ScriptedRelay(tls=tls, implicit_tls=security is Security.IMPLICIT_TLS) as server,
        SERVERS[kind](server.port) as seen,
    ):
        relay = relay_by(Proxy(kind, "127.0.0.1", seen.port), security=security, context=client_tls)
        async with Session(relay) as session:
            delivery = await session.send(message())
        assert delivery.accepted
        assert (delivery.tls is None) == (tls is None)
        assert delivery.host == "relay.example:2525"
        assert seen.asked == [("relay.example", 2525)]


@EACH
async def test_a_pool_goes_through_it_too(kind: ProxyKind) -> None:
    async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
        async with Pool(relay_by(Proxy(kind, "127.0.0.1", seen.port)), sessions=3) as pool:
            deliveries = await asyncio.gather(*(pool.send(message(number)) for number in range(12)))
        assert all(delivery.accepted for delivery in deliveries)
        assert len(seen.asked) == server.connections


@EACH
async def test_a_proxy_may_want_to_know_us(kind: ProxyKind, caplog: pytest.LogCaptureFixture) -> None:
    """The password is in no repr, no error and no log."""
    caplog.set_level(logging.DEBUG)
    async with ScriptedRelay() as server, SERVERS[kind](server.port, users={"ann": CANARY}) as seen:
        proxy = Proxy.from_url(f"{kind}://ann@127.0.0.1:{seen.port}", password=CANARY)
        async with Session(relay_by(proxy)) as session:
            assert (await session.send(message())).accepted
        assert seen.users == [("ann", CANARY)]
        wrong = proxy.with_password(Secret(CANARY[::-1]))
        with pytest.raises(ConnectFailed, match="does not let us through to relay.example:2525") as caught:  # noqa: RUF043
            await Session(relay_by(wrong)).connect()
        with pytest.raises(ConnectFailed):
            await Session(relay_by(Proxy(kind, "127.0.0.1", seen.port))).connect()
        assert server.connections == 1
    shown = f"{proxy!r} {proxy} {relay_by(proxy)!r} {caught.value} {caught.value.__cause__!r} {caplog.text}"
    assert CANARY not in shown
    assert CANARY[::-1] not in shown


async def test_the_greeting_is_not_lost_with_the_proxys_answer() -> None:
    """A relay speaks first: its 220 may stand in the same segment as the 200 of the proxy."""
    async with (
        ScriptedRelay() as server,
        http_proxy(server.port, at_once=True) as seen,
        Session(relay_by(Proxy(ProxyKind.HTTP, "127.0.0.1", seen.port))) as session,
    ):
        assert (await session.send(message())).accepted


async def test_a_name_in_other_letters_is_asked_for_as_dns_has_it() -> None:
    for kind in ProxyKind:
        async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
            async with Session(relay_by(Proxy(kind, "127.0.0.1", seen.port), "bücher.example")):
                pass
            assert seen.asked == [("xn--bcher-kva.example", 2525)]


@EACH
@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a b", "a\r\nHost: evil", "x." * 130])
async def test_a_name_that_cannot_be_asked_for_is_refused(kind: ProxyKind, host: str) -> None:
    """WO-03: by an error of ours, and without a word that the proxy could misread."""
    async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
        with pytest.raises(ConnectFailed) as caught:
            await Session(relay_by(Proxy(kind, "127.0.0.1", seen.port), host)).connect()
        assert str(caught.value).isprintable()
        assert not any("evil" in name for name, _ in seen.asked)


@EACH
async def test_names_may_be_looked_up_here(kind: ProxyKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a proxy that has no resolver."""

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "relay.example"
        return [(2, 1, 6, "", ("192.0.2.7", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
        async with Session(relay_by(Proxy(kind, "127.0.0.1", seen.port, remote_names=False))):
            pass
        assert seen.asked == [("192.0.2.7", 2525)]


@EACH
async def test_the_source_address_is_towards_the_proxy(kind: ProxyKind) -> None:
    async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
        relay = relay_by(Proxy(kind, "127.0.0.1", seen.port), source_address="127.0.0.9")
        async with Session(relay):
            assert seen.peers == ["127.0.0.9"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n",
        b"SSH-2.0-nonsense\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"",
        b"HTTP/1.1 403 \x1b[31mred\r\n\r\n",
    ],
    ids=["403", "redirect", "no HTTP", "cut off", "endless", "nothing", "escape"],
)
async def test_what_an_http_proxy_may_answer_else(answer: bytes) -> None:
    """One sentence with the proxy's words, made harmless; nothing was said to anybody else."""
    async with http_proxy(0, answer=answer) as seen:
        proxy = Proxy(ProxyKind.HTTP, "127.0.0.1", seen.port)
        with pytest.raises(ConnectFailed, match=f"the proxy {proxy}") as caught:
            await Session(relay_by(proxy)).connect()
        assert str(caught.value).isprintable()


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        CONTINUE * (1_048_576 // len(CONTINUE)),
        b"HTTP/1.1 102 Processing\r\nX: " + b"x" * 8000 + b"\r\n\r\n" + CONTINUE * 1000,
        b"HTTP/1.1 200 " + b"x" * 1_048_576,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"\r\n" * 500_000,
        b"\0" * 1_048_576,
    ],
    ids=["100 Continue", "1xx with headers", "endless reason", "endless headers", "empty lines", "NUL"],
)
async def test_a_flood_from_an_http_proxy_is_bounded(answer: bytes) -> None:
    """FT-54: a megabyte of `100 Continue` stopped the event loop for half a minute, its time-outs included."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with http_proxy(0, answer=answer) as seen:
        counting = asyncio.ensure_future(count())
        began = time.process_time()
        with pytest.raises(ConnectFailed, match="does not let us through"):
            await Session(relay_by(Proxy(ProxyKind.HTTP, "127.0.0.1", seen.port))).connect()
        assert time.process_time() - began < 3.0
        assert turns > 10 or answer.startswith(b"\r\n")  # others had their turns; an empty answer ends at once
        counting.cancel()
        await asyncio.wait([counting])


async def test_interim_answers_of_an_http_proxy_are_passed_over() -> None:
    """FT-54: a few of them are as HTTP has it (RFC 9110 §15.2); the greeting behind the last answer is not lost."""
    answer = CONTINUE * 20 + b"HTTP/1.1 200 OK\r\n\r\n220 relay.example\r\n"
    async with http_proxy(0, answer=answer) as seen:
        session = Session(relay_by(Proxy(ProxyKind.HTTP, "127.0.0.1", seen.port)))
        with pytest.raises(ConnectFailed, match="no session with"):  # nobody answers our EHLO
            await session.connect()
        assert session.greeting is not None


async def test_an_answer_that_drips_is_bounded_by_the_time_for_connecting() -> None:
    """FT-54: each byte comes in time, the whole does not."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 200 OK"[:1])
            await asyncio.sleep(0.02)

    async with serving(drip) as port:
        relay = relay_by(Proxy(ProxyKind.HTTP, "127.0.0.1", port), timeouts=QUICK_OPENING.__class__(connect=LIMIT))
        with pytest.raises(ConnectFailed, match="did not answer within"):
            await Session(relay).connect()


@pytest.mark.parametrize(
    "answer", [b"\x05" * 1_048_576, b"\x05\x00\x05\x00\x00\x03\xff" + b"x" * 1_048_576, b"\0" * 99]
)
async def test_a_flood_from_a_socks_proxy_is_bounded(answer: bytes) -> None:
    """FT-54: no more is read than its protocol has; the rest is no greeting of a relay."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()

    async with serving(flood) as port, asyncio.timeout(10):
        with pytest.raises(ConnectFailed):
            await Session(relay_by(Proxy(ProxyKind.SOCKS5, "127.0.0.1", port))).connect()


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 407 {CANARY}\r\n\r\n".encode(),
        f"HTTP/1.1 407 {b64encode(f'ann:{CANARY}'.encode()).decode()}\r\n\r\n".encode(),
        f"HTTP/1.1 {CANARY}\r\n\r\n".encode(),
        f"{CANARY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\n\r\n220 hello {CANARY}\r\n".encode(),
    ],
)
async def test_a_proxy_that_echoes_its_password_is_masked(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """FT-52: in its answer, broken or not, and as the relay that it pretends to be."""
    caplog.set_level(logging.DEBUG)
    async with http_proxy(0, answer=answer) as seen:
        proxy = Proxy(ProxyKind.HTTP, "127.0.0.1", seen.port, "ann", Secret(CANARY))
        with pytest.raises(ConnectFailed) as caught:
            await Session(relay_by(proxy, timeouts=QUICK_OPENING)).connect()
    shown = everything_of(caught.value) + caplog.text
    assert CANARY not in shown
    assert b64encode(f"ann:{CANARY}".encode()).decode() not in shown


@pytest.mark.parametrize(("code", "why"), [(2, "not allowed"), (4, "unreachable"), (5, "refused"), (99, "reply")])
async def test_what_a_socks_proxy_may_answer_else(code: int, why: str) -> None:
    async with socks_proxy(0, refuses=code) as seen:
        with pytest.raises(ConnectFailed, match=f"(?i){why}"):
            await Session(relay_by(Proxy(ProxyKind.SOCKS5, "127.0.0.1", seen.port))).connect()


@EACH
async def test_a_proxy_that_is_not_there_says_so(kind: ProxyKind) -> None:
    """The proxy is named, not the relay: that is where to look."""
    async with ScriptedRelay() as server:
        port = server.port
    with pytest.raises(ConnectFailed, match="cannot connect to the proxy"):
        await Session(relay_by(Proxy(kind, "127.0.0.1", port))).connect()


@EACH
async def test_a_proxy_that_hangs_is_bounded(kind: ProxyKind) -> None:
    """By the limit for connecting."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with serving(mute) as port:
        relay = relay_by(Proxy(kind, "127.0.0.1", port), timeouts=QUICK_OPENING.__class__(connect=LIMIT))
        with pytest.raises(ConnectFailed, match="did not answer within"):
            await Session(relay).connect()


@EACH
async def test_a_proxy_that_closes_the_connection_is_reported(kind: ProxyKind) -> None:
    """A reset in the midst of its answer."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        linger = (1).to_bytes(4, "little") + bytes(4)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with serving(reset) as port:
        with pytest.raises(ConnectFailed, match="reset"):
            await Session(relay_by(Proxy(kind, "127.0.0.1", port))).connect()


@EACH
async def test_cancelled_round_by_round_nothing_is_left(kind: ProxyKind) -> None:
    """RE-07."""
    async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
        for turns in range(40):
            session = Session(relay_by(Proxy(kind, "127.0.0.1", seen.port)))
            connecting = asyncio.ensure_future(session.connect())
            await rounds(turns)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await session.aclose()


@EACH
async def test_another_host_is_tried_by_the_same_proxy(kind: ProxyKind) -> None:
    """Each by its own name; the first one refuses."""
    async with ScriptedRelay() as server, SERVERS[kind](server.port) as seen:
        relay = Relay(
            "one.example",
            fallback_hosts=("two.example:26",),
            proxy=Proxy(kind, "127.0.0.1", seen.port),
            security=Security.PLAINTEXT,
            timeouts=PATIENT,
        )
        async with Session(relay):
            assert seen.asked == [("one.example", 25)]


@EACH
async def test_without_the_extra_it_says_what_to_install(kind: ProxyKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, before anything is connected."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] in ("h11", "python_socks"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install 'asyncsmtp\[proxy\]'"):
        await Session(relay_by(Proxy(kind, "127.0.0.1", 1))).connect()


# --- as a value ---


def test_a_url_says_which_proxy() -> None:
    assert Proxy.from_url("socks5://proxy.example") == Proxy(ProxyKind.SOCKS5, "proxy.example")
    assert Proxy.from_url("socks5://proxy.example").address == ("proxy.example", 1080)
    assert Proxy.from_url("http://[::1]:3128").address == ("::1", 3128)
    assert str(Proxy.from_url("http://[::1]")) == "http://[::1]:8080"
    proxy = Proxy.from_url("socks5://a%40b@proxy.example:99", password=CANARY)
    assert (proxy.username, proxy.password) == ("a@b", Secret(CANARY))
    relay = Relay.from_url("smtp://relay.example?proxy=socks5://ann@proxy.example", proxy_password=CANARY)
    assert relay.proxy == Proxy(ProxyKind.SOCKS5, "proxy.example", None, "ann", Secret(CANARY))


@pytest.mark.parametrize(
    "url",
    [
        f"socks5://u:{CANARY}@p",
        f"socks5://u:{CANARY}@p:1080",
        f"http://u:x/{CANARY}@p",
        f"http//u:{CANARY}@p",
        f"u:{CANARY}@p",
        f"socks9://u:{CANARY}@p",
    ],
)
def test_a_password_in_it_is_refused_and_never_repeated(url: str) -> None:
    """AU-08: alone, and within a relay's URL, however that is wrong otherwise."""
    for read in (
        lambda: Proxy.from_url(url),
        lambda: Relay.from_url(f"smtp://relay.example?proxy={url}"),
        lambda: Relay.from_url(f"http://relay.example?proxy={url}&tls=1"),
        lambda: Relay.from_url("smtp://relay.example?proxy=" + url.replace(":", "%3A").replace("@", "%40")),
    ):
        with pytest.raises(InvalidArgument, match="must not hold a password") as caught:
            read()
        assert CANARY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    "url",
    ["", "proxy.example", "ftp://p", "socks4://p", "https://p", "socks5://", "http://p:x", "http://p/x", "http://p?x"],
)
def test_an_invalid_proxy_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a proxy's URL"):
        Proxy.from_url(url)


def test_a_port_of_a_proxy_and_another_setting_are_no_password() -> None:
    """What merely looks like one is taken."""
    relay = Relay.from_url("smtp://relay.example?proxy=socks5://p:1080&name=a.example&source-address=192.0.2.1")
    assert relay.proxy is not None
    Relay.from_url("smtp://relay.example?proxy=socks5://p:1080&ca-file=/a@b")


@pytest.mark.parametrize(
    "settings",
    [
        {"host": ""},
        {"port": 0},
        {"password": Secret("p")},
        {"username": "a\r\nb"},
        {"username": "a", "password": Secret("a\nb")},
        {"username": "é"},
        {"username": "x" * 256},
        {"username": "a:b", "kind": ProxyKind.HTTP},
    ],
)
def test_a_proxy_cannot_be_made_wrong(settings: dict[str, object]) -> None:
    """WO-03: what its protocol cannot say is refused before it is said."""
    with pytest.raises(InvalidArgument) as caught:
        Proxy(**{"kind": ProxyKind.SOCKS5, "host": "p", **settings})  # type: ignore[arg-type]
    assert str(caught.value).isprintable()


async def _opener(host: str, port: int) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    "settings",
    [
        {"opener": _opener},
        {"host": "", "unix_path": "/run/smtp"},
        {"source_address": "here.example"},
        {"proxy": None, "opener": _opener, "source_address": "127.0.0.1"},
    ],
)
def test_there_is_one_way_to_a_relay(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        Relay(**{"host": "h", "proxy": Proxy(ProxyKind.HTTP, "p"), **settings})  # type: ignore[arg-type]
