"""Credentials and the connection that they are used on: the values that SASL mechanisms work with (RFC 4422)."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncsmtp.errors import InvalidArgument

__all__ = ["Bearer", "Channel", "Credentials", "External", "Password", "Secret", "encode_name"]


class Secret:
    """A text that is never shown in a repr, log or traceback; `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def of(cls, text: str | Secret) -> Secret:
        """Make a Secret of a `str`; return a Secret as it is.

        Raises:
            TypeError: neither of them.
        """
        if isinstance(text, Secret):
            return text
        if not isinstance(text, str):
            raise TypeError(f"a secret must be a str or a Secret, not {type(text).__name__}")
        return cls(text)

    def reveal(self) -> str:
        return self._text

    def encode(self, name: str) -> bytes:
        """Encode the text in UTF-8, as a mechanism sends it.

        Raises:
            InvalidArgument: empty, or with a character that a mechanism cannot send; `name` names it in the error.
        """
        if fault := _fault(
            self._text, name
        ):  # raised here: no local variable holds the text, so a traceback cannot show it
            raise InvalidArgument(fault)
        return self._text.encode("utf-8")

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True, init=False)
class Password:
    """A user name and a password.

    Attributes:
        secret: the password; a `str` becomes a Secret.
        authzid: the identity to act as, if it is not the user's own; PLAIN and SCRAM can send it.
    """

    username: str
    secret: Secret
    authzid: str = ""

    def __init__(self, username: str, secret: Secret | str, authzid: str = "") -> None:
        object.__setattr__(self, "username", username)
        object.__setattr__(self, "secret", Secret.of(secret))
        object.__setattr__(self, "authzid", authzid)


@dataclass(frozen=True, slots=True, init=False)
class Bearer:
    """A user name and an OAuth 2.0 access token.

    Attributes:
        secret: the token; a `str` becomes a Secret.
    """

    username: str
    secret: Secret

    def __init__(self, username: str, secret: Secret | str) -> None:
        object.__setattr__(self, "username", username)
        object.__setattr__(self, "secret", Secret.of(secret))


@dataclass(frozen=True, slots=True)
class External:
    """An identity established outside SASL, usually by a client certificate (RFC 4422, Appendix A)."""

    authzid: str = ""


Credentials = Password | Bearer | External


@dataclass(frozen=True, slots=True)
class Channel:
    """The connection of a login, and the random value for it.

    Attributes:
        host, port: of the relay; sent by OAUTHBEARER.
        certificate: the relay's, in DER; None without TLS.
        nonce: for SCRAM: new for each login, hard to guess, printable ASCII without a comma.
        plus: true if the relay offers a -PLUS mechanism.
    """

    host: str = ""
    port: int = 0
    certificate: bytes | None = field(default=None, repr=False)
    nonce: str = field(default="", repr=False)
    plus: bool = False


def encode_name(text: str, name: str) -> bytes:
    """Encode a name in UTF-8; use `Secret.encode` for secrets.

    Raises:
        InvalidArgument: empty, or with a character that a mechanism cannot send; `name` names it in the error.
    """
    if fault := _fault(text, name):
        raise InvalidArgument(fault)
    return text.encode("utf-8")


def _fault(text: str, name: str) -> str:
    """Return what is wrong with a text. NUL separates the fields of PLAIN (RFC 4616 §2), U+0001 those of OAuth."""
    if not text:
        return f"the {name} is empty: nothing was sent"
    if "\0" in text or "\x01" in text:
        return f"a NUL or U+0001 in the {name}: nothing was sent"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"a lone surrogate in the {name}, which cannot be encoded: nothing was sent"
    return ""
