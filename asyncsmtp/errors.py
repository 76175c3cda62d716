"""What can go wrong, as a tree.

    SMTPError
    ├── ProtocolError
    │   ├── LocalProtocolError      our bug: a command out of sequence
    │   └── RemoteProtocolError     theirs: bad grammar, a reply to nothing, the wrong class of reply
    │       ├── UnexpectedReply           a reply to nothing, or of the wrong class: replies may be shifted
    │       └── StartTlsInjection   octets in clear behind the 220 to STARTTLS
    ├── ConnectFailed               no session came to be (also an OSError)
    │   ├── CertificateRefused      .fingerprint: the relay could not prove who it is
    │   └── AllHostsFailed         .failures: of several hosts, each with its reason
    ├── ConnectionLost              before the point of no return (also a ConnectionError)
    ├── ReplyTimeout                .command, .seconds: the same (also a TimeoutError)
    ├── DeadlineExceeded            .seconds: the caller's own limit; nothing was delivered (also a TimeoutError)
    ├── PoolTimeout                    .seconds: no session was to be had in time (also a TimeoutError)
    ├── DeliveryInDoubt             past it: .envelope; the relay may have the message
    ├── Refused                     .command, .reply
    │   ├── AuthenticationRefused
    │   │   └── ServerNotAuthenticated       it let us in, but did not prove that it knows the password
    │   └── DeliveryRefused         .delivery
    ├── ExtensionNotSupported                  .extension: the message or the policy needs it
    ├── InvalidArgument                 would break a command line (also a ValueError)
    ├── InsecureConnection          credentials would travel in clear
    ├── MissingDependency                a package that is optional (also an ImportError)
    ├── TokenFailed                 the token source gave none; its own error is the cause
    ├── MessageError                .field: no From, a bad header (also a ValueError)
    ├── TemplateError               .file, .line, .field
    ├── RecipientError              .row, .reason (also a ValueError)
    └── LedgerError
        ├── LedgerBusy              another process has the campaign in hand
        ├── LedgerEmpty             there is nothing in it yet: the campaign was never begun
        └── LedgerMismatch          what is to be sent changed since the campaign began

The *point of no return* is the moment the last octet of the end of mail data is handed to the
transport. Every error says on which side of it the failure lies: `error.in_doubt`. Only
`DeliveryInDoubt` has it true; after any other error the message was not delivered by this attempt.
`error.retryable` says whether the same message may be sent again later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # errors carry the values of the floor above; only the type checker looks up
    from asyncsmtp.protocol.commands import Command
    from asyncsmtp.protocol.delivery import Delivery
    from asyncsmtp.protocol.envelope import Envelope
    from asyncsmtp.protocol.replies import Reply

__all__ = [
    "AllHostsFailed",
    "AuthenticationRefused",
    "CertificateRefused",
    "ConnectFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "DeliveryInDoubt",
    "DeliveryRefused",
    "ExtensionNotSupported",
    "InsecureConnection",
    "InvalidArgument",
    "LedgerBusy",
    "LedgerEmpty",
    "LedgerError",
    "LedgerMismatch",
    "LocalProtocolError",
    "MessageError",
    "MissingDependency",
    "PoolTimeout",
    "ProtocolError",
    "RecipientError",
    "Refused",
    "RemoteProtocolError",
    "ReplyTimeout",
    "SMTPError",
    "ServerNotAuthenticated",
    "StartTlsInjection",
    "TemplateError",
    "TokenFailed",
    "UnexpectedReply",
]


class SMTPError(Exception):
    """Anything that asyncsmtp raises on purpose."""

    in_doubt: ClassVar[bool] = False
    _retryable: ClassVar[bool] = False

    @property
    def retryable(self) -> bool:
        """Whether the same message may be sent again later, without the risk of a copy and with a chance of success.

        True for a connection that could not be made or broke before the point of no return, and for a 4xx reply. False
        for what needs a change first (credentials, certificate, message, policy), for a limit that the caller set, and
        for a message that a recipient may already have.
        """
        return self._retryable


class ProtocolError(SMTPError):
    """One side broke the rules of the dialogue; the connection is gone."""


class LocalProtocolError(ProtocolError):
    """We did: a command out of sequence, or a session used after its end. A bug on our side."""


class RemoteProtocolError(ProtocolError):
    """The relay did; what it had answered before keeps its meaning."""

    _retryable = True


class UnexpectedReply(RemoteProtocolError):
    """A reply to nothing, or one that its command cannot have: earlier replies may be booked one off.

    What the current group was answered is void: its content, if it was sent, is in doubt.
    """

    def __init__(self, why: str, *, claims_acceptance: bool = False) -> None:
        super().__init__(why)
        self.claims_acceptance = claims_acceptance


class StartTlsInjection(RemoteProtocolError):
    """Octets in clear came behind the 220 to STARTTLS; someone may sit on the line (RFC 3207 §6)."""

    _retryable = False


class ConnectFailed(SMTPError, OSError):
    """No session came to be: the name, the port, the handshake, the greeting or EHLO failed; nothing was sent."""

    _retryable = True


class CertificateRefused(ConnectFailed):
    """The relay's certificate is not valid, or not the one that was pinned; nothing was said under it.

    `fingerprint` is the SHA-256 of the certificate that was found, in hex; "" where the handshake kept it to itself.
    """

    _retryable = False

    def __init__(self, why: str, fingerprint: str = "") -> None:
        super().__init__(why)
        self.fingerprint = fingerprint


class AllHostsFailed(ConnectFailed):
    """None of a relay's hosts took us; `failures` has the error of each by its name, in the order they were tried."""

    def __init__(self, failures: Sequence[tuple[str, SMTPError]]) -> None:
        said = ((host, str(error)) for host, error in failures)
        reasons = "; ".join(why if host in why else f"{host}: {why}" for host, why in said)
        super().__init__(f"none of {len(failures)} hosts took us: {reasons}")
        self.failures = tuple(failures)


class ConnectionLost(SMTPError, ConnectionError):
    """The connection broke before the point of no return: trying again is safe."""

    _retryable = True


class ReplyTimeout(SMTPError, TimeoutError):
    """The relay did not answer `command` within `seconds`; before the point of no return."""

    _retryable = True

    def __init__(self, command: Command | None, seconds: float) -> None:
        said = command.verb if command is not None else "content"
        super().__init__(f"the relay did not answer {said} within {seconds:g} s: try again later")
        self.command = command
        self.seconds = seconds


class DeadlineExceeded(SMTPError, TimeoutError):
    """The `seconds` that the caller gave a message are over; nothing was delivered."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the message was not sent within {seconds:g} s: nothing was delivered, try again")
        self.seconds = seconds


class PoolTimeout(SMTPError, TimeoutError):
    """Every session of the pool had its hands full for `seconds`; nothing of the message was said."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no session of the pool was free within {seconds:g} s: send less at a time, or allow more")
        self.seconds = seconds


class DeliveryInDoubt(SMTPError):
    """The content was sent and its reply never came: the relay may have the message (RFC 1047).

    asyncsmtp never sends such a message again by itself. `__cause__` is what broke the dialogue. Where a message went
    in parts, `envelope` is the part in doubt, or the one that was given up, and `delivery` has what became of those
    before it; this part, and all behind it, count as deferred there. None where there are none.
    """

    in_doubt: ClassVar[bool] = True

    def __init__(self, envelope: Envelope, why: str = "the connection was lost") -> None:
        super().__init__(
            f"{why} after the content was sent to {envelope.summary}: the relay may have it; "
            "look for the Message-ID in its log before you send again"
        )
        self.envelope = envelope
        self.delivery: Delivery | None = None


class Refused(SMTPError):
    """The relay refused `command` with `reply` (raised by connect, login and raise_for_refusal only)."""

    def __init__(self, command: Command, reply: Reply, advice: str = "") -> None:
        super().__init__(f"the relay refused {command.verb}: {reply}" + (f" ({advice})" if advice else ""))
        self.command = command
        self.reply = reply

    @property
    def retryable(self) -> bool:
        return self.reply.code < 500


class AuthenticationRefused(Refused):
    """The relay refused the credentials; they are not tried again."""

    @property
    def retryable(self) -> bool:
        return False


class ServerNotAuthenticated(AuthenticationRefused):
    """The relay let us in without proving that it knows the password: it may be an impostor (RFC 5802 §5)."""

    def __init__(self, command: Command, reply: Reply) -> None:
        super().__init__(command, reply)
        unproved = "before it had proved that it knows the password: it may be an impostor, and nothing was sent"
        self.args = (f"the relay answered {reply} to {command.verb} {unproved}",)


class DeliveryRefused(Refused):
    """No, or not every, recipient was accepted; `delivery` has the answer for each."""

    def __init__(self, delivery: Delivery, command: Command, reply: Reply) -> None:
        super().__init__(command, reply)
        self.delivery = delivery

    @property
    def retryable(self) -> bool:
        """Whether somebody was deferred, and nobody has the message; else send to `delivery.deferred` alone."""
        return self.delivery.deferred is not None and not any(reply.positive for reply in self.delivery.replies())


class ExtensionNotSupported(SMTPError):
    """The message or the policy needs `extension`, which the relay does not offer."""

    def __init__(self, extension: str, why: str) -> None:
        super().__init__(f"the relay does not offer {extension}: {why}")
        self.extension = extension


class InvalidArgument(SMTPError, ValueError):
    """An argument cannot stand on a command line (a control character, bad grammar, too long): nothing was sent."""


class InsecureConnection(SMTPError):
    """Credentials would have travelled in clear; nothing of them was sent (RFC 4954 §4)."""


class MissingDependency(SMTPError, ImportError):
    """What is asked for takes packages that are optional and not there."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} takes packages that are not installed: pip install '{extra}'")


class TokenFailed(SMTPError):
    """The source of access tokens failed: nobody logged in. `__cause__` is its own error."""


class MessageError(SMTPError, ValueError):
    """The message cannot be sent as it is; `field` names the header or part."""

    def __init__(self, why: str, field: str | None = None) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field = field


class TemplateError(SMTPError):
    """A template does not fit: the file and line (from 1) it is about, and the name it uses."""

    def __init__(self, why: str, file: str, line: int | None = None, field: str | None = None) -> None:
        where = file if line is None else f"{file}, line {line}"
        super().__init__(f"{where}: {why}")
        self.why = why
        self.file = file
        self.line = line
        self.field = field


class RecipientError(SMTPError, ValueError):
    """A row or an address cannot be mailed; `row` counts the file's records from 1, header excluded."""

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason if row is None else f"row {row}: {reason}")
        self.reason = reason
        self.row = row


class CampaignHalted(SMTPError):
    """`against` of the last `of` outcomes were refusals of the sender (5.7.x) or lost replies.

    `reply` of `host` was the last. Rows that were not tried are pending, and those refused since are deferred.
    """

    def __init__(self, against: int, of: int, host: str, reply: str) -> None:
        super().__init__(
            f"the campaign stops: {against} of the last {of} messages were refused by policy or lost their reply,"
            f" the last by {host or 'the relay'}: {reply}"
        )
        self.against = against
        self.of = of
        self.host = host
        self.reply = reply


class SuppressionError(SMTPError):
    """A suppression list cannot be used: nothing is sent without it."""


class LedgerError(SMTPError):
    """The ledger cannot be trusted or written; the campaign stops and nothing more is sent."""


class LedgerBusy(LedgerError):
    """Another process has this campaign in hand."""


class LedgerEmpty(LedgerError):
    """There is no ledger, or no campaign in it: no run has taken in the recipients yet."""


class LedgerMismatch(LedgerError):
    """The recipients, a template or the settings changed since the campaign began."""
