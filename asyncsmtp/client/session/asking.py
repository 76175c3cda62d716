"""One command at a time and its reply: all of a session but its messages."""

from __future__ import annotations

import asyncio

from asyncsmtp.client.connection.wire import Said, Wire
from asyncsmtp.errors import LocalProtocolError, SMTPError
from asyncsmtp.protocol.commands import GREETING, Command
from asyncsmtp.protocol.replies import Reply

__all__ = ["Asking", "broken_off"]


class Asking:
    """Asks for a session; several who ask wait for each other.

    Attributes:
        greeting: the relay's 220, or None before it came.
        round_trip: seconds of the shortest one; of a reply that was waited for no other message.
    """

    __slots__ = ("_answer", "_turn", "greeting", "round_trip")

    def __init__(self) -> None:
        self.greeting: Reply | None = None
        self.round_trip = float("inf")
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[Reply] | None = None

    def begin(self) -> None:
        """Another connection: what is known of the one before is of no use."""
        self.greeting, self.round_trip = None, float("inf")
        self._answer = asyncio.get_running_loop().create_future()

    async def ask(self, wire: Wire, command: Command) -> Reply:
        """As `Session.ask`."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if command is not GREETING:
                self._answer = loop.create_future()
                wire.say([Said((command,), self.hear)])
            began = loop.time()
            assert self._answer is not None
            try:
                reply = await self._answer
            except asyncio.CancelledError:
                wire.fail(broken_off())
                raise
        if command is not GREETING:
            self.round_trip = min(self.round_trip, loop.time() - began)
        return reply

    def hear(self, command: Command, reply: Reply) -> None:
        """Called by the wire."""
        if command is GREETING:
            self.greeting = reply
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def broken(self, error: SMTPError) -> None:
        """The connection is gone: so is the reply."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()


def broken_off() -> SMTPError:
    """Why a session ends that its owner gives up."""
    return LocalProtocolError("the session was broken off by its owner")
