"""Several sessions with one relay, opened as they are needed and used again."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.events.trace import Trace
from asyncsmtp.client.events.types import EventEmitter, MessageTimer, OnEvent
from asyncsmtp.client.pool.connector import Connector
from asyncsmtp.client.pool.counts import PoolCounts
from asyncsmtp.client.pool.room import NoRoom, Room, is_no_room
from asyncsmtp.client.pool.service import Lifespan, Service
from asyncsmtp.client.pool.slot import Slot, Slots
from asyncsmtp.client.pool.waking import Wakefulness
from asyncsmtp.client.session.deadline import by, counts_again
from asyncsmtp.client.session.manners import Manners
from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, PoolTimeout, ReplyTimeout, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.client import SERVICE_CLOSING
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
    leaves its session in use; a broken session is replaced when the next message needs it. Where the relay, or
    this process, has no room for one more, the pool does with those that are open and tries one more later.

    Args:
        sessions: the most connections at a time. depth: the most messages handed to one session at a time;
            more than one lets the next envelope travel while a content is being taken.
        messages: a session says QUIT after so many and is replaced; None for no limit but the relay's LIMITS.
        idle, age: and after so many seconds without a message, or since it was opened; nobody waits for that QUIT
            unless every place is taken.
        wait: the most seconds a message waits while every session has its hands full; None for as long as it takes.
        trace: is given each line of the dialogue. on_event: is called with what happens, see `client.events`.
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
        on_event: OnEvent | None = None,
    ) -> None:
        if sessions < 1 or depth < 1 or (messages is not None and messages < 1):
            raise ValueError("a pool needs at least one session, and one message for it")
        if idle <= 0 or age <= 0:
            raise ValueError("a session needs more than 0 s of idle time and of age")
        self.relay = relay
        self._manners = Manners()
        self._witness = EventEmitter.of(on_event, relay)
        self._connector = Connector(relay, self._manners, trace, self._witness)
        self._lifespan = Lifespan(messages, idle, age)
        self._slots = Slots(sessions)
        if relay.dialogue is Dialogue.STREAMED:
            depth = max(depth, relay.window)
        self._depth = depth
        self._wait = wait
        self._room = Room(relay, self._slots, sessions, depth, self._witness)
        self._capacity = self._room.capacity
        self._wakefulness = Wakefulness()
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

    @property
    def counts(self) -> PoolCounts:
        """What it is doing now, in figures."""
        load = self._slots.load
        return PoolCounts(
            open=self.open_sessions,
            busy=self.busy_sessions,
            allowed=self._room.sessions,
            in_hand=self._in_hand,
            waiting=self._in_hand - load,
        )

    async def send(
        self,
        message: Message | ParsedMessage,
        *,
        before_end: BeforeEnd | None = None,
        deadline: float | None = None,
        hard: bool = False,
    ) -> Delivery:
        """Send one message over some session; wait for a session if all are full.

        A connection that breaks before the point of no return is replaced and the message sent again, unless it
        was opened for this very message: nothing was delivered, and it was the old connection's fault. (A stream
        that was begun cannot be sent again.)
        `before_end` may then be called again. So it is with a MAIL refused for now (4yz) by a session that has
        taken messages: the relay may take so many a session. Where a relay answers a pipelined envelope in part
        and no more, the message is sent once again command by command, as all are from then on. Where there is
        no room for one more session, the message waits for those that are open. Where no session can be opened
        at all, everyone who waits is told.

        Raises and cancels as `Session.send` does, and as `Session.connect` where a session must be opened.
        Raises also PoolTimeout after `wait` seconds. The seconds of a `deadline` count from the call: waiting for a
        session, and opening one, are a part of them.
        """
        made = Message.of(message)
        if deadline is not None:
            return await by(deadline, hard, before_end, lambda mark: self.send(made, before_end=mark))
        if self._witness is None:
            return await self._deliver(made, before_end)
        with MessageTimer(self._witness, made.envelope, made.content) as watch:
            return watch.got(await self._deliver(made, before_end, watch))

    async def _deliver(
        self, message: Message, before_end: BeforeEnd | None, watch: MessageTimer | None = None
    ) -> Delivery:
        seen = self._connector.failures
        again = False
        if self._wakefulness.slept():
            self._slots.abort_idle()
        self._in_hand += 1
        self._idle.clear()
        try:
            while True:
                await self._enter(watch, first=again)
                slot = self._slots.take(asyncio.get_running_loop().time())
                try:
                    return await self._submit(slot, message, before_end, seen, watch)
                except NoRoom as reason:
                    again = True
                    _tell(watch, reason)
                finally:
                    self._slots.give_back(slot)
                    self._capacity.release()
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()

    async def _enter(self, watch: MessageTimer | None, *, first: bool) -> None:
        """Wait until some session may be given one message more."""
        if not self._capacity.full or (self._wait is None and watch is None):
            await self._capacity.acquire(first=first)
            return
        if watch is not None:
            watch.waits()
        try:
            async with asyncio.timeout(self._wait):
                await self._capacity.acquire(first=first)
        except TimeoutError:
            raise PoolTimeout(self._wait or 0.0) from None
        finally:
            if watch is not None:
                watch.waited()

    async def _submit(
        self, slot: Slot, message: Message, before_end: BeforeEnd | None, seen: int, watch: MessageTimer | None
    ) -> Delivery:
        deferrals, time = 0, asyncio.get_running_loop().time
        while True:
            counts_again(before_end)
            self._connector.check()
            service, fresh = slot.service, False
            if service is None or not service.serves(time()) or not service.lasts(message.envelope):
                service, fresh = await self._serve(slot, seen)
            service.take(message.envelope)
            if fresh:
                self._slots.watch()
            try:
                delivery = await service.session.transact(message.envelope, message.content, before_end=before_end)
            except ConnectionLost as error:
                # Where it was fresh: so each connection that breaks gives one message up at the most, and this ends.
                if fresh or message.content.is_consumed:
                    self._connector.backoff.failed(time())
                    raise
                _tell(watch, error)
                continue
            except ReplyTimeout as error:
                if not (self._manners.loses_commands and service.session.pipelined):
                    raise
                self._slots.retire_pipelined()  # they would lose commands too; the next ones say one at a time
                _tell(watch, error)
                continue
            finally:
                service.give_back()
            if delivery.mail.positive:
                self._welcomed(service)
                return delivery
            if fresh and delivery.mail.code == SERVICE_CLOSING and self._slots.others(slot):
                service.retire()
                self._room.lower(slot, delivery.mail)
            if fresh or not _about_the_session(delivery.mail, service) or deferrals == self._depth:
                return delivery
            deferrals += delivery.mail.code != SERVICE_CLOSING
            service.retire()
            _tell(watch, delivery.mail)

    def _welcomed(self, service: Service) -> None:
        """The relay has taken a message's envelope."""
        if not service.welcomed:
            service.welcomed = True
            self._connector.backoff.worked()
        self._room.accepted()

    async def _serve(self, slot: Slot, seen: int) -> tuple[Service, bool]:
        """A session for the slot; also whether it was opened for this message, which has seen so many failures."""
        async with slot.opening:
            if slot.service is not None:
                if slot.service.serves(asyncio.get_running_loop().time()):
                    return slot.service, False  # while we waited for our turn here
                await slot.service.over()  # the ceiling holds
            slot.service = Service(await self._open(slot, seen), self._lifespan)
            return slot.service, True

    async def _open(self, slot: Slot, seen: int) -> Session:
        if slot.barred:  # while we waited for our turn here
            raise NoRoom("there was no room for this session")
        try:
            return await self._connector.open(seen)
        except SMTPError as error:
            others = self._slots.others(slot)
            if others and is_no_room(error):
                self._room.lower(slot, error)
            self._connector.backoff.failed(asyncio.get_running_loop().time())
            if not others:
                self._connector.gone(error)
            raise

    async def drain(self, seconds: float | None = None) -> bool:
        """Wait until every message in hand is answered, and return True. Cancelling it changes nothing.

        After so many `seconds` it closes the pool as `aclose` does and returns False: what is past the point of no
        return is in doubt, of the others nothing is delivered, and each sender is told.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            await self.aclose()
            await self._idle.wait()
            return False
        return True

    async def aclose(self) -> None:
        """Take no more messages, say QUIT on every session and close; messages in hand are broken off.

        `drain` first to let them be answered. Takes two seconds at the most, whatever the relay does.
        """
        await self._connector.aclose()
        await self._slots.aclose()


def _tell(watch: MessageTimer | None, why: object) -> None:
    if watch is not None:
        watch.retried(why)


def _about_the_session(refusal: Reply, service: Service) -> bool:
    """Whether a refused MAIL tells of the session, not of the message: it was idle too long, or is used up.

    Some relays take so many messages a session, do not say how many, and answer every later MAIL with 4yz:
    OpenSMTPD, after a hundred, with "452 4.5.3 Too many messages sent".
    """
    return refusal.code == SERVICE_CLOSING or (service.welcomed and 400 <= refusal.code < 500)
