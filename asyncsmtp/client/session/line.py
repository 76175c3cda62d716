"""The messages of one session: who writes, who waits, and when a result is booked.

The head of the line has the turn. It keeps it until its last octet is written, not until that is answered:
the next in line may then speak behind it, and that is all of the pipelining policy. At most one message
at a time is past its point of no return and unanswered: DATA ends a group, so the next content waits for
a 354 that comes behind the reply to the one before.

Nothing here waits. `_advance` says all that may be said now; it is called when a message joins, when
replies came, and when something that held the head up is done.
"""

from __future__ import annotations

import asyncio
from collections import deque

from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.connection.wire import Said, Wire
from asyncsmtp.client.session.manners import Behind, Manners
from asyncsmtp.client.session.place import Place
from asyncsmtp.client.session.streaming import stream
from asyncsmtp.errors import (
    ConnectionLost,
    DeliveryInDoubt,
    LocalProtocolError,
    ReplyTimeout,
    SMTPError,
    UnexpectedReply,
)
from asyncsmtp.protocol.client import ProtocolState
from asyncsmtp.protocol.commands import END_OF_CONTENT, RSET, Command, bdat
from asyncsmtp.protocol.content import dot_stuff_content
from asyncsmtp.protocol.delivery import Delivery, TlsInfo
from asyncsmtp.protocol.transaction import Phase

__all__ = ["Line"]


_CONTENT, _OVER = Phase.CONTENT, Phase.DONE  # looked up once: on Python 3.11 that is a call
_HOLDS_THE_TURN = (Phase.ENVELOPE, _CONTENT)


class Line:
    """The senders' side of a session; `caught_up` and `broken` are called by the wire."""

    def __init__(self, relay: Relay, wire: Wire, manners: Manners, round_trip: float, tls: TlsInfo | None) -> None:
        offered = wire.protocol.extensions
        lockstep = relay.dialogue is Dialogue.LOCKSTEP or manners.loses_commands
        self.pipelined = offered.pipelining and not lockstep
        self.chunked = relay.dialogue is Dialogue.STREAMED and self.pipelined and offered.chunking
        self._streams = self.chunked and not relay.lmtp  # how many replies a content has is not known beforehand
        self._window = relay.window if self._streams else 1  # contents unanswered at a time
        self._host = str(relay)
        self._tls = tls
        self._wire = wire
        self.loop = asyncio.get_running_loop()
        self._places: deque[Place] = deque()  # not written to the end yet; the head has the turn
        self._unbooked: deque[Place] = deque()  # opened, in the order in which they were
        self._ended_last: Place | None = None
        self._manners = manners
        self._behind = Behind(manners, round_trip)
        self._doom: SMTPError | None = None

    @property
    def doomed(self) -> bool:
        """Whether the connection will be broken off as soon as nothing is in doubt any more."""
        return self._doom is not None

    @property
    def busy(self) -> bool:
        """Whether messages wait or are unanswered."""
        return bool(self._places or self._unbooked)

    async def deliver(self, place: Place) -> Delivery:
        """Take a place in the line; return when the last reply is booked."""
        if self._doom is not None:
            raise self._doom
        self._places.append(place)
        try:
            if self._places[0] is place:  # else it is the head's business, and whoever is behind it only waits
                self._advance()
            if place.room is not None:
                await place.room
                await self._stream(place)
            return await place.booked
        except BaseException as error:
            if error is self._wire.failure and place.booked.done():
                return place.booked.result()  # what that meant for this message
            self._withdraw(place, error)
            raise
        finally:
            place.leave()
            if self._places and self._places[0].before_end is not None:
                # Behind this step: the sender records its result before the next one is marked.
                self.loop.call_soon(self._advance)

    # --- saying ---

    def _advance(self, _: object = None) -> None:
        """Say whatever may be said now."""
        while self._places and self._wire.alive and self._doom is None:  # else everyone is told soon, if not yet
            if not self._advance_head(self._places[0]):
                return

    def _advance_head(self, place: Place) -> bool:
        """Go on with the head; return whether it has given the turn to the next."""
        transaction = place.transaction
        if place.booked.done() and not transaction.is_decided:
            return False  # its sender is about to withdraw; one that is refused still owes the RSET
        if not place.opened:
            if not self._may_open():
                return False
            asks_first = transaction.envelope.all_or_nothing or not (transaction.chunked and place.streamed)
            if asks_first or not self._streams:
                self._say(place, transaction.commands_to_send(after_content=self._must_reset))
            elif self._marked(place):
                self._end(place)
        elif transaction.phase is _CONTENT:
            if not self._may_end(place):
                return False
            self._end(place)
        elif transaction.phase is not _OVER:
            group = transaction.commands_to_send()
            self._say(place, group)
            if not group and transaction.phase is Phase.RESETTING:
                return False  # chunks behind the refused one are unanswered: its RSET is still to be said
        if transaction.phase in _HOLDS_THE_TURN:
            return False
        self._places.popleft()
        return True

    def _may_open(self) -> bool:
        """Whether a new envelope may be said: nothing is unanswered, or the relay reads on behind it."""
        if not self._wire.protocol.pending:
            return True
        if not self._wire.protocol.can_send(RSET) or self._behind.probing:
            return False
        if self._streams:
            return sum(place.ended for place in self._unbooked) < self._window
        return self.pipelined and (self._behind.proved or not self._content_unanswered)

    @property
    def _content_unanswered(self) -> bool:
        return self._ended_last is not None and self._ended_last.ended

    @property
    def _must_reset(self) -> bool:
        """Whether RSET begins the next envelope: behind a content, and after one that was refused (RFC 3030 §2)."""
        return self._content_unanswered or self._wire.protocol.expected_state is not ProtocolState.READY

    def _open(self, place: Place, group: tuple[Command, ...]) -> list[Said]:
        if not place.opened:
            place.opened = True
            self._unbooked.append(place)
        return [Said(group, place.transaction.receive_reply)]

    def _say(self, place: Place, group: tuple[Command, ...]) -> None:
        if group:
            self._wire.say(self._open(place, group))

    def _may_end(self, place: Place) -> bool:
        """Whether the end of the content may be written: all before it is, and the sender's mark is durable."""
        if not place.transaction.has_accepted_recipient:
            return True  # a 354 without recipients calls for a lone dot (RFC 2920 §3.1)
        if not place.streamed:
            place.make_room()
            return False
        return self._marked(place)

    def _marked(self, place: Place) -> bool:
        """Whether the sender's mark is durable; asks for it."""
        if place.before_end is None:
            return True
        before = self._ended_last
        if before is not None and not before.collected and not self._streams:
            return False  # its sender must record the result before we mark the next
        if place.mark is None:
            try:
                place.mark = asyncio.ensure_future(place.before_end())
            except Exception as error:
                place.fail(error)
                return False
            place.mark.add_done_callback(self._advance)
        if not place.mark.done():
            return False
        failure = asyncio.CancelledError() if place.mark.cancelled() else place.mark.exception()
        if failure is not None:
            place.fail(failure)  # wakes the sender, which withdraws: the content never ends
        return failure is None

    def _end(self, place: Place) -> None:
        """Write the content, or what is left of it, and its end: from here on the relay may have it."""
        (self._end_chunks if place.transaction.chunked else self._end_data)(place)

    def _end_data(self, place: Place) -> None:
        """Behind the lone dot goes what the next in line has to say."""
        transaction = place.transaction
        parts = (
            (dot_stuff_content(place.whole),) if transaction.has_accepted_recipient and place.whole is not None else ()
        )
        answers = transaction.end_content()
        self._ended_last = place
        end = Said((END_OF_CONTENT,), transaction.receive_reply, answers=answers)
        self._wire.say([end, *self._what_follows()], behind=parts)

    def _end_chunks(self, place: Place) -> None:
        """The last chunk; in a streamed dialogue with its envelope, unasked."""
        unasked = not place.opened
        said = self._open(place, place.transaction.commands_to_send(after_content=self._must_reset)) if unasked else []
        parts = place.whole.parts if place.whole is not None else (place.rest or b"",)
        answers = place.transaction.end_content(before_replies=unasked)
        self._ended_last = place
        last = bdat(sum(map(len, parts)), last=True)
        said.append(Said((last,), place.transaction.receive_reply, answers=answers))
        self._wire.say(said, chunk=parts)

    def _what_follows(self) -> list[Said]:
        following = self._places[1] if len(self._places) > 1 else None
        if following is None or following.booked.done() or not self.pipelined:
            return []
        if self._behind.proved:
            return self._open(following, following.transaction.commands_to_send(after_content=True))
        return self._behind.probe()

    async def _stream(self, place: Place) -> None:
        await stream(place, self._wire)
        self._advance()

    # --- hearing ---

    def caught_up(self) -> None:
        """Book what is decided, once nothing said is unanswered: a reply too many or too few has shown by then."""
        while self._unbooked and self._unbooked[0].transaction.phase is _OVER and self._in_step:
            self._book(self._unbooked.popleft())
        if self._doom is not None and not self._wire.protocol.pending and not self._content_unanswered:
            self._wire.fail(self._doom)
            return
        self._advance()

    @property
    def _in_step(self) -> bool:
        """Nothing is unanswered; where that never comes, in a stream, the next MAIL was answered with 2yz."""
        if not self._wire.protocol.pending:
            return True
        following = self._unbooked[1].transaction.mail if self._streams and len(self._unbooked) > 1 else None
        return following is not None and following.positive

    def broken(self, error: SMTPError) -> None:
        """Tell everyone what the end of the connection means for them."""
        self._behind.lost()
        if self.pipelined and isinstance(error, ReplyTimeout) and any(place.halfway for place in self._unbooked):
            self._manners.lost_commands(self._host)
        void = isinstance(error, UnexpectedReply)
        claimed = isinstance(error, UnexpectedReply) and error.claims_acceptance
        for place, follower in zip(self._unbooked, [*self._unbooked, None][1:], strict=True):
            transaction = place.transaction
            in_step = not void or (follower is not None and follower.welcome)  # a shifted reply is no 354
            if in_step and place.conclude():
                self._book(place)
            elif transaction.content_sent or (
                claimed and transaction.phase is Phase.CONTENT and transaction.has_accepted_recipient
            ):
                place.doubt(error)
            else:
                place.fail(error)
        for place in self._places:
            if not place.opened:
                place.fail(_untouched(error))
        self._unbooked.clear()
        self._places.clear()
        self._doom = self._doom or error

    def _book(self, place: Place) -> None:
        delivery = place.transaction.build_delivery(host=self._host, tls=self._tls)
        if self._streams and not delivery.accepted:
            self._streams = False  # a relay that refuses chunks may take the next for commands: ask first from now on
        place.book(delivery)

    # --- giving up ---

    def _withdraw(self, place: Place, error: BaseException) -> None:
        """A sender leaves: nothing is broken before its envelope is said, nor once its content has ended."""
        transaction = place.transaction
        if not place.opened:
            if place in self._places:
                self._places.remove(place)
                # It may have been the head when the last reply came, and have held the others up.
                self.loop.call_soon(self._advance)
        elif transaction.content_sent:
            if not isinstance(error, DeliveryInDoubt):
                raise DeliveryInDoubt(transaction.envelope, "the sender gave up waiting") from error
        elif not (transaction.is_decided or place.ended) and self._wire.failure is None:
            self._give_up(ConnectionLost("another message on this connection was given up halfway: try again"))

    def _give_up(self, error: SMTPError) -> None:
        """Break off, but not before the message ahead of us has its reply."""
        if not self._content_unanswered:
            self._wire.fail(error)
            return
        self._doom = error
        for place in self._places:
            if not place.opened:
                place.fail(error)
        self._places.clear()


def _untouched(error: SMTPError) -> SMTPError:
    """What the end of a connection means for a message of which nothing was said."""
    if isinstance(error, ConnectionLost | LocalProtocolError):
        return error
    lost = ConnectionLost(f"the connection broke before this message was begun ({error}): try again")
    lost.__cause__ = error
    return lost
