"""The results allowed for a case of the matrix, derived from the point of no return.

Before it: a refusal, or an error that says the message was not delivered. Behind the end of its content: in
doubt, unless a definite reply came. And in every case the relay's own record is right about all messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from asyncsmtp.errors import ConnectFailed, ExtensionNotSupported, Refused, SMTPError, StartTlsInjection
from asyncsmtp.protocol.delivery import Delivery
from tests.matrix.tables import AT_ONCE, OPENING, SUBJECT, Cell, ClientMode, Fault, Link, Point


class Ending(Enum):
    ACCEPTED = auto()
    REFUSED = auto()  # a Delivery that says so
    LOST = auto()  # an error: not delivered
    IN_DOUBT = auto()
    UNTYPED = auto()  # anything that is not ours: never allowed


ACCEPTED, REFUSED, LOST, IN_DOUBT = Ending.ACCEPTED, Ending.REFUSED, Ending.LOST, Ending.IN_DOUBT
REFUSALS = frozenset({Fault.CLOSING, Fault.TRANSIENT, Fault.PERMANENT})
OUT_OF_STEP = frozenset({Fault.EARLY, Fault.INJECTED})
GOES_ON = frozenset({Fault.TRANSIENT, Fault.PERMANENT})  # the session does, behind these


def ending(result: object) -> Ending:
    if isinstance(result, Delivery):
        return ACCEPTED if result.accepted else REFUSED
    if isinstance(result, SMTPError):
        return IN_DOUBT if result.in_doubt else LOST
    return Ending.UNTYPED


def untrue(result: object, taken: int) -> str | None:
    """Return the fault of a result, given how often the relay accepted the message; None if there is none."""
    end = ending(result)
    if end is Ending.UNTYPED:
        return f"{type(result).__name__} is no result of ours: {result}"
    allowed = {ACCEPTED: (1,), REFUSED: (0,), LOST: (0,), IN_DOUBT: (0, 1)}[end]
    return None if taken in allowed else f"{end.name}, and the relay took it {taken} times: {result}"


def opening_errors(cell: Cell) -> tuple[type[SMTPError], ...]:
    """As what `connect` may end at a fault before the session is open."""
    if cell.point in (Point.STARTTLS, Point.HANDSHAKE) and cell.link is Link.STARTTLS:
        clear = cell.point is Point.HANDSHAKE or cell.fault is Fault.EARLY  # behind the 220
        if clear:
            return (StartTlsInjection, ConnectFailed) if _speaks(cell.fault) else (ConnectFailed,)
    if cell.link is Link.TLS and cell.point in (Point.CONNECT, Point.HANDSHAKE):
        return (ConnectFailed,)
    if cell.point in (Point.EHLO, Point.EHLO_AGAIN):
        if cell.fault in GOES_ON:
            return (Refused, ExtensionNotSupported)  # after a 5xx HELO is sent, and then there is no AUTH
        if cell.fault is Fault.INJECTED:
            return (ConnectFailed, ExtensionNotSupported)  # it offers nothing, and the policy wants a login
    return (Refused,) if cell.fault in REFUSALS else (ConnectFailed,)


def _speaks(fault: Fault) -> bool:
    return fault not in (Fault.FIN, Fault.RST, Fault.HANG)


def allowed(cell: Cell) -> tuple[Iterable[Ending], ...]:
    """For each message the endings it may have, once the session was open."""
    assert cell.point not in OPENING
    before, behind = _before(cell), _behind(cell)
    return tuple(
        before if number < SUBJECT else _subject(cell) if number == SUBJECT else behind for number in range(SUBJECT + 3)
    )


def _before(cell: Cell) -> set[Ending]:
    """Of a message that was answered before the fault came, unless its reply did not count or was torn down."""
    if cell.point is Point.QUIT:
        return {ACCEPTED}
    if cell.point is Point.RSET and cell.way in AT_ONCE:  # the subject of the second RSET: see _subject
        return _subject(cell)
    torn = cell.way in AT_ONCE and (cell.fault in OUT_OF_STEP or cell.fault is Fault.RST)
    return {ACCEPTED, IN_DOUBT} if torn else {ACCEPTED}


def _subject(cell: Cell) -> set[Ending]:
    if cell.point is Point.QUIT:
        return {ACCEPTED}
    if cell.point is Point.RSET:
        return _cleared(cell)
    if cell.point is Point.END:
        if cell.fault in REFUSALS:
            return {REFUSED}
        return {ACCEPTED, IN_DOUBT} if cell.fault in OUT_OF_STEP else {IN_DOUBT}
    if cell.fault in REFUSALS:
        return {REFUSED}
    unasked = cell.way is ClientMode.BDAT and not cell.long  # the content went out with its envelope
    running = cell.long and cell.stalls  # nobody stops us before the end of the content
    if unasked or (cell.long and cell.fault in OUT_OF_STEP) or running:
        return {IN_DOUBT} if not cell.long or cell.way is not ClientMode.BDAT else {IN_DOUBT, LOST}
    if cell.point is Point.DATA and cell.fault is Fault.EARLY:
        return {IN_DOUBT}  # a 250 behind the 354 claims that there is a message
    return {LOST}


def _cleared(cell: Cell) -> set[Ending]:
    """At RSET: behind a refused message, or in front of an envelope that goes out behind a content."""
    if cell.way not in AT_ONCE:
        return {REFUSED, LOST} if cell.fault in OUT_OF_STEP | GOES_ON else {REFUSED}
    return {ACCEPTED, IN_DOUBT, LOST, REFUSED}


def _behind(cell: Cell) -> set[Ending]:
    """Of a message that comes after it: as usual where the session goes on, else untouched or in the stream."""
    if cell.point is Point.QUIT:
        return {ACCEPTED}
    goes_on = cell.fault in GOES_ON and cell.point is not Point.RSET
    if cell.point is Point.BODY and cell.way is not ClientMode.BDAT:
        goes_on = False  # refused while we write: only dropping the line is safe
    if goes_on:
        return {ACCEPTED}
    last_word = cell.fault is Fault.CLOSING or cell.point is Point.RSET
    return {LOST, IN_DOUBT} | ({REFUSED} if last_word else set()) if cell.way in AT_ONCE else {LOST}
