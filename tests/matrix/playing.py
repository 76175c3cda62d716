"""Play one case of the matrix: a relay with one fault, five messages through one session, and what is wrong."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from asyncsmtp.client.config.relay import Login, Relay, Timeouts
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.testing import Action, Rule, ScriptedRelay, Stage, StageContext
from tests.client.support import big, message, relay_of, token
from tests.matrix.oracle import allowed, ending, opening_errors, untrue
from tests.matrix.tables import (
    ACTIONS,
    AT_ONCE,
    DIALOGUE,
    LIMIT,
    MESSAGES,
    OPENING,
    SECURITY,
    SUBJECT,
    Cell,
    Link,
    Point,
)

GRACE = 0.5  # seconds an ending may take beyond its stage's limit
PLENTY = 10.0
TRIES = 8
_STAGES = ("greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "block", "end", "rset", "tls")
PATIENT = replace(Timeouts(connect=PLENTY, quit=0.1, close=0.1), **dict.fromkeys(_STAGES, PLENTY))
LOGIN = Login("ann", Secret("s3cret"))


@dataclass(frozen=True, slots=True)
class Wires:
    """The two ends of TLS."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class Pulse:
    """Notices when the event loop stood still: what was measured meanwhile tells of the machine."""

    BEAT = 0.02

    def __init__(self) -> None:
        self._worst = 0.0
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(self.BEAT)
            self._worst = max(self._worst, time.perf_counter() - before - self.BEAT)

    def worst(self) -> float:
        return self._worst

    async def aclose(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class Trap:
    """Springs once: at the cell's spot; and says when it did."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._seen = 0
        self.sprung: float | None = None

    def __call__(self, context: StageContext) -> Action | None:
        spot = self._cell.spot
        if not spot.fits(context):
            return None
        self._seen += 1
        if self._seen != spot.occurrence:
            return None
        self.sprung = asyncio.get_running_loop().time()
        return ACTIONS[self._cell.fault]


async def complaints(cell: Cell, wires: Wires) -> list[str]:
    """Return the faults of this case; it is repeated if the machine, not the client, was too slow."""
    for left in reversed(range(TRIES)):
        pulse = Pulse()
        found = await _play(cell, wires)
        await pulse.aclose()
        if not found or not left or pulse.worst() < LIMIT / 5:
            break
    return [f"{cell}: {one}" for one in found]


def _script(cell: Cell, trap: Trap) -> dict[Stage, Rule]:
    script: dict[Stage, Rule] = {cell.spot.stage: trap}
    if cell.point is Point.RSET and cell.way not in AT_ONCE:
        script[Stage.RCPT] = {SUBJECT + 1: "550 5.1.1 no such user"}  # after which RSET is due
    return script


def _relay(cell: Cell, wires: Wires, server: ScriptedRelay) -> Relay:
    timeouts = PATIENT
    if cell.stalls and cell.point is not Point.QUIT:
        timeouts = replace(PATIENT, **{cell.spot.limit: LIMIT, "end" if cell.long else cell.spot.limit: LIMIT})
    return relay_of(
        server,
        security=SECURITY[cell.link],
        context=None if cell.link is Link.PLAIN else wires.client,
        dialogue=DIALOGUE[cell.way],
        timeouts=timeouts,
        login=LOGIN,
        cleartext_login=True,
    )


async def _play(cell: Cell, wires: Wires) -> list[str]:
    trap = Trap(cell)
    async with ScriptedRelay(
        _script(cell, trap),
        tls=None if cell.link is Link.PLAIN else wires.server,
        implicit_tls=cell.link is Link.TLS,
        users={"ann": "s3cret"},
        on_accept=token,
    ) as server:
        session = Session(_relay(cell, wires, server))
        try:
            async with asyncio.timeout(PLENTY / 2):
                found = await (_open_in_vain if cell.point in OPENING else _send_all)(cell, session, server)
        except TimeoutError:
            session.abort()
            await session.aclose()
            found = ["never ended"]
        ended = asyncio.get_running_loop().time()
    if trap.sprung is None:
        return [*found, "the fault never came"]
    took = ended - trap.sprung
    return found if took < LIMIT + GRACE else [*found, f"took {took:.2f} s"]


async def _open_in_vain(cell: Cell, session: Session, server: ScriptedRelay) -> list[str]:
    """The session must not come to be; where a line too many comes late, it may, and breaks before any message."""
    expected: tuple[type[SMTPError], ...] = opening_errors(cell)
    try:
        await session.connect()
        expected = (SMTPError,)
        result: object = await session.send(message())
    except Exception as error:
        result = error
    await session.aclose()
    if server.received:
        return [f"a message arrived: {result!r}"]
    return [] if isinstance(result, expected) else [f"{result!r} instead of {expected}"]


async def _send_all(cell: Cell, session: Session, server: ScriptedRelay) -> list[str]:
    await session.connect()
    results: list[object] = []
    if cell.way in AT_ONCE:
        results += await asyncio.gather(
            *(_send(cell, session, number) for number in range(MESSAGES)), return_exceptions=True
        )
    else:
        for number in range(MESSAGES):
            results += await asyncio.gather(_send(cell, session, number), return_exceptions=True)
    await session.aclose()
    return list(_wrong(cell, results, server))


async def _send(cell: Cell, session: Session, number: int) -> object:
    if number != SUBJECT or not cell.long:
        return await session.send(message(number))
    # The end of a long content waits for a mark that never comes, so that the fault lies before it; only a relay
    # that says nothing is one that must be let come to the end.
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return await session.send(big(200_000, number), before_end=None if cell.stalls else lambda: never)


def _wrong(cell: Cell, results: list[object], server: ScriptedRelay) -> Iterable[str]:
    taken = Counter(path for received in server.received for path in received.forward_paths)
    for number, (result, endings) in enumerate(zip(results, allowed(cell), strict=True)):
        lie = untrue(result, taken[f"to{number}@example.net"])
        if lie is not None:
            yield f"message {number}: {lie}"
        elif ending(result) not in endings:
            names = ", ".join(sorted(one.name for one in endings))
            yield f"message {number}: {ending(result).name}, not {names}: {result}"
    doubts = sum(ending(result).name == "IN_DOUBT" for result in results)
    if doubts > (4 if cell.way.value == "BDAT" else 1):
        yield f"{doubts} messages in doubt on one session"
