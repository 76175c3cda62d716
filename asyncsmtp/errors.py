"""The exceptions of asyncsmtp, as a tree.

    SMTPError
    ├── ProtocolError
    │   ├── LocalProtocolError      a bug in asyncsmtp: a command was sent out of sequence
    │   └── RemoteProtocolError     the server broke the protocol
    │       ├── UnexpectedReply     no command is waiting for the reply, or it has the wrong class
    │       └── StartTlsInjection   plaintext after the 220 to STARTTLS
    ├── ConnectFailed               no session could be opened (also an OSError)
    │   ├── CertificateRefused      .fingerprint: the server could not prove its identity
    │   └── AllHostsFailed          .failures: each host of the relay with its error
    ├── ConnectionLost              before the point of no return (also a ConnectionError)
    ├── ReplyTimeout                .command, .seconds: before the point of no return (also a TimeoutError)
    ├── DeadlineExceeded            .seconds: the caller's time limit; nothing was delivered (also a TimeoutError)
    ├── PoolTimeout                 .seconds: no session became available (also a TimeoutError)
    ├── DeliveryInDoubt             after it: .envelope, .why; the relay may have the message
    ├── Refused                     .command, .reply
    │   ├── AuthenticationRefused
    │   │   └── ServerNotAuthenticated  the login succeeded without proof that the server knows the password
    │   └── DeliveryRefused         .delivery
    ├── ExtensionNotSupported       .extension: needed by the message or the security policy
    ├── InvalidArgument             not valid in a command (also a ValueError)
    ├── ConfigError                 .why, .advice: the configuration of a campaign is not valid (also a ValueError)
    ├── InsecureConnection          credentials would be sent in cleartext
    ├── MissingDependency           an optional package is not installed (also an ImportError)
    ├── TokenFailed                 the token source failed; its own error is the cause
    ├── MessagesFailed              .failures: messages of Pool.send_all, each with its error
    ├── MessageError                .field: no From, an invalid header (also a ValueError)
    ├── TemplateError               .file, .line, .field
    ├── RecipientError              .row, .reason (also a ValueError)
    ├── CampaignHalted              .against, .of: the relay refuses everyone, or loses its replies
    ├── SuppressionError            a suppression list cannot be used
    └── LedgerError
        ├── LedgerBusy              another process is running the campaign
        ├── LedgerEmpty             the campaign was never started
        └── LedgerMismatch          the campaign's input changed since it was started

The *point of no return* is the moment when the last byte of the end of data is handed to the transport. Every error
says on which side of it the failure is: `error.in_doubt`. It is true for `DeliveryInDoubt` only; after any other error
the message was not delivered by this attempt.
`error.retryable` says whether the same message may be sent again later.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # errors carry values of protocol/, which imports this module; only the type checker needs them
    from asyncsmtp.protocol.commands import Command
    from asyncsmtp.protocol.delivery import Delivery
    from asyncsmtp.protocol.envelope import Envelope
    from asyncsmtp.protocol.replies import Reply

__all__ = [
    "AllHostsFailed",
    "AuthenticationRefused",
    "CampaignHalted",
    "CertificateRefused",
    "ConfigError",
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
    "MessagesFailed",
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
    "SuppressionError",
    "TemplateError",
    "TokenFailed",
    "UnexpectedReply",
    "check_number",
    "check_type",
]


class SMTPError(Exception):
    """The base class of all errors that asyncsmtp raises on purpose."""

    in_doubt: bool = False
    _retryable: ClassVar[bool] = False

    @property
    def retryable(self) -> bool:
        """True if the same message may be sent again later, without the risk of a copy and with a chance of success.

        True for a connection that could not be made or broke before the point of no return, and for a 4xx reply. False
        for what needs a change first (credentials, certificate, message, policy), for a limit that the caller set, and
        for a message that a recipient may already have.
        """
        return self._retryable

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the message and the attributes of an error that is pickled or copied; `__init__` is not called again."""
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[SMTPError], args: tuple[object, ...], attributes: dict[str, object]) -> SMTPError:
    error = kind.__new__(kind, *args)  # an OSError takes them here or in __init__
    super(SMTPError, error).__init__(*args)
    vars(error).update(attributes)
    return error


class ProtocolError(SMTPError):
    """A violation of the protocol by one side; the connection is closed."""


class LocalProtocolError(ProtocolError):
    """A wrong use: a session after its end, or of another event loop; or a bug: a command was sent out of sequence."""


class RemoteProtocolError(ProtocolError):
    """A violation by the server; replies received before it remain valid."""

    _retryable = True


class UnexpectedReply(RemoteProtocolError):
    """A reply that no command is waiting for, or that its command cannot have: replies may be one off.

    Replies to the current group are void; if its content was sent, it is in doubt.
    """

    def __init__(self, why: str, *, claims_acceptance: bool = False) -> None:
        super().__init__(why)
        self.claims_acceptance = claims_acceptance


class StartTlsInjection(RemoteProtocolError):
    """Plaintext received after the 220 to STARTTLS; someone may be tampering with the connection (RFC 3207 §6)."""

    _retryable = False


class ConnectFailed(SMTPError, OSError):
    """A failure to open a session: DNS, port, TLS handshake, greeting or EHLO; nothing was sent."""

    _retryable = True


class CertificateRefused(ConnectFailed):
    """A certificate that is not valid, or not the pinned one; nothing was sent under it.

    `fingerprint` is the SHA-256 of the certificate that was received, in hex; "" if the handshake did not provide it.
    """

    _retryable = False

    def __init__(self, why: str, fingerprint: str = "") -> None:
        super().__init__(why)
        self.fingerprint = fingerprint


class AllHostsFailed(ConnectFailed):
    """A failure of all hosts of a relay; `failures` has the error of each by its name, in the order of the attempts."""

    def __init__(self, failures: Sequence[tuple[str, SMTPError]]) -> None:
        said = ((host, str(error)) for host, error in failures)
        reasons = "; ".join(why if host in why else f"{host}: {why}" for host, why in said)
        super().__init__(f"all {len(failures)} hosts of the relay failed: {reasons}")
        self.failures = tuple(failures)


class ConnectionLost(SMTPError, ConnectionError):
    """A connection that broke before the point of no return: it is safe to try again."""

    _retryable = True


class ReplyTimeout(SMTPError, TimeoutError):
    """A missing reply to `command` after `seconds`, before the point of no return."""

    _retryable = True

    def __init__(self, command: Command | None, seconds: float, partial: str = "") -> None:
        said = command.verb if command is not None else "content"
        received = f", it only began “{partial}”" if partial else ""
        super().__init__(f"the relay did not answer {said} within {seconds:g} s{received}: try again later")
        self.command = command.public if command is not None else None
        self.seconds = seconds


class DeadlineExceeded(SMTPError, TimeoutError):
    """The end of the `seconds` that the caller allowed for a message; nothing was delivered."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the message was not sent within {seconds:g} s: nothing was delivered, try again")
        self.seconds = seconds


class PoolTimeout(SMTPError, TimeoutError):
    """A timeout of the pool: no session became available within `seconds`; nothing of the message was sent."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"no session of the pool became available within {seconds:g} s: "
            "send fewer messages at once, or allow more sessions"
        )
        self.seconds = seconds


_TRY_AGAIN = (": try again later", ": try again", ": open another")  # advice that is wrong for a message in doubt


class DeliveryInDoubt(SMTPError):
    """Content that was sent and never answered: the relay may have the message (RFC 1047).

    asyncsmtp never sends such a message again by itself. `__cause__` is the original error, and `why` is its message
    without the advice to try again. `envelope` has the recipients in doubt, and `delivery` what is known of all: the
    replies to those that were refused, or sent to in a part before this one. Whoever is in doubt, and whoever was not
    sent to, counts as deferred there. It is None if all are in doubt.
    """

    in_doubt = True

    def __init__(
        self, envelope: Envelope, why: str = "the connection was lost", delivery: Delivery | None = None
    ) -> None:
        for advice in _TRY_AGAIN:
            why = why.removesuffix(advice)
        when = f"after the content was sent to {envelope.summary}"
        super().__init__(
            f"{why} {f'({when})' if ': ' in why else when}: the relay may have it; "
            "look for the Message-ID in its log before sending again"
        )
        self.why = why
        self.envelope = envelope
        self.delivery = delivery


class Refused(SMTPError):
    """A refusal of `command` with `reply` (raised by connect, login and raise_for_refusal only)."""

    def __init__(self, command: Command, reply: Reply, advice: str = "") -> None:
        super().__init__(f"the relay refused {command.verb}: {reply}" + (f" ({advice})" if advice else ""))
        self.command = command
        self.reply = reply

    @property
    def retryable(self) -> bool:
        return self.reply.code < 500


class AuthenticationRefused(Refused):
    """A refusal of the credentials; they are not tried again."""

    @property
    def is_about_credentials(self) -> bool:
        """True if the user name or the password is wrong, as far as the reply tells: 535 without a more exact code."""
        return self.reply.code == 535 and str(self.reply.status) in ("None", "5.7.8", "5.7.0")

    @property
    def retryable(self) -> bool:
        return False


class ServerNotAuthenticated(AuthenticationRefused):
    """A login that succeeded without proof that the server knows the password: it may be an impostor (RFC 5802 §5)."""

    def __init__(self, command: Command, reply: Reply) -> None:
        super().__init__(command, reply)
        unproved = "before it had proved that it knows the password: it may be an impostor, and nothing was sent"
        self.args = (f"the relay answered {reply} to {command.verb} {unproved}",)


class DeliveryRefused(Refused):
    """A delivery with recipients that were not accepted; `delivery` has the result for each."""

    def __init__(self, delivery: Delivery, command: Command, reply: Reply) -> None:
        super().__init__(command, reply)
        self.delivery = delivery

    @property
    def retryable(self) -> bool:
        """True if somebody was deferred, and nobody has the message; else send to `delivery.deferred` alone."""
        return self.delivery.deferred is not None and not any(reply.positive for reply in self.delivery.replies)


class ExtensionNotSupported(SMTPError):
    """A missing `extension` that the message or the security policy needs."""

    def __init__(self, extension: str, why: str) -> None:
        super().__init__(f"the relay does not offer {extension}: {why}")
        self.extension = extension


class InvalidArgument(SMTPError, ValueError):
    """An argument that is not valid in a command (control character, bad grammar, too long); nothing was sent."""


class ConfigError(SMTPError, ValueError):
    """A configuration of a campaign that cannot be used: `why`, and the `advice` what to do about it."""

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(f"{why}: {advice}" if advice else why)
        self.why = why
        self.advice = advice


class InsecureConnection(SMTPError):
    """Credentials that would have been sent in cleartext; nothing of them was sent (RFC 4954 §4)."""


class MissingDependency(SMTPError, ImportError):
    """An optional package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed: pip install '{extra}'")


class TokenFailed(SMTPError):
    """A failure of the source of access tokens; there was no login. `__cause__` is its own error.

    A source may raise it itself: its message is not changed then. `advice` says what to do about it; "" if unknown.
    """

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(f"{why}: {advice}" if advice else why)
        self.why = why
        self.advice = advice


class MessageError(SMTPError, ValueError):
    """A message that cannot be sent as it is; `field` names the header or part."""

    def __init__(self, why: str, field: str | None = None) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field = field


class MessagesFailed(SMTPError):
    """Messages of `Pool.send_all` that ended with an error; every other one that was taken has its delivery.

    Attributes:
        failures: each message as it was given, with its error; `error.retryable` and `error.in_doubt` say what next.
        in_doubt: true if one of them is in doubt.
    """

    def __init__(self, failures: Sequence[tuple[object, Exception]]) -> None:
        number = "1 message" if len(failures) == 1 else f"{len(failures)} messages"
        super().__init__(f"{number} ended with an error, the first with: {failures[0][1]}; see failures for each")
        self.failures = tuple(failures)
        self.in_doubt = any(isinstance(error, SMTPError) and error.in_doubt for _, error in failures)


class TemplateError(SMTPError):
    """A template that is not valid or does not fit its columns, with file, line (from 1) and name."""

    def __init__(self, why: str, file: str, line: int | None = None, field: str | None = None) -> None:
        where = file if line is None else f"{file}, line {line}"
        super().__init__(f"{where}: {why}")
        self.why = why
        self.file = file
        self.line = line
        self.field = field


class RecipientError(SMTPError, ValueError):
    """A row or an address that cannot be mailed; `row` counts the records of the file from 1, header excluded."""

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason if row is None else f"row {row}: {reason}")
        self.reason = reason
        self.row = row


class CampaignHalted(SMTPError):
    """A stop of the campaign: `against` of the last `of` messages failed for a reason that is not the recipient's.

    The relay refused the sender, the login or the dialogue, its quota is used up, or it loses its replies. `reply` of
    `host` was the last one. Rows that were not tried are pending, and those refused since are deferred; the ledger's
    `halted_rows` are those that were rejected before.
    """

    def __init__(
        self,
        against: int,
        of: int,
        host: str,
        reply: str,
        why: str = "were refused for a reason that is not the recipient's, or lost their reply",
    ) -> None:
        super().__init__(
            f"the campaign stops: {against} of the last {of} messages {why}, the last by {host or 'the relay'}: {reply}"
        )
        self.against = against
        self.of = of
        self.host = host
        self.reply = reply


class SuppressionError(SMTPError):
    """A suppression list that cannot be used: nothing is sent without it."""


class LedgerError(SMTPError):
    """A ledger that cannot be trusted or written; the campaign stops and nothing more is sent."""


class LedgerBusy(LedgerError):
    """A campaign that another process is running."""


class LedgerEmpty(LedgerError):
    """A missing ledger, or one without a campaign: no run has loaded the recipients yet."""


class LedgerMismatch(LedgerError):
    """A change of the recipients, a template or the settings since the campaign was started."""


def check_type(parameter: str, value: object, *kinds: type | None) -> None:
    """Raise a TypeError that names `parameter` unless `value` is an instance of one of `kinds`.

    None allows None. A bool is no number.
    """
    if not isinstance(value, tuple(type(None) if kind is None else kind for kind in kinds)) or (
        isinstance(value, bool) and bool not in kinds
    ):
        names = [str(kind and kind.__name__) for kind in kinds]
        expected = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        raise TypeError(f"{parameter} must be {expected}, not {type(value).__name__}")


_MAX_FLOAT = sys.float_info.max  # an int beyond it would raise OverflowError where it is used


def check_number(parameter: str, value: object, *kinds: type | None, zero: bool = False) -> None:
    """Check the type of `value` like `check_type`, and raise InvalidArgument unless it is positive and finite.

    Args:
        zero: allow 0 too.
    """
    check_type(parameter, value, *kinds)
    if value is None or 0 < value <= _MAX_FLOAT or (zero and value == 0):  # type: ignore[operator]
        return
    shown = value if isinstance(value, float) or abs(value) <= _MAX_FLOAT else "…"  # type: ignore[arg-type]
    wanted = "a finite number, 0 or more" if zero else "a positive finite number"
    raise InvalidArgument(f"{parameter}={shown} is not valid: give {wanted}")
