"""XCLIENT: the attributes of another client, and the refusal of those that are not valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import ExtensionNotSupported, InvalidArgument
from asyncsmtp.protocol.opening_handshake import XClient
from asyncsmtp.protocol.replies import Extensions

ALL = Extensions({"XCLIENT": ("name", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")})


@pytest.mark.parametrize(
    ("client", "line"),
    [
        (XClient(name="spike.example", addr="192.0.2.7"), b"XCLIENT NAME=spike.example ADDR=192.0.2.7\r\n"),
        (XClient(addr="2001:DB8::7", port=2525), b"XCLIENT ADDR=IPV6:2001:db8::7 PORT=2525\r\n"),
        (XClient(name="[UNAVAILABLE]", addr="[UNAVAILABLE]"), b"XCLIENT NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]\r\n"),
        (XClient(name="[TEMPUNAVAIL]", proto="ESMTP"), b"XCLIENT NAME=[TEMPUNAVAIL] PROTO=ESMTP\r\n"),
        (XClient(helo="me + you", login="a=b"), b"XCLIENT HELO=me+20+2B+20you LOGIN=a+3Db\r\n"),
        (XClient(destaddr="::1", destport=25), b"XCLIENT DESTADDR=IPV6:::1 DESTPORT=25\r\n"),
    ],
)
def test_each_attribute_is_sent_in_xtext(client: XClient, line: bytes) -> None:
    """Postfix, XCLIENT_README: an IPv6 address has IPV6: in front of it."""
    assert bytes(client.command(ALL)) == line


@pytest.mark.parametrize(
    "made",
    [
        XClient,
        lambda: XClient(name="a b"),
        lambda: XClient(name="x\r\nMAIL"),
        lambda: XClient(name=""),
        lambda: XClient(addr="example.org"),
        lambda: XClient(addr="192.0.2.256"),
        lambda: XClient(addr="fe80::1%eth0"),
        lambda: XClient(addr="[192.0.2.1]"),
        lambda: XClient(destaddr="no"),
        lambda: XClient(port=0),
        lambda: XClient(destport=65536),
        lambda: XClient(proto="LMTP"),  # type: ignore[arg-type]
        lambda: XClient(helo="\x00"),
        lambda: XClient(helo="x" * 256),
        lambda: XClient(login="zoë"),
        lambda: XClient(login=""),
    ],
)
def test_an_invalid_attribute_is_refused_when_it_is_made(made: Any) -> None:
    """WO-01, W-71: XCLIENT is what an injected EHLO name would say."""
    with pytest.raises(InvalidArgument):
        made()


@pytest.mark.parametrize(
    ("offered", "missing"),
    [
        (Extensions(), "XCLIENT"),
        (Extensions({"XCLIENT": ()}), "XCLIENT ADDR"),
        (Extensions({"XCLIENT": ("NAME", "ADDR")}), "XCLIENT LOGIN"),
        (ALL.without(["xclient"]), "XCLIENT"),
    ],
)
def test_xclient_is_not_sent_to_a_relay_that_does_not_accept_it(offered: Extensions, missing: str) -> None:
    """The whole of it or nothing: half a client would be another one."""
    with pytest.raises(ExtensionNotSupported) as refused:
        XClient(addr="192.0.2.7", login="ann").command(offered)
    assert refused.value.extension == missing


def test_a_command_line_has_its_limit() -> None:
    """RFC 5321 §4.5.3.1.4."""
    with pytest.raises(InvalidArgument, match="too long"):
        XClient(helo="+" * 255).command(ALL)


@given(st.text(max_size=40))
def test_any_login_is_one_word_or_refused(login: str) -> None:
    """WO-01."""
    try:
        line = bytes(XClient(login=login).command(ALL))
    except InvalidArgument:
        return
    assert line.count(b" ") == line.count(b"\r\n") == line.count(b"=") == 1
