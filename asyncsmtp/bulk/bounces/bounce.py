"""What became of a message after the relay had accepted it, as somebody else's mail system reports it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Bounce"]


@dataclass(frozen=True, slots=True)
class Bounce:
    """What a report says of one recipient.

    Attributes:
        recipient: the final one, as the report has it; "" when it names none.
        failed: whether the message was not, and will not be, delivered to him; False for a delay or a success.
        status: the enhanced status code, such as "5.1.1"; "" when there is none.
        words: what the mail system said, harmless.
        message_id: of the message it is about, without angle brackets; "" when the report does not have it.
        sent_to: the addresses that the report itself was sent to: one of them may be a return path of ours.
        report: tells one report from another, by its octets.
    """

    recipient: str
    failed: bool
    status: str
    words: str
    message_id: str
    sent_to: tuple[str, ...]
    report: str = field(default="", compare=False)

    @property
    def permanent(self) -> bool:
        """Whether no later message will arrive there either: what a suppression list is for."""
        return self.failed and self.status.startswith("5.1.")
