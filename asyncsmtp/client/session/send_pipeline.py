"""The messages of one session: their order, pipelining (RFC 2920), and when a result is believed.

*Turns.* Messages go out in the order in which they came. The head of the queue has the turn and keeps it until its last
byte is written, not until that is answered: then the next one may write behind it, and that is all of the pipelining
policy. At most one message at a time is past its point of no return and unanswered, because DATA ends a group: the next
content waits for a 354, which comes behind the reply to the content before. So a lost connection leaves at most one
message in doubt (a streamed dialogue trades that for speed: `window` of them).

*Nothing here waits.* `_advance` writes all that may be written now. It is called when a message joins, when replies
came, and when something that held up the head is done: its content was streamed, or its `before_end` has returned.
A group of commands is written without an `await`, so no two messages can mix.

*Results are delayed until they are certain.* A server may send a reply too many; every later reply would then be taken
for that to the command before it, and a refused message would count as accepted. Such a shift shows at the next reply
of a wrong class, at the latest at the 354. So a result is given to its sender only when nothing that was written is
unanswered. Where RSET is refused, the end of the session shows it: QUIT gets 221, or a reply that is left over.

*Replies in a stream.* A stream has no 354. If a relay leaves out one reply, 250 follows 250 all the same, and that
of RSET would accept a message that the relay does not have. So the first message of a stream goes alone, behind two
RSETs. If they are answered alike and in other words than MAIL, RCPT and BDAT, then every later RSET must be answered in
these words, which a shifted reply is not. Without that, one message at a time is unanswered.

*The probe.* RFC 2920 allows the next envelope after the end of a content. EHLO does not say which servers can handle
it: some refuse what follows (503), some lose it silently, one crashes. So a session does it only after it has seen
that its server can: with an RSET in the same write as an end of content, whose reply in time is the proof. A refusal
or a silence is remembered in `ServerQuirks` for every later session with the same relay. RSET is the probe because it
changes nothing when it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.connection.smtp_connection import CommandGroup, SmtpConnection
from asyncsmtp.client.event_loop import defer_cancellation
from asyncsmtp.client.events.types import GuardedLogger
from asyncsmtp.client.session.pending_message import BeforeEnd, PendingMessage, stream
from asyncsmtp.errors import (
    ConnectionLost,
    DeliveryInDoubt,
    ExtensionNotSupported,
    LocalProtocolError,
    ReplyTimeout,
    SMTPError,
    UnexpectedReply,
)
from asyncsmtp.protocol.client import ProtocolState
from asyncsmtp.protocol.commands import END_OF_CONTENT, QUIT, RSET, Command, bdat
from asyncsmtp.protocol.content import AnyContent, dot_stuff_content
from asyncsmtp.protocol.delivery import Delivery, TlsInfo
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Phase, Transaction, mail_parameters, rcpt_parameters

__all__ = ["PipeliningProbe", "SendPipeline", "ServerQuirks"]

logger = GuardedLogger(logging.getLogger("asyncsmtp.session"))

MIN_PROBE_TIMEOUT = 1.0  # seconds for the reply to the probe, or …
PROBE_ROUND_TRIPS = 4  # … so many round trips, whichever is longer

QUIT_REPLY = 221

_CONTENT, _OVER = Phase.CONTENT, Phase.DONE  # looked up once: on Python 3.11 that is a call
_HOLDS_THE_TURN = (Phase.ENVELOPE, _CONTENT)


@dataclass(slots=True)
class ServerQuirks:
    """Pipelining quirks observed on a server; shared by the sessions of one pool.

    Attributes:
        stops_at_end_of_data: the server refused or lost what was written behind a content.
        loses_commands: it answered a part of an envelope that was written as one group, and no more: it offers
            PIPELINING and yet throws away what it has read behind a command.
        hangs_up_on_groups: it hung up at the first group that a session wrote, so the next session writes one command
            at a time. If that one breaks as well, groups are not the reason, and the one after it writes groups again.
        answers_groups: a reply to RCPT has come in a group, so a hang-up has another reason.
    """

    stops_at_end_of_data: bool = False
    loses_commands: bool = False
    hangs_up_on_groups: bool = False
    answers_groups: bool = False
    _hang_ups: int = 0  # at the first group of a session
    _lockstep_fails: bool = False
    _lockstep_works: bool = False
    _lockstep_needed: bool = False

    @property
    def needs_lockstep(self) -> bool:
        return self.loses_commands or self.hangs_up_on_groups

    def first_answered(self, host: str, *, pipelined: bool) -> None:
        """Note that the relay accepted the envelope of a session's first message."""
        if pipelined:
            self.answers_groups, self.hangs_up_on_groups = True, False
        elif self.hangs_up_on_groups and self._hang_ups == 1:
            self._lockstep_works, self.hangs_up_on_groups = True, False  # groups once more: it may be a coincidence
        elif self.hangs_up_on_groups and not self._lockstep_needed:
            self._lockstep_works = self._lockstep_needed = True
            logger.warning(
                "%s hangs up when commands come in groups: they are sent one at a time from now on; "
                "set its dialogue to lockstep to save the time of finding out",
                host,
            )

    def first_broken(self, *, pipelined: bool) -> bool:
        """Note that the relay hung up at a session's first message; return whether to try at once without groups."""
        if self.answers_groups:
            return False
        self.hangs_up_on_groups = pipelined
        self._hang_ups += pipelined
        self._lockstep_fails |= not pipelined
        return pipelined and (self._lockstep_works or not self._lockstep_fails)

    def lost_commands(self, host: str) -> None:
        """Note it, and warn once: somebody should know why mail to this server is slow."""
        if not self.loses_commands:
            self.loses_commands = True
            logger.warning(
                "%s offers PIPELINING and loses commands: commands are sent one at a time from now on; "
                "set its dialogue to lockstep to save the time of finding out",
                host,
            )


class PipeliningProbe:
    """The test of one session whether its server reads on behind the end of a content.

    Args:
        round_trip: seconds, as measured while the session was opened.
    Attributes:
        running: sent and not answered. passed: the answer was positive.
        reset_lines: what RSET was answered with, once it passed.
    """

    def __init__(self, quirks: ServerQuirks, round_trip: float) -> None:
        self.running = self.passed = self._is_sent = False
        self.reset_lines: tuple[bytes, ...] | None = None
        self._quirks = quirks
        self._timeout = max(MIN_PROBE_TIMEOUT, PROBE_ROUND_TRIPS * round_trip)

    def start(self) -> list[CommandGroup]:
        """Return the commands to write behind a content; none if the probe was already sent, or a quirk is known."""
        if self._is_sent or self._quirks.stops_at_end_of_data:
            return []
        self.running = self._is_sent = True
        return [CommandGroup((RSET,), self._answered, self._timeout)]

    def _answered(self, _: Command, reply: Reply) -> None:
        self.running, self.passed = False, reply.positive
        self.reset_lines = reply.lines if reply.positive else None
        self._quirks.stops_at_end_of_data |= not reply.positive

    def connection_failed(self) -> None:
        """Take the end of the connection for a failure, if the probe was unanswered."""
        self._quirks.stops_at_end_of_data |= self.running


class SendPipeline:
    """The queue of pending messages on one connection: checks, writes, and completes them.

    Attributes:
        pipelined: an envelope is written in one group, not command by command (RFC 2920).
        messages: how many were queued so far.
    """

    def __init__(
        self, relay: Relay, connection: SmtpConnection, quirks: ServerQuirks, tls_info: TlsInfo | None
    ) -> None:
        offered = connection.protocol.extensions
        lockstep = relay.dialogue is Dialogue.LOCKSTEP or quirks.needs_lockstep
        self.pipelined = offered.pipelining and not lockstep
        self.messages = 0
        self._chunked = relay.dialogue is Dialogue.STREAMED and self.pipelined and offered.chunking
        self._lmtp = relay.lmtp
        self._unasked = self._chunked and not relay.lmtp  # LMTP: the number of replies to a content is not known before
        self._window = 1  # contents unanswered at a time; more in a stream, see above
        self._wanted_window = relay.window if self._unasked else 1
        self._reset_lines: tuple[bytes, ...] | None = None  # what RSET is answered with, once that is certain
        self._host = str(relay)
        self._tls_info = tls_info
        self._verified = tls_info is not None and tls_info.verified
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: deque[PendingMessage] = deque()  # not written to the end yet; the head has the turn
        self._unanswered: deque[PendingMessage] = deque()  # started, in the order in which they were
        self._last_ended: PendingMessage | None = None
        self._quirks = quirks
        self._probe = PipeliningProbe(quirks, connection.round_trip)
        self._closing: SMTPError | None = None
        connection.listen(self)

    @property
    def closing(self) -> bool:
        """True if the connection will be aborted as soon as no message is in doubt any more."""
        return self._closing is not None

    @property
    def busy(self) -> bool:
        """True if messages wait or are unanswered."""
        return bool(self._queue or self._unanswered)

    async def send(self, envelope: Envelope, content: AnyContent, before_end: BeforeEnd | None) -> Delivery:
        """Queue a message and return its delivery. Raises and cancels as `Session.send` does."""
        transaction = self.check_requirements(envelope, content)
        message = PendingMessage(transaction, content, before_end, self._loop)
        self.messages += 1
        if self._closing is not None:
            raise self._closing
        self._queue.append(message)
        try:
            if self._queue[0] is message:  # otherwise the message at the head writes first
                self._advance()
            if message.turn is not None:
                await message.turn
                await stream(message, self._connection)
                self._advance()
            return await message.result
        except BaseException as error:
            if error is self._connection.failure and message.result.done():
                return message.result.result()  # what that meant for this message
            if isinstance(error, asyncio.CancelledError) and (delivery := message.delivery) is not None:
                defer_cancellation(None, error)  # it came in the step of the loop that brought the reply
                return delivery
            self._withdraw(message, error)
            raise
        finally:
            message.collect()
            if self._queue and self._queue[0].before_end is not None:
                # After this step: the sender records its result before the `before_end` of the next one is called.
                self._loop.call_soon(self._advance)

    def check_requirements(self, envelope: Envelope, content: AnyContent) -> Transaction:
        """Return the transaction of a message, if the relay has what the message needs.

        Raises:
            ExtensionNotSupported, InsecureConnection, MessageError: it has not; nothing was written.
        """
        offered = self._connection.protocol.extensions
        needed = mail_parameters(envelope, content, offered, verified=self._verified)
        if content.binary and not self.pipelined:
            raise ExtensionNotSupported("PIPELINING", "binary content goes in chunks, one behind the other: use base64")
        return Transaction(
            envelope,
            needed,
            rcpt_parameters(envelope, offered),
            pipelined=self.pipelined,
            chunked=self._chunked or content.binary,
            lmtp=self._lmtp,
        )

    # --- writing ---

    def _advance(self, _: object = None) -> None:
        """Write all that may be written now."""
        while self._queue and self._connection.alive and self._closing is None:  # else each is failed soon, if not yet
            if not self._advance_head(self._queue[0]):
                return

    def _advance_head(self, message: PendingMessage) -> bool:
        """Go on with the head; return whether it has given the turn to the next."""
        transaction = message.transaction
        if message.result.done() and not transaction.is_decided:
            return False  # its sender is about to withdraw; a refused one must still send RSET
        if not message.started:
            if not self._may_start():
                return False
            asks_first = transaction.envelope.all_or_nothing or not (transaction.chunked and message.streamed)
            if asks_first or not self._unasked:
                self._write(message, transaction.commands_to_send(after_content=self._must_reset))
            elif self._is_marked(message):
                self._end(message)
        elif transaction.phase is _CONTENT:
            if not self._may_end(message):
                return False
            self._end(message)
        elif transaction.phase is not _OVER:
            group = transaction.commands_to_send()
            self._write(message, group)
            if not group and transaction.phase is Phase.RESETTING:
                return False  # chunks behind the refused one are unanswered: its RSET is still to be written
        if transaction.phase in _HOLDS_THE_TURN:
            return False
        self._queue.popleft()
        return True

    def _may_start(self) -> bool:
        """Return whether a new envelope may be written: nothing is unanswered, or the relay reads on behind it."""
        if not self._connection.protocol.pending:
            return True
        if not self._connection.protocol.can_send(RSET) or self._probe.running:
            return False
        if self._unasked:
            return sum(message.ended for message in self._unanswered) < self._window
        return self.pipelined and (self._probe.passed or not self._content_unanswered)

    @property
    def _content_unanswered(self) -> bool:
        return self._last_ended is not None and self._last_ended.ended

    @property
    def _must_reset(self) -> bool:
        """True if RSET begins the next envelope: behind a content, and after one that was refused (RFC 3030 §2)."""
        return self._content_unanswered or self._connection.protocol.expected_state is not ProtocolState.READY

    def _start(self, message: PendingMessage, group: tuple[Command, ...]) -> list[CommandGroup]:
        if not message.started:
            message.started = True
            self._unanswered.append(message)
        return [CommandGroup(group, message.transaction.receive_reply)]

    def _write(self, message: PendingMessage, group: tuple[Command, ...]) -> None:
        if group:
            self._connection.write(self._start(message, group))

    def _may_end(self, message: PendingMessage) -> bool:
        """Return whether the end of the content may be written: all before it is, and `before_end` has returned."""
        if not message.transaction.has_accepted_recipient:
            return True  # a 354 without recipients calls for the end of data alone (RFC 2920 §3.1)
        if not message.streamed:
            message.give_turn()
            return False
        return self._is_marked(message)

    def _is_marked(self, message: PendingMessage) -> bool:
        """Return whether the sender's `before_end` has returned; call it first, once.

        This is the last step before the point of no return, and the sender may rely on it: as long as `before_end` has
        not returned, the relay cannot have the message. It runs as a future, since nothing here may wait; its end calls
        `_advance` again. For a sender that writes its results down it is not called before the sender of the message
        before has its result: else a crash could leave two messages marked, and only one of them out.
        """
        if message.before_end is None:
            return True
        before = self._last_ended
        if before is not None and not before.collected and not self._unasked:
            return False
        if message.marking is None:
            try:
                message.marking = asyncio.ensure_future(message.before_end())
            except Exception as error:
                message.fail(error)
                return False
            message.marking.add_done_callback(self._advance)
        if not message.marking.done():
            return False
        failure = asyncio.CancelledError() if message.marking.cancelled() else message.marking.exception()
        if failure is not None:
            message.fail(failure)  # wakes the sender, which withdraws: the content never ends
        return failure is None

    def _end(self, message: PendingMessage) -> None:
        """Write the content, or what is left of it, and its end: from here on the relay may have it.

        `end_content` comes before the write, so an error in the write finds the message past the point of no return.
        """
        (self._end_chunks if message.transaction.chunked else self._end_data)(message)

    def _end_data(self, message: PendingMessage) -> None:
        """Write the content and its end, and what the next message has to say, in one write."""
        transaction = message.transaction
        parts = (
            (dot_stuff_content(message.whole),)
            if transaction.has_accepted_recipient and message.whole is not None
            else ()
        )
        replies = transaction.end_content()
        self._last_ended = message
        end = CommandGroup((END_OF_CONTENT,), transaction.receive_reply, replies=replies)
        self._connection.write([end, *self._what_follows()], content=parts)

    def _end_chunks(self, message: PendingMessage) -> None:
        """Write the last chunk; in a streamed dialogue with its envelope, unasked."""
        unasked = not message.started
        transaction = message.transaction
        groups: list[CommandGroup] = []
        if unasked:
            learns = self._wanted_window > self._window
            if learns:
                groups.append(CommandGroup((RSET,), self._learn_reset))
            groups += self._start(message, transaction.commands_to_send(after_content=learns or self._must_reset))
        parts = message.whole.parts if message.whole is not None else (message.rest or b"",)
        replies = transaction.end_content(before_replies=unasked)
        self._last_ended = message
        last = bdat(sum(map(len, parts)), last=True)
        groups.append(CommandGroup((last,), transaction.receive_reply, replies=replies))
        self._connection.write(groups, chunk=parts)

    def _what_follows(self) -> list[CommandGroup]:
        following = self._queue[1] if len(self._queue) > 1 else None
        if following is None or following.result.done() or not self.pipelined:
            return []
        if self._probe.passed:
            return self._start(following, following.transaction.commands_to_send(after_content=True))
        return self._probe.start()

    # --- called by the connection ---

    def replies_received(self) -> None:
        """Complete what is decided, once nothing written is unanswered: a shift of replies has shown by then."""
        if self._connection.protocol.reset_refused and self._is_ended_by_quit():
            return
        while self._unanswered and self._unanswered[0].transaction.phase is _OVER and self._replies_match:
            self._complete(self._unanswered[0])  # it stays there if that fails: `connection_failed` ends it then
            self._unanswered.popleft()
        if self._closing is not None and not self._connection.protocol.pending and not self._content_unanswered:
            self._connection.fail(self._closing)
            return
        self._advance()

    @property
    def _replies_match(self) -> bool:
        """True if nothing is unanswered; where that never comes, in a stream, the next RSET and MAIL were answered.

        Raises:
            UnexpectedReply: that RSET was answered with what is no reply to it.
        """
        if not self._connection.protocol.pending:
            return True
        if not self._unasked or len(self._unanswered) < 2:
            return False
        following = self._unanswered[1].transaction
        if not self._has_reset_reply(following):
            raise UnexpectedReply(
                f"the relay answered RSET with “{following.reset_reply}”, as it never does: its replies are one off"
            )
        return following.mail is not None and following.mail.positive

    def _has_reset_reply(self, following: Transaction) -> bool:
        """Return false if the RSET before a transaction got another reply than RSET gets, as far as that is known."""
        reset, known = following.reset_reply, self._reset_lines or self._probe.reset_lines
        return reset is None or known is None or not reset.positive or reset.lines == known

    def _is_ended_by_quit(self) -> bool:
        """Say QUIT where a message's own RSET was refused, and return true; that of the probe may be refused."""
        for message in self._unanswered:
            reset = message.transaction.reset_reply
            if reset is not None and not reset.positive:
                break
        else:
            return False
        if self._closing is None:
            self._abort_later(ConnectionLost(f"{self._host} refused RSET: {reset}: try again"))
        protocol = self._connection.protocol
        if protocol.pending:
            return True  # QUIT, or what was written before it
        if protocol.can_send(QUIT):
            self._connection.write([CommandGroup((QUIT,), self._quit_answered)])
        else:  # the content of the next message is due
            self._fail_closing()
        return True

    def _quit_answered(self, _: Command, reply: Reply) -> None:
        """End the connection; a positive reply that is not QUIT's own is left over from the commands before it."""
        if reply.positive and reply.code != QUIT_REPLY:
            self._connection.fail(UnexpectedReply(f"the relay answered QUIT with “{reply}”: its replies are one off"))
        else:
            self._fail_closing()

    def _fail_closing(self) -> None:
        assert self._closing is not None
        self._connection.fail(self._closing)

    def connection_failed(self, error: SMTPError) -> None:
        """End each message with what the end of the connection means for it; no exception leaves a sender waiting."""
        unanswered, waiting = [*self._unanswered], [message for message in self._queue if not message.started]
        self._unanswered.clear()
        self._queue.clear()
        self._closing = self._closing or error
        try:
            self._learn_from_failure(error, unanswered)
        except Exception:
            logger.exception("the end of the session with %s was not understood", self._host)
        for message, follower in zip(unanswered, [*unanswered, None][1:], strict=True):
            try:
                self._end_unanswered(message, follower, error)
            except Exception as bug:
                logger.exception("the result of a message to %s could not be made", self._host)
                message.fail_without_result(bug)
        for message in waiting:
            message.fail(_not_started(error))

    def _learn_from_failure(self, error: SMTPError, unanswered: Sequence[PendingMessage]) -> None:
        """Note what the end of the connection says of the server."""
        self._probe.connection_failed()
        if self.pipelined and any(message.transaction.recipients for message in unanswered):
            self._quirks.answers_groups = True
        partly = any(message.partly_answered for message in unanswered)
        if self.pipelined and partly and isinstance(error, ReplyTimeout):
            self._quirks.lost_commands(self._host)

    def _end_unanswered(self, message: PendingMessage, follower: PendingMessage | None, error: SMTPError) -> None:
        """End a message that was begun before the connection ended, as far as its replies and the next ones tell."""
        transaction = message.transaction
        shifted = isinstance(error, UnexpectedReply)
        claimed = isinstance(error, UnexpectedReply) and error.claims_acceptance
        odd = shifted or (follower is not None and not self._has_reset_reply(follower.transaction))
        proved = not odd or (follower is not None and follower.has_354)  # a shifted reply is no 354
        if not (transaction.is_begun or transaction.in_doubt or transaction.has_accepted_content):
            message.fail(_not_started(error))
        elif proved and message.conclude():
            self._complete(message)
        elif transaction.content_sent or (
            claimed and transaction.phase is _CONTENT and transaction.has_accepted_recipient
        ):
            message.mark_in_doubt(error, self._host, self._tls_info)
        else:
            message.fail(error)

    def _complete(self, message: PendingMessage) -> None:
        if self._wanted_window > self._window and self._reset_lines is not None:
            self._check_reset_lines(message.transaction)
        delivery = message.transaction.build_delivery(host=self._host, tls=self._tls_info)
        if self._unasked and not delivery.accepted:
            self._unasked = False  # a relay that refuses chunks may take the next for commands: ask first from now on
        message.complete(delivery)

    def _learn_reset(self, _: Command, reply: Reply) -> None:
        """Keep the reply to an RSET that has nothing unanswered before it."""
        self._reset_lines = reply.lines

    def _check_reset_lines(self, first: Transaction) -> None:
        """Let more messages be unanswered if the words of RSET's reply are its own; else never again."""
        others = (first.mail, *first.recipients, *first.content_replies)
        if self._has_reset_reply(first) and all(reply and reply.lines != self._reset_lines for reply in others):
            self._window = self._wanted_window
        else:
            self._wanted_window = 1
            logger.info("%s answers RSET like other commands: streamed messages go one at a time", self._host)

    # --- cancellation ---

    def fail_waiting(self, error: SMTPError) -> None:
        """End each message of which nothing is written; those that have begun are completed as ever."""
        for message in self._queue:
            if not message.started:
                message.fail(error)  # wakes the sender, which withdraws

    def _withdraw(self, message: PendingMessage, error: BaseException) -> None:
        """Take a message out whose sender was cancelled, or whose content failed.

        Three cases. Nothing of it is written: it leaves the queue, and the session is as before. Its content has ended:
        the relay may have it, so the sender gets DeliveryInDoubt in place of its CancelledError, and the session stays
        in step, since the reply still comes and is counted. In between half a transaction is written, which cannot be
        taken back: the connection must be aborted, but not before the message ahead has its reply, see `_abort_soon`.
        """
        transaction = message.transaction
        if not message.started:
            if message in self._queue:
                self._queue.remove(message)
                # It may have been the head when the last reply came, and have held the others up.
                self._loop.call_soon(self._advance)
        elif transaction.content_sent:
            if not isinstance(error, DeliveryInDoubt):
                if isinstance(message.error, DeliveryInDoubt):
                    raise message.error  # the connection was lost in the same step
                why, shifted = "the sender gave up waiting", transaction.is_decided  # by what is not believed yet
                raise message.make_doubt(why, self._host, self._tls_info, shifted=shifted) from error
        elif not (transaction.is_decided or message.ended) and self._connection.failure is None:
            self._abort_soon(
                ConnectionLost("another message on this connection was cancelled while it was being sent: try again")
            )

    def _abort_soon(self, error: SMTPError) -> None:
        """Abort the connection when the message ahead has its reply: its outcome must not be lost with it."""
        if not self._content_unanswered:
            self._connection.fail(error)
            return
        self._abort_later(error)

    def _abort_later(self, error: SMTPError) -> None:
        """Begin no other message, and abort the connection once it is in order."""
        self._closing = error
        for message in self._queue:
            if not message.started:
                message.fail(error)
        self._queue.clear()


def _not_started(error: SMTPError) -> SMTPError:
    """Return the error for a message of which nothing was written when the connection ended."""
    if isinstance(error, ConnectionLost | LocalProtocolError):
        return error
    lost = ConnectionLost(f"the connection broke before this message was begun ({error}): try again")
    lost.__cause__ = error
    return lost
