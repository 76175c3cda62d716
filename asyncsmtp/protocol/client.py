"""The client's side of the dialogue, sans I/O (RFC 5321 §3, §4.1.4; RFC 2920; RFC 3207; RFC 4954).

One queue, three tables, two cursors. **Every reply answers the oldest pending command**: that
sentence is the design, and it makes mispaired replies impossible to express.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from asyncsmtp.errors import LocalProtocolError, RemoteProtocolError, StartTlsInjection, UnexpectedReply
from asyncsmtp.protocol.commands import END_OF_CONTENT, GREETING, Command, Verb
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.replies import Reply, ReplyReader

__all__ = ["AFTER", "ALLOWED", "ENDS_GROUP", "ClientProtocol", "Exchange", "ProtocolState"]


class ProtocolState(StrEnum):
    """Where the dialogue stands; READY and beyond is a session in the sense of RFC 5321 §3.1."""

    CONNECTED = "connected"
    GREETED = "greeted"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BDAT = "bdat"
    AUTH = "auth"
    TLS = "tls"
    CLOSED = "closed"


_TLS, _CLOSED = (
    ProtocolState.TLS,
    ProtocolState.CLOSED,
)  # on Python 3.11 a member is looked up by a call: these, once for each reply
_ANY_TIME = frozenset({Verb.RSET, Verb.NOOP, Verb.VRFY, Verb.EXPN, Verb.QUIT})

ALLOWED: Mapping[ProtocolState, frozenset[Verb]] = {  # which commands may be said in which state (RFC 5321 §4.1.4)
    ProtocolState.CONNECTED: frozenset(),
    ProtocolState.GREETED: frozenset({Verb.EHLO, Verb.HELO, Verb.LHLO, Verb.NOOP, Verb.QUIT}),
    ProtocolState.READY: _ANY_TIME | {Verb.EHLO, Verb.LHLO, Verb.STARTTLS, Verb.XCLIENT, Verb.AUTH, Verb.MAIL},
    ProtocolState.MAIL: _ANY_TIME | {Verb.RCPT},
    ProtocolState.RCPT: _ANY_TIME | {Verb.RCPT, Verb.DATA, Verb.BDAT, Verb.BDAT_LAST},
    ProtocolState.DATA: frozenset({Verb.CONTENT}),
    ProtocolState.BDAT: _ANY_TIME | {Verb.BDAT, Verb.BDAT_LAST},
    ProtocolState.AUTH: frozenset({Verb.RESPONSE, Verb.CANCEL}),
    ProtocolState.TLS: frozenset(),  # the handshake is due; any octet now is an attack (RFC 3207 §4.2)
    ProtocolState.CLOSED: frozenset(),
}
UNDER_TLS = {state: verbs - {Verb.STARTTLS} for state, verbs in ALLOWED.items()}  # there is no second handshake

AFTER: Mapping[Verb, ProtocolState] = {  # where a positive reply leads; a verb that is not here changes nothing
    Verb.GREETING: ProtocolState.GREETED,
    Verb.EHLO: ProtocolState.READY,
    Verb.HELO: ProtocolState.READY,
    Verb.LHLO: ProtocolState.READY,
    Verb.STARTTLS: ProtocolState.TLS,
    Verb.XCLIENT: ProtocolState.GREETED,  # "the server resets state as after the initial connection"
    Verb.AUTH: ProtocolState.READY,
    Verb.RESPONSE: ProtocolState.READY,
    Verb.MAIL: ProtocolState.MAIL,
    Verb.RCPT: ProtocolState.RCPT,
    Verb.DATA: ProtocolState.DATA,
    Verb.CONTENT: ProtocolState.READY,
    Verb.BDAT: ProtocolState.BDAT,
    Verb.BDAT_LAST: ProtocolState.READY,
    Verb.RSET: ProtocolState.READY,
    Verb.QUIT: ProtocolState.CLOSED,
}

# RFC 2920 §3.1: these "can only appear as the last command in a group"
ENDS_GROUP = frozenset(
    {
        Verb.GREETING,
        Verb.EHLO,
        Verb.HELO,
        Verb.LHLO,
        Verb.STARTTLS,
        Verb.XCLIENT,
        Verb.AUTH,
        Verb.RESPONSE,
        Verb.CANCEL,
        Verb.DATA,
        Verb.VRFY,
        Verb.EXPN,
        Verb.NOOP,
        Verb.QUIT,
    }
)

REFUSED: Mapping[Verb, ProtocolState] = {  # where a negative reply leads; a verb that is not here changes nothing
    Verb.CONTENT: ProtocolState.READY,  # RFC 5321 §4.1.1.4: the buffers are cleared, whatever the reply
    Verb.AUTH: ProtocolState.READY,
    Verb.RESPONSE: ProtocolState.READY,
    Verb.CANCEL: ProtocolState.READY,
}

COMPLETION = range(200, 300)
ONLY: Mapping[Verb, frozenset[int]] = {  # the positive codes of verbs that do not take any 2yz
    Verb.GREETING: frozenset({220}),
    Verb.STARTTLS: frozenset({220}),
    Verb.AUTH: frozenset({235, 334}),
    Verb.RESPONSE: frozenset({235, 334}),
    Verb.CANCEL: frozenset(),
    Verb.DATA: frozenset({354}),
}

COMPLETED = frozenset(
    {Verb.MAIL, Verb.RCPT, Verb.CONTENT, Verb.BDAT, Verb.BDAT_LAST, Verb.RSET}
)  # by any 2yz, and that is all of it
LOGIN = frozenset({Verb.AUTH, Verb.RESPONSE, Verb.CANCEL})
CLOSING = 421  # "Service not available, closing transmission channel": may come at any time (RFC 5321 §3.8)
CHALLENGE = 334


class Exchange(NamedTuple):
    """A command with its reply; the command is None for a 421 that answers nothing."""

    command: Command | None
    reply: Reply


class ClientProtocol:
    """What has been said and not yet answered, and where that leaves us.

    Attributes:
        state: what the server has confirmed.
        ahead: what it will be if every pending reply is positive.
        pending: said, not yet answered, oldest first.
        extensions: what the last EHLO offered, less what is masked; empty before it and after HELO.
        unspeakable: octets that are starred out of the replies to AUTH, since a relay may echo them.
        challenge: the text of the last 334, line by line; the reply itself, which is shown and logged, has `***`.
    """

    __slots__ = (
        "_allowed",
        "_masked",
        "_reader",
        "ahead",
        "challenge",
        "extensions",
        "pending",
        "state",
        "unspeakable",
    )

    def __init__(self, *, masked: frozenset[str] = frozenset(), tls: bool = False) -> None:
        self._allowed = UNDER_TLS if tls else ALLOWED
        self.state = ProtocolState.CONNECTED
        self.pending: deque[Command] = deque([GREETING])
        self.ahead = ProtocolState.GREETED
        self.extensions = Extensions()
        self.unspeakable: tuple[bytes, ...] = ()
        self.challenge: tuple[bytes, ...] = ()
        self._masked = masked
        self._reader = ReplyReader()

    def allows(self, command: Command) -> bool:
        """Whether the command may be said now: in sequence, and not behind one that ends a group."""
        if self.pending and (self.pending[-1].verb in ENDS_GROUP or not self.extensions.pipelining):
            return False
        return command.verb in self._allowed[self.ahead]

    def send(self, *group: Command, answers: int = 1) -> bytes:
        """Say commands as one group; return the octets to write. Content is written before END_OF_CONTENT is said.

        Args:
            answers: how many replies each has; more than one only for the end of a content to an LMTP relay.
        Raises:
            LocalProtocolError: one is out of sequence, or behind a command that ends a group; none is said.
        """
        ahead, before = self.ahead, self.pending[-1].verb if self.pending else None
        pipelining, allowed = self.extensions.pipelining, self._allowed
        for command in group:
            verb = command.verb
            held_back = before is not None and (before in ENDS_GROUP or not pipelining)
            if held_back or verb not in allowed[ahead]:
                waiting = f" with {before} unanswered" if before is not None else ""
                raise LocalProtocolError(f"{verb} may not be said in state {ahead}{waiting}")
            before, ahead = verb, AFTER.get(verb, ahead)
        self.pending.extend(group if answers == 1 else [command for command in group for _ in range(answers)])
        self.ahead = ahead
        return b"".join([command.octets for command in group])

    def receive(self, data: bytes) -> Iterator[Exchange]:
        """Read octets from the server; yield each command that is now answered with its reply, oldest first.

        Args:
            data: what one read returned; may end anywhere inside a line.
        Raises:
            RemoteProtocolError: a malformed reply; what was yielded before it stands.
            UnexpectedReply: a reply to nothing but 421, or one that its command cannot have.
            StartTlsInjection: any octet between the 220 to STARTTLS and the handshake.
        RFC 5321 §4.2, RFC 2920 §3.1.
        """
        pending, exchange = self.pending, tuple.__new__  # what NamedTuple would do, less a call
        try:
            if self.state is _TLS and data:
                raise _injection()
            for reply in self._reader.replies(data):
                if pending and reply.code in COMPLETION and pending[0].verb in COMPLETED:
                    command = pending.popleft()  # the way of nearly every reply
                    self.state = AFTER[command.verb]
                    if not pending:
                        self.ahead = self.state
                    yield exchange(Exchange, (command, reply))
                    continue
                yield self._answer(reply)
                if self.state is _CLOSED:
                    return  # what comes behind a 421 in the same read answers nothing any more
        except RemoteProtocolError:
            self.state = self.ahead = ProtocolState.CLOSED
            raise

    def _answer(self, reply: Reply) -> Exchange:
        if not self.pending:
            return self._unasked(reply)
        command = self.pending.popleft()
        if command.verb in LOGIN:
            reply = self._unspoken(reply)
        self._step(command, reply)
        if self.state is _TLS and not self._reader.idle:
            raise _injection()
        return Exchange(command, reply)

    def _unspoken(self, reply: Reply) -> Reply:
        """A reply to AUTH without what no log may show."""
        if reply.code != CHALLENGE:
            return reply.without(self.unspeakable)
        self.challenge = reply.lines  # a mechanism needs each octet, and starring out a short secret would break some
        return Reply(CHALLENGE, (b"***" if any(reply.lines) else b"",))

    def _step(self, command: Command, reply: Reply) -> None:
        verb = command.verb
        if reply.code == CLOSING:
            self.state = self.ahead = ProtocolState.CLOSED
            self.pending.clear()
            return
        if not reply.positive:
            self.state = self.ahead = REFUSED.get(verb, self.state)
            for later in self.pending:
                self.ahead = AFTER.get(later.verb, self.ahead)
            return
        if reply.code not in ONLY.get(verb, COMPLETION):
            raise UnexpectedReply(f"the relay answered {verb} with “{reply}”, which is no answer to it")
        self.state = ProtocolState.AUTH if reply.code == CHALLENGE else AFTER.get(verb, self.state)
        self.ahead = self.state  # what comes this way ends its group: nothing is said behind it
        if verb in (Verb.EHLO, Verb.LHLO):
            self.extensions = Extensions.parse(reply).without(self._masked)
        elif verb is Verb.HELO:
            self.extensions = Extensions()

    def _unasked(self, reply: Reply) -> Exchange:
        writing = self.state is ProtocolState.DATA
        if writing and reply.positive:
            raise UnexpectedReply(f"the relay answered “{reply}” before the content had ended", claims_acceptance=True)
        if not writing and reply.code != CLOSING:
            raise UnexpectedReply(f"the relay said “{reply}” though nothing was asked")
        self.state = self.ahead = ProtocolState.CLOSED  # refused while we still write: only dropping the line is safe
        return Exchange(END_OF_CONTENT if writing else None, reply)

    def tls_started(self) -> None:
        """TLS is up: what the server said before is forgotten (RFC 3207 §4.2); EHLO comes next."""
        if self.state is not ProtocolState.TLS:
            raise LocalProtocolError("a TLS handshake that STARTTLS did not ask for")
        self.state = self.ahead = ProtocolState.GREETED
        self.extensions = Extensions()
        self._allowed = UNDER_TLS

    def ended(self) -> RemoteProtocolError | None:
        """The connection ended: the error for octets that make no reply, None where there are none."""
        self.state = self.ahead = ProtocolState.CLOSED
        return self._reader.unfinished()


def _injection() -> StartTlsInjection:
    return StartTlsInjection(
        "the relay's 220 to STARTTLS was followed by octets in clear: "
        "someone may be tampering with the connection; nothing was sent"
    )
