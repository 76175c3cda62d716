"""Who logs in, and on what connection: the values that SASL mechanisms work on (RFC 4422)."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncsmtp.errors import InvalidArgument

__all__ = ["Bearer", "Channel", "Credentials", "External", "Password", "Secret", "octets"]


class Secret:
    """A text that no repr, log or traceback shows; `reveal()` gives it to the one who must send it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def octets(self, what: str) -> bytes:
        """The text in UTF-8, as a mechanism sends it.

        Raises:
            InvalidArgument: it is empty, or would break a mechanism's frame; `what` names it in the error.
        """
        if fault := _fault(self._text, what):  # raised here, where no local variable holds the text
            raise InvalidArgument(fault)
        return self._text.encode("utf-8")

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Password:
    """A user name and a password.

    Attributes:
        authzid: the identity to act as, where that is not the user's own; PLAIN and SCRAM can say it.
    """

    username: str
    secret: Secret
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A user name and an OAuth 2.0 access token."""

    username: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class External:
    """Who we are is known from outside SASL, usually by a client certificate (RFC 4422, Appendix A)."""

    authzid: str = ""


Credentials = Password | Bearer | External


@dataclass(frozen=True, slots=True)
class Channel:
    """The connection on which a login happens, and the chance that goes into it.

    Attributes:
        host, port: what was connected to; OAUTHBEARER tells them.
        certificate: the relay's, in DER; None without TLS.
        nonce: for SCRAM: fresh for each login, hard to guess, printable ASCII without a comma.
        plus: the relay offers some -PLUS mechanism.
    """

    host: str = ""
    port: int = 0
    certificate: bytes | None = field(default=None, repr=False)
    nonce: str = field(default="", repr=False)
    plus: bool = False


def octets(text: str, what: str) -> bytes:
    """A name in UTF-8; `Secret.octets` is for secrets.

    Raises:
        InvalidArgument: it is empty, or would break a mechanism's frame; `what` names it in the error.
    """
    if fault := _fault(text, what):
        raise InvalidArgument(fault)
    return text.encode("utf-8")


def _fault(text: str, what: str) -> str:
    """RFC 4616 §2: NUL parts the fields of PLAIN; the OAuth mechanisms part theirs by U+0001."""
    if not text:
        return f"the {what} is empty: nothing was sent"
    if "\0" in text or "\x01" in text:
        return f"a NUL or U+0001 in the {what}: nothing was sent"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"a lone surrogate in the {what}, which no encoding can carry: nothing was sent"
    return ""
