"""Several hosts of one relay: the failures that lead to the next host, and those that end the search."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import replace

import pytest

from asyncsmtp.client.config.login_config import Login
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection import smtp_connection
from asyncsmtp.client.connection.smtp_connection import HOST_PENALTY, Hosts
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    AllHostsFailed,
    AuthenticationRefused,
    CertificateRefused,
    ConnectFailed,
    DeliveryInDoubt,
    ExtensionNotSupported,
    InsecureConnection,
    InvalidArgument,
    Refused,
    SMTPError,
)
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import NO_REPLY, Action, Fin, Hang, ScriptedRelay, Stage
from tests.client.support import PATIENT, message

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def relay_of(*servers: ScriptedRelay | int, **settings: object) -> Relay:
    first, *others = (server if isinstance(server, int) else server.port for server in servers)
    settings.setdefault("security", Security.PLAINTEXT)
    settings.setdefault("timeouts", PATIENT)
    fallback_hosts = tuple(f"127.0.0.1:{port}" for port in others)
    return Relay("127.0.0.1", first, fallback_hosts=fallback_hosts, **settings)  # type: ignore[arg-type]


async def unused() -> int:
    """A port on which nobody listens."""
    async with ScriptedRelay() as server:
        return server.port


@pytest.mark.parametrize(
    "greeting",
    ["421 4.3.2 not now", "451 4.7.1 greylisted", Fin(), b"HTTP/1.1 400 Bad Request\r\n\r\n", Hang()],
    ids=["421", "451", "fin", "no SMTP", "mute"],
)
async def test_a_host_that_cannot_serve_now_gives_way_to_the_next(
    greeting: Action, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures of transport; which host answered is in the delivery, and the other in the log."""
    async with ScriptedRelay({Stage.GREETING: greeting}) as broken, ScriptedRelay() as server:
        relay = relay_of(broken, server, timeouts=replace(PATIENT, greeting=0.5) if greeting == Hang() else PATIENT)
        async with Session(relay) as session:
            delivery = await session.send(message())
        assert delivery.accepted
        assert delivery.host == f"127.0.0.1:{server.port}"
        assert str(session.relay) == delivery.host
        assert broken.received == []
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"127.0.0.1:{broken.port}" in line


async def test_a_host_where_nobody_listens_gives_way_to_the_next() -> None:
    async with ScriptedRelay() as server, Session(relay_of(await unused(), server)) as session:
        assert (await session.send(message())).accepted


async def test_a_handshake_that_fails_gives_way_to_the_next(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """No TLS to be had is no proof of anything: the next one must prove itself as well."""
    async with (
        ScriptedRelay({Stage.HANDSHAKE: Fin()}, tls=server_tls) as broken,
        ScriptedRelay(tls=server_tls) as server,
        Session(relay_of(broken, server, security=Security.STARTTLS, context=client_tls)) as session,
    ):
        assert (await session.send(message())).tls is not None


async def test_when_none_takes_us_each_is_named_with_its_reason() -> None:
    nobody = await unused()
    async with ScriptedRelay({Stage.GREETING: "421 4.3.2 full"}) as busy:
        with pytest.raises(AllHostsFailed, match="all 2 hosts of the relay failed") as caught:
            await Session(relay_of(nobody, busy)).connect()
        error = caught.value
        assert [host for host, _ in error.failures] == [f"127.0.0.1:{nobody}", f"127.0.0.1:{busy.port}"]
        assert "nothing answers there" in str(error)
        assert f"; 127.0.0.1:{busy.port}: " in str(error)
        assert "421 4.3.2 full" in str(error)
        assert isinstance(error, ConnectFailed)
        assert isinstance(error.failures[1][1], Refused)


async def test_of_one_host_its_own_error_is_raised() -> None:
    """As ever."""
    async with ScriptedRelay({Stage.GREETING: "421 4.3.2 full"}) as busy:
        with pytest.raises(Refused):
            await Session(relay_of(busy)).connect()


Setting = dict[str, object]


@pytest.mark.parametrize(
    ("script", "server", "relay", "error"),
    [
        ({Stage.GREETING: "554 5.7.1 not you"}, {}, {}, Refused),
        (
            {},
            {"users": {"ann": "other"}},
            {"login": Login("ann", Secret("wrong")), "cleartext_login": True},
            AuthenticationRefused,
        ),
        ({}, {"users": {"ann": "p"}}, {"login": Login("ann", Secret("p"))}, InsecureConnection),
        ({}, {}, {"security": Security.STARTTLS}, ExtensionNotSupported),
    ],
    ids=["554", "credentials", "credentials in clear", "STARTTLS stripped"],
)
async def test_what_is_permanent_ends_it_there(
    script: dict[Stage, Action], server: Setting, relay: Setting, error: type[SMTPError]
) -> None:
    """Wrong everywhere, and nobody should be led to another host by it: no octet goes to the second."""
    async with ScriptedRelay(script, **server) as first, ScriptedRelay(**server) as second:  # type: ignore[arg-type]
        with pytest.raises(error):
            await Session(relay_of(first, second, **relay)).connect()
        assert second.connections == 0


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])
async def test_a_certificate_that_is_not_valid_ends_it_there(
    security: Security,
    server_tls: ssl.SSLContext,
    server_tls_for: Callable[..., ssl.SSLContext],
    client_tls: ssl.SSLContext,
) -> None:
    """TL-05: someone may pretend to be the first host; that is to be told, not passed over."""
    implicit = security is Security.IMPLICIT_TLS
    async with (
        ScriptedRelay(tls=server_tls_for("other.example"), implicit_tls=implicit) as first,
        ScriptedRelay(tls=server_tls, implicit_tls=implicit) as second,
    ):
        with pytest.raises(CertificateRefused):
            await Session(relay_of(first, second, security=security, context=client_tls)).connect()
        assert second.connections == 0


async def test_a_message_in_doubt_stays_where_it_may_be() -> None:
    """Past the point of no return nothing is tried elsewhere; the next message may go to the other host."""
    async with ScriptedRelay({Stage.END_OF_DATA: (NO_REPLY, Fin())}) as first, ScriptedRelay() as second:
        async with Pool(relay_of(first, second)) as pool:
            with pytest.raises(DeliveryInDoubt):
                await pool.send(message())
            assert second.connections == 0
        assert len(first.received) == 1


async def test_a_message_that_was_not_delivered_goes_to_the_next_host() -> None:
    """The connection breaks before the dot, and the first host is gone: nothing is lost, nothing is twice."""
    async with ScriptedRelay() as second:
        first = ScriptedRelay()
        await first.start()
        async with Pool(relay_of(first, second), sessions=1) as pool:
            assert (await pool.send(message(1))).host == f"127.0.0.1:{first.port}"
            await first.aclose()
            delivery = await pool.send(message(2))
            assert delivery.accepted
            assert delivery.host == f"127.0.0.1:{second.port}"
        assert (len(first.received), len(second.received)) == (1, 1)


async def test_a_pool_remembers_a_host_that_failed() -> None:
    """Each new session would wait for it anew; for a while it comes last."""
    async with ScriptedRelay({Stage.GREETING: Hang()}) as mute, ScriptedRelay() as server:
        timeouts = replace(PATIENT, greeting=0.5)
        async with Pool(relay_of(mute, server, timeouts=timeouts), sessions=3, messages=1) as pool:
            for number in range(4):
                assert (await pool.send(message(number))).accepted
        assert (mute.connections, server.connections) == (1, 4)


async def test_a_host_is_tried_again_when_its_penalty_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that failed are still tried, behind the others, where nothing else is left."""
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    relay = Relay("a", 1, fallback_hosts=("b:2", "c:3"))
    a, b, c = relay.single_host_relays
    hosts = Hosts(relay)
    taken: list[Relay] = []

    async def all_but(dead: tuple[Relay, ...], host: Relay) -> None:
        if host in dead:
            raise ConnectFailed("dead")
        taken.append(host)

    await hosts.connect(lambda host: all_but((a, b), host))
    assert hosts.in_order() == [c, a, b]
    now += 1.0
    with pytest.raises(AllHostsFailed):
        await hosts.connect(lambda host: all_but((a, b, c), host))
    assert hosts.in_order() == [a, b, c]
    now += HOST_PENALTY - 1.0
    await hosts.connect(lambda host: all_but((), host))
    assert taken == [c, a]
    now += HOST_PENALTY
    assert hosts.in_order() == [a, b, c]
    assert smtp_connection.HOST_PENALTY == 30.0


async def test_cancelling_tries_no_other_host() -> None:
    async with ScriptedRelay({Stage.GREETING: Hang()}) as mute, ScriptedRelay() as server:
        connecting = asyncio.ensure_future(Session(relay_of(mute, server)).connect())
        await mute.wait_for_stage(Stage.GREETING)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        assert server.connections == 0


# --- as values ---


def test_a_url_may_name_several_hosts() -> None:
    """Each with a port of its own, or the usual one."""
    relay = Relay.from_url("smtp://ann@a.example,b.example:25,[2001:db8::1]:2525", password="p")
    assert [host.address for host in relay.single_host_relays] == [
        ("a.example", 587),
        ("b.example", 25),
        ("2001:db8::1", 2525),
    ]
    assert {host.login for host in relay.single_host_relays} == {relay.login}
    assert str(relay) == "a.example:587, b.example:25, [2001:db8::1]:2525"
    assert Relay.from_url("smtp://a.example:25,b.example").single_host_relays[0].address == ("a.example", 25)


@pytest.mark.parametrize("url", ["smtp://a,,b", "smtp://a,b:0", "smtp://a,b:http", "smtp://a,c@b:25", "smtp://a,"])
def test_a_host_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        Relay.from_url(url)


@pytest.mark.parametrize("fallback_hosts", [("",), ("b:70000",), ("user@b",), ("b/x",), ("b", "c:x")])
def test_a_standby_is_checked_when_the_relay_is_made(fallback_hosts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument):
        Relay("a", fallback_hosts=fallback_hosts)


def test_a_unix_socket_has_no_standby() -> None:
    with pytest.raises(InvalidArgument):
        Relay(unix_path="/run/smtp", fallback_hosts=("b",))
