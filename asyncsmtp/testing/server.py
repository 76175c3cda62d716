"""A relay that listens on loopback: what the scripted relay and the sandbox have in common."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from asyncsmtp.testing.connection import Connection
from asyncsmtp.testing.policy import Policy
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.script import Cue, Script, Stage
from asyncsmtp.testing.state import Said, State

__all__ = ["Server"]


class Server:
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
        self._open: set[Connection] = set()
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

    def _connection(self) -> Connection:
        self.connections += 1
        state = State(self.policy, self.connections, self.accept, self.attempted, implicit_tls=self.implicit_tls)
        return Connection(self, state)

    # what a connection tells; see connection.Host

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        self._idle.clear()

    def accept(self, message: Received) -> str:
        """Take a message; return the text behind its 250. Called before that is written."""
        return "ok"

    def attempted(self, attempt: AuthAttempt) -> None:
        """An AUTH has ended."""

    def heard(self, state: State, said: Said) -> None:
        """The client said something, or a beginning is due."""

    def told(self, state: State, octets: bytes) -> None:
        """These octets leave for the client."""

    def cue(self, state: State, said: Said) -> Cue:
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

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._idle.set()


def _unless(usual: str, security: str) -> str:
    """The security as a part of a URL; nothing where the scheme says it already."""
    return "" if security == usual else f"?security={security}"
