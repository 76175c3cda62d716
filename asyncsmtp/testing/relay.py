"""SMTP servers on loopback for tests: a scripted relay with faults, and a sandbox that stores mail."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from asyncsmtp.testing.connection import ServerConnection
from asyncsmtp.testing.default_replies import violates_pipelining
from asyncsmtp.testing.parser import CommandSyntaxError, parse_path
from asyncsmtp.testing.policy import DEFAULT_MECHANISMS, MECHANISMS, OFFERS, MechanismFactory, Policy
from asyncsmtp.testing.received import AuthAttempt, Maildir, MailTransaction, MessageNotAccepted, Received, StoredMail
from asyncsmtp.testing.script import Rule, Script, Stage, StageContext
from asyncsmtp.testing.state import ReceivedLine, ServerState

__all__ = ["Sandbox", "ScriptedRelay", "SmtpServer"]


class SmtpServer:
    """A listener that gives each connection its number and state, and closes them all in `aclose`.

    Attributes:
        connections: the number of connections opened so far.
        failures: exceptions raised by a rule or `accept`; the first is raised again at the end of `async with`.
    """

    def __init__(
        self,
        policy: Policy,
        script: Script,
        *,
        context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | os.PathLike[str] | None = None,
        round_trip: float = 0.0,
        receive_buffer: int | None = None,
    ) -> None:
        if implicit_tls and context is None:
            raise ValueError("implicit TLS needs a context with a certificate: give tls=")
        self.policy = policy
        self.script = script
        self.context = context
        self.implicit_tls = implicit_tls
        self.host = host
        self.port = port
        self.unix_path = None if unix_path is None else Path(unix_path)
        self.round_trip = round_trip
        self.connections = 0
        self.failures: list[Exception] = []
        self._receive_buffer = receive_buffer
        self._open: set[ServerConnection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._server: asyncio.Server | None = None
        self._occurrences: Counter[Stage] = Counter()
        self._occurrences_on_connection: Counter[tuple[int, Stage]] = Counter()

    @property
    def open_connections(self) -> int:
        """The number of connections open now."""
        return len(self._open)

    @property
    def url(self) -> str:
        """The address that it listens on, as a relay's URL that includes its security."""
        security = "tls" if self.implicit_tls else "starttls" if self.policy.starttls else "none"
        scheme, implied = ("lmtp", "none") if self.policy.lmtp else ("smtp", "starttls")
        address = f"{self.host}:{self.port}"
        if self.unix_path is not None:
            scheme, implied, address = f"{scheme}+unix", "none", quote(os.fsencode(self.unix_path))
        elif self.implicit_tls and not self.policy.lmtp:
            scheme, implied = "smtps", "tls"
        return f"{scheme}://{address}" + ("" if security == implied else f"?security={security}")

    async def start(self) -> None:
        """Listen; from here on `port` and `url` are known."""
        loop = asyncio.get_running_loop()
        if self.unix_path is not None:
            self._server = await loop.create_unix_server(self._make_connection, str(self.unix_path))
            return
        sock = socket.create_server((self.host, self.port), backlog=512)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._server = await loop.create_server(self._make_connection, sock=sock)
        self.port = sock.getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening, abort open connections, and return when all are closed."""
        server = self._server
        if server is None:
            return
        await self._stop_listening(server)
        for connection in list(self._open):
            await connection.aclose()
        await self._idle.wait()
        await server.wait_closed()
        self._server = None
        if self.unix_path is not None:
            self.unix_path.unlink(missing_ok=True)

    async def _stop_listening(self, server: asyncio.Server) -> None:
        """Stop accepting, and return when every accepted connection is open.

        For one turn of the loop after accepting, asyncio has a connection without a transport, and drops it unclosed if
        its server is closed by then; and it makes the transport one turn before it calls `connection_made`.
        """
        with suppress(NotImplementedError):  # completion-based loops have no such turn
            for sock in server.sockets:
                asyncio.get_running_loop().remove_reader(sock)
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
        if self.failures and error is None:
            raise self.failures[0]

    async def wait_until_idle(self) -> None:
        """Return when no connection is open."""
        await self._idle.wait()

    def _make_connection(self) -> ServerConnection:
        self.connections += 1
        state = ServerState(
            self.policy, self.connections, self.accept, self.auth_attempted, implicit_tls=self.implicit_tls
        )
        return ServerConnection(self, state)

    # callbacks of a connection, see connection.ConnectionHandler

    def connection_opened(self, connection: ServerConnection) -> None:
        self._open.add(connection)
        self._idle.clear()

    def accept(self, message: Received) -> str:
        """Accept a message; return the text of its 250. Called before the reply is written."""
        return "ok"

    def auth_attempted(self, attempt: AuthAttempt) -> None:
        """Record the result of an AUTH."""

    def command_received(self, state: ServerState, received: ReceivedLine) -> None:
        """Record a command, or a stage without input."""

    def reply_sent(self, state: ServerState, octets: bytes) -> None:
        """Record bytes that are sent to the client."""

    def stage_context(self, state: ServerState, received: ReceivedLine) -> StageContext:
        """Return the argument for a rule of the script."""
        return StageContext(
            stage=received.stage,
            line=received.line,
            occurrence=self._occurrences[received.stage],
            occurrence_on_connection=self._occurrences_on_connection[state.number, received.stage],
            connection=state.number,
            tls=state.tls,
            user=state.user,
            reverse_path=state.reverse_path,
            forward_paths=state.forward_paths,
            pipelined_input=state.input.peek(),
            content=received.content,
        )

    def rule_failed(self, error: Exception) -> None:
        self.failures.append(error)

    def tls_failed(self, error: BaseException) -> None:
        """Record a TLS handshake that failed."""

    def connection_closed(self, connection: ServerConnection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._idle.set()


CR = b"\r"
_WITHOUT_LINE: Final = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.GREETING, Stage.BODY})


class ScriptedRelay(SmtpServer):
    """An SMTP server on loopback that keeps the mail it receives, and follows a script.

        async with ScriptedRelay() as relay:
            await send_my_mail(relay.host, relay.port)
            await relay.wait_for(1)
        [message] = relay.received
        assert message.forward_paths == ("ann@example.net",)
        assert message.email["Subject"] == "News"

        async with ScriptedRelay({Stage.END_OF_DATA: (NO_REPLY, Fin())}) as relay: ...  # accepts the mail, closes

    Args:
        script: actions by stage; see `asyncsmtp.testing.script`. Other stages are answered as RFC 5321 requires.
        offers: the EHLO keywords with their parameters. SIZE, STARTTLS and AUTH come from the arguments below.
        hides: keywords that are supported but not offered, as if an attacker had stripped STARTTLS.
        tls: a server's context with its certificate; STARTTLS is offered, unless `implicit_tls`.
        users: names and passwords (tokens, for XOAUTH2); AUTH is offered if there are any.
        mechanisms: the ones it offers; default PLAIN, LOGIN and XOAUTH2. OAUTHBEARER, CRAM-MD5, EXTERNAL and
            SCRAM-SHA-1, -256 and -512 are known by name; a mapping gives the server side of each, see `ServerScram`.
        auth_needs_tls: AUTH is neither offered nor accepted before TLS.
        needs_auth, needs_tls: MAIL is refused with 530 before the login, before TLS.
        max_size: bytes that it accepts; None is unlimited, and announces SIZE without a number.
        lmtp: LMTP (RFC 2033): LHLO, and one reply for each recipient after the content.
        runs_refused_chunk: reads the bytes of a refused BDAT as commands, as go-smtp 0.21 does.
        on_accept: called with each message before its 250 is written; returns the text of the 250, or raises
            `MessageNotAccepted` with another reply.
        round_trip: seconds by which all output is delayed, in order; input is not delayed.
        unix_path: listen on this Unix socket instead of `host` and `port` (0: any free one).
        receive_buffer: bytes (SO_RCVBUF); a small one makes the client's writes block early.

    Attributes:
        received: the messages that it accepted, in order.
        dialogue: commands and replies as `C: …` and `S: …` lines, over all connections; content is `C: .`.
        auth_attempts: each AUTH and its result.
        pipelining_violations: input that the client sent although it had to wait first (RFC 2920 §3.1), described.
        tls_failures: the reasons of failed handshakes.
        connections, open_connections: the number so far, and now.
    """

    def __init__(
        self,
        script: Mapping[Stage, Rule] | None = None,
        *,
        offers: Iterable[str] = OFFERS,
        hides: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        users: Mapping[str, str] | None = None,
        mechanisms: Iterable[str] | Mapping[str, MechanismFactory] = tuple(DEFAULT_MECHANISMS),
        auth_needs_tls: bool = False,
        needs_auth: bool = False,
        needs_tls: bool = False,
        max_size: int | None = 52_428_800,
        lmtp: bool = False,
        runs_refused_chunk: bool = False,
        name: str = "relay.example",
        on_accept: Callable[[Received], str] | None = None,
        round_trip: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | os.PathLike[str] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        policy = Policy(
            name=name,
            offers=tuple(offers),
            hides=frozenset(keyword.upper() for keyword in hides),
            starttls=tls is not None and not implicit_tls,
            users=users or {},
            mechanisms=_server_sides(mechanisms),
            auth_needs_tls=auth_needs_tls,
            needs_auth=needs_auth,
            needs_tls=needs_tls,
            max_size=max_size,
            lmtp=lmtp,
            runs_refused_chunk=runs_refused_chunk,
        )
        super().__init__(
            policy,
            Script(script or {}),
            context=tls,
            implicit_tls=implicit_tls,
            host=host,
            port=port,
            unix_path=unix_path,
            round_trip=round_trip,
            receive_buffer=receive_buffer,
        )
        self.received: list[Received] = []
        self.dialogue: list[str] = []
        self.auth_attempts: list[AuthAttempt] = []
        self.pipelining_violations: list[str] = []
        self.tls_failures: list[str] = []
        self._on_accept = on_accept
        self._dialogues: dict[int, list[str]] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def get_dialogue(self, connection: int) -> list[str]:
        """Return the lines of one connection, counted from 1."""
        return self._dialogues.get(connection, [])

    def count_stage(self, stage: Stage) -> int:
        """Return how often this stage was reached, over all connections."""
        return self._occurrences[stage]

    async def wait_for(self, messages: int = 1) -> None:
        """Return when so many messages have been received since the start."""
        await self.wait_until(lambda: len(self.received) >= messages)

    async def wait_for_stage(self, stage: Stage, times: int = 1) -> None:
        """Return when this stage was reached for the n-th time; the relay has not answered yet."""
        await self.wait_until(lambda: self._occurrences[stage] >= times)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is checked at each input, message and closed connection."""
        if condition():
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            self._waiters.remove(waiter)

    def _notify_waiters(self) -> None:
        for condition, waiter in self._waiters:
            if not waiter.done() and condition():
                waiter.set_result(None)

    # callbacks of a connection

    def accept(self, message: Received) -> str:
        text = self._on_accept(message) if self._on_accept else f"ok: queued as {len(self.received) + 1}"
        self.received.append(message)
        self._notify_waiters()
        return text

    def auth_attempted(self, attempt: AuthAttempt) -> None:
        self.auth_attempts.append(attempt)

    def command_received(self, state: ServerState, received: ReceivedLine) -> None:
        self._occurrences[received.stage] += 1
        self._occurrences_on_connection[state.number, received.stage] += 1
        if received.stage not in _WITHOUT_LINE:
            self._record(state, "C: ." if received.stage is Stage.END_OF_DATA else f"C: {_text(received.line)}")
        if violates_pipelining(state, received):
            self.pipelining_violations.append(f"{received.stage} with {len(state.input)} bytes after it")
        self._notify_waiters()

    def reply_sent(self, state: ServerState, octets: bytes) -> None:
        for line in octets.removesuffix(b"\n").split(b"\n"):
            self._record(state, f"S: {_text(line.removesuffix(CR))}")

    def tls_failed(self, error: BaseException) -> None:
        self.tls_failures.append(str(error))

    def connection_closed(self, connection: ServerConnection) -> None:
        super().connection_closed(connection)
        self._notify_waiters()

    def _record(self, state: ServerState, line: str) -> None:
        self.dialogue.append(line)
        self._dialogues.setdefault(state.number, []).append(line)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _server_sides(mechanisms: Iterable[str] | Mapping[str, MechanismFactory]) -> Mapping[str, MechanismFactory | None]:
    if isinstance(mechanisms, Mapping):
        return dict(mechanisms)
    return {name: MECHANISMS.get(name) for name in mechanisms}


class Sandbox(SmtpServer):
    """A relay that accepts everything and delivers nothing.

        async with Sandbox("mail") as sandbox:
            await send_my_campaign(sandbox.url)
            print(sandbox.count)
        for mail in sandbox.mails():
            print(render(mail))

    It offers PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8 and SIZE, and STARTTLS if it has a certificate. A mail is in
    `new` before its 250 is written; the file is not synchronized to the disk, since it is only there to be looked at.
    Its transaction is kept beside it, see `StoredMail.transaction`.

    Args:
        maildir: the folder, created if missing; None stores nothing and counts.
        refuse: replies to RCPT by address, or by "@domain" for a whole domain: {"ann@example.net": "550 5.1.1 gone"}.
        fail_every: each n-th message is answered with 451 instead of being stored.
        tls: a server's context with its certificate.
        users: names and passwords, to try out a login; nobody has to log in.

    Attributes:
        count: mails stored since it started.
    """

    def __init__(
        self,
        maildir: str | os.PathLike[str] | None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        users: Mapping[str, str] | None = None,
        refuse: Mapping[str, str] | None = None,
        fail_every: int | None = None,
        max_size: int | None = 52_428_800,
        round_trip: float = 0.0,
        name: str = "sandbox.localhost",
    ) -> None:
        policy = Policy(name=name, starttls=tls is not None, users=users or {}, max_size=max_size)
        super().__init__(
            policy, Script(_refusals(refuse or {})), context=tls, host=host, port=port, round_trip=round_trip
        )
        self.count = 0
        self._maildir = None if maildir is None else Maildir(maildir)
        self._fail_every = fail_every
        self._offered = 0
        self._recorders: dict[int, _TransactionRecorder] = {}

    def mails(self) -> Iterator[StoredMail]:
        """Return the mails in its Maildir, earlier ones included, in the order of arrival."""
        return iter(()) if self._maildir is None else self._maildir.mails()

    def accept(self, message: Received) -> str:
        self._offered += 1
        if self._fail_every and self._offered % self._fail_every == 0:
            raise MessageNotAccepted("451 4.3.0 failing on request, try again later")
        try:
            name = "nowhere" if self._maildir is None else self._maildir.add(message)
        except OSError as error:
            raise MessageNotAccepted(f"452 4.3.1 the sandbox cannot write: {error.strerror}") from error
        self.count += 1
        if (recorder := self._recorders.get(message.connection)) is not None:
            recorder.stored = name, message
        return f"ok: stored as {name}"

    def command_received(self, state: ServerState, received: ReceivedLine) -> None:
        if self._maildir is not None and received.stage not in _WITHOUT_REPLY:
            recorder = self._recorders.get(state.number)
            if recorder is None:
                recorder = self._recorders[state.number] = _TransactionRecorder()
            recorder.add_command(received, in_transaction=state.transaction is not None)

    def reply_sent(self, state: ServerState, octets: bytes) -> None:
        recorder = self._recorders.get(state.number)
        for name, transaction in recorder.add_replies(octets) if recorder is not None else ():
            assert self._maildir is not None
            with suppress(OSError):  # the mail itself is stored
                self._maildir.add_transaction(name, transaction)

    def connection_closed(self, connection: ServerConnection) -> None:
        super().connection_closed(connection)
        self._recorders.pop(connection.state.number, None)


_WITHOUT_REPLY: Final = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.BODY})
_OPENING: Final = frozenset({Stage.GREETING, Stage.EHLO, Stage.HELO, Stage.STARTTLS, Stage.AUTH, Stage.RESPONSE})
_MECHANISM: Final = re.compile(r"(?i)(AUTH +[A-Z0-9_-]{1,20})(?: .*)?", re.DOTALL)
MAX_LINE = 1000  # characters
MAX_OPENING = 100  # lines of the opening of a connection that are kept
MAX_DIALOGUE = 400  # lines of a transaction; a longer one has its first and its last
_Stored = tuple[str, Received]


class _TransactionRecorder:
    """The dialogue of one connection: its opening, and the transaction that has begun.

    A client that pipelines sends commands before it has the replies to others. Each command gets one reply, in order,
    so that they are put together again.

    Attributes:
        stored: the mail that the last command has completed, and its name.
    """

    def __init__(self) -> None:
        self.stored: _Stored | None = None
        self._opening: list[str] = []
        self._lines: list[str] = []
        self._omitted = 0
        self._waiting: deque[tuple[bool, Stage, str, _Stored | None]] = deque()

    def add_command(self, received: ReceivedLine, *, in_transaction: bool) -> None:
        """Add a command, or the greeting, that is answered next."""
        self._attach_stored()
        begins = received.stage is Stage.MAIL and not in_transaction
        self._waiting.append((begins, received.stage, _describe(received), None))

    def add_replies(self, octets: bytes) -> Iterator[tuple[str, MailTransaction]]:
        """Add replies, each complete; yield the transactions that they end."""
        self._attach_stored()
        lines: list[str] = []
        for line in octets.removesuffix(b"\r\n").split(b"\r\n"):
            lines.append(f"S: {_text(line)[:MAX_LINE]}")
            if line[3:4] != b"-" and self._waiting:
                begins, stage, command, stored = self._waiting.popleft()
                if begins:
                    self._lines, self._omitted = [], 0
                kept = self._opening if stage in _OPENING else self._lines
                kept += [*filter(None, [command]), *lines]
                lines = []
                self._shorten()
                if stored is not None:
                    yield stored[0], self._describe_transaction(stored[1])

    def _attach_stored(self) -> None:
        """Note with the last command that it has completed a mail."""
        if self.stored is not None and self._waiting:
            self._waiting[-1] = (*self._waiting[-1][:3], self.stored)
        self.stored = None

    def _shorten(self) -> None:
        del self._opening[MAX_OPENING:]
        if len(self._lines) > MAX_DIALOGUE:
            half = MAX_DIALOGUE // 2
            self._omitted += len(self._lines) - MAX_DIALOGUE
            del self._lines[half : len(self._lines) - half]

    def _describe_transaction(self, message: Received) -> MailTransaction:
        lines, half = self._lines, MAX_DIALOGUE // 2
        if self._omitted:
            lines = [*lines[:half], f"… {self._omitted:,} lines are left out", *lines[half:]]
        return MailTransaction(
            message.connection,
            message.tls,
            message.user,
            message.chunked,
            message.parameters,
            message.rcpt_parameters,
            (*self._opening, *lines),
        )


def _describe(received: ReceivedLine) -> str:
    """Return the line of a command, without what proves who somebody is; "" for the greeting, which has none."""
    if received.stage is Stage.GREETING:
        return ""
    if received.stage is Stage.END_OF_DATA:
        return "C: ."
    if received.stage is Stage.RESPONSE:
        return "C: ***"
    line = _text(received.line)[:MAX_LINE]
    if received.stage is Stage.AUTH:
        mechanism = _MECHANISM.fullmatch(line)
        masked = "AUTH" if mechanism is None else mechanism[1]
        line = masked if masked == line else f"{masked} ***"
    return f"C: {line}"


def _refusals(refuse: Mapping[str, str]) -> dict[Stage, Rule]:
    """Return the rule for RCPT, if there is one: domains in any case, local parts as they are."""
    if not refuse:
        return {}
    replies = {_key(address): reply for address, reply in refuse.items()}

    def rule(context: StageContext) -> str | None:
        try:
            key = _key(parse_path(context.line.partition(b" ")[2], "TO:").address)
        except CommandSyntaxError:
            return None
        return replies.get(key) or replies.get(key[key.rfind("@") :])

    return {Stage.RCPT: rule}


def _key(address: str) -> str:
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}" if at else address
