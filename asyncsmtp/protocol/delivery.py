"""The result of one transaction: the server's replies and the outcome for each recipient (RFC 5321 §3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import repeat

from asyncsmtp.errors import DeliveryRefused, InvalidArgument
from asyncsmtp.protocol.commands import DATA, END_OF_CONTENT, Command, mail, rcpt
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.replies import Reply, safe_text

__all__ = ["Delivery", "Outcome", "RecipientResult", "TlsInfo"]

TOO_BIG = frozenset({"5.2.3", "5.3.4"})  # for the mailbox, for the system: RFC 3463 §3.3, §3.4
MAX_NAMED = 3  # recipients that an error message names


class Outcome(StrEnum):
    """The final result for a recipient. Accepted by the relay is not yet delivered (RFC 5321 §6.1)."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    IN_DOUBT = "in doubt"

    @classmethod
    def of(cls, reply: Reply) -> Outcome:
        """Return the outcome that a final reply means for its recipient (RFC 5321 §4.2.1)."""
        if reply.positive:
            return cls.ACCEPTED
        return cls.DEFERRED if reply.code < 500 else cls.REJECTED

    @classmethod
    def of_rcpt(cls, reply: Reply) -> Outcome:
        """Return the outcome that a reply to RCPT means, if it is the final one.

        552 was "too many recipients" in RFC 821: "Clients SHOULD treat a 552 code in this case as a temporary,
        rather than permanent, failure" (RFC 5321 §4.5.3.1.10). A 552 that says that the message is too big is final.
        """
        return cls.DEFERRED if reply.code == 552 and str(reply.status) not in TOO_BIG else cls.of(reply)


_NO_CONTENT = Reply(450)  # for accepted recipients of an aborted transaction: no fault of theirs, but no message either


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """The TLS parameters of a session.

    Attributes:
        version: such as "TLSv1.3". cipher: the cipher suite, by its OpenSSL name.
        verified: true if the relay proved its identity, by a valid or a pinned certificate.
        fingerprint: the SHA-256 of its certificate, in hex, for pinning.
    """

    version: str
    cipher: str
    verified: bool
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.version}, {self.cipher}, certificate {'' if self.verified else 'not '}verified"


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """The result of a delivery for one recipient.

    Attributes:
        mailbox: the forward-path.
        outcome: accepted, deferred or rejected.
        reply: the reply that decided the outcome.
    """

    mailbox: Mailbox
    outcome: Outcome
    reply: Reply

    @property
    def address(self) -> str:
        """The address of the recipient, such as "ann@example.net"."""
        return self.mailbox.address


@dataclass(frozen=True, slots=True, repr=False)
class Delivery:
    """The relay's answers to one message, with a result for each recipient.

        for result in delivery:
            print(result.address, result.outcome, result.reply)

    It is true if every recipient was accepted; its length is the number of recipients. Results, `replies` and
    `outcomes` are in the order of the envelope.

    Attributes:
        mail: the reply to MAIL.
        recipients: one reply to RCPT for each forward-path; empty if MAIL was refused.
        content_replies: the reply to the content, or to DATA if that was refused; empty if neither was sent. From an
            LMTP server one for each recipient that it accepted (RFC 2033 §4.2).
        host: the relay's name and port; with several hosts the one that answered.
        tls: the TLS parameters of the session; None without TLS.
        message: the message as it was given to `Pool.send_all`; None elsewhere.
    """

    envelope: Envelope
    mail: Reply
    recipients: tuple[Reply, ...]
    content_replies: tuple[Reply, ...]
    content_sent: bool = False
    host: str = ""
    tls: TlsInfo | None = None
    message: object | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[RecipientResult]:
        return map(RecipientResult, self.envelope.forward_paths, self.outcomes, self.replies)

    def __len__(self) -> int:
        return len(self.envelope.forward_paths)

    def __bool__(self) -> bool:
        return self.accepted

    def __repr__(self) -> str:
        counts = Counter(self.outcomes)
        results = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
        return f"<Delivery: {results}{f' by {self.host}' if self.host else ''}>"

    @property
    def content_reply(self) -> Reply | None:
        """The reply to the content, the first if there are several; None if the content was never due."""
        return self.content_replies[0] if self.content_replies else None

    @property
    def replies(self) -> tuple[Reply, ...]:
        """The reply that decided the outcome, for each forward-path."""
        if not self.mail.positive:
            return (self.mail,) * len(self.envelope.forward_paths)
        if self.aborted:
            reason = self.recipients[self._first_refused]
            return tuple(reason if reply.positive else reply for reply in self.recipients)
        final = self._accepted_replies()
        return tuple(next(final, reply) if reply.positive else reply for reply in self.recipients)

    @property
    def aborted(self) -> bool:
        """True if accepted recipients got no message because others were refused (`all_or_nothing`).

        They are deferred; the reply that decided their outcome is the first refusal.
        """
        return not self.content_replies and any(reply.positive for reply in self.recipients)

    @property
    def _first_refused(self) -> int:
        return next(index for index, reply in enumerate(self.recipients) if not reply.positive)

    def _accepted_replies(self) -> Iterator[Reply]:
        """Return the reply to the content for each accepted recipient; nothing if the content was never due."""
        return repeat(self.content_replies[0]) if len(self.content_replies) == 1 else iter(self.content_replies)

    def reply(self, path: Mailbox | str) -> Reply:
        """Return the reply that decided the outcome for `path`; for the first one if it occurs twice.

        Raises:
            InvalidArgument: not a recipient. The domain may be spelled differently; an exact match comes first.
        """
        return self.replies[self._index(path)]

    def outcome(self, path: Mailbox | str) -> Outcome:
        """Return the outcome for `path`; for the first one if it occurs twice. Raises as `reply`."""
        return self.outcomes[self._index(path)]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcome for each forward-path."""
        if not self.mail.positive:
            return (Outcome.of(self.mail),) * len(self.envelope.forward_paths)
        final = repeat(_NO_CONTENT) if self.aborted else self._accepted_replies()
        return tuple(
            Outcome.of(next(final, reply)) if reply.positive else Outcome.of_rcpt(reply) for reply in self.recipients
        )

    @property
    def refused(self) -> tuple[Mailbox, ...]:
        """The recipients that were not accepted, deferred ones included."""
        return tuple(
            path
            for path, outcome in zip(self.envelope.forward_paths, self.outcomes, strict=True)
            if outcome is not Outcome.ACCEPTED
        )

    @property
    def deferred(self) -> Envelope | None:
        """The envelope of the recipients to try again later, with their options; None if there are none.

        After "too many recipients" that is the rest of the batch (RFC 5321 §4.5.3.1.10).
        """
        indexes = [index for index, outcome in enumerate(self.outcomes) if outcome is Outcome.DEFERRED]
        return self.envelope.subset(indexes) if indexes else None

    @property
    def accepted(self) -> bool:
        """True if every recipient was accepted."""
        for reply in self.recipients:  # not `all`, which costs more: every message asks this
            if not reply.positive:
                return False
        for reply in self.content_replies:
            if not reply.positive:
                return False
        return self.mail.positive and bool(self.content_replies)

    def raise_for_refusal(self) -> None:
        """Raise for the first recipient that was not accepted; do nothing if all were.

        Raises:
            DeliveryRefused: its `.delivery` has the results of the other recipients.
        """
        for path, reply, command in zip(
            self.envelope.forward_paths, self.replies, self._deciding_commands(), strict=True
        ):
            if not reply.positive:
                raise DeliveryRefused(self, command or rcpt(path), reply)

    def _index(self, path: Mailbox | str) -> int:
        """Return the index of `path` in the envelope: as it is written, else with any spelling of its domain."""
        try:
            return list(map(str, self.envelope.forward_paths)).index(str(path))
        except ValueError:
            pass
        try:
            key = Mailbox.parse(str(path)).key
            return [forward_path.key for forward_path in self.envelope.forward_paths].index(key)
        except ValueError:  # not a recipient, or not even an address
            paths = self.envelope.forward_paths
            some = ", ".join(safe_text(str(path), 80) for path in paths[:MAX_NAMED])
            more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
            raise InvalidArgument(
                f"“{safe_text(str(path), 80)}” is not a recipient of this message: use one of {some}{more}"
            ) from None

    def _deciding_commands(self) -> tuple[Command | None, ...]:
        """Return for each forward-path the command whose reply decided; None stands for its RCPT."""
        if not self.mail.positive:
            return (mail(self.envelope.reverse_path),) * len(self.envelope.forward_paths)
        last = END_OF_CONTENT if self.content_sent else DATA
        if self.aborted:
            last = rcpt(self.envelope.forward_paths[self._first_refused])
        return tuple(last if reply.positive else None for reply in self.recipients)
