"""The client's state machine for the SMTP dialogue, without I/O (RFC 5321 §3, §4.1.4; RFC 2920; RFC 3207; RFC 4954).

One queue, three tables, two cursors. **Every reply answers the oldest pending command.** That rule is the whole
design: a reply cannot be assigned to the wrong command, because nothing but the head of the queue can take it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from asyncsmtp.errors import LocalProtocolError, RemoteProtocolError, StartTlsInjection, UnexpectedReply
from asyncsmtp.protocol.commands import END_OF_CONTENT, GREETING, Command, Verb
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import Extensions, Reply, ReplyReader

__all__ = ["ALLOWED_COMMANDS", "ENDS_GROUP", "NEXT_STATE", "ClientProtocol", "Exchange", "ProtocolState"]


class ProtocolState(StrEnum):
    """The state of the dialogue; from READY on it is a session in the sense of RFC 5321 §3.1."""

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


# Looking up an Enum member costs a call on Python 3.11, and these are needed for each reply.
_TLS, _CLOSED = ProtocolState.TLS, ProtocolState.CLOSED
_ANY_TIME = frozenset({Verb.RSET, Verb.NOOP, Verb.VRFY, Verb.EXPN, Verb.QUIT})

ALLOWED_COMMANDS: Mapping[ProtocolState, frozenset[Verb]] = {  # commands allowed in each state (RFC 5321 §4.1.4)
    ProtocolState.CONNECTED: frozenset(),
    ProtocolState.GREETED: frozenset({Verb.EHLO, Verb.HELO, Verb.LHLO, Verb.NOOP, Verb.QUIT}),
    ProtocolState.READY: _ANY_TIME | {Verb.EHLO, Verb.LHLO, Verb.STARTTLS, Verb.XCLIENT, Verb.AUTH, Verb.MAIL},
    ProtocolState.MAIL: _ANY_TIME | {Verb.RCPT},
    ProtocolState.RCPT: _ANY_TIME | {Verb.RCPT, Verb.DATA, Verb.BDAT, Verb.BDAT_LAST},
    ProtocolState.DATA: frozenset({Verb.CONTENT}),
    ProtocolState.BDAT: _ANY_TIME | {Verb.BDAT, Verb.BDAT_LAST},
    ProtocolState.AUTH: frozenset({Verb.RESPONSE, Verb.CANCEL}),
    ProtocolState.TLS: frozenset(),  # the handshake comes next; any byte before it is an attack (RFC 3207 §4.2)
    ProtocolState.CLOSED: frozenset(),
}
ALLOWED_UNDER_TLS = {state: verbs - {Verb.STARTTLS} for state, verbs in ALLOWED_COMMANDS.items()}

NEXT_STATE: Mapping[Verb, ProtocolState] = {  # after a positive reply; other verbs change nothing
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

# Completed by any 2xx, with no other effect than the next state; all others "can only appear as the last command in a
# group" (RFC 2920 §3.1).
PLAIN_VERBS = frozenset({Verb.MAIL, Verb.RCPT, Verb.CONTENT, Verb.BDAT, Verb.BDAT_LAST, Verb.RSET})
ENDS_GROUP = frozenset(Verb) - PLAIN_VERBS

NEXT_STATE_IF_REFUSED: Mapping[Verb, ProtocolState] = {  # after a negative reply; other verbs change nothing
    Verb.CONTENT: ProtocolState.READY,  # RFC 5321 §4.1.1.4: the buffers are cleared, whatever the reply
    Verb.AUTH: ProtocolState.READY,
    Verb.RESPONSE: ProtocolState.READY,
    Verb.CANCEL: ProtocolState.READY,
}

SUCCESS_CODES = range(200, 300)
EXPECTED_CODES: Mapping[Verb, frozenset[int]] = {  # positive codes of the verbs that do not accept every 2xx
    Verb.GREETING: frozenset({220}),
    Verb.STARTTLS: frozenset({220}),
    Verb.AUTH: frozenset({235, 334}),
    Verb.RESPONSE: frozenset({235, 334}),
    Verb.CANCEL: frozenset(),
    Verb.DATA: frozenset({354}),
}

AUTH_VERBS = frozenset({Verb.AUTH, Verb.RESPONSE, Verb.CANCEL})
SERVICE_CLOSING = 421  # "Service not available, closing transmission channel": may come at any time (RFC 5321 §3.8)
AUTH_CHALLENGE = 334


class Exchange(NamedTuple):
    """A command with its reply; the command is None for a 421 that answers nothing."""

    command: Command | None
    reply: Reply


class ClientProtocol:
    """Commands that were sent and not yet answered, and the state that the replies lead to.

    Attributes:
        state: the state confirmed by the server.
        expected_state: the state if every pending reply is positive; decides which commands may be sent next.
        pending: commands sent and not yet answered, oldest first.
        extensions: offered by the last EHLO, minus the masked ones; empty before EHLO and after HELO.
        challenge: the text of the last 334, line by line; the reply itself, which is shown and logged, has `***`.
        reset_refused: true if RSET was refused; only QUIT tells then if the replies before it are one off.
        is_closing: true if a 421 has begun to arrive while no command was pending; nothing may be sent any more.
    """

    __slots__ = (
        "_allowed",
        "_masked",
        "_reader",
        "challenge",
        "expected_state",
        "extensions",
        "is_closing",
        "pending",
        "reset_refused",
        "state",
    )

    def __init__(
        self, *, masked: frozenset[str] = frozenset(), tls: bool = False, mask: SecretMask | None = None
    ) -> None:
        self._allowed = ALLOWED_UNDER_TLS if tls else ALLOWED_COMMANDS
        self.state = ProtocolState.CONNECTED
        self.pending: deque[Command] = deque([GREETING])
        self.expected_state = ProtocolState.GREETED
        self.extensions = Extensions()
        self.challenge: tuple[bytes, ...] = ()
        self.is_closing = False
        self.reset_refused = False
        self._masked = masked
        self._reader = ReplyReader(mask)

    @property
    def mask(self) -> SecretMask:
        """The secrets that are replaced by `***` in every reply and error, since a server may echo them."""
        if self._reader.mask is None:
            self._reader.mask = SecretMask()
        return self._reader.mask

    def can_send(self, command: Command) -> bool:
        """Tell if the command may be sent now: in sequence, and not behind one that ends a group."""
        if self.is_closing or (
            self.pending and (self.pending[-1].verb in ENDS_GROUP or not self.extensions.pipelining)
        ):
            return False
        return command.verb in self._allowed[self.expected_state]

    def send(self, *group: Command, answers: int = 1) -> bytes:
        """Queue commands as one group and return the bytes to write. Write the content before sending END_OF_CONTENT.

        Args:
            answers: replies expected for each command; more than one only for the end of data to an LMTP server.
        Raises:
            LocalProtocolError: a command is out of sequence, or behind one that ends a group; none is queued.
        """
        expected, before = self.expected_state, self.pending[-1].verb if self.pending else None
        pipelining, allowed = self.extensions.pipelining, self._allowed
        for command in group:
            verb = command.verb
            held_back = before is not None and (before in ENDS_GROUP or not pipelining)
            if held_back or verb not in allowed[expected]:
                waiting = f" with {before} unanswered" if before is not None else ""
                raise LocalProtocolError(f"{verb} may not be sent in state {expected}{waiting}")
            before, expected = verb, NEXT_STATE.get(verb, expected)
        self.pending.extend(group if answers == 1 else [command for command in group for _ in range(answers)])
        self.expected_state = expected
        return b"".join([command.octets for command in group])

    def receive(self, data: bytes) -> Iterator[Exchange]:
        """Parse server output; yield each command that it answers, with its reply, oldest first.

        Args:
            data: bytes as read; may end anywhere inside a line.
        Raises:
            RemoteProtocolError: malformed reply; exchanges yielded before it remain valid.
            UnexpectedReply: no command is waiting for the reply (421 excepted), or its command cannot have it. Half a
                line counts: its rest would be taken for a reply to the next command.
            StartTlsInjection: bytes between the 220 to STARTTLS and the TLS handshake.
        RFC 5321 §4.2, RFC 2920 §3.1.
        """
        pending, exchange = self.pending, tuple.__new__  # what NamedTuple does, minus one call
        try:
            if self.state is _TLS and data:
                raise _injection()
            for reply in self._reader.receive(data):
                if pending and reply.code in SUCCESS_CODES and pending[0].verb in PLAIN_VERBS:
                    command = pending.popleft()  # the fast path: nearly every reply
                    self.state = NEXT_STATE[command.verb]
                    if not pending:
                        self.expected_state = self.state
                    yield exchange(Exchange, (command, reply))
                    continue
                yield self._answer(reply)
                if self.state is _CLOSED:
                    return  # replies behind a 421 in the same read answer nothing
            if not pending and not self._reader.is_empty:
                self._check_unsolicited()
        except RemoteProtocolError:
            self.state = self.expected_state = ProtocolState.CLOSED
            raise

    def _answer(self, reply: Reply) -> Exchange:
        if not self.pending:
            return self._unsolicited(reply)
        command = self.pending.popleft()
        lines = self._reader.lines_received(reply)
        if command.verb in AUTH_VERBS and reply.code == AUTH_CHALLENGE:
            self.challenge = lines  # a mechanism needs the exact bytes; masking a short secret could change them
            reply = Reply(AUTH_CHALLENGE, (b"***" if any(lines) else b"",))
        self._advance(command, reply, lines)
        if self.state is _TLS and not self._reader.is_empty:
            raise _injection()
        return Exchange(command, reply)

    def _advance(self, command: Command, reply: Reply, lines: tuple[bytes, ...]) -> None:
        verb = command.verb
        if reply.code == SERVICE_CLOSING:
            self.state = self.expected_state = ProtocolState.CLOSED
            self.pending.clear()
            return
        if not reply.positive:
            if verb is Verb.RSET:
                self.reset_refused = True
            self.state = self.expected_state = NEXT_STATE_IF_REFUSED.get(verb, self.state)
            for later in self.pending:
                self.expected_state = NEXT_STATE.get(later.verb, self.expected_state)
            return
        if reply.code not in EXPECTED_CODES.get(verb, SUCCESS_CODES):
            raise UnexpectedReply(f"the relay answered {verb} with “{reply}”, which is not a valid reply to it")
        self.state = ProtocolState.AUTH if reply.code == AUTH_CHALLENGE else NEXT_STATE.get(verb, self.state)
        self.expected_state = self.state  # commands that get here end their group, so nothing is pending behind them
        if verb in (Verb.EHLO, Verb.LHLO):
            self.extensions = Extensions.parse(reply, lines).without(self._masked)
        elif verb is Verb.HELO:
            self.extensions = Extensions()

    def _unsolicited(self, reply: Reply) -> Exchange:
        writing = self.state is ProtocolState.DATA
        if writing and reply.positive:
            raise UnexpectedReply(
                f"the relay replied “{reply}” before the end of data was sent", claims_acceptance=True
            )
        if not writing and reply.code != SERVICE_CLOSING:
            raise UnexpectedReply(f"the relay sent “{reply}” although no command was waiting for a reply")
        # refused while writing: closing is the only safe way out
        self.state = self.expected_state = ProtocolState.CLOSED
        return Exchange(END_OF_CONTENT if writing else None, reply)

    def _check_unsolicited(self) -> None:
        """Refuse the beginning of a reply that no command is waiting for; a 421 may come at any time."""
        code = self._reader.partial_code
        if self.state is ProtocolState.DATA:
            if code[:1] not in (b"4", b"5"):  # else the content is being refused
                raise UnexpectedReply(
                    f"the relay began the reply “{self.partial_reply}” before the end of data was sent",
                    claims_acceptance=code[:1] in (b"2", b"3"),
                )
        elif not b"421".startswith(code):
            raise UnexpectedReply(
                f"the relay sent “{self.partial_reply}” without a line end although no command was waiting for a reply"
            )
        else:
            self.is_closing = True

    @property
    def partial_reply(self) -> str:
        """The part of an incomplete reply that was received: one line, safe to show; "" if nothing."""
        return self._reader.partial_reply

    def tls_started(self) -> None:
        """Discard what the server sent before TLS (RFC 3207 §4.2); EHLO comes next."""
        if self.state is not ProtocolState.TLS:
            raise LocalProtocolError("TLS started without a positive reply to STARTTLS")
        self.state = self.expected_state = ProtocolState.GREETED
        self.extensions = Extensions()
        self._allowed = ALLOWED_UNDER_TLS

    def receive_eof(self) -> Exchange | RemoteProtocolError | None:
        """Close the dialogue at the end of the connection.

        Returns:
            The exchange of a 421 whose end is missing; an error if the remaining bytes are no reply; else None.
        """
        left = self._reader.receive_eof()
        exchange = None
        if isinstance(left, Reply):
            exchange = Exchange(self.pending.popleft() if self.pending else None, left)
            if exchange.command is None and self.state is ProtocolState.DATA:
                exchange = Exchange(END_OF_CONTENT, left)
            self.pending.clear()
        self.state = self.expected_state = ProtocolState.CLOSED
        return exchange if isinstance(left, Reply) else left


def _injection() -> StartTlsInjection:
    return StartTlsInjection(
        "the relay's 220 to STARTTLS was followed by plaintext bytes: "
        "someone may be tampering with the connection; nothing was sent"
    )
