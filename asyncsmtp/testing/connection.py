"""One connection of a relay: an asyncio protocol that plays moves and does what follows from them."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Generator, Sequence
from typing import Protocol, cast

from asyncsmtp.testing.default_replies import next_step, usual_reply
from asyncsmtp.testing.script import (
    Ask,
    Cue,
    Deaf,
    Drip,
    Fin,
    Forget,
    HalfClose,
    Hang,
    RefuseInput,
    Rst,
    Script,
    Stage,
    Step,
    Usual,
    Wait,
    steps_of,
)
from asyncsmtp.testing.state import NextAction, ReceivedLine, ServerState, apply
from asyncsmtp.testing.transport import ServerTransport

__all__ = ["ConnectionHandler", "ServerConnection"]


class ConnectionHandler(Protocol):
    """What a connection asks of the relay it belongs to."""

    script: Script
    context: ssl.SSLContext | None
    round_trip: float

    def cue(self, state: ServerState, said: ReceivedLine) -> Cue: ...
    def opened(self, connection: ServerConnection) -> None: ...
    def heard(self, state: ServerState, said: ReceivedLine) -> None: ...
    def told(self, state: ServerState, octets: bytes) -> None: ...
    def failed(self, error: Exception) -> None: ...
    def tls_failed(self, error: BaseException) -> None: ...
    def closed(self, connection: ServerConnection) -> None: ...


class ServerConnection(asyncio.Protocol):
    """Reads, answers, and waits where the script says so. All it owns ends with the connection."""

    def __init__(self, host: ConnectionHandler, state: ServerState) -> None:
        self.state = state
        self._host = host
        self._link: ServerTransport | None = None
        self._out: list[bytes] = []
        self._busy = False  # a move is under way, or nothing more will be said
        self._deaf = False  # what comes in is thrown away
        self._ended = False  # the client has closed its direction
        self._timer: asyncio.TimerHandle | None = None

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = ServerTransport(cast(asyncio.Transport, transport), self._host.round_trip)
        self._host.opened(self)
        self._advance()

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            self.state.input.feed(data)
            self._advance()

    def eof_received(self) -> bool:
        self._ended = True
        self._close_if_ended()
        return not self.state.tls  # what is due is still said; TLS knows no half-closed connection

    def connection_lost(self, error: Exception | None) -> None:
        self._busy = self._deaf = True
        self._there.lost()
        if self._timer is not None:
            self._timer.cancel()
        self._host.closed(self)

    def pause_writing(self) -> None:
        self._there.pause()

    def resume_writing(self) -> None:
        if not self._deaf:
            self._there.resume()

    async def aclose(self) -> None:
        """Abort, and wait for a handshake that is under way, whose end asyncio would not tell us."""
        if self._link is not None and await self._link.aclose():
            self.connection_lost(None)

    @property
    def _there(self) -> ServerTransport:
        assert self._link is not None
        return self._link

    # answering

    def _advance(self) -> None:
        """Answer all that can be answered now; what was said leaves in one segment."""
        try:
            while not self._busy and (said := next_step(self.state)) is not None:
                self._answer(said)
        except Exception as error:  # whatever a rule or `accept` raises is the test's to see
            self._fail(error)
        self._flush()

    def _answer(self, said: ReceivedLine) -> None:
        self._host.heard(self.state, said)
        if said.stage is Stage.HANDSHAKE:
            self._there.pause()  # what comes now is for TLS, whatever the script does first
        if said.stage in self._host.script:
            steps = self._host.script.steps(self._host.cue(self.state, said))
            self._go_on(self._play(said, steps))
        else:
            self._finish(said, self._say_usual(said))

    def _go_on(self, move: Generator[float, None, None]) -> None:
        """Play until the move ends or waits; one that waits without end is never taken up again."""
        self._busy = False
        for seconds in move:
            self._busy = True
            self._flush()
            if seconds < math.inf:
                self._timer = asyncio.get_running_loop().call_later(seconds, self._wake, move)
            return

    def _wake(self, move: Generator[float, None, None]) -> None:
        self._timer = None
        try:
            self._go_on(move)
        except Exception as error:  # as in _advance
            self._fail(error)
        self._advance()
        if self._ended:
            self._close_if_ended()

    def _fail(self, error: Exception) -> None:
        self._host.failed(error)
        self._busy = True
        self._there.drop()

    def _close_if_ended(self) -> None:
        if self._timer is None:
            self._there.close()

    def _finish(self, said: ReceivedLine, code: int | None) -> None:
        then = apply(self.state, said, code)
        if then is NextAction.GO_ON:
            return
        self._busy = True
        self._flush()
        if then is NextAction.CLOSE:
            self._there.close()
        elif self._host.context is not None:
            self._there.upgrade(self, self._host.context, self.state.input, self._upgraded)

    def _upgraded(self, error: BaseException | None) -> None:
        if error is not None:
            self._host.tls_failed(error)
            self.connection_lost(None)
        elif not self._deaf:
            self.state.upgraded()
            self._busy = False
            self._advance()

    # playing a move

    def _play(self, said: ReceivedLine, steps: Sequence[Step]) -> Generator[float, None, None]:
        self._finish(said, (yield from self._perform_all(said, steps, None)))

    def _perform_all(
        self, said: ReceivedLine, steps: Sequence[Step], code: int | None
    ) -> Generator[float, None, int | None]:
        """Do the steps in turn; return the code of the first that had words, `code` if one was said before."""
        for step in steps:
            done = yield from self._perform(said, step, code)
            if done is not None and not code:
                code = done
        return code

    def _perform(self, said: ReceivedLine, step: Step, code: int | None) -> Generator[float, None, int | None]:
        match step:
            case str():
                self._say(step)
                return self._stood_by(said, _code(step))
            case bytes():
                self._out.append(step)
            case Usual(said=True):
                return self._stood_by(said, self._say_usual(said))
            case Usual():
                return _code(usual_reply(self.state, said))
            case Wait(seconds):
                yield seconds
            case Drip():
                yield from self._drip(step)
            case Ask(rule):
                return (yield from self._perform_all(said, steps_of(rule(self._host.cue(self.state, said))), code))
            case Forget(refused):
                if not refused or (code is not None and code >= 500):
                    self.state.input.clear()
            case RefuseInput(reply):
                while self.state.input.line() is not None:
                    self._say(reply)
            case _:
                self._end(step)
                yield math.inf
        return None

    def _stood_by(self, said: ReceivedLine, code: int) -> int:
        if said.stage is Stage.STARTTLS and code == 220:
            self._there.pause()  # the client's handshake begins, whatever the script does before its own
        return code

    def _drip(self, drip: Drip) -> Generator[float, None, None]:
        while True:
            for octet in drip.octets * max(drip.times, 1):
                yield drip.seconds
                self._out.append(bytes([octet]))
            if drip.times:
                return

    def _end(self, step: Step) -> None:
        """The steps after which nothing more is said."""
        self._flush()
        self._deaf = True
        match step:
            case Deaf():
                self._there.pause()
            case Fin(close_notify=True):
                self._there.close()
            case Fin():
                self._there.drop()
            case Rst():
                self._there.reset()
            case HalfClose():
                self._there.half_close()
            case Hang():
                pass

    def _say_usual(self, said: ReceivedLine) -> int:
        reply = usual_reply(self.state, said)
        if reply:
            self._say(reply)
        return _code(reply)

    def _say(self, reply: str) -> None:
        self._out.append(reply.encode("utf-8", "surrogateescape") + b"\r\n")

    def _flush(self) -> None:
        if self._out:
            octets = b"".join(self._out)
            self._out.clear()
            self._host.told(self.state, octets)
            self._there.write(octets)


def _code(reply: str) -> int:
    """The code of a reply as it leaves; 0 when there is none."""
    return int(reply[:3]) if reply[:3].isdigit() and reply[:3].isascii() else 0
