"""XCLIENT: telling a relay that trusts us for whom we speak (Postfix, XCLIENT_README).

It changes whom the relay believes to have connected, so it is said only when the caller asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from asyncsmtp.errors import BadArgument, NotOffered
from asyncsmtp.protocol.commands import Command, Verb
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.mailbox import is_domain
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.protocol.xtext import xtext

__all__ = ["XClient"]

MAX_NAME = 255
UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})  # a look-up failed, for good or for now
_PRINTABLE = re.compile(rf"[ -~]{{1,{MAX_NAME}}}")


@dataclass(frozen=True, slots=True)
class XClient:
    """Another client, as far as it is known; what is None is not said.

    Attributes:
        name, addr: its host name, and its IPv4 or IPv6 address; or "[UNAVAILABLE]", "[TEMPUNAVAIL]".
        port: its port. proto: what it speaks. helo: how it greeted us. login: who logged in with us.
        destaddr, destport: where it connected to.
    Raises:
        BadArgument: one of them is none, or there is nothing to say.
    """

    name: str | None = None
    addr: str | None = None
    port: int | None = None
    proto: Literal["SMTP", "ESMTP"] | None = None
    helo: str | None = None
    login: str | None = None
    destaddr: str | None = None
    destport: int | None = None

    def __post_init__(self) -> None:
        for attribute, text in (("NAME", self.name), ("HELO", self.helo), ("LOGIN", self.login)):
            if text is not None and not _PRINTABLE.fullmatch(text):
                raise _bad(attribute, text)
        if self.name is not None and self.name not in UNKNOWN and not is_domain(self.name):
            raise _bad("NAME", self.name)
        for attribute, port in (("PORT", self.port), ("DESTPORT", self.destport)):
            if port is not None and not 0 < port < 65536:
                raise _bad(attribute, str(port))
        if self.proto not in (None, "SMTP", "ESMTP"):
            raise _bad("PROTO", str(self.proto))
        if not list(self):
            raise BadArgument("there is nothing to tell by XCLIENT: give one attribute at least")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each attribute that is known, with its value, not encoded yet."""
        known: dict[str, str | int | None] = {
            "NAME": self.name,
            "ADDR": _address("ADDR", self.addr),
            "PORT": self.port,
            "PROTO": self.proto,
            "HELO": self.helo,
            "LOGIN": self.login,
            "DESTADDR": _address("DESTADDR", self.destaddr),
            "DESTPORT": self.destport,
        }
        return ((attribute, str(value)) for attribute, value in known.items() if value is not None)

    def command(self, offered: Extensions) -> Command:
        """XCLIENT with all of it.

        Raises:
            NotOffered: the relay does not take XCLIENT from us, or not each of these attributes.
            BadArgument: it is too long for a command line.
        """
        if "XCLIENT" not in offered:
            raise NotOffered("XCLIENT", "it may trust other clients only, or another relay stands in front of it")
        for attribute, _ in self:
            if attribute not in offered.xclient:
                taken = safe_text(", ".join(offered.xclient) or "none", 120)
                raise NotOffered(f"XCLIENT {attribute}", f"of the attributes it takes {taken}")
        words = (f"{attribute}={xtext(value.encode('utf-8'))}" for attribute, value in self)
        return Command(Verb.XCLIENT, " ".join(words).encode("ascii"))


def _address(attribute: str, text: str | None) -> str | None:
    if text is None or text in UNKNOWN:
        return text
    try:
        address = ip_address(text)
    except ValueError as error:
        raise _bad(attribute, text) from error
    if "%" in text:
        raise _bad(attribute, text)
    return f"IPV6:{address}" if address.version == 6 else str(address)


def _bad(attribute: str, text: str) -> BadArgument:
    return BadArgument(f"“{safe_text(text, 80)}” is no {attribute} of a client: nothing was sent")
