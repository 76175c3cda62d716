"""The messages of one session: who writes, who waits, and when a result is booked.

The head of the line has the turn. It keeps it until its last octet is written, not until that is answered:
the next in line may then speak behind it, and that is all of the pipelining policy. At most one message
at a time is past its point of no return and unanswered: DATA ends a group, so the next content waits for
a 354 that comes behind the reply to the one before.
"""

from __future__ import annotations

import asyncio
from collections import deque

from asyncsmtp.client.manners import Behind, Manners
from asyncsmtp.client.place import Place
from asyncsmtp.client.relay import Dialogue, Relay
from asyncsmtp.client.transport import READ_SIZE
from asyncsmtp.client.wire import Said, Wire
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, OutOfStep, SMTPError
from asyncsmtp.protocol.commands import END_OF_CONTENT, RSET, Command
from asyncsmtp.protocol.content import Content, transparent
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Phase

__all__ = ["Line"]

PROBE_PATIENCE = 1.0  # seconds, or …
PROBE_ROUND_TRIPS = 4  # … so many round trips, whichever is longer


class Line:
    """The senders' side of a session; `broken` and `caught_up` come from the wire."""

    def __init__(self, relay: Relay, wire: Wire, manners: Manners, round_trip: float) -> None:
        self._relay = relay
        self._wire = wire
        self._manners = manners
        self._patience = max(PROBE_PATIENCE, PROBE_ROUND_TRIPS * round_trip)
        self._places: deque[Place] = deque()  # the head has the turn
        self._unbooked: deque[Place] = deque()  # opened, in the order in which they were
        self._written_before: Place | None = None
        self._behind = Behind.REFUSED if manners.stops_at_the_dot else Behind.UNKNOWN
        self._quiet: asyncio.Future[None] | None = None
        self._doom: SMTPError | None = None

    @property
    def pipelined(self) -> bool:
        return self._relay.dialogue is Dialogue.PIPELINED and self._wire.protocol.extensions.pipelining

    @property
    def doomed(self) -> bool:
        """Whether the connection will be broken off as soon as nothing is in doubt any more."""
        return self._doom is not None

    def __len__(self) -> int:
        """Messages that are not booked yet."""
        return len(self._unbooked) + sum(not place.opened for place in self._places)

    async def deliver(self, place: Place) -> Delivery:
        """Wait for the turn, say the message, wait for the last reply."""
        if self._doom is not None:
            raise self._doom
        self._join(place)
        try:
            await place.turn
            await self._converse(place)
            return await place.booked
        except BaseException as error:
            self._withdraw(place, error)
            raise
        finally:
            self._pass_turn(place)
            if not place.collected.done():
                place.collected.set_result(None)

    # --- saying ---

    def _join(self, place: Place) -> None:
        self._places.append(place)
        if len(self._places) == 1:
            place.turn.set_result(None)

    def _pass_turn(self, place: Place) -> None:
        """The place has written its last octet, or will not write: the next in line may."""
        if not self._places or self._places[0] is not place:
            if place in self._places:
                self._places.remove(place)
            return
        self._places.popleft()
        if self._places and not self._places[0].turn.done():
            self._places[0].turn.set_result(None)

    async def _converse(self, place: Place) -> None:
        transaction = place.transaction
        if not place.opened:  # else the one before us said our envelope behind its content
            await self._may_open()
            self._say(place, transaction.say(behind_content=self._content_unanswered))
        while not transaction.decided:
            await place.heard
            if transaction.phase is Phase.CONTENT:
                await self._write(place)
                break
            self._say(place, transaction.say())
        self._pass_turn(place)

    async def _may_open(self) -> None:
        """Wait until a new envelope may be said."""
        while self._wire.failure is None and self._doom is None and self._must_wait():
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,))
        if self._doom is not None:
            raise self._doom

    def _must_wait(self) -> bool:
        if not self._wire.protocol.pending:
            return False
        if not self.pipelined:
            return True
        return self._content_unanswered and self._behind is not Behind.PROVED

    @property
    def _content_unanswered(self) -> bool:
        return any(place.ended for place in self._unbooked)

    def _say(self, place: Place, group: tuple[Command, ...]) -> None:
        if group:
            self._wire.say(self._open(place, group))

    def _open(self, place: Place, group: tuple[Command, ...]) -> list[Said]:
        if not place.opened:
            place.opened = True
            self._unbooked.append(place)
        if place.heard.done():
            place.heard = asyncio.get_running_loop().create_future()
        return [(command, place.hear, None) for command in group]

    async def _write(self, place: Place) -> None:
        """Write the content and its end, and behind it what the next in line has to say."""
        transaction, content = place.transaction, place.content
        parts: list[bytes] = []
        if transaction.taken:  # else only the lone dot that a 354 calls for
            if content.size <= READ_SIZE:
                parts = list(transparent(content.parts))
            else:
                await self._stream(content)
            if transaction.phase is not Phase.CONTENT:
                return  # refused while we wrote; the wire is down and the refusal is booked
            await self._settle_before()
            if place.before_end is not None:
                await place.before_end()
        self._wire.check()
        if transaction.phase is not Phase.CONTENT:
            return
        said: list[Said] = [(END_OF_CONTENT, place.hear, None)]
        transaction.content_ended()
        self._written_before = place
        self._wire.say([*said, *self._what_follows(place)], behind=parts)

    async def _settle_before(self) -> None:
        """Let the sender of the message before take its result first, so that it is recorded before our mark."""
        before = self._written_before
        if before is not None and not before.collected.done():
            await asyncio.wait((before.collected,))

    async def _stream(self, content: Content) -> None:
        block = bytearray()
        for part in transparent(content.parts):
            for start in range(0, len(part), READ_SIZE):
                block += part[start : start + READ_SIZE]
                if len(block) >= READ_SIZE:
                    await self._wire.write_content(bytes(block))
                    block.clear()
        if block:
            await self._wire.write_content(bytes(block))

    def _what_follows(self, place: Place) -> list[Said]:
        following = self._places[1] if len(self._places) > 1 and self._places[0] is place else None
        if following is None or following.turn.done() or not self.pipelined or self._doom is not None:
            return []
        if self._behind is Behind.PROVED:
            return self._open(following, following.transaction.say(behind_content=True))
        if self._behind is Behind.UNKNOWN and not self._manners.stops_at_the_dot:
            self._behind = Behind.PROBING
            return [(RSET, self._probed, self._patience)]
        return []

    def _probed(self, _: Command, reply: Reply) -> None:
        self._behind = Behind.PROVED if reply.positive else Behind.REFUSED
        self._manners.stops_at_the_dot |= not reply.positive

    # --- hearing ---

    def caught_up(self) -> None:
        """Book what is decided, once nothing said is unanswered: a reply too many or too few has shown by then."""
        if self._wire.protocol.pending:
            return
        while self._unbooked and self._unbooked[0].transaction.phase is Phase.OVER:
            self._book(self._unbooked.popleft())
        self._wake()
        if self._doom is not None and not any(place.ended for place in self._unbooked):
            self._wire.fail(self._doom)

    def broken(self, error: SMTPError) -> None:
        """Tell everyone what the end of the connection means for them."""
        if self._behind is Behind.PROBING:
            self._manners.stops_at_the_dot = True
        void = isinstance(error, OutOfStep)
        claimed = isinstance(error, OutOfStep) and error.claims_acceptance
        for place in self._unbooked:
            transaction = place.transaction
            if transaction.decided and not void:
                self._book(place)
            else:
                writing = transaction.phase is Phase.CONTENT and transaction.taken
                place.fail(error, in_doubt=transaction.was_sent or (claimed and writing))
        for place in self._places:
            if not place.opened:
                place.fail(error, in_doubt=False)
        self._unbooked.clear()
        self._doom = self._doom or error
        self._wake()

    def _wake(self) -> None:
        if self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    def _book(self, place: Place) -> None:
        tls = self._wire.tls
        place.book(place.transaction.delivery(host=str(self._relay), tls=tls.version() if tls else None))

    # --- giving up ---

    def _withdraw(self, place: Place, error: BaseException) -> None:
        """A sender leaves: nothing is broken before its envelope is said, nor once its content has ended."""
        transaction = place.transaction
        if transaction.was_sent:
            if not isinstance(error, DeliveryInDoubt):
                raise DeliveryInDoubt(transaction.envelope, "the sender gave up waiting") from error
        elif place.opened and not transaction.decided and self._wire.failure is None:
            self._give_up(ConnectionLost("another message on this connection was given up halfway: try again"))

    def _give_up(self, error: SMTPError) -> None:
        """Break off, but not before the message ahead of us has its reply."""
        if any(place.ended for place in self._unbooked):
            self._doom = error
            for place in self._places:
                if not place.opened:
                    place.fail(error, in_doubt=False)
        else:
            self._wire.fail(error)
