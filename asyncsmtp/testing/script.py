"""What a scripted relay does other than usual: a move for a stage of the dialogue.

    ScriptedRelay({
        Stage.RCPT: "550 5.1.1 no such user",                         # each RCPT
        Stage.MAIL: {2: "451 4.3.0 later"},                           # the second MAIL the relay hears
        Stage.DOT: (UNSAID, Fin()),                                   # takes the message, hangs up without a word
        Stage.STARTTLS: (USUAL, b"250 injected\\r\\n"),               # plaintext behind the 220, in one segment
        Stage.NOOP: lambda cue: Hang() if cue.tls else None,          # None: as usual
    })

A *move* is one step or several in turn. Octets of steps that follow each other leave in one segment; a
`Wait` parts them. A `str` is a reply: its line end is added and the relay acts on its code (2yz or 354 as
if it had said so by itself, 421 by closing). `bytes` leave as they are and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

__all__ = [
    "UNSAID",
    "USUAL",
    "Ask",
    "Cue",
    "Deaf",
    "Drip",
    "Fin",
    "Forget",
    "HalfClose",
    "Hang",
    "Move",
    "RefuseInput",
    "Rst",
    "Rule",
    "Script",
    "Stage",
    "Step",
    "Usual",
    "Wait",
    "steps_of",
]


class Stage(StrEnum):
    """Where in the dialogue a move applies."""

    CONNECT = "connect"  # accepted, nothing said yet; the usual: go on to the handshake or the greeting
    HANDSHAKE = "handshake"  # before TLS, implicit or behind the 220 of STARTTLS; the usual: TLS
    GREETING = "greeting"
    EHLO = "ehlo"  # and LHLO
    HELO = "helo"
    STARTTLS = "starttls"
    AUTH = "auth"
    RESPONSE = "response"  # one answer of the client to a 334
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  # the first octets of content after the 354; the usual: say nothing
    DOT = "dot"  # the end of mail data
    BDAT = "bdat"  # once the chunk is read
    RSET = "rset"
    NOOP = "noop"
    QUIT = "quit"
    OTHER = "other"  # VRFY, HELP and whatever is unknown


@dataclass(frozen=True, slots=True)
class Cue:
    """What the client said when it was the relay's turn; what a rule decides upon.

    Attributes:
        line: the command line without its line end; empty where there is none (greeting, body, dot).
        number: how often the relay has come to this stage, over all its connections, this time included.
        here: the same, on this connection.
        connection: which connection of the relay this is, from 1.
        behind: what was already read behind this command: input the client pipelined.
        content: what was received, transparency undone; at the dot and at BDAT only.
    """

    stage: Stage
    line: bytes
    number: int
    here: int
    connection: int
    tls: bool
    user: str | None
    reverse_path: str | None
    forward_paths: tuple[str, ...]
    behind: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Usual:
    """What the relay does at this stage when nobody tells it otherwise.

    Unsaid, it takes effect (the message is kept, the recipient noted) and only the reply is missing.
    """

    said: bool = True


USUAL: Final = Usual()
UNSAID: Final = Usual(said=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing for so many seconds; input is read but not looked at."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drip:
    """Octets, one at a time, with so many seconds before each; `times` may be without end (0)."""

    octets: bytes
    seconds: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Hang:
    """Never a word again; what the client sends is read and thrown away."""


@dataclass(frozen=True, slots=True)
class Deaf:
    """Never reads again, so that the client's writes come to stand once the buffers are full."""


@dataclass(frozen=True, slots=True)
class Fin:
    """Closes, after what was said; over TLS with or without its close_notify."""

    close_notify: bool = True


@dataclass(frozen=True, slots=True)
class Rst:
    """Resets the connection (SO_LINGER 0)."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Ends its own direction (TCP FIN, no close_notify) and goes on reading, without a word."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Throws away what was read and not yet looked at: input the client pipelined.

    Attributes:
        refused: only when the reply just said was a 5yz.
    """

    refused: bool = False


@dataclass(frozen=True, slots=True)
class RefuseInput:
    """Answers each line that was read and not yet looked at with this reply."""

    reply: str = "503 5.5.1 command out of sequence"


@dataclass(frozen=True, slots=True)
class Ask:
    """Goes on with the move that this callable returns; asked when it is reached, `Cue.behind` as of then."""

    callable: Callable[[Cue], Move | None]


Step: TypeAlias = str | bytes | Usual | Wait | Drip | Hang | Deaf | Fin | Rst | HalfClose | Forget | RefuseInput | Ask
Move: TypeAlias = "Step | Sequence[Step]"
Rule: TypeAlias = "Move | Mapping[int, Move] | Callable[[Cue], Move | None]"


class Script:
    """Rules by stage: a move each time, moves by occurrence (from 1, over all connections), or a callable."""

    def __init__(self, rules: Mapping[Stage, Rule]) -> None:
        self._rules = {Stage(stage): rule for stage, rule in rules.items()}

    def __contains__(self, stage: Stage) -> bool:
        return stage in self._rules

    def steps(self, cue: Cue) -> Sequence[Step]:
        """The move for this cue, as steps; the usual when no rule speaks."""
        rule = self._rules.get(cue.stage)
        if rule is None:
            return (USUAL,)
        if isinstance(rule, Mapping):
            return steps_of(rule.get(cue.number))
        return steps_of(rule(cue) if callable(rule) else rule)


def steps_of(move: Move | None) -> Sequence[Step]:
    """One step or several, as several; None is the usual."""
    if move is None:
        return (USUAL,)
    if isinstance(move, Sequence) and not isinstance(move, str | bytes):
        return move
    return (move,)
