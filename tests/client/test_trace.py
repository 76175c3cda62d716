"""The dialogue for people: a trace, and the log at DEBUG."""

from __future__ import annotations

import logging
import ssl

import pytest

from asyncsmtp.client.session import Session
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.opening import Security
from asyncsmtp.testing import USUAL, Fin, ScriptedRelay, Stage
from tests.client.support import Trail, message, playing, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_each_line_is_told_once_in_order(server: ScriptedRelay, trail: Trail) -> None:
    """From 220 to 221; a reply of several lines as it came, content as its end only."""
    async with Session(relay_of(server), trace=trail) as session:
        await session.send(message())
    flat = [f"{line[:3]}{part}" for line in trail.lines for part in line[3:].split("\n")]
    assert flat == server.dialogue


async def test_it_knows_what_went_under_tls_and_what_was_refused(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    told: list[tuple[str, bool, bool]] = []

    def trace(side: str, text: str, *, tls: bool, refused: bool) -> None:
        told.append((f"{side} {text[:8]}", tls, refused))

    script = {Stage.RCPT: "550 5.1.1 no"}
    async with ScriptedRelay(script, tls=server_tls) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls)
        async with Session(relay, trace=trace) as session:
            await session.send(message())
    assert ("C STARTTLS", False, False) in told
    assert ("= TLSv1.3,", True, False) in told
    assert ("S 550 5.1.", True, True) in told
    begun = [text for text, _, _ in told].index("= TLSv1.3,")
    assert [text for text, tls, _ in told if tls] == [text for text, _, _ in told[begun:]]


async def test_a_failure_is_told_as_well(trail: Trail) -> None:
    async with ScriptedRelay({Stage.MAIL: Fin()}) as server, Session(relay_of(server), trace=trail) as session:
        with pytest.raises(SMTPError):
            await session.send(message())
    assert any(line.startswith("=") and "hung up" in line for line in trail.lines)


async def test_the_log_has_the_dialogue_at_debug_and_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """CT-01, CT-02, RE-09: one record a line, nothing that a terminal obeys, a bounded length; no content."""
    caplog.set_level(logging.DEBUG, "asyncsmtp.session")
    hostile = b"250-\x1b]0;pwn\x07\x9b31m\xff\r\n250 " + b"x" * 1500 + b"\r\n"
    async with playing({Stage.DOT: hostile}) as (_, session):
        await session.send(message(body="my secret plans\r\n"))
    dialogue = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert "C: MAIL FROM:<from@example.org> SIZE=52" in dialogue
    assert "S: 354 go ahead" in dialogue
    assert all(line.isprintable() and len(line) < 600 for line in dialogue)
    assert "plans" not in caplog.text


async def test_without_debug_the_log_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with playing() as (_, session):
        await session.send(message())
    assert "MAIL" not in caplog.text


async def test_a_relay_that_goes_after_its_221_has_not_failed(trail: Trail) -> None:
    """Most do, in the same segment; whoever reads the dialogue would wonder."""
    for _ in range(20):
        async with ScriptedRelay({Stage.QUIT: (USUAL, Fin())}) as server, Session(relay_of(server), trace=trail):
            pass
    assert [line for line in trail.lines if line.startswith("=")] == []
