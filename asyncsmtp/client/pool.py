"""Several sessions with one relay, opened as they are needed and used again."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.connector import Connector
from asyncsmtp.client.manners import Manners
from asyncsmtp.client.place import BeforeEnd
from asyncsmtp.client.relay import Dialogue, Relay
from asyncsmtp.client.service import Lifespan, Service
from asyncsmtp.client.slot import Slot, Slots
from asyncsmtp.client.trace import Trace
from asyncsmtp.errors import ConnectionLost, PoolFull, ReplyTimeout
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.client import CLOSING
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.replies import Reply

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["Pool"]


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
        messages: a session says QUIT after so many and is replaced; None for no limit but the relay's LIMITS.
        idle, age: and after so many seconds without a message, or since it was opened; nobody waits for that QUIT
            unless every place is taken.
        wait: the most seconds a message waits while every session has its hands full; None for as long as it takes.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        sessions: int = 10,
        depth: int = 4,
        messages: int | None = None,
        idle: float = 60.0,
        age: float = 300.0,
        wait: float | None = None,
        trace: Trace | None = None,
    ) -> None:
        if sessions < 1 or depth < 1 or (messages is not None and messages < 1):
            raise ValueError("a pool needs at least one session, and one message for it")
        if idle <= 0 or age <= 0:
            raise ValueError("a session needs more than 0 s of idle time and of age")
        self.relay = relay
        self._manners = Manners()
        self._connector = Connector(relay, self._manners, trace)
        self._lifespan = Lifespan(messages, idle, age)
        self._slots = Slots(sessions)
        if relay.dialogue is Dialogue.STREAMED:
            depth = max(depth, relay.window)
        self._depth = depth
        self._wait = wait
        self._capacity = asyncio.Semaphore(sessions * depth)
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
        return sum(service.fit for service in self._slots.services)

    @property
    def busy_sessions(self) -> int:
        """How many sessions have a message in hand; also those that take no other."""
        return sum(service.busy for service in self._slots.services)

    @property
    def waiting(self) -> int:
        """How many messages wait because every session has its hands full."""
        return self._in_hand - self._slots.load

    async def send(self, message: Message | ParsedMessage, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message over some session; wait for a session if all are full.

        A connection that breaks before the point of no return is replaced and the message sent again, unless it
        was opened for this very message: nothing was delivered, and it was the old connection's fault.
        `before_end` may then be called again. So it is with a MAIL refused for now (4yz) by a session that has
        taken messages: the relay may take so many a session. Where a relay answers a pipelined envelope in part
        and no more, the message is sent once again command by command, as all are from then on. Where no
        session can be opened at all, everyone who waits is told.

        Raises and cancels as `Session.send` does, and as `Session.connect` where a session must be opened.
        Raises also PoolFull after `wait` seconds.
        """
        made = Message.of(message)
        seen = self._connector.failures
        self._in_hand += 1
        self._idle.clear()
        try:
            await self._enter()
            slot = self._slots.take(asyncio.get_running_loop().time())
            try:
                return await self._submit(slot, made, before_end, seen)
            finally:
                self._slots.give_back(slot)
                self._capacity.release()
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()

    async def _enter(self) -> None:
        """Wait until some session may be given one message more."""
        if self._wait is None or not self._capacity.locked():
            await self._capacity.acquire()
            return
        try:
            async with asyncio.timeout(self._wait):
                await self._capacity.acquire()
        except TimeoutError:
            raise PoolFull(self._wait) from None

    async def _submit(self, slot: Slot, message: Message, before_end: BeforeEnd | None, seen: int) -> Delivery:
        deferrals = 0
        while True:
            service, fresh = await self._serve(slot, seen)
            try:
                delivery = await service.session.transact(message.envelope, message.content, before_end=before_end)
            except ConnectionLost:
                if fresh:  # so each connection that breaks gives one message up at the most, and this ends
                    raise
                continue
            except ReplyTimeout:
                if not (self._manners.loses_commands and service.session.pipelined):
                    raise
                self._slots.retire_pipelined()  # they would lose commands too; the next ones say one at a time
                continue
            finally:
                service.give_back()
            if delivery.mail.positive:
                service.welcomed = True
                return delivery
            if fresh or not _about_the_session(delivery.mail, service) or deferrals == self._depth:
                return delivery
            deferrals += delivery.mail.code != CLOSING
            service.retire()

    async def _serve(self, slot: Slot, seen: int) -> tuple[Service, bool]:
        """Take the slot's session; also say whether it was opened for this message, which has seen so many failures."""
        self._connector.check()
        time = asyncio.get_running_loop().time
        if not slot.serves(time()):
            async with slot.opening:
                if not slot.serves(time()):
                    if slot.service is not None:
                        await slot.service.over()  # the ceiling holds
                    slot.service = Service(await self._connector.open(seen), self._lifespan)
                    slot.service.take()
                    self._slots.watch()
                    return slot.service, True
        assert slot.service is not None
        slot.service.take()
        return slot.service, False

    async def drain(self) -> None:
        """Wait until every message in hand is answered. Cancelling it changes nothing."""
        await self._idle.wait()

    async def aclose(self) -> None:
        """Take no more messages, say QUIT on every session and close; messages in hand are broken off.

        `drain` first to let them be answered. Takes two seconds at the most, whatever the relay does.
        """
        await self._connector.aclose()
        await self._slots.aclose()


def _about_the_session(refusal: Reply, service: Service) -> bool:
    """Whether a refused MAIL tells of the session, not of the message: it was idle too long, or is used up.

    Some relays take so many messages a session, do not say how many, and answer every later MAIL with 4yz:
    OpenSMTPD, after a hundred, with "452 4.5.3 Too many messages sent".
    """
    return refusal.code == CLOSING or (service.welcomed and 400 <= refusal.code < 500)
