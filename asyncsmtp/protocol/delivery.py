"""What the relay answered to one transaction (RFC 5321 §3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat

from asyncsmtp.errors import DeliveryRefused, InvalidArgument
from asyncsmtp.protocol.commands import DATA, END_OF_CONTENT, Command, mail, rcpt
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.replies import Reply, safe_text

__all__ = ["Delivery", "Outcome", "TlsInfo"]

TOO_BIG = frozenset({"5.2.3", "5.3.4"})  # for the mailbox, for the system: RFC 3463 §3.3, §3.4
SOME = 3  # recipients that an error names


class Outcome(StrEnum):
    """The final word on a recipient. Accepted by the relay is not yet delivered (RFC 5321 §6.1)."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    IN_DOUBT = "in doubt"

    @classmethod
    def of(cls, reply: Reply) -> Outcome:
        """What a final reply means for the recipient it is about (RFC 5321 §4.2.1)."""
        if reply.positive:
            return cls.ACCEPTED
        return cls.DEFERRED if reply.code < 500 else cls.REJECTED

    @classmethod
    def of_recipient(cls, reply: Reply) -> Outcome:
        """What a reply to RCPT means, where it is the final one.

        A 552 is "too many recipients" as RFC 821 wrote it: "Clients SHOULD treat a 552 code in this case as a
        temporary, rather than permanent, failure" (RFC 5321 §4.5.3.1.10). When it says that the message is too
        big, it is another case.
        """
        return cls.DEFERRED if reply.code == 552 and str(reply.status) not in TOO_BIG else cls.of(reply)


LATER = Reply(450)  # stands for what no relay said: nothing is wrong with this recipient, and he has no message


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What protected a session.

    Attributes:
        version: such as "TLSv1.3". cipher: the cipher suite, by the name that OpenSSL gives it.
        verified: whether the relay proved who it is, by a valid certificate or by one that was pinned.
        fingerprint: the SHA-256 of its certificate, in hex: what to pin.
    """

    version: str
    cipher: str
    verified: bool
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.version}, {self.cipher}, certificate {'' if self.verified else 'not '}verified"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The relay's answers to one message: a reply for each recipient, in the order of the envelope.

    Attributes:
        mail: the reply to MAIL.
        recipients: one reply to RCPT for each forward-path; empty when MAIL was refused.
        finals: the reply to the content, or to DATA where that was refused; nothing when it came to neither.
            From an LMTP relay one for each recipient it accepted (RFC 2033 §4.2).
        host: the relay's name and port, as the session knew them; of several hosts the one that answered.
        tls: what protected the session; None in clear.
    """

    envelope: Envelope
    mail: Reply
    recipients: tuple[Reply, ...]
    finals: tuple[Reply, ...]
    content_sent: bool = False
    host: str = ""
    tls: TlsInfo | None = None

    @property
    def final(self) -> Reply | None:
        """The reply to the content, the first where there are several; None when it never came to it."""
        return self.finals[0] if self.finals else None

    def replies(self) -> tuple[Reply, ...]:
        """For each forward-path the reply that decided its fate."""
        if not self.mail.positive:
            return (self.mail,) * len(self.envelope.forward_paths)
        if self.withheld:
            reason = self.recipients[self._first_refused]
            return tuple(reason if reply.positive else reply for reply in self.recipients)
        final = self._finals()
        return tuple(next(final, reply) if reply.positive else reply for reply in self.recipients)

    @property
    def withheld(self) -> bool:
        """Whether recipients that the relay accepted have no message because others were refused (all or nothing).

        They are deferred; the reply that decided about them is the first refusal.
        """
        return not self.finals and any(reply.positive for reply in self.recipients)

    @property
    def _first_refused(self) -> int:
        return next(place for place, reply in enumerate(self.recipients) if not reply.positive)

    def _finals(self) -> Iterator[Reply]:
        """For each accepted recipient the reply to the content; none at all when it never came to it."""
        return repeat(self.finals[0]) if len(self.finals) == 1 else iter(self.finals)

    def reply(self, path: Mailbox | str) -> Reply:
        """The reply that decided the fate of `path`; of the first, where it is there twice.

        Raises:
            InvalidArgument: it is no recipient. Any spelling of its domain will do; one that is the same comes first.
        """
        return self.replies()[self._place(path)]

    def outcome(self, path: Mailbox | str) -> Outcome:
        """What became of `path`; of the first, where it is there twice. Raises as `reply`."""
        return self.outcomes[self._place(path)]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each forward-path, in the order of the envelope."""
        if not self.mail.positive:
            return (Outcome.of(self.mail),) * len(self.envelope.forward_paths)
        final = repeat(LATER) if self.withheld else self._finals()
        return tuple(
            Outcome.of(next(final, reply)) if reply.positive else Outcome.of_recipient(reply)
            for reply in self.recipients
        )

    @property
    def deferred(self) -> Envelope | None:
        """The envelope of those who are to be tried again later, wishes and all; None when there is nobody.

        After "too many recipients" that is the rest of the batch (RFC 5321 §4.5.3.1.10).
        """
        places = [place for place, outcome in enumerate(self.outcomes) if outcome is Outcome.DEFERRED]
        return self.envelope.part(places) if places else None

    @property
    def accepted(self) -> bool:
        """Whether every recipient was accepted."""
        for reply in self.recipients:  # not `all`: each message asks this
            if not reply.positive:
                return False
        for reply in self.finals:
            if not reply.positive:
                return False
        return self.mail.positive and bool(self.finals)

    def raise_for_refusal(self) -> None:
        """Raise for the first recipient that was not accepted; do nothing when all were.

        Raises:
            DeliveryRefused: `.delivery` tells who was accepted nevertheless.
        """
        for path, reply, decisive in zip(self.envelope.forward_paths, self.replies(), self._decisive(), strict=True):
            if not reply.positive:
                raise DeliveryRefused(self, decisive or rcpt(path), reply)

    def _place(self, path: Mailbox | str) -> int:
        """Where `path` stands in the envelope: as it is written, else in any spelling of its domain."""
        try:
            return list(map(str, self.envelope.forward_paths)).index(str(path))
        except ValueError:
            pass
        try:
            key = Mailbox.parse(str(path)).key
            return [forward_path.key for forward_path in self.envelope.forward_paths].index(key)
        except ValueError:  # no recipient, or no address at all
            raise self._no_recipient(path) from None

    def _no_recipient(self, path: Mailbox | str) -> InvalidArgument:
        paths = self.envelope.forward_paths
        some = ", ".join(safe_text(str(path), 80) for path in paths[:SOME])
        more = f" and {len(paths) - SOME} more" if len(paths) > SOME else ""
        return InvalidArgument(f"“{safe_text(str(path), 80)}” is no recipient of this message: ask about {some}{more}")

    def _decisive(self) -> tuple[Command | None, ...]:
        """For each forward-path the command whose reply decided; None stands for its RCPT."""
        if not self.mail.positive:
            return (mail(self.envelope.reverse_path),) * len(self.envelope.forward_paths)
        last = END_OF_CONTENT if self.content_sent else DATA
        if self.withheld:
            last = rcpt(self.envelope.forward_paths[self._first_refused])
        return tuple(last if reply.positive else None for reply in self.recipients)
