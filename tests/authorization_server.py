"""A small OAuth 2.0 authorization server on loopback (RFC 6749, 7636, 8628): it checks what a provider's would."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from asyncsmtp.client.config.provider_presets import OAuthServer

__all__ = ["AuthorizationServer", "authorizing", "browse"]


class AuthorizationServer:
    """What the server knows, and what a test wants it to do wrong.

    Attributes:
        errors: error codes that the next token requests get; "" for none, and "500" for a page that is no JSON.
        redirect_to: the answer of the page, if it is not that of a person who says yes: parameters that change it.
        redirect_port: of the answer, if it is another one than was asked for.
        users: the access token of each user that is valid now, as a relay takes them.
        requests: the forms that came to the token endpoint.
        revoked: refresh tokens that were withdrawn.
    """

    def __init__(self, user: str = "ann@gmail.com", client_id: str = "client-1", secret: str = "") -> None:
        self.user, self.client_id, self.secret = user, client_id, secret
        self.errors: list[str] = []
        self.redirect_to: dict[str, str] = {}
        self.redirect_port: int | None = None
        self.users = {user: "no token yet"}
        self.requests: list[dict[str, str]] = []
        self.authorized: list[dict[str, str]] = []
        self.revoked: list[str] = []
        self.rotates = False
        self.lifetime = 3600
        self.interval: int | None = 0
        self.scope: str | None = None
        self.port = 0
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh_token = "refresh-1"
        self._number = 0

    @property
    def settings(self) -> OAuthServer:
        """As the preset of a provider would have it."""
        base = f"http://127.0.0.1:{self.port}"
        pages = (f"{base}/{name}" for name in ("authorize", "device", "revoke"))
        return OAuthServer(f"{base}/token", "https://mail.test/send offline_access", *pages)

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser goes after a person has said yes."""
        self.authorized.append(query)
        assert query["client_id"] == self.client_id
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        where = urlsplit(query["redirect_uri"])
        assert where.scheme == "http"
        assert where.hostname in ("127.0.0.1", "localhost")
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        answer = {"code": code, "state": query["state"], **self.redirect_to}
        answer = {name: value for name, value in answer.items() if value}
        host = f"{where.hostname}:{self.redirect_port or where.port}"
        return f"http://{host}/?{urlencode(answer)}"

    def grant(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer a token request."""
        self.requests.append(form)
        if self.errors and (error := self.errors.pop(0)):
            return 400, {"error": error, "error_description": f"because of {error}"}
        if form.get("client_id") != self.client_id or form.get("client_secret", "") != self.secret:
            return 401, {"error": "invalid_client"}
        kind = form["grant_type"]
        if kind == "authorization_code":
            asked = self._codes.pop(form["code"], None)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
                return 400, {"error": "invalid_grant"}
        elif kind == "refresh_token":
            if form["refresh_token"] != self._refresh_token or self._refresh_token in self.revoked:
                return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
            if self.rotates:
                self._refresh_token = f"refresh-{len(self.requests) + 1}"
        elif form.get("device_code") != "device-1":
            return 400, {"error": "expired_token"}
        self._number += 1
        token = f"access-{self._number}"
        self.users[self.user] = token
        answer: dict[str, Any] = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        if kind != "refresh_token" or self.rotates:
            answer["refresh_token"] = self._refresh_token
        return 200, answer if self.scope is None else {**answer, "scope": self.scope}


def _handler(state: AuthorizationServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", state.authorize(dict(parse_qsl(urlsplit(self.path).query))))
            self.end_headers()

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            answer: dict[str, Any] = {}
            status = 200
            if self.path == "/device":
                assert form["client_id"] == state.client_id
                answer = {"device_code": "device-1", "user_code": "ABCD-EFGH", "expires_in": 900}
                answer |= {"verification_uri": f"http://127.0.0.1:{state.port}/activate", "interval": state.interval}
            elif self.path == "/revoke":
                state.revoked.append(form["token"])
            elif state.errors and state.errors[0] == "500":
                state.errors.pop(0)
                status = 500
            else:
                status, answer = state.grant(form)
            body = b"<html>" if status == 500 else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def authorizing(server: AuthorizationServer) -> Iterator[AuthorizationServer]:
    """Serve until the block ends."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    listener.daemon_threads = True
    server.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join(10)
        listener.server_close()


def browse(url: str) -> threading.Thread:
    """Open a page as a browser would, beside the test, and follow where it leads."""

    def get() -> None:
        with suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=10) as page:
            page.read()

    thread = threading.Thread(target=get)
    thread.start()
    return thread
