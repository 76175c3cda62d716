"""Several sessions with one relay, opened as they are needed and used again."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.manners import Manners
from asyncsmtp.client.place import BeforeEnd
from asyncsmtp.client.relay import Dialogue, Relay
from asyncsmtp.client.session import Session
from asyncsmtp.client.trace import Trace
from asyncsmtp.client.wallet import Wallet
from asyncsmtp.errors import AuthenticationRefused, ConnectionLost, LocalProtocolError, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.client import CLOSING
from asyncsmtp.protocol.delivery import Delivery

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["Pool"]


class _Slot:
    """A place for one session: how many messages it has in hand."""

    __slots__ = ("load", "opening", "session")

    def __init__(self) -> None:
        self.session: Session | None = None
        self.load = 0
        self.opening = asyncio.Lock()

    @property
    def warm(self) -> bool:
        return self.session is not None and self.session.usable


_load = attrgetter("load")


class Pool:
    """Sends messages over at most `sessions` connections with one relay.

        async with Pool(relay, sessions=10) as pool:
            delivery = await pool.send(message)

    A message goes to an idle session that is open, else to a new one, else behind the shortest queue. The
    first session logs in alone: a refused password is said once, not once a connection. A refused message
    leaves its session in use; a broken session is replaced when the next message needs it.

    Args:
        sessions: the most connections at a time. depth: the most messages handed to one session at a time;
            more than one lets the next envelope travel while a content is being taken.
    """

    def __init__(self, relay: Relay, *, sessions: int = 10, depth: int = 4, trace: Trace | None = None) -> None:
        if sessions < 1 or depth < 1:
            raise ValueError("a pool needs at least one session, and one message for it")
        self.relay = relay
        self._trace = trace
        self._manners = Manners()
        self._wallet = Wallet(relay.login, relay.timeouts.auth)
        self._slots = [_Slot() for _ in range(sessions)]
        self._connecting: set[asyncio.Task[None]] = set()
        if relay.dialogue is Dialogue.STREAMED:
            depth = max(depth, relay.window)
        self._capacity = asyncio.Semaphore(sessions * depth)
        self._first = asyncio.Lock()
        self._opened_one = False
        self._failures: list[SMTPError] = []  # of those who tried to open the first one
        self._refused: AuthenticationRefused | None = None
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_hand = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def open_sessions(self) -> int:
        """How many sessions could send now."""
        return sum(slot.warm for slot in self._slots)

    async def send(self, message: Message | ParsedMessage, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message over some session; wait for a session if all are full.

        A connection that breaks before the point of no return is replaced and the message sent again, unless it
        was opened for this very message: nothing was delivered, and it was the old connection's fault.
        `before_end` may then be called again. Where no session can be opened at all, everyone who waits is told.

        Raises and cancels as `Session.send` does, and as `Session.connect` where a session must be opened.
        """
        made = Message.of(message)
        seen = len(self._failures)
        self._in_hand += 1
        self._idle.clear()
        try:
            async with self._capacity:
                slot = self._choose()
                slot.load += 1
                try:
                    return await self._submit(slot, made, before_end, seen)
                finally:
                    slot.load -= 1
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()

    def _choose(self) -> _Slot:
        """An idle warm session, else an empty slot, else the least loaded."""
        least = min(self._slots, key=_load)
        if least.load or least.warm:
            return least
        return next((slot for slot in self._slots if not slot.load and slot.warm), least)

    async def _submit(self, slot: _Slot, message: Message, before_end: BeforeEnd | None, seen: int) -> Delivery:
        while True:
            session, fresh = await self._session(slot, seen)
            try:
                delivery = await session.transact(message.envelope, message.content, before_end=before_end)
            except ConnectionLost:
                if fresh:  # so each connection that breaks gives one message up at the most, and this ends
                    raise
            else:
                if fresh or delivery.mail.code != CLOSING:  # else it is about the connection: it was idle, or used up
                    return delivery

    async def _session(self, slot: _Slot, seen: int) -> tuple[Session, bool]:
        """The slot's session, and whether it was opened for this message, which has seen so many failures."""
        if self._closing:
            raise _closed()
        if slot.warm:
            assert slot.session is not None
            return slot.session, False
        async with slot.opening:
            if slot.session is not None and slot.session.usable:
                return slot.session, False
            if slot.session is not None:
                await slot.session.ended()  # its last message may still be unanswered; the ceiling holds
                await slot.session.aclose()
            slot.session = await self._open(seen)
            return slot.session, True

    async def _open(self, seen: int) -> Session:
        if not self._opened_one:
            async with self._first:
                if not self._opened_one:
                    return await self._open_first(seen)
        return await self._connected()

    async def _open_first(self, seen: int) -> Session:
        if len(self._failures) > seen:
            raise self._failures[-1]
        try:
            session = await self._connected()
        except SMTPError as error:
            self._failures.append(error)
            raise
        self._opened_one = True
        return session

    async def _connected(self) -> Session:
        if self._refused is not None:
            raise self._refused
        if self._closing:
            raise _closed()
        session = Session(self.relay, trace=self._trace, manners=self._manners, wallet=self._wallet)
        opening = asyncio.get_running_loop().create_task(session.connect())
        self._connecting.add(opening)
        try:
            await opening
        except AuthenticationRefused as error:
            self._refused = error
            raise
        except asyncio.CancelledError:
            if self._closing and not _being_cancelled():
                raise _closed() from None
            raise
        finally:
            self._connecting.discard(opening)
        return session

    async def drain(self) -> None:
        """Wait until every message in hand is answered. Cancelling it changes nothing."""
        await self._idle.wait()

    async def aclose(self) -> None:
        """Take no more messages, say QUIT on every session and close; messages in hand are broken off.

        `drain` first to let them be answered. Takes two seconds at the most, whatever the relay does.
        """
        self._closing = True
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)
        await asyncio.gather(*(slot.session.aclose() for slot in self._slots if slot.session is not None))


def _closed() -> SMTPError:
    return LocalProtocolError("the pool is closed")


def _being_cancelled() -> bool:
    """Whether somebody cancels the task we are in."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
