"""The state of one connection as the relay sees it: greeting, TLS, login, transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from asyncsmtp.testing.parser import CommandSyntaxError, Path, path
from asyncsmtp.testing.policy import Policy, ServerLogin
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.script import Stage
from asyncsmtp.testing.transport import InputBuffer

__all__ = ["Mode", "NextAction", "ReceivedLine", "ServerState", "ServerTransaction", "apply"]


class Mode(Enum):
    """What the input is read as, or what is due without any."""

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
    """One thing that waits for an answer: a command, a response, content, or a beginning (no line).

    Attributes:
        content: of the dot and of BDAT; `fits` tells whether it stayed within the policy's size.
        last: whether it ends the content.
        path: of MAIL and RCPT, once it was understood.
    """

    stage: Stage
    line: bytes = b""
    verb: bytes = b""
    argument: bytes = b""
    content: bytes = b""
    fits: bool = True
    last: bool = False
    path: Path | None = None


@dataclass(slots=True)
class ServerTransaction:
    """What MAIL opened (RFC 5321 §3.3)."""

    mail: Path
    recipients: list[Path] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    chunk_refused: bool = False
    accepted: str | None = None  # what the message's owner said of it, once it was handed over


@dataclass(slots=True)
class ServerState:
    """Where a connection stands.

    Attributes:
        accept: takes a message and returns the text behind its 250; called before the reply is written.
        attempted: is told how each AUTH ended.
        hello: EHLO or HELO, whichever was accepted last.
        barred: the greeting was a refusal; nothing but QUIT is taken.
        early: the code of a reply to the content that was said before its end.
    """

    policy: Policy
    number: int
    accept: Callable[[Received], str]
    attempted: Callable[[AuthAttempt], None]
    implicit_tls: bool = False
    input: InputBuffer = field(default_factory=InputBuffer)
    mode: Mode = Mode.CONNECT
    tls: bool = False
    barred: bool = False
    hello: Stage | None = None
    user: str | None = None
    login: ServerLogin | None = None
    transaction: ServerTransaction | None = None
    chunk: ReceivedLine | None = None
    body_begun: bool = False
    early: int | None = None

    @property
    def extended(self) -> bool:
        """Whether the client said EHLO, so that extensions count."""
        return self.hello is Stage.EHLO

    @property
    def reverse_path(self) -> str | None:
        return None if self.transaction is None else self.transaction.mail.address

    @property
    def forward_paths(self) -> tuple[str, ...]:
        return () if self.transaction is None else tuple(path.address for path in self.transaction.recipients)

    def this_login(self, said: ReceivedLine) -> ServerLogin:
        """The login under way; begun by this AUTH if there is none."""
        if self.login is None:
            self.login = ServerLogin(said.argument, self.policy.users, self.policy.mechanisms)
        return self.login

    def keep(self, content: bytes, *, chunked: bool) -> str:
        """Hand the message over, once; return the text behind its 250."""
        transaction = self.transaction or ServerTransaction(Path("", {}))
        if transaction.accepted is None:
            transaction.accepted = self.accept(
                Received(
                    reverse_path=transaction.mail.address,
                    forward_paths=self.forward_paths,
                    content=content,
                    tls=self.tls,
                    user=self.user,
                    parameters=transaction.mail.parameters,
                    recipient_parameters=tuple(path.parameters for path in transaction.recipients),
                    connection=self.number,
                    chunked=chunked,
                )
            )
        return transaction.accepted

    def upgraded(self) -> None:
        """TLS is up: forget what was known before (RFC 3207 §4.2); only implicit TLS has its greeting to come."""
        self.mode = Mode.GREETING if self.implicit_tls else Mode.COMMAND
        self.tls = True
        self.user = None
        self.hello = None
        self.transaction = None


class NextAction(Enum):
    """What the connection must do after a reply."""

    GO_ON = auto()
    UPGRADE = auto()
    CLOSE = auto()


def apply(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    """Bring the state to where this reply tells the client it is.

    Args:
        code: what was said; 0 for the usual without words, None when a script said nothing it stands by.
    """
    then = _APPLY[said.stage](state, said, code)
    return NextAction.CLOSE if code == 421 else then


def _positive(code: int | None) -> bool:
    return code is not None and 200 <= code < 300


def _nothing(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    return NextAction.GO_ON


def _connect(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    begin = Mode.HANDSHAKE if state.implicit_tls else Mode.GREETING
    state.mode = begin if code == 0 else Mode.SILENT
    return NextAction.GO_ON


def _handshake(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    state.mode = Mode.SILENT
    return NextAction.UPGRADE if code == 0 else NextAction.GO_ON


def _greeting(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    state.mode = Mode.COMMAND
    state.barred = code is not None and code >= 400
    return NextAction.GO_ON


def _hello(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if _positive(code):
        state.hello = said.stage
        state.transaction = None
    return NextAction.GO_ON


def _starttls(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if code == 220:
        state.mode = Mode.HANDSHAKE
        state.input.clear()  # what the client sent in clear behind STARTTLS must not count (RFC 3207 §4.2)
    return NextAction.GO_ON


def _auth(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    login = state.this_login(said)
    state.mode = Mode.RESPONSE if code == 334 else Mode.COMMAND
    if code == 334:
        return NextAction.GO_ON
    state.login = None
    state.attempted(login.attempt(code == 235))
    if code == 235:
        state.user = login.user or ""
    return NextAction.GO_ON


def _mail(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if _positive(code):
        state.transaction = ServerTransaction(said.path or _as_it_is(said.argument, "FROM:"))
    return NextAction.GO_ON


def _rcpt(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if _positive(code) and state.transaction is not None:
        state.transaction.recipients.append(said.path or _as_it_is(said.argument, "TO:"))
    return NextAction.GO_ON


def _as_it_is(argument: bytes, keyword: str) -> Path:
    """The path of a command that a script accepted: understood if it can be, word for word otherwise."""
    try:
        return path(argument, keyword)
    except CommandSyntaxError:
        return Path(argument.decode("utf-8", "backslashreplace"), {})


def _data(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if code == 354:
        state.mode, state.body_begun, state.early = Mode.CONTENT, False, None
    return NextAction.GO_ON


def _body(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    state.early = code or None
    return NextAction.GO_ON


def _dot(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if _positive(code or state.early):
        state.keep(said.content, chunked=False)
    state.mode = Mode.COMMAND
    state.transaction = None
    return NextAction.GO_ON


def _bdat(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    transaction = state.transaction
    if transaction is None:
        return NextAction.GO_ON
    if not _positive(code):
        transaction.chunk_refused = True  # RFC 3030 §2: RSET must come before anything else
    elif said.last:
        state.keep(b"".join([*transaction.chunks, said.content]), chunked=True)
        state.transaction = None
    else:
        transaction.chunks.append(said.content)
    return NextAction.GO_ON


def _rset(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    if _positive(code):
        state.transaction = None
    return NextAction.GO_ON


def _quit(state: ServerState, said: ReceivedLine, code: int | None) -> NextAction:
    return NextAction.CLOSE if _positive(code) else NextAction.GO_ON


_APPLY: Final[Mapping[Stage, Callable[[ServerState, ReceivedLine, int | None], NextAction]]] = {
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
    Stage.DOT: _dot,
    Stage.BDAT: _bdat,
    Stage.RSET: _rset,
    Stage.NOOP: _nothing,
    Stage.QUIT: _quit,
    Stage.OTHER: _nothing,
}
