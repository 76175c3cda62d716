"""Options that several commands share, and what is made of them: relays with their secrets, ledgers.

Each can be given as ASYNCSMTP_NAME in the environment, too. An option that is a key of the campaign file is declared in
`bulk.setup.config`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asyncsmtp.bulk.ledger import STORED
from asyncsmtp.bulk.ledger.postgres import SCHEMES, Database
from asyncsmtp.bulk.setup.config import KEYS, MAX_FILE_SIZE, CampaignConfig, load_config, name_ledger_campaign
from asyncsmtp.bulk.setup.config_types import (
    Choice,
    Count,
    RelayConfig,
    check_flag,
    check_ledger,
    describe_nearest,
    parse_duration,
)
from asyncsmtp.cli.command_line import format_command, typed
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.cli.secret_sources import CommandSecrets
from asyncsmtp.errors import ConfigError, InvalidArgument, LedgerEmpty, RecipientError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.protocol.envelope import Mailbox

__all__ = [
    "OUTPUT",
    "REHEARSAL",
    "GroupedCommand",
    "NamedLedger",
    "campaign_argument",
    "config_options",
    "find_campaign_files",
    "find_ledger",
    "json_option",
    "ledger_option",
    "ledger_options",
    "load_campaign",
    "make_cli_relay",
    "make_cli_relays",
    "name_ledger",
    "option",
    "parse_mailbox",
    "parse_since",
    "relay_options",
    "resolve_cli_provider",
    "sandbox_option",
    "verbose_option",
    "warn_of_key_log",
    "with_interactive_timeouts",
]

REHEARSAL = "Rehearsal"  # groups of options in the help, …
OUTPUT = "Output"
_NAME = "campaign.name"
_SECTION = re.compile(rb"^[ \t]*\[[ \t]*campaign[ \t]*\]", re.MULTILINE)
_GROUPS = {  # … and those of the keys by their sections
    "campaign": "Message and recipients",
    "columns": "Message and recipients",
    "relay": "Relay",
    "limits": "Limits and times",
    "retry": "Retries",
}


_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Option(click.Option):
    """An option whose several values stand on lines of their own in its variable: an address may hold spaces.

    Attributes:
        former: names that it had before; they are still understood, and shown nowhere.
        group: the heading below which `--help` of a `GroupedCommand` shows it.
    """

    def __init__(self, *args: Any, former: Sequence[str] = (), group: str = "Options", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.former = tuple(former)
        self.group = group

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the names, and the former ones."""
        super().add_to_parser(parser, ctx)
        if self.former:
            parser.add_option(self, list(self.former), self.name, action="append" if self.multiple else "store")

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:
        """Find the value; warn of a name that is deprecated."""
        words = {word.partition("=")[0] for word in typed().words}
        for name in words.intersection(self.former) if self.name in opts else ():
            console.print_warning(f"{name} is deprecated: use {self.opts[0]}")
        return super().consume_value(ctx, opts)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        given = self.resolve_envvar_value(ctx)
        return given.splitlines() if given is not None and self.multiple else super().value_from_envvar(ctx)


def option(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    """Return `click.option` with the environment variable that belongs to its first long name.

    Args:
        settings: those of `click.option`, `former`: names that are deprecated, and `group`: the heading in the help.
    """
    long = next(name for name in names if name.startswith("--"))
    variable = "ASYNCSMTP_" + long.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, cls=_Option, **settings)


class GroupedCommand(click.Command):
    """A command whose help shows its options below the headings of their groups, in the order of the first of each."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for heading in sorted(groups, key=lambda heading: heading == "Options"):  # that one last: --help
            with formatter.section(heading):
                formatter.write_dl(groups[heading])


def config_options(*names: str) -> Callable[[_Function], _Function]:
    """Add the options of these keys of the configuration, by their names in TOML; parameters are the keys' fields."""

    def decorate(command: _Function) -> _Function:
        """Add the options to a command."""
        for key in reversed([KEYS[name] for name in names]):
            kind: Any = None
            flag: dict[str, Any] = {}
            if key.check is check_flag:  # not given, it is None, and the campaign file decides
                kind, flag = bool, {"is_flag": True, "default": None}
            if isinstance(key.check, Choice):
                kind = click.Choice(key.check.words)
            elif isinstance(key.check, Count):
                kind = click.IntRange(key.check.minimum, key.check.maximum)
            command = option(
                *key.options,
                key.field,
                type=kind,
                metavar=key.metavar,
                multiple=key.multiple,
                help=key.help,
                former=[name for name in key.former if name.startswith("--")],
                group=_GROUPS[key.name.partition(".")[0]],
                **flag,
            )(command)
        return command

    return decorate


def campaign_argument(*, required: bool = False) -> Callable[[_Function], _Function]:
    """Return the argument CAMPAIGN.toml."""
    return click.argument("campaign", metavar="CAMPAIGN.toml", type=click.Path(path_type=Path), required=required)


relay_options = config_options(
    *("relay.url", "relay.provider", "relay.user", "relay.ca_file", "relay.password_command", "relay.dialogue")
)
verbose_option = option("-v", "--verbose", is_flag=True, help="Show the dialogue, secrets masked.", group=OUTPUT)
json_option = option("--json", "as_json", is_flag=True, help="One JSON object per result on stdout.", group=OUTPUT)
open_option = option("--open", "opens", is_flag=True, help="Show it in the browser.")
sandbox_option = option("--sandbox", is_flag=True, help="The rehearsal in the sandbox, not the real campaign.")


def _parse_ledger(text: str) -> Path | Database:
    """Make a location. CommandError, not ValueError, which click would print with the value: it may hold a password."""
    try:
        if text.startswith(SCHEMES):
            return Database.parse(text)
        check_ledger(text, Path())
        return Path(text)
    except InvalidArgument as error:
        raise CommandError(str(error)) from None
    except ValueError as error:
        raise CommandError(f"--ledger {error}", "correct the option, then run the same command again") from None


ledger_option = option(
    *KEYS["campaign.ledger"].options,
    type=_parse_ledger,
    metavar="FILE|URL",
    help=KEYS["campaign.ledger"].help,
    group=_GROUPS["campaign"],
)


@dataclass(frozen=True, slots=True)
class NamedLedger:
    """A ledger's location, and how it is named on a command line.

    Attributes:
        reference: CAMPAIGN.toml with the options that lead to this ledger, or --ledger; quoted for a shell.
        bulk: the command that goes on with the campaign; "" where what was typed does not tell its relay.
        campaign: the campaign file that was given, or found by --name.
        provider: the provider that the campaign names, if it has no other relay.
        name: of the campaign file; the ledger must be that campaign's.
        retention: seconds that its addresses are kept; STORED: as the ledger says, where its file is not known.
    """

    location: Path | Database
    reference: str
    bulk: str = ""
    campaign: Path | None = None
    provider: str | None = None
    retention: float | None = STORED
    name: str | None = None


def load_campaign(path: Path, given: Mapping[str, object] | None = None) -> CampaignConfig:
    """Read a campaign file; what was `given` as options goes before the environment, and that before the file.

    Every command obeys the same variables, so that all of them mean the same campaign.

    Args:
        given: by the names of the keys; None where an option was not given.
    Raises:
        ConfigError: as `load_config`.
    """
    chosen = {name: each for name, each in (given or {}).items() if each or each == 0}
    return load_config(path, {**_environment(), **chosen})


def _environment() -> dict[str, object]:
    """Return the values of the variables that belong to keys, by the names of the keys."""
    found: dict[str, object] = {}
    for name, key in KEYS.items():
        text = os.environ.get(key.variable, "") if key.variable else ""
        if text and isinstance(key.check, Count):
            try:
                found[name] = int(text)
            except ValueError:
                raise CommandError(f"{key.variable} must be a whole number", "correct it, or unset it") from None
        elif text and key.check is check_flag:
            try:
                found[name] = click.BOOL.convert(text, None, None)
            except click.BadParameter:
                raise CommandError(f"{key.variable} must be true or false", "correct it, or unset it") from None
        elif text:
            found[name] = tuple(text.splitlines()) if key.multiple else text
    return found


def parse_mailbox(name: str, text: str) -> Mailbox:
    """Parse the address that an option or an argument has. Raises CommandError: it names the option."""
    from asyncsmtp.protocol.envelope import Mailbox

    try:
        return Mailbox.parse(text)
    except RecipientError as error:
        raise CommandError(f"{name}: {error.reason}", f"correct {name}, then run the same command again") from None


def parse_since(text: str) -> datetime:
    """Parse a time in the past: a date with a time, a time of the last 24 hours, or how long ago."""
    now = datetime.now().astimezone()
    try:
        if re.fullmatch(r"[\d.]+ ?[a-z]+", text):
            return now - timedelta(seconds=parse_duration(text))
        if "-" in text[:8]:
            return datetime.fromisoformat(text).astimezone()
        today = datetime.combine(now.date(), time.fromisoformat(text)).astimezone()
        return today if today <= now else today - timedelta(days=1)
    except (ValueError, OverflowError):
        advice = 'give one such as "2026-12-01 09:00" or "09:00", or how long ago: 2h'
        raise CommandError(f"--since: “{safe_text(text, 60)}” is not a time", advice) from None


def name_ledger(location: Path | Database, campaign: Path | None, *, sandbox: bool, name: str | None = None) -> str:
    """Return the words that lead `status`, `results` and `resolve` to a ledger, as few as will do.

    Args:
        name: the campaign's name, where --name was given.
    """
    if campaign is not None:
        for words in ([], ["--name", name] if name else []):
            config = load_campaign(campaign, {"campaign.name": name if words else None})
            if location == (config.sandbox_ledger if sandbox else config.ledger_location):
                return shlex.join([str(campaign), *words, *(["--sandbox"] if sandbox else []), *typed().env_file])
    return shlex.join(["--ledger", str(location), *typed().env_file])


def find_campaign_files(folder: Path) -> Iterator[tuple[Path, CampaignConfig | ConfigError]]:
    """Yield the campaign files of a folder by their names, each with what it says or why it cannot be used.

    ASYNCSMTP_NAME is not obeyed: it would give all of them the same name.
    """
    for path in sorted(folder.glob("*.toml")):
        try:
            if not path.is_file() or not _is_campaign(path):
                continue  # pyproject.toml and the like
            yield path, load_config(path, {name: each for name, each in _environment().items() if name != _NAME})
        except ConfigError as error:
            yield path, error
        except OSError as error:
            yield path, ConfigError((error.strerror or str(error)).lower(), "correct its permissions")


def _is_campaign(path: Path) -> bool:
    with path.open("rb") as file:
        return _SECTION.search(file.read(MAX_FILE_SIZE)) is not None


def _find_named_campaign(name: str) -> Path | None:
    """Return the campaign file of this folder with that name; None if there is none. Raises CommandError: several."""
    files = [(path, each) for path, each in find_campaign_files(Path()) if isinstance(each, CampaignConfig)]
    found = [path for path, config in files if config.name == name]
    if len(found) > 1:
        raise CommandError(
            f"{found[0]} and {found[1]} are both called “{safe_text(name, 60)}”", "name the file instead of --name"
        )
    return found[0] if found else None


def _find_named_ledger(name: str, *, sandbox: bool) -> Path:
    """Return the ledger of this folder of a campaign that was begun without a campaign file."""
    if "/" not in name and (path := Path(f"{name}.sandbox.ledger" if sandbox else f"{name}.ledger")).is_file():
        return path
    names = [each.name for _, each in find_campaign_files(Path()) if isinstance(each, CampaignConfig)]
    meant = describe_nearest(name, names)
    raise CommandError(f"there is no campaign “{safe_text(name, 60)}” in this folder{meant}", format_command("list"))


def find_ledger(
    campaign: Path | None, ledger: Path | Database | None, *, sandbox: bool, name: str | None = None
) -> NamedLedger:
    """Find the ledger of CAMPAIGN.toml or of the campaign called `name`, or take the one that --ledger names.

    Raises:
        CommandError: none was given, or none has this name. ConfigError: the campaign file cannot be used.
    """
    if campaign is None and ledger is None and name is not None:
        campaign = _find_named_campaign(name)
        ledger = None if campaign is not None else _find_named_ledger(name, sandbox=sandbox)
    if campaign is None:
        if ledger is None:
            advice = "name its file, such as campaign.toml; or: --ledger NAME.ledger, or --name NAME"
            raise CommandError("no campaign was given", advice)
        location = name_ledger_campaign(ledger, name) if name is not None else ledger
        return NamedLedger(location, name_ledger(location, None, sandbox=False))
    try:
        config = load_campaign(campaign, {_NAME: name})
    except ConfigError:
        if not isinstance(ledger, Path):
            raise
        return NamedLedger(ledger, name_ledger(ledger, None, sandbox=False))  # it is enough by itself
    if ledger is not None:
        location = name_ledger_campaign(ledger, config.name)
    else:
        location = config.sandbox_ledger if sandbox else config.ledger_location
    words = ["--ledger", str(ledger)] if ledger is not None else ["--sandbox"] if sandbox else []
    if load_campaign(campaign).name != config.name:
        words = ["--name", config.name, *words]
    has_relay = sandbox or config.relay is not None or config.provider is not None or config.relays
    bulk = format_command("bulk", campaign, *words, *typed().env_file) if has_relay else ""
    provider = None if config.relays else config.provider
    reference = name_ledger(location, campaign, sandbox=sandbox and ledger is None, name=name)
    return NamedLedger(location, reference, bulk, campaign, provider, config.retention, config.name)


def ledger_options(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """Add CAMPAIGN.toml, --name, --ledger and --sandbox; the first parameter is the `NamedLedger` that they name."""

    @campaign_argument()
    @config_options(_NAME)
    @ledger_option
    @sandbox_option
    @env_file_option
    @wraps(command)
    def find_and_call(
        campaign: Path | None, name: str | None, ledger: Path | Database | None, sandbox: bool, **options: Any
    ) -> ExitCode:
        where = find_ledger(campaign, ledger, sandbox=sandbox, name=name)
        try:
            return command(where, **options)
        except LedgerEmpty as error:
            if campaign is not None or not where.bulk:
                raise
            raise CommandError(str(error), f"begin the campaign: {where.bulk}") from None

    return find_and_call


def make_cli_relay(
    url: str | None, *, provider: str | None = None, user: str | None = None, sender: str | None = None,
    ca_file: Path | str | None = None, password_command: str | None = None, interactive: bool = False, **settings: Any,
) -> Relay:  # fmt: skip
    """Make a relay; ask for its password when the URL names a user. What stands beside the URL goes before it.

    Args:
        url, provider: one of them at least.
        sender: the From, whose address is the user of a provider that has no other.
        interactive: someone waits at a terminal, so what is slow before the content is sent fails sooner.
        settings: as `make_relay` takes them.
    Raises:
        CommandError: no source has the password. ConfigError, InvalidArgument: as `make_relay` does.
    """
    from asyncsmtp.bulk.open_campaign import make_relay  # late: `--help` needs no relay

    warn_of_key_log()
    if provider is not None or user is not None:
        url = _complete_url(url, provider, user, sender)
    relay = make_relay(
        url or "", CommandSecrets(password_command), ca_file=Path(ca_file) if ca_file else None, **settings
    )
    return with_interactive_timeouts(relay) if interactive else relay


def _complete_url(url: str | None, provider: str | None, user: str | None, sender: str | None) -> str:
    """Return the URL of the relay that --relay, --provider and --user name; look up a domain."""
    from asyncsmtp.bulk.setup.provider_relay import (  # late: few commands name a provider
        complete_relay_url,
        find_submission_url,
        require_user,
    )
    from asyncsmtp.client.config.provider_presets import find_preset

    if url is None and provider is not None and find_preset(provider) is None:
        url = asyncio.run(find_submission_url(provider))
    url = complete_relay_url(url, provider, user, sender)
    require_user(url, provider)
    return url


def resolve_cli_provider(config: CampaignConfig) -> CampaignConfig:
    """Return the configuration with the relays of providers that are named by domains; outside of an event loop."""
    return asyncio.run(config.resolve_providers()) if config.has_unresolved_provider else config


def make_cli_relays(config: CampaignConfig, *, silent: bool = False) -> list[RelayConfig]:
    """Return the relays of the campaign, the first one first, with their passwords.

    Args:
        silent: nobody at the terminal is asked for a password.
    Raises:
        CommandError: there is none, or no source has a password.
    """
    if not config.relay_configs:
        advice = (
            "add --relay smtp://user@host:587 or --provider gmail, or url = … under [relay]; to rehearse: --sandbox"
        )
        raise CommandError("no relay was given", advice)
    from asyncsmtp.bulk.open_campaign import make_relays

    warn_of_key_log()
    return make_relays(config, lambda each: CommandSecrets(each.password_command or config.password_command, silent))


def with_interactive_timeouts(relay: Relay) -> Relay:
    """Return the relay with the time-outs of someone who waits at a terminal."""
    from asyncsmtp.client.config.relay import Timeouts

    return replace(relay, timeouts=Timeouts.interactive())


def warn_of_key_log() -> None:
    """Warn that SSLKEYLOGFILE is set. The standard library honours it: whoever has that file can read the session."""
    if "SSLKEYLOGFILE" in os.environ:
        console.print_warning("warning: SSLKEYLOGFILE is set, so the keys of this session are written to a file")
