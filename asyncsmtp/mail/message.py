"""The mail object: an envelope and its content (RFC 5321 §2.3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.wishes import RecipientWishes, Wishes

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is handed to a relay: who to whom, and the octets."""

    envelope: Envelope
    content: AnyContent

    @classmethod
    def of(
        cls,
        message: Message | ParsedMessage | bytes,
        *,
        sender: str | Mailbox | None = None,
        recipients: Iterable[str | Mailbox] | str | Mailbox | None = None,
        wishes: Wishes | None = None,
        recipient_wishes: RecipientWishes | Sequence[RecipientWishes | None] = (),
    ) -> Message:
        """Take a message in any form; what is one already is given back as it is.

        An `email.message.Message` or `EmailMessage` is written without Bcc and left unchanged. Octets are
        a finished message: nothing of it is changed but Bcc, which goes, and line ends, which become CRLF.

        Args:
            sender: the reverse-path; without it, Sender or From. "" or "<>" is the null reverse-path.
            recipients: the forward-paths; without them, To, Cc and Bcc, or the Resent- fields.
            wishes: what is asked of the relay for the message; without them, what was asked before.
            recipient_wishes: the same for its recipients: one for all, or one for each.
        Raises:
            MessageError: it has no author or recipient, or cannot be written as it is.
            RecipientError: a given address is not one.
            BadArgument: there are more recipient wishes than recipients, or fewer.
        """
        made = cls._addressed(message, sender, recipients)
        if wishes is None and not recipient_wishes:
            return made
        return cls(made.envelope.wishing(wishes or made.envelope.wishes, recipient_wishes), made.content)

    @classmethod
    def _addressed(
        cls,
        message: Message | ParsedMessage | bytes,
        sender: str | Mailbox | None,
        recipients: Iterable[str | Mailbox] | str | Mailbox | None,
    ) -> Message:
        if isinstance(message, Message):
            return message if sender is None and recipients is None else message._readdressed(sender, recipients)
        from asyncsmtp.mail import parsed_content, parsed_envelope  # the library's parser is slow to load

        if isinstance(message, bytes):
            head = parsed_envelope.head_of(message)
            return cls(parsed_envelope.envelope_of(head, sender, recipients), parsed_content.content_of_octets(message))
        return cls(parsed_envelope.envelope_of(message, sender, recipients), parsed_content.content_of(message))

    def _readdressed(
        self, sender: str | Mailbox | None, recipients: Iterable[str | Mailbox] | str | Mailbox | None
    ) -> Message:
        before = self.envelope
        envelope = Envelope.of(
            before.reverse_path if sender is None else sender,
            before.forward_paths if recipients is None else recipients,
            wishes=before.wishes,
            recipient_wishes=before.recipient_wishes if recipients is None else (),
            all_or_nothing=before.all_or_nothing,
        )
        return Message(envelope, self.content)
