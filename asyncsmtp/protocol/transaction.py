"""One mail transaction: the commands to send for a message, and the meaning of their replies (RFC 5321 §3.3).

Lockstep and pipelined are the same script; pipelined sends all of it at once and reads the replies afterwards. The
content follows DATA, or goes in chunks (RFC 3030): then there is no 354, and the content is due as soon as a
recipient is accepted, or even before that if the relay is configured for streaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from asyncsmtp.errors import ExtensionNotSupported, InsecureConnection, LocalProtocolError, UnexpectedReply
from asyncsmtp.protocol.client import SERVICE_CLOSING
from asyncsmtp.protocol.commands import DATA, RSET, Command, Verb, bdat, mail, rcpt
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery, TlsInfo
from asyncsmtp.protocol.envelope import ByMode, Envelope, EsmtpParameter, MailOptions, utc
from asyncsmtp.protocol.replies import Extensions, Limits, Reply

__all__ = ["Parameters", "Phase", "Transaction", "mail_parameters", "rcpt_parameters"]

Parameters = Mapping[str, str | None]


def mail_parameters(
    envelope: Envelope, content: AnyContent, offered: Extensions, *, verified: bool = False
) -> dict[str, str | None]:
    """Return the parameters of MAIL that this message needs.

    Args:
        verified: true if the session uses TLS and the relay's certificate was verified.
    Raises:
        ExtensionNotSupported: the relay lacks an extension that the message needs, or limits it; nothing was sent.
        InsecureConnection: REQUIRETLS is requested and this session itself is not protected.
    """
    needed: dict[str, str | None] = {}
    if "SIZE" in offered and content.size is not None:
        if offered.size is not None and content.size > offered.size:
            why = f"the message has {content.size} bytes, the relay accepts {offered.size}"
            raise ExtensionNotSupported("that SIZE", why)
        needed["SIZE"] = str(content.size)
    mail_options = envelope.mail_options
    is_utf8 = (
        envelope.needs_smtputf8 or content.utf8_headers or (mail_options is not None and mail_options.needs_smtputf8)
    )
    if is_utf8:  # before 8BITMIME, which a server with SMTPUTF8 offers too (RFC 6531 §3.1): encoding would not help
        _require(offered, "SMTPUTF8", "an address or a header of the message is not ASCII")
    if content.binary:
        for extension in ("BINARYMIME", "CHUNKING"):
            _require(offered, extension, "encode the parts as base64; arbitrary bytes can be sent by BDAT only")
        needed["BODY"] = "BINARYMIME"
    elif content.eight_bit:
        _require(offered, "8BITMIME", "encode the parts as quoted-printable or base64")
        needed["BODY"] = "8BITMIME"
    if is_utf8:
        needed["SMTPUTF8"] = None
    if offered.limits is not None:
        _check_limits(offered.limits, envelope)
    if mail_options is not None:
        needed |= _option_parameters(mail_options, offered)
        _check_values(mail_options, offered)
        if mail_options.require_tls and not verified:
            raise InsecureConnection(
                "REQUIRETLS is requested, but this session has no TLS or its certificate was not verified: "
                "use smtps:// or STARTTLS, and a context that verifies certificates; nothing was sent"
            )
    return needed


def rcpt_parameters(envelope: Envelope, offered: Extensions) -> tuple[Parameters, ...]:
    """Return the parameters of each RCPT, in the order of the envelope; empty if no recipient needs any.

    Raises:
        ExtensionNotSupported: the relay lacks an extension that the options need; nothing was sent.
    """
    if not envelope.rcpt_options:
        return ()
    return tuple(
        {} if mail_options is None else _option_parameters(mail_options, offered)
        for mail_options in envelope.rcpt_options
    )


def _option_parameters(mail_options: Iterable[EsmtpParameter], offered: Extensions) -> dict[str, str | None]:
    parameters = {}
    for extension, keyword, value in mail_options:
        _require(offered, extension, f"{keyword} cannot be requested; leave the option out, or use another relay")
        parameters[keyword] = value
    return parameters


def _require(offered: Extensions, extension: str, why: str) -> None:
    if extension not in offered:
        raise ExtensionNotSupported(extension, why)


def _check_limits(limits: Limits, envelope: Envelope) -> None:
    """Check the limits that the relay announced (RFC 9422 §4), so that no RCPT is refused for them."""
    recipients = len(envelope.forward_paths)
    if limits.rcpt_max is not None and recipients > limits.rcpt_max:
        raise ExtensionNotSupported(
            "so many recipients",
            f"the message has {recipients}, the relay accepts {limits.rcpt_max} at once (RCPTMAX): send it in parts",
        )
    if limits.rcpt_domain_max is not None:
        domains = len({path.domain.lower() for path in envelope.forward_paths})
        if domains > limits.rcpt_domain_max:
            raise ExtensionNotSupported(
                "so many domains",
                f"the recipients have {domains}, the relay accepts {limits.rcpt_domain_max} (RCPTDOMAINMAX): "
                "send the message domain by domain",
            )


def _check_values(mail_options: MailOptions, offered: Extensions) -> None:
    """Check values against the smallest and largest that EHLO announced."""
    if (by := mail_options.deliver_by) is not None and by.mode is ByMode.RETURN:
        shortest = offered.min_by_time
        if shortest is not None and by.seconds < shortest:
            raise ExtensionNotSupported("that DELIVERBY", f"{by.seconds} s are requested, the relay needs {shortest}")
    held = offered.future_release
    if held is None:
        return
    if mail_options.hold_for is not None and held.seconds is not None and mail_options.hold_for > held.seconds:
        why = f"{mail_options.hold_for} s are requested, the relay holds for {held.seconds}"
        raise ExtensionNotSupported("that HOLDFOR", why)
    if mail_options.hold_until is not None and held.moment is not None and mail_options.hold_until > held.moment:
        asked, last = utc(mail_options.hold_until), utc(held.moment)
        raise ExtensionNotSupported("that HOLDUNTIL", f"{asked} is requested, the relay holds until {last}")


class Phase(Enum):
    """The progress of a transaction."""

    ENVELOPE = "envelope"  # MAIL, RCPT and DATA are being sent or answered
    CONTENT = "content"  # the content is due: 354, or a recipient was accepted and it goes in chunks
    AWAITING_RESULT = "awaiting result"  # the end of data was sent
    RESETTING = "resetting"  # refused; RSET is due or sent
    DONE = "done"  # every reply was received


# Looking up an Enum member costs a call on Python 3.11, and these are needed for each reply.
_ENVELOPE, _CONTENT, _AWAITING_RESULT = Phase.ENVELOPE, Phase.CONTENT, Phase.AWAITING_RESULT
_RESETTING, _DONE = Phase.RESETTING, Phase.DONE


_IN_DOUBT = Reply(450, (b"not answered: the message is in doubt",))  # from no relay


class Transaction:
    """The state machine of one message: send `commands_to_send()`, pass in each reply, until `phase` is DONE.

    A refused transaction ends itself with RSET. Servers want one between a refused DATA and the next MAIL; and if the
    replies ever were one off, RSET would get the wrong reply, which shows the fault before the next message suffers.

    RSET "cannot be refused", and servers do refuse it (Exim: too many commands). What was answered before stays then,
    unless the replies are one off. QUIT tells: with 221 they are not, and with the 250 of RSET they are.

    Attributes:
        reset_reply: the reply to RSET, before the commands of this transaction or behind them.
        is_begun: false if the RSET before its commands was refused: their replies say nothing about this message.
        has_accepted_recipient: true once MAIL and at least one RCPT were accepted.
        content_sent: true once the end of data was about to be sent while a recipient was, or could be, accepted.
    """

    __slots__ = (
        "_chunk_refused",
        "_lmtp",
        "_pipelined",
        "_script",
        "_unanswered",
        "chunked",
        "content_replies",
        "content_sent",
        "envelope",
        "has_accepted_recipient",
        "is_begun",
        "mail",
        "phase",
        "recipients",
        "reset_reply",
    )

    def __init__(
        self,
        envelope: Envelope,
        parameters: Parameters | None = None,
        rcpt_parameters: Sequence[Parameters] = (),
        *,
        pipelined: bool = True,
        chunked: bool = False,
        lmtp: bool = False,
    ) -> None:
        """Prepare the commands.

        Args:
            parameters: of MAIL; rcpt_parameters: of each RCPT. chunked: send the content by BDAT.
            lmtp: expect one reply to the content for each accepted recipient (LMTP, RFC 2033 §4.2).
        """
        self.envelope = envelope
        self.phase = _ENVELOPE
        self.mail: Reply | None = None
        self.recipients: list[Reply] = []
        self.content_replies: list[Reply] = []
        self.content_sent = False
        self.has_accepted_recipient = False
        self.reset_reply: Reply | None = None
        self.is_begun = True
        self.chunked = chunked
        self._lmtp = lmtp
        self._pipelined = pipelined
        self._unanswered = 0
        self._chunk_refused = False
        paths = envelope.forward_paths
        recipients = map(rcpt, paths, rcpt_parameters) if rcpt_parameters else map(rcpt, paths)
        self._script = [mail(envelope.reverse_path, parameters), *recipients]
        if not chunked:
            self._script.append(DATA)

    def commands_to_send(self, *, after_content: bool = False) -> tuple[Command, ...]:
        """Return the commands that may be sent now; none while a reply or the content is due.

        Args:
            after_content: the group follows another message's content; it then begins with RSET, without which some
                servers lose track of the transactions.
        """
        if self._unanswered or self.phase not in (_ENVELOPE, _RESETTING):
            return ()
        if self.phase is _RESETTING:
            group: tuple[Command, ...] = (RSET,)
        elif self._pipelined:
            data = self._script.pop() if self.envelope.all_or_nothing and self._holds_data_back else None
            group = tuple(self._script)
            self._script.clear()
            if data is not None:
                self._script.append(data)  # after a 354 there is no way back but to close
        else:
            group = (self._script.pop(0),)
        if after_content:
            group = (RSET, *group)
        self._unanswered = len(group)
        return group

    @property
    def _holds_data_back(self) -> bool:
        return len(self._script) > 1 and self._script[-1] is DATA

    @property
    def _is_aborted(self) -> bool:
        """True if the content must not be sent because not every recipient was accepted."""
        return self.envelope.all_or_nothing and not all(reply.positive for reply in self.recipients)

    def receive_reply(self, command: Command, reply: Reply) -> None:
        """Process the reply to a command of this transaction, in the order in which they were sent.

        A 421 counts for all replies still to come; as a reply to RSET it says nothing about this message.

        Raises:
            UnexpectedReply: the last chunk was accepted although one before it was refused.
        """
        verb = command.verb
        if reply.code == SERVICE_CLOSING and verb != RSET.verb:
            self.receive_closing(reply)
            return
        self._unanswered -= 1
        _HANDLERS[verb](self, reply)
        if not self._unanswered and self.phase is _ENVELOPE:
            self._advance()

    def _on_mail_reply(self, reply: Reply) -> None:
        self.mail = reply

    def _on_rcpt_reply(self, reply: Reply) -> None:
        self.recipients.append(reply)
        if reply.positive and not self.has_accepted_recipient:
            self.has_accepted_recipient = self.mail is not None and self.mail.positive

    def _on_rset_reply(self, reply: Reply) -> None:
        self.reset_reply = reply
        if self.phase is _RESETTING:
            self.phase = _DONE
        elif not reply.positive:
            self.is_begun = False

    def _on_data_reply(self, reply: Reply) -> None:
        if reply.positive:
            # RFC 2920 §3.1: a server may answer 354 although it refused every recipient; the end of data is due then.
            self.phase = _CONTENT
            return
        if self.has_accepted_recipient:
            self.content_replies.append(reply)
        self.phase = _RESETTING

    def _on_chunk_reply(self, reply: Reply) -> None:
        """Process a reply to BDAT. After a refused chunk comes RSET, and its reply is the result (RFC 3030 §2)."""
        if not reply.positive and not self._chunk_refused:
            self._chunk_refused = True
            self.content_replies.append(reply)
            if self.phase is _CONTENT:
                self.phase = _RESETTING

    def _on_content_reply(self, reply: Reply) -> None:
        if self._chunk_refused and reply.positive:
            raise UnexpectedReply(
                f"the relay answered the last chunk with “{reply}” after it had refused one before it"
            )
        if not self._chunk_refused:
            self.content_replies.append(reply)
        if self.phase is not _AWAITING_RESULT or not self._unanswered:
            self.phase = _DONE

    def _advance(self) -> None:
        """Drop the commands that a refusal made pointless; called once all commands sent are answered."""
        refused = self.mail is not None and not self.mail.positive
        nobody = not self.has_accepted_recipient or self._is_aborted
        if refused or (self._script and self._script[0] is DATA and nobody):
            self.phase = _RESETTING
        elif not self._script:
            self.phase = _RESETTING if nobody else _CONTENT

    def receive_closing(self, reply: Reply) -> None:
        """Process a 421 that closes the session: it counts for every reply still to come."""
        if not self.is_decided:
            self.mail = self.mail or reply
            self.recipients += [reply] * (len(self.envelope.forward_paths) - len(self.recipients))
            self.content_replies += [reply] * (self.expected_replies - len(self.content_replies))
        self.phase = _DONE

    @property
    def all_refused(self) -> bool:
        """True if no recipient can get the message, whatever happens to its content."""
        denied = sum(not reply.positive for reply in self.recipients)
        return (self.mail is not None and not self.mail.positive) or denied == len(self.envelope.forward_paths)

    @property
    def expected_replies(self) -> int:
        """The number of replies to the end of data: one, or one for each accepted recipient."""
        return sum(reply.positive for reply in self.recipients) if self._lmtp and self.has_accepted_recipient else 1

    def start_chunk(self, octets: int) -> Command:
        """Return the command for a chunk that is not the last; its bytes must follow at once."""
        if not self.chunked or self.phase is not _CONTENT:
            raise LocalProtocolError(f"a chunk cannot be sent in phase {self.phase.value}")
        self._unanswered += 1
        return bdat(octets, last=False)

    def end_content(self, *, before_replies: bool = False) -> int:
        """Record that the end of data is about to be sent: from here on the message may be delivered.

        This is the point of no return. Call it before the bytes are written, never after: a cancellation in between
        would report a message as not sent although the relay has it.

        Args:
            before_replies: it goes out together with the envelope, as a chunk, before any recipient is accepted.
        Returns:
            The number of replies to expect: one, or one for each accepted recipient.
        """
        if self.phase is not (_ENVELOPE if before_replies and self.chunked else _CONTENT):
            raise LocalProtocolError(f"the end of data cannot be sent in phase {self.phase.value}")
        self.phase = _AWAITING_RESULT
        self.content_sent = self.has_accepted_recipient or before_replies
        answers = self.expected_replies
        self._unanswered += answers
        return answers

    @property
    def all_answered(self) -> bool:
        """True if every command sent is answered."""
        return self._unanswered == 0 or self.phase is _DONE

    @property
    def is_decided(self) -> bool:
        """True if the outcome for each recipient is known, even if RSET is unanswered."""
        return self.phase in (_RESETTING, _DONE)

    @property
    def in_doubt(self) -> bool:
        """True if a recipient may have the message although no reply says so."""
        return self.content_sent and len(self.content_replies) < self.expected_replies

    def divide(self, *, shifted: bool, host: str = "", tls: TlsInfo | None = None) -> tuple[Envelope, Delivery | None]:
        """Return the part of the envelope that is in doubt, and a delivery with what was answered for the others.

        In the delivery the recipients in doubt are deferred. It is None if all are in doubt.

        Args:
            shifted: the replies are one off; those to RCPT before a 354 are not.
        """
        accepted = [index for index, reply in enumerate(self.recipients) if reply.positive]
        known = [] if shifted else self.content_replies
        doubtful = accepted[len(known) :]
        complete = self.mail is not None and len(self.recipients) == len(self.envelope.forward_paths)
        certain = complete and not (shifted and self.chunked)
        if not certain or not 0 < len(doubtful) < len(self.recipients):
            return self.envelope, None
        assert self.mail is not None
        replies = (*known, *[_IN_DOUBT] * (self.expected_replies - len(known)))
        delivery = Delivery(self.envelope, self.mail, tuple(self.recipients), replies, True, host, tls)
        return self.envelope.subset(doubtful), delivery

    @property
    def has_accepted_content(self) -> bool:
        """True if a reply to the content was positive."""
        return any(reply.positive for reply in self.content_replies)

    def build_delivery(self, *, host: str = "", tls: TlsInfo | None = None) -> Delivery:
        """Return the replies as a Delivery; only once `is_decided` is true."""
        if self.mail is None or not self.is_decided:
            raise LocalProtocolError("the transaction is not decided yet")
        recipients = tuple(self.recipients) if self.mail.positive else ()
        content_replies = tuple(self.content_replies) if self.has_accepted_recipient else ()
        return Delivery(self.envelope, self.mail, recipients, content_replies, self.content_sent, host, tls)


_HANDLERS: Mapping[Verb, Callable[[Transaction, Reply], None]] = {  # by the verb that is answered
    Verb.MAIL: Transaction._on_mail_reply,
    Verb.RCPT: Transaction._on_rcpt_reply,
    Verb.DATA: Transaction._on_data_reply,
    Verb.CONTENT: Transaction._on_content_reply,
    Verb.BDAT: Transaction._on_chunk_reply,
    Verb.BDAT_LAST: Transaction._on_content_reply,
    Verb.RSET: Transaction._on_rset_reply,
}
