"""The stage matrix as four tables: where a fault comes, which one, on what link, in which dialogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Final

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Hang, Rst, SendSlowly, Stage, StageContext

LIMIT: Final = 0.5  # seconds for the stage at which the relay stalls; every other has plenty


class Fault(StrEnum):
    FIN = "FIN"
    RST = "RST"
    HANG = "hang"
    CLOSING = "421"
    TRANSIENT = "4xx"
    PERMANENT = "5xx"
    GARBAGE = "garbage"
    SLOW_REPLY = "slow reply"
    EARLY = "early reply"  # to what is not sent yet
    INJECTED = "injected line"  # in front of the reply that is due


ACTIONS: Final[Mapping[Fault, Action]] = {
    Fault.FIN: Fin(),
    Fault.RST: Rst(),
    Fault.HANG: Hang(),
    Fault.CLOSING: "421 4.3.2 shutting down",
    Fault.TRANSIENT: "451 4.3.0 later",
    Fault.PERMANENT: "550 5.7.1 no",
    Fault.GARBAGE: b"ERROR\r\n",
    Fault.SLOW_REPLY: SendSlowly(b"250 slowly\r\n", LIMIT * 0.3, times=0),
    Fault.EARLY: (DEFAULT_REPLY, b"250 2.0.0 early\r\n"),
    Fault.INJECTED: (b"250 2.0.0 injected\r\n", DEFAULT_REPLY),
}


class Link(StrEnum):
    PLAIN = "plain"
    STARTTLS = "STARTTLS"
    TLS = "TLS"


SECURITY: Final = {Link.PLAIN: Security.PLAINTEXT, Link.STARTTLS: Security.STARTTLS, Link.TLS: Security.IMPLICIT_TLS}


class ClientMode(StrEnum):
    """The dialogue of the client: lockstep, pipelined, streamed."""

    LOCKSTEP = "lockstep"
    PIPELINED = "pipelined"  # one message at a time, its envelope in one group
    PIPELINED_ACROSS = "pipelined across messages"  # the next envelope follows the end of data
    BDAT = "BDAT"  # contents streamed ahead of all replies


DIALOGUE: Final = {
    ClientMode.LOCKSTEP: Dialogue.LOCKSTEP,
    ClientMode.PIPELINED: Dialogue.PIPELINED,
    ClientMode.PIPELINED_ACROSS: Dialogue.PIPELINED,
    ClientMode.BDAT: Dialogue.STREAMED,
}
AT_ONCE: Final = frozenset(
    {ClientMode.PIPELINED_ACROSS, ClientMode.BDAT}
)  # all messages are given to the session together


class Point(StrEnum):
    """The point of a session at which the fault occurs, in order."""

    CONNECT = "connect"
    HANDSHAKE = "handshake"
    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    EHLO_AGAIN = "EHLO under TLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA, or the first chunk"
    BODY = "body, or the second chunk"
    END = "end of content"
    RSET = "RSET"
    QUIT = "QUIT"


OPENING: Final = frozenset(list(Point)[: list(Point).index(Point.MAIL)])
SUBJECT: Final = 2  # the message, counted from 0, at which the fault comes
MESSAGES: Final = 5


@dataclass(frozen=True, slots=True)
class Spot:
    """A point as the relay sees it: a stage, which of its occurrences, and the client's limit for it."""

    stage: Stage
    limit: str
    occurrence: int = 1
    fits: Callable[[StageContext], bool] = lambda context: True
    links: frozenset[Link] = frozenset(Link)


_UNDER_TLS = frozenset({Link.STARTTLS, Link.TLS})
_UPGRADED = frozenset({Link.STARTTLS})
_MESSAGE = SUBJECT + 1

SPOTS: Final[Mapping[Point, Spot]] = {
    Point.CONNECT: Spot(Stage.CONNECT, "greeting"),
    Point.HANDSHAKE: Spot(Stage.HANDSHAKE, "tls", links=_UNDER_TLS),
    Point.GREETING: Spot(Stage.GREETING, "greeting"),
    Point.EHLO: Spot(Stage.EHLO, "ehlo"),
    Point.STARTTLS: Spot(Stage.STARTTLS, "starttls", links=_UPGRADED),
    Point.EHLO_AGAIN: Spot(Stage.EHLO, "ehlo", 2, links=_UPGRADED),
    Point.AUTH: Spot(Stage.AUTH, "auth"),
    Point.MAIL: Spot(Stage.MAIL, "mail", _MESSAGE),
    Point.RCPT: Spot(Stage.RCPT, "rcpt", _MESSAGE),
    Point.DATA: Spot(Stage.DATA, "data", _MESSAGE),
    Point.BODY: Spot(Stage.BODY, "end", _MESSAGE),
    Point.END: Spot(Stage.END_OF_DATA, "end", _MESSAGE),
    Point.RSET: Spot(Stage.RSET, "rset"),
    Point.QUIT: Spot(Stage.QUIT, "quit"),
}


def _not_last(context: StageContext) -> bool:
    return b"LAST" not in context.line


def _last(context: StageContext) -> bool:
    return b"LAST" in context.line


_OTHERWISE: Final[Mapping[tuple[ClientMode, Point], Spot]] = {
    (ClientMode.PIPELINED_ACROSS, Point.RSET): Spot(
        Stage.RSET, "rset", 2
    ),  # the first is the proof that the relay reads on
    (ClientMode.BDAT, Point.RSET): Spot(Stage.RSET, "rset", 2),
    (ClientMode.BDAT, Point.DATA): Spot(Stage.BDAT, "block", 1, _not_last),  # only the subject has more than one chunk
    (ClientMode.BDAT, Point.BODY): Spot(Stage.BDAT, "block", 2, _not_last),
    (ClientMode.BDAT, Point.END): Spot(Stage.BDAT, "end", _MESSAGE, _last),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One case of the matrix."""

    point: Point
    fault: Fault
    link: Link
    way: ClientMode

    @property
    def spot(self) -> Spot:
        if self.link is Link.TLS and self.point is Point.CONNECT:
            return Spot(Stage.CONNECT, "tls")
        return _OTHERWISE.get((self.way, self.point), SPOTS[self.point])

    @property
    def long(self) -> bool:
        """True if the content is too large for one write, so that the fault occurs in the middle of it."""
        return self.point is Point.BODY or (self.way is ClientMode.BDAT and self.point is Point.DATA)

    @property
    def stalls(self) -> bool:
        return self.fault in (Fault.HANG, Fault.SLOW_REPLY)

    def __str__(self) -> str:
        return f"{self.fault} at {self.point}, {self.link}, {self.way}"


def cells() -> Iterator[Cell]:
    """All of them: 37 points on three links, ten faults, four ways."""
    for fault, link, way, point in product(Fault, Link, ClientMode, Point):
        if link in SPOTS[point].links:
            yield Cell(point, fault, link, way)
