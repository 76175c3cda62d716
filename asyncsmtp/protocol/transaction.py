"""One message's way through a session: what to say next, and what the replies mean (RFC 5321 §3.3).

Lockstep and pipelined are the same script; pipelined says all of it at once and listens afterwards. The
content goes behind DATA, or in chunks (RFC 3030): then there is no 354, and the content is due as soon as a
recipient is accepted, or even unasked where the relay's owner wants it streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from asyncsmtp.errors import ExtensionNotSupported, InsecureConnection, LocalProtocolError, UnexpectedReply
from asyncsmtp.protocol.client import CLOSING
from asyncsmtp.protocol.commands import DATA, RSET, Command, Verb, bdat, mail, rcpt
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery, TlsInfo
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.esmtp_options import ByMode, EsmtpParameter, MailOptions, utc
from asyncsmtp.protocol.extensions import Extensions, Limits
from asyncsmtp.protocol.replies import Reply

__all__ = ["Parameters", "Phase", "Transaction", "mail_parameters", "rcpt_parameters"]

Parameters = Mapping[str, str | None]


def mail_parameters(
    envelope: Envelope, content: AnyContent, offered: Extensions, *, verified: bool = False
) -> dict[str, str | None]:
    """The parameters of MAIL that this message needs.

    Args:
        verified: whether the session is under TLS and the relay's certificate was verified.
    Raises:
        ExtensionNotSupported: the relay does not offer what the message needs, or not so much; nothing was sent.
        InsecureConnection: REQUIRETLS is wished for, and this session is not protected itself.
    """
    needed: dict[str, str | None] = {}
    if "SIZE" in offered and content.size is not None:
        if offered.size is not None and content.size > offered.size:
            raise ExtensionNotSupported(
                "that SIZE", f"the message has {content.size} octets, the relay takes {offered.size}"
            )
        needed["SIZE"] = str(content.size)
    if content.binary:
        for extension in ("BINARYMIME", "CHUNKING"):
            _need(offered, extension, "encode the parts as base64; any octets at all go by BDAT only")
        needed["BODY"] = "BINARYMIME"
    elif content.eight_bit:
        _need(offered, "8BITMIME", "encode the parts as quoted-printable or base64")
        needed["BODY"] = "8BITMIME"
    mail_options = envelope.mail_options
    if envelope.needs_smtputf8 or content.utf8_headers or (mail_options is not None and mail_options.needs_smtputf8):
        _need(offered, "SMTPUTF8", "an address or a header of the message is beyond ASCII")
        needed["SMTPUTF8"] = None
    if offered.limits is not None:
        _keep_within(offered.limits, envelope)
    if mail_options is not None:
        needed |= _said(mail_options, offered)
        _check_bounds(mail_options, offered)
        if mail_options.require_tls and not verified:
            raise InsecureConnection(
                "REQUIRETLS is asked for, and this session is in clear or its certificate was not verified: "
                "use smtps:// or STARTTLS, and a context that verifies certificates; nothing was sent"
            )
    return needed


def rcpt_parameters(envelope: Envelope, offered: Extensions) -> tuple[Parameters, ...]:
    """The parameters of each RCPT, in the order of the envelope; empty when no recipient needs any.

    Raises:
        ExtensionNotSupported: the relay does not offer what is wished for a recipient; nothing was sent.
    """
    if not envelope.rcpt_options:
        return ()
    return tuple({} if mail_options is None else _said(mail_options, offered) for mail_options in envelope.rcpt_options)


def _said(mail_options: Iterable[EsmtpParameter], offered: Extensions) -> dict[str, str | None]:
    said = {}
    for extension, keyword, value in mail_options:
        _need(offered, extension, f"{keyword} cannot be asked for; leave the wish out, or use another relay")
        said[keyword] = value
    return said


def _need(offered: Extensions, extension: str, why: str) -> None:
    if extension not in offered:
        raise ExtensionNotSupported(extension, why)


def _keep_within(limits: Limits, envelope: Envelope) -> None:
    """RFC 9422 §4: what the relay said it takes, so that no RCPT is refused for it."""
    recipients = len(envelope.forward_paths)
    if limits.rcpt_max is not None and recipients > limits.rcpt_max:
        raise ExtensionNotSupported(
            "so many recipients",
            f"the message has {recipients}, the relay takes {limits.rcpt_max} at once (RCPTMAX): send it in parts",
        )
    if limits.rcpt_domain_max is not None:
        domains = len({path.domain.lower() for path in envelope.forward_paths})
        if domains > limits.rcpt_domain_max:
            raise ExtensionNotSupported(
                "so many domains",
                f"the recipients have {domains}, the relay takes {limits.rcpt_domain_max} (RCPTDOMAINMAX): "
                "send the message domain by domain",
            )


def _check_bounds(mail_options: MailOptions, offered: Extensions) -> None:
    """What an extension takes at most, or at least, as EHLO said."""
    if (by := mail_options.deliver_by) is not None and by.mode is ByMode.RETURN:
        shortest = offered.min_by_time
        if shortest is not None and by.seconds < shortest:
            raise ExtensionNotSupported("that DELIVERBY", f"{by.seconds} s are asked for, the relay needs {shortest}")
    held = offered.future_release
    if held is None:
        return
    if mail_options.hold_for is not None and held.seconds is not None and mail_options.hold_for > held.seconds:
        raise ExtensionNotSupported(
            "that HOLDFOR", f"{mail_options.hold_for} s are asked for, the relay holds for {held.seconds}"
        )
    if mail_options.hold_until is not None and held.moment is not None and mail_options.hold_until > held.moment:
        asked, last = utc(mail_options.hold_until), utc(held.moment)
        raise ExtensionNotSupported("that HOLDUNTIL", f"{asked} is asked for, the relay holds until {last}")


class Phase(Enum):
    """How far a transaction has come."""

    ENVELOPE = "envelope"  # MAIL, RCPT and DATA are being said or answered
    CONTENT = "content"  # the content is due: 354, or a recipient was accepted and it goes in chunks
    ENDED = "ended"  # the end of the content is said
    CLEARING = "clearing"  # refused; RSET is due or said
    OVER = "over"  # every reply is in


# A member of an enumeration is looked up by a call on Python 3.11: these, once for each reply.
_ENVELOPE, _CONTENT, _ENDED = Phase.ENVELOPE, Phase.CONTENT, Phase.ENDED
_CLEARING, _OVER = Phase.CLEARING, Phase.OVER


class Transaction:
    """Ask `say()` what may be said, tell `answered()` each reply, until `phase` is OVER.

    A refused transaction clears itself with RSET: "After a refused DATA, RSET before the next MAIL" is
    what servers want, and a reply that was shifted by one would answer it with the wrong code.
    """

    __slots__ = (
        "_chunk_refused",
        "_lmtp",
        "_pipelined",
        "_script",
        "_unanswered",
        "chunked",
        "envelope",
        "finals",
        "mail",
        "phase",
        "recipients",
        "taken",
        "was_sent",
    )

    def __init__(
        self,
        envelope: Envelope,
        parameters: Parameters | None = None,
        recipient_parameters: Sequence[Parameters] = (),
        *,
        pipelined: bool = True,
        chunked: bool = False,
        lmtp: bool = False,
    ) -> None:
        """Begin one.

        Args:
            parameters: of MAIL; recipient_parameters: of each RCPT. chunked: whether the content goes by BDAT.
            lmtp: whether the relay answers the content once for each accepted recipient (LMTP, RFC 2033 §4.2).
        """
        self.envelope = envelope
        self.phase = _ENVELOPE
        self.mail: Reply | None = None
        self.recipients: list[Reply] = []
        self.finals: list[Reply] = []
        self.was_sent = False
        self.taken = False  # whether MAIL and at least one RCPT were answered well
        self.chunked = chunked
        self._lmtp = lmtp
        self._pipelined = pipelined
        self._unanswered = 0
        self._chunk_refused = False
        paths = envelope.forward_paths
        recipients = map(rcpt, paths, recipient_parameters) if recipient_parameters else map(rcpt, paths)
        self._script = [mail(envelope.reverse_path, parameters), *recipients]
        if not chunked:
            self._script.append(DATA)

    def say(self, *, behind_content: bool = False) -> tuple[Command, ...]:
        """What may be said now: nothing while a reply, or the content, is due.

        Args:
            behind_content: the group goes out behind another message's content; it then begins with RSET,
                without which some servers lose count.
        """
        if self._unanswered or self.phase not in (_ENVELOPE, _CLEARING):
            return ()
        if self.phase is _CLEARING:
            group: tuple[Command, ...] = (RSET,)
        elif self._pipelined:
            data = self._script.pop() if self.envelope.all_or_nothing and self._holds_data_back else None
            group = tuple(self._script)
            self._script.clear()
            if data is not None:
                self._script.append(data)  # a 354 cannot be unsaid
        else:
            group = (self._script.pop(0),)
        if behind_content:
            group = (RSET, *group)
        self._unanswered = len(group)
        return group

    @property
    def _holds_data_back(self) -> bool:
        return len(self._script) > 1 and self._script[-1] is DATA

    @property
    def _withheld(self) -> bool:
        """Whether the content is nobody's because it cannot be everybody's."""
        return self.envelope.all_or_nothing and not all(reply.positive for reply in self.recipients)

    def answered(self, command: Command, reply: Reply) -> None:
        """Take the reply to a command of this transaction; they come in the order they were said.

        A 421 stands for all that are still to come; to RSET it says nothing of this message.

        Raises:
            UnexpectedReply: RSET was refused.
        """
        verb = command.verb
        if reply.code == CLOSING and verb != RSET.verb:
            self.broken_off(reply)
            return
        self._unanswered -= 1
        _TAKES[verb](self, reply)
        if not self._unanswered and self.phase is _ENVELOPE:
            self._step()

    def _mail_answered(self, reply: Reply) -> None:
        self.mail = reply

    def _recipient_answered(self, reply: Reply) -> None:
        self.recipients.append(reply)
        if reply.positive and not self.taken:
            self.taken = self.mail is not None and self.mail.positive

    def _reset_answered(self, reply: Reply) -> None:
        if not reply.positive and reply.code != CLOSING:
            raise UnexpectedReply(f"the relay answered RSET with “{reply}”, though it cannot be refused")
        if self.phase is _CLEARING:
            self.phase = _OVER

    def _data_answered(self, reply: Reply) -> None:
        if reply.positive:
            # RFC 2920 §3.1: a server may answer 354 though it refused every recipient; a lone dot is due then.
            self.phase = _CONTENT
            return
        if self.taken:
            self.finals.append(reply)
        self.phase = _CLEARING

    def _chunk_answered(self, reply: Reply) -> None:
        """RFC 3030 §2: after a chunk that was refused no more of them, and RSET. Its reply is the verdict."""
        if not reply.positive and not self._chunk_refused:
            self._chunk_refused = True
            self.finals.append(reply)
            if self.phase is _CONTENT:
                self.phase = _CLEARING

    def _content_answered(self, reply: Reply) -> None:
        if self._chunk_refused and reply.positive:
            raise UnexpectedReply(
                f"the relay answered the last chunk with “{reply}” after it had refused one before it"
            )
        if not self._chunk_refused:
            self.finals.append(reply)
        if self.phase is not _ENDED or not self._unanswered:
            self.phase = _OVER

    def _step(self) -> None:
        """All that was said is answered: leave out of the script what a refusal made pointless."""
        refused = self.mail is not None and not self.mail.positive
        nobody = not self.taken or self._withheld
        if refused or (self._script and self._script[0] is DATA and nobody):
            self.phase = _CLEARING
        elif not self._script:
            self.phase = _CLEARING if nobody else _CONTENT

    def broken_off(self, reply: Reply) -> None:
        """The relay closed the session with a 421: it stands for every reply that is still to come."""
        if not self.decided:
            self.mail = self.mail or reply
            self.recipients += [reply] * (len(self.envelope.forward_paths) - len(self.recipients))
            self.finals += [reply] * (self.answers_due - len(self.finals))
        self.phase = _OVER

    @property
    def refused(self) -> bool:
        """Whether no recipient can have the message, whatever became of its content."""
        denied = sum(not reply.positive for reply in self.recipients)
        return (self.mail is not None and not self.mail.positive) or denied == len(self.envelope.forward_paths)

    @property
    def answers_due(self) -> int:
        """How many replies the end of the content has: one, or one for each accepted recipient."""
        return sum(reply.positive for reply in self.recipients) if self._lmtp and self.taken else 1

    def say_chunk(self, octets: int) -> Command:
        """Say one chunk that is not the last; its octets follow it at once."""
        if not self.chunked or self.phase is not _CONTENT:
            raise LocalProtocolError(f"a chunk in phase {self.phase.value}")
        self._unanswered += 1
        return bdat(octets, last=False)

    def content_ended(self, *, unasked: bool = False) -> int:
        """The end of the content is about to be said: from here on the message may be delivered.

        Returns how many replies that has: one, or one for each accepted recipient.
        Args:
            unasked: it goes out with the envelope, as a chunk, before any recipient is accepted.
        """
        if self.phase is not (_ENVELOPE if unasked and self.chunked else _CONTENT):
            raise LocalProtocolError(f"the end of a content in phase {self.phase.value}")
        self.phase = _ENDED
        self.was_sent = self.taken or unasked
        answers = self.answers_due
        self._unanswered += answers
        return answers

    @property
    def caught_up(self) -> bool:
        """Whether all that was said is answered."""
        return self._unanswered == 0 or self.phase is _OVER

    @property
    def decided(self) -> bool:
        """Whether each recipient's fate is known, be it that RSET is unanswered."""
        return self.phase in (_CLEARING, _OVER)

    @property
    def in_doubt(self) -> bool:
        """Whether a recipient may have the message though no reply says so."""
        return self.was_sent and len(self.finals) < self.answers_due

    def delivery(self, *, host: str = "", tls: TlsInfo | None = None) -> Delivery:
        """What the relay answered; to be asked once `decided`."""
        if self.mail is None or not self.decided:
            raise LocalProtocolError("the transaction is not decided yet")
        recipients = tuple(self.recipients) if self.mail.positive else ()
        finals = tuple(self.finals) if self.taken else ()
        return Delivery(self.envelope, self.mail, recipients, finals, self.was_sent, host, tls)


_TAKES: Mapping[Verb, Callable[[Transaction, Reply], None]] = {  # which reply is taken how
    Verb.MAIL: Transaction._mail_answered,
    Verb.RCPT: Transaction._recipient_answered,
    Verb.DATA: Transaction._data_answered,
    Verb.CONTENT: Transaction._content_answered,
    Verb.BDAT: Transaction._chunk_answered,
    Verb.BDAT_LAST: Transaction._content_answered,
    Verb.RSET: Transaction._reset_answered,
}
