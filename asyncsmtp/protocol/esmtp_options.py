"""ESMTP options of a message and of a recipient, as parameters of MAIL and RCPT (RFC 3461, 6710, 8689 and others).

An option that cannot be encoded is refused when it is made; one that the server does not offer, before MAIL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Flag, StrEnum
from typing import Literal

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.mailbox import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "ByMode",
    "DeliverBy",
    "EsmtpParameter",
    "MailOptions",
    "Notify",
    "RcptOptions",
    "Ret",
    "ValidSince",
    "uxtext",
    "xtext",
]

_NOT_AN_XCHAR = re.compile(rb"[^!-*,-<>-~]")  # "any ASCII CHAR between "!" (33) and "~" (126), except "+" and "=""
_NOT_A_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")  # the same minus the backslash


def xtext(octets: bytes) -> str:
    """Encode bytes as printable ASCII without space, `+` and `=`; other bytes are `+` and two hex digits (RFC 3461)."""
    return _NOT_AN_XCHAR.sub(lambda found: b"+%02X" % found[0][0], octets).decode("ascii")


def uxtext(text: str) -> str:
    """Encode any text as `utf-8-addr-xtext`, which needs no SMTPUTF8; a character becomes `\\x{…}` (RFC 6533 §3)."""
    return _NOT_A_QCHAR.sub(lambda found: rf"\x{{{ord(found[0]):02X}}}", text)


MAX_ENVID = 100  # bytes once encoded: RFC 3461 §5.4
MAX_ORCPT = 500  # bytes once encoded: RFC 3461 §4.2
MAX_SECONDS = 999_999_999  # nine digits: RFC 2852 §4, RFC 4865 §3
PRIORITIES = range(-9, 10)  # RFC 6710 §4

EsmtpParameter = tuple[str, str, str | None]  # the extension that it needs, the keyword of the parameter, its value


class Ret(StrEnum):
    """The part of the message that a failure notification returns (RFC 3461 §4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


class Notify(Flag):
    """The events to notify the sender of: `Notify.SUCCESS | Notify.FAILURE`, or NEVER alone (RFC 3461 §4.1)."""

    SUCCESS = 1
    FAILURE = 2
    DELAY = 4
    NEVER = 8


class ByMode(StrEnum):
    """The action for a late message: return it, or notify its sender of the delay (RFC 2852 §4)."""

    RETURN = "R"
    NOTIFY = "N"


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """A time limit for the delivery (RFC 2852).

    Attributes:
        seconds: from now; zero or negative with NOTIFY only, for a message that is late already.
        trace: each server on the way reports that it relayed the message.
    """

    seconds: int
    mode: ByMode = ByMode.RETURN
    trace: bool = False

    def __post_init__(self) -> None:
        if abs(self.seconds) > MAX_SECONDS or (self.mode is ByMode.RETURN and self.seconds <= 0):
            raise InvalidArgument(
                f"{self.seconds} s is not a valid DELIVERBY: use 1 to {MAX_SECONDS}, or less with ByMode.NOTIFY"
            )

    def __str__(self) -> str:
        return f"{self.seconds};{self.mode}{'T' if self.trace else ''}"


@dataclass(frozen=True, slots=True)
class ValidSince:
    """A condition: deliver only if the mailbox has had the same owner since `moment` (RFC 7293).

    Attributes:
        carry_on: for a server whose next hop does not support this: True delivers anyway, False returns the message,
            None leaves it to the server.
    """

    moment: datetime
    carry_on: bool | None = None

    def __post_init__(self) -> None:
        utc(self.moment)

    def __str__(self) -> str:
        return utc(self.moment) + {None: "", True: ";C", False: ";R"}[self.carry_on]


@dataclass(frozen=True, slots=True)
class MailOptions:
    """ESMTP options of a whole message; the defaults request nothing. One instance may serve any number of messages.

    Attributes:
        ret: the part of the message that a failure notification returns.
        envid: the identifier in notifications: printable ASCII.
        require_tls: every hop uses verified TLS, or the message fails (RFC 8689).
        deliver_by: a time limit for the delivery.
        hold_for: seconds that the server holds the message, or hold_until: the time of its release (RFC 4865).
        priority: from -9 to 9; 0 is that of all other mail (RFC 6710).
        auth: the original submitter, vouched for by the client; "<>" if unknown (RFC 4954 §5).
    Raises:
        InvalidArgument: a value cannot be encoded.
    """

    ret: Ret | None = None
    envid: str | None = None
    require_tls: bool = False
    deliver_by: DeliverBy | None = None
    hold_for: int | None = None
    hold_until: datetime | None = None
    priority: int | None = None
    auth: Mailbox | Literal["<>"] | None = None

    def __post_init__(self) -> None:
        if self.envid is not None and not (_PRINTABLE.fullmatch(self.envid) and len(_xtext(self.envid)) <= MAX_ENVID):
            raise InvalidArgument(
                f"“{safe_text(self.envid, 80)}” is not a valid ENVID: use printable ASCII, at most {MAX_ENVID} bytes"
            )
        if self.hold_for is not None and not 0 < self.hold_for <= MAX_SECONDS:
            raise InvalidArgument(f"{self.hold_for} s is not a valid hold_for: use 1 to {MAX_SECONDS}")
        if self.hold_until is not None:
            utc(self.hold_until)
            if self.hold_for is not None:
                raise InvalidArgument("hold_for and hold_until exclude each other: give one of them")
        if self.priority is not None and self.priority not in PRIORITIES:
            raise InvalidArgument(f"{self.priority} is not a valid priority: use -9 to 9")
        if isinstance(self.auth, str) and self.auth != "<>":
            raise InvalidArgument("auth must be a Mailbox, or “<>” if the submitter is unknown")

    def __iter__(self) -> Iterator[EsmtpParameter]:
        """Yield each option with the extension that it needs."""
        if self.ret is not None:
            yield "DSN", "RET", self.ret
        if self.envid is not None:
            yield "DSN", "ENVID", _xtext(self.envid)
        if self.require_tls:
            yield "REQUIRETLS", "REQUIRETLS", None
        if self.deliver_by is not None:
            yield "DELIVERBY", "BY", str(self.deliver_by)
        if self.hold_for is not None:
            yield "FUTURERELEASE", "HOLDFOR", str(self.hold_for)
        if self.hold_until is not None:
            yield "FUTURERELEASE", "HOLDUNTIL", utc(self.hold_until)
        if self.priority is not None:
            yield "MT-PRIORITY", "MT-PRIORITY", str(self.priority)
        if self.auth is not None:
            yield "AUTH", "AUTH", self.auth if isinstance(self.auth, str) else _xtext(self.auth.address)

    @property
    def needs_smtputf8(self) -> bool:
        """True if an address in the options is not ASCII."""
        return isinstance(self.auth, Mailbox) and self.auth.needs_smtputf8


@dataclass(frozen=True, slots=True)
class RcptOptions:
    """ESMTP options of one recipient; the defaults request nothing.

    Attributes:
        notify: the events to notify the sender of; the server's default if None.
        orcpt: the original recipient: a Mailbox, or `addr-type;address` as it is, not encoded.
        valid_since: deliver only to the owner of the mailbox since that time.
    Raises:
        InvalidArgument: a value cannot be encoded.
    """

    notify: Notify | None = None
    orcpt: Mailbox | str | None = None
    valid_since: ValidSince | None = None

    def __post_init__(self) -> None:
        if self.notify is not None and (
            not self.notify or (Notify.NEVER in self.notify and self.notify != Notify.NEVER)
        ):
            raise InvalidArgument("NOTIFY is NEVER, or one or more of SUCCESS, FAILURE and DELAY")
        if self.orcpt is not None and len(_original_recipient(self.orcpt)) > MAX_ORCPT:
            raise InvalidArgument(f"this ORCPT is too long: at most {MAX_ORCPT} bytes (RFC 3461 §4.2)")

    def __iter__(self) -> Iterator[EsmtpParameter]:
        """Yield each option with the extension that it needs."""
        if self.notify is not None:
            yield "DSN", "NOTIFY", ",".join(str(each.name) for each in self.notify)
        if self.orcpt is not None:
            yield "DSN", "ORCPT", _original_recipient(self.orcpt)
        if self.valid_since is not None:
            yield "RRVS", "RRVS", str(self.valid_since)


_PRINTABLE = re.compile(r"[ -~]+")
_ADDR_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+")  # an atom, minus the characters that no parameter may contain


def _original_recipient(orcpt: Mailbox | str) -> str:
    if isinstance(orcpt, Mailbox):
        orcpt = f"{'utf-8' if orcpt.needs_smtputf8 else 'rfc822'};{orcpt.address}"
    addr_type, _, address = orcpt.partition(";")
    if _ADDR_TYPE.fullmatch(addr_type):
        if addr_type.lower() == "utf-8" and address.isprintable() and address:
            return f"{addr_type};{uxtext(address)}"
        if _PRINTABLE.fullmatch(address):
            return f"{addr_type};{_xtext(address)}"
    raise InvalidArgument(
        f"“{safe_text(orcpt, 80)}” is not a valid ORCPT: write rfc822;local@domain, or utf-8;address if it is not ASCII"
    )


def _xtext(text: str) -> str:
    return xtext(text.encode("utf-8"))


def utc(moment: datetime) -> str:
    """Format as the date-time of RFC 3339 §5.6, in UTC, to the second.

    Raises:
        InvalidArgument: no time zone, or outside the years 1 to 9999.
    """
    try:
        if moment.utcoffset() is not None:
            return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    except OverflowError:
        pass
    raise InvalidArgument(f"{moment.isoformat()} is not a valid time: give it a time zone, such as datetime.UTC")
