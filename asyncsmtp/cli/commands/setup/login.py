"""`asyncsmtp login`: log in to a provider by OAuth 2.0 once; `send`, `bulk` and `check` then fetch access tokens."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click

from asyncsmtp.bulk.setup.provider_relay import complete_relay_url
from asyncsmtp.cli.command_line import format_command
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import config_options, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.cli.secret_sources import KeptLogin, Keyring, run_secret_command
from asyncsmtp.client.config.hostport import parse_host_port, split_url
from asyncsmtp.client.config.provider_presets import OAuthServer, find_preset
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.oauth import DeviceCode, OAuthLogin

__all__ = ["command"]

SECRET_VARIABLE = "ASYNCSMTP_CLIENT_SECRET"  # noqa: S105  # the name of the variable
_AGAIN = "then run the same command again"
_URLS = ("authorization_url", "token_url", "device_url")

_EPILOG = """\b
asyncsmtp login --provider gmail --user ann@gmail.com --client-id ID

The client id is your own. Google: console.cloud.google.com, a desktop client,
with the Gmail API. Microsoft: entra.microsoft.com, an app registration with
public client flows and the redirect http://localhost.
docs/reference/providers.md has the steps.

\b
Example:
  asyncsmtp login --provider gmail --user ann@gmail.com --forget
"""


@dataclass(frozen=True, slots=True)
class _Account:
    """The account that is logged in, and the words that name it on a command line."""

    user: str
    host: str
    words: tuple[str, ...]
    server: OAuthServer | None

    def __str__(self) -> str:
        return f"{safe_text(self.user, 80)} at {safe_text(self.host, 80)}"


@click.command("login", epilog=_EPILOG)
@config_options("relay.provider", "relay.user", "relay.url")
@option("--client-id", metavar="TEXT", help="Your program as it is registered with the provider.")
@option(
    "--client-secret-command",
    metavar="COMMAND",
    help=f"Command that prints its secret, if it has one; or {SECRET_VARIABLE}.",
)
@option("--device", is_flag=True, help="Type a code on a page instead: where this machine has no browser.")
@option("--port", type=click.IntRange(0, 65535), default=0, help="Port of 127.0.0.1 for the browser's answer.")
@option("--authorization-url", metavar="URL", help="Page of the authorization server, if not the provider's.")
@option("--token-url", metavar="URL", help="Its address for tokens.")
@option("--device-url", metavar="URL", help="Its address for codes of devices.")
@option("--scope", metavar="TEXT", help="Scope to ask for.")
@option("--forget", is_flag=True, help="Remove the login from this machine.")
@env_file_option
def command(
    provider: str | None,
    user: str | None,
    relay: str | None,
    client_id: str | None,
    client_secret_command: str | None,
    device: bool,
    port: int,
    forget: bool,
    **endpoints: str | None,
) -> ExitCode:
    """Log in to Gmail or Microsoft by OAuth 2.0.

    A page of the provider asks whether this command may send mail for you. The
    keyring of this system keeps the login; send, bulk and check use it when
    they have no password, and fetch an access token whenever one is needed.
    """
    account = _find_account(provider, user, relay)
    if forget:
        return _forget(account)
    keyring = Keyring.require("keeping a login")
    kept = KeptLogin.find(keyring, account.user, account.host)
    server = _find_server(account, endpoints)
    if device and not server.device_url:
        advice = (
            "log in without --device; where this machine has no browser: --port 8765, and ssh -L 8765:127.0.0.1:8765"
        )
        raise CommandError("this provider has no login with a code for sending mail", advice)
    client_id = client_id or (kept.login.client_id if kept is not None else None)
    if client_id is None:
        where = f", which you make at {server.console}" if server.console else ""
        raise CommandError(
            f"a login needs a client id of your own{where}",
            "add --client-id ID; docs/reference/providers.md has the steps",
        )
    secret = _find_client_secret(server, client_secret_command, kept.login if kept is not None else None, client_id)
    login = asyncio.run(_log_in(account, server, client_id, secret, device=device, port=port))
    words = [*account.words, *(["--device"] if device else []), *(["--port", str(port)] if port else [])]
    for name, value in endpoints.items():
        words += [f"--{name.replace('_', '-')}", value] if value else []
    KeptLogin(keyring, account.user, account.host, login, words).keep()
    console.print_info(f"logged in as {account}; the keyring keeps the login")
    console.print_steps([format_command("check", *account.words)])
    return ExitCode.ACCEPTED


def _find_account(provider: str | None, user: str | None, relay: str | None) -> _Account:
    """Return whose login it is, and where."""
    if provider is None and relay is None:
        raise CommandError("no provider was given", "add --provider gmail, or --provider outlook")
    preset = find_preset(provider)
    if preset is None and relay is None:
        raise CommandError(
            f"“{safe_text(provider or '', 60)}” is not a provider with a login by OAuth that is known",
            "name its relay as well: --relay smtp://user@host:587, with --authorization-url, --token-url and --scope",
        )
    url = complete_relay_url(relay, provider if preset is not None else None, user, None)
    named, _, hosts = split_url(url).netloc.rpartition("@")
    if not named and console.is_interactive():
        console.print_info("Address that you log in with:", end=" ", always=True)
        named = user = sys.stdin.readline().strip()
    if not named:
        raise CommandError("it is not known who logs in", f"add --user ann@example.org, {_AGAIN}")
    found = unquote(named) if user is None else user
    words = ["--provider", provider] if provider is not None else []
    words += ["--relay", relay] if relay is not None else []
    words += ["--user", found]
    host = parse_host_port(hosts.partition(",")[0])[0]
    return _Account(found, host, tuple(words), preset.oauth if preset is not None else None)


def _find_server(account: _Account, endpoints: Mapping[str, str | None]) -> OAuthServer:
    """Return the authorization server: what was given, then the provider's."""
    from asyncsmtp.client.config.oauth import check_oauth_url

    given = {name: value for name, value in endpoints.items() if value}
    for name in _URLS:
        if name in given:
            try:
                check_oauth_url(given[name])
            except InvalidArgument as error:
                raise CommandError(f"--{name.replace('_', '-')}: {error}", f"correct it, {_AGAIN}") from None
    if account.server is None and not {"token_url", "scope"} <= given.keys():
        raise CommandError(
            f"{safe_text(account.host, 80)} has no login by OAuth that is known",
            "use a password; or add --authorization-url, --token-url and --scope of its authorization server",
        )
    server = account.server or OAuthServer("", "")
    return replace(
        server,
        token_url=given.get("token_url", server.token_url),
        authorization_url=given.get("authorization_url", server.authorization_url),
        device_url=given.get("device_url", server.device_url),
        scope=given.get("scope", server.scope),
        revocation_url="" if "token_url" in given else server.revocation_url,  # that of another server
    )


def _find_client_secret(
    server: OAuthServer, secret_command: str | None, kept: OAuthLogin | None, client_id: str
) -> Secret | None:
    """Find the secret of the client; None for one that has none."""
    if secret_command is not None:
        return run_secret_command(secret_command, "client secret")
    if os.environ.get(SECRET_VARIABLE):
        return Secret(os.environ[SECRET_VARIABLE])
    if kept is not None and kept.client_id == client_id:
        return kept.client_secret
    if server.has_secret and console.is_interactive():
        import getpass

        return Secret(found) if (found := getpass.getpass("Secret of the client id: ").strip()) else None
    return None


async def _log_in(
    account: _Account, server: OAuthServer, client_id: str, secret: Secret | None, *, device: bool, port: int
) -> OAuthLogin:
    from asyncsmtp.client.config.oauth import authorize_by_browser, authorize_by_device

    if device or not server.authorization_url:
        return await authorize_by_device(server, client_id, secret, _show_code)
    try:
        return await authorize_by_browser(server, client_id, secret, _open_page, user=account.user, port=port)
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise CommandError(f"port {port} of 127.0.0.1 cannot be used: {why}", "take another --port") from error


def _open_page(url: str) -> None:
    console.print_info("open this page in a browser on this machine, and allow to send mail (5 minutes):", always=True)
    console.print_info(f"  {url}", always=True)
    if console.is_interactive():
        webbrowser.open(url)


def _show_code(code: DeviceCode) -> None:
    minutes = max(1, round(code.expires_in / 60))
    console.print_info(
        f"open {safe_text(code.url, 200)} on any device, type {safe_text(code.code, 40)}, and allow to send mail "
        f"({console.pluralize(minutes, 'minute')})",
        always=True,
    )


def _forget(account: _Account) -> ExitCode:
    keyring = Keyring.find()
    kept = KeptLogin.find(keyring, account.user, account.host) if keyring is not None else None
    if kept is None:
        console.print_info(f"no login of {account} is kept here")
        return ExitCode.ACCEPTED
    is_revoked = asyncio.run(_revoke(kept.login))
    kept.forget()
    console.print_info(f"the login of {account} is removed" + (", and the provider withdrew it" if is_revoked else ""))
    if not is_revoked:
        console.print_info("  the provider may still list this access among those of the account: withdraw it there")
    return ExitCode.ACCEPTED


async def _revoke(login: Any) -> bool:
    from asyncsmtp.errors import MissingDependency

    try:
        return bool(await login.revoke())
    except MissingDependency:  # removing it here needs no HTTP
        return False
