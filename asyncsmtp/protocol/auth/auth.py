"""Authentication: the AUTH command, its challenges and its result, for any SASL mechanism (RFC 4954).

There is one attempt for each set of credentials. Another mechanism is tried only if the relay says that it does not
accept this one, and never after the client cancelled one: otherwise an impostor could force a plaintext password.

One exception: a -PLUS mechanism that is refused before any challenge is followed by SCRAM without -PLUS. EHLO does not
list the types of channel binding that a relay supports, many support only types that are not available here, and no
proof was computed yet.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from asyncsmtp.errors import AuthenticationRefused, ExtensionNotSupported, Refused, ServerNotAuthenticated
from asyncsmtp.protocol.auth.sasl import (
    PLUS,
    Channel,
    Credentials,
    Mechanism,
    MechanismFailed,
    Password,
    choose_mechanisms,
    redacted,
)
from asyncsmtp.protocol.auth.scram import can_prepare
from asyncsmtp.protocol.client import AUTH_CHALLENGE, ClientProtocol
from asyncsmtp.protocol.commands import MAX_LINE, Command, Verb, auth, response
from asyncsmtp.protocol.replies import Reply, Severity

__all__ = ["INVALID_CREDENTIALS", "MAX_CHALLENGE", "MAX_ROUNDS", "CommandGenerator", "log_in"]

MAX_ROUNDS = 4  # challenges answered in one attempt
MAX_CHALLENGE = 8192  # bytes of base64
SUCCESS = 235
INVALID_CREDENTIALS = 535  # the credentials themselves (RFC 4954 §6)
MECHANISM_REFUSED = frozenset({504, 534})  # the mechanism is not accepted (RFC 4954 §6); the secret was not judged

CommandGenerator = Generator[Command, Reply, None]


def log_in(
    protocol: ClientProtocol, credentials: Credentials, channel: Channel, wanted: Sequence[str] = ()
) -> CommandGenerator:
    """Log in; return when the relay accepted the credentials and, if the mechanism provides it, proved its identity.

    Computing the answer to a challenge may take a second (`scram`): while the protocol is in state AUTH, send replies
    in from a thread.

    Args:
        wanted: the mechanisms to use, in this order; if empty, the default ones.
    Raises:
        ExtensionNotSupported: no offered mechanism can use the credentials.
        InvalidArgument: the credentials contain a character that a mechanism cannot send; nothing was sent.
        AuthenticationRefused: the credentials were refused, or a challenge was not acceptable.
        ServerNotAuthenticated: the relay accepted the login without proving that it knows the password.
        Refused: temporarily, without judging the credentials.
    """
    offered = protocol.extensions.mechanisms
    channel = replace(channel, plus=any(name.endswith(PLUS) for name in offered))
    mechanisms: Sequence[Mechanism] = choose_mechanisms(credentials, offered, channel, wanted)
    if not mechanisms:
        raise ExtensionNotSupported("AUTH", _explain_no_mechanism(credentials, offered, wanted))
    protocol.redacted = redacted(credentials, channel)
    while mechanisms:
        mechanism, *others = mechanisms
        result = yield from _authenticate(protocol, mechanism, mechanism.begin(credentials, channel))
        mechanisms = result.remaining(mechanism, others)
    result.raise_for_failure(mechanism)


def _explain_no_mechanism(credentials: Credentials, offered: Sequence[str], wanted: Sequence[str]) -> str:
    if not offered:
        return "it offers no login here; many relays offer it only under TLS"
    why = f"it offers {', '.join(offered)}, which cannot use these credentials"
    if wanted:
        why += f", and only {', '.join(wanted)} may be used"
    if isinstance(credentials, Password) and not can_prepare(credentials):
        why += "; SCRAM does not allow this user name or password (RFC 4013)"
    return why


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The result of an attempt: the final reply, and the client's own findings."""

    reply: Reply
    reason: str = ""
    cancelled: bool = False
    answered: int = 0

    def remaining(self, mechanism: Mechanism, others: Sequence[Mechanism]) -> Sequence[Mechanism]:
        """Return the mechanisms to try next: none once a challenge was answered and the secret perhaps judged."""
        if self.answered or self.cancelled:
            return ()
        if self.reply.code in MECHANISM_REFUSED:
            return others
        if mechanism.plus and self.reply.severity is Severity.PERMANENT:
            return [other for other in others if other.min_challenges and not other.plus]
        return ()

    def raise_for_failure(self, mechanism: Mechanism) -> None:
        """Raise the error for this result, if it is not a success."""
        command = auth(mechanism.name)  # without the secret: errors are shown and logged
        if self.reply.code == SUCCESS:
            if self.answered < mechanism.min_challenges:
                raise ServerNotAuthenticated(command, self.reply)
        elif self.cancelled:
            raise AuthenticationRefused(command, self.reply, f"the client cancelled: {self.reason}")
        elif self.reply.severity is Severity.TRANSIENT:
            raise Refused(command, self.reply, "the credentials were not checked: try again later")
        else:
            advice = "check the user name and the password"
            raise AuthenticationRefused(command, self.reply, self.reason or advice)


def _authenticate(
    protocol: ClientProtocol, mechanism: Mechanism, dialogue: Generator[bytes | None, bytes, None]
) -> Generator[Command, Reply, _Attempt]:
    """Run one mechanism to its final reply; cancel with `*` at a challenge that cannot be answered."""
    reply = yield from _begin(protocol, mechanism.name, next(dialogue))
    reason, answered = "", 0
    while reply.code == AUTH_CHALLENGE:
        try:
            challenge = _decode(protocol.challenge)
            answer = _answer(dialogue, challenge, answered)
        except MechanismFailed as failure:
            reason = str(failure)
            break
        reason, answered = mechanism.failure_reason(challenge), answered + 1
        reply = yield response(answer)
    else:
        return _Attempt(reply, _redact(protocol, reason), answered=answered)
    reply = yield Command(Verb.CANCEL)
    return _Attempt(reply, reason, cancelled=True)


def _answer(dialogue: Generator[bytes | None, bytes, None], challenge: bytes, answered: int) -> bytes:
    if answered == MAX_ROUNDS:
        raise MechanismFailed(f"the relay sent another challenge after {MAX_ROUNDS} answers")
    try:
        return dialogue.send(challenge) or b""
    except StopIteration:
        raise MechanismFailed("the relay sent another challenge after the end of the mechanism") from None


def _begin(
    protocol: ClientProtocol, mechanism: str, initial_response: bytes | None
) -> Generator[Command, Reply, Reply]:
    """Send AUTH; an initial response too long for the line answers an empty challenge instead (RFC 4954 §4)."""
    command = auth(mechanism, initial_response)
    if initial_response is None or len(bytes(command)) <= MAX_LINE:
        return (yield command)
    reply = yield auth(mechanism)
    if reply.code != AUTH_CHALLENGE or any(protocol.challenge):
        return reply
    return (yield response(initial_response))


def _decode(challenge: Sequence[bytes]) -> bytes:
    octets = b"".join(challenge)
    if len(octets) > MAX_CHALLENGE:
        raise MechanismFailed(f"the challenge is longer than {MAX_CHALLENGE} bytes")
    try:
        return b64decode(octets, validate=True)
    except binascii.Error:
        raise MechanismFailed("the challenge is not base64") from None


def _redact(protocol: ClientProtocol, reason: str) -> str:
    return Reply(AUTH_CHALLENGE, (reason.encode("utf-8"),)).redact(protocol.redacted).text
