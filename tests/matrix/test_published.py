"""Malformed answers at each command of an opening, of the kinds that were published against real clients.

Fifty-seven: to the greeting 8, EHLO 13, HELO 7, RSET 7, QUIT 7, STARTTLS 8, in the negotiation 5, buffered 1, other 1.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import pytest

from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed, ExtensionNotSupported, Refused, SMTPError, StartTlsInjection
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Hang, Rule, ScriptedRelay, Stage
from tests.client.support import message, relay_of

pytestmark = [pytest.mark.both_loops]

Case = tuple[Rule, tuple[type[Exception], ...]]
FAILED, REFUSED = (ConnectFailed,), (Refused,)
LONG_LINE, MANY_LINES = b"250-" + b"x" * 5000 + b"\r\n250 ok\r\n", b"250-x\r\n" * 400 + b"250 ok\r\n"

GREETING: Mapping[str, Case] = {
    "an empty line": (b"\r\n", FAILED),
    "no code": (b"hello\r\n", FAILED),
    "only a code's beginning, then the end": ((b"22", Fin()), FAILED),
    "several lines, one of another code": (b"220-a\r\n250 b\r\n", FAILED),
    "the wrong code": (b"250 relay.example\r\n", FAILED),
    "a refusal": (b"554 5.7.1 not you\r\n", REFUSED),
    "a line without end": (b"220 " + b"x" * 5000, FAILED),
    "two of them": (b"220 relay.example\r\n220 relay.example\r\n", FAILED),
}
EHLO: Mapping[str, Case] = {
    "an empty line": (b"\r\n", FAILED),
    "no code": (b"hello\r\n", FAILED),
    "an empty line in the midst": (b"250-relay.example\r\n\r\n250 STARTTLS\r\n", FAILED),
    "another code in the midst": (b"250-relay.example\r\n251 STARTTLS\r\n", FAILED),
    "a line without code": (b"250-relay.example\r\nSTARTTLS\r\n250 SIZE\r\n", FAILED),
    "no last line": ((b"250-relay.example\r\n250-STARTTLS\r\n", Fin()), FAILED),
    "a long line": (LONG_LINE, FAILED),
    "lines without end": (MANY_LINES, FAILED),
    "a line that ends in LF": (b"250-relay.example\n250 STARTTLS\r\n", FAILED),
    "a NUL": (b"250-relay.example\r\n250 START\0TLS\r\n", FAILED),
    "354": (b"354 go on\r\n", FAILED),
    "a reply more": (b"250 relay.example\r\n250 STARTTLS\r\n", (ConnectFailed, ExtensionNotSupported)),
    "a refusal for now": (b"421 4.3.2 later\r\n", REFUSED),
}
HELO: Mapping[str, Case] = {
    "an empty line": (b"\r\n", FAILED),
    "no code": (b"hello\r\n", FAILED),
    "another code in the midst": (b"250-a\r\n251 b\r\n", FAILED),
    "a long line": (LONG_LINE, FAILED),
    "the wrong code": (b"354 go on\r\n", FAILED),
    "a refusal": (b"550 5.7.1 no\r\n", REFUSED),
    "extensions, which HELO has none of": (b"250-relay.example\r\n250 STARTTLS\r\n", (ExtensionNotSupported,)),
}
STARTTLS: Mapping[str, Case] = {
    "an empty line": (b"\r\n", FAILED),
    "no code": (b"go ahead\r\n", FAILED),
    "another code in the midst": (b"220-a\r\n250 b\r\n", FAILED),
    "250": (b"250 ok\r\n", FAILED),
    "354": (b"354 go on\r\n", FAILED),
    "a refusal for now": (b"454 4.7.0 not now\r\n", REFUSED),
    "a long line": (b"220 " + b"x" * 5000 + b"\r\n", FAILED),
    "no last line": ((b"220-go\r\n", Fin()), FAILED),
}
NEGOTIATION: Mapping[str, Case] = {
    "a hang-up": (Fin(), FAILED),
    "bytes that are no TLS": (b"\x00" * 64, (ConnectFailed, StartTlsInjection)),
    "a reply in clear": (b"250 ok\r\n", (ConnectFailed, StartTlsInjection)),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", (ConnectFailed, StartTlsInjection)),
    "half a record": ((b"\x16\x03\x03\x00\x7a\x02", Fin()), (ConnectFailed, StartTlsInjection)),
}
BUFFERING: Mapping[str, Case] = {
    "the answer to EHLO behind the 220": (
        (DEFAULT_REPLY, b"250-relay.example\r\n250 AUTH PLAIN\r\n"),
        (StartTlsInjection,),
    )
}
OTHER: Mapping[str, Case] = {
    "STARTTLS stripped from EHLO": (b"250-relay.example\r\n250 SIZE\r\n", (ExtensionNotSupported,))
}

OPENINGS = [
    (kind, stage, name, *case)
    for kind, stage, cases in (
        ("greeting", Stage.GREETING, GREETING),
        ("EHLO", Stage.EHLO, EHLO),
        ("HELO", Stage.HELO, HELO),
        ("STARTTLS", Stage.STARTTLS, STARTTLS),
        ("negotiation", Stage.HANDSHAKE, NEGOTIATION),
        ("buffering", Stage.STARTTLS, BUFFERING),
        ("other", Stage.EHLO, OTHER),
    )
    for name, case in cases.items()
]
SEVEN: Mapping[str, Action] = {  # to RSET and to QUIT
    "an empty line": b"\r\n",
    "no code": b"hello\r\n",
    "another code in the midst": b"250-a\r\n251 b\r\n",
    "a long line": LONG_LINE,
    "the wrong code": b"354 go on\r\n",
    "a refusal": b"550 5.7.1 no\r\n",
    "two of them": b"250 ok\r\n250 ok\r\n",
}


def test_there_are_as_many_as_were_published() -> None:
    assert len(OPENINGS) + 2 * len(SEVEN) == 57


@pytest.mark.parametrize(
    ("kind", "stage", "name", "rule", "errors"), OPENINGS, ids=[f"{kind}: {name}" for kind, _, name, *_ in OPENINGS]
)
async def test_a_malformed_opening_is_a_typed_error_and_no_mail(
    kind: str,
    stage: Stage,
    name: str,
    rule: Rule,
    errors: tuple[type[SMTPError], ...],
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    """TL-01 to TL-04, WI-13: nothing of a message is sent, neither in clear nor under TLS."""
    script: dict[Stage, Rule] = {stage: rule}
    if stage is Stage.HELO:
        script[Stage.EHLO] = "502 5.5.1 what"
    async with ScriptedRelay(script, tls=server_tls) as server:
        session = Session(relay_of(server, security=Security.STARTTLS, context=client_tls))
        with pytest.raises(errors):
            await session.connect()
        await session.aclose()
        assert not server.count_stage(Stage.MAIL)


@pytest.mark.parametrize("name", SEVEN)
async def test_a_malformed_answer_to_rset_changes_nothing_of_the_refusal_before_it(name: str) -> None:
    """The message stays refused, or is an error that says it was not delivered; the next is never mistaken."""
    async with ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 no"}, Stage.RSET: SEVEN[name]}) as server:
        async with Session(relay_of(server)) as session:
            for number in (1, 2):
                [result] = await asyncio.gather(session.send(message(number)), return_exceptions=True)
                assert isinstance(result, Delivery | SMTPError)
                assert not getattr(result, "in_doubt", False)
                assert not (isinstance(result, Delivery) and result.accepted)
        assert server.received == []


@pytest.mark.parametrize("name", SEVEN)
async def test_a_malformed_answer_to_quit_takes_nothing_back(name: str) -> None:
    """TL-09: the message is accepted, and closing neither fails nor waits."""
    async with ScriptedRelay({Stage.QUIT: (SEVEN[name], Hang())}) as server:
        session = Session(relay_of(server))
        await session.connect()
        assert (await session.send(message())).accepted
        async with asyncio.timeout(5):
            await session.aclose()
        assert len(server.received) == 1
