"""Logging in: AUTH, its challenges and its end, whichever the mechanism (RFC 4954).

One attempt for each set of credentials: another mechanism is tried only where the relay says that it does not
take this one, and never after we broke one off, or an impostor could talk us down to a password in clear.

One exception: a -PLUS mechanism that is refused before any challenge. EHLO does not tell which types of channel binding
a relay knows, and many know only those that we do not have; no proof was made yet. SCRAM without -PLUS follows.
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
    choose,
    redacted,
)
from asyncsmtp.protocol.auth.scram import preparable
from asyncsmtp.protocol.client import CHALLENGE, ClientProtocol
from asyncsmtp.protocol.commands import MAX_LINE, Command, Verb, auth, response
from asyncsmtp.protocol.replies import Reply, Severity

__all__ = ["MAX_CHALLENGE", "MAX_ROUNDS", "NOT_VALID", "Steps", "log_in"]

MAX_ROUNDS = 4  # challenges answered before we give up
MAX_CHALLENGE = 8192  # octets, base64
SUCCESS = 235
NOT_VALID = 535  # the credentials themselves (RFC 4954 §6)
ANOTHER_MAY_DO = frozenset({504, 534})  # this mechanism is not taken (RFC 4954 §6); the secret was not judged

Steps = Generator[Command, Reply, None]


def log_in(protocol: ClientProtocol, credentials: Credentials, channel: Channel, wanted: Sequence[str] = ()) -> Steps:
    """Log in; return when that is done, and the relay has proved itself where the mechanism has it do so.

    Making the answer to a challenge may take a second of computing (`scram`): while the protocol is in state
    AUTH, send replies in from a thread.

    Args:
        wanted: the mechanisms that may be used, in this order; without any, the usual ones.
    Raises:
        ExtensionNotSupported: no mechanism is offered that fits the credentials.
        InvalidArgument: the credentials would break a mechanism's frame; nothing was said.
        AuthenticationRefused: the credentials were refused, or a challenge was not acceptable.
        ServerNotAuthenticated: the relay let us in without a proof that it knows the password.
        Refused: for now, the credentials not being judged.
    """
    offered = protocol.extensions.mechanisms
    channel = replace(channel, plus=any(name.endswith(PLUS) for name in offered))
    mechanisms: Sequence[Mechanism] = choose(credentials, offered, channel, wanted)
    if not mechanisms:
        raise ExtensionNotSupported("AUTH", _misfit(credentials, offered, wanted))
    protocol.unspeakable = redacted(credentials, channel)
    while mechanisms:
        mechanism, *others = mechanisms
        verdict = yield from _authenticate(protocol, mechanism, mechanism.begin(credentials, channel))
        mechanisms = verdict.leaves(mechanism, others)
    verdict.judge(mechanism)


def _misfit(credentials: Credentials, offered: Sequence[str], wanted: Sequence[str]) -> str:
    if not offered:
        return "it takes no login at all here; many relays do so only under TLS"
    why = f"it takes {', '.join(offered)}, which these credentials do not fit"
    if wanted:
        why += f", when only {', '.join(wanted)} may be used"
    if isinstance(credentials, Password) and not preparable(credentials):
        why += "; SCRAM cannot compute with this user name or password (RFC 4013)"
    return why


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How an attempt ended: the final reply, and what we found."""

    reply: Reply
    reason: str = ""
    broken_off: bool = False
    answered: int = 0

    def leaves(self, mechanism: Mechanism, others: Sequence[Mechanism]) -> Sequence[Mechanism]:
        """Which of the others may be tried now: none once a challenge was answered, and the secret perhaps judged."""
        if self.answered or self.broken_off:
            return ()
        if self.reply.code in ANOTHER_MAY_DO:
            return others
        if mechanism.plus and self.reply.severity is Severity.PERMANENT:
            return [other for other in others if other.proved_by and not other.plus]
        return ()

    def judge(self, mechanism: Mechanism) -> None:
        """Raise what it amounts to, or nothing."""
        command = auth(mechanism.name)  # without the secret: an error is kept, shown and logged
        if self.reply.code == SUCCESS:
            if self.answered < mechanism.proved_by:
                raise ServerNotAuthenticated(command, self.reply)
        elif self.broken_off:
            raise AuthenticationRefused(command, self.reply, f"we broke it off: {self.reason}")
        elif self.reply.severity is Severity.TRANSIENT:
            raise Refused(command, self.reply, "the credentials were not judged: try again later")
        else:
            advice = "check the user name and the password"
            raise AuthenticationRefused(command, self.reply, self.reason or advice)


def _authenticate(
    protocol: ClientProtocol, mechanism: Mechanism, dialogue: Generator[bytes | None, bytes, None]
) -> Generator[Command, Reply, _Verdict]:
    """Run one mechanism to its final reply; a challenge that cannot be answered is cancelled with `*`."""
    reply = yield from _begin(protocol, mechanism.name, next(dialogue))
    reason, answered = "", 0
    while reply.code == CHALLENGE:
        try:
            challenge = _decode(protocol.challenge)
            answer = _answer(dialogue, challenge, answered)
        except MechanismFailed as failure:
            reason = str(failure)
            break
        reason, answered = mechanism.reason(challenge), answered + 1
        reply = yield response(answer)
    else:
        return _Verdict(reply, _scrubbed(protocol, reason), answered=answered)
    reply = yield Command(Verb.CANCEL)
    return _Verdict(reply, reason, broken_off=True)


def _answer(dialogue: Generator[bytes | None, bytes, None], challenge: bytes, answered: int) -> bytes:
    if answered == MAX_ROUNDS:
        raise MechanismFailed(f"it went on after {MAX_ROUNDS} answers")
    try:
        return dialogue.send(challenge) or b""
    except StopIteration:
        raise MechanismFailed("it went on where the mechanism is over") from None


def _begin(
    protocol: ClientProtocol, mechanism: str, initial_response: bytes | None
) -> Generator[Command, Reply, Reply]:
    """AUTH; where the initial response makes its line too long, that answers an empty challenge (RFC 4954 §4)."""
    command = auth(mechanism, initial_response)
    if initial_response is None or len(bytes(command)) <= MAX_LINE:
        return (yield command)
    reply = yield auth(mechanism)
    if reply.code != CHALLENGE or any(protocol.challenge):
        return reply
    return (yield response(initial_response))


def _decode(challenge: Sequence[bytes]) -> bytes:
    octets = b"".join(challenge)
    if len(octets) > MAX_CHALLENGE:
        raise MechanismFailed("it sent more than any mechanism does")
    try:
        return b64decode(octets, validate=True)
    except binascii.Error:
        raise MechanismFailed("it sent what is not base64") from None


def _scrubbed(protocol: ClientProtocol, reason: str) -> str:
    return Reply(CHALLENGE, (reason.encode("utf-8"),)).without(protocol.unspeakable).text
