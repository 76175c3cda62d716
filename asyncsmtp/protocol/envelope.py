"""The envelope: sender, recipients and ESMTP options of a message (RFC 5321 §2.3.1)."""

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
    """One reverse-path and one or more forward-paths.

    Attributes:
        reverse_path: the address for delivery failures; None is the null reverse-path `<>`.
        forward_paths: in the order in which they are sent; the same one twice is two recipients.
        mail_options: ESMTP options of the whole message.
        rcpt_options: ESMTP options of each forward-path, in the same order; empty if there are none.
        all_or_nothing: send DATA only if every recipient was accepted. An LMTP server still answers the content for
            each recipient (RFC 2033 §4.2).
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
                f"{len(self.rcpt_options)} rcpt_options for {len(self.forward_paths)} recipients: "
                "give one for each, None for no options"
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
        """Make an envelope from addresses as text; "" and "<>" are the null reverse-path.

        Args:
            rcpt_options: one for all recipients, or one for each; None for no options.
            all_or_nothing: send DATA only if every recipient was accepted; otherwise the others are deferred.
        Raises:
            RecipientError: an address is not valid, or there is no recipient.
            InvalidArgument: the number of recipient options is not that of the recipients.
        """
        if isinstance(forward_paths, str | Mailbox):
            forward_paths = (forward_paths,)
        sender = None if reverse_path in (None, "", "<>") else _mailbox(reverse_path)
        recipients = tuple(map(_mailbox, forward_paths))
        return cls(sender, recipients, mail_options, _each(rcpt_options, len(recipients)), all_or_nothing)

    def with_options(
        self, mail_options: MailOptions | None, rcpt_options: RcptOptions | Sequence[RcptOptions | None] = ()
    ) -> Envelope:
        """Return the envelope with other options, given as to `of`."""
        each = _each(rcpt_options, len(self.forward_paths))
        return Envelope(self.reverse_path, self.forward_paths, mail_options, each, self.all_or_nothing)

    def subset(self, indexes: Sequence[int]) -> Envelope:
        """Return the envelope for some of its recipients, by index, each with its options."""
        paths = tuple(self.forward_paths[index] for index in indexes)
        options = tuple(self.rcpt_options[index] for index in indexes) if self.rcpt_options else ()
        return Envelope(self.reverse_path, paths, self.mail_options, options, self.all_or_nothing)

    @property
    def needs_smtputf8(self) -> bool:
        for path in self.forward_paths:  # not `any`, which costs more: every message asks this
            if path.needs_smtputf8:
                return True
        return self.reverse_path is not None and self.reverse_path.needs_smtputf8

    @property
    def summary(self) -> str:
        """The recipients for use in a sentence: the first, and how many more."""
        more = len(self.forward_paths) - 1
        return safe_text(str(self.forward_paths[0]), 80) + (f" and {more} more" if more else "")


def _each(mail_options: RcptOptions | Sequence[RcptOptions | None], recipients: int) -> tuple[RcptOptions | None, ...]:
    return (mail_options,) * recipients if isinstance(mail_options, RcptOptions) else tuple(mail_options)


def _mailbox(address: str | Mailbox | None) -> Mailbox:
    return address if isinstance(address, Mailbox) else Mailbox.parse(address or "")
