"""Plays a transcript without a socket: a client made of the protocol layer alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from asyncsmtp.errors import ProtocolError, SMTPError, UnexpectedReply
from asyncsmtp.protocol.auth.auth import Bearer, Credentials, Password, Secret
from asyncsmtp.protocol.client import ClientProtocol, Exchange, ProtocolState
from asyncsmtp.protocol.commands import END_OF_CONTENT, QUIT, Command
from asyncsmtp.protocol.content import Content, dot_stuff
from asyncsmtp.protocol.opening_handshake import OpeningOptions, Security, open_session
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Phase, Transaction, mail_parameters, rcpt_parameters
from asyncsmtp.testing.transcript import ClientStep, ServerStep
from tests.protocol.splitting import Cut, whole
from tests.transcripts.notation import Scene
from tests.transcripts.scene_options import build_envelope, build_xclient

NAME = "client.example"


class Client:
    """Opens a session, sends the scene's messages one after the other, says QUIT.

    Attributes:
        content_due: what the next dot must have in front of it: nothing where no recipient was taken.
        error: what ended it early.
        transactions: those that were begun, in order.
    """

    def __init__(self, scene: Scene) -> None:
        settings = self._settings = scene.settings
        self.protocol = ClientProtocol(masked=frozenset(settings.get("masked", "").split()))
        self.content_due = b""
        self.error: SMTPError | None = None
        self.transactions: list[Transaction] = []
        self._pipelines_content = scene.is_set("after-end-of-data")
        self._content = Content.of(scene.content)
        self._messages = deque(scene.messages)
        self._receivers: deque[Transaction | None] = deque()
        self._sent = bytearray()
        self._reply: Reply | None = None
        self._opening = True
        opening = OpeningOptions(
            NAME,
            Security(settings.get("security", "none")),
            credentials(settings),
            cleartext_login=scene.is_set("cleartext-login"),
            xclient=build_xclient(settings),
        )
        self._steps = open_session(self.protocol, opening)
        next(self._steps)
        self._receivers.append(None)

    def take_sent(self) -> bytes:
        """Return the bytes sent since the last call."""
        said = bytes(self._sent)
        self._sent.clear()
        return said

    def receive(self, octets: bytes) -> None:
        """One read; then go on as far as that allows. What comes after a broken rule is not read any more."""
        if isinstance(self.error, ProtocolError):
            return
        try:
            for exchange in self.protocol.receive(octets):
                self._handle(exchange)
            self._continue()
        except SMTPError as error:
            self._end(error)

    def start_tls(self) -> None:
        self.protocol.tls_started()
        self._continue()

    def close(self) -> None:
        self.error = self.error or self.protocol.receive_eof()

    def results(self) -> tuple[tuple[str, ...], ...]:
        """For each message the fate of each recipient, as the line of a session would book it."""
        begun = tuple(map(self._result, self.transactions))
        return begun + tuple(("not sent",) for _ in self._messages)

    def _result(self, transaction: Transaction) -> tuple[str, ...]:
        void = isinstance(self.error, UnexpectedReply)
        claimed = isinstance(self.error, UnexpectedReply) and self.error.claims_acceptance
        if transaction.is_decided and not void:
            return tuple(map(str, transaction.build_delivery().outcomes))
        if transaction.content_sent or (claimed and transaction.phase is Phase.CONTENT):
            return ("in doubt",)
        return ("not sent",)

    def _end(self, error: SMTPError) -> None:
        self.error = error
        self._opening = False
        self._reply = None
        if not isinstance(error, ProtocolError) and self.protocol.can_send(QUIT):
            self._say(None, (QUIT,))

    def _say(self, transaction: Transaction | None, group: Iterable[Command]) -> None:
        for command in group:
            self._sent += self.protocol.send(command)
            self._receivers.append(transaction)

    def _handle(self, exchange: Exchange) -> None:
        if exchange.command is None:
            return
        if exchange.command is QUIT and exchange.reply.positive and exchange.reply.code != 221:
            self.error = UnexpectedReply(f"the relay answered QUIT with “{exchange.reply}”: its replies are one off")
        early = not self._receivers  # refused while the content was being written
        transaction = self.transactions[-1] if early else self._receivers.popleft()
        if transaction is None:
            self._reply = exchange.reply
        else:
            transaction.receive_reply(exchange.command, exchange.reply)

    def _continue(self) -> None:
        if self._opening and self._reply is not None and self.protocol.state is not ProtocolState.TLS:
            self._open()
        if not self._opening and self.error is None and self.protocol.state is not ProtocolState.CLOSED:
            self._send()

    def _open(self) -> None:
        reply, self._reply = self._reply, None
        assert reply is not None
        try:
            self._say(None, (self._steps.send(reply),))
        except StopIteration:
            self._opening = False

    def _send(self) -> None:
        if self.protocol.reset_refused:
            if self.protocol.can_send(QUIT):
                self._say(None, (QUIT,))
            return
        current = self.transactions[-1] if self.transactions else None
        if current is None or current.phase is Phase.DONE:
            current = self._begin()
        if current is None:
            if self.protocol.can_send(QUIT):
                self._say(None, (QUIT,))
            return
        if current.phase is Phase.CONTENT:
            self._write(current)
        else:
            self._say(current, current.commands_to_send())

    def _begin(self) -> Transaction | None:
        if not self._messages:
            return None
        envelope = build_envelope(self._settings, self._messages[0])
        offered = self.protocol.extensions
        needed = mail_parameters(envelope, self._content, offered, verified=self._settings.get("security") is not None)
        each = rcpt_parameters(envelope, offered)
        self.transactions.append(Transaction(envelope, needed, each, pipelined=offered.pipelining))
        self._messages.popleft()
        return self.transactions[-1]

    def _write(self, transaction: Transaction) -> None:
        self.content_due = b"".join(dot_stuff(self._content.parts)) if transaction.has_accepted_recipient else b""
        self._sent += self.content_due
        transaction.end_content()
        self._say(transaction, (END_OF_CONTENT,))
        if self._pipelines_content and (following := self._begin()) is not None:
            self._say(following, following.commands_to_send(after_content=True))


def credentials(settings: dict[str, str]) -> Credentials | None:
    """The login of a scene."""
    if "login" in settings:
        user, secret = settings["login"].split()
        return Password(user, Secret(secret))
    if "token" in settings:
        user, secret = settings["token"].split()
        return Bearer(user, Secret(secret))
    return None


def play(scene: Scene, cut: Cut = whole) -> Client:
    """Play both sides; fail where the client says something else than the transcript."""
    client = Client(scene)
    for step in scene.transcript.steps:
        if isinstance(step, ServerStep):
            for octets in cut(step.octets):
                client.receive(octets)
        elif isinstance(step, ClientStep):
            if client.protocol.state is ProtocolState.TLS:
                client.start_tls()
            content = client.content_due if step.commands[0] == "." else b""
            assert client.take_sent() == content + b"".join(f"{line}\r\n".encode() for line in step.commands)
        else:
            client.close()
    assert client.take_sent() == b"", "the client says more than the transcript"
    return client
