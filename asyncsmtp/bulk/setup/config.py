"""Configuration of a campaign: one declaration of each key, and what is made of a file, of options and of parameters.

A field of `CampaignConfig` declares everything about its key: the name in the campaign file, the option, the
environment variable (after the option), the type and its check, the default, and the help. `--help`,
`docs/reference/settings.md`, and the errors for a misspelt key are made from that; a new key is declared here and
nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from datetime import datetime
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.setup import config_types as types
from asyncsmtp.bulk.setup.config_types import (
    STDIN,
    Choice,
    Count,
    DkimConfig,
    Key,
    RelayConfig,
    SmimeConfig,
    UnsubscribeConfig,
    WarmupConfig,
    WrongType,
    declared_keys,
    describe_nearest,
    setting,
)
from asyncsmtp.errors import ConfigError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Ledger
    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.bulk.running.schedule import Window
    from asyncsmtp.client.config.login_config import TokenSource
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.protocol.auth.auth import Secret

__all__ = [
    "EMAIL",
    "KEYS",
    "SECTIONS",
    "CampaignConfig",
    "Rows",
    "build_config",
    "check_password",
    "check_path_argument",
    "check_token",
    "config_from_parameters",
    "load_config",
    "name_ledger_campaign",
    "read_campaign_file",
    "relay_settings",
    "split_ledger",
    "split_recipients",
]

EMAIL = "email"  # this name of [columns] is also that of the column with the addresses
_TEMPLATE_SUFFIXES = (".txt", ".html", ".htm", ".md")
MAX_FILE_SIZE = 1024 * 1024  # bytes
Rows = Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]

_SECRETS = frozenset({"password", "passwd", "passphrase", "secret", "token", "api_key", "apikey"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignConfig:
    """Everything a campaign is made of, checked for form; no file but the campaign's own has been read.

    Attributes:
        folder: of templates, attachments and the ledger.
        source: the campaign file; None when everything came from options or parameters.
        recipients: a file; None when a program passes the rows.
        text, html: a file; a program may pass the source itself as a `str`.
        retry_for, retry_delay: seconds; None for the defaults of `Retry`.
        shared_rates: None shares the limits of long periods, if they can be shared.
    """

    # fmt: off
    folder: Path
    source: Path | None
    recipients: Path | None = setting("campaign.recipients", types.check_recipients,
        "Recipients: a CSV, JSON lines, .xlsx, or - for stdin.", "--recipients", default=MISSING, metavar="CSV")
    html: Path | str | None = setting("campaign.html", types.check_path,
        "Template of the HTML part (Jinja2), or Markdown by its name.", "--template", metavar="FILE",
        former=("--html",))
    text: Path | str | None = setting("campaign.text", types.check_path,
        "Template of the plain text part (Jinja2).", "--text-template", metavar="FILE", former=("--text",))
    from_: str = setting("campaign.from", types.check_text,
        "Sender (Jinja): 'Example News <news@example.org>'.", "--from", default=MISSING, metavar="MAILBOX")
    subject: str = setting("campaign.subject", types.check_text,
        "Subject (Jinja2).", "--subject", default=MISSING, metavar="TEXT")
    to_name: str | None = setting("campaign.to_name", types.check_text, "Name in To.", "--to-name", metavar="TEXT")
    cc: str | None = setting("campaign.cc", types.check_text,
        "Further recipients of each row's message (Jinja): '{{ manager }}'.", "--cc", metavar="MAILBOX")
    bcc: str | None = setting("campaign.bcc", types.check_text,
        "Further recipients whom nobody sees (Jinja).", "--bcc", metavar="MAILBOX")
    reply_to: str | None = setting("campaign.reply_to", types.check_text,
        "Address for answers (Jinja).", "--reply-to", metavar="MAILBOX")
    return_path: str | None = setting("campaign.return_path", types.check_text,
        "Address for bounces: 'bounces+{{ token }}@example.org'.", "--return-path", metavar="MAILBOX")
    webhook: str | None = setting("campaign.webhook", types.check_webhook,
        "URL that each outcome is posted to; ASYNCSMTP_WEBHOOK_SECRET signs the requests.", "--webhook", metavar="URL")
    suppression: tuple[Path, ...] = setting("campaign.suppression", types.check_path_or_paths,
        "Suppression list, whose addresses get nothing.", "--suppression", default=(), metavar="LIST", multiple=True)
    suppress_rejected: bool = setting("campaign.suppress_rejected", types.check_flag,
        "Add whom the relay refuses as unknown to the first list.", default=False)
    retention: float | None = setting("campaign.retention", types.parse_duration,
        "Remove addresses and cells from the ledger so long after the end of the campaign (90d).")
    name: str = setting("campaign.name", types.check_campaign_name,
        "Name of the campaign and its ledger (that of the recipients).", "--name", default=MISSING, metavar="NAME")
    email_column: str | None = setting("campaign.email_column", types.check_text,
        "Column with the addresses; detected if omitted.", "--email-column", metavar="COLUMN",
        former=("campaign.email",))
    columns: Mapping[str, str] = setting("columns", types.check_columns,
        "Name of a column in the templates: name='Full name'.",
        "--column", default=dict, metavar="NAME=COLUMN", multiple=True)
    delimiter: str | None = setting("campaign.delimiter", types.check_delimiter,
        "Delimiter of the CSV, one of , ; | tab; detected if omitted.", "--delimiter", metavar="CHARACTER")
    where: str | None = setting("campaign.where", types.check_text,
        "Only rows that meet this: 'country == \"AT\" and plan != \"free\"'.", "--where", metavar="CONDITION")
    offset: int = setting("campaign.offset", Count(0, None), "Skip the first rows.", "--offset", default=0, metavar="N")
    encoding: str | None = setting("campaign.encoding", types.check_text,
        "Encoding of the CSV, such as cp1252; detected if omitted.", "--encoding", metavar="NAME")
    skip_lines: int | None = setting("campaign.skip_lines", Count(0, None),
        "Lines above the column names, as of a title; found if omitted.", "--skip-lines", metavar="N")
    sheet: str | None = setting("campaign.sheet", types.check_sheet, "Sheet of a workbook.", "--sheet", metavar="NAME")
    trim: bool = setting("campaign.trim", types.check_flag,
        "Take blanks off both ends of each cell of a CSV or workbook.", default=True)
    repair: bool = setting("campaign.repair", types.check_flag,
        "Repair address cells such as 'Ann <ann@x.org>', 'mailto:…', 'a@x.org; b@y.org'.", "--repair", default=False)
    duplicates: str = setting("campaign.duplicates", Choice(("first", "send", "group")),
        "What several rows of a mailbox get: one message, one each, one for all.", "--duplicates", default="first")
    inline_styles: bool = setting("campaign.inline_styles", types.check_flag,
        "Copy the rules of <style> to the elements.", default=False)
    text_from_html: bool = setting("campaign.text_from_html", types.check_flag,
        "Make a missing text part from the HTML.", default=False)
    attachments: tuple[str, ...] = setting("campaign.attachments", types.check_attachments,
        "Files to attach, also as *.pdf; one with {{ }} differs by row, and begins with a folder.", default=())
    optional_attachments: tuple[str, ...] = setting("campaign.optional_attachments", types.check_attachments,
        "Files to attach where they exist, written as attachments are.", default=())
    inline: Mapping[str, Path] = setting("campaign.inline", types.check_path_table,
        'Images by name, for <img src="cid:NAME">.', default=dict)
    headers: Mapping[str, str] = setting("campaign.headers", types.check_table,
        "Further header fields (Jinja2).", default=dict)
    delimiters: tuple[str, ...] = setting("template.delimiters", types.check_delimiters,
        'Marks round values instead of {{ }}, such as ["<<", ">>"], with <% %> and <# #>.', default=())
    relay: str | Relay | None = setting("relay.url", types.check_relay,
        "Relay: smtp://user@host:587, smtps://user@host, …?security=none.", "--relay", metavar="URL")
    provider: str | None = setting("relay.provider", types.check_provider,
        "Provider instead of a URL: gmail, ses, …, or a domain with SRV records.", "--provider", metavar="NAME")
    user: str | None = setting("relay.user", types.check_text,
        "User name of the login; else that of the URL or the provider.", "--user", metavar="NAME")
    sessions: int = setting("relay.sessions", Count(), "Maximum connections (10).", "--sessions", default=10)
    max_per_connection: int | None = setting("relay.max_per_connection", Count(),
        "Messages after which a connection is replaced.", "--max-per-connection", metavar="N")
    dialogue: str | None = setting("relay.dialogue", Choice(("lockstep", "pipelined", "streamed")),
        "How many commands are sent before their replies arrive.", "--dialogue")
    ca_file: Path | None = setting("relay.ca_file", types.check_path,
        "CA certificates to trust beside the system's.", "--ca-file", metavar="FILE")
    password_command: str | None = setting("relay.password_command", types.check_text,
        "Command that prints the password, such as 'pass show mail'.", "--password-command", metavar="COMMAND")
    source_address: str | None = setting("relay.source_address", types.check_text,
        "Address of this machine to connect from.")
    proxy: str | None = setting("relay.proxy", types.check_text, "URL of a proxy: socks5://user@host:1080.")
    pins: tuple[str, ...] = setting("relay.pin", types.check_text_or_texts,
        "SHA-256 of certificates that the relay may have.", default=())
    client_cert: Path | None = setting("relay.client_cert", types.check_path, "File of a client certificate, PEM.")
    client_key: Path | None = setting("relay.client_key", types.check_path, "File of its private key, PEM.")
    relays: tuple[RelayConfig, ...] = setting("relays", types.check_relays,
        "Further relays that share the messages.", default=())
    concurrency: int = setting("limits.concurrency", Count(),
        "Maximum concurrent messages (100).", "--concurrency", default=100)
    in_doubt: str = setting("retry.in_doubt", Choice(("hold", "resend")),
        "Policy for rows whose reply was lost (hold).", "--in-doubt", default="hold")
    rate: tuple[Rate, ...] = setting("limits.rate", types.check_rates,
        "Limits: '30/s, 2000/day'; each holds, and a day's is remembered.", "--rate", default=(), metavar="RATES")
    domain_rates: Mapping[str, tuple[Rate, ...]] = setting("limits.domain", types.check_domain_rates,
        "Limits by domain of the recipients.", default=dict)
    provider_rates: Mapping[str, tuple[Rate, ...]] = setting("limits.provider", types.check_domain_rates,
        "Limits by domain of the recipients' MX host.", default=dict)
    shared_rates: bool | Path | None = setting("limits.shared", types.check_flag_or_path,
        "Share limits with other campaigns; or the file for that.")
    name_server: str | None = setting("limits.name_server", types.check_text, "Name server for MX lookups.")
    adaptive: bool = setting("limits.adapt", types.check_flag,
        "Slow down when the relay replies 421 or 45x.", default=True)
    window: tuple[Window, ...] = setting("limits.window", types.check_windows,
        "When to send: 'Mon-Fri 09:00-17:00 Europe/Vienna'; separate several by semicolons.",
        "--window", default=(), metavar="WINDOW")
    time_zone_column: str | None = setting("limits.time_zone_column", types.check_text,
        "Column with the recipient's time zone, for the window.", "--time-zone-column", metavar="COLUMN")
    start_at: datetime | None = setting("limits.start_at", types.check_moment,
        "Send nothing before: '2026-12-01 09:00', or '09:00'.", "--start-at", metavar="TIME")
    spread_until: datetime | None = setting("limits.spread_until", types.check_moment,
        "Send at an even rate, the last message at this time.", "--spread-until", metavar="TIME")
    retry_for: float | None = setting("retry.for", types.parse_duration,
        "Reject what is still refused with 4xx after this long (4d).", "--retry-for", metavar="SPAN")
    retry_delay: float | None = setting("retry.delay", types.parse_duration,
        "Wait before the second attempt; doubled for each further one (5m).", "--retry-delay", metavar="SPAN")
    attempts: int | None = setting("retry.attempts", Count(),
        "Maximum attempts for each recipient.", "--attempts", metavar="N")
    ledger: Path | Database | None = setting("campaign.ledger", types.check_ledger,
        "Ledger, a file or postgresql://… (NAME.ledger in the folder).", "--ledger", metavar="FILE|URL")
    warmup: WarmupConfig | None = setting("warmup", types.check_warmup,
        "Messages of a day through each relay, which grow.")
    unsubscribe: UnsubscribeConfig | None = setting("unsubscribe", types.check_unsubscribe,
        "List-Unsubscribe of each message.")
    dkim: tuple[DkimConfig, ...] = setting("dkim", types.check_dkim, "DKIM keys that sign each message.", default=())
    smime: SmimeConfig | None = setting("smime", types.check_smime, "S/MIME certificate that signs each message.")
    # fmt: on

    @property
    def ledger_location(self) -> Path | Database:
        """Location of the ledger: NAME.ledger in the folder, unless it is named otherwise."""
        if self.ledger is None:
            return self.folder / f"{self.name}.ledger"
        return name_ledger_campaign(self.ledger, self.name)

    @property
    def sandbox_ledger(self) -> Path:
        """Path of the ledger of a rehearsal: a file, whatever the campaign itself has."""
        return self.folder / f"{self.name}.sandbox.ledger"

    @property
    def relay_configs(self) -> tuple[RelayConfig, ...]:
        """Relays, that of [relay] first, then those of [[relays]]; empty if there are none."""
        main = RelayConfig(
            relay=self.relay or "",
            provider=self.provider,
            user=self.user,
            sessions=self.sessions,
            max_per_connection=self.max_per_connection,
            password_command=self.password_command,
        )
        given = self.relays if self.relay is None and self.provider is None else (main, *self.relays)
        if not any(each.provider or each.user for each in given):
            return given
        from asyncsmtp.bulk.setup.provider_relay import complete_relay  # late: few campaigns name one

        return tuple(complete_relay(each, self.from_) for each in given)

    @property
    def has_unresolved_provider(self) -> bool:
        """True if the relay of a provider is to be looked up: it is named by its domain."""
        pairs = [(self.relay, self.provider), *((each.relay, each.provider) for each in self.relays)]
        names = [provider for relay, provider in pairs if provider is not None and not relay]
        if not names:
            return False
        from asyncsmtp.client.config.provider_presets import find_preset

        return any(find_preset(name) is None for name in names)

    async def resolve_providers(self) -> Self:
        """Look up the providers that are named by their domains; return the configuration with their URLs.

        Raises:
            ConfigError: a domain has no such record, or it cannot be looked up.
        """
        from asyncsmtp.bulk.setup.provider_relay import find_relay_url

        main = await find_relay_url(self.relay, self.provider, self.name_server)
        urls = [await find_relay_url(each.relay, each.provider, self.name_server) for each in self.relays]
        relays = (
            each if url is None else replace(each, relay=url) for each, url in zip(self.relays, urls, strict=True)
        )
        return replace(self, relay=main or self.relay, relays=tuple(relays))


KEYS: Mapping[str, Key] = declared_keys(CampaignConfig)
_RENAMED = {former: name for name, each in KEYS.items() for former in each.former if not former.startswith("--")}
_FIELDS: Mapping[str, Key] = {each.field: each for each in KEYS.values()}
_ORDER = (
    *("campaign", "template", "relay", "limits", "warmup", "relays", "columns"),
    *("unsubscribe", "smime", "dkim", "retry"),
)
SECTIONS: Mapping[str, list[str]] = {  # section -> its keys, none where the section is a table as a whole
    section: [name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")] for section in _ORDER
}


def name_ledger_campaign(location: Path | Database, name: str) -> Path | Database:
    """Return a ledger's location with the campaign in it: a database holds many campaigns, a file one.

    Raises:
        ConfigError: the URL names another campaign.
    """
    if isinstance(location, Path):
        return location
    if location.campaign not in ("", name):
        why = f"{location} is the ledger of another campaign than {name}"
        raise ConfigError(why, "leave out what follows the # in its URL")
    return replace(location, campaign=name)


def load_config(path: Path, options: Mapping[str, object] | None = None) -> CampaignConfig:
    """Read a campaign file; options by their names in TOML go before it. Raises ConfigError: it cannot be used."""
    return build_config(read_campaign_file(path), options or {}, path)


def build_config(
    file: Mapping[str, object], options: Mapping[str, object], source: Path | None = None
) -> CampaignConfig:
    """Make one value of what the file says and what the options and the environment say; the latter goes first.

    Args:
        file: what `read_campaign_file` returned, or nothing.
        options: by the same names; None where an option was not given.
        source: the campaign file.
    Raises:
        ConfigError: a value is not of its kind, or one that every campaign needs is missing.
    """
    given: dict[str, Any] = {KEYS[_RENAMED.get(name, name)].field: value for name, value in file.items()}
    chosen: dict[str, Any] = {
        KEYS[name].field: _check_option(KEYS[name], value) for name, value in options.items() if value not in (None, ())
    }
    if "columns" in chosen:  # each name by itself gives way
        chosen["columns"] = {**given.get("columns", {}), **chosen["columns"]}
    given |= chosen
    _set_email_column(
        given,
        f"{source}: " if source else "",
        "email_column in [campaign] (email_column=), or email in [columns] (columns=)",
    )
    if "recipients" not in given:
        raise _missing("recipients", "--recipients people.csv", source)
    if "html" not in given and "text" not in given:
        raise _missing("html or text", "--template message.html", source)
    if "from_" not in given:
        raise _missing("from", "--from 'News <news@example.org>'", source)
    if "subject" not in given:
        raise _missing("subject", "--subject 'News'", source)
    recipients: Path = given["recipients"]
    if recipients.name == STDIN and "name" not in given:
        raise ConfigError("recipients on standard input have no name", "add --name, which the ledger gets")
    given.setdefault("name", recipients.stem)
    return CampaignConfig(folder=source.parent if source else recipients.parent, source=source, **given)


def config_from_parameters(base: CampaignConfig | Path, given: Mapping[str, object]) -> CampaignConfig:
    """Make a configuration from the parameters of a program, by the names of the fields; None is not given.

    Args:
        base: a configuration whose values give way; or the folder of a campaign without one.
    Raises:
        TypeError: a parameter is unknown, or its value is of the wrong type. ConfigError: its value is wrong.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _FIELDS:
            raise TypeError(f"there is no parameter {name}={describe_nearest(name, _FIELDS, '{}=')}")
        if value is not None:
            values[name] = _check_parameter(name, value)
    if isinstance(base, CampaignConfig):
        return replace(base, **values)
    _set_email_column(values, "", "email_column=, or in columns=")
    if not values.keys() & {"html", "text"}:
        raise ConfigError("there is no message", "pass text= or html=, the template or its Path")
    recipients = values.setdefault("recipients", None)
    if recipients is None and "name" not in values:
        raise ConfigError("recipients that are not a file give no name", "pass name=, which the ledger gets")
    for name in ("from_", "subject"):
        if name not in values:
            raise TypeError(f"{name}= must be text; it is None")
    values.setdefault("name", getattr(recipients, "stem", ""))
    return CampaignConfig(folder=base, source=None, **values)


def _check_parameter(name: str, value: object) -> object:
    if name in ("text", "html") and isinstance(value, str):  # the template itself; a Path is a file
        if "\n" not in value and (value.lower().endswith(_TEMPLATE_SUFFIXES) or isfile(value)):
            raise ConfigError(
                f"{name}= “{safe_text(value, 120)}” names a file; a str is the template itself",
                f"write Path({value!r})",
            )
        return value
    if (
        name in ("retry_for", "retry_delay", "retention")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ):
        if value != value:
            raise ConfigError(f"{name}= is not a number", "correct the argument")
        return float(value)
    try:
        return _FIELDS[name].check(value, Path())
    except WrongType as error:
        raise TypeError(f"{name}= {error}; it is {type(value).__name__}") from None
    except ValueError as error:
        raise ConfigError(f"{name}= {error}", "correct the argument") from None


def _set_email_column(given: dict[str, Any], where: str, names: str) -> None:
    """Take the column with the addresses from [columns], where it is named among the others."""
    mapped = given.get("columns", {}).get(EMAIL)
    if mapped is not None and given.setdefault("email_column", mapped) != mapped:
        raise ConfigError(
            f"{where}the addresses are in “{safe_text(given['email_column'], 60)}” and in “{safe_text(mapped, 60)}”",
            f"name that column once: {names}",
        )


def _check_option(declared: Key, value: object) -> object:
    try:
        return declared.check(value, Path())
    except ValueError as error:
        advice = "correct the option, then run the same command again"
        raise ConfigError(f"{declared.options[0]} {error}", advice) from None


def _missing(what: str, option: str, source: Path | None) -> ConfigError:
    if source is None:
        return ConfigError(
            f"there is no campaign file and no {option.split()[0]}",
            f"add {option}; or begin with a sample: asyncsmtp init demo && asyncsmtp bulk demo/campaign.toml --sandbox",
        )
    return ConfigError(
        f"{source}, [campaign]: {what} is missing", f"add it to the file, or on the command line: {option}"
    )


# Arguments of a program.


def check_path_argument(name: str, value: object) -> Path:
    """Return a path; TypeError names the parameter."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}= must be a path; it is {type(value).__name__}")
    if "\0" in (path := os.fspath(value)):
        raise ConfigError(f"{name}= “{safe_text(path, 120)}” has a NUL character", "correct the argument")
    return Path(path)


def check_password(value: object) -> str | Secret | None:
    """Return a password; TypeError if it cannot be one."""
    from asyncsmtp.protocol.auth.auth import Secret

    if value is not None and not isinstance(value, str | Secret):
        raise TypeError(f"password= must be text or a Secret; it is {type(value).__name__}")
    return value


def check_token(value: object, password: object) -> str | Secret | TokenSource | None:
    """Return a token or its source; TypeError if it cannot be one, ConfigError if there is a password as well."""
    from asyncsmtp.protocol.auth.auth import Secret

    if value is None or isinstance(value, str | Secret) or callable(value):
        if value is not None and password is not None:
            raise ConfigError("there is a password and a token", "pass password= or token=, one of them")
        return value
    raise TypeError(f"token= must be text, a Secret or an async function; it is {type(value).__name__}")


def split_recipients(value: object) -> tuple[Path | None, Rows | None]:
    """Tell a file from rows."""
    if isinstance(value, str | os.PathLike):
        return Path(value), None
    if isinstance(value, Mapping | bytes) or not isinstance(value, Iterable | AsyncIterable):
        raise TypeError(f"recipients= must be a path or an iterable of mappings; it is {type(value).__name__}")
    return None, value


def split_ledger(value: object) -> tuple[str | Path | Database | None, Ledger | None]:
    """Tell a location from a ledger that is open."""
    if value is None or isinstance(value, str | Database):
        return value, None
    if isinstance(value, os.PathLike):
        return Path(value), None
    if isinstance(value, type) or not callable(getattr(value, "claim", None)):
        shown = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"ledger= must be a path, a URL or a Ledger; it is {shown}")
    return None, value  # type: ignore[return-value]  # a protocol of many methods; `claim` stands for them


def relay_settings(value: object) -> dict[str, Any]:
    """Return the fields of the configuration for one relay or several; nothing for None.

    They replace a provider and its user as well.
    """
    from asyncsmtp.client.config.relay import Relay

    if value is None:
        return {}
    if isinstance(value, str | Relay):
        return {"relay": value, "relays": (), "provider": None, "user": None}
    given = [value] if isinstance(value, RelayConfig) else value
    if not isinstance(given, Sequence) or not all(isinstance(each, str | Relay | RelayConfig) for each in given):
        raise TypeError(f"relay= must be a URL, a Relay, or several of them; it is {type(value).__name__}")
    several = [each if isinstance(each, RelayConfig) else RelayConfig(relay=each) for each in given]
    return {"relay": None, "relays": tuple(several), "provider": None, "user": None}


# The campaign file: every key known, every value of its kind, every path relative to the file.


def read_campaign_file(path: Path) -> dict[str, object]:
    """Read a campaign file; return its values by the names of `KEYS`.

    Raises:
        ConfigError: it cannot be read, is no TOML, or holds a key that is unknown, misspelt, of another
            kind, or a secret: nothing is ever silently ignored.
    """
    return dict(_check_document(path, _parse_file(path)))


def _parse_file(path: Path) -> Mapping[str, object]:
    import tomllib  # late: most commands need no campaign file

    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
        if len(content) > MAX_FILE_SIZE:
            advice = "name the campaign.toml, not the recipients"
            raise ConfigError(f"{path} is too large for a campaign file", advice)
        return tomllib.loads(content.decode("utf-8-sig"))
    except ConfigError:  # it is a ValueError too
        raise
    except IsADirectoryError:
        advice = f"name the file in it: {path / 'campaign.toml'}"
        raise ConfigError(f"{path} is a folder, not a campaign file", advice) from None
    except FileNotFoundError:
        advice = "correct the name, or begin with a sample: asyncsmtp init demo"
        raise ConfigError(f"there is no campaign file {path}", advice) from None
    except OSError as error:
        advice = "correct the path or its permissions, then run the same command again"
        raise ConfigError(f"{safe_text(str(path))}: {(error.strerror or str(error)).lower()}", advice) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8", "save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        advice = "correct that line of the file"
        raise ConfigError(f"{path} is not TOML: {safe_text(str(error), 200)}", advice) from error
    except (RecursionError, ValueError) as error:  # brackets without end; a number of more than 4,300 digits
        why = "is nested too deeply" if isinstance(error, RecursionError) else "has a number that is too long"
        raise ConfigError(f"{path} {why}", "name the campaign.toml") from None


def _check_document(path: Path, document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for section, table in document.items():
        if section in KEYS:
            yield section, _check_value(path, section, "", table)
            continue
        if section not in SECTIONS or not isinstance(table, dict):
            raise _unknown_section(path, section, table)
        for name, value in table.items():
            key = _RENAMED.get(f"{section}.{name}", f"{section}.{name}")
            if key != f"{section}.{name}" and key.partition(".")[2] in table:
                now = key.partition(".")[2]
                raise ConfigError(f"{path}, [{section}]: {name} is the former name of {now}", "leave one of them out")
            yield key, _check_value(path, section, name, value)


def _check_value(path: Path, section: str, name: str, value: object) -> object:
    key = f"{section}.{name}" if name else section
    key = _RENAMED.get(key, key)
    if name.lower() in _SECRETS:
        raise _secret(path, section, name)
    if key not in KEYS:
        raise _unknown_key(path, section, name)
    try:
        return KEYS[key].check(value, path.parent)
    except ValueError as error:
        where = f"[{section}] {name}".rstrip()
        raise ConfigError(f"{path}, {where}: {error}", "correct it in the file, then run the command again") from None


def _unknown_section(path: Path, section: str, table: object) -> ConfigError:
    advice = f"the sections are {', '.join(f'[{name}]' for name in SECTIONS)}"
    shown = safe_text(section, 60)
    if isinstance(table, dict):
        return ConfigError(f"{path}: unknown section [{shown}]{describe_nearest(section, SECTIONS, '[{}]')}", advice)
    for home, names in SECTIONS.items():
        if section in names:
            return ConfigError(f"{path}: “{shown}” stands before any section", f"put it under [{home}]")
    return ConfigError(f"{path}: unknown key “{shown}”, before any section", advice)


def _unknown_key(path: Path, section: str, name: str) -> ConfigError:
    meant = describe_nearest(name, SECTIONS[section])
    for home, names in SECTIONS.items():
        meant = meant or describe_nearest(name, names, f"“{{}}” in [{home}]")
    sentence = f"{path}, [{section}]: unknown key “{safe_text(name, 60)}”{meant}"
    return ConfigError(sentence, f"[{section}] may have {', '.join(SECTIONS[section])}")


def _secret(path: Path, section: str, name: str) -> ConfigError:
    """Refuse a secret in the file, whoever can read it, and more loudly when others can."""
    exposed = path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    loudly = "; other users of this machine can read it there, so change it" if exposed else ""
    return ConfigError(
        f"{path}, [{section}] {name}: a campaign file holds no secrets{loudly}",
        "take it out; set ASYNCSMTP_PASSWORD, or password_command in [relay]",
    )
