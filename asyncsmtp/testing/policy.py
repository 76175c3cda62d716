"""What a relay offers and demands, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from asyncsmtp.testing.auth import USUAL, Begin

__all__ = ["OFFERS", "Policy"]

OFFERS: Final = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a relay offers and demands.

    Attributes:
        name: its own, in the greeting and the reply to EHLO.
        offers: lines of the reply to EHLO, a keyword and its parameters each; SIZE, STARTTLS and AUTH are added.
        hides: keywords left out of that reply, although the relay obeys them (a stripped STARTTLS).
        starttls: whether it has a certificate to upgrade with.
        users: names and passwords, or tokens; AUTH is offered when there are any.
        mechanisms: those it offers, in its order, each with its side of the exchange; None is there in name only.
        auth_needs_tls: AUTH is neither offered nor taken in clear.
        needs_auth: MAIL is refused before a login; `needs_tls`: before TLS.
        max_size: octets of content it takes (RFC 1870); None takes any and says SIZE without a number.
        lmtp: speaks LMTP: LHLO, and one reply per recipient behind the content (RFC 2033).
        runs_refused_chunk: reads the chunk of a BDAT it refuses as commands, as go-smtp 0.21 does.
    """

    name: str = "relay.example"
    offers: tuple[str, ...] = OFFERS
    hides: frozenset[str] = frozenset()
    starttls: bool = False
    users: Mapping[str, str] = field(default_factory=dict)
    mechanisms: Mapping[str, Begin | None] = field(default_factory=lambda: USUAL)
    auth_needs_tls: bool = False
    needs_auth: bool = False
    needs_tls: bool = False
    max_size: int | None = 52_428_800
    lmtp: bool = False
    runs_refused_chunk: bool = False

    def keywords(self, *, tls: bool, user: str | None) -> list[str]:
        """The lines of the reply to EHLO behind the first, as things stand."""
        lines = [*self.offers, "SIZE" if self.max_size is None else f"SIZE {self.max_size}"]
        if self.starttls and not tls:
            lines.append("STARTTLS")
        if self.users and user is None and (tls or not self.auth_needs_tls):
            lines.append(f"AUTH {' '.join(self.mechanisms)}")
        return [line for line in lines if line.split()[0].upper() not in self.hides]

    def obeys(self, keyword: str) -> bool:
        """Whether a parameter of this extension is taken."""
        if keyword in ("SIZE", "AUTH"):
            return keyword == "SIZE" or bool(self.users)
        return any(line.split()[0].upper() == keyword for line in self.offers)
