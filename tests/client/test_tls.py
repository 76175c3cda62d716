"""TLS, implicit and by STARTTLS: nothing of ours travels in clear that must not, and nothing injected is heard."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from asyncsmtp.client.config.relay import Login, Relay
from asyncsmtp.client.connection import transport
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    ConnectFailed,
    ExtensionNotSupported,
    InsecureConnection,
    Refused,
    SMTPError,
    StartTlsInjection,
)
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Hang, ScriptedRelay, SendSlowly, Stage, StopReading, Wait
from tests.client.support import GRACE, LIMIT, QUICK_OPENING, Trail, commands, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

BOTH = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])
LOGIN = Login("ann", Secret("s3cret"))


def serve(
    tls: ssl.SSLContext, security: Security, script: dict[Stage, Action] | None = None, **more: object
) -> ScriptedRelay:
    implicit = security is Security.IMPLICIT_TLS
    return ScriptedRelay(script, tls=tls, implicit_tls=implicit, **more)  # type: ignore[arg-type]


async def refused(relay: Relay, *errors: type[SMTPError]) -> SMTPError:
    """Connect in vain; return why."""
    session = Session(relay)
    with pytest.raises(errors or (ConnectFailed,)) as caught:
        await session.connect()
    await session.aclose()  # once more changes nothing, though what was left of the handshake had to be cut off
    assert not session.usable
    assert isinstance(caught.value, SMTPError)
    return caught.value


@BOTH
async def test_a_message_travels_under_tls(
    security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, trail: Trail
) -> None:
    """P-03, TL-16, W-35, W-41: verified, and everything but the opening of STARTTLS is under it."""
    async with serve(server_tls, security, users={"ann": "s3cret"}, needs_auth=True) as server:
        relay = relay_of(server, security=security, context=client_tls, login=LOGIN)
        async with Session(relay, trace=trail) as session:
            assert session.tls is not None
            delivery = await session.send(message())
            assert delivery.tls is session.tls_info
            assert session.tls_info is not None
            assert session.tls_info.version == session.tls.version() == "TLSv1.3"
    [received] = server.received
    assert (received.tls, received.user) == (True, "ann")
    clear = [line for line in trail.lines if line.startswith("C:")]
    assert len(clear) == (2 if security is Security.STARTTLS else 0)


async def test_what_was_known_before_tls_is_forgotten(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """TL-04, RFC 3207 §4.2: a new EHLO, and only what it offers; the attacker's list counts for nothing."""
    forged = "250-relay.example\r\n250-STARTTLS\r\n250-XEVIL\r\n250 AUTH PLAIN"
    script = {Stage.EHLO: lambda context: None if context.tls else forged}
    async with (
        serve(server_tls, Security.STARTTLS, script) as server,  # type: ignore[arg-type]
        Session(relay_of(server, security=Security.STARTTLS, context=client_tls)) as session,
    ):
        assert "XEVIL" not in session.extensions
        assert "AUTH" not in session.extensions
        assert session.extensions.pipelining
    assert commands(server)[:3] == ["EHLO", "STARTTLS", "EHLO"]


async def test_a_relay_that_ignores_the_second_ehlo_is_a_timeout(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-04: never the old capabilities."""
    script = {Stage.EHLO: {2: Hang()}}
    async with serve(server_tls, Security.STARTTLS, script) as server:  # type: ignore[arg-type]
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls, timeouts=QUICK_OPENING)
        assert "EHLO" in str(await refused(relay))


# --- injection ---


@pytest.mark.parametrize(
    "octets",
    [b"250-relay.example\r\n250 AUTH PLAIN\r\n", b"250 ok\r\n", b"2", b"\r\n", b"\0", b"x" * 70_000, b"454 no\r\n"],
    ids=["ehlo", "line", "one octet", "line end", "NUL", "much", "454"],
)
async def test_bytes_behind_the_220_are_an_attack(
    octets: bytes, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """P-01, TL-01, W-40, fact 1: in the same segment; nothing more is said, neither in clear nor under TLS."""
    script: dict[Stage, Action] = {Stage.STARTTLS: (DEFAULT_REPLY, octets)}
    async with serve(server_tls, Security.STARTTLS, script, users={"ann": "s3cret"}) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls, login=LOGIN)
        error = await refused(relay, StartTlsInjection)
        assert "tampering" in str(error)
        await server.wait_until_idle()
    assert commands(server) == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.02])
@pytest.mark.parametrize("octets", [b"250-relay.example\r\n250 AUTH PLAIN\r\n", b"2"], ids=["ehlo", "one octet"])
async def test_bytes_a_moment_behind_the_220_never_reach_the_session(
    delay: float, octets: bytes, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-02: they break the handshake, whenever they come; it ends as an attack or as no TLS, never in clear."""
    script: dict[Stage, Action] = {Stage.STARTTLS: (DEFAULT_REPLY, Wait(delay), octets)}
    async with serve(server_tls, Security.STARTTLS, script, users={"ann": "s3cret"}) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls, login=LOGIN, timeouts=QUICK_OPENING)
        began = asyncio.get_running_loop().time()
        await refused(relay, StartTlsInjection, ConnectFailed)
        assert asyncio.get_running_loop().time() - began < LIMIT + GRACE
    assert commands(server) == ["EHLO", "STARTTLS"]
    assert server.auth_attempts == []


async def test_a_reply_under_tls_that_nobody_asked_for_ends_it(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """A second greeting under TLS would be taken for the answer to EHLO."""
    script = {Stage.EHLO: lambda context: (b"250 hello\r\n", DEFAULT_REPLY) if context.tls else None}
    async with serve(server_tls, Security.STARTTLS, script) as server:  # type: ignore[arg-type]
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls)
        session = Session(relay)
        try:
            await session.connect()
        except SMTPError:
            return
        with pytest.raises(SMTPError):
            await session.send(message())
        await session.aclose()
    assert server.received == []


# --- refused, stripped, stalled ---


@pytest.mark.parametrize(
    ("script", "hides", "said"),
    [
        ({}, {"STARTTLS"}, ["EHLO", "QUIT"]),
        ({Stage.EHLO: "502 5.5.1 what"}, set(), ["EHLO", "HELO", "QUIT"]),
        ({Stage.STARTTLS: "454 4.7.0 not now"}, set(), ["EHLO", "STARTTLS", "QUIT"]),
        ({Stage.STARTTLS: "502 5.5.1 what"}, set(), ["EHLO", "STARTTLS", "QUIT"]),
        ({Stage.STARTTLS: b"354 go on\r\n"}, set(), ["EHLO", "STARTTLS"]),
        ({Stage.STARTTLS: b"250 fine\r\n"}, set(), ["EHLO", "STARTTLS"]),
        ({Stage.STARTTLS: b"ERROR\r\n"}, set(), ["EHLO", "STARTTLS"]),
        ({Stage.STARTTLS: Fin()}, set(), ["EHLO", "STARTTLS"]),
        ({Stage.STARTTLS: (DEFAULT_REPLY, Fin())}, set(), ["EHLO", "STARTTLS"]),
        ({Stage.HANDSHAKE: Fin()}, set(), ["EHLO", "STARTTLS"]),
    ],
    ids=["stripped", "HELO", "454", "502", "354", "250", "garbage", "fin", "220, then fin", "fin in the handshake"],
)
async def test_without_tls_nothing_more_is_said(
    script: dict[Stage, Action],
    hides: set[str],
    said: list[str],
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    """D-25, TL-03, W-37 to W-39: required is the default; no AUTH, no MAIL."""
    async with serve(server_tls, Security.STARTTLS, script, hides=hides, users={"ann": "s3cret"}) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls, login=LOGIN)
        error = await refused(relay, SMTPError)
        assert isinstance(error, ConnectFailed | ExtensionNotSupported | Refused)
        await server.wait_until_idle()
    assert commands(server) == said


@pytest.mark.parametrize("login", [None, LOGIN], ids=["without login", "with login"])
@pytest.mark.parametrize("stripped", [True, False], ids=["stripped", "454"])
async def test_opportunistic_goes_on_in_clear_only_without_credentials(
    login: Login | None, stripped: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """W-36, TL-11."""
    script: dict[Stage, Action] = {} if stripped else {Stage.STARTTLS: "454 4.7.0 not now"}
    hides = {"STARTTLS"} if stripped else set()
    async with serve(server_tls, Security.STARTTLS, script, hides=hides, users={"ann": "s3cret"}) as server:
        relay = relay_of(server, security=Security.OPPORTUNISTIC, context=client_tls, login=login)
        if login is None:
            async with Session(relay) as session:
                assert (await session.send(message())).tls is None
        else:
            await refused(relay, ExtensionNotSupported, Refused)
    assert server.auth_attempts == []


@BOTH
async def test_a_handshake_that_stalls_is_bounded(
    security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-08, W-45: asyncio's own limit is a minute."""
    async with serve(server_tls, security, {Stage.HANDSHAKE: Hang()}) as server:
        relay = relay_of(server, security=security, context=client_tls, timeouts=QUICK_OPENING)
        began = asyncio.get_running_loop().time()
        await refused(relay)
        assert asyncio.get_running_loop().time() - began < LIMIT + GRACE


async def test_a_handshake_that_drips_is_bounded(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    octets = b"\x16\x03\x03\x00\x7a" + b"\x02\x00\x00\x76"
    script: dict[Stage, Action] = {Stage.HANDSHAKE: SendSlowly(octets, LIMIT * 0.3, times=0)}
    async with serve(server_tls, Security.STARTTLS, script) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls, timeouts=QUICK_OPENING)
        began = asyncio.get_running_loop().time()
        await refused(relay)
        assert asyncio.get_running_loop().time() - began < LIMIT + GRACE


@BOTH
@pytest.mark.parametrize("move", [Hang(), StopReading()], ids=["mute", "deaf"])
async def test_closing_is_bounded_under_tls(
    move: Action, security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-09: `close()` and `wait_closed()` alone would take half a minute."""
    async with serve(server_tls, security, {Stage.QUIT: move}) as server:
        session = Session(relay_of(server, security=security, context=client_tls))
        await session.connect()
        began = asyncio.get_running_loop().time()
        await session.aclose()
        assert asyncio.get_running_loop().time() - began < 1.0


# --- certificates ---


@BOTH
async def test_an_authority_nobody_trusts_is_refused(security: Security, server_tls: ssl.SSLContext) -> None:
    """W-41: before any command under TLS; the sentence says what to do."""
    async with serve(server_tls, security) as server:
        error = await refused(relay_of(server, security=security))
        assert "certificate" in str(error)
        assert "ca_file" in str(error)
    assert "EHLO" not in commands(server)[2:]
    assert server.received == []


@BOTH
async def test_a_certificate_for_another_name_is_refused(
    security: Security, server_tls_for: Callable[..., ssl.SSLContext], client_tls: ssl.SSLContext
) -> None:
    async with serve(server_tls_for("other.example"), security) as server:
        error = await refused(relay_of(server, security=security, context=client_tls))
        assert "verify_name" in str(error)
        relay = relay_of(server, security=security, context=client_tls, verify_name="other.example")
        async with Session(relay) as session:
            assert (await session.send(message())).accepted


@BOTH
async def test_an_expired_certificate_is_refused(
    security: Security, server_tls_for: Callable[..., ssl.SSLContext], client_tls: ssl.SSLContext
) -> None:
    old = datetime.now(UTC) - timedelta(days=2)
    context = server_tls_for("relay.example", not_before=old - timedelta(days=30), not_after=old)
    async with serve(context, security) as server:
        assert "expired" in str(await refused(relay_of(server, security=security, context=client_tls)))


@BOTH
async def test_the_name_that_is_checked_is_the_one_that_was_configured(
    security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """The host, an address here, unless `verify_name` says otherwise; never what the relay calls itself."""
    async with serve(server_tls, security, name="evil.example") as server:
        relay = relay_of(server, security=security, context=client_tls, verify_name=None)
        async with Session(relay) as session:
            assert session.tls is not None
        await refused(relay_of(server, security=security, context=client_tls, verify_name="evil.example"))


@BOTH
async def test_a_private_authority_can_be_given_as_a_file(
    security: Security, server_tls: ssl.SSLContext, ca: trustme.CA, tmp_path: Path
) -> None:
    """The file is read where the context is made."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    async with (
        serve(server_tls, security) as server,
        Session(relay_of(server, security=security, ca_file=path)) as session,
    ):
        assert (await session.send(message())).accepted


@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_an_authority_file_that_cannot_be_used_says_so(
    content: str | None, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    async with serve(server_tls, Security.IMPLICIT_TLS) as server:
        error = await refused(relay_of(server, security=Security.IMPLICIT_TLS, ca_file=path))
        assert str(path) in str(error)


@BOTH
async def test_without_verification_no_credentials_are_said(
    security: Security, server_tls: ssl.SSLContext, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    """AU-01, TL-07: a context of one's own that verifies nothing warns, sends mail, and no octet of AUTH."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serve(server_tls, security, users={"ann": "s3cret"}) as server:
        async with Session(relay_of(server, security=security, context=context), trace=trail) as session:
            assert (await session.send(message())).accepted
        assert not any("verified" in line and "not verified" not in line for line in trail.lines)
        warned = [record for record in caplog.records if record.name == "asyncsmtp.session"]
        assert ["was not verified" in record.getMessage() for record in warned] == [True]
        await refused(relay_of(server, security=security, context=context, login=LOGIN), InsecureConnection)
        assert "AUTH" not in commands(server, 2)
        allowed = relay_of(server, security=security, context=context, login=LOGIN, cleartext_login=True)
        async with Session(allowed):
            pass


async def test_a_relay_of_old_is_refused(ca: trustme.CA, client_tls: ssl.SSLContext) -> None:
    """TL-06: TLS 1.1 is no TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("relay.example").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serve(context, Security.STARTTLS) as server:
        await refused(relay_of(server, security=Security.STARTTLS, context=client_tls))


# --- the wrong kind of TLS ---


async def test_implicit_tls_to_a_plain_port_says_so(server: ScriptedRelay, client_tls: ssl.SSLContext) -> None:
    """W-44."""
    error = await refused(relay_of(server, security=Security.IMPLICIT_TLS, context=client_tls))
    assert "use smtp://" in str(error)


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.PLAINTEXT])
async def test_plain_to_a_tls_port_says_so(security: Security, server_tls: ssl.SSLContext) -> None:
    """WI-15: it stays silent, waiting for a handshake; silence before a greeting has one usual reason."""
    async with serve(server_tls, Security.IMPLICIT_TLS) as server:
        assert "smtps://" in str(await refused(relay_of(server, security=security, timeouts=QUICK_OPENING)))


async def test_a_handshake_that_left_no_tls_is_a_failed_connection(server: ScriptedRelay) -> None:
    """The relay hung up as it ended: nothing is sent, and the connection is gone."""
    _, writer = await asyncio.open_connection(server.host, server.port)
    with pytest.raises(ConnectFailed, match=r"the TLS handshake with .* broke off: it hung up"):
        transport._check_certificate(relay_of(server), writer)
    assert writer.transport.is_closing()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_hang_up_that_leaves_no_transport_is_a_failed_connection(
    server: ScriptedRelay, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio before 3.12 fails at it; another AttributeError would be a bug, and is shown as it is."""
    gone = True

    async def fail(self: asyncio.StreamWriter, *_: object, **__: object) -> None:
        if gone:
            vars(self)["_transport"] = None
        raise AttributeError("'NoneType' object has no attribute 'get_extra_info'")

    monkeypatch.setattr(asyncio.StreamWriter, "start_tls", fail)
    relay = relay_of(server, context=client_tls)
    for gone, error in ((True, ConnectFailed), (False, AttributeError)):
        _, writer = await asyncio.open_connection(server.host, server.port)
        plain = writer.transport
        with pytest.raises(error, match="broke off: it hung up" if gone else "NoneType"):
            await transport.start_tls(relay, writer)
        assert writer.transport is plain
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
