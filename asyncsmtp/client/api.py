"""One message in one call."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from asyncsmtp.client.compose import check_signer, prepare_for_sending
from asyncsmtp.client.config.login_config import TokenSource
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.event_loop import DeferredCancellation, running_loop
from asyncsmtp.client.events.types import EventEmitter, MessageTimer, OnEvent, Trace
from asyncsmtp.client.retry import Retry
from asyncsmtp.client.session.pending_message import BeforeEnd, restart_deadline, with_deadline
from asyncsmtp.client.session.send_pipeline import ServerQuirks
from asyncsmtp.client.session.session import Session, to_relay
from asyncsmtp.errors import ConnectionLost, InvalidArgument, check_type
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.delivery import Delivery

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

    from asyncsmtp.client.pool.pool import Pool
    from asyncsmtp.mail.signing.dkim import Signer

__all__ = ["send"]


async def send(
    message: Message | ParsedMessage,
    *,
    relay: Relay | str,
    password: str | Secret | None = None,
    token: str | Secret | TokenSource | None = None,
    signer: Signer | None = None,
    sock: socket.socket | None = None,
    trace: Trace | None = None,
    on_event: OnEvent | None = None,
    deadline: float | None = None,
    hard: bool = False,
    retry: Retry | None = None,
) -> Delivery:
    """Open a session, send one message, say QUIT; return what the relay answered for each recipient.

    A refused recipient is in the result, not an exception: call `raise_for_refusal()` on it for one.

    Args:
        message: a Message, or an `email.message` one with its envelope taken from its headers.
        relay: a Relay, or its URL. password, token: for the user of a URL.
        signer: signs the message with DKIM.
        sock: a socket that is connected to it; it is closed at the end, whatever comes of it.
        trace: is called with each line of the dialogue. on_event: with each event, see `asyncsmtp.Event`.
        deadline: seconds until the end of the content must be written, connecting and retries included, and not QUIT.
            hard: and the reply to it received.
        retry: sends again what failed temporarily, as `Pool.send` does; the session stays open meanwhile.
    Where the relay hangs up at the first commands, which are written as one group, they are written one at a time on a
    second connection, unless `sock` is given; a Session cannot do that, see `Dialogue.LOCKSTEP`.

    Raises and cancels as `Session.connect` and `Session.send` do. Cancelled while it says QUIT, it returns what the
    relay answered, and the next `await` of the task raises CancelledError.
    """
    sender: Session | Pool
    attempt: _Attempt | None = None
    try:
        running_loop()
        check_signer(signer)
        made = await prepare_for_sending(message, signer)
        relay = to_relay(relay, password, token)
        if retry is None:
            emitter = None if on_event is None else EventEmitter(on_event, relay)
            attempt = _Attempt(relay, sock, trace, emitter)
            sender = attempt.session
        elif sock is not None:
            raise InvalidArgument("sock= and retry= exclude each other: a socket serves one connection")
        else:
            check_type("retry", retry, Retry)
            from asyncsmtp.client.pool.pool import Pool  # loaded late: without a retry it is not needed

            sender = Pool(relay, sessions=1, retry=retry, trace=trace, on_event=on_event)
    except BaseException:
        if isinstance(sock, socket.socket):
            sock.close()
        raise
    try:
        if attempt is not None:
            return await with_deadline(deadline, hard, None, partial(attempt.send, made))
        return await sender.send(made, deadline=deadline, hard=hard)
    finally:
        with DeferredCancellation():
            await (sender if attempt is None else attempt.session).aclose()


class _Attempt:
    """One session, and another where the relay hung up at a group of commands: that one writes command by command.

    Attributes:
        session: the one that is open, or was last.
    """

    def __init__(
        self, relay: Relay, sock: socket.socket | None, trace: Trace | None, emitter: EventEmitter | None
    ) -> None:
        self._quirks = ServerQuirks()
        self._open = partial(Session, relay, trace=trace, emitter=emitter, quirks=self._quirks)
        self._emitter = emitter
        self._may_reconnect = sock is None
        self.session = self._open(sock=sock)

    async def send(self, message: Message, before_end: BeforeEnd | None) -> Delivery:
        """Do all that the deadline is for: QUIT comes after the reply, and has a limit of its own."""
        await self.session.connect()
        if self._emitter is None:
            return await self._send(message, before_end, None)
        with MessageTimer(self._emitter, message.envelope, message.content) as timer:
            return timer.record_delivery(await self._send(message, before_end, timer))

    async def _send(self, message: Message, before_end: BeforeEnd | None, timer: MessageTimer | None) -> Delivery:
        try:
            return await self.session.send(message, before_end=before_end)
        except ConnectionLost as error:  # nobody has it
            if not self._may_reconnect or message.content.is_consumed:
                raise
            if not self._quirks.first_broken(pipelined=self.session.pipelined):
                raise
            if timer is not None:
                timer.mark_retried(error)
        restart_deadline(before_end)
        await self.session.aclose()
        self.session = self._open()
        await self.session.connect()
        return await self.session.send(message, before_end=before_end)
