"""Certificates: the relay's by its fingerprint, ours shown to it, and what the result tells of both."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from asyncsmtp.client.config.login_config import ClientCertificate, Login
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.transport import tls_context
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import CertificateRefused, ConnectFailed, InsecureConnection, InvalidArgument
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import Trail, commands, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

BOTH = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])
LOGIN = Login("ann", Secret("s3cret"))
CANARY = "hunter2-c4n4ry"


def serve(tls: ssl.SSLContext, security: Security, **more: object) -> ScriptedRelay:
    return ScriptedRelay(tls=tls, implicit_tls=security is Security.IMPLICIT_TLS, **more)  # type: ignore[arg-type]


class Issued:
    """A certificate for a relay, its context, and its fingerprint by another way than ours."""

    def __init__(self, ca: trustme.CA, *names: str) -> None:
        issued = ca.issue_cert(*names)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(self.context)
        der = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode("ascii"))
        self.fingerprint = hashlib.sha256(der).hexdigest()


@pytest.fixture
def theirs(ca: trustme.CA) -> Issued:
    return Issued(ca, "relay.example")


# --- pins ---


@BOTH
async def test_a_pinned_certificate_needs_no_authority(security: Security, theirs: Issued) -> None:
    """Self-signed, or signed by whoever: with `verify` off the pin alone proves the relay, and lets a login through."""
    printed = ":".join(theirs.fingerprint[place : place + 2] for place in range(0, 64, 2)).upper()
    async with serve(theirs.context, security, users={"ann": "s3cret"}, needs_auth=True) as server:
        relay = relay_of(server, security=security, pins=(printed,), verify=False, login=LOGIN)
        async with Session(relay) as session:
            delivery = await session.send(message())
        assert delivery.accepted
        assert delivery.tls is not None
        assert delivery.tls.verified
        assert delivery.tls.fingerprint == theirs.fingerprint


@BOTH
async def test_another_certificate_ends_it_before_anything_is_said(
    security: Security, theirs: Issued, client_tls: ssl.SSLContext
) -> None:
    """Valid for everybody else, and not the one that was pinned; the error tells which it is, to compare or to pin."""
    async with serve(theirs.context, security, users={"ann": "s3cret"}) as server:
        pins = ("00" * 32, "ff" * 32)
        relay = relay_of(server, security=security, context=client_tls, pins=pins, login=LOGIN)
        with pytest.raises(CertificateRefused, match=theirs.fingerprint) as caught:
            await Session(relay).connect()
        assert caught.value.fingerprint == theirs.fingerprint
        assert isinstance(caught.value, ConnectFailed)
        await server.wait_until_idle()
        said = commands(server)
    assert said == (["EHLO", "STARTTLS"] if security is Security.STARTTLS else [])


@BOTH
async def test_one_pin_of_several_is_enough(security: Security, theirs: Issued, client_tls: ssl.SSLContext) -> None:
    """The next certificate can be pinned before it is in use."""
    async with serve(theirs.context, security) as server:
        relay = relay_of(server, security=security, context=client_tls, pins=("00" * 32, theirs.fingerprint))
        async with Session(relay) as session:
            assert (await session.send(message())).accepted


@BOTH
async def test_a_pin_does_not_take_the_place_of_verifying(security: Security, theirs: Issued) -> None:
    """Only `verify=False` says that an authority nobody trusts will do."""
    async with serve(theirs.context, security) as server:
        relay = relay_of(server, security=security, pins=(theirs.fingerprint,))
        with pytest.raises(CertificateRefused, match="not valid"):
            await Session(relay).connect()


@pytest.mark.parametrize("pin", ["", "ab", "zz" * 32, "ab" * 20, "\x1b[31m" + "a" * 59])
def test_what_is_no_fingerprint_is_refused(pin: str) -> None:
    """A SHA-1 for one: a pin that never fits would be found out too late."""
    with pytest.raises(InvalidArgument, match="not a SHA-256 fingerprint") as caught:
        Relay("relay.example", pins=(pin,))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("security", [Security.PLAINTEXT, Security.OPPORTUNISTIC])
def test_a_pin_needs_tls(security: Security) -> None:
    """Who strips STARTTLS would not be noticed."""
    with pytest.raises(InvalidArgument, match="pins need TLS"):
        Relay("relay.example", security=security, pins=("ab" * 32,))


# --- without verification ---


@BOTH
async def test_without_verification_it_is_loud_and_no_password_is_said(
    security: Security, theirs: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    """TL-07: mail goes, a warning with it; credentials only where they may go in clear too."""
    async with serve(theirs.context, security, users={"ann": "s3cret"}) as server:
        async with Session(relay_of(server, security=security, verify=False)) as session:
            delivery = await session.send(message())
        assert delivery.tls is not None
        assert not delivery.tls.verified
        [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert "was not verified" in line
        with pytest.raises(InsecureConnection):
            await Session(relay_of(server, security=security, verify=False, login=LOGIN)).connect()
        assert server.auth_attempts == []
        allowed = relay_of(server, security=security, verify=False, login=LOGIN, cleartext_login=True)
        async with Session(allowed):
            pass


async def test_a_pool_says_it_once(theirs: Issued, caplog: pytest.LogCaptureFixture) -> None:
    """TL-07: not with each of its sessions."""
    async with serve(theirs.context, Security.STARTTLS) as server:
        async with Pool(relay_of(server, security=Security.STARTTLS, verify=False), sessions=1, messages=1) as pool:
            for number in range(3):
                assert (await pool.send(message(number))).accepted
        assert server.connections == 3
    assert caplog.text.count("was not verified") == 1


@BOTH
async def test_a_context_that_verifies_nothing_is_as_loud(
    security: Security, theirs: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    """TL-07."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serve(theirs.context, security) as server, Session(relay_of(server, security=security, context=context)):
        assert "was not verified" in caplog.text


# --- the facts ---


@BOTH
async def test_every_delivery_tells_what_protected_it(
    security: Security, theirs: Issued, client_tls: ssl.SSLContext, trail: Trail
) -> None:
    """One value for a session, made once; and in the trace as people read it."""
    async with serve(theirs.context, security) as server:
        relay = relay_of(server, security=security, context=client_tls)
        async with Session(relay, trace=trail) as session:
            first, second = await session.send(message(1)), await session.send(message(2))
            assert session.tls is not None
            cipher = session.tls.cipher()
        assert cipher is not None
        assert first.tls == TlsInfo("TLSv1.3", cipher[0], True, theirs.fingerprint)
        assert first.tls is second.tls is session.tls_info
        assert str(first.tls) == f"TLSv1.3, {cipher[0]}, certificate verified"
        if security is Security.STARTTLS:
            assert any(str(first.tls) in line for line in trail.lines)


async def test_in_clear_there_are_none(server: ScriptedRelay) -> None:
    async with Session(relay_of(server)) as session:
        assert (await session.send(message())).tls is None
        assert session.tls_info is None


# --- ours ---


@pytest.fixture
def wants_ours(ca: trustme.CA, server_tls_for: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
    """A relay's context that takes nobody without a certificate."""
    context = server_tls_for("relay.example")
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def ours(ca: trustme.CA, tmp_path: Path) -> ClientCertificate:
    """Certificate and key in two files."""
    issued = ca.issue_cert("ann@example.org")
    certificate, key = tmp_path / "ann.pem", tmp_path / "ann.key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return ClientCertificate(certificate, key)


@BOTH
@pytest.mark.parametrize("files", [1, 2])
async def test_a_certificate_of_ours_is_shown_to_a_relay_that_asks(
    files: int, security: Security, wants_ours: ssl.SSLContext, ca_file: Path, ours: ClientCertificate
) -> None:
    """W-42; the key in a file of its own, or behind the certificate."""
    if files == 1:
        assert ours.key is not None
        ours.file.write_bytes(ours.file.read_bytes() + ours.key.read_bytes())
        ours = ClientCertificate(ours.file)
    async with serve(wants_ours, security) as server:
        relay = relay_of(server, security=security, ca_file=ca_file, client_certificate=ours)
        async with Pool(relay, sessions=2) as pool:
            assert (await pool.send(message())).accepted


@BOTH
async def test_without_one_such_a_relay_takes_nobody(
    security: Security, wants_ours: ssl.SSLContext, ca_file: Path
) -> None:
    """Under TLS 1.3 it says so only after the handshake, as a broken connection."""
    async with serve(wants_ours, security) as server:
        with pytest.raises(ConnectFailed):
            await Session(relay_of(server, security=security, ca_file=ca_file)).connect()
        assert server.received == []


@BOTH
async def test_external_logs_in_as_whom_it_names(
    security: Security, wants_ours: ssl.SSLContext, ca_file: Path, ours: ClientCertificate
) -> None:
    """RFC 4422, Appendix A."""
    async with serve(wants_ours, security, users={"ann": ""}, mechanisms=["EXTERNAL"]) as server:
        relay = relay_of(
            server, security=security, ca_file=ca_file, client_certificate=ours, login=Login.by_certificate("ann")
        )
        async with Session(relay) as session:
            assert (await session.send(message())).accepted
        assert [attempt.mechanism for attempt in server.auth_attempts] == ["EXTERNAL"]


def encrypted(key: Path, passphrase: str) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    loaded = load_pem_private_key(key.read_bytes(), None)
    pkcs8, pem = PrivateFormat.PKCS8, Encoding.PEM
    key.write_bytes(loaded.private_bytes(pem, pkcs8, BestAvailableEncryption(passphrase.encode())))


async def test_a_key_may_have_a_passphrase(wants_ours: ssl.SSLContext, ca_file: Path, ours: ClientCertificate) -> None:
    """Without it, or with another, it is an error; nobody is asked at the terminal, and it is shown nowhere."""
    assert ours.key is not None
    encrypted(ours.key, CANARY)
    async with serve(wants_ours, Security.STARTTLS) as server:

        def relay(passphrase: Secret | None) -> Relay:
            certificate = ClientCertificate(ours.file, ours.key, passphrase)
            return relay_of(server, security=Security.STARTTLS, ca_file=ca_file, client_certificate=certificate)

        async with Session(relay(Secret(CANARY))) as session:
            assert (await session.send(message())).accepted
        for wrong in (None, Secret(CANARY[::-1])):
            with pytest.raises(ConnectFailed, match="passphrase") as caught:
                await Session(relay(wrong)).connect()
            assert str(ours.key) in str(caught.value)
            shown = f"{caught.value} {caught.value.__cause__!r} {relay(wrong)!r}"
            assert CANARY not in shown
            assert CANARY[::-1] not in shown


@pytest.mark.parametrize("fault", ["missing", "no certificate", "another key"])
async def test_files_that_cannot_be_used_say_so(
    fault: str, ca: trustme.CA, ours: ClientCertificate, server_tls: ssl.SSLContext
) -> None:
    assert ours.key is not None
    if fault == "missing":
        ours.file.unlink()
    elif fault == "no certificate":
        ours.file.write_text("nothing")
    else:
        ca.issue_cert("eve@example.org").private_key_pem.write_to_path(ours.key)
    async with serve(server_tls, Security.IMPLICIT_TLS) as server:
        relay = relay_of(server, security=Security.IMPLICIT_TLS, client_certificate=ours)
        with pytest.raises(ConnectFailed, match="client certificate") as caught:
            await Session(relay).connect()
        assert str(ours.file) in str(caught.value)
        assert server.connections == 0


async def test_files_that_cannot_be_used_are_no_hosts_fault(ours: ClientCertificate) -> None:
    """No host is tried, and none is named."""
    ours.file.unlink()
    with pytest.raises(ConnectFailed, match="client certificate"):
        await Session(Relay("127.0.0.1", 1, fallback_hosts=("127.0.0.1:1",), client_certificate=ours)).connect()


async def test_a_renewed_certificate_is_read_anew(ca: trustme.CA, ours: ClientCertificate) -> None:
    """A process that runs for months outlives its certificate; one that did not change is read once."""
    assert ours.key is not None
    relay = Relay("relay.example", client_certificate=ours)
    before = await tls_context(relay)
    assert await tls_context(relay) is before
    issued = ca.issue_cert("ann@example.org")
    issued.cert_chain_pems[0].write_to_path(ours.file)
    issued.private_key_pem.write_to_path(ours.key)
    for path in (ours.file, ours.key):
        os.utime(path, (1, 1))
    assert await tls_context(relay) is not before


@pytest.mark.parametrize(
    "settings",
    [{"client_certificate": ClientCertificate(Path("ann.pem"))}, {"ca_file": Path("ca.pem")}, {"verify": False}],
)
def test_a_context_of_ones_own_says_it_all(settings: dict[str, object]) -> None:
    """What would be ignored is refused."""
    with pytest.raises(InvalidArgument, match="context excludes"):
        Relay("relay.example", context=ssl.create_default_context(), **settings)  # type: ignore[arg-type]


def test_a_url_may_say_it() -> None:
    pin = "ab" * 32
    relay = Relay.from_url(
        f"smtps://relay.example?pin={pin},{pin.upper()}&verify=no&client-cert=/a.pem&client-key=/a.key"
        "&source-address=192.0.2.1",
        passphrase=CANARY,
    )
    assert relay.pins == (pin, pin)
    assert not relay.verify
    assert relay.client_certificate == ClientCertificate(Path("/a.pem"), Path("/a.key"), Secret(CANARY))
    assert relay.source_address == "192.0.2.1"
    assert CANARY not in repr(relay)
    assert Relay.from_url("smtp://relay.example?client-cert=/a.pem").client_certificate == ClientCertificate(
        Path("/a.pem")
    )


@pytest.mark.parametrize("query", ["client-key=/a.key", "pin=", "pin=ab", "verify=0", "source-address=here"])
def test_a_wrong_setting_is_told(query: str) -> None:
    with pytest.raises(InvalidArgument):
        Relay.from_url(f"smtp://relay.example?{query}")
