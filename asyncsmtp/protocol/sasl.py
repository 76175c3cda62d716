"""SASL mechanisms as generators: `challenge = yield response` (RFC 4422, RFC 4954).

A mechanism first yields its initial response, or None when it must wait for a challenge; after that it
is sent each challenge and yields the answer. To return early, or to raise MechanismFailed, cancels.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from asyncsmtp.errors import BadArgument

__all__ = [
    "MECHANISMS",
    "Bearer",
    "Credentials",
    "Dialogue",
    "Mechanism",
    "Password",
    "Secret",
    "choose",
    "unspeakable",
]

Dialogue = Generator[bytes | None, bytes, None]


class Secret:
    """A text that no repr, log or traceback shows; `reveal()` gives it to the one who must send it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Password:
    """A user name and a password."""

    username: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class Bearer:
    """A user name and an OAuth 2.0 access token."""

    username: str
    secret: Secret


Credentials = Password | Bearer


def _octets(text: str, what: str) -> bytes:
    """RFC 4616 §2: NUL parts the fields of PLAIN; XOAUTH2 parts its own by U+0001."""
    if not text:
        raise BadArgument(f"the {what} is empty: nothing was sent")
    if "\0" in text or "\x01" in text:
        raise BadArgument(f"a NUL or U+0001 in the {what}: nothing was sent")
    if any("\ud800" <= character <= "\udfff" for character in text):  # the codec's own error would carry the text
        raise BadArgument(f"a lone surrogate in the {what}, which no encoding can carry: nothing was sent")
    return text.encode("utf-8")


def plain(credentials: Credentials) -> Dialogue:
    """PLAIN (RFC 4616)."""
    user = _octets(credentials.username, "user name")
    message = b"\0" + user + b"\0" + _octets(credentials.secret.reveal(), "password")
    challenge = yield message
    if challenge == b"":  # a server that overlooked the initial response asks for it
        yield message


def login(credentials: Credentials) -> Dialogue:
    """LOGIN (draft-murchison-sasl-login): the prompts differ between servers and are not looked at."""
    user, password = _octets(credentials.username, "user name"), _octets(credentials.secret.reveal(), "password")
    yield None
    yield user
    yield password


def xoauth2(credentials: Credentials) -> Dialogue:
    """XOAUTH2, as Google and Microsoft document it."""
    user = _octets(credentials.username, "user name")
    yield b"user=" + user + b"\x01auth=Bearer " + _octets(credentials.secret.reveal(), "token") + b"\x01\x01"
    yield b""  # the challenge is the reason of the failure in JSON; an empty answer lets the server say 535


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism's name, the kind of credentials it takes, and its dialogue."""

    name: str
    takes: type[Password] | type[Bearer]
    begin: Callable[[Credentials], Dialogue]


MECHANISMS = (  # in order of preference
    Mechanism("XOAUTH2", Bearer, xoauth2),
    Mechanism("PLAIN", Password, plain),
    Mechanism("LOGIN", Password, login),
)


def choose(credentials: Credentials, offered: Iterable[str]) -> tuple[Mechanism, ...]:
    """The mechanisms that fit the credentials and are offered, the preferred one first."""
    names = frozenset(offered)
    return tuple(m for m in MECHANISMS if m.name in names and isinstance(credentials, m.takes))


def unspeakable(credentials: Credentials) -> tuple[bytes, ...]:
    """What no log may show: the secret, and what mechanisms make of it in base64; a longer one first."""
    secret = _octets(credentials.secret.reveal(), "password or token")
    initial = (next(mechanism.begin(credentials)) for mechanism in MECHANISMS)
    encoded = (b64encode(said).rstrip(b"=") for said in (secret, *filter(None, initial)))
    return tuple(sorted({secret, *encoded}, key=len, reverse=True))
