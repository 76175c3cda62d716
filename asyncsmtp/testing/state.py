"""The state of one connection as the relay sees it (greeting, TLS, login, transaction), and how replies change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from asyncsmtp.testing.parser import CommandSyntaxError, ParsedPath, parse_path
from asyncsmtp.testing.policy import Policy, ServerLogin
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.script import Stage
from asyncsmtp.testing.transport import InputBuffer

__all__ = ["Mode", "NextAction", "ReceivedLine", "ServerState", "ServerTransaction", "apply"]


class Mode(Enum):
    """The way to read the input, or the step that is due without input."""

    CONNECT = auto()
    HANDSHAKE = auto()
    GREETING = auto()
    COMMAND = auto()
    RESPONSE = auto()
    CONTENT = auto()
    CHUNK = auto()
    SILENT = auto()


@dataclass(slots=True)
class ReceivedLine:
    """One unit to answer: a command, a response, content, or a stage without input (no line).

    Attributes:
        content: at END_OF_DATA and BDAT; `within_limit` is false if it was larger than the policy allows.
        last: true if it ends the content.
        path: of MAIL and RCPT, once it was parsed.
    """

    stage: Stage
    line: bytes = b""
    verb: bytes = b""
    argument: bytes = b""
    content: bytes = b""
    within_limit: bool = True
    last: bool = False
    path: ParsedPath | None = None


@dataclass(slots=True)
class ServerTransaction:
    """A transaction, begun by MAIL (RFC 5321 §3.3)."""

    mail: ParsedPath
    recipients: list[ParsedPath] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    chunk_refused: bool = False
    accepted: str | None = None  # the text that `accept` returned


@dataclass(slots=True)
class ServerState:
    """The state of a connection.

    Attributes:
        accept: takes a message and returns the text of its 250; called before the reply is written.
        auth_attempted: called with the result of each AUTH.
        hello: EHLO or HELO, whichever was accepted last.
        rejected: the greeting was a refusal; only QUIT is accepted.
        early_reply: the code of a reply to the content that was sent before its end.
    """

    policy: Policy
    number: int
    accept: Callable[[Received], str]
    auth_attempted: Callable[[AuthAttempt], None]
    implicit_tls: bool = False
    input: InputBuffer = field(default_factory=InputBuffer)
    mode: Mode = Mode.CONNECT
    tls: bool = False
    rejected: bool = False
    hello: Stage | None = None
    user: str | None = None
    login: ServerLogin | None = None
    transaction: ServerTransaction | None = None
    chunk: ReceivedLine | None = None
    body_started: bool = False
    early_reply: int | None = None

    @property
    def is_esmtp(self) -> bool:
        """True if the client sent EHLO, so that extensions may be used."""
        return self.hello is Stage.EHLO

    @property
    def reverse_path(self) -> str | None:
        return None if self.transaction is None else self.transaction.mail.address

    @property
    def forward_paths(self) -> tuple[str, ...]:
        return () if self.transaction is None else tuple(path.address for path in self.transaction.recipients)

    def current_login(self, received: ReceivedLine) -> ServerLogin:
        """Return the login in progress; start it with this AUTH if there is none."""
        if self.login is None:
            self.login = ServerLogin(received.argument, self.policy.users, self.policy.mechanisms)
        return self.login

    def accept_message(self, content: bytes, *, chunked: bool) -> str:
        """Pass the message to `accept`, once; return the text of its 250."""
        transaction = self.transaction or ServerTransaction(ParsedPath("", {}))
        if transaction.accepted is None:
            transaction.accepted = self.accept(
                Received(
                    reverse_path=transaction.mail.address,
                    forward_paths=self.forward_paths,
                    content=content,
                    tls=self.tls,
                    user=self.user,
                    parameters=transaction.mail.parameters,
                    rcpt_parameters=tuple(path.parameters for path in transaction.recipients),
                    connection=self.number,
                    chunked=chunked,
                )
            )
        return transaction.accepted

    def tls_started(self) -> None:
        """Discard the state from before TLS (RFC 3207 §4.2); the greeting is due after implicit TLS only."""
        self.mode = Mode.GREETING if self.implicit_tls else Mode.COMMAND
        self.tls = True
        self.user = None
        self.hello = None
        self.transaction = None


class NextAction(Enum):
    """The connection's next action after a reply."""

    GO_ON = auto()
    UPGRADE = auto()
    CLOSE = auto()


def apply(state: ServerState, received: ReceivedLine, code: int | None) -> NextAction:
    """Update the state to what this reply tells the client.

    Args:
        code: of the reply; 0 for the default action without a reply, None if a script sent no reply that counts.
    """
    effect = _EFFECTS.get(received.stage)
    action = effect(state, received, code) if effect is not None else None
    return NextAction.CLOSE if code == 421 else action or NextAction.GO_ON


def _positive(code: int | None) -> bool:
    return code is not None and 200 <= code < 300


def _connect(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    mode = Mode.HANDSHAKE if state.implicit_tls else Mode.GREETING
    state.mode = mode if code == 0 else Mode.SILENT


def _handshake(state: ServerState, received: ReceivedLine, code: int | None) -> NextAction | None:
    state.mode = Mode.SILENT
    return NextAction.UPGRADE if code == 0 else None


def _greeting(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    state.mode = Mode.COMMAND
    state.rejected = code is not None and code >= 400


def _hello(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if _positive(code):
        state.hello = received.stage
        state.transaction = None


def _starttls(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if code == 220:
        state.mode = Mode.HANDSHAKE
        state.input.clear()  # plaintext pipelined after STARTTLS must be ignored (RFC 3207 §4.2)


def _auth(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    login = state.current_login(received)
    state.mode = Mode.RESPONSE if code == 334 else Mode.COMMAND
    if code == 334:
        return
    state.login = None
    state.auth_attempted(login.attempt(code == 235))
    if code == 235:
        state.user = login.user or ""


def _mail(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if _positive(code):
        state.transaction = ServerTransaction(received.path or _parse_leniently(received.argument, "FROM:"))


def _rcpt(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if _positive(code) and state.transaction is not None:
        state.transaction.recipients.append(received.path or _parse_leniently(received.argument, "TO:"))


def _parse_leniently(argument: bytes, keyword: str) -> ParsedPath:
    """Return the path of a command that a script accepted: parsed if possible, else as it is."""
    try:
        return parse_path(argument, keyword)
    except CommandSyntaxError:
        return ParsedPath(argument.decode("utf-8", "backslashreplace"), {})


def _data(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if code == 354:
        state.mode, state.body_started, state.early_reply = Mode.CONTENT, False, None


def _body(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    state.early_reply = code or None


def _end_of_data(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if _positive(code or state.early_reply):
        state.accept_message(received.content, chunked=False)
    state.mode = Mode.COMMAND
    state.transaction = None


def _bdat(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    transaction = state.transaction
    if transaction is None:
        return
    if not _positive(code):
        transaction.chunk_refused = True  # RFC 3030 §2: RSET must come before anything else
    elif received.last:
        state.accept_message(b"".join([*transaction.chunks, received.content]), chunked=True)
        state.transaction = None
    else:
        transaction.chunks.append(received.content)


def _rset(state: ServerState, received: ReceivedLine, code: int | None) -> None:
    if _positive(code):
        state.transaction = None


def _quit(state: ServerState, received: ReceivedLine, code: int | None) -> NextAction | None:
    return NextAction.CLOSE if _positive(code) else None


_EFFECTS: Final[Mapping[Stage, Callable[[ServerState, ReceivedLine, int | None], NextAction | None]]] = {
    Stage.CONNECT: _connect,
    Stage.HANDSHAKE: _handshake,
    Stage.GREETING: _greeting,
    Stage.EHLO: _hello,
    Stage.HELO: _hello,
    Stage.STARTTLS: _starttls,
    Stage.AUTH: _auth,
    Stage.RESPONSE: _auth,
    Stage.MAIL: _mail,
    Stage.RCPT: _rcpt,
    Stage.DATA: _data,
    Stage.BODY: _body,
    Stage.END_OF_DATA: _end_of_data,
    Stage.BDAT: _bdat,
    Stage.RSET: _rset,
    Stage.QUIT: _quit,
}
