"""The envelope: who to whom (RFC 5321 §2.3.1), and what the sender asks for beyond that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asyncsmtp.errors import InvalidArgument, RecipientError
from asyncsmtp.protocol.esmtp_options import MailOptions, RcptOptions
from asyncsmtp.protocol.mailbox import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Envelope", "Mailbox"]


@dataclass(frozen=True)
class Envelope:
    """One reverse-path, one or more forward-paths.

    Attributes:
        reverse_path: where notifications of failure go; None is the null reverse-path `<>`.
        forward_paths: in the order in which they are said; the same one twice is two recipients.
        wishes: what is asked for the message as a whole.
        recipient_wishes: what is asked for each forward-path, in their order; empty when nothing is.
        all_or_nothing: whether DATA is said only where every recipient was accepted. An LMTP relay still answers the
            content for each (RFC 2033 §4.2).
    """

    reverse_path: Mailbox | None
    forward_paths: tuple[Mailbox, ...]
    mail_options: MailOptions | None = None
    rcpt_options: tuple[RcptOptions | None, ...] = ()
    all_or_nothing: bool = False

    def __post_init__(self) -> None:
        if not self.forward_paths:
            raise RecipientError("an envelope needs at least one recipient")
        if self.rcpt_options and len(self.rcpt_options) != len(self.forward_paths):
            raise InvalidArgument(
                f"{len(self.rcpt_options)} recipient wishes for {len(self.forward_paths)} recipients: "
                "give one for each, None for nothing"
            )

    @classmethod
    def of(
        cls,
        reverse_path: str | Mailbox | None,
        forward_paths: Iterable[str | Mailbox] | str | Mailbox,
        *,
        mail_options: MailOptions | None = None,
        rcpt_options: RcptOptions | Sequence[RcptOptions | None] = (),
        all_or_nothing: bool = False,
    ) -> Envelope:
        """Build one from addresses as text; "" and "<>" are the null reverse-path.

        Args:
            recipient_wishes: one for all of the recipients, or one for each, None for nothing.
            all_or_nothing: say DATA only where every recipient was accepted; the others are deferred otherwise.
        Raises:
            RecipientError: an address is not one, or there is no recipient.
            InvalidArgument: there are more wishes than recipients, or fewer.
        """
        if isinstance(forward_paths, str | Mailbox):
            forward_paths = (forward_paths,)
        sender = None if reverse_path in (None, "", "<>") else _mailbox(reverse_path)
        recipients = tuple(map(_mailbox, forward_paths))
        return cls(sender, recipients, mail_options, _each(rcpt_options, len(recipients)), all_or_nothing)

    def with_options(
        self, mail_options: MailOptions | None, rcpt_options: RcptOptions | Sequence[RcptOptions | None] = ()
    ) -> Envelope:
        """The same paths with other wishes, as `of` takes them."""
        each = _each(rcpt_options, len(self.forward_paths))
        return Envelope(self.reverse_path, self.forward_paths, mail_options, each, self.all_or_nothing)

    def part(self, places: Sequence[int]) -> Envelope:
        """The same for some of its recipients only, counted from 0, each with its wishes."""
        paths = tuple(self.forward_paths[place] for place in places)
        asked = tuple(self.rcpt_options[place] for place in places) if self.rcpt_options else ()
        return Envelope(self.reverse_path, paths, self.mail_options, asked, self.all_or_nothing)

    @property
    def needs_smtputf8(self) -> bool:
        for path in self.forward_paths:  # not `any`: each message asks this
            if path.needs_smtputf8:
                return True
        return self.reverse_path is not None and self.reverse_path.needs_smtputf8

    @property
    def summary(self) -> str:
        """The recipients for a sentence: the first, and how many more."""
        more = len(self.forward_paths) - 1
        return safe_text(str(self.forward_paths[0]), 80) + (f" and {more} more" if more else "")


def _each(mail_options: RcptOptions | Sequence[RcptOptions | None], recipients: int) -> tuple[RcptOptions | None, ...]:
    return (mail_options,) * recipients if isinstance(mail_options, RcptOptions) else tuple(mail_options)


def _mailbox(address: str | Mailbox | None) -> Mailbox:
    return address if isinstance(address, Mailbox) else Mailbox.parse(address or "")
