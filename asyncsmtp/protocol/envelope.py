"""The envelope of a message: mailboxes (RFC 5321 §2.3.11), ESMTP options, reverse-path and forward-paths (§2.3.1).

The grammar is our own and strict. Header parsers are lenient by design, differ between interpreters, and may change
the recipient by guessing; nothing here guesses. A domain beyond ASCII is converted to A-labels at once, so that it
also reaches a server without SMTPUTF8.

An option that cannot be encoded is refused when it is made; one that the server does not offer, before MAIL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Flag, StrEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from asyncsmtp.errors import InvalidArgument, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "ByMode",
    "DeliverBy",
    "Envelope",
    "EsmtpParameter",
    "MailOptions",
    "Mailbox",
    "Notify",
    "RcptOptions",
    "Ret",
    "ValidSince",
    "deduplicate",
    "is_address_literal",
    "is_domain",
    "to_a_labels",
    "uxtext",
    "xtext",
]

MAX_LOCAL_PART = 64  # bytes, RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 255  # bytes, §4.5.3.1.2
MAX_PATH = 256  # bytes with the angle brackets, §4.5.3.1.3

_UTF8 = "\u00a0-\U0010ffff"  # beyond ASCII and the C1 controls, RFC 6531 §3.3
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
# Kept as text: few addresses need these, and compiling them takes longer than the rest of the module.
# RFC 5321 §4.1.2 allows no "." at the end, nor two in a row. Japanese mobile carriers gave out such addresses; people
# use them, and the servers take them as they are. A "." at the beginning was never allowed.
_DOT_STRING = rf"{_ATOM}(?:\.+{_ATOM})*\.*"
_QUOTED_STRING = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_PLAIN = re.compile(r"([A-Za-z0-9!#$%&'*+/=^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=^_`{|}~-]+)*)@([A-Za-z0-9.-]+)")  # no ?
# Readers of a header decode this wherever it stands, against RFC 2047 §5, and see another address.
_ENCODED_WORD = r"=\?.*\?="
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LITERAL = re.compile(r"\[(IPv6:)?([0-9A-Fa-f:.]+)\]", re.IGNORECASE)  # no zone: ipaddress takes any text for one
_INVISIBLE = (
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff0-\uffff\U000e0000-\U000e0fff]|\\s"
)


@dataclass(frozen=True)
class Mailbox:
    """A checked local-part@domain, made by `Mailbox.parse`.

    Attributes:
        local: the local part as written, quotes included; compared byte for byte (RFC 5321 §2.4).
        domain: the domain in ASCII (A-labels), an address literal, or "" for a bare postmaster.
    """

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Parse `local@domain` and nothing else: no display name, list, comment, route or surrounding space.

        Raises:
            RecipientError: with the reason.
        """
        plain = _PLAIN.fullmatch(text)
        if plain is not None and len(text) + 2 <= MAX_PATH:  # the fast path: nearly every address
            local, domain = plain.groups()
            if len(local) <= MAX_LOCAL_PART and is_domain(domain):
                return cls(local, domain)
        if len(text) > 4 * MAX_PATH:
            raise RecipientError("this address is too long: a path has at most 256 bytes (RFC 5321 §4.5.3.1.3)")
        if text.lower() == "postmaster":  # RFC 5321 §4.1.1.3: the one name that needs no domain
            return cls(text, "")
        local, at, domain = text.rpartition("@")
        if not at:
            raise _not_an_address(text, "it has no @")
        shown = local.replace(" ", "") if local.startswith('"') else local
        if invisible := re.search(_INVISIBLE, shown) or re.search(_INVISIBLE, domain):
            raise _not_an_address(text, f"it contains {_describe_character(invisible[0])}")
        if re.search(_ENCODED_WORD, local.replace("\\", "")):
            raise _not_an_address(text, "the part before the @ contains an encoded word")
        _check_local_part(text, local)
        mailbox = cls(local, _ascii_domain(text, domain))
        if len(mailbox.address.encode("utf-8")) + 2 > MAX_PATH:
            raise _not_an_address(text, "a path has at most 256 bytes")
        return mailbox

    @property
    def address(self) -> str:
        """The address as it is written in a path, without the angle brackets."""
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def key(self) -> str:
        """The form shared by all spellings of one mailbox: the local part as it is, the domain in lower case."""
        return f"{self.local}@{self.domain.lower()}"

    @property
    def needs_smtputf8(self) -> bool:
        """True if the local part is not ASCII (RFC 6531); the domain always is, in A-labels."""
        return not self.local.isascii()

    def __str__(self) -> str:
        return self.address


def deduplicate(mailboxes: Iterable[Mailbox]) -> tuple[Mailbox, ...]:
    """Return the mailboxes in order, each once."""
    found: dict[str, Mailbox] = {}
    for mailbox in mailboxes:
        found.setdefault(mailbox.key, mailbox)
    return tuple(found.values())


def _check_local_part(text: str, local: str) -> None:
    if not (re.fullmatch(_DOT_STRING, local) or re.fullmatch(_QUOTED_STRING, local)):
        raise _not_an_address(text, "the part before the @ is not a valid local part")
    if len(local.encode("utf-8")) > MAX_LOCAL_PART:
        raise _not_an_address(text, f"the part before the @ has more than {MAX_LOCAL_PART} bytes")


def _ascii_domain(text: str, domain: str) -> str:
    if domain.startswith("["):
        if not is_address_literal(domain):
            raise _not_an_address(text, "the part in brackets is not a valid address literal")
        return domain
    try:
        domain = to_a_labels(domain)
    except ValueError as error:
        raise _not_an_address(text, str(error)) from error
    if not is_domain(domain):
        raise _not_an_address(text, "the part after the @ is not a valid domain")
    return domain


@lru_cache(maxsize=4096)  # most addresses of a large list are at a few domains
def is_domain(text: str) -> bool:
    """Tell if this is a domain in ASCII (RFC 5321 §4.1.2)."""
    return len(text) <= MAX_DOMAIN and all(map(_LABEL.fullmatch, text.split(".")))


def is_address_literal(text: str) -> bool:
    """Tell if this is an IPv4 or IPv6 address in brackets (RFC 5321 §4.1.3)."""
    literal = _LITERAL.fullmatch(text)
    if literal is None:
        return False
    try:
        IPv6Address(literal[2]) if literal[1] else IPv4Address(literal[2])
    except AddressValueError:
        return False
    return True


def to_a_labels(domain: str) -> str:
    """Return a domain in ASCII, its U-labels as A-labels (RFC 5890); nothing is mapped but upper case.

    Raises:
        ValueError: the domain is not valid, or another domain would come of it; with the reason, a clause.
    """
    if domain.isascii():
        return domain
    if len(domain) > MAX_DOMAIN:
        raise ValueError("the domain is too long")
    for character in domain:
        if not character.isascii() and character.lower().isascii():  # U+212A, the Kelvin sign, becomes a k
            raise ValueError(f"the domain contains {_describe_character(character)}")
    import idna  # late: loads 10 ms of tables that most runs never need

    try:
        # label by label: encoding the whole would also split at non-ASCII full stops and change the domain
        return b".".join(map(idna.alabel, domain.lower().split("."))).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"the domain is not valid: {safe_text(str(error), 120)}") from error


def _describe_character(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    return "a space" if character == " " else f"the character U+{ord(character):04X}"


def _not_an_address(text: str, why: str) -> RecipientError:
    return RecipientError(f"“{safe_text(text, 80)}” is not an e-mail address: {why}")


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
            advice = f"use 1 to {MAX_SECONDS}, or less with ByMode.NOTIFY"
            raise InvalidArgument(f"{self.seconds} s is not a valid DELIVERBY: {advice}")

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
            advice = f"use printable ASCII, at most {MAX_ENVID} bytes"
            raise InvalidArgument(f"“{safe_text(self.envid, 80)}” is not a valid ENVID: {advice}")
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
    advice = "write rfc822;local@domain, or utf-8;address if it is not ASCII"
    raise InvalidArgument(f"“{safe_text(orcpt, 80)}” is not a valid ORCPT: {advice}")


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


@dataclass(frozen=True)
class Envelope:
    """One reverse-path and one or more forward-paths.

    Attributes:
        reverse_path: the address for delivery failures; None is the null reverse-path `<>`.
        forward_paths: in the order in which they are sent; the same one twice is two recipients.
        mail_options: ESMTP options of the whole message.
        rcpt_options: ESMTP options of each forward-path, in the same order; empty if there are none.
        all_or_nothing: send DATA only if every recipient was accepted; otherwise the accepted ones are deferred. An
            LMTP server still answers the content for each recipient (RFC 2033 §4.2).
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
            numbers = f"{len(self.rcpt_options)} rcpt_options for {len(self.forward_paths)} recipients"
            raise InvalidArgument(f"{numbers}: give one for each, None for no options")

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
