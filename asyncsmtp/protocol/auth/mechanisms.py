"""The simple SASL mechanisms as generators; SCRAM has a file of its own.

A mechanism first yields its initial response, or None when it must wait for a challenge; after that it
is sent each challenge and yields the answer. To return early, or to raise MechanismFailed, cancels.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Generator

from asyncsmtp.protocol.auth.credentials import Bearer, Channel, External, Password, octets
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
    """A challenge that is not acceptable; the text says why, and repeats nothing of a secret."""


def plain(credentials: Password, channel: Channel) -> SaslDialogue:
    """PLAIN (RFC 4616)."""
    authzid = octets(credentials.authzid, "identity to act as") if credentials.authzid else b""
    user = octets(credentials.username, "user name")
    message = b"\0".join((authzid, user, credentials.secret.octets("password")))
    challenge = yield message
    if challenge == b"":  # a server that overlooked the initial response asks for it
        yield message


def login(credentials: Password, channel: Channel) -> SaslDialogue:
    """LOGIN (draft-murchison-sasl-login): the prompts differ between servers and are not looked at."""
    user, password = octets(credentials.username, "user name"), credentials.secret.octets("password")
    yield None
    yield user
    yield password


def cram_md5(credentials: Password, channel: Channel) -> SaslDialogue:
    """CRAM-MD5 (RFC 2195): proves the password to whoever asks, and lets an impostor guess it afterwards."""
    user, password = octets(credentials.username, "user name"), credentials.secret.octets("password")
    challenge = yield None
    if not challenge:
        raise MechanismFailed("it gave nothing to compute with")
    yield user + b" " + hmac.digest(password, challenge, "md5").hex().encode("ascii")


def external(credentials: External, channel: Channel) -> SaslDialogue:
    """EXTERNAL (RFC 4422, Appendix A): the certificate speaks; at most the identity to act as is said."""
    authzid = octets(credentials.authzid, "identity to act as") if credentials.authzid else b""
    challenge = yield authzid
    if challenge == b"":
        yield authzid


def xoauth2(credentials: Bearer, channel: Channel) -> SaslDialogue:
    """XOAUTH2, as Google and Microsoft document it."""
    user = octets(credentials.username, "user name")
    yield b"user=" + user + b"\x01auth=Bearer " + credentials.secret.octets("token") + b"\x01\x01"
    yield b""  # the challenge is the reason of the failure in JSON; an empty answer lets the server say 535


def oauthbearer(credentials: Bearer, channel: Channel) -> SaslDialogue:
    """OAUTHBEARER (RFC 7628)."""
    words = [b"n,a=" + saslname(octets(credentials.username, "user name")) + b","]
    if channel.host:
        words += [b"host=" + channel.host.encode("utf-8"), b"port=%d" % channel.port]
    words += [b"auth=Bearer " + credentials.secret.octets("token"), b"", b""]
    yield b"\x01".join(words)
    yield b"\x01"  # §3.2.3: "the client MUST then send … %x01", and the server ends it


def saslname(name: bytes) -> bytes:
    """A name inside a message whose parts are parted by commas (RFC 5802 §5.1, RFC 5801 §4)."""
    return name.replace(b"=", b"=3D").replace(b",", b"=2C")


def oauth_error(challenge: bytes) -> str:
    """What the challenge behind a refused token says: the status in its JSON; "" where there is none."""
    try:
        said = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    status = said.get("status") if isinstance(said, dict) else None
    return f"the token's status: {safe_text(status, 80)}" if isinstance(status, str) and status else ""
