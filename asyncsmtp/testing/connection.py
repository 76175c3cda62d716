"""One connection of a relay: an asyncio protocol that plays moves and does what follows from them."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Protocol, cast

from asyncsmtp.testing.due import due
from asyncsmtp.testing.effects import Then, apply
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
from asyncsmtp.testing.state import Said, State
from asyncsmtp.testing.usual import usual_reply

__all__ = ["Connection", "Host"]

HANDSHAKE_SECONDS = 30.0


class Host(Protocol):
    """What a connection asks of the relay it belongs to."""

    script: Script
    context: ssl.SSLContext | None
    round_trip: float

    def cue(self, state: State, said: Said) -> Cue: ...
    def heard(self, state: State, said: Said) -> None: ...
    def told(self, state: State, octets: bytes) -> None: ...
    def failed(self, error: Exception) -> None: ...
    def tls_failed(self, error: Exception) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Reads, answers, and waits where the script says so. All it owns ends with the connection."""

    def __init__(self, host: Host, state: State) -> None:
        self.state = state
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._busy = False  # a move is under way, or nothing more will be said
        self._deaf = False
        self._ended = False  # the client has closed its direction
        self._timer: asyncio.TimerHandle | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._late: deque[Callable[[], None]] = deque()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._advance()

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            self.state.input.feed(data)
            self._advance()

    def eof_received(self) -> bool:
        self._ended = True
        if self._timer is None:
            self._far(self._close)
        return not self.state.tls  # what is due is still said; TLS knows no half-closed connection

    def connection_lost(self, error: Exception | None) -> None:
        self._busy = self._deaf = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._host.closed(self)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._deaf:
            self._transport.resume_reading()

    async def aclose(self) -> None:
        """Abort, and wait for a handshake that is under way."""
        if self._upgrade is not None:
            self._upgrade.cancel()
            await asyncio.wait([self._upgrade])
        self._abort()

    # answering

    def _advance(self) -> None:
        """Answer all that can be answered now; what was said leaves in one segment."""
        try:
            while not self._busy and (said := due(self.state)) is not None:
                self._host.heard(self.state, said)
                if said.stage is Stage.HANDSHAKE:
                    self._pause()
                if said.stage in self._host.script:
                    steps = self._host.script.steps(self._host.cue(self.state, said))
                    self._go_on(self._play(said, steps))
                else:
                    self._finish(said, self._say_usual(said))
        except Exception as error:  # whatever a rule or `accept` raises is the test's to see
            self._host.failed(error)
            self._abort()
        self._flush()

    def _say_usual(self, said: Said) -> int:
        reply = usual_reply(self.state, said)
        if reply:
            self._say(reply)
        return _code(reply)

    def _go_on(self, move: Generator[float, None, None]) -> None:
        """Play until the move ends or waits; a wait without end never comes back."""
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
            self._host.failed(error)
            self._abort()
        self._advance()
        if self._ended and self._timer is None:
            self._far(self._close)

    def _play(self, said: Said, steps: Sequence[Step]) -> Generator[float, None, None]:
        code: int | None = None
        for step in steps:
            done = yield from self._perform(said, step, code)
            code = done if code is None else code
        self._finish(said, code)

    def _perform(self, said: Said, step: Step, code: int | None) -> Generator[float, None, int | None]:
        """Do one step, waiting where it yields; return the code of the reply it said, if it said one."""
        match step:
            case str():
                self._say(step)
                return self._said_code(said, _code(step))
            case bytes():
                self._out.append(step)
            case Usual(said=True):
                return self._said_code(said, self._say_usual(said))
            case Usual():
                return _code(usual_reply(self.state, said))
            case Wait(seconds):
                yield seconds
            case Drip():
                yield from self._drip(step)
            case Ask(rule):
                for asked in steps_of(rule(self._host.cue(self.state, said))):
                    done = yield from self._perform(said, asked, code)
                    code = done if code is None else code
                return code
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

    def _said_code(self, said: Said, code: int) -> int:
        if said.stage is Stage.STARTTLS and code == 220:
            self._pause()  # what comes now is the client's handshake, whatever the script does before its own
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
        match step:
            case Hang():
                self._deaf = True
            case Deaf():
                self._deaf = True
                self._far(self._pause)
            case Fin(close_notify):
                self._far(self._close if close_notify else self._abort)
            case Rst():
                self._far(self._reset)
            case HalfClose():
                self._deaf = True
                self._far(self._half_close)

    def _finish(self, said: Said, code: int | None) -> None:
        then = apply(self.state, said, code)
        if then is Then.GO_ON:
            return
        self._busy = True
        self._flush()
        if then is Then.CLOSE:
            self._far(self._close)
        else:
            self._far(self._begin_tls)

    # what leaves, and when

    def _say(self, reply: str) -> None:
        self._out.append(reply.encode("utf-8") + b"\r\n")

    def _flush(self) -> None:
        if self._out:
            octets = b"".join(self._out)
            self._out.clear()
            self._host.told(self.state, octets)
            self._far(partial(self._write, octets))

    def _far(self, action: Callable[[], None]) -> None:
        """Do this as the client sees it: at once, or a round trip later, in order."""
        if not self._host.round_trip:
            action()
            return
        self._late.append(action)
        asyncio.get_running_loop().call_later(self._host.round_trip, self._arrive)

    def _arrive(self) -> None:
        self._late.popleft()()

    def _write(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def _pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        with self._socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._abort()

    def _half_close(self) -> None:
        with self._socket() as sock:
            sock.shutdown(socket.SHUT_WR)

    def _socket(self) -> socket.socket:
        """The socket below the transport, a second handle: event loops differ in what theirs can do."""
        assert self._transport is not None
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))

    # TLS

    def _begin_tls(self) -> None:
        if self._transport is not None:
            self._upgrade = asyncio.get_running_loop().create_task(self._shake_hands(self._transport))

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        context = self._host.context
        assert context is not None
        try:
            upgraded = await asyncio.get_running_loop().start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, EOFError) as error:  # ssl.SSLError is an OSError
            self._host.tls_failed(error)
            self.connection_lost(error)
            return
        if upgraded is None or self._deaf:
            return
        self._transport = upgraded
        self.state.upgraded()
        self._busy = False
        self._advance()


def _code(reply: str) -> int:
    """The code of a reply as it leaves; 0 when there is none."""
    return int(reply[:3]) if reply[:3].isdigit() and reply[:3].isascii() else 0
