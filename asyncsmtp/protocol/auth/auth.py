"""Authentication: the SASL mechanisms, the choice of one, and the AUTH command with its challenges (RFC 4954).

There is one attempt for each set of credentials. Another mechanism is tried only if the relay says that it does not
accept this one, and never after the client cancelled one: otherwise an impostor could force a plaintext password.

One exception: a -PLUS mechanism that is refused before any challenge is followed by SCRAM without -PLUS. EHLO does not
list the types of channel binding that a relay supports, many support only types that are not available here, and no
proof was computed yet.
"""

from __future__ import annotations

import binascii
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asyncsmtp.errors import (
    AuthenticationRefused,
    ExtensionNotSupported,
    InvalidArgument,
    Refused,
    ServerNotAuthenticated,
)
from asyncsmtp.protocol.auth.credentials import (
    Bearer,
    Channel,
    Credentials,
    External,
    MechanismFailed,
    Password,
    SaslDialogue,
    Secret,
    encode_name,
    saslname,
)
from asyncsmtp.protocol.auth.scram import can_bind, can_prepare, scram
from asyncsmtp.protocol.client import AUTH_CHALLENGE, ClientProtocol
from asyncsmtp.protocol.commands import MAX_LINE, Command, Verb, auth, response
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import Reply, Severity, safe_text

__all__ = [
    "INVALID_CREDENTIALS",
    "MAX_CHALLENGE",
    "MAX_ROUNDS",
    "MECHANISMS",
    "NAMES",
    "PLUS",
    "Bearer",
    "Channel",
    "CommandGenerator",
    "Credentials",
    "External",
    "Mechanism",
    "MechanismFailed",
    "Password",
    "SaslDialogue",
    "Secret",
    "choose_mechanisms",
    "log_in",
    "mask_credentials",
]

PLUS = "-PLUS"  # suffix of the names of mechanisms with channel binding (RFC 5801 §3)


def plain(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run PLAIN (RFC 4616); a server that ignored the initial response asks for it, and its words do not matter."""
    authzid = encode_name(credentials.authzid, "identity to act as") if credentials.authzid else b""
    user = encode_name(credentials.username, "user name")
    message = b"\0".join((authzid, user, credentials.secret.encode("password")))
    yield message
    yield message


def login(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run LOGIN (draft-murchison-sasl-login); its prompts differ between servers and are ignored."""
    user, password = encode_name(credentials.username, "user name"), credentials.secret.encode("password")
    yield None
    yield user
    yield password


def cram_md5(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run CRAM-MD5 (RFC 2195); anyone who issues the challenge can guess the password offline afterwards."""
    user, password = encode_name(credentials.username, "user name"), credentials.secret.encode("password")
    challenge = yield None
    if not challenge:
        raise MechanismFailed("the challenge is empty")
    yield user + b" " + hmac.digest(password, challenge, "md5").hex().encode("ascii")


def external(credentials: External, channel: Channel) -> SaslDialogue:
    """Run EXTERNAL (RFC 4422, Appendix A): the certificate authenticates; only the identity to act as is sent."""
    authzid = encode_name(credentials.authzid, "identity to act as") if credentials.authzid else b""
    yield authzid
    yield authzid


def xoauth2(credentials: Bearer, channel: Channel) -> SaslDialogue:
    """Run XOAUTH2, as documented by Google and Microsoft."""
    user = encode_name(credentials.username, "user name")
    yield b"user=" + user + b"\x01auth=Bearer " + credentials.secret.encode("token") + b"\x01\x01"
    yield b""  # the challenge is the reason for the failure in JSON; the server sends 535 after an empty answer


def oauthbearer(credentials: Bearer, channel: Channel) -> SaslDialogue:
    """Run OAUTHBEARER (RFC 7628)."""
    words = [b"n,a=" + saslname(encode_name(credentials.username, "user name")) + b","]
    if channel.host:
        words += [b"host=" + channel.host.encode("utf-8"), b"port=%d" % channel.port]
    words += [b"auth=Bearer " + credentials.secret.encode("token"), b"", b""]
    yield b"\x01".join(words)
    yield b"\x01"  # §3.2.3: "the client MUST then send … %x01", and the server ends it


def oauth_error(challenge: bytes) -> str:
    """Return the status in the JSON challenge after a refused token; an empty string if there is none."""
    try:
        decoded = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    status = decoded.get("status") if isinstance(decoded, dict) else None
    return f"the token's status: {safe_text(status, 80)}" if isinstance(status, str) and status else ""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism: its name, the type of credentials that it uses, and its exchange.

    Attributes:
        begin: starts the exchange, with credentials of that type.
        condition: tells if credentials of that type can be used on this channel.
        min_challenges: challenges that must have been answered before a 235 counts; the last one has the relay's proof.
        failure_reason: extracts from a challenge the reason of a following failure, for people.
        has_prompts: true if its challenges decide nothing; servers send `334 Username:` and `334 go on` as well as
            base64, so they are not judged.
        is_default: true if it is used without being named; CRAM-MD5 is not, being weak.
    """

    name: str
    credentials_type: type[Password] | type[Bearer] | type[External]
    begin: Callable[[Any, Channel], SaslDialogue]
    condition: Callable[[Any, Channel], bool] = lambda credentials, channel: True
    min_challenges: int = 0
    failure_reason: Callable[[bytes], str] = lambda challenge: ""
    has_prompts: bool = False
    is_default: bool = True

    @property
    def plus(self) -> bool:
        """True if it binds to the relay's certificate."""
        return self.name.endswith(PLUS)

    def is_usable(self, credentials: Credentials, channel: Channel) -> bool:
        """Tell if it can be used with these credentials on this channel."""
        return isinstance(credentials, self.credentials_type) and self.condition(credentials, channel)


def _scram(name: str, algorithm: str, *, plus: bool = False) -> Mechanism:
    def condition(credentials: Password, channel: Channel) -> bool:
        return can_prepare(credentials) and (can_bind(channel) or not plus)

    return Mechanism(name, Password, scram(algorithm, plus=plus), condition, min_challenges=2)


MECHANISMS = (  # in order of preference
    Mechanism("OAUTHBEARER", Bearer, oauthbearer, failure_reason=oauth_error, has_prompts=True),
    Mechanism("XOAUTH2", Bearer, xoauth2, failure_reason=oauth_error, has_prompts=True),
    Mechanism("EXTERNAL", External, external, has_prompts=True),
    _scram("SCRAM-SHA-512-PLUS", "sha512", plus=True),
    _scram("SCRAM-SHA-256-PLUS", "sha256", plus=True),
    _scram("SCRAM-SHA-1-PLUS", "sha1", plus=True),
    _scram("SCRAM-SHA-512", "sha512"),
    _scram("SCRAM-SHA-256", "sha256"),
    _scram("SCRAM-SHA-1", "sha1"),
    Mechanism("PLAIN", Password, plain, has_prompts=True),
    Mechanism("LOGIN", Password, login, has_prompts=True),
    Mechanism("CRAM-MD5", Password, cram_md5, is_default=False),
)
NAMES = tuple(mechanism.name for mechanism in MECHANISMS)


def choose_mechanisms(
    credentials: Credentials, offered: Iterable[str], channel: Channel, wanted: Sequence[str] = ()
) -> tuple[Mechanism, ...]:
    """Return the mechanisms that are offered and can use the credentials, the preferred one first.

    Args:
        wanted: only these, in this order; if empty, all default ones.
    """
    names = frozenset(offered)
    listed = [m for name in wanted for m in MECHANISMS if m.name == name] or [m for m in MECHANISMS if m.is_default]
    return tuple(m for m in listed if m.name in names and m.is_usable(credentials, channel))


def mask_credentials(mask: SecretMask, credentials: Credentials | None) -> None:
    """Mask the secret of credentials, and what each mechanism sends of it.

    Raises:
        InvalidArgument: the credentials contain a character that a mechanism cannot send.
    """
    if credentials is None or isinstance(credentials, External):
        return
    name, secret = credentials.username, credentials.secret
    password = credentials if isinstance(credentials, Password) else Password(name, secret)
    octets = secret.encode("password or token")
    mask.add(octets)
    if len(octets) < SHORT:  # a longer one is found in any base64; this much of it would also match by chance
        messages = (next(plain(password, Channel())), next(xoauth2(Bearer(name, secret), Channel())))
        mask.add_encoded(*(b64encode(message) for message in (octets, *filter(None, messages))))


SHORT = 16  # bytes of a secret
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
    try:
        mask_credentials(protocol.mask, credentials)
        while mechanisms:
            mechanism, *others = mechanisms
            result = yield from _authenticate(protocol, mechanism, mechanism.begin(credentials, channel))
            mechanisms = result.remaining(mechanism, others)
    except InvalidArgument as error:
        raise error.with_traceback(None) from None  # the frames that raised it hold what would have been sent
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
        if self.reply.code == SUCCESS or self._is_logged_in:
            if self.answered < mechanism.min_challenges:
                raise ServerNotAuthenticated(command, self.reply)
        elif self.cancelled:
            raise AuthenticationRefused(command, self.reply, f"the client cancelled: {self.reason}")
        elif self.reply.severity is Severity.TRANSIENT:
            raise Refused(command, self.reply, "the credentials were not checked: try again later")
        else:
            is_about_credentials = AuthenticationRefused(command, self.reply).is_about_credentials
            advice = (
                "check the user name and the password" if is_about_credentials else _ADVICE.get(self.reply.code, "")
            )
            raise AuthenticationRefused(command, self.reply, self.reason or advice)

    @property
    def _is_logged_in(self) -> bool:
        """True for "503 already authenticated": the session has a user, such as that of its client certificate.

        RFC 4954 §4: "After an AUTH command has been successfully completed, no more AUTH commands may be issued in the
        same session", and a server "MUST reject any further AUTH commands with a 503 reply". The same code stands for
        other commands out of sequence, so the words decide.
        """
        return self.reply.code == BAD_SEQUENCE and not self.cancelled and b"already" in self.reply.lines[-1].lower()


BAD_SEQUENCE = 503
_USE_TLS = "the relay wants TLS before a login: use smtps://, or smtp:// with STARTTLS"
_OTHER_MECHANISM = "the relay does not accept this mechanism for this user: name another one in the login"
_ADVICE = {  # RFC 4954 §6, RFC 5321 §4.2.2; by the reply code
    **dict.fromkeys((500, 502), "the relay does not know AUTH: use its port for submission, 587 or 465"),
    BAD_SEQUENCE: "the relay does not expect a login here",
    **dict.fromkeys((504, 534), _OTHER_MECHANISM),
    **dict.fromkeys((530, 538), _USE_TLS),
}


def _authenticate(
    protocol: ClientProtocol, mechanism: Mechanism, dialogue: Generator[bytes | None, bytes, None]
) -> Generator[Command, Reply, _Attempt]:
    """Run one mechanism to its final reply; cancel with `*` at a challenge that cannot be answered."""
    reply = yield from _begin(mechanism.name, next(dialogue))
    reason, answered = "", 0
    while reply.code == AUTH_CHALLENGE:
        try:
            challenge = _decode(protocol.challenge, lenient=mechanism.has_prompts)
            answer = _answer(dialogue, challenge, answered)
        except MechanismFailed as failure:
            reason = str(failure)
            break
        reason, answered = mechanism.failure_reason(challenge), answered + 1
        reply = yield response(answer)
    else:
        return _Attempt(reply, protocol.mask.mask_text(reason), answered=answered)
    reply = yield Command(Verb.CANCEL)
    return _Attempt(reply, reason, cancelled=True)


def _answer(dialogue: Generator[bytes | None, bytes, None], challenge: bytes, answered: int) -> bytes:
    if answered == MAX_ROUNDS:
        raise MechanismFailed(f"the relay sent another challenge after {MAX_ROUNDS} answers")
    try:
        return dialogue.send(challenge) or b""
    except StopIteration:
        raise MechanismFailed("the relay sent another challenge after the end of the mechanism") from None


def _begin(mechanism: str, initial_response: bytes | None) -> Generator[Command, Reply, Reply]:
    """Send AUTH; an initial response too long for the line answers the first challenge instead (RFC 4954 §4).

    That challenge should be empty. Whatever it is, it asks for the response: nothing was sent yet that it could answer.
    """
    command = auth(mechanism, initial_response)
    if initial_response is None or len(bytes(command)) <= MAX_LINE:
        return (yield command)
    reply = yield auth(mechanism)
    if reply.code != AUTH_CHALLENGE:
        return reply
    return (yield response(initial_response))


def _decode(challenge: Sequence[bytes], *, lenient: bool) -> bytes:
    """Decode a challenge; blanks around it and missing padding are forgiven. With `lenient` nothing is an error."""
    octets = b"".join(challenge).strip()
    if len(octets) > MAX_CHALLENGE:
        raise MechanismFailed(f"the challenge is longer than {MAX_CHALLENGE} bytes")
    try:
        return b64decode(octets + b"=" * (-len(octets) % 4), validate=True)
    except binascii.Error:
        if lenient:
            return b""
        raise MechanismFailed("the challenge is not base64") from None
