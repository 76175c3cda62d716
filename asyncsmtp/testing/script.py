"""The script of a relay: the actions that it takes at a stage of the dialogue instead of its default reply.

    ScriptedRelay({
        Stage.RCPT: "550 5.1.1 no such user",                         # each RCPT
        Stage.MAIL: {2: "451 4.3.0 later"},                           # the second MAIL that the relay receives
        Stage.END_OF_DATA: (NO_REPLY, Fin()),                         # accepts the message, closes without a reply
        Stage.STARTTLS: (DEFAULT_REPLY, b"250 injected\\r\\n"),       # plaintext after the 220, in one segment
        Stage.NOOP: lambda context: Hang() if context.tls else None,  # None: the default reply
    })

An *action* is one step or a sequence of steps. Bytes of consecutive steps are sent in one segment; a `Wait` separates
them. A `str` is a reply: its line end is added, and the relay acts on its code (2xx or 354 as if it were its own
reply, 421 by closing). `bytes` are sent as they are and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

__all__ = [
    "DEFAULT_REPLY",
    "NO_REPLY",
    "Action",
    "CallRule",
    "DefaultReply",
    "DiscardInput",
    "End",
    "Fin",
    "HalfClose",
    "Hang",
    "RefuseInput",
    "Rst",
    "Rule",
    "Script",
    "SendSlowly",
    "Stage",
    "StageContext",
    "Step",
    "StopReading",
    "Wait",
    "to_steps",
]


class Stage(StrEnum):
    """The point in the dialogue at which an action applies."""

    CONNECT = "connect"  # accepted, nothing sent; by default the TLS handshake or the greeting follows
    HANDSHAKE = "handshake"  # before TLS, implicit or after the 220 to STARTTLS; by default TLS starts
    GREETING = "greeting"
    EHLO = "ehlo"  # and LHLO
    HELO = "helo"
    STARTTLS = "starttls"
    AUTH = "auth"
    RESPONSE = "response"  # the client's answer to a 334
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  # the first bytes of content after the 354; no reply by default
    END_OF_DATA = "end of data"
    BDAT = "bdat"  # after the chunk was read
    RSET = "rset"
    NOOP = "noop"
    QUIT = "quit"
    OTHER = "other"  # VRFY, HELP and unknown commands


@dataclass(frozen=True, slots=True)
class StageContext:
    """The situation of the relay at a stage; the argument of a rule that is a callable.

    Attributes:
        line: the command line without its line end; empty if there is none (greeting, body, end of data).
        occurrence: how often this stage was reached, over all connections of the relay, this time included.
        occurrence_on_connection: the same, on this connection.
        connection: the number of the connection, from 1.
        pipelined_input: bytes already read after this command.
        content: the content, dot-stuffing undone; at END_OF_DATA and BDAT only.
    """

    stage: Stage
    line: bytes
    occurrence: int
    occurrence_on_connection: int
    connection: int
    tls: bool
    user: str | None
    reverse_path: str | None
    forward_paths: tuple[str, ...]
    pipelined_input: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class DefaultReply:
    """The default action of the relay at this stage.

    With `send=False` it takes effect (the message is kept, the recipient recorded) and only the reply is missing.
    """

    send: bool = True


DEFAULT_REPLY: Final = DefaultReply()
NO_REPLY: Final = DefaultReply(send=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause; input is buffered meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SendSlowly:
    """Bytes sent one at a time, with a pause before each; `times=0` repeats them without end."""

    octets: bytes
    seconds: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Hang:
    """Silence from here on; input is read and discarded."""


@dataclass(frozen=True, slots=True)
class StopReading:
    """Silence without reading, so that the client's writes block once the buffers are full."""


@dataclass(frozen=True, slots=True)
class Fin:
    """The end of the connection, after pending output; over TLS with or without close_notify."""

    close_notify: bool = True


@dataclass(frozen=True, slots=True)
class Rst:
    """A reset of the connection (SO_LINGER 0)."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """The end of the relay's direction (TCP FIN, no close_notify); it keeps reading, without replying."""


@dataclass(frozen=True, slots=True)
class DiscardInput:
    """Removal of the input that the client pipelined; `only_if_refused`: if the last reply sent was a 5xx."""

    only_if_refused: bool = False


@dataclass(frozen=True, slots=True)
class RefuseInput:
    """The same reply to each pipelined line."""

    reply: str = "503 5.5.1 command out of sequence"


@dataclass(frozen=True, slots=True)
class CallRule:
    """The action returned by a callable when this step is reached; its `pipelined_input` is current."""

    callable: Callable[[StageContext], Action | None]


End: TypeAlias = Hang | StopReading | Fin | Rst | HalfClose  # nothing more is sent after it
Step: TypeAlias = str | bytes | DefaultReply | Wait | SendSlowly | DiscardInput | RefuseInput | CallRule | End
Action: TypeAlias = "Step | Sequence[Step]"
Rule: TypeAlias = "Action | Mapping[int, Action] | Callable[[StageContext], Action | None]"


class Script:
    """Rules by stage: one action, actions by occurrence (from 1, over all connections), or a callable."""

    def __init__(self, rules: Mapping[Stage, Rule]) -> None:
        self._rules = {Stage(stage): rule for stage, rule in rules.items()}

    def __contains__(self, stage: Stage) -> bool:
        return stage in self._rules

    def steps(self, context: StageContext) -> Sequence[Step]:
        """Return the steps for this context; the default reply if no rule applies."""
        rule = self._rules.get(context.stage)
        if rule is None:
            return (DEFAULT_REPLY,)
        if isinstance(rule, Mapping):
            return to_steps(rule.get(context.occurrence))
        return to_steps(rule(context) if callable(rule) else rule)


def to_steps(action: Action | None) -> Sequence[Step]:
    """Return an action as a sequence of steps; None is the default reply."""
    if action is None:
        return (DEFAULT_REPLY,)
    if isinstance(action, Sequence) and not isinstance(action, str | bytes):
        return action
    return (action,)
