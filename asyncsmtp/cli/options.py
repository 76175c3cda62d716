"""Options that several commands share, and what is made of them: relays with their secrets, ledgers.

Each can be given as ASYNCSMTP_NAME in the environment, too. An option that is a key of the campaign file is declared in
`bulk.setup.config`, and nowhere else.

The most explicit source wins: --password-command, ASYNCSMTP_PASSWORD, the keyring, a prompt; for a proxy's user and
for the key of a client certificate their own variables, the keyring, a prompt.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asyncsmtp import Secret
from asyncsmtp.bulk.ledger.postgres import SCHEMES, Database
from asyncsmtp.bulk.setup.config import KEYS, load_config, name_ledger_campaign
from asyncsmtp.bulk.setup.config_types import Choice, Count
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay

__all__ = [
    "CommandSecrets",
    "NamedLedger",
    "campaign_argument",
    "config_options",
    "find_ledger",
    "json_option",
    "ledger_option",
    "ledger_options",
    "make_cli_relay",
    "option",
    "relay_options",
    "sandbox_option",
    "verbose_option",
    "warn_of_key_log",
]

VARIABLE = "ASYNCSMTP_PASSWORD"
PROXY_VARIABLE = "ASYNCSMTP_PROXY_PASSWORD"
KEY_VARIABLE = "ASYNCSMTP_KEY_PASSPHRASE"
COMMAND_TIMEOUT = 120  # seconds for a password command, which may itself be asking someone
_UNSAFE_KEYRINGS = ("keyring.backends.null", "keyring.backends.fail", "keyrings.alt")  # forget, fail, or store in clear


@dataclass(frozen=True, slots=True)
class CommandSecrets:
    """Secrets from all sources; each method raises CommandError if no source has the secret.

    Attributes:
        command: prints the password, its first line; split as a shell would, run without one.
    """

    command: str | None = None

    def password(self, username: str, host: str) -> Secret:
        """Find the password of `username` at `host`. Raises CommandError: also if the command fails."""
        if self.command is not None:
            return _from_command(self.command)
        name, where = safe_text(username, 80), safe_text(host, 80)
        advice = (
            f"set {VARIABLE}, or add --password-command 'pass show mail', or: keyring set asyncsmtp:{host} {username}"
        )
        return _find(VARIABLE, username, host, f"no password for {name} at {where}", advice)

    def proxy_password(self, username: str, host: str) -> Secret:
        """Find the password of `username` at the proxy `host`."""
        missing = f"no password for {safe_text(username, 80)} at the proxy {safe_text(host, 80)}"
        advice = f"set {PROXY_VARIABLE}, or: keyring set asyncsmtp:{host} {username}"
        return _find(PROXY_VARIABLE, username, host, missing, advice)

    def passphrase(self, key: Path) -> Secret | None:
        """Find the passphrase of a client certificate's private key; None where it is not encrypted.

        Raises:
            OSError: the key cannot be read.
        """
        if b"ENCRYPTED" not in key.read_bytes():
            return None
        missing = f"the key {safe_text(str(key), 200)} is encrypted, and there is no passphrase"
        advice = f"set {KEY_VARIABLE}, or: keyring set asyncsmtp:client-key {key}"
        return _find(KEY_VARIABLE, str(key), "client-key", missing, advice)


def _find(variable: str, username: str, host: str, missing: str, advice: str) -> Secret:
    """Find a secret in a variable or the keyring, or ask for it."""
    if variable in os.environ:
        return Secret(os.environ[variable])
    found = _from_keyring(username, host)
    if found is None and console.is_interactive():
        import getpass

        place = "this machine" if variable == KEY_VARIABLE else safe_text(host, 80)
        found = Secret(getpass.getpass(f"Password of {safe_text(username, 80)} at {place}: "))
    if found is None:
        raise CommandError(missing, advice)
    return found


def _from_command(command: str) -> Secret:
    advice = "run it by hand: its first line must be the password"
    try:
        words = shlex.split(command)
        ended = subprocess.run(words, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False)  # noqa: S603
    except (OSError, ValueError, IndexError) as error:
        why = getattr(error, "strerror", None) or "it is no command line"
        raise CommandError(f"the password command cannot be run: {str(why).lower()}", advice) from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"the password command took longer than {COMMAND_TIMEOUT} s", advice) from None
    line = ended.stdout.split(b"\n", 1)[0].rstrip(b"\r")
    if ended.returncode != 0:
        raise CommandError(f"the password command ended with exit code {ended.returncode}", advice)
    if not line:
        raise CommandError("the password command printed nothing", advice)
    return Secret(line.decode("utf-8", "surrogateescape"))


def _from_keyring(username: str, host: str) -> Secret | None:
    """Return what the keyring holds; None where it is not installed, or is not safe."""
    try:
        keyring = import_module("keyring")
    except ImportError:
        return None
    backend = keyring.get_keyring()
    if type(backend).__module__.startswith(_UNSAFE_KEYRINGS):
        return None
    try:
        found = keyring.get_password(f"asyncsmtp:{host}", username)
    except Exception as error:  # a backend raises what it likes; there are other sources
        console.print_info(f"the keyring cannot be read: {safe_text(str(error), 200)}")
        return None
    return Secret(found) if found else None


_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Option(click.Option):
    """An option whose several values stand on lines of their own in its variable: an address may hold spaces."""

    def value_from_envvar(self, ctx: click.Context) -> Any:
        given = self.resolve_envvar_value(ctx)
        return given.splitlines() if given is not None and self.multiple else super().value_from_envvar(ctx)


def option(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    """Return `click.option` with the environment variable that belongs to its first long name."""
    long = next(name for name in names if name.startswith("--"))
    variable = "ASYNCSMTP_" + long.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, cls=_Option, **settings)


def config_options(*names: str) -> Callable[[_Function], _Function]:
    """Add the options of these keys of the configuration, by their names in TOML; parameters are the keys' fields."""

    def decorate(command: _Function) -> _Function:
        """Add the options to a command."""
        for key in reversed([KEYS[name] for name in names]):
            kind: Any = None
            if isinstance(key.check, Choice):
                kind = click.Choice(key.check.words)
            elif isinstance(key.check, Count):
                kind = click.IntRange(key.check.minimum, key.check.maximum)
            command = option(
                *key.options, key.field, type=kind, metavar=key.metavar, multiple=key.multiple, help=key.help
            )(command)
        return command

    return decorate


def campaign_argument(*, required: bool = False) -> Callable[[_Function], _Function]:
    """Return the argument CAMPAIGN.toml."""
    return click.argument("campaign", metavar="CAMPAIGN.toml", type=click.Path(path_type=Path), required=required)


relay_options = config_options("relay.url", "relay.ca_file", "relay.password_command", "relay.dialogue")
verbose_option = option("-v", "--verbose", is_flag=True, help="Show the dialogue, secrets masked.")
json_option = option("--json", "as_json", is_flag=True, help="One JSON object per result on stdout.")
sandbox_option = option("--sandbox", is_flag=True, help="The rehearsal in the sandbox, not the real campaign.")


def _parse_ledger(text: str) -> Path | Database:
    """Make a location. CommandError, not ValueError, which click would print with the value: it may hold a password."""
    try:
        return Database.parse(text) if text.startswith(SCHEMES) else Path(text)
    except InvalidArgument as error:
        raise CommandError(str(error)) from None


ledger_option = option(
    *KEYS["campaign.ledger"].options, type=_parse_ledger, metavar="FILE|URL", help=KEYS["campaign.ledger"].help
)


@dataclass(frozen=True, slots=True)
class NamedLedger:
    """A ledger's location, and how the campaign is named on a command line."""

    location: Path | Database
    reference: str


def find_ledger(campaign: Path | None, ledger: Path | Database | None, *, sandbox: bool) -> NamedLedger:
    """Find the ledger of CAMPAIGN.toml, or take the one that --ledger names.

    Raises:
        CommandError: neither was given. ConfigError: the campaign file cannot be used.
    """
    if ledger is not None and (campaign is None or isinstance(ledger, Path)):
        return NamedLedger(ledger, f"--ledger {ledger}")
    if campaign is None:
        raise CommandError("no campaign was given", "name its file, such as campaign.toml; or: --ledger NAME.ledger")
    config = load_config(campaign)
    if ledger is not None:
        return NamedLedger(name_ledger_campaign(ledger, config.name), f"{campaign} --ledger {ledger}")
    if sandbox:
        return NamedLedger(config.sandbox_ledger, f"{campaign} --sandbox")
    return NamedLedger(config.ledger_location, str(campaign))


def ledger_options(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """Add CAMPAIGN.toml, --ledger and --sandbox; the first parameter is the `NamedLedger` that they name."""

    @campaign_argument()
    @ledger_option
    @sandbox_option
    @wraps(command)
    def find_and_call(campaign: Path | None, ledger: Path | Database | None, sandbox: bool, **options: Any) -> ExitCode:
        return command(find_ledger(campaign, ledger, sandbox=sandbox), **options)

    return find_and_call


def make_cli_relay(
    url: str, *, ca_file: Path | str | None = None, password_command: str | None = None, interactive: bool = False,
    **settings: Any,
) -> Relay:  # fmt: skip
    """Make a relay; ask for its password when the URL names a user. What stands beside the URL goes before it.

    Args:
        interactive: someone waits at a terminal, so what is slow before the content is sent fails sooner.
        settings: as `make_relay` takes them.
    Raises:
        CommandError: no source has the password. ConfigError, InvalidArgument: as `make_relay` does.
    """
    from asyncsmtp.bulk.open_campaign import make_relay  # late: `--help` needs no relay
    from asyncsmtp.client.config.relay import Timeouts

    warn_of_key_log()
    relay = make_relay(url, CommandSecrets(password_command), ca_file=Path(ca_file) if ca_file else None, **settings)
    return replace(relay, timeouts=Timeouts.interactive()) if interactive else relay


def warn_of_key_log() -> None:
    """Warn that SSLKEYLOGFILE is set. The standard library honours it: whoever has that file can read the session."""
    if "SSLKEYLOGFILE" in os.environ:
        console.print_info("warning: SSLKEYLOGFILE is set, so the keys of this session are written to a file")
