"""How long to wait for what, in seconds (RFC 5321 §4.5.3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from asyncsmtp.protocol.commands import Verb

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """A limit for each stage, in seconds. The RFC asks for one per command; a total alone is not allowed.

    Before the point of no return a timeout is cheap: trying again is free. After it, it costs a possible
    duplicate. So `end`, the wait for the reply to the content, stays at ten minutes in every profile.

    Attributes:
        connect: name lookup and TCP, all addresses together. tls: a handshake.
        block: no progress in writing a block of content.
        quit: the relay's goodbye. close: the end of TLS and of the connection.
    """

    connect: float = 30.0
    tls: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    starttls: float = 60.0
    auth: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end: float = 600.0
    rset: float = 20.0
    quit: float = 1.0
    close: float = 0.5

    @classmethod
    def interactive(cls) -> Timeouts:
        """For someone who watches: shorter before the point of no return, the same after it."""
        return cls(connect=15.0, greeting=30.0, ehlo=30.0, starttls=30.0, mail=60.0, rcpt=60.0)

    def limit(self, verb: Verb) -> float:
        """Seconds from when `verb` is the oldest command unanswered until its whole reply must be in."""
        return float(getattr(self, _STAGE[verb]))


_STAGE = {
    Verb.GREETING: "greeting",
    Verb.EHLO: "ehlo",
    Verb.HELO: "ehlo",
    Verb.LHLO: "ehlo",
    Verb.STARTTLS: "starttls",
    Verb.XCLIENT: "ehlo",
    Verb.AUTH: "auth",
    Verb.RESPONSE: "auth",
    Verb.CANCEL: "auth",
    Verb.MAIL: "mail",
    Verb.RCPT: "rcpt",
    Verb.DATA: "data",
    Verb.CONTENT: "end",
    Verb.BDAT: "block",
    Verb.BDAT_LAST: "end",
    Verb.RSET: "rset",
    Verb.VRFY: "rcpt",
    Verb.EXPN: "rcpt",
    Verb.NOOP: "rset",
    Verb.QUIT: "quit",
}
