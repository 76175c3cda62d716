"""The state of one connection as the relay sees it: greeting, TLS, login, transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from asyncsmtp.testing.auth import Login
from asyncsmtp.testing.grammar import Path
from asyncsmtp.testing.policy import Policy
from asyncsmtp.testing.reading import Input
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.script import Stage

__all__ = ["Mode", "Said", "State", "Transaction"]


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
class Said:
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
class Transaction:
    """What MAIL opened (RFC 5321 §3.3)."""

    mail: Path
    recipients: list[Path] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    chunk_refused: bool = False
    accepted: str | None = None  # what the message's owner said of it, once it was handed over


@dataclass(slots=True)
class State:
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
    input: Input = field(default_factory=Input)
    mode: Mode = Mode.CONNECT
    tls: bool = False
    barred: bool = False
    hello: Stage | None = None
    user: str | None = None
    login: Login | None = None
    transaction: Transaction | None = None
    chunk: Said | None = None
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

    def this_login(self, said: Said) -> Login:
        """The login under way; begun by this AUTH if there is none."""
        if self.login is None:
            self.login = Login(said.argument, self.policy.users, self.policy.mechanisms)
        return self.login

    def keep(self, content: bytes, *, chunked: bool) -> str:
        """Hand the message over, once; return the text behind its 250."""
        transaction = self.transaction or Transaction(Path("", {}))
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
