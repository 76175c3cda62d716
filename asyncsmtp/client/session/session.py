"""One session: from the greeting to QUIT on one connection (RFC 5321 §3.1)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.failover import Hosts
from asyncsmtp.client.connection.opening import in_context, open_on
from asyncsmtp.client.connection.own import OwnSocket
from asyncsmtp.client.connection.tls import tls_info
from asyncsmtp.client.connection.transport import connect
from asyncsmtp.client.connection.wire import Wire
from asyncsmtp.client.events.trace import Trace, logged
from asyncsmtp.client.events.types import EventEmitter, MessageTimer, OnEvent
from asyncsmtp.client.session.asking import Asking, broken_off
from asyncsmtp.client.session.deadline import by
from asyncsmtp.client.session.fitting import fitted
from asyncsmtp.client.session.lifetime import Lifetime
from asyncsmtp.client.session.line import Line
from asyncsmtp.client.session.manners import Manners
from asyncsmtp.client.session.parts import in_parts, transactions
from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.client.session.wallet import Wallet
from asyncsmtp.errors import LocalProtocolError, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.sasl import Credentials
from asyncsmtp.protocol.commands import NOOP, QUIT, Command, expn, vrfy
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery, TlsInfo
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.replies import Reply

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["Session"]


class Session:
    """A session with a relay; connects once, sends any number of messages, ends with QUIT.

        async with Session(relay) as session:
            delivery = await session.send(message)

    Several tasks may send at once: their messages go out in the order in which `send` was called, pipelined
    where the relay offers it. After an error that ends the session every call raises it; open another one.

    Args:
        relay: where to, and the policy.
        sock: connected to the relay, for this one session, and closed with it however that ends; yours if this raises.
        trace: is given each line of the dialogue.
        on_event: is called with what happens, see `client.events`. witness: the same of a pool, for its sessions.
        manners: what earlier sessions learnt about the relay; a pool shares one.
        wallet: the credentials and their tokens; a pool shares one.
        hosts: which hosts of the relay failed lately; a pool shares one.

    Attributes:
        relay: as it was given; of several hosts the one that is, or was, spoken with.
        tls_facts: what protects the session, as its deliveries tell it too; None in clear, and until it is open.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        sock: socket.socket | None = None,
        trace: Trace | None = None,
        on_event: OnEvent | None = None,
        manners: Manners | None = None,
        wallet: Wallet | None = None,
        hosts: Hosts | None = None,
        witness: EventEmitter | None = None,
    ) -> None:
        self.relay = relay
        self._own = OwnSocket(sock, relay)
        self._hosts = hosts if hosts is not None else Hosts(relay)
        self._trace = logged(trace)
        self._manners = manners if manners is not None else Manners()
        self._wallet = wallet if wallet is not None else Wallet(relay.login, relay.timeouts.auth)
        self._witness = EventEmitter.of(on_event, relay)
        self._life = Lifetime(str(relay), witness or self._witness)
        self._wire: Wire | None = None
        self._line: Line | None = None
        self.tls_info: TlsInfo | None = None
        self._asking = Asking()
        self._connecting = False

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- what is known ---

    @property
    def extensions(self) -> Extensions:
        """What the last EHLO offered, less what the relay's settings mask."""
        return self._connected().protocol.extensions

    @property
    def greeting(self) -> Reply | None:
        """The relay's 220, or None before it came."""
        return self._asking.greeting

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, for its version, cipher and certificate; None in clear."""
        return self._connected().tls

    @property
    def usable(self) -> bool:
        """Whether a message may be sent; known without asking the relay, since we always listen."""
        return self._line is not None and not self._line.doomed and self._wire is not None and self._wire.alive

    @property
    def pipelined(self) -> bool:
        """Whether an envelope is said in one group, not command by command (RFC 2920)."""
        return self._line is not None and self._line.pipelined

    @property
    def busy(self) -> bool:
        """Whether messages are waiting or unanswered."""
        return self._line is not None and self._line.busy

    # --- opening and closing ---

    async def connect(self) -> None:
        """Connect, shake hands, introduce ourselves, log in. Cancelling it closes the connection.

        Raises:
            ConnectFailed: no connection, no handshake, no SMTP on that port. CertificateRefused: not the relay's.
            AllHostsFailed: of several hosts, with the reason of each; only what another may do better is passed over.
            Refused: the greeting, EHLO or STARTTLS. AuthenticationRefused: the credentials.
            ExtensionNotSupported, InsecureConnection: the policy cannot be met; nothing of the credentials was sent.
            TokenFailed: there is no token to log in with.
            StartTlsInjection: octets in clear behind the 220 to STARTTLS.
            LocalProtocolError: this session was connected before; it is for one connection.
        """
        if self._connecting:
            raise LocalProtocolError("this session was connected before: make another Session")
        self._connecting = True
        with self._life.opening(), self._own:
            await self._hosts.reach(self._connect_and_log_in)
        self._life.opened(str(self.relay), self.tls_info)

    async def _connect_and_log_in(self, host: Relay) -> TlsInfo | None:
        self.relay = host
        await self._wallet.log_in(self._connect, again=self._own.sock is None)  # a socket of the caller's serves once
        return self.tls_info

    async def _connect(self, credentials: Credentials | None) -> None:
        self._asking.begin()
        ear, writer = await connect(self.relay, self._own.take())
        self._wire = Wire(self.relay, ear, writer, listener=self, greeted=self._asking.hear, trace=self._trace)
        try:
            await open_on(self._wire, self.relay, credentials, self.ask, self._trace)
        except SMTPError as error:
            await self._leave()
            failed = in_context(error, self.relay, self.greeting)
            if failed is error:
                raise
            raise failed from error
        except BaseException:
            await self._wire.aclose()
            raise
        self.tls_info = tls_info(self.relay, self._wire.tls)
        self._line = Line(self.relay, self._wire, self._manners, self._asking.round_trip, self.tls_info)

    async def ended(self) -> None:
        """Return when the connection has ended, whoever ended it. Cancelling it changes nothing."""
        await self._connected().ended()

    async def aclose(self) -> None:
        """Say QUIT if the session is in order, and close; takes two seconds at the most.

        Messages that are not answered yet are broken off: have their senders finish first.
        """
        if self._wire is None:
            self._own.drop()
            return
        if self.busy:
            self.abort()
        await self._leave()

    async def _leave(self) -> None:
        wire = self._connected()
        if wire.failure is None and wire.protocol.can_send(QUIT):
            try:
                await self.ask(QUIT)
                self._life.left = True
            except SMTPError:
                self.abort()
            except asyncio.CancelledError:
                await wire.aclose()
                raise
        await wire.aclose()

    def abort(self) -> None:
        """Break the connection off at once; what is unanswered is in doubt or was not sent."""
        if self._wire is not None:
            self._wire.fail(broken_off())

    # --- speaking ---

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
            deadline: seconds until the end of the content must be written. hard: and its reply be there.
        Raises:
            ExtensionNotSupported, MessageError: the message needs what the relay lacks; nothing was said.
            InsecureConnection: it must not go but under TLS, and this session is in clear, or unverified.
            ConnectionLost, ReplyTimeout, RemoteProtocolError: not delivered; the session is over.
            DeadlineExceeded: not delivered in time. DeliveryInDoubt: the relay may have the message.
        Cancelled before its turn it leaves the session as it was; while it is written, it ends the session;
        once its content has ended it raises DeliveryInDoubt and the session stays in step.
        """
        made = Message.of(message)
        if deadline is None:
            return await self.transact(made.envelope, made.content, before_end=before_end)
        return await by(
            deadline, hard, before_end, lambda mark: self.transact(made.envelope, made.content, before_end=mark)
        )

    async def transact(
        self, envelope: Envelope, content: AnyContent, *, before_end: BeforeEnd | None = None
    ) -> Delivery:
        """Like `send`, for an envelope and finished content; more recipients than the relay takes go in parts."""
        if self._witness is None:
            return await self._join(envelope, content, before_end)
        with MessageTimer(self._witness, envelope, content) as watch:
            return watch.got(await self._join(envelope, content, before_end))

    def _join(
        self, envelope: Envelope, content: AnyContent, before_end: BeforeEnd | None
    ) -> Coroutine[None, None, Delivery]:
        """Join the line, once it is known that the relay has what the message needs."""
        wire = self._connected()
        if self._line is None:
            raise LocalProtocolError("the session is not open yet: await connect() first")
        wire.check()
        offered, lmtp = wire.protocol.extensions, self.relay.lmtp
        if offered.limits is not None and transactions(envelope, offered.limits) > 1:
            return in_parts(envelope, content, before_end, offered.limits, self._join)
        place = fitted(envelope, content, before_end, offered=offered, line=self._line, lmtp=lmtp, tls=self.tls_info)
        self._life.messages += 1
        return self._line.deliver(place)

    async def noop(self) -> Reply:
        """Ask for a sign of life (RFC 5321 §4.1.1.9); a message sent meanwhile waits for its reply.

        Raises:
            LocalProtocolError: messages are under way, which are sign enough.
            ConnectionLost, ReplyTimeout: there is no life; a 421 counts as that.
        """
        return await self._ask_alone(NOOP)

    async def vrfy(self, text: str) -> Reply:
        """Ask about a mailbox (RFC 5321 §3.5.1); 252 is neither yes nor no. Raises as `noop`, and InvalidArgument."""
        return await self._ask_alone(vrfy(text))

    async def expn(self, text: str) -> Reply:
        """Ask who is on a mailing list, one a line (RFC 5321 §3.5.2). Raises as `vrfy`."""
        return await self._ask_alone(expn(text))

    async def _ask_alone(self, command: Command) -> Reply:
        if self.busy:
            raise LocalProtocolError("messages are under way on this session: ask when there are none")
        reply = await self.ask(command)
        self._connected().check()
        return reply

    async def ask(self, command: Command) -> Reply:
        """Say one command and return its reply; the greeting is only waited for. Several wait for each other.

        Cancelled while its reply is due, it ends the session: it would come to nobody.
        """
        return await self._asking.ask(self._connected(), command)

    def _connected(self) -> Wire:
        if self._wire is None:
            raise LocalProtocolError("the session is not connected yet: await connect(), or use `async with`")
        return self._wire

    # --- hearing ---

    def caught_up(self) -> None:
        """Called by the wire."""
        if self._line is not None:
            self._line.caught_up()

    def broken(self, error: SMTPError) -> None:
        """Called by the wire."""
        self._life.closed(error)
        self._asking.broken(error)
        if self._line is not None:
            self._line.broken(error)
