"""Sessions over Unix sockets (W-15)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import PATIENT, message

pytestmark = pytest.mark.usefixtures("nothing_leaks")

UNDER_TLS = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket é"


def relay_at(path: str | bytes | Path, security: Security = Security.PLAINTEXT) -> Relay:
    return Relay(unix_path=path, security=security, timeouts=PATIENT)


@pytest.mark.parametrize("form", [str, os.fsencode, Path])
async def test_a_message_goes_through_a_unix_socket(path: Path, form: Callable[[Path], str | bytes | Path]) -> None:
    """Its path as text, as octets and as a Path."""
    async with ScriptedRelay(unix_path=path) as server, Session(relay_at(form(path))) as session:
        delivery = await session.send(message())
        assert delivery.accepted
        assert delivery.host == str(path)
        assert len(server.received) == 1


async def test_we_greet_with_the_address_of_this_machine(path: Path) -> None:
    """Our end of a Unix socket has no address, and EHLO wants one (RFC 5321 §4.1.3)."""
    async with ScriptedRelay(unix_path=path) as server, Session(relay_at(path)):
        assert "C: EHLO [127.0.0.1]" in server.dialogue


@pytest.mark.parametrize("dialogue", list(Dialogue))
async def test_lmtp_is_at_home_there(path: Path, dialogue: Dialogue) -> None:
    """As Dovecot and Cyrus listen; from the URL that the relay itself gives."""
    to = ("ann@example.net", "bob@example.net")
    async with ScriptedRelay(unix_path=path, lmtp=True) as server:
        relay = replace(Relay.from_url(server.url), dialogue=dialogue, timeouts=PATIENT)
        async with Session(relay) as session:
            assert (await session.send(message(to=to))).accepted
        assert "C: LHLO [127.0.0.1]" in server.dialogue
        assert server.received[0].forward_paths == to


@UNDER_TLS
async def test_tls_checks_the_name_that_was_configured(
    path: Path, security: Security, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """A path is no name that a certificate could carry."""
    implicit = security is Security.IMPLICIT_TLS
    relay = replace(relay_at(path, security), context=client_tls)
    async with ScriptedRelay(unix_path=path, tls=server_tls, implicit_tls=implicit):
        async with Session(replace(relay, verify_name="relay.example")) as session:
            assert session.tls is not None
            assert (await session.send(message())).accepted
        with pytest.raises(ConnectFailed, match="certificate"):
            await Session(replace(relay, verify_name="other.example")).connect()


@UNDER_TLS
async def test_without_another_name_the_certificate_is_for_localhost(
    path: Path, security: Security, server_tls_for: Callable[..., ssl.SSLContext], client_tls: ssl.SSLContext
) -> None:
    """It is this machine's; nothing goes unverified for want of a name."""
    implicit = security is Security.IMPLICIT_TLS
    relay = replace(relay_at(path, security), context=client_tls)
    server = ScriptedRelay(unix_path=path, tls=server_tls_for("localhost"), implicit_tls=implicit)
    async with server, Session(relay) as session:
        assert session.tls is not None


async def test_a_socket_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(ConnectFailed, match=r"socket é.*No such file"):
        await Session(relay_at(path)).connect()


async def test_a_socket_that_nobody_listens_on_says_so(path: Path) -> None:
    """The file stays behind when a relay dies."""
    async with ScriptedRelay(unix_path=path):
        os.link(path, left := path.with_name("left"))
    with pytest.raises(ConnectFailed, match="nothing answers"):
        await Session(relay_at(left)).connect()
