"""Credentials for a relay: passwords, client certificates, and access tokens, which are cached and refreshed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path

from asyncsmtp.errors import AuthenticationRefused, InvalidArgument, TokenFailed, check_number, check_type
from asyncsmtp.protocol.auth.auth import INVALID_CREDENTIALS, NAMES, mask_credentials
from asyncsmtp.protocol.auth.credentials import Bearer, Credentials, External, Password, Secret
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import safe_text

__all__ = ["ClientCertificate", "CredentialsProvider", "Login", "Token", "TokenSource", "normalize_fingerprint"]

REFRESH_MARGIN = 60.0  # seconds before its end at which a token is fetched again
DEFAULT_LIFETIME = 300.0  # seconds for which a token is used that does not say how long it is valid
FAILURE_PAUSE = 60.0  # seconds for which a source that failed is not asked again


@dataclass(frozen=True, slots=True, init=False)
class ClientCertificate:
    """A TLS client certificate, sent to a relay that asks for one (RFC 8446 §4.3.2).

    Args:
        file: a PEM file: the certificate first, then its intermediate certificates.
        key: the PEM file of the private key; None if the key is in `file`.
        passphrase: of the key, if the key is encrypted.
    """

    file: Path
    key: Path | None
    passphrase: Secret | None

    def __init__(self, file: str | Path, key: str | Path | None = None, passphrase: str | Secret | None = None) -> None:
        check_type("file", file, str, Path)
        check_type("key", key, str, Path, None)
        object.__setattr__(self, "file", Path(file))
        object.__setattr__(self, "key", None if key is None else Path(key))
        object.__setattr__(self, "passphrase", _to_secret("passphrase", passphrase))


_SHA_256 = re.compile(r"[0-9a-f]{64}")


def normalize_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as 64 lower-case hex digits; colons and capitals, as OpenSSL prints them, are fine.

    Raises:
        InvalidArgument: `text` is not a fingerprint.
    """
    digits = text.strip().replace(":", "").lower()
    if not _SHA_256.fullmatch(digits):
        raise InvalidArgument(
            f"“{safe_text(text, 80)}” is not a SHA-256 fingerprint of a certificate: give 64 hex digits, "
            "as `asyncsmtp check` and `openssl x509 -noout -fingerprint -sha256` print them"
        )
    return digits


@dataclass(frozen=True, slots=True)
class Token:
    """An OAuth 2.0 access token that expires in `expires_in` seconds from now."""

    secret: Secret
    expires_in: float

    def __post_init__(self) -> None:
        if isinstance(self.secret, str):
            object.__setattr__(self, "secret", Secret(self.secret))
        check_type("secret", self.secret, Secret)
        if self.expires_in != inf:  # a token may be valid until it is refused
            check_number("expires_in", self.expires_in, int, float, zero=True)


TokenSource = Callable[[], Awaitable[str | Token]]
"""An async function that returns an access token; an exception from it ends the login.

It is called when there is no token yet, one minute before the token expires (five minutes after it was fetched if it is
a plain string), and once more after a relay refuses it; never twice at a time by the sessions of one pool.
"""


@dataclass(frozen=True, slots=True)
class _FixedToken:
    """A token source for a token given as a string, which is valid until a relay refuses it."""

    secret: Secret

    async def __call__(self) -> Token:
        return Token(self.secret, inf)


_EXTERNAL = ("EXTERNAL",)


@dataclass(frozen=True, slots=True, init=False)
class Login:
    """Credentials of a user: a password or access tokens, or the identity in the TLS client certificate.

        Login("ada", "secret")
        Login("ada@example.org", token=fetch_token)

    Args:
        password: a string or a `Secret`; stored as a `Secret`, which no repr or log shows.
        token: an access token as a string or `Secret`, or an async function that returns one (see `TokenSource`).
        authzid: the identity to act as, if it is not the user's own.
        mechanisms: the only SASL mechanisms that may be used, in order of preference. If empty, the safest that the
            relay offers is used, and CRAM-MD5 never: it must be named here.
    Raises:
        InvalidArgument: no user name, both or neither of password and token, or an unknown mechanism.
    """

    username: str
    password: Secret | None
    token: TokenSource | None
    authzid: str
    mechanisms: tuple[str, ...]

    def __init__(
        self,
        username: str = "",
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
        authzid: str = "",
        mechanisms: tuple[str, ...] = (),
    ) -> None:
        check_type("username", username, str)
        object.__setattr__(self, "username", username)
        object.__setattr__(self, "password", _to_secret("password", password))
        object.__setattr__(self, "token", _to_token_source(token))
        object.__setattr__(self, "authzid", authzid)
        object.__setattr__(self, "mechanisms", tuple(mechanisms))
        self._check()

    def _check(self) -> None:
        if unknown := sorted(set(self.mechanisms) - set(NAMES)):
            name = safe_text(unknown[0], 80)
            raise InvalidArgument(f"“{name}” is not a supported SASL mechanism: use {', '.join(NAMES)}")
        if self.mechanisms == _EXTERNAL:
            if self.username or self.password is not None or self.token is not None:
                raise InvalidArgument(
                    "a login by EXTERNAL takes no user name, password or token: the client certificate names the user"
                )
            return
        if not self.username:
            raise InvalidArgument("a login needs a user name: give username=")
        if (self.password is None) == (self.token is None):
            raise InvalidArgument("a login needs either a password or a token: give password= or token=")

    def __repr__(self) -> str:
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.token is not None:
            shown["token"] = Secret("")  # a token source may show its token
        return f"Login({', '.join(f'{name}={value!r}' for name, value in shown.items() if value)})"

    @classmethod
    def by_certificate(cls, authzid: str = "") -> Login:
        """Return a login as the user that the relay's `client_certificate` names (SASL EXTERNAL)."""
        return cls(authzid=authzid, mechanisms=_EXTERNAL)


def _to_secret(parameter: str, value: str | Secret | None) -> Secret | None:
    check_type(parameter, value, str, Secret, None)
    return Secret(value) if isinstance(value, str) else value


def _to_token_source(token: str | Secret | TokenSource | None) -> TokenSource | None:
    if isinstance(token, str | Secret):
        return _FixedToken(token if isinstance(token, Secret) else Secret(token))
    if token is not None and not callable(token):
        raise TypeError(f"token must be str, Secret or an async function, not {type(token).__name__}")
    return token


class CredentialsProvider:
    """Credentials for one login, cached and refreshed; shared by the sessions of a pool.

    The source of tokens is asked by one session at a time; the others wait, and share its token or its failure.

    Args:
        timeout: seconds for the source. clock: seconds; that of the event loop if omitted.
    Attributes:
        mask: all secrets that were used so far. A relay may echo what another session sent, and a token that expired.
    """

    def __init__(self, login: Login | None, timeout: float, clock: Callable[[], float] | None = None) -> None:
        self.mask = SecretMask()
        self._login = login
        self._timeout = timeout
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._secret: Secret | None = None
        self._valid_until = 0.0
        self._refused: Secret | None = None
        self._failure: BaseException | None = None
        self._failed_until = 0.0

    async def log_in(self, connect: Callable[[Credentials | None], Awaitable[None]], *, again: bool = True) -> None:
        """Connect with the credentials; once more, on a new connection, with another token if the first was refused.

        Args:
            again: whether another connection can be made for that.

        Raises what `connect` does, and TokenFailed as below.
        """
        credentials = await self.credentials()
        try:
            await connect(credentials)
            return
        except AuthenticationRefused as refused:
            fresh = await self.replace(credentials) if again and refused.reply.code == INVALID_CREDENTIALS else None
            if fresh is None:
                raise
        await connect(fresh)  # many relays close the connection after a 535

    async def credentials(self) -> Credentials | None:
        """Return the credentials to use now; None without a login. Cancelled, it leaves the source to the next call.

        Raises:
            TokenFailed: the source failed, less than a minute ago or now.
        """
        login = self._login
        if login is None or login.token is None:
            return self._masked(_password_or_certificate(login))
        async with self._fetching:
            if self._secret is None or self._now() >= self._valid_until:
                await self._fetch()
            assert self._secret is not None
            return self._masked(Bearer(login.username, self._secret))

    async def replace(self, refused: Credentials | None) -> Credentials | None:
        """Return credentials for one more attempt after a refusal: another token; None where there is no other.

        Raises:
            TokenFailed: as above.
        """
        if self._login is None or not isinstance(refused, Bearer):
            return None
        async with self._fetching:
            if self._secret == refused.secret and self._refused != refused.secret:
                self._refused = refused.secret
                await self._fetch()
            if self._secret is None or self._secret == refused.secret:
                return None
            return self._masked(Bearer(self._login.username, self._secret))

    def _masked(self, credentials: Credentials | None) -> Credentials | None:
        with suppress(InvalidArgument):  # a mechanism cannot send it: raised at the login
            mask_credentials(self.mask, credentials)
        return credentials

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()

    async def _fetch(self) -> None:
        assert self._login is not None
        assert self._login.token is not None
        now = self._now()
        if self._failure is not None and now < self._failed_until:
            raise self._failed(self._failure) from self._failure
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._login.token()
                check_type("token", token, str, Token)
        except Exception as error:
            self._failure, self._failed_until = error, self._now() + FAILURE_PAUSE
            raise self._failed(error) from error
        self._failure = None
        if isinstance(token, Token):
            self._secret, self._valid_until = token.secret, self._now() + token.expires_in - REFRESH_MARGIN
        else:
            self._secret, self._valid_until = Secret(token), self._now() + DEFAULT_LIFETIME

    def _failed(self, error: BaseException) -> TokenFailed:
        if isinstance(error, TokenFailed):
            return TokenFailed(self.mask.mask_text(error.why), error.advice)
        if isinstance(error, TimeoutError):
            within = f"within {self._timeout:g} s"
            return TokenFailed(f"the source of access tokens did not answer {within}: no login was attempted")
        what = f"{type(error).__name__}: {safe_text(self.mask.mask_text(str(error)), 200)}".removesuffix(": ")
        return TokenFailed(f"the source of access tokens failed ({what}): no login was attempted")


def _password_or_certificate(login: Login | None) -> Credentials | None:
    if login is None:
        return None
    if login.password is None:
        return External(login.authzid)
    return Password(login.username, login.password, login.authzid)
