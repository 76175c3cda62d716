"""OAuth 2.0: a browser with PKCE and a loopback redirect, a device code, access tokens; with a server on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from threading import Thread
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from asyncsmtp.client.config import oauth
from asyncsmtp.client.config.oauth import (
    DeviceCode,
    OAuthLogin,
    authorize_by_browser,
    authorize_by_device,
    check_oauth_url,
)
from asyncsmtp.client.config.provider_presets import PROVIDERS, OAuthServer
from asyncsmtp.errors import InvalidArgument, TokenFailed
from asyncsmtp.protocol.auth.credentials import Secret
from tests.authorization_server import AuthorizationServer, authorizing, browse

CLIENT = "client-1"


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    """An authorization server whose person says yes."""
    with authorizing(AuthorizationServer()) as it:
        yield it


async def log_in(server: AuthorizationServer, **options: object) -> OAuthLogin:
    """Log in with a browser that does what the page says."""
    pages: list[Thread] = []
    try:
        return await authorize_by_browser(
            server.settings, CLIENT, None, lambda url: pages.append(browse(url)), **options  # type: ignore[arg-type]
        )  # fmt: skip
    finally:
        for page in pages:
            await asyncio.to_thread(page.join)


async def test_a_browser_logs_in(server: AuthorizationServer) -> None:
    """RFC 8252, RFC 7636: the code goes with the verifier of the challenge, to the address that was asked for."""
    login = await log_in(server, user="ann@gmail.com")
    [asked], [form] = server.authorized, server.requests
    assert asked["login_hint"] == "ann@gmail.com"
    assert form["redirect_uri"] == asked["redirect_uri"]
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked["code_challenge"]
    assert 43 <= len(form["code_verifier"]) <= 128  # RFC 7636 §4.1
    assert login.refresh_token == Secret("refresh-1")
    assert "refresh-1" not in repr(login)


async def test_each_login_has_a_state_and_a_verifier_of_its_own(server: AuthorizationServer) -> None:
    """RFC 6749 §10.12."""
    await log_in(server)
    await log_in(server)
    assert len({each["state"] for each in server.authorized}) == 2
    assert len({each["code_challenge"] for each in server.authorized}) == 2


async def test_an_answer_with_a_wrong_state_changes_nothing(server: AuthorizationServer) -> None:
    """Whoever knows the port cannot slip in a code, nor end the login; neither can a page that is no answer."""
    statuses = []

    def attack_then_browse(url: str) -> None:
        asked = dict(parse_qsl(urlsplit(url).query))
        for query in ({"code": "x", "state": "wrong"}, {"code": "x"}, {"error": "access_denied", "state": "é"}, {}):
            try:
                urllib.request.urlopen(f"{asked['redirect_uri']}/?{urlencode(query)}", timeout=10).close()
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
                error.close()
        browse(url).join()

    pages: list[Thread] = []

    def show(url: str) -> None:
        pages.append(Thread(target=attack_then_browse, args=(url,)))
        pages[0].start()

    login = await authorize_by_browser(server.settings, CLIENT, None, show)
    await asyncio.to_thread(pages[0].join)
    assert statuses == [400, 400, 400, 404]
    assert login.client_id == CLIENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("wrong", ["state", "port"])
async def test_a_browser_that_comes_back_elsewhere_is_waited_for_in_vain(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """One sentence, and no code was exchanged."""
    monkeypatch.setattr(oauth, "LOGIN_TIMEOUT", 0.5)
    if wrong == "state":
        server.redirect_to = {"state": "another"}
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server.redirect_port = free.getsockname()[1]
    with pytest.raises(TokenFailed, match=r"no browser came back to http://127\.0\.0\.1:\d+ within 0\.5 s"):
        await log_in(server)
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"error": "access_denied", "code": ""}, "the login was denied on the page of the provider"),
        ({"error": "server_error", "error_description": "try\x1b[2J later", "code": ""}, r"server_error: try.*later"),
        ({"code": "another"}, "refused the login .invalid_grant."),
    ],
)
async def test_a_person_or_the_server_says_no(
    server: AuthorizationServer, answer: dict[str, str], sentence: str
) -> None:
    """What the server says is shown without what a terminal would obey."""
    server.redirect_to = answer
    with pytest.raises(TokenFailed, match=sentence) as caught:
        await log_in(server)
    assert "\x1b" not in str(caught.value)


async def test_a_client_without_its_secret_is_refused(server: AuthorizationServer) -> None:
    """With what to correct."""
    server.secret = "s3cret"
    with pytest.raises(TokenFailed, match="invalid_client") as caught:
        await log_in(server)
    assert "client id and its secret" in caught.value.advice


@pytest.mark.parametrize(
    ("scope", "fits"),
    [("https://mail.test/send", True), ("https://other.test/Send offline_access", True), ("openid profile", False)],
)
async def test_a_login_that_may_not_send_is_said_at_once(server: AuthorizationServer, scope: str, fits: bool) -> None:
    """The page lets a person untick the one thing that is needed; servers write a scope with several hosts."""
    server.scope = scope
    if fits:
        assert await log_in(server)
        return
    with pytest.raises(TokenFailed, match="does not allow to send mail: send was not granted"):
        await log_in(server)


# Devices (RFC 8628).


async def log_in_device(server: AuthorizationServer) -> tuple[OAuthLogin, list[float], list[DeviceCode]]:
    waited: list[float] = []
    shown: list[DeviceCode] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    return await authorize_by_device(server.settings, CLIENT, None, shown.append, sleep=sleep), waited, shown


async def test_a_device_waits_longer_when_it_is_told_so(server: AuthorizationServer) -> None:
    """§3.5: five seconds more after each slow_down, also for the questions after that."""
    server.interval = 2
    server.errors = ["authorization_pending", "slow_down", "authorization_pending", "slow_down", ""]
    login, waited, shown = await log_in_device(server)
    assert waited == [2, 2, 7, 7, 12]
    assert shown == [DeviceCode(f"http://127.0.0.1:{server.port}/activate", "ABCD-EFGH", 900)]
    assert login.refresh_token == Secret("refresh-1")


async def test_a_device_asks_every_five_seconds_if_nothing_is_said(server: AuthorizationServer) -> None:
    """§3.2; and a connection that breaks makes it slower."""
    server.interval = None
    server.errors = ["authorization_pending", "500", ""]
    assert (await log_in_device(server))[1] == [5, 5, 11]


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        (["authorization_pending", "expired_token"], "the code expired before it was typed"),
        (["authorization_pending", "access_denied"], "the login was denied"),
        (["authorization_pending"] * 400, "the code expired before it was typed"),
        (["invalid_client"], "refused the login .invalid_client"),
    ],
    ids=["expired", "denied", "never", "client"],
)
async def test_a_device_that_is_not_logged_in(server: AuthorizationServer, errors: list[str], sentence: str) -> None:
    """Also where the server goes on saying that it waits: the code has an end."""
    server.errors, server.interval = [*errors], 5
    with pytest.raises(TokenFailed, match=sentence):
        await log_in_device(server)


# Access tokens.


def kept(server: AuthorizationServer, refresh_token: str = "refresh-1") -> OAuthLogin:
    return OAuthLogin(server.settings, CLIENT, None, Secret(refresh_token))


async def no_sleep(seconds: float) -> None:
    """The test waits for nothing."""


async def test_an_access_token_is_fetched(server: AuthorizationServer) -> None:
    """§6 of RFC 6749; the lifetime is the server's, and the login stays as it is."""
    server.lifetime = 1234
    token, login = await kept(server).fetch_token()
    assert (token.secret, token.expires_in) == (Secret("access-1"), 1234)
    assert login == kept(server)


async def test_a_new_refresh_token_replaces_the_old_one(server: AuthorizationServer) -> None:
    """As Microsoft gives one each time."""
    server.rotates = True
    _, login = await kept(server).fetch_token()
    _, again = await login.fetch_token()
    assert len({login.refresh_token, again.refresh_token, Secret("refresh-1")}) == 3


async def test_a_refused_refresh_token_says_to_log_in_again(server: AuthorizationServer) -> None:
    """The server's words with it."""
    with pytest.raises(TokenFailed, match=r"the login has ended: .*Token has been expired or revoked") as caught:
        await kept(server, "stolen").fetch_token()
    assert caught.value.advice == "log in again"
    assert "stolen" not in str(caught.value)


@pytest.mark.parametrize(("errors", "works"), [(["500", "500", ""], True), (["500"] * 3, False)])
async def test_a_server_that_does_not_answer_is_asked_again(
    server: AuthorizationServer, errors: list[str], works: bool
) -> None:
    """A moment's failure does not end a long run; a longer one is no end of the login."""
    server.errors = [*errors]
    if works:
        assert (await kept(server).fetch_token(no_sleep))[0].secret == Secret("access-1")
        return
    with pytest.raises(TokenFailed, match="answered 500") as caught:
        await kept(server).fetch_token(no_sleep)
    assert caught.value.advice == "run the same command again"


async def test_a_server_that_is_not_there() -> None:
    """Its name, and why."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/token"
    login = OAuthLogin(OAuthServer(url, "send"), CLIENT, None, Secret("x"))
    with pytest.raises(TokenFailed, match=r"the authorization server 127\.0\.0\.1:\d+ cannot be asked"):
        await login.fetch_token(no_sleep)


def test_a_login_is_kept_as_text(server: AuthorizationServer) -> None:
    """All that it takes for tokens, and nothing else; what is not one is none."""
    login = OAuthLogin(server.settings, CLIENT, Secret("s"), Secret("r"))
    found = OAuthLogin.from_json(login.to_json())
    assert found is not None
    assert (found.client_secret, found.refresh_token, found.client_id) == (Secret("s"), Secret("r"), CLIENT)
    assert found.server.token_url == login.server.token_url
    broken = login.to_json().replace("http://127.0.0.1", "http://mail.test")
    assert [OAuthLogin.from_json(text) for text in ("", "{}", "[1]", broken)] == [None] * 4


@pytest.mark.parametrize(
    "url", ["https://id.example/token", "http://127.0.0.1:1/t", "http://localhost", "http://[::1]/"]
)
def test_urls_that_tokens_may_go_to(url: str) -> None:
    assert check_oauth_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://id.example/token", "ftp://127.0.0.1", "https://", "id.example"),
        *("http://127.0.0.1.evil.test", "http://[", "https://x:y/"),
    ],
)
def test_urls_that_they_may_not_go_to(url: str) -> None:
    """RFC 6749 §3.2: TLS; a loopback address stays on this machine."""
    with pytest.raises(InvalidArgument, match="https://"):
        check_oauth_url(url)


def test_the_servers_of_the_presets_are_usable() -> None:
    """Each URL would be asked; Google gives a refresh token only when it is asked for one."""
    servers = {each.name: each.oauth for each in PROVIDERS.values() if each.oauth is not None}
    assert set(servers) == {"gmail", "google-workspace", "google-relay", "microsoft365", "outlook"}
    for found in servers.values():
        for url in (found.token_url, found.authorization_url, found.device_url, found.revocation_url):
            assert not url or check_oauth_url(url).startswith("https://")
    assert dict(servers["gmail"].parameters) == {"access_type": "offline", "prompt": "consent"}
    assert "offline_access" in parse_qs(f"s={servers['outlook'].scope}")["s"][0]
