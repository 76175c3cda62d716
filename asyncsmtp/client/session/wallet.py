"""What a login has in hand: its password, or a token that is fetched, kept, and fetched anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncsmtp.client.config.login_config import Login, Token
from asyncsmtp.errors import AuthenticationRefused, TokenFailed
from asyncsmtp.protocol.auth.auth import INVALID_CREDENTIALS
from asyncsmtp.protocol.auth.sasl import Bearer, Credentials, External, Password, Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Wallet"]

EARLY = 60.0  # seconds before its end at which a token is fetched anew
KEPT = 300.0  # seconds for which a token is used that does not say how long it is good
PAUSE = 60.0  # seconds for which a source that failed is not asked again


class Wallet:
    """The credentials of one login, shared by the sessions of a pool.

    The source of tokens is asked by one session at a time; the others wait, and share what it gives or its failure.

    Args:
        patience: seconds for the source.
    """

    def __init__(self, login: Login | None, patience: float) -> None:
        self._login = login
        self._patience = patience
        self._fetching = asyncio.Lock()
        self._secret: Secret | None = None
        self._good_until = 0.0
        self._given_up: Secret | None = None
        self._failure: BaseException | None = None
        self._failed_until = 0.0

    async def log_in(self, connect: Callable[[Credentials | None], Awaitable[None]], *, again: bool = True) -> None:
        """Connect with the credentials; once more, anew, with another token where the first was refused.

        Args:
            again: whether another connection can be made for that.

        Raises what `connect` does, and TokenFailed as below.
        """
        credentials = await self.credentials()
        try:
            await connect(credentials)
            return
        except AuthenticationRefused as refused:
            fresh = await self.instead_of(credentials) if again and refused.reply.code == INVALID_CREDENTIALS else None
            if fresh is None:
                raise
        await connect(fresh)  # many a relay hangs up behind a 535

    async def credentials(self) -> Credentials | None:
        """What to log in with now; None without a login. Cancelling it leaves the next to ask the source.

        Raises:
            TokenFailed: the source failed, less than a minute ago or now.
        """
        login = self._login
        if login is None or login.token is None:
            return _fixed(login)
        async with self._fetching:
            if self._secret is None or asyncio.get_running_loop().time() >= self._good_until:
                await self._fetch()
            assert self._secret is not None
            return Bearer(login.username, self._secret)

    async def instead_of(self, refused: Credentials | None) -> Credentials | None:
        """What is worth one more try after a refusal: another token than that; None where there is no other.

        Raises:
            TokenFailed: as above.
        """
        if self._login is None or not isinstance(refused, Bearer):
            return None
        async with self._fetching:
            if self._secret == refused.secret and self._given_up != refused.secret:
                self._given_up = refused.secret
                await self._fetch()
            if self._secret is None or self._secret == refused.secret:
                return None
            return Bearer(self._login.username, self._secret)

    async def _fetch(self) -> None:
        assert self._login is not None
        assert self._login.token is not None
        clock = asyncio.get_running_loop().time
        if self._failure is not None and clock() < self._failed_until:
            raise _failed(self._failure, self._patience) from self._failure
        try:
            async with asyncio.timeout(self._patience):
                token = await self._login.token()
        except Exception as error:
            self._failure, self._failed_until = error, clock() + PAUSE
            raise _failed(error, self._patience) from error
        self._failure = None
        if isinstance(token, Token):
            self._secret, self._good_until = token.secret, clock() + token.expires_in - EARLY
        else:
            self._secret, self._good_until = Secret(token), clock() + KEPT


def _fixed(login: Login | None) -> Credentials | None:
    if login is None:
        return None
    if login.password is None:
        return External(login.authzid)
    return Password(login.username, login.password, login.authzid)


def _failed(error: BaseException, patience: float) -> TokenFailed:
    if isinstance(error, TimeoutError):
        return TokenFailed(f"the source of access tokens did not answer within {patience:g} s: nobody logged in")
    what = f"{type(error).__name__}: {safe_text(str(error), 200)}".removesuffix(": ")
    return TokenFailed(f"the source of access tokens failed ({what}): nobody logged in")
