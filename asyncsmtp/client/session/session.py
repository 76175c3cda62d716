"""One session: from the greeting to QUIT on one connection (RFC 5321 §3.1)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.compose import check_signer, prepare_for_sending
from asyncsmtp.client.config.login_config import CredentialsProvider, TokenSource
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.smtp_connection import (
    Hosts,
    SmtpConnection,
    aborted_by_owner,
    open_dialogue,
    with_context,
)
from asyncsmtp.client.connection.transport import OpenConnection, open_connection, tls_info
from asyncsmtp.client.event_loop import DeferredCancellation, LoopOwner, defer_during_error
from asyncsmtp.client.events import types as events
from asyncsmtp.client.session.pending_message import BeforeEnd, Deadline, restart_deadline, with_deadline
from asyncsmtp.client.session.send_pipeline import SendPipeline, ServerQuirks
from asyncsmtp.errors import DeliveryInDoubt, InvalidArgument, LocalProtocolError, SMTPError, check_type
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Credentials, Secret
from asyncsmtp.protocol.commands import NOOP, QUIT, Command, expn, vrfy
from asyncsmtp.protocol.content import AnyContent, Content
from asyncsmtp.protocol.delivery import Delivery, Outcome, TlsInfo
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import Extensions, Limits, Reply

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

    from asyncsmtp.mail.signing.dkim import Signer

__all__ = ["Session", "count_transactions", "merge_deliveries", "to_relay"]

logger = events.GuardedLogger(logging.getLogger("asyncsmtp.session"))


class Session:
    """A session with a relay; connects once, sends any number of messages, ends with QUIT.

        async with Session(relay) as session:
            delivery = await session.send(message)

    Several tasks may send at once: their messages go out in the order in which `send` was called, pipelined
    where the relay offers it. After an error that ends the session every call raises it; open another one.
    It belongs to the event loop, the thread and the process in which it was connected, see `Pool`.

    Args:
        relay: the relay and the policy for it, or its URL. password, token: for the user of a URL.
        signer: signs each message with DKIM before it takes its turn.
        sock: connected to the relay, for this one session, and closed with it however that ends; yours if this raises.
        trace: is called with each line of the dialogue.
        on_event: is called with each event, see `asyncsmtp.Event`.
        quirks, credentials, hosts, emitter: shared by the sessions of a pool.
        clock: seconds, for what is measured and cached; the event loop's if omitted.
        open_connection: opens the streams.

    Attributes:
        relay: as it was given; of several hosts the one that is, or was, used.
        tls_info: what protects the session, as its deliveries say too; None in clear, and until it is open.
    """

    def __init__(
        self,
        relay: Relay | str,
        *,
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
        signer: Signer | None = None,
        sock: socket.socket | None = None,
        trace: events.Trace | None = None,
        on_event: events.OnEvent | None = None,
        quirks: ServerQuirks | None = None,
        credentials: CredentialsProvider | None = None,
        hosts: Hosts | None = None,
        emitter: events.EventEmitter | None = None,
        clock: Callable[[], float] | None = None,
        open_connection: OpenConnection = open_connection,
    ) -> None:
        self.relay = relay = to_relay(relay, password, token)
        check_signer(signer)
        if sock is not None:
            check_type("sock", sock, socket.socket)
            if relay.fallback_hosts or relay.proxy or relay.opener:
                raise InvalidArgument("a socket of your own leads to one host: give no fallback_hosts, proxy or opener")
        self.tls_info: TlsInfo | None = None
        self._signer = signer
        self._sock = sock  # until the connection owns it
        self._has_own_socket = sock is not None
        self._hosts = hosts if hosts is not None else Hosts(relay, clock)
        if trace is not None:
            trace = events.guard_callback("trace", trace)
        self._trace = events.with_debug_log(trace) if logger.isEnabledFor(logging.DEBUG) else trace
        self._quirks = quirks if quirks is not None else ServerQuirks()
        if credentials is None and relay.login is not None:
            credentials = CredentialsProvider(relay.login, relay.timeouts.auth, clock)
        self._credentials = credentials
        self._mask = credentials.mask if credentials is not None else None
        if relay.proxy is not None and relay.proxy.password is not None:  # who reads along may speak as the relay
            self._mask = self._mask if self._mask is not None else SecretMask()
            self._mask.add(relay.proxy.password.reveal().encode("utf-8", "surrogatepass"))
        # Of its messages; a pool reports its own.
        self._message_emitter = None if on_event is None else events.EventEmitter(on_event, relay)
        self._emitter = emitter or self._message_emitter
        self._clock = clock
        self._open_connection = open_connection
        self._connection: SmtpConnection | None = None
        self._pipeline: SendPipeline | None = None
        self._connecting = False
        self._owner = LoopOwner("session")
        self._opened_at: float | None = None
        self._said_quit = False

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exception: object) -> None:
        with DeferredCancellation():
            await self.aclose()

    def __repr__(self) -> str:
        state = "open" if self.usable else "ended" if self._connecting and self._pipeline else "not open"
        return f"<Session with {self.relay}: {state}>"

    # --- state ---

    @property
    def extensions(self) -> Extensions:
        """The offer of the last EHLO, less what the relay's settings mask."""
        return self._connected().protocol.extensions

    @property
    def greeting(self) -> Reply | None:
        """The relay's 220, or None before it came."""
        return self._connection.greeting if self._connection is not None else None

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, for its version, cipher and certificate; None in clear."""
        return self._connected().tls

    @property
    def usable(self) -> bool:
        """True if a message may be sent; known without asking the relay, since the session always reads."""
        pipeline, connection = self._pipeline, self._connection
        return pipeline is not None and not pipeline.closing and connection is not None and connection.alive

    @property
    def pipelined(self) -> bool:
        """True if an envelope is written in one group, not command by command (RFC 2920)."""
        return self._pipeline is not None and self._pipeline.pipelined

    @property
    def busy(self) -> bool:
        """True if messages are waiting or unanswered."""
        return self._pipeline is not None and self._pipeline.busy

    # --- opening and closing ---

    async def connect(self) -> None:
        """Connect, do the TLS handshake, say EHLO, log in. Cancelling it closes the connection.

        Raises:
            ConnectFailed: no connection, no handshake, no SMTP on that port. CertificateRefused: not the relay's.
            AllHostsFailed: of several hosts, with the reason of each; a permanent failure ends the search at once.
            Refused: the greeting, EHLO or STARTTLS. AuthenticationRefused: the credentials.
            ExtensionNotSupported, InsecureConnection: the policy cannot be met; nothing of the credentials was sent.
            TokenFailed: there is no token to log in with.
            StartTlsInjection: bytes in clear behind the 220 to STARTTLS.
            LocalProtocolError: this session was connected before; it is for one connection.
        """
        if self._connecting:
            raise LocalProtocolError("this session was connected before: make another Session")
        self._owner.bind()
        self._connecting = True
        name, began = str(self.relay), self._now()
        try:
            await self._hosts.connect(self._connect_and_log_in)
        except BaseException as error:
            if self._emitter is not None:
                self._emitter.emit(events.SessionFailed(name, self._now() - began, error))
            raise
        finally:
            self._close_own_socket()
        self._report_opened(began)

    async def _connect_and_log_in(self, host: Relay) -> TlsInfo | None:
        self.relay = host
        if self._credentials is None:
            await self._connect(None)
        else:
            await self._credentials.log_in(self._connect, again=not self._has_own_socket)  # that serves one connection
        return self.tls_info

    async def _connect(self, credentials: Credentials | None) -> None:
        sock, self._sock = self._sock, None
        reader, writer = await self._open_connection(self.relay, sock)
        self._connection = connection = SmtpConnection(
            self.relay, reader, writer, on_failure=self._on_failure, trace=self._trace, clock=self._now, mask=self._mask
        )
        try:
            await open_dialogue(connection, self.relay, credentials, self._trace)
        except SMTPError as error:
            with DeferredCancellation():
                await self._quit_and_close()
            failed = with_context(error, self.relay, connection.greeting)
            if failed is error:
                raise
            raise failed from error
        except BaseException:
            await connection.aclose()
            raise
        self.tls_info = tls_info(self.relay, connection.tls)
        self._pipeline = SendPipeline(self.relay, connection, self._quirks, self.tls_info)

    def _report_opened(self, began: float) -> None:
        self._opened_at = self._now()
        host, seconds, facts = str(self.relay), self._opened_at - began, self.tls_info
        tls, verified = (facts.version, facts.verified) if facts is not None else (None, False)
        if logger.isEnabledFor(logging.INFO):
            how = "in clear" if tls is None else f"{tls}, certificate {'verified' if verified else 'not verified'}"
            logger.info("session with %s opened in %.3f s: %s", host, seconds, how)
        if self._emitter is not None:
            self._emitter.emit(events.SessionOpened(host, seconds, tls, verified))

    def _on_failure(self, error: SMTPError) -> None:
        """Report the end of the connection, if the session was open; its messages learn it from the pipeline."""
        if self._opened_at is None:
            return
        seconds, self._opened_at = self._now() - self._opened_at, None
        messages = self._pipeline.messages if self._pipeline is not None else 0
        if logger.isEnabledFor(logging.INFO):
            logger.info("session with %s closed: %d messages in %.1f s", self.relay, messages, seconds)
        if self._emitter is not None:
            reason = None if self._said_quit else error
            self._emitter.emit(events.SessionClosed(str(self.relay), seconds, messages, reason))

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()

    def _close_own_socket(self) -> None:
        if self._sock is not None:
            self._sock.close()

    async def wait_closed(self) -> None:
        """Return when the connection has ended, whoever ended it. Cancelling it changes nothing."""
        self._owner.check()
        await self._connected().wait_closed()

    async def aclose(self) -> None:
        """Say QUIT if the session is in order, and close; takes two seconds at the most.

        Messages that are not answered yet are aborted: have their senders finish first. Cancelling it closes at once.
        The CancelledError never replaces another exception, nor at the end of an `async with` block the value that it
        returns: it is raised by the next `await` of the task then.
        """
        if self._connection is None:
            if not self._connecting:
                self._close_own_socket()
            return
        self._owner.check()
        if self.busy:
            self.abort()
        with defer_during_error():
            await self._quit_and_close()

    async def _quit_and_close(self) -> None:
        connection = self._connected()
        try:
            if connection.failure is None and connection.protocol.can_send(QUIT):
                await connection.ask(QUIT)  # aborts the connection if it is cancelled
                self._said_quit = True
        except SMTPError:
            self.abort()
        finally:
            await connection.aclose()

    def fail_waiting(self, error: SMTPError) -> None:
        """End each message of which nothing is written with `error`; those that have begun are answered."""
        if self._pipeline is not None:
            self._pipeline.fail_waiting(error)

    def abort(self) -> None:
        """Abort the connection at once; a message that is unanswered is in doubt, or was not sent."""
        self._owner.check_thread()
        if self._connection is not None:
            self._connection.fail(aborted_by_owner())

    # --- messages ---

    async def send(
        self,
        message: Message | ParsedMessage,
        *,
        before_end: BeforeEnd | None = None,
        deadline: float | None = None,
        hard: bool = False,
    ) -> Delivery:
        """Send one message; return what the relay answered for each recipient.

        Args:
            message: a Message, or an `email.message` one with its envelope taken from its headers.
            before_end: awaited once, before the end of the content is written; while it has not returned the
                relay cannot have the message. Not called when no recipient was accepted. The next message's
                is not called before the sender of this one has its result.
            deadline: seconds until the end of the content must be written. hard: and the reply to it received.
        Raises:
            ExtensionNotSupported, MessageError: the message needs what the relay lacks; nothing was sent.
            InsecureConnection: it must go under TLS only, and this session is in clear, or unverified.
            ConnectionLost, ReplyTimeout, RemoteProtocolError: not delivered; the session is over.
            DeadlineExceeded: not delivered in time. DeliveryInDoubt: the relay may have the message.
        Cancelled before its turn it leaves the session as it was; while it is written, it ends the session;
        once its content has ended it raises DeliveryInDoubt and the session stays in step. No later cancellation
        replaces that error. Where the reply is here already, the delivery is returned, and the next `await` of the
        task raises CancelledError.
        """
        self._owner.check()
        made = await prepare_for_sending(message, self._signer)
        if deadline is None:
            return await self.transact(made.envelope, made.content, before_end=before_end)
        return await with_deadline(
            deadline, hard, before_end, lambda mark: self.transact(made.envelope, made.content, before_end=mark)
        )

    async def transact(
        self, envelope: Envelope, content: AnyContent, *, before_end: BeforeEnd | None = None
    ) -> Delivery:
        """Send an envelope and finished content like `send`; in parts, if the relay takes fewer recipients at once."""
        self._owner.check()
        if self._message_emitter is None:
            return await self._transact(envelope, content, before_end)
        with events.MessageTimer(self._message_emitter, envelope, content, self._clock) as timer:
            return timer.record_delivery(await self._transact(envelope, content, before_end))

    def _transact(
        self, envelope: Envelope, content: AnyContent, before_end: BeforeEnd | None
    ) -> Coroutine[None, None, Delivery]:
        connection = self._connected()
        if self._pipeline is None:
            raise LocalProtocolError("the session is not open yet: await connect() first")
        connection.check()
        if content.eight_bit and isinstance(content, Content) and content.downgrade is not None:
            return self._transact_downgraded(envelope, content, content.downgrade, before_end)
        limits = connection.protocol.extensions.limits
        if limits is not None and count_transactions(envelope, limits) > 1:
            return _send_in_parts(envelope, content, before_end, limits, self._transact)
        return self._pipeline.send(envelope, content, before_end)

    async def _transact_downgraded(
        self, envelope: Envelope, content: Content, downgrade: Callable[[], Content], before_end: BeforeEnd | None
    ) -> Delivery:
        """Send content in 8 bits, encoded anew if the relay does not take it as it is."""
        offered = self.extensions
        if "8BITMIME" in offered and ("SMTPUTF8" in offered or not content.utf8_headers):
            content = replace(content, downgrade=None)
        else:
            content = await asyncio.to_thread(downgrade)
        return await self._transact(envelope, content, before_end)

    # --- commands ---

    async def noop(self) -> Reply:
        """Check that the relay still answers (RFC 5321 §4.1.1.9); a message sent meanwhile waits for the reply.

        Raises:
            LocalProtocolError: messages are under way, and show it well enough.
            ConnectionLost, ReplyTimeout: it does not answer; a 421 counts as that.
        """
        return await self._ask_alone(NOOP)

    async def vrfy(self, text: str) -> Reply:
        """Ask about a mailbox (RFC 5321 §3.5.1); 252 is neither yes nor no. Raises as `noop`, and InvalidArgument."""
        return await self._ask_alone(vrfy(text))

    async def expn(self, text: str) -> Reply:
        """Ask for the members of a mailing list, one a line (RFC 5321 §3.5.2). Raises as `vrfy`."""
        return await self._ask_alone(expn(text))

    async def _ask_alone(self, command: Command) -> Reply:
        if self.busy:
            raise LocalProtocolError("messages are under way on this session: ask when there are none")
        reply = await self.ask(command)
        self._connected().check()
        return reply

    async def ask(self, command: Command) -> Reply:
        """Write one command and return its reply. Concurrent calls take turns.

        Cancelled while its reply is due, it ends the session: the reply would be taken for another.
        """
        self._owner.check()
        return await self._connected().ask(command)

    def _connected(self) -> SmtpConnection:
        if self._connection is None:
            raise LocalProtocolError("the session is not connected yet: await connect(), or use `async with`")
        return self._connection


# --- arguments ---


def to_relay(
    relay: object, password: str | Secret | None = None, token: str | Secret | TokenSource | None = None
) -> Relay:
    """Return the Relay of a URL; a Relay is returned as it is.

    Raises:
        TypeError: neither a Relay nor a URL.
        InvalidArgument: a wrong URL, or a password or token beside a Relay.
    """
    if isinstance(relay, str):
        return Relay.from_url(relay, password=password, token=token)
    if not isinstance(relay, Relay):
        raise TypeError(f"relay must be a Relay or a URL such as smtps://mail.example.org, not {type(relay).__name__}")
    if password is not None or token is not None:
        raise InvalidArgument(
            "password= and token= belong to a URL: give a Relay its login=Login(user, password) instead"
        )
    return relay


# --- more recipients than the relay takes at once (RFC 9422) ---


def count_transactions(envelope: Envelope, limits: Limits | None) -> int:
    """Return how many a message takes: one, unless the relay limits the recipients and they may go in parts."""
    if limits is None or limits.rcpt_max is None or envelope.all_or_nothing:
        return 1
    return -(-len(envelope.forward_paths) // limits.rcpt_max)


async def _send_in_parts(
    envelope: Envelope,
    content: AnyContent,
    before_end: BeforeEnd | None,
    limits: Limits,
    transact: Callable[[Envelope, AnyContent, BeforeEnd | None], Coroutine[None, None, Delivery]],
) -> Delivery:
    """Send to as many recipients at a time as the relay takes; `before_end` is called once, for the first part.

    Once a part was sent, no failure may hide what became of it: recipients whose part could not be sent any more are
    deferred, with the reason. They have nothing.

    Raises:
        What `transact` raises for the first part. DeliveryInDoubt: also for a later one; its envelope is that part's,
        and its `delivery` has what became of the others. Likewise where it is cancelled when others have the message.
    """
    size = limits.rcpt_max or len(envelope.forward_paths)
    done: list[Delivery] = []
    why = ""
    for begin in range(0, len(envelope.forward_paths), size):
        part = envelope.subset(range(begin, min(begin + size, len(envelope.forward_paths))))
        if done and content.is_consumed:
            why = "the content was a stream, which cannot be read again"
            break
        mark = before_end
        if done:  # the sender's own is called once, a deadline holds for each part
            restart_deadline(before_end)
            mark = before_end.stop if isinstance(before_end, Deadline) else None
        try:
            done.append(await transact(part, content, mark))
        except DeliveryInDoubt as doubt:
            done += [doubt.delivery] if doubt.delivery is not None else []
            if done:
                doubt.delivery = _join(envelope, done, "the part before it, or this one, is in doubt")
            raise
        except Exception as error:
            if not done:
                raise
            why = str(error)
            break
        except asyncio.CancelledError as cancelled:
            if isinstance(before_end, Deadline) and before_end.expired and done:
                why = "its time was over"
                break
            if not any(Outcome.ACCEPTED in delivery.outcomes for delivery in done):
                raise
            why = "the sender gave up waiting"
            raise DeliveryInDoubt(part, why, _join(envelope, done, why)) from cancelled
    return _join(envelope, done, why)


def _join(envelope: Envelope, done: list[Delivery], why: str) -> Delivery:
    """Return one delivery for several, in their order; recipients in none of them are deferred, for this reason."""
    first = next((delivery for delivery in done if delivery.mail.positive), done[0])
    if not first.mail.positive:  # of every part: no recipient was named
        return Delivery(envelope, first.mail, (), (), False, first.host, first.tls)
    replies = [pair for delivery in done for pair in _reply_pairs(delivery)]
    later = Reply(450, (f"not sent: {why}".encode(),))  # from no relay
    replies += [(later, None)] * (len(envelope.forward_paths) - len(replies))
    content_replies = tuple(final for _, final in replies if final is not None)
    sent = any(delivery.content_sent for delivery in done)
    return Delivery(
        envelope, first.mail, tuple(reply for reply, _ in replies), content_replies, sent, first.host, first.tls
    )


def _reply_pairs(delivery: Delivery) -> Iterator[tuple[Reply, Reply | None]]:
    """Yield for each recipient the reply to its RCPT, or what stood for it, and the reply to its content, if any."""
    if not delivery.mail.positive:
        yield from [(delivery.mail, None)] * len(delivery.envelope.forward_paths)
        return
    for reply, decisive in zip(delivery.recipients, delivery.replies, strict=True):
        yield reply, decisive if reply.positive else None


def merge_deliveries(first: Delivery, later: Delivery) -> Delivery:
    """Return a delivery with the replies of `later`, a second attempt, for the recipients that `first` deferred."""
    deferred = [place for place, outcome in enumerate(first.outcomes) if outcome is Outcome.DEFERRED]
    if len(deferred) == len(first.envelope.forward_paths):
        return later
    replies = list(_reply_pairs(first))
    for place, pair in zip(deferred, _reply_pairs(later), strict=True):
        replies[place] = pair
    content_replies = tuple(final for _, final in replies if final is not None)
    recipients, sent = tuple(reply for reply, _ in replies), first.content_sent or later.content_sent
    return Delivery(first.envelope, first.mail, recipients, content_replies, sent, later.host, later.tls)
