"""The dialogue for people: a trace, and the log at DEBUG."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest

from asyncsmtp.client.events.types import MAX_LOGGED_LINES
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, DiscardInput, Fin, ScriptedRelay, Stage, StageContext
from tests.client.support import QUICK, Trail, message, playing, pooling, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_each_line_is_traced_once_in_order(server: ScriptedRelay, trail: Trail) -> None:
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


async def test_a_failure_is_traced_too(trail: Trail) -> None:
    async with ScriptedRelay({Stage.MAIL: Fin()}) as server, Session(relay_of(server), trace=trail) as session:
        with pytest.raises(SMTPError):
            await session.send(message())
    assert any(line.startswith("=") and "hung up" in line for line in trail.lines)


async def test_a_trace_that_raises_is_logged_once_and_changes_no_outcome(caplog: pytest.LogCaptureFixture) -> None:
    """`print` takes no `tls=`; as with `on_event`."""
    async with pooling(pool={"sessions": 2, "trace": print}) as (_, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(4)))
    assert all(delivery.accepted for delivery in deliveries)
    [record] = [record for record in caplog.records if record.name == "asyncsmtp.events"]
    assert "the trace callback raised" in record.getMessage()


@pytest.mark.parametrize("parameter", ["trace", "on_event"])
def test_a_callback_is_a_function_that_is_not_async(parameter: str) -> None:
    async def late(*_: object, **__: object) -> None: ...

    for wrong in (5, late):
        for kind in (Pool, Session):
            with pytest.raises(TypeError, match=f"^{parameter} must be a function that is not async"):
                kind("smtp://h", **{parameter: wrong})  # type: ignore[arg-type]


async def test_the_log_has_the_dialogue_at_debug_and_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """CT-01, CT-02, RE-09: one record a line, nothing that a terminal obeys, a bounded length; no content."""
    caplog.set_level(logging.DEBUG, "asyncsmtp.session")
    hostile = b"250-\x1b]0;pwn\x07\x9b31m\xff\r\n250 " + b"x" * 1500 + b"\r\n"
    async with playing({Stage.END_OF_DATA: hostile}) as (_, session):
        await session.send(message(body="my secret plans\r\n"))
    dialogue = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert "C: MAIL FROM:<from@example.org> SIZE=52" in dialogue
    assert "S: 354 go ahead" in dialogue
    assert all(line.isprintable() and len(line) < 600 for line in dialogue)
    assert "plans" not in caplog.text


async def test_a_chatty_relay_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """RE-09, CT-02: replies of 64 KiB, each another; without DEBUG none is logged, with it each in part."""
    number = 0

    def chatty(context: StageContext) -> bytes:
        nonlocal number
        number += 1
        return b"".join(b"250-%d %s\r\n" % (number, b"y" * 240) for _ in range(240)) + b"250 ok\r\n"

    for level, most in ((logging.INFO, 300), (logging.DEBUG, 20 * (MAX_LOGGED_LINES + 1) * 520)):
        caplog.clear()
        caplog.set_level(level, "asyncsmtp")
        async with playing({Stage.NOOP: chatty}) as (_, session):
            for _ in range(20):
                await session.noop()
        assert len(caplog.text) < most + 5_000
        assert all(record.getMessage().isprintable() for record in caplog.records)
    assert "208 more lines" in caplog.text or "209 more lines" in caplog.text


async def test_a_refusal_in_the_log_is_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    """RE-09, CT-02: what breaks a session is logged at INFO, the relay's words in it escaped and cut."""
    caplog.set_level(logging.INFO, "asyncsmtp")
    async with playing({Stage.NOOP: b"421-bye\r\n421 2026-01-01 OK\x1b[2J" + b"x" * 1900 + b"\r\n"}) as (_, session):
        with pytest.raises(SMTPError):
            await session.noop()
    assert any("aborted" in record.getMessage() for record in caplog.records)
    assert all(record.getMessage().isprintable() and len(record.getMessage()) < 700 for record in caplog.records)


async def test_opening_and_closing_a_session_is_logged_at_info(
    caplog: pytest.LogCaptureFixture, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    caplog.set_level(logging.INFO, "asyncsmtp.session")
    async with ScriptedRelay(tls=server_tls) as server:
        async with Session(relay_of(server, security=Security.STARTTLS, context=client_tls)) as session:
            await session.send(message())
        opened, closed = (record.getMessage() for record in caplog.records)
    assert opened.startswith(f"session with {session.relay} opened in 0.")
    assert opened.endswith("TLSv1.3, certificate verified")
    assert closed.startswith(f"session with {session.relay} closed: 1 messages in ")


async def test_tls_that_proves_nothing_is_a_warning_once_a_pool(
    caplog: pytest.LogCaptureFixture, server_tls: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with ScriptedRelay(tls=server_tls) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=context)
        async with Pool(relay, sessions=3, depth=1) as pool:
            await asyncio.gather(*(pool.send(message(n)) for n in range(9)))
        assert server.connections == 3
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "was not verified" in warning


async def test_a_relay_that_loses_commands_is_a_warning_once_a_pool(caplog: pytest.LogCaptureFixture) -> None:
    """WI-18: mail goes on, slower; a person can spare it the time of finding out."""
    settings = {"sessions": 3, "depth": 2}
    async with pooling({Stage.MAIL: (DEFAULT_REPLY, DiscardInput())}, relay={"timeouts": QUICK}, pool=settings) as (
        _,
        pool,
    ):
        await asyncio.gather(*(pool.send(message(n)) for n in range(12)))
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "loses commands" in warning


async def test_without_debug_the_log_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with playing() as (_, session):
        await session.send(message())
    assert "MAIL" not in caplog.text


async def test_a_relay_that_goes_after_its_221_has_not_failed(trail: Trail) -> None:
    """Most do, in the same segment; whoever reads the dialogue would wonder."""
    for _ in range(20):
        async with (
            ScriptedRelay({Stage.QUIT: (DEFAULT_REPLY, Fin())}) as server,
            Session(relay_of(server), trace=trail),
        ):
            pass
    assert [line for line in trail.lines if line.startswith("=")] == []
