"""A relay for tests: correct by default, and as wrong as a script wants it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from asyncsmtp.testing.auth import MECHANISMS, USUAL, Begin
from asyncsmtp.testing.connection import Connection
from asyncsmtp.testing.due import is_improper
from asyncsmtp.testing.policy import OFFERS, Policy
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.script import Rule, Script, Stage
from asyncsmtp.testing.server import Server
from asyncsmtp.testing.state import Said, State

__all__ = ["ScriptedRelay"]

CR = b"\r"
_WITHOUT_WORDS: Final = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.GREETING, Stage.BODY})


class ScriptedRelay(Server):
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
            `NotTaken` with another reply.
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

    def heard(self, state: State, said: Said) -> None:
        self._occurrences[said.stage] += 1
        self._occurrences_here[state.number, said.stage] += 1
        if said.stage not in _WITHOUT_WORDS:
            self._note(state, "C: ." if said.stage is Stage.DOT else f"C: {_text(said.line)}")
        if is_improper(state, said):
            self.improper.append(f"{said.stage} with {len(state.input)} octets behind it")
        self._changed()

    def told(self, state: State, octets: bytes) -> None:
        for line in octets.removesuffix(b"\n").split(b"\n"):
            self._note(state, f"S: {_text(line.removesuffix(CR))}")

    def tls_failed(self, error: BaseException) -> None:
        self.tls_failures.append(str(error))

    def closed(self, connection: Connection) -> None:
        super().closed(connection)
        self._changed()

    def _note(self, state: State, line: str) -> None:
        self.dialogue.append(line)
        self._dialogues.setdefault(state.number, []).append(line)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _sides(mechanisms: Iterable[str] | Mapping[str, Begin]) -> Mapping[str, Begin | None]:
    if isinstance(mechanisms, Mapping):
        return dict(mechanisms)
    return {name: MECHANISMS.get(name) for name in mechanisms}
