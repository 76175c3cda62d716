"""One connection of a relay: an asyncio protocol that performs the script's actions and their effects."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Generator, Sequence
from typing import Protocol, cast

from asyncsmtp.testing import script as actions
from asyncsmtp.testing.default_replies import default_reply, next_step
from asyncsmtp.testing.script import Script, Stage, StageContext, Step, to_steps
from asyncsmtp.testing.state import NextAction, ReceivedLine, ServerState, apply
from asyncsmtp.testing.transport import ServerTransport

__all__ = ["ConnectionHandler", "ServerConnection"]


class ConnectionHandler(Protocol):
    """The interface of a connection to the relay that it belongs to."""

    script: Script
    context: ssl.SSLContext | None
    round_trip: float

    def stage_context(self, state: ServerState, received: ReceivedLine) -> StageContext: ...
    def connection_opened(self, connection: ServerConnection) -> None: ...
    def command_received(self, state: ServerState, received: ReceivedLine) -> None: ...
    def reply_sent(self, state: ServerState, octets: bytes) -> None: ...
    def rule_failed(self, error: Exception) -> None: ...
    def tls_failed(self, error: BaseException) -> None: ...
    def connection_closed(self, connection: ServerConnection) -> None: ...


class ServerConnection(asyncio.Protocol):
    """A connection that reads, answers, and waits as the script says. Closing it releases everything it owns."""

    def __init__(self, handler: ConnectionHandler, state: ServerState) -> None:
        self.state = state
        self._handler = handler
        self._transport_or_none: ServerTransport | None = None
        self._out: list[bytes] = []
        self._busy = False  # an action is in progress, or nothing more will be sent
        self._discards_input = False  # input is discarded
        self._ended = False  # the client closed its direction
        self._timer: asyncio.TimerHandle | None = None

    # callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport_or_none = ServerTransport(cast(asyncio.Transport, transport), self._handler.round_trip)
        self._handler.connection_opened(self)
        self._process_input()

    def data_received(self, data: bytes) -> None:
        if not self._discards_input:
            self.state.input.feed(data)
            self._process_input()

    def eof_received(self) -> bool:
        self._ended = True
        self._close_if_ended()
        return not self.state.tls  # pending output is still sent; TLS has no half-closed connection

    def connection_lost(self, error: Exception | None) -> None:
        self._busy = self._discards_input = True
        self._transport.connection_lost()
        if self._timer is not None:
            self._timer.cancel()
        self._handler.connection_closed(self)

    def pause_writing(self) -> None:
        self._transport.pause()

    def resume_writing(self) -> None:
        if not self._discards_input:
            self._transport.resume()

    async def aclose(self) -> None:
        """Abort, and wait for a handshake in progress; asyncio would not report its end."""
        if self._transport_or_none is not None and await self._transport_or_none.aclose():
            self.connection_lost(None)

    @property
    def _transport(self) -> ServerTransport:
        assert self._transport_or_none is not None
        return self._transport_or_none

    # answering

    def _process_input(self) -> None:
        """Answer everything that can be answered now; the output is sent in one segment."""
        try:
            while not self._busy and (received := next_step(self.state)) is not None:
                self._answer(received)
        except Exception as error:  # an exception of a rule or of `accept` belongs to the test
            self._fail(error)
        self._flush()

    def _answer(self, received: ReceivedLine) -> None:
        self._handler.command_received(self.state, received)
        if received.stage is Stage.HANDSHAKE:
            self._transport.pause()  # input from here on belongs to TLS, whatever the script does first
        if received.stage in self._handler.script:
            steps = self._handler.script.steps(self._handler.stage_context(self.state, received))
            self._run(self._perform_action(received, steps))
        else:
            self._finish(received, self._send_default(received))

    def _run(self, action: Generator[float, None, None]) -> None:
        """Run until the action ends or waits; one that waits for ever is never resumed."""
        self._busy = False
        for seconds in action:
            self._busy = True
            self._flush()
            if seconds < math.inf:
                self._timer = asyncio.get_running_loop().call_later(seconds, self._resume, action)
            return

    def _resume(self, action: Generator[float, None, None]) -> None:
        self._timer = None
        try:
            self._run(action)
        except Exception as error:  # as in _process_input
            self._fail(error)
        self._process_input()
        if self._ended:
            self._close_if_ended()

    def _fail(self, error: Exception) -> None:
        self._handler.rule_failed(error)
        self._busy = True
        self._transport.abort()

    def _close_if_ended(self) -> None:
        if self._timer is None:
            self._transport.close()

    def _finish(self, received: ReceivedLine, code: int | None) -> None:
        next_action = apply(self.state, received, code)
        if next_action is NextAction.GO_ON:
            return
        self._busy = True
        self._flush()
        if next_action is NextAction.CLOSE:
            self._transport.close()
        elif self._handler.context is not None:
            self._transport.upgrade(self, self._handler.context, self.state.input, self._tls_started)

    def _tls_started(self, error: BaseException | None) -> None:
        if error is not None:
            self._handler.tls_failed(error)
            self.connection_lost(None)
        elif not self._discards_input:
            self.state.tls_started()
            self._busy = False
            self._process_input()

    # performing an action

    def _perform_action(self, received: ReceivedLine, steps: Sequence[Step]) -> Generator[float, None, None]:
        self._finish(received, (yield from self._perform_all(received, steps, None)))

    def _perform_all(
        self, received: ReceivedLine, steps: Sequence[Step], code: int | None
    ) -> Generator[float, None, int | None]:
        """Perform the steps in turn; return the code of the first reply, or `code` if there was one before."""
        for step in steps:
            reply_code = yield from self._perform(received, step, code)
            if reply_code is not None and not code:
                code = reply_code
        return code

    def _perform(self, received: ReceivedLine, step: Step, code: int | None) -> Generator[float, None, int | None]:
        match step:
            case str():
                self._send(step)
                return self._note_starttls(received, _code(step))
            case bytes():
                self._out.append(step)
            case actions.DefaultReply(send=True):
                return self._note_starttls(received, self._send_default(received))
            case actions.DefaultReply():
                return _code(default_reply(self.state, received))
            case actions.Wait(seconds):
                yield seconds
            case actions.SendSlowly():
                yield from self._send_slowly(step)
            case actions.CallRule(rule):
                steps = to_steps(rule(self._handler.stage_context(self.state, received)))
                return (yield from self._perform_all(received, steps, code))
            case actions.DiscardInput(only_if_refused):
                if not only_if_refused or (code is not None and code >= 500):
                    self.state.input.clear()
            case actions.RefuseInput(reply):
                while self.state.input.read_line() is not None:
                    self._send(reply)
            case _:
                self._end(step)
                yield math.inf
        return None

    def _note_starttls(self, received: ReceivedLine, code: int) -> int:
        if received.stage is Stage.STARTTLS and code == 220:
            self._transport.pause()  # the client's handshake begins, whatever the script does before
        return code

    def _send_slowly(self, step: actions.SendSlowly) -> Generator[float, None, None]:
        while True:
            for octet in step.octets * max(step.times, 1):
                yield step.seconds
                self._out.append(bytes([octet]))
            if step.times:
                return

    def _end(self, step: actions.End) -> None:
        """Perform a step after which nothing more is sent."""
        self._flush()
        self._discards_input = True
        match step:
            case actions.StopReading():
                self._transport.pause()
            case actions.Fin(close_notify=True):
                self._transport.close()
            case actions.Fin():
                self._transport.abort()
            case actions.Rst():
                self._transport.reset()
            case actions.HalfClose():
                self._transport.half_close()
            case actions.Hang():
                pass

    def _send_default(self, received: ReceivedLine) -> int:
        if reply := default_reply(self.state, received):
            self._send(reply)
        return _code(reply)

    def _send(self, reply: str) -> None:
        self._out.append(reply.encode("utf-8", "surrogateescape") + b"\r\n")

    def _flush(self) -> None:
        if self._out:
            octets = b"".join(self._out)
            self._out.clear()
            self._handler.reply_sent(self.state, octets)
            self._transport.write(octets)


def _code(reply: str) -> int:
    """Return the code of a reply as it is sent; 0 if there is none."""
    return int(reply[:3]) if reply[:3].isdigit() and reply[:3].isascii() else 0
