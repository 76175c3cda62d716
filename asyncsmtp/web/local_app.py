"""A web application for the browser of one person on this machine: who may ask, and what an answer may load.

It listens on loopback only. Every request must name the host that it was started with (another name that resolves to
127.0.0.1 is refused) and have the token, in the first address that is opened, then in a cookie, or as a bearer token.
What changes something must come from one of its own pages or from a program with the token.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncsmtp.errors import MissingDependency

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LocalGuard", "require_web", "serve_locally"]

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-dns-prefetch-control": "off",  # hosts of links are not looked up before somebody follows one
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")


def require_web(*further: str) -> None:
    """Raise MissingDependency unless the packages of the extra `web` are installed, with `further` ones that it has."""
    try:
        for package in ("starlette", "uvicorn", *further):
            import_module(package)
    except ImportError as error:
        raise MissingDependency("pages in the browser", "asyncsmtp[web]") from error


class LocalGuard:
    """ASGI application that lets requests of one browser, or of a program with the token, through to another.

    Args:
        app: the application.
        port: where it listens.
        token: None: a random one.
    Attributes:
        url: the address to open, with the token.
    """

    def __init__(self, app: ASGIApp, port: int, token: str | None = None) -> None:
        self._app = app
        self.token = token or secrets.token_urlsafe(24)
        self.url = f"http://{HOST}:{port}/?token={self.token}"
        self._cookie = f"asyncsmtp-{port}"  # cookies do not distinguish ports
        self._hosts = {f"{HOST}:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        from starlette.requests import Request

        app = self._app
        if scope["type"] == "http":
            app, send = self._check(Request(scope)) or app, _with_headers(send)
        await app(scope, receive, send)

    def _check(self, request: Request) -> ASGIApp | None:
        """Return the answer to a request that is not passed on."""
        from starlette.responses import PlainTextResponse, RedirectResponse

        if request.headers.get("host", "") not in self._hosts:
            return PlainTextResponse("this is not the host that was asked for\n", 421)
        given = request.query_params.get("token", "")
        if given and request.method in _SAFE and self._is_token(given):
            answer = RedirectResponse(str(request.url.remove_query_params("token").replace(scheme="", netloc="")), 303)
            answer.set_cookie(self._cookie, self.token, httponly=True, samesite="strict")
            return answer
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer):
            return None
        if not self._is_token(request.cookies.get(self._cookie, "")):
            return PlainTextResponse("open the address that the command printed: it has a token\n", 401)
        if request.method not in _SAFE and request.headers.get("origin") not in {f"http://{h}" for h in self._hosts}:
            return PlainTextResponse("this request comes from another page\n", 403)
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            added = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_with_headers


@asynccontextmanager
async def serve_locally(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serve an application behind a `LocalGuard` until the block ends; yield the address to open.

    Args:
        port: 0 takes any free one.
    Raises:
        OSError: the port cannot be used. MissingDependency: the extra `web` is not installed.
    """
    require_web()
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are those of the command

    with socket.create_server((HOST, port)) as listening:
        guard = LocalGuard(app, listening.getsockname()[1])
        settings: Mapping[str, Any] = {
            "log_config": None,
            "access_log": False,
            "lifespan": "off",
            "server_header": False,
        }
        server = Server(uvicorn.Config(guard, timeout_graceful_shutdown=1, **settings))
        task = asyncio.create_task(server.serve([listening]), name="asyncsmtp: web")
        try:
            yield guard.url
        finally:
            server.should_exit = True
            await task
