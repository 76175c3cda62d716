"""OAuth 2.0 for a relay: the login of a person in a browser, and access tokens from the refresh token that it gives.

Authorization code with PKCE and a loopback redirect (RFC 6749 §4.1, RFC 7636, RFC 8252), device authorization (RFC
8628), refresh (RFC 6749 §6). What remains of OAuth here is a URL, four forms and their JSON answers: packages for it
either refuse the loopback redirect unless a variable turns off their check for https everywhere (oauthlib), or are made
for servers or for one provider.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from asyncsmtp.client.config.login_config import Token
from asyncsmtp.client.config.provider_presets import OAuthServer
from asyncsmtp.errors import InvalidArgument, MissingDependency, TokenFailed
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DeviceCode", "OAuthLogin", "authorize_by_browser", "authorize_by_device", "check_oauth_url"]

LOGIN_TIMEOUT = 300.0  # seconds for a person in a browser
HTTP_TIMEOUT = 20.0  # seconds for one request to the authorization server
REQUEST_TIMEOUT = 10.0  # seconds for the head of a request to the loopback address …
MAX_REQUEST = 16 * 1024  # … and its bytes
RETRY_DELAYS = (1.0, 3.0)  # seconds before a refresh that got no answer is tried again
DEFAULT_LIFETIME = 3600.0  # seconds of an access token that does not say how long it is valid
DEFAULT_INTERVAL = 5.0  # seconds between two questions for a device code (RFC 8628 §3.2) …
SLOW_DOWN = 5.0  # … and seconds more after each slow_down (§3.5)
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LOG_IN_AGAIN = "log in again"

Sleep = Callable[[float], Awaitable[object]]


def check_oauth_url(text: str) -> str:
    """Return the URL of an authorization server: https, or http on a loopback address.

    Raises:
        InvalidArgument: it is another one.
    """
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        parts.port  # noqa: B018  raises for one that is no number
    except ValueError:
        host = ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise InvalidArgument(f"“{safe_text(text, 120)}” is not a URL with https://, which tokens need")
    return text


class _ErrorResponse(Exception):
    """An error that the authorization server answered (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str) -> None:
        shown = safe_text(" ".join(description.split()), 200)
        super().__init__(f"{safe_text(error, 60)}: {shown}" if shown else safe_text(error, 60))
        self.error = error


class _NoAnswer(Exception):
    """No answer of the authorization server, or one that is not its own."""


@dataclass(frozen=True, slots=True)
class OAuthLogin:
    """A login that a person has granted: what it takes to get access tokens, until it is withdrawn.

    Attributes:
        server: the authorization server.
        client_id, client_secret: of the program, as the provider has registered it; a public client has no secret.
        refresh_token: as secret as a password.
    """

    server: OAuthServer
    client_id: str
    client_secret: Secret | None
    refresh_token: Secret

    def to_json(self) -> str:
        """Return it as text for a safe place."""
        return json.dumps(
            {
                "token_url": self.server.token_url,
                "revocation_url": self.server.revocation_url,
                "scope": self.server.scope,
                "client_id": self.client_id,
                "client_secret": self.client_secret.reveal() if self.client_secret else "",
                "refresh_token": self.refresh_token.reveal(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what `to_json` returned; None if it is something else."""
        try:
            found = json.loads(text)
            server = OAuthServer(
                token_url=check_oauth_url(found["token_url"]),
                revocation_url=found["revocation_url"],
                scope=found["scope"],
            )
            secret = Secret(found["client_secret"]) if found["client_secret"] else None
            return cls(server, str(found["client_id"]), secret, Secret(found["refresh_token"]))
        except (ValueError, KeyError, TypeError):
            return None

    async def fetch_token(self, sleep: Sleep = asyncio.sleep) -> tuple[Token, OAuthLogin]:
        """Fetch an access token; return it with the login to use from now on, whose refresh token may be a new one.

        A server that does not answer is asked three times.

        Raises:
            TokenFailed: the login has ended, or there was no answer. MissingDependency: httpx is not installed.
        """
        form = {"grant_type": "refresh_token", "refresh_token": self.refresh_token.reveal()}
        for delay in (*RETRY_DELAYS, None):
            try:
                async with _open_client() as client:
                    answer = await _post(client, self.server.token_url, _with_client(form, self))
                break
            except _ErrorResponse as error:
                if error.error == "invalid_grant":
                    why = f"the login has ended: {_host(self.server.token_url)} does not accept its refresh token"
                    raise TokenFailed(f"{why} ({error})", _LOG_IN_AGAIN) from None
                raise TokenFailed(f"{_host(self.server.token_url)} gives no access token: {error}") from None
            except _NoAnswer as error:
                if delay is None:
                    raise TokenFailed(str(error), "run the same command again") from None
                await sleep(delay)
        renewed = answer.get("refresh_token")
        return _read_token(answer), (
            replace(self, refresh_token=Secret(renewed)) if isinstance(renewed, str) and renewed else self
        )

    async def revoke(self) -> bool:
        """Withdraw the login at the authorization server (RFC 7009); return whether it did."""
        if not self.server.revocation_url:
            return False
        with suppress(_ErrorResponse, _NoAnswer):
            form = {"token": self.refresh_token.reveal(), "token_type_hint": "refresh_token"}
            async with _open_client() as client:
                await _post(client, self.server.revocation_url, _with_client(form, self))
            return True
        return False


# In a browser on this machine: the server sends it back to a port that is open as long as the login takes.


async def authorize_by_browser(
    server: OAuthServer,
    client_id: str,
    client_secret: Secret | None,
    show: Callable[[str], object],
    *,
    user: str = "",
    port: int = 0,
) -> OAuthLogin:
    """Log a person in with a browser.

    Args:
        show: called with the URL that the browser has to open.
        user: the address that the person logs in with, as a hint.
        port: to listen on for the redirect; 0 for a free one.
    Raises:
        TokenFailed: the person denied it or did nothing, or the server refused. OSError: the port cannot be used.
    """
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    async with _listen(state, port) as (answer, bound):
        redirect = f"http://{server.redirect_host}:{bound}"
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect,
            "scope": server.scope,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **dict(server.parameters),
        }
        if user:
            query["login_hint"] = user
        separator = "&" if "?" in server.authorization_url else "?"
        show(f"{server.authorization_url}{separator}{urlencode(query)}")
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                found = await answer
        except TimeoutError:
            waited = f"no browser came back to {redirect} within {LOGIN_TIMEOUT:g} s"
            raise TokenFailed(waited, "run the same command again, and open the URL on this machine") from None
    if "error" in found:
        raise _denied(_ErrorResponse(found["error"], found.get("error_description", "")))
    form = {
        "grant_type": "authorization_code",
        "code": found["code"],
        "redirect_uri": redirect,
        "code_verifier": verifier,
    }
    return await _exchange(server, client_id, client_secret, form)


@asynccontextmanager
async def _listen(state: str, port: int) -> AsyncGenerator[tuple[asyncio.Future[dict[str, str]], int]]:
    """Wait on the loopback address for the answer that has this state; others are refused, and change nothing.

    Whatever else runs on this machine, or a page in a browser, can connect as well.
    """
    received: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            status, text = "404 Not Found", "There is nothing here."
            query = _read_request(head)
            if query is not None and not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
                status, text = "400 Bad Request", "This does not answer the login that waits here."
            elif query is not None:
                status, text = "200 OK", "The login is complete. You can close this page and go back to the command."
                if "error" in query:
                    text = "The login was not granted. You can close this page."
                if not received.done():
                    received.set_result(query)
            body = f"<!doctype html><title>asyncsmtp</title><p>{text}</p>\n".encode()
            fields = f"Content-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass  # not a browser, or one that has gone
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", port, limit=MAX_REQUEST)
    try:
        yield received, listener.sockets[0].getsockname()[1]
        await asyncio.sleep(0)
    finally:
        listener.close()
        received.cancel()


def _read_request(head: bytes) -> dict[str, str] | None:
    """Return the parameters of an authorization response; None for any other request."""
    method, _, rest = head.split(b"\r\n", 1)[0].decode("ascii", "replace").partition(" ")
    parts = urlsplit(rest.partition(" ")[0])
    query = dict(parse_qsl(parts.query))
    is_response = method == "GET" and parts.path in ("", "/") and ("code" in query or "error" in query)
    return query if is_response else None


# On another device: the person types a code there, and the server is asked now and then whether that has happened.


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """The code that a person types on a page, until it expires."""

    url: str
    code: str
    expires_in: float


async def authorize_by_device(
    server: OAuthServer,
    client_id: str,
    client_secret: Secret | None,
    show: Callable[[DeviceCode], object],
    *,
    sleep: Sleep = asyncio.sleep,
) -> OAuthLogin:
    """Log a person in with a code that is typed on a page, on this machine or another one.

    Args:
        show: called with the code and the page.
    Raises:
        TokenFailed: as `authorize_by_browser`.
    """
    async with _open_client() as client:
        try:
            begun = await _post(client, server.device_url, {"client_id": client_id, "scope": server.scope})
        except (_ErrorResponse, _NoAnswer) as error:
            raise _denied(error) from None
        url = begun.get("verification_uri", begun.get("verification_url"))
        device, code = begun.get("device_code"), begun.get("user_code")
        if not (isinstance(url, str) and isinstance(device, str) and isinstance(code, str)):
            raise TokenFailed(f"the answer of {_host(server.device_url)} has no code for a device")
        interval = _read_seconds(begun, "interval", DEFAULT_INTERVAL)
        lifetime = _read_seconds(begun, "expires_in", LOGIN_TIMEOUT)
        show(DeviceCode(url, code, lifetime))
        form = {"grant_type": DEVICE_GRANT, "device_code": device, "client_id": client_id}
        if client_secret is not None:
            form["client_secret"] = client_secret.reveal()
        waited = 0.0
        while waited <= lifetime:
            await sleep(interval)
            waited += max(interval, 0.1)
            try:
                answer = await _post(client, server.token_url, form)
            except _ErrorResponse as error:
                if error.error == "slow_down":
                    interval += SLOW_DOWN
                elif error.error == "expired_token":
                    break
                elif error.error != "authorization_pending":
                    raise _denied(error) from None
            except _NoAnswer:
                interval = min(interval * 2 + 1, 60.0)  # RFC 8628 §3.5: back off after a connection that timed out
            else:
                return _make_login(server, client_id, client_secret, answer)
    raise TokenFailed("the code expired before it was typed on the page", "run the same command again")


# Requests to the authorization server.


async def _exchange(
    server: OAuthServer, client_id: str, client_secret: Secret | None, form: Mapping[str, str]
) -> OAuthLogin:
    """Exchange a grant for tokens."""
    form = {**form, "client_id": client_id}
    if client_secret is not None:
        form["client_secret"] = client_secret.reveal()
    async with _open_client() as client:
        try:
            answer = await _post(client, server.token_url, form)
        except (_ErrorResponse, _NoAnswer) as error:
            raise _denied(error) from None
    return _make_login(server, client_id, client_secret, answer)


def _make_login(
    server: OAuthServer, client_id: str, client_secret: Secret | None, answer: Mapping[str, Any]
) -> OAuthLogin:
    _read_token(answer)
    missing = _scopes(server.scope) - _scopes(str(answer.get("scope") or server.scope))
    if missing:
        why = f"the login does not allow to send mail: {safe_text(', '.join(sorted(missing)), 120)} was not granted"
        raise TokenFailed(why, "run the same command again, and allow all that the page asks for")
    refresh_token = answer.get("refresh_token")
    if not isinstance(refresh_token, str) or not refresh_token:
        why = f"{_host(server.token_url)} gave no refresh token, so the login would end within the hour"
        raise TokenFailed(why, "allow offline access for the client id, then run the same command again")
    return OAuthLogin(server, client_id, client_secret, Secret(refresh_token))


def _scopes(text: str) -> set[str]:
    """Return what a scope grants, by the last part of each URL: servers write the same one with several hosts."""
    return {each.lower().rstrip("/").rpartition("/")[2] for each in text.split()} - {"offline_access"}


def _read_token(answer: Mapping[str, Any]) -> Token:
    token = answer.get("access_token")
    if not isinstance(token, str) or not token or str(answer.get("token_type", "bearer")).lower() != "bearer":
        raise TokenFailed("the answer of the authorization server has no access token")
    return Token(Secret(token), _read_seconds(answer, "expires_in", DEFAULT_LIFETIME))


def _read_seconds(answer: Mapping[str, Any], name: str, default: float) -> float:
    try:
        seconds = float(answer.get(name, default))
    except (TypeError, ValueError):
        return default
    return seconds if 0 <= seconds < 1e9 else default


def _denied(error: _ErrorResponse | _NoAnswer) -> TokenFailed:
    """Return the error of a login that was refused, with what to do where that is known."""
    advice = "run the same command again"
    if isinstance(error, _ErrorResponse):
        if error.error == "access_denied":
            return TokenFailed("the login was denied on the page of the provider", advice)
        if error.error in ("invalid_client", "unauthorized_client"):
            advice = "correct the client id and its secret, then run the same command again"
        return TokenFailed(f"the authorization server refused the login ({error})", advice)
    return TokenFailed(str(error), advice)


def _with_client(form: Mapping[str, str], login: OAuthLogin) -> dict[str, str]:
    secret = {"client_secret": login.client_secret.reveal()} if login.client_secret is not None else {}
    return {**form, "client_id": login.client_id, **secret}


@asynccontextmanager
async def _open_client() -> AsyncGenerator[Any]:
    try:
        httpx = import_module("httpx")  # an extra
    except ImportError:
        raise MissingDependency("a login by OAuth 2.0", "asyncsmtp[oauth]") from None
    async with httpx.AsyncClient(timeout=HTTP_TIMEOUT, follow_redirects=False) as client:
        yield client


async def _post(client: Any, url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
    """Post a form; return the JSON of the answer.

    Raises:
        _ErrorResponse: the server refused. _NoAnswer: it could not be asked, or answered something else.
    """
    httpx, host = import_module("httpx"), _host(url)
    try:
        response = await client.post(check_oauth_url(url), data=dict(form), headers={"Accept": "application/json"})
        answer = response.json() if response.content.strip() else {}
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = safe_text(str(error), 120) or type(error).__name__
        raise _NoAnswer(f"the authorization server {host} cannot be asked: {why}") from None
    except ValueError:  # no JSON
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        raise _ErrorResponse(answer["error"], str(answer.get("error_description") or ""))
    if response.status_code != 200 or not isinstance(answer, dict):
        raise _NoAnswer(f"the authorization server {host} answered {response.status_code}, and no JSON of its own")
    return answer


def _host(url: str) -> str:
    return safe_text(urlsplit(url).netloc, 80)
