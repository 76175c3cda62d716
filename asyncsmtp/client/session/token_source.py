"""Credentials for a login: its password, or a token that is fetched, cached and refreshed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncsmtp.client.config.login_config import Login, Token
from asyncsmtp.errors import AuthenticationRefused, TokenFailed
from asyncsmtp.protocol.auth.auth import INVALID_CREDENTIALS, Bearer, Credentials, External, Password, Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["CredentialsProvider"]

REFRESH_MARGIN = 60.0  # seconds before its end at which a token is fetched again
DEFAULT_LIFETIME = 300.0  # seconds for which a token is used that does not say how long it is valid
FAILURE_PAUSE = 60.0  # seconds for which a source that failed is not asked again


class CredentialsProvider:
    """Credentials for one login, cached and refreshed; shared by the sessions of a pool.

    The source of tokens is asked by one session at a time; the others wait, and share its token or its failure.

    Args:
        timeout: seconds for the source. clock: seconds; that of the event loop if omitted.
    """

    def __init__(self, login: Login | None, timeout: float, clock: Callable[[], float] | None = None) -> None:
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
            return _password_or_certificate(login)
        async with self._fetching:
            if self._secret is None or self._now() >= self._valid_until:
                await self._fetch()
            assert self._secret is not None
            return Bearer(login.username, self._secret)

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
            return Bearer(self._login.username, self._secret)

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()

    async def _fetch(self) -> None:
        assert self._login is not None
        assert self._login.token is not None
        now = self._now()
        if self._failure is not None and now < self._failed_until:
            raise _failed(self._failure, self._timeout) from self._failure
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._login.token()
        except Exception as error:
            self._failure, self._failed_until = error, self._now() + FAILURE_PAUSE
            raise _failed(error, self._timeout) from error
        self._failure = None
        if isinstance(token, Token):
            self._secret, self._valid_until = token.secret, self._now() + token.expires_in - REFRESH_MARGIN
        else:
            self._secret, self._valid_until = Secret(token), self._now() + DEFAULT_LIFETIME


def _password_or_certificate(login: Login | None) -> Credentials | None:
    if login is None:
        return None
    if login.password is None:
        return External(login.authzid)
    return Password(login.username, login.password, login.authzid)


def _failed(error: BaseException, seconds: float) -> TokenFailed:
    if isinstance(error, TimeoutError):
        return TokenFailed(f"the source of access tokens did not answer within {seconds:g} s: nobody logged in")
    what = f"{type(error).__name__}: {safe_text(str(error), 200)}".removesuffix(": ")
    return TokenFailed(f"the source of access tokens failed ({what}): nobody logged in")
