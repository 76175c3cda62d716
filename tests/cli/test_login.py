"""`login`: OAuth 2.0 with the user's own client id; `send`, `check` and `bulk` then log in with access tokens."""

from __future__ import annotations

import json
import shlex
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
import trustme

from asyncsmtp.cli.commands.setup import login
from asyncsmtp.cli.output import console
from asyncsmtp.testing import ScriptedRelay
from tests.authorization_server import AuthorizationServer, authorizing, browse
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving

USER = "ann@gmail.com"
MESSAGE = ("--from", f"Ann <{USER}>", "--to", "bob@example.com", "--subject", "Hi", "--text", "Hello")


class FakeKeyring(ModuleType):
    """The package `keyring` with a backend in memory."""

    def __init__(self, module: str = "keyring.backends.SecretService") -> None:
        super().__init__("keyring")
        self.entries: dict[tuple[str, str], str] = {}
        self.backend = type("Keyring", (), {"__module__": module})()
        self.locked = False

    def get_keyring(self) -> object:
        return self.backend

    def get_password(self, service: str, user: str) -> str | None:
        return self.entries.get((service, user))

    def set_password(self, service: str, user: str, text: str) -> None:
        if self.locked:
            raise RuntimeError("the collection is locked")
        self.entries[service, user] = text

    def delete_password(self, service: str, user: str) -> None:
        del self.entries[service, user]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> FakeKeyring:
    """A keyring that is empty."""
    fake = FakeKeyring()
    monkeypatch.setitem(sys.modules, "keyring", fake)
    for name in ("ASYNCSMTP_PASSWORD", "ASYNCSMTP_CLIENT_SECRET", "ASYNCSMTP_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return fake


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthorizationServer]:
    """A provider's authorization server, and somebody with a browser at a terminal who says yes."""
    pages: list[Thread] = []
    monkeypatch.setattr(console, "is_interactive", lambda: True)
    monkeypatch.setattr(login.webbrowser, "open", lambda url: pages.append(browse(url)))
    with authorizing(AuthorizationServer()) as it:
        yield it
        for page in pages:
            page.join(10)


def urls(server: AuthorizationServer) -> list[str]:
    found = server.settings
    return ["--authorization-url", found.authorization_url, "--token-url", found.token_url, "--scope", found.scope]


def log_in(command: Command, server: AuthorizationServer, relay: ScriptedRelay, *more: str) -> Ended:
    """Log in to the provider's server, which is a relay on loopback."""
    words = ["--provider", "outlook", "--relay", local(relay), "--user", USER, "--client-id", server.client_id]
    return command("login", *words, *urls(server), *more)


def local(relay: ScriptedRelay) -> str:
    return f"smtp://127.0.0.1:{relay.port}"


@pytest.fixture
def relay(
    server: AuthorizationServer, server_tls: ssl.SSLContext, ca: trustme.CA, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ScriptedRelay]:  # fmt: skip
    """A relay that takes the access token which the authorization server gave last, and no password."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("ASYNCSMTP_CA_FILE", str(tmp_path / "ca.pem"))
    settings = {"tls": server_tls, "needs_auth": True, "auth_needs_tls": True}
    with serving(ScriptedRelay(users=server.users, **settings)) as it:
        yield it


def through(relay: ScriptedRelay) -> list[str]:
    """The options of the provider whose relay it is."""
    return ["--provider", "gmail", "--relay", local(relay)]


def test_after_a_login_send_and_check_need_no_password(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring
) -> None:
    """The keyring has the login; each command fetches a token of its own, and neither is printed."""
    ended = log_in(command, server, relay)
    assert ended.code == 0, ended.err
    assert f"logged in as {USER} at 127.0.0.1" in ended.err
    sent = command("send", *through(relay), "-v", *MESSAGE)
    checked = command("check", *through(relay), "--user", USER)
    assert (sent.code, checked.code) == (0, 0), sent.err + checked.err
    assert [(each.user, each.accepted) for each in relay.auth_attempts] == [(USER, True)] * 2
    assert [form["grant_type"] for form in server.requests] == ["authorization_code", "refresh_token", "refresh_token"]
    assert set(keyring.entries) == {("asyncsmtp:oauth:127.0.0.1", USER)}
    printed = "".join(each.out + each.err for each in (ended, sent, checked))
    assert not [secret for secret in ("refresh-1", "access-1", "access-2") if secret in printed]


def test_a_device_code_logs_in(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring
) -> None:
    """Where this machine has no browser; the code and the page are shown."""
    server.interval = 0
    server.errors = ["authorization_pending", ""]
    ended = log_in(command, server, relay, "--device", "--device-url", server.settings.device_url)
    assert ended.code == 0, ended.err
    assert f"open http://127.0.0.1:{server.port}/activate on any device, type ABCD-EFGH" in ended.err
    assert command("send", *through(relay), *MESSAGE).code == 0


def test_gmail_has_no_device_code_for_mail(command: Command, server: AuthorizationServer, keyring: FakeKeyring) -> None:
    """Google's devices may not ask for that scope; the way without a browser here is said."""
    ended = command("login", "--provider", "gmail", "--user", USER, "--client-id", "x", "--device")
    assert ended.code == 2
    assert "no login with a code for sending mail" in ended.sentence
    assert "ssh -L" in ended.err


@pytest.mark.parametrize("source", ["variable", "command", "prompt"])
def test_the_secret_of_the_client_is_never_an_option(
    command: Command,
    server: AuthorizationServer,
    relay: ScriptedRelay,
    keyring: FakeKeyring,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    """It comes as a password does, and is kept for the refresh."""
    server.secret = "cl13nt-s3cret"
    more: list[str] = []
    if source == "variable":
        monkeypatch.setenv("ASYNCSMTP_CLIENT_SECRET", server.secret)
    elif source == "command":
        more = ["--client-secret-command", f"echo {server.secret}"]
    else:
        monkeypatch.setattr("getpass.getpass", lambda prompt: server.secret)
        more = ["--provider", "gmail"]
    ended = log_in(command, server, relay, *more)
    assert ended.code == 0, ended.err
    monkeypatch.delenv("ASYNCSMTP_CLIENT_SECRET", raising=False)
    assert command("send", *through(relay), *MESSAGE).code == 0
    assert {form["client_secret"] for form in server.requests} == {server.secret}
    assert server.secret not in ended.err + ended.out


def test_a_secret_command_that_fails(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring
) -> None:
    """Before any page is opened."""
    ended = log_in(command, server, relay, "--client-secret-command", "false")
    assert (ended.code, ended.sentence) == (2, "the client secret command ended with exit code 1")
    assert server.authorized == []


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [({"error": "access_denied", "code": ""}, "the login was denied on the page"), ({"code": "x"}, "invalid_grant")],
)
def test_a_login_that_is_refused_keeps_nothing(
    command: Command,
    server: AuthorizationServer,
    relay: ScriptedRelay,
    keyring: FakeKeyring,
    answer: dict[str, str],
    sentence: str,
) -> None:
    """One sentence, exit code 77."""
    server.redirect_to = answer
    ended = log_in(command, server, relay)
    assert ended.code == 77
    assert sentence in ended.sentence
    assert keyring.entries == {}


def campaign_for(campaign: Path, relay: ScriptedRelay) -> Path:
    """The campaign with that relay, a connection for each message."""
    text = campaign.read_text("utf-8").replace("news@example.org", USER)
    section = f'[relay]\nurl = "{local(relay)}"\nprovider = "gmail"\nsessions = 1\nmax_per_connection = 1\n'
    campaign.write_text(text + section, encoding="utf-8")
    return campaign


def test_tokens_are_refreshed_during_a_run(
    command: Command, campaign: Path, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring
) -> None:
    """Each connection of a run that outlives its token gets another; a new refresh token is kept."""
    server.lifetime, server.rotates = 30, True
    assert log_in(command, server, relay).code == 0
    before = dict(keyring.entries)
    ended = command("bulk", campaign_for(campaign, relay), "--yes", "--concurrency", 1)
    assert ended.code == 0, ended.err
    assert len(relay.received) == 3
    assert all(each.accepted for each in relay.auth_attempts)
    assert len([form for form in server.requests if form["grant_type"] == "refresh_token"]) >= 3
    assert keyring.entries != before


def test_a_login_that_is_withdrawn_during_a_run(
    command: Command, campaign: Path, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring
) -> None:
    """One sentence, the command that logs in again as it works, exit code 77; the other rows wait for it."""
    server.lifetime = 30
    assert log_in(command, server, relay).code == 0
    server.errors = ["", "invalid_grant"]
    ended = command("bulk", campaign_for(campaign, relay), "--yes", "--concurrency", 1)
    assert ended.code == 77, ended.err
    assert f"{USER}: the login has ended" in ended.sentence
    assert "1 accepted" in command("status", campaign).out
    [again] = [line for line in ended.err.splitlines() if "asyncsmtp login" in line]
    assert command(*shlex.split(again.partition("asyncsmtp ")[2])).code == 0  # no client id: it is known
    assert command("bulk", campaign, "--yes").code == 0
    assert len(relay.received) == 3


@pytest.mark.parametrize("words", [("send", *MESSAGE), ("check", "--user", USER)], ids=["send", "check"])
def test_a_login_that_was_withdrawn_before(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring, words: tuple[str, ...]
) -> None:
    """The same, and no login was tried."""
    assert log_in(command, server, relay).code == 0
    server.revoked.append("refresh-1")
    ended = command(words[0], *through(relay), *words[1:])
    assert ended.code == 77
    assert "Token has been expired or revoked" in ended.sentence
    assert "next: asyncsmtp login --provider outlook" in ended.err
    assert relay.auth_attempts == []


def test_a_password_that_is_given_goes_before_the_login(
    command: Command,
    server: AuthorizationServer,
    relay: ScriptedRelay,
    keyring: FakeKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sets a variable means it."""
    assert log_in(command, server, relay).code == 0
    server.users[USER] = "app password"
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", "app password")
    assert command("send", *through(relay), *MESSAGE).code == 0
    assert len(server.requests) == 1


def test_a_login_goes_to_its_own_host_and_user_only(
    command: Command,
    server: AuthorizationServer,
    relay: ScriptedRelay,
    keyring: FakeKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token for one account is no token for another."""
    monkeypatch.setattr("getpass.getpass", lambda prompt: "")
    assert log_in(command, server, relay).code == 0
    for url, user in ((local(relay), "bob@gmail.com"), (local(relay).replace("127.0.0.1", "localhost"), USER)):
        command("send", "--relay", url, "--user", user, *MESSAGE)
    assert len(server.requests) == 1


def test_a_login_is_forgotten(
    command: Command,
    server: AuthorizationServer,
    relay: ScriptedRelay,
    keyring: FakeKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of it is left; the second time there is nothing to remove."""
    assert log_in(command, server, relay).code == 0
    words = ("login", "--provider", "outlook", "--relay", local(relay), "--user", USER, "--forget")
    ended = command(*words)
    assert ended.code == 0
    assert "is removed" in ended.err
    assert keyring.entries == {}
    assert "no login of" in command(*words).err


def test_the_provider_withdraws_a_login_that_is_forgotten(
    command: Command, server: AuthorizationServer, keyring: FakeKeyring
) -> None:
    """RFC 7009, where the provider has an address for it."""
    kept = {
        "login": {
            "token_url": server.settings.token_url, "revocation_url": server.settings.revocation_url, "scope": "send",
            "client_id": "client-1", "client_secret": "", "refresh_token": "refresh-1",
        },
        "words": [],
    }  # fmt: skip
    keyring.entries["asyncsmtp:oauth:smtp.gmail.com", USER] = json.dumps(kept)
    ended = command("login", "--provider", "gmail", "--user", USER, "--forget")
    assert "and the provider withdrew it" in ended.err
    assert server.revoked == ["refresh-1"]


# What is missing or wrong.


@pytest.mark.parametrize("module", ["keyring.backends.fail", "keyring.backends.null", "keyrings.alt.file"])
def test_a_keyring_without_a_backend(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Before a page is opened: one sentence and what to do."""
    monkeypatch.setitem(sys.modules, "keyring", FakeKeyring(module))
    ended = log_in(command, server, relay)
    assert (ended.code, ended.sentence) == (2, "this system has no keyring that keeps a secret from others")
    assert "--password-command" in ended.err
    assert server.authorized == []


def test_without_the_extra(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pip command."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    ended = log_in(command, server, relay)
    assert ended.code == 2
    assert "pip install 'asyncsmtp[oauth]'" in ended.sentence


def test_without_the_http_client(
    command: Command,
    server: AuthorizationServer,
    relay: ScriptedRelay,
    keyring: FakeKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is of the same extra."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    ended = log_in(command, server, relay, "--device", "--device-url", server.settings.device_url)
    assert ended.code == 2
    assert "pip install 'asyncsmtp[oauth]'" in ended.sentence


def test_a_keyring_that_is_locked(
    command: Command, server: AuthorizationServer, relay: ScriptedRelay, keyring: FakeKeyring
) -> None:
    """Its own words."""
    keyring.locked = True
    ended = log_in(command, server, relay)
    assert (ended.code, ended.sentence) == (2, "the keyring did not keep it: the collection is locked")


@pytest.mark.parametrize(
    ("words", "sentence", "advice"),
    [
        ((), "no provider was given", "--provider gmail"),
        (("--provider", "gmial"), "did you mean “gmail”?", ""),
        (("--provider", "fastmail", "--user", "a@b.c"), "smtp.fastmail.com has no login by OAuth", "use a password"),
        (("--provider", "gmail", "--user", USER), "a login needs a client id of your own", "--client-id ID"),
        (
            ("--provider", "gmail", "--user", USER, "--client-id", "x", "--token-url", "http://id.example/t"),
            "--token-url: “http://id.example/t” is not a URL with https://",
            "",
        ),
        (("--provider", "mail.example.org", "--user", USER), "is not a provider with a login by OAuth", "--token-url"),
    ],
)
def test_what_is_missing_is_one_sentence(
    command: Command, keyring: FakeKeyring, words: tuple[str, ...], sentence: str, advice: str
) -> None:
    """Nobody is asked without a terminal."""
    ended = command("login", *words)
    assert ended.code == 2
    assert sentence in ended.sentence
    assert advice in ended.err


def test_who_logs_in_is_asked_on_a_terminal_only(command: Command, keyring: FakeKeyring) -> None:
    """The option is named."""
    ended = command("login", "--provider", "gmail")
    assert (ended.code, ended.sentence) == (2, "it is not known who logs in")


@pytest.mark.parametrize("entry", ["", "{}", "no json", '{"login": {}, "words": []}', '{"login": 3, "words": 4}'])
def test_an_entry_that_is_something_else_is_none(command: Command, keyring: FakeKeyring, entry: str) -> None:
    """Somebody else's, or one of a later version: the next source is asked."""
    keyring.entries["asyncsmtp:oauth:smtp.gmail.com", USER] = entry
    ended = command("check", "--provider", "gmail", "--user", USER)
    assert ended.code == 2
    assert "no password for ann@gmail.com at smtp.gmail.com" in ended.sentence
