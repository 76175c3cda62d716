"""The simple SASL mechanisms as generators; SCRAM has its own module.

A mechanism first yields its initial response, or None if it must wait for a challenge; then it is sent each challenge
and yields the answer. Returning early or raising MechanismFailed cancels the exchange.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Generator

from asyncsmtp.protocol.auth.credentials import Bearer, Channel, External, Password, encode_name
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "MechanismFailed",
    "SaslDialogue",
    "cram_md5",
    "external",
    "login",
    "oauth_error",
    "oauthbearer",
    "plain",
    "saslname",
    "xoauth2",
]

SaslDialogue = Generator[bytes | None, bytes, None]


class MechanismFailed(Exception):
    """An error for a challenge that is not acceptable; its text gives the reason and no part of a secret."""


def plain(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run PLAIN (RFC 4616)."""
    authzid = encode_name(credentials.authzid, "identity to act as") if credentials.authzid else b""
    user = encode_name(credentials.username, "user name")
    message = b"\0".join((authzid, user, credentials.secret.encode("password")))
    challenge = yield message
    if challenge == b"":  # a server that ignored the initial response asks for it
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
    challenge = yield authzid
    if challenge == b"":
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


def saslname(name: bytes) -> bytes:
    """Escape a name for a message whose parts are separated by commas (RFC 5802 §5.1, RFC 5801 §4)."""
    return name.replace(b"=", b"=3D").replace(b",", b"=2C")


def oauth_error(challenge: bytes) -> str:
    """Return the status in the JSON challenge after a refused token; an empty string if there is none."""
    try:
        decoded = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    status = decoded.get("status") if isinstance(decoded, dict) else None
    return f"the token's status: {safe_text(status, 80)}" if isinstance(status, str) and status else ""
