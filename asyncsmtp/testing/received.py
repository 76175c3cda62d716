"""What a relay in a test was given: messages, and attempts to log in."""

from __future__ import annotations

import email.message
import email.policy
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser

__all__ = ["AuthAttempt", "NotTaken", "Received"]


@dataclass(frozen=True, slots=True)
class Received:
    """One message the relay accepted.

    Attributes:
        reverse_path: the address in MAIL FROM; "" is the null reverse-path.
        forward_paths: the addresses of the RCPT commands that were accepted, in order.
        content: header section and body, transparency undone, octet for octet otherwise.
        tls: whether it came over TLS.
        user: who had logged in, or None.
        parameters: those of MAIL; keywords in upper case.
        recipient_parameters: those of each RCPT, in the order of the forward-paths.
        connection: the relay's connection it came by, from 1.
        chunked: whether by BDAT.
    """

    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes
    tls: bool = False
    user: str | None = None
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    recipient_parameters: tuple[Mapping[str, str | None], ...] = ()
    connection: int = 1
    chunked: bool = False

    @property
    def email(self) -> email.message.EmailMessage:
        """The content as the standard library reads it, for assertions on headers and parts."""
        return BytesParser(policy=email.policy.default).parsebytes(self.content)


@dataclass(frozen=True, slots=True)
class AuthAttempt:
    """One AUTH command and how it ended.

    Attributes:
        mechanism: in upper case.
        responses: what the client answered, base64 undone, the initial response included.
        user: the user name it claimed, when it came so far.
        accepted: whether the relay answered 235.
    """

    mechanism: str
    responses: tuple[bytes, ...]
    user: str | None
    accepted: bool


class NotTaken(Exception):
    """Raised by what is given a message: it is not taken, and this reply says so ("452 4.3.1 disk full")."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply
