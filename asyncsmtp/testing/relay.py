"""A relay for tests: correct by default, and as wrong as a script wants it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from asyncsmtp.testing.connection import ServerConnection
from asyncsmtp.testing.default_replies import is_improper
from asyncsmtp.testing.policy import MECHANISMS, OFFERS, USUAL, Begin, Policy
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.script import Cue, Rule, Script, Stage
from asyncsmtp.testing.state import ReceivedLine, ServerState

__all__ = ["ScriptedRelay", "SmtpServer"]


class SmtpServer:
    """Listens, gives each connection its number and state, and ends them all in `aclose`.

    Attributes:
        connections: how many were opened so far.
        failures: what a rule or `accept` raised; the first is raised again at the end of `async with`.
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
        self._occurrences_here: Counter[tuple[int, Stage]] = Counter()

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    @property
    def url(self) -> str:
        """Where it listens, as a relay's URL, its security included."""
        protocol = "lmtp" if self.policy.lmtp else "smtp"
        security = "tls" if self.implicit_tls else "starttls" if self.policy.starttls else "none"
        if self.unix_path is not None:
            return f"{protocol}+unix://{quote(os.fsencode(self.unix_path))}" + _unless("none", security)
        where = f"{self.host}:{self.port}"
        if self.policy.lmtp:
            return f"lmtp://{where}" + _unless("none", security)
        return f"smtps://{where}" if self.implicit_tls else f"smtp://{where}" + _unless("starttls", security)

    async def start(self) -> None:
        """Listen; from here on `port` and `url` are known."""
        loop = asyncio.get_running_loop()
        if self.unix_path is not None:
            self._server = await loop.create_unix_server(self._connection, str(self.unix_path))
            return
        sock = socket.create_server((self.host, self.port), backlog=512)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._server = await loop.create_server(self._connection, sock=sock)
        self.port = sock.getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening, abort what is open, and return when nothing of it is left."""
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
        """Accept nobody any more, and return when all who were accepted are open.

        asyncio has a connection without a transport for a turn after it was accepted, and drops it, unclosed, where
        its server is closed by then; and a transport is made one turn before the connection is told.
        """
        with suppress(NotImplementedError):  # where a loop waits for completion, there is no such turn
            for sock in server.sockets:
                asyncio.get_running_loop().remove_reader(sock)
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()
        if self.failures and error is None:
            raise self.failures[0]

    async def wait_until_idle(self) -> None:
        """Return when no connection is open."""
        await self._idle.wait()

    def _connection(self) -> ServerConnection:
        self.connections += 1
        state = ServerState(self.policy, self.connections, self.accept, self.attempted, implicit_tls=self.implicit_tls)
        return ServerConnection(self, state)

    # what a connection tells; see connection.Host

    def opened(self, connection: ServerConnection) -> None:
        self._open.add(connection)
        self._idle.clear()

    def accept(self, message: Received) -> str:
        """Take a message; return the text behind its 250. Called before that is written."""
        return "ok"

    def attempted(self, attempt: AuthAttempt) -> None:
        """An AUTH has ended."""

    def heard(self, state: ServerState, said: ReceivedLine) -> None:
        """The client said something, or a beginning is due."""

    def told(self, state: ServerState, octets: bytes) -> None:
        """These octets leave for the client."""

    def cue(self, state: ServerState, said: ReceivedLine) -> Cue:
        """What a rule of the script is asked with."""
        return Cue(
            stage=said.stage,
            line=said.line,
            number=self._occurrences[said.stage],
            here=self._occurrences_here[state.number, said.stage],
            connection=state.number,
            tls=state.tls,
            user=state.user,
            reverse_path=state.reverse_path,
            forward_paths=state.forward_paths,
            behind=state.input.peek(),
            content=said.content,
        )

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    def tls_failed(self, error: BaseException) -> None:
        """A handshake came to nothing."""

    def closed(self, connection: ServerConnection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._idle.set()


def _unless(usual: str, security: str) -> str:
    """The security as a part of a URL; nothing where the scheme says it already."""
    return "" if security == usual else f"?security={security}"


CR = b"\r"
_WITHOUT_WORDS: Final = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.GREETING, Stage.BODY})


class ScriptedRelay(SmtpServer):
    """An SMTP server on loopback that keeps what it is sent, and does at each stage what a script says.

        async with ScriptedRelay() as relay:
            await send_my_mail(relay.host, relay.port)
            await relay.wait_for(1)
        [message] = relay.received
        assert message.forward_paths == ("ann@example.net",)
        assert message.email["Subject"] == "News"

        async with ScriptedRelay({Stage.DOT: (UNSAID, Fin())}) as relay: ...   # takes the mail, hangs up

    Args:
        script: moves by stage; see `asyncsmtp.testing.script`. Other stages are answered as RFC 5321 wants it.
        offers: the EHLO keywords with their parameters. SIZE, STARTTLS and AUTH come from the arguments below.
        hides: keywords that are obeyed but not shown: a STARTTLS that somebody on the line stripped.
        tls: a server's context with its certificate; STARTTLS is offered, unless `implicit_tls`.
        users: names and passwords (tokens, for XOAUTH2); AUTH is offered when there are any.
        mechanisms: those it offers: PLAIN, LOGIN and XOAUTH2 unless said otherwise. Of OAUTHBEARER, CRAM-MD5, EXTERNAL
            and SCRAM-SHA-1, -256 and -512 the name is enough; a mapping gives the server's side of each, see `Scram`.
        auth_needs_tls: AUTH is neither offered nor taken before TLS.
        needs_auth, needs_tls: MAIL is refused with 530 before the login, before TLS.
        max_size: octets it takes; None is without limit, and says SIZE without a number.
        lmtp: speaks LMTP (RFC 2033): LHLO, and a reply for each recipient behind the content.
        runs_refused_chunk: reads the octets of a refused BDAT as commands, as go-smtp 0.21 does.
        on_accept: called with each message before its 250 is written; returns the text behind the 250, or raises
            `MessageNotAccepted` with another reply.
        round_trip: seconds by which all it says arrives late, in order; its ears are not delayed.
        unix_path: listen on this Unix socket instead of `host` and `port` (0: any free one).
        receive_buffer: octets (SO_RCVBUF), so that a client's writes come to stand early.

    Attributes:
        received: the messages it accepted, in order.
        dialogue: what was said, as `C: …` and `S: …` lines, over all connections; content is `C: .`.
        auth_attempts: each AUTH and how it ended.
        improper: what the client sent although it had to wait first (RFC 2920 §3.1), described.
        tls_failures: why handshakes failed.
        connections, open_connections: how many there were, how many there are.
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
        mechanisms: Iterable[str] | Mapping[str, Begin] = tuple(USUAL),
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
            mechanisms=_sides(mechanisms),
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
        self.improper: list[str] = []
        self.tls_failures: list[str] = []
        self._on_accept = on_accept
        self._dialogues: dict[int, list[str]] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def dialogue_of(self, connection: int) -> list[str]:
        """The lines of one connection, counted from 1."""
        return self._dialogues.get(connection, [])

    def heard_of(self, stage: Stage) -> int:
        """How often a client came to this stage, over all connections."""
        return self._occurrences[stage]

    async def wait_for(self, messages: int = 1) -> None:
        """Return when so many messages were received, since the relay began."""
        await self.wait_until(lambda: len(self.received) >= messages)

    async def wait_for_stage(self, stage: Stage, times: int = 1) -> None:
        """Return when a client came to this stage for the n-th time; the relay has not answered it yet."""
        await self.wait_until(lambda: self._occurrences[stage] >= times)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when this holds; it is looked at whenever a client says or sends something, or goes."""
        if condition():
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            self._waiters.remove(waiter)

    def _changed(self) -> None:
        for condition, waiter in self._waiters:
            if not waiter.done() and condition():
                waiter.set_result(None)

    # what a connection tells

    def accept(self, message: Received) -> str:
        text = self._on_accept(message) if self._on_accept else f"ok: queued as {len(self.received) + 1}"
        self.received.append(message)
        self._changed()
        return text

    def attempted(self, attempt: AuthAttempt) -> None:
        self.auth_attempts.append(attempt)

    def heard(self, state: ServerState, said: ReceivedLine) -> None:
        self._occurrences[said.stage] += 1
        self._occurrences_here[state.number, said.stage] += 1
        if said.stage not in _WITHOUT_WORDS:
            self._note(state, "C: ." if said.stage is Stage.DOT else f"C: {_text(said.line)}")
        if is_improper(state, said):
            self.improper.append(f"{said.stage} with {len(state.input)} octets behind it")
        self._changed()

    def told(self, state: ServerState, octets: bytes) -> None:
        for line in octets.removesuffix(b"\n").split(b"\n"):
            self._note(state, f"S: {_text(line.removesuffix(CR))}")

    def tls_failed(self, error: BaseException) -> None:
        self.tls_failures.append(str(error))

    def closed(self, connection: ServerConnection) -> None:
        super().closed(connection)
        self._changed()

    def _note(self, state: ServerState, line: str) -> None:
        self.dialogue.append(line)
        self._dialogues.setdefault(state.number, []).append(line)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _sides(mechanisms: Iterable[str] | Mapping[str, Begin]) -> Mapping[str, Begin | None]:
    if isinstance(mechanisms, Mapping):
        return dict(mechanisms)
    return {name: MECHANISMS.get(name) for name in mechanisms}
