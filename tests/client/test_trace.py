"""The dialogue for people: a trace, and the log at DEBUG."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.events.types import MAX_LOGGED_LINES, Direction
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, LocalProtocolError, SMTPError
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, DiscardInput, Fin, ScriptedRelay, Stage, StageContext
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
    """FT-13: `print` takes no `tls=`; as with `on_event`."""
    async with pooling(pool={"sessions": 2, "trace": print}) as (_, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(4)))
    assert all(delivery.accepted for delivery in deliveries)
    [record] = [record for record in caplog.records if record.name == "asyncsmtp.events"]
    assert "the trace callback raised" in record.getMessage()


class Unusual(BaseException):
    """As the exceptions of pytest.fail and of greenlets are."""


RAISED = [RuntimeError("no"), asyncio.CancelledError(), GeneratorExit(), StopIteration(), TimeoutError(), Unusual()]


@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: type(raised).__name__)
@pytest.mark.parametrize("parameter", ["trace", "on_event"])
async def test_whatever_a_callback_raises_changes_no_outcome(
    parameter: str, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-13: `send` never returned; its own CancelledError would pass for one of the task."""

    def callback(*_: object, **__: object) -> None:
        raise raised

    async with ScriptedRelay({Stage.RCPT: {2: "550 5.1.1 no"}}) as server, asyncio.timeout(10):
        relay, hook = relay_of(server), {parameter: callback}
        async with Session(relay, **hook) as session, Pool(relay, **hook) as pool:  # type: ignore[arg-type]
            assert (await session.send(message())).accepted
            assert not (await pool.send(message())).accepted
        assert (await send(message(), relay=relay, **hook)).accepted  # type: ignore[arg-type]
    assert {record.name for record in caplog.records} == {"asyncsmtp.events"}


async def test_a_callback_that_raises_does_not_hide_a_failure() -> None:
    """FT-13: nor the doubt of a message whose reply is lost."""

    def callback(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    async with ScriptedRelay({Stage.END_OF_DATA: (NO_REPLY, Fin())}) as server, asyncio.timeout(10):
        with pytest.raises(DeliveryInDoubt):
            await send(message(), relay=relay_of(server), trace=callback, on_event=callback)
    async with ScriptedRelay({Stage.MAIL: Fin()}) as server, asyncio.timeout(10):
        with pytest.raises(ConnectionLost):
            await send(message(), relay=relay_of(server), trace=callback, on_event=callback)


async def test_a_callback_that_returns_a_coroutine_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """FT-13: `lambda event: store(event)` looks like a function, and nothing would ever be stored."""

    async def store(_: object) -> None: ...

    async with playing() as (server, _), Session(relay_of(server), on_event=lambda event: store(event)) as session:  # type: ignore[arg-type,return-value]
        assert (await session.send(message())).accepted
    [record] = caplog.records
    assert record.exc_info is not None
    assert "on_event returned a coroutine, which nothing awaits" in str(record.exc_info[1])


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.END_OF_DATA])
async def test_a_log_handler_that_raises_changes_no_outcome(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """FT-13: it is a callback as well; at the end of a connection it left every sender waiting."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the disk is full")

    handler, logger = Broken(), logging.getLogger("asyncsmtp")
    logger.addHandler(handler)
    before, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        async with ScriptedRelay({stage: {1: (NO_REPLY, Fin())}}) as server, asyncio.timeout(10):
            async with Session(relay_of(server)) as session:
                with pytest.raises(DeliveryInDoubt if stage is Stage.END_OF_DATA else ConnectionLost):
                    await session.send(message())
            async with Pool(relay_of(server), trace=print) as pool:
                assert (await pool.send(message())).accepted
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        logger.setLevel(level)
    assert "the disk is full" in capsys.readouterr().err


def test_a_keyboard_interrupt_in_a_callback_ends_the_connection_and_no_one_waits() -> None:
    """FT-13: it ends the program, and not before the clean-up of the senders."""
    raised: list[bool] = []

    def trace(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        if text.startswith("354") and not raised:
            raised.append(True)
            raise KeyboardInterrupt

    async def work() -> tuple[ScriptedRelay, Session, asyncio.Future[Delivery]]:
        server = ScriptedRelay()
        await server.start()
        session = Session(relay_of(server), trace=trace)
        await session.connect()
        return server, session, asyncio.ensure_future(session.send(message()))

    async def end() -> None:
        async with asyncio.timeout(5):
            with pytest.raises(LocalProtocolError, match="KeyboardInterrupt while reading a reply"):
                await sending
            await session.aclose()
            await server.aclose()

    with asyncio.Runner() as runner:
        server, session, sending = runner.run(work())
        with pytest.raises(KeyboardInterrupt):
            runner.run(asyncio.sleep(5))
        runner.run(end())


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
    async with pooling(
        {Stage.MAIL: (DEFAULT_REPLY, NO_REPLY, DiscardInput())}, relay={"timeouts": QUICK}, pool=settings
    ) as (_, pool):
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
