"""The mail object: an envelope and its content (RFC 5321 §2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope

__all__ = ["Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is handed to a relay: who to whom, and the octets."""

    envelope: Envelope
    content: Content
