"""What the tests of the client share: short timeouts, relays as values, messages that can be told apart."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from asyncsmtp.client.config.relay import Dialogue, Relay, Timeouts
from asyncsmtp.client.events.types import Direction
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import Received, Rule, ScriptedRelay, Stage

BY_DATA = (Dialogue.LOCKSTEP, Dialogue.PIPELINED)  # the dialogues in which the content waits for a 354

LIMIT = 0.25  # seconds for every stage, in tests of timeouts
GRACE = 0.5  # seconds a failure may take beyond its stage's limit

_OPENING = ("tls", "greeting", "ehlo", "starttls", "auth")
_SENDING = ("mail", "rcpt", "data", "block", "end", "rset")

PATIENT = Timeouts(connect=10.0, quit=0.1, close=0.1, **dict.fromkeys((*_OPENING, *_SENDING), 5.0))
QUICK = replace(PATIENT, **dict.fromkeys(_SENDING, LIMIT))  # once the session is open
QUICK_OPENING = replace(QUICK, **dict.fromkeys(_OPENING, LIMIT))  # where that is what a relay is slow in


def relay_of(server: ScriptedRelay, *, security: Security = Security.PLAINTEXT, **settings: object) -> Relay:
    """The relay value of a scripted relay; patient, unless `timeouts` say otherwise."""
    settings.setdefault("timeouts", PATIENT)
    settings.setdefault("verify_name", "relay.example")
    return Relay(server.host, server.port, security, **settings)  # type: ignore[arg-type]


def message(number: int = 1, *, body: str = "hello\r\n", to: tuple[str, ...] | None = None) -> Message:
    """A message whose content names its recipient, so that a mix-up shows (BL-07)."""
    paths = to or (f"to{number}@example.net",)
    return Message(
        Envelope.of("from@example.org", paths),
        Content.of(f"Subject: {number}\r\nTo: {', '.join(paths)}\r\n\r\n{body}".encode()),
    )


def big(octets: int, number: int = 1) -> Message:
    line = b"." + b"x" * 75 + b"\r\n"  # each line needs its dot doubled
    made = message(number)
    return Message(made.envelope, Content.from_canonical((*made.content.parts, line * (octets // len(line)))))


def token(received: Received) -> str:
    """What a relay writes behind its 250: the recipient it took the message for (BL-06)."""
    assert f"To: {', '.join(received.forward_paths)}\r\n".encode() in received.content
    return f"taken for {received.forward_paths[0]}"


def told(delivery: object) -> str:
    """The text of the reply to the content."""
    return str(delivery.content_reply.text)  # type: ignore[attr-defined]


class Trail:
    """A trace that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        self.lines.append(f"{side.value}{'*' if tls else ''}: {text}")

    def said(self) -> list[str]:
        return [line.partition(": ")[2] for line in self.lines if line.startswith("C")]


def commands(server: ScriptedRelay, connection: int = 1) -> list[str]:
    """What the client said on one connection, verbs only."""
    lines = [line[3:] for line in server.get_dialogue(connection) if line.startswith("C: ")]
    return [line.split(" ")[0].split(":")[0] for line in lines]


def everything_of(error: BaseException | None, *, variables: bool = True) -> str:
    """All that an error can show: its texts, values, pickle, causes, contexts, and the variables of our frames."""
    shown: list[str] = []
    pending, seen = [error], set[int]()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        pending += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
        pending += [value for value in vars(each).values() if isinstance(value, BaseException)]
        shown += [str(each), repr(each), repr(each.args), repr(vars(each)), "\n".join(getattr(each, "__notes__", ()))]
        shown += [_pickled(value) for value in (each, *each.args, *vars(each).values())]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if variables and "/tests/" not in frame.f_code.co_filename:
                shown += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
        shown += traceback.format_exception_only(each)
    return "\n".join(shown)


def _pickled(value: object) -> str:
    """What a pickle has of it, as text; errors and their values are passed between processes."""
    try:
        octets = pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return ""
    return octets.decode("latin-1")


Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(play: Play) -> AsyncIterator[int]:
    """A server that does what no relay does: `play` for each connection; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await play(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def takes_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Played to `serving`: a relay that takes everything and keeps nothing."""
    writer.write(b"220 relay\r\n")
    while line := await reader.readline():
        writer.write({b"DATA\r\n": b"354 go\r\n"}.get(line, b"250 ok\r\n"))
        if line == b"DATA\r\n":
            end = b""
            while not end.endswith(b"\r\n.\r\n"):
                end = end[-4:] + await reader.read(65_536)
            writer.write(b"250 taken\r\n")


@asynccontextmanager
async def playing(
    script: Mapping[Stage, Rule] | None = None, *, relay: Mapping[str, object] | None = None, **server: object
) -> AsyncIterator[tuple[ScriptedRelay, Session]]:
    """A scripted relay and an open session with it; `relay` are settings of the Relay value."""
    async with (
        ScriptedRelay(script, **server) as served,  # type: ignore[arg-type]
        Session(relay_of(served, **(relay or {}))) as session,
    ):
        yield served, session


@asynccontextmanager
async def pooling(
    script: Mapping[Stage, Rule] | None = None,
    *,
    relay: Mapping[str, object] | None = None,
    pool: Mapping[str, object] | None = None,
    **server: object,
) -> AsyncIterator[tuple[ScriptedRelay, Pool]]:
    """A scripted relay and a pool of sessions with it; `pool` are arguments of Pool."""
    async with (
        ScriptedRelay(script, **server) as served,  # type: ignore[arg-type]
        Pool(relay_of(served, **(relay or {})), **(pool or {})) as made,  # type: ignore[arg-type]
    ):
        yield served, made


async def rounds(number: int = 5) -> None:
    """Let everything that can happen now, happen."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
