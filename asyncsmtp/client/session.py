"""One session: from the greeting to QUIT on one connection (RFC 5321 §3.1)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.line import Line
from asyncsmtp.client.manners import Manners
from asyncsmtp.client.opening import in_context, open_on
from asyncsmtp.client.place import BeforeEnd, Place
from asyncsmtp.client.relay import Relay
from asyncsmtp.client.trace import Trace, logged
from asyncsmtp.client.transport import READ_SIZE, connect, verifies
from asyncsmtp.client.wallet import Wallet
from asyncsmtp.client.wire import Said, Wire
from asyncsmtp.errors import AuthenticationRefused, LocalProtocolError, NotOffered, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.commands import GREETING, NOOP, QUIT, Command
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.login import NOT_VALID
from asyncsmtp.protocol.parameters import parameters, recipient_parameters
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.sasl import Credentials
from asyncsmtp.protocol.transaction import Transaction

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["Session"]

logger = logging.getLogger("asyncsmtp.session")


class Session:
    """A session with a relay; connects once, sends any number of messages, ends with QUIT.

        async with Session(relay) as session:
            delivery = await session.send(message)

    Several tasks may send at once: their messages go out in the order in which `send` was called, pipelined
    where the relay offers it. After an error that ends the session every call raises it; open another one.

    Args:
        relay: where to, and the policy.
        trace: is given each line of the dialogue.
        manners: what earlier sessions learnt about the relay; a pool shares one.
        wallet: the credentials and their tokens; a pool shares one.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        trace: Trace | None = None,
        manners: Manners | None = None,
        wallet: Wallet | None = None,
    ) -> None:
        self.relay = relay
        self._trace = logged(trace)
        self._manners = manners if manners is not None else Manners()
        self._wallet = wallet if wallet is not None else Wallet(relay.login, relay.timeouts.auth)
        self._wire: Wire | None = None
        self._line: Line | None = None
        self._verified = False  # whether TLS has proved who the relay is
        self._asking = asyncio.Lock()
        self._answer: asyncio.Future[Reply] | None = None
        self._round_trip = float("inf")
        self._greeting: Reply | None = None
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
        return self._greeting

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
            ConnectFailed: no connection, no handshake, no SMTP on that port.
            Refused: the greeting, EHLO or STARTTLS. AuthenticationRefused: the credentials.
            NotOffered, InsecureConnection: the policy cannot be met; nothing of the credentials was sent.
            TokenFailed: there is no token to log in with.
            StartTlsInjection: octets in clear behind the 220 to STARTTLS.
            LocalProtocolError: this session was connected before; it is for one connection.
        """
        if self._connecting:
            raise LocalProtocolError("this session was connected before: make another Session")
        self._connecting = True
        credentials = await self._wallet.credentials()
        try:
            await self._connect(credentials)
            return
        except AuthenticationRefused as refused:
            fresh = await self._wallet.instead_of(credentials) if refused.reply.code == NOT_VALID else None
            if fresh is None:
                raise
        await self._connect(fresh)  # anew: many a relay hangs up behind a 535

    async def _connect(self, credentials: Credentials | None) -> None:
        self._greeting = None
        reader, writer = await connect(self.relay)
        self._answer = asyncio.get_running_loop().create_future()
        self._wire = Wire(self.relay, reader, writer, listener=self, greeted=self._hear, trace=self._trace)
        try:
            await open_on(self._wire, self.relay, credentials, self.ask, self._trace)
        except SMTPError as error:
            await self._leave()
            failed = in_context(error, self.relay, self._greeting)
            if failed is error:
                raise
            raise failed from error
        except BaseException:
            await self._wire.aclose()
            raise
        self._line = Line(self.relay, self._wire, self._manners, self._round_trip)
        self._verified = self._wire.tls is not None and verifies(self.relay.context)
        if self._wire.tls is not None and not self._verified:
            logger.warning("the certificate of %s is not verified: anyone may read along; use ca_file", self.relay)

    async def ended(self) -> None:
        """Return when the connection has ended, whoever ended it. Cancelling it changes nothing."""
        await self._connected().ended()

    async def aclose(self) -> None:
        """Say QUIT if the session is in order, and close; takes two seconds at the most.

        Messages that are not answered yet are broken off: have their senders finish first.
        """
        if self._wire is None:
            return
        if self.busy:
            self.abort()
        await self._leave()

    async def _leave(self) -> None:
        wire = self._connected()
        if wire.failure is None and wire.protocol.allows(QUIT):
            try:
                await self.ask(QUIT)
            except SMTPError:
                self.abort()
            except asyncio.CancelledError:
                await wire.aclose()
                raise
        await wire.aclose()

    def abort(self) -> None:
        """Break the connection off at once; what is unanswered is in doubt or was not sent."""
        if self._wire is not None:
            self._wire.fail(LocalProtocolError("the session was broken off by its owner"))

    # --- speaking ---

    async def send(
        self,
        message: Message | ParsedMessage,
        *,
        before_end: BeforeEnd | None = None,
    ) -> Delivery:
        """Send one message; return what the relay answered for each recipient.

        Args:
            message: a Message, or an `email.message` one with its envelope taken from its headers.
            before_end: awaited once, before the end of the content is written; while it has not returned the
                relay cannot have the message. Not called when no recipient was accepted. The next message's
                is not called before the sender of this one has its result.
        Raises:
            NotOffered, MessageError: the message needs what the relay lacks; nothing was said.
            InsecureConnection: it must not go but under TLS, and this session is in clear, or unverified.
            ConnectionLost, ReplyTimeout, RemoteProtocolError: not delivered; the session is over.
            DeliveryInDoubt: the relay may have the message.
        Cancelled before its turn it leaves the session as it was; while it is written, it ends the session;
        once its content has ended it raises DeliveryInDoubt and the session stays in step.
        """
        made = Message.of(message)
        return await self.transact(made.envelope, made.content, before_end=before_end)

    async def transact(self, envelope: Envelope, content: Content, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Like `send`, for an envelope and finished content."""
        wire = self._connected()
        if self._line is None:
            raise LocalProtocolError("the session is not open yet: await connect() first")
        wire.check()
        offered = wire.protocol.extensions
        needed = parameters(envelope, content, offered, verified=self._verified)
        if content.binary and not self._line.pipelined:
            raise NotOffered("PIPELINING", "binary content goes in chunks, one behind the other: use base64")
        transaction = Transaction(
            envelope,
            needed,
            recipient_parameters(envelope, offered),
            pipelined=self._line.pipelined,
            chunked=self._line.chunked or content.binary,
            lmtp=self.relay.lmtp,
        )
        place = Place(transaction, content, before_end, streams=content.size > READ_SIZE)
        return await self._line.deliver(place)

    async def noop(self) -> Reply:
        """Ask for a sign of life (RFC 5321 §4.1.1.9); a message sent meanwhile waits for its reply.

        Raises:
            LocalProtocolError: messages are under way, which are sign enough.
            ConnectionLost, ReplyTimeout: there is no life; a 421 counts as that.
        """
        if self.busy:
            raise LocalProtocolError("messages are under way on this session: ask when there are none")
        reply = await self.ask(NOOP)
        self._connected().check()
        return reply

    async def ask(self, command: Command) -> Reply:
        """Say one command and return its reply; the greeting is only waited for. Several wait for each other.

        Cancelled while its reply is due, it ends the session: the reply would come to nobody.
        """
        wire = self._connected()
        loop = asyncio.get_running_loop()
        async with self._asking:
            if command is not GREETING:
                self._answer = loop.create_future()
                wire.say([Said((command,), self._hear)])
            began = loop.time()
            assert self._answer is not None
            try:
                reply = await self._answer
            except asyncio.CancelledError:
                self.abort()
                raise
        if command is not GREETING:
            self._round_trip = min(self._round_trip, loop.time() - began)
        return reply

    def _connected(self) -> Wire:
        if self._wire is None:
            raise LocalProtocolError("the session is not connected yet: await connect(), or use `async with`")
        return self._wire

    # --- hearing ---

    def _hear(self, command: Command, reply: Reply) -> None:
        if command is GREETING:
            self._greeting = reply
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def caught_up(self) -> None:
        """Called by the wire."""
        if self._line is not None:
            self._line.caught_up()

    def broken(self, error: SMTPError) -> None:
        """Called by the wire."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()
        if self._line is not None:
            self._line.broken(error)
