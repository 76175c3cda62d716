"""Types of the configuration: the declaration of a key, the checks of values, and the sections that are tables.

A check takes a value as TOML, the command line or a program gave it, and the folder that relative paths start from. It
returns the value to use, or raises ValueError with what the value must be: `config` puts the name of the key, the
option or the parameter before that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from asyncsmtp.bulk.ledger.postgres import SCHEMES, Database
from asyncsmtp.errors import InvalidArgument, MessageError, RecipientError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.bulk.rate_limit.warmup import Warmup
    from asyncsmtp.bulk.running.schedule import Window
    from asyncsmtp.client.config.relay import Relay

__all__ = [
    "STDIN",
    "Choice",
    "Count",
    "DkimConfig",
    "Key",
    "RelayConfig",
    "SmimeConfig",
    "UnsubscribeConfig",
    "WarmupConfig",
    "WrongType",
    "declared_keys",
    "describe_nearest",
    "parse_duration",
    "resolve_path",
    "setting",
]

STDIN = "-"  # recipients that are read from standard input
_NOT_CSV = {".json": "JSON, not JSON lines", ".zip": "an archive", ".gz": "compressed", ".pdf": "a PDF"}
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6}(?:\.[0-9]{1,3})?)s)?")
_TABLE_FORM = 'must be a table of texts, such as { logo = "logo.png" }'
_SCHEME = re.compile(r"[A-Za-z][\w+.-]+://|:memory:")
_T = TypeVar("_T")
_Given = TypeVar("_Given")
MIN_YEAR, MAX_YEAR = 1971, 9998  # of a time: every time zone can show it
Check = Callable[[object, Path], object]


class WrongType(ValueError):
    """A value of the wrong type. A file or an option that has one is wrong; a program that passes one is a bug."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration.

    Attributes:
        name: in TOML, `section.name`; a section that is a table as a whole has no dot.
        check: makes the value.
        help: for `--help` and the documentation, one sentence.
        options: of the command line, the first one names the environment variable; none: the file only.
        metavar: the value's name in `--help`.
        multiple: the option may be repeated.
        former: names, of options and in TOML, that are still understood, and shown nowhere.
        field: the attribute of the configuration, and the parameter of `Campaign`.
        default: for the documentation and for objects made without the key; MISSING where it is required.
    """

    name: str
    check: Check
    help: str
    options: tuple[str, ...] = ()
    metavar: str | None = None
    multiple: bool = False
    former: tuple[str, ...] = ()
    field: str = ""
    default: object = None

    @property
    def variable(self) -> str:
        """Name of the environment variable; "" if there is no option."""
        return "ASYNCSMTP_" + self.options[0].removeprefix("--").replace("-", "_").upper() if self.options else ""


def setting(
    name: str, check: Check, text: str, *options: str, default: object = None, metavar: str | None = None,
    multiple: bool = False, former: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """Declare a key as a dataclass field; `default` is MISSING for one that is required, `dict` for an empty dict."""
    metadata = {"key": Key(name, check, text, options, metavar, multiple, former)}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def declared_keys(config: Any) -> Mapping[str, Key]:
    """Return the keys that the fields of a dataclass declare, by their names in TOML."""
    found = {}
    for each in fields(config):
        if declared := each.metadata.get("key"):
            default = None if each.default_factory is not MISSING else each.default
            found[declared.name] = replace(declared, field=each.name, default=default)
    return found


def describe_nearest(word: str, words: Iterable[str], form: str = "“{}”") -> str:
    """Return `; did you mean “word”?` for a misspelt word; "" if none of the words is near."""
    from difflib import get_close_matches  # late: only an error needs it

    found = get_close_matches(word, list(words), 1)
    return f"; did you mean {form.format(found[0])}?" if found else ""


# Checks of single values.


def resolve_path(path: str | Path, folder: Path, name: str = "") -> Path:
    """Return the path of a file: `~` and `~user` are homes, and what is relative starts from `folder`.

    Raises:
        ValueError: no file can have that path; `name` of a key is put before it.
    """
    shown = f"{name}: “{safe_text(str(path), 120)}”".removeprefix(": ")
    if "\0" in str(path):
        raise ValueError(f"{shown} holds a NUL character, which is in no path: take it out")
    try:
        return folder / Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{shown} begins with a home that is not known here: write the path in full") from None


def parse_duration(value: object, folder: Path | None = None) -> float:
    """Return the seconds of `90s`, `5m`, `4h`, `1h30m` or `4d`; ValueError says what a duration must be."""
    text = value.replace(" ", "").lower() if isinstance(value, str) else ""
    found = _DURATION.fullmatch(text) if text else None
    if found is None:
        kind = ValueError if isinstance(value, str) else WrongType
        raise kind('must be a span of time in quotes, such as "90s", "5m", "1h30m" or "4d"')
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=rest).total_seconds()


def check_text(value: object, folder: Path) -> str:
    if not isinstance(value, str):
        raise WrongType("must be text, in quotes")
    if not value.strip():
        raise ValueError("must be text, in quotes")
    return value


def check_sheet(value: object, folder: Path) -> str:
    return check_text(str(value) if type(value) is int and value > 0 else value, folder)


def check_path(value: object, folder: Path) -> Path:
    return resolve_path(value if isinstance(value, Path) else check_text(value, folder), folder)


def check_flag(value: object, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise WrongType("must be true or false")
    return value


@dataclass(frozen=True, slots=True)
class Count:
    """The check of a whole number in a range."""

    minimum: int = 1
    maximum: int | None = 10_000

    def __call__(self, value: object, folder: Path) -> int:
        form = f"must be a whole number from {self.minimum}" + (f" to {self.maximum}" if self.maximum else "")
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongType(form)
        if value < self.minimum or (self.maximum is not None and value > self.maximum):
            raise ValueError(form)
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """The check of one word out of several."""

    words: tuple[str, ...]

    def __call__(self, value: object, folder: Path) -> str:
        if not isinstance(value, str) or value not in self.words:
            kind = ValueError if isinstance(value, str) else WrongType
            raise kind(f"must be one of {', '.join(self.words)}")
        return str(value)


def check_texts(value: object, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise WrongType('must be a list of texts, such as ["terms.pdf"]')
    return tuple(check_text(item, folder) for item in value)


def check_attachments(value: object, folder: Path) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        value = [str(item) if isinstance(item, Path) else item for item in value]
    paths = check_texts(value, folder)
    for path in paths:
        resolve_path(path, folder)
    return paths


def check_text_or_texts(value: object, folder: Path) -> tuple[str, ...]:
    return (check_text(value, folder),) if isinstance(value, str) else check_texts(value, folder)


def check_path_or_paths(value: object, folder: Path) -> tuple[Path, ...]:
    return tuple(check_path(item, folder) for item in (value if isinstance(value, list | tuple) else (value,)))


def check_flag_or_path(value: object, folder: Path) -> bool | Path:
    return value if isinstance(value, bool) else check_path(value, folder)


def _check_names(value: object, form: str) -> Mapping[str, object]:
    """Return a mapping whose keys are texts, as those of TOML always are; `form` says what it must be."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise WrongType(form)
    return value


def check_table(value: object, folder: Path) -> dict[str, str]:
    return {name: check_text(item, folder) for name, item in _check_names(value, _TABLE_FORM).items()}


def check_path_table(value: object, folder: Path) -> dict[str, Path]:
    return {name: check_path(item, folder) for name, item in _check_names(value, _TABLE_FORM).items()}


def check_campaign_name(value: object, folder: Path) -> str:
    name = check_text(value, folder)
    if len(name) > 100 or name.startswith((".", " ")) or not all(c.isalnum() or c in "-_. " for c in name):
        raise ValueError(
            f"“{safe_text(name, 60)}” must be letters, digits, - and _ only, since it names the ledger file"
        )
    return name


def check_recipients(value: object, folder: Path) -> Path:
    if str(value) == STDIN:
        return Path(STDIN)
    path = check_path(value, folder)
    if kind := _NOT_CSV.get(path.suffix.lower()):
        raise ValueError(f"{path} is {kind}, which this version cannot read: save it as CSV (UTF-8)")
    return path


def check_delimiter(value: object, folder: Path) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(str(value), value)
    if not isinstance(text, str) or text not in (",", ";", "\t", "|"):
        raise ValueError("must be one of , ; | tab")
    return text


def check_delimiters(value: object, folder: Path) -> tuple[str, ...]:
    """Check the marks of values in templates, or of values, statements and comments."""
    from asyncsmtp.mail.templates.environment import Delimiters  # late: few campaigns have others

    given = check_texts(value, folder)
    _parse(Delimiters.parse, given)
    return given


def check_ledger(value: object, folder: Path) -> Path | Database:
    if isinstance(value, Database):
        return value
    if str(value).startswith(SCHEMES):
        return _parse(Database.parse, str(value))
    if scheme := _SCHEME.match(str(value)):  # what follows may hold a password
        raise ValueError(f"{scheme[0]} is not supported: give a file, or postgresql://user@host/database")
    path = check_path(value, folder)
    if not path.name:
        raise ValueError(f"“{path}” is a folder: name a file")
    return path


def check_webhook(value: object, folder: Path) -> str:
    from asyncsmtp.bulk.running.webhook import check_url

    _parse(check_url, url := check_text(value, folder))
    return url


def check_columns(value: object, folder: Path) -> Mapping[str, str]:
    """Check names for columns: a table, or `NAME=COLUMN` several times as the command line has it."""
    from asyncsmtp.mail.templates.variables import is_variable_name

    form = 'must be names and columns, such as name = "Full name"'
    pairs: list[tuple[str, object]]
    if isinstance(value, Mapping):
        pairs = list(_check_names(value, form).items())
    elif isinstance(value, list | tuple) and all(isinstance(text, str) and "=" in text for text in value):
        pairs = [(name.strip(), column) for name, _, column in (text.partition("=") for text in value)]
    else:
        raise WrongType(f'{form}; on a command line: name="Full name"')
    found: dict[str, str] = {}
    for name, column in pairs:
        if not isinstance(column, str) or not column.strip():
            raise ValueError(f"“{safe_text(name, 60)}”: {form}")
        if not is_variable_name(name):
            raise ValueError(f"“{safe_text(name, 60)}” cannot be a name in a template: letters, digits and _ only")
        if found.setdefault(name, column.strip()) != column.strip():
            raise ValueError(f"“{safe_text(name, 60)}” is given two columns: leave one of them out")
    return found


# Checks of rates and times.


def check_rates(value: object, folder: Path) -> tuple[Rate, ...]:
    """Check `"30/s, 2000/day"`, or a list of such."""
    from asyncsmtp.bulk.rate_limit.rate import Rate

    found: list[Rate] = []
    for item in _items(value, Rate, '"30/s"'):
        found += [item] if isinstance(item, Rate) else _parse(Rate.parse_all, item)
    return tuple(found)


def check_windows(value: object, folder: Path) -> tuple[Window, ...]:
    """Check `"Mon-Fri 09:00-17:00 Europe/Vienna"`, or a list of such; from a command line separated by semicolons."""
    from asyncsmtp.bulk.running.schedule import Window

    found: list[Window] = []
    for item in _items(value, Window, '"Mon-Fri 09:00-17:00"'):
        found += [item] if isinstance(item, Window) else [_parse(Window.parse, part) for part in item.split(";")]
    return tuple(found)


def check_domain_rates(value: object, folder: Path) -> Mapping[str, tuple[Rate, ...]]:
    """Check the tables below `limits.domain` or `limits.provider`: each has a rate."""
    form = 'must be tables such as [limits.domain."example.com"] or [limits.provider."example.com"] with a rate'
    found = {}
    for name, table in _check_names(value, form).items():
        if not isinstance(table, Mapping) or set(table) != {"rate"} or "@" in name or not name.isprintable():
            raise ValueError(f"“{safe_text(name, 60)}”: {form}, and nothing else")
        found[name.lower()] = check_rates(table["rate"], folder)
    return found


def check_moment(value: object, folder: Path) -> datetime:
    """Check a date with a time, or a time of today or tomorrow; of this machine's zone unless it has its own."""
    form = 'must be a time such as "2026-12-01 09:00", "2026-12-01T09:00+01:00" or "09:00"'
    try:
        if isinstance(value, str):
            value = time.fromisoformat(value) if "-" not in value[:8] else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(form) from None
    if isinstance(value, time):
        now = datetime.now().astimezone()
        today = datetime.combine(now.date(), value).astimezone()
        value = today if today > now else datetime.combine(now.date() + timedelta(days=1), value)
    if not isinstance(value, datetime):
        raise WrongType(form)
    if not MIN_YEAR <= value.year <= MAX_YEAR:
        raise ValueError(f"must be a time from the year {MIN_YEAR} to {MAX_YEAR}")
    return value.astimezone(UTC)


def _items(value: object, kind: type[_T], example: str) -> list[str | _T]:
    """Return a text or a list of texts as a list; a program may pass values of the type itself instead."""
    if isinstance(value, str | kind):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(item, str | kind) for item in value):
        return list(value)
    raise WrongType(f"must be a text such as {example}, or a list of such")


def _parse(parse: Callable[[_Given], _T], text: _Given) -> _T:
    """Parse a text; an InvalidArgument becomes the ValueError that the name of a key is put before."""
    try:
        return parse(text)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None


# Sections that are tables: a dataclass each, whose fields declare the keys.


def _check_section(config: type[_T], value: object, folder: Path, form: str) -> _T:
    """Make a section's object from its table.

    Raises:
        ValueError: with the name of the key in the table that is unknown, missing or wrong.
    """
    if isinstance(value, config):
        return value
    keys, found = declared_keys(config), {}
    for name, given in _check_names(value, form).items():
        if name not in keys:
            others = describe_nearest(name, keys) or f"; it may have {', '.join(keys)}"
            raise ValueError(f"unknown key “{safe_text(name, 60)}”{others}")
        try:
            found[keys[name].field] = keys[name].check(given, folder)
        except ValueError as error:
            separator = " " if str(error).startswith(("must ", "holds a private key ")) else ": "
            kind = WrongType if isinstance(error, WrongType) else ValueError
            raise kind(f"{name}{separator}{error}") from None
    for name, each in keys.items():
        if each.default is MISSING and each.field not in found:
            raise ValueError(f"{name} is missing")
    return config(**found)


def _check_weight(value: object, folder: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError("must be a number above 0")
    return value


def check_relay(value: object, folder: Path) -> str | Relay:
    """Check a URL; a program may pass a `Relay`."""
    if not isinstance(value, str):  # the relay's module takes a while to load
        from asyncsmtp.client.config.relay import Relay

        if isinstance(value, Relay):
            return value
    return check_text(value, folder)


def check_provider(value: object, folder: Path) -> str:
    """Check the name of a provider, or a domain."""
    from asyncsmtp.client.config.provider_presets import find_preset  # late: few campaigns name one

    text = check_text(value, folder)
    try:
        find_preset(text)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """A relay of a campaign, its connections and its part of the messages.

    Attributes:
        relay: its URL, or the `Relay` itself; "" for that of the provider.
        provider, user: the provider, and the user name of the login, as in [relay].
        weight: its part of the messages, in proportion to that of the others.
        rate: limits of this relay alone.
    """

    relay: str | Relay = setting("url", check_relay, "URL of the relay; goes before the provider's.", default="")
    provider: str | None = setting("provider", check_provider, "Provider instead of a URL, as in [relay].")
    user: str | None = setting("user", check_text, "User name of the login.")
    weight: float = setting("weight", _check_weight, "Part of the messages, in proportion to the others'.", default=1.0)
    sessions: int = setting("sessions", Count(), "Maximum connections.", default=10)
    max_per_connection: int | None = setting(
        "max_per_connection", Count(), "Messages after which a connection is replaced."
    )
    rate: tuple[Rate, ...] = setting("rate", check_rates, "Limits of this relay alone.", default=())
    password_command: str | None = setting("password_command", check_text, "Command that prints the password.")


def check_relays(value: object, folder: Path) -> tuple[RelayConfig, ...]:
    """Check a table, or several as [[relays]]."""
    form, found = "each is a section with a url or a provider; several are [[relays]] each", []
    for table in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(table, Mapping):
            table = RelayConfig(relay=check_relay(table, folder)) if not isinstance(table, RelayConfig) else table
        elif not any(isinstance(table.get(name), str) for name in ("url", "provider")):
            raise ValueError(form)
        found.append(_check_section(RelayConfig, table, folder, form))
    return tuple(found)


def _check_daily_rate(value: object, folder: Path) -> Rate:
    (rate, *others) = check_rates(value, folder)
    if others or rate.seconds != 86400 or rate.count < 1:
        raise ValueError('must be a number of messages in a day, such as "200/day"')
    return rate


def _check_growth(value: object, folder: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= 100:
        raise ValueError("must be a number above 1 and up to 100, such as 1.5")
    return float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupConfig:
    """Messages of a day through each relay, which grow with each day on which something was sent."""

    start: Rate = setting("start", _check_daily_rate, "Messages of the first sending day: '200/day'.", default=MISSING)
    grow: float = setting("grow", _check_growth, "Factor for each further sending day.", default=1.5)
    until: Rate = setting("until", _check_daily_rate, "Messages of a day at the end: '20000/day'.", default=MISSING)

    def make_warmup(self) -> Warmup:
        """Return the limits of the days."""
        from asyncsmtp.bulk.rate_limit.warmup import Warmup  # late: few campaigns have one

        return Warmup(int(self.start.count), self.grow, int(self.until.count))


def check_warmup(value: object, folder: Path) -> WarmupConfig:
    found = _check_section(WarmupConfig, value, folder, "must be a section with start and until")
    if found.until.count < found.start.count:
        raise ValueError(f"until: {found.until} is less than start, {found.start}")
    return found


def _check_public_text(value: object, folder: Path) -> str:
    text = check_text(value, folder)
    if "PRIVATE KEY" in text:  # the value is not repeated
        raise ValueError("holds a private key itself: store it in a file, and name the file as key")
    return text


def _check_key_path(value: object, folder: Path) -> Path:
    return check_path(value if isinstance(value, Path) else _check_public_text(value, folder), folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimConfig:
    """A DKIM key of a campaign: `key` is a file, `key_env` an environment variable that holds the PEM; one of them."""

    domain: str = setting("domain", _check_public_text, "Domain that signs.", default=MISSING)
    selector: str = setting("selector", _check_public_text, "Selector of the public key in DNS.", default=MISSING)
    key: Path | None = setting("key", _check_key_path, "File of the private key, PEM.")
    key_env: str | None = setting("key_env", _check_public_text, "Environment variable with the key instead.")


def check_dkim(value: object, folder: Path) -> tuple[DkimConfig, ...]:
    """Check a table, or several as [[dkim]]."""
    form = "must be a section with domain, selector and key; several are [[dkim]] each"
    tables = value if isinstance(value, list | tuple) else [value]
    found = tuple(_check_section(DkimConfig, table, folder, form) for table in tables)
    if any((each.key is None) == (each.key_env is None) for each in found):
        raise ValueError("needs either key, a file, or key_env, the name of an environment variable")
    if len({(each.domain.lower(), each.selector.lower()) for each in found}) < len(found):
        raise ValueError("two sections have the same domain and selector, and so the same public key")
    return found


def _check_pem_path(value: object, folder: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip() or "-----BEGIN" in str(value):
        raise ValueError("must be the name of a file")
    return resolve_path(value, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmimeConfig:
    """Files in PEM that sign each body with S/MIME; the chain holds the certificates above that of the sender."""

    certificate: Path = setting("certificate", _check_pem_path, "File of the certificate, PEM.", default=MISSING)
    key: Path = setting("key", _check_pem_path, "File of its private key, PEM.", default=MISSING)
    chain: Path | None = setting("chain", _check_pem_path, "File of the certificates above it, PEM.")


def check_smime(value: object, folder: Path) -> SmimeConfig:
    return _check_section(SmimeConfig, value, folder, "must be a section with certificate and key")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsubscribeConfig:
    """URL and address for unsubscribing; without `secret_file` the secret of the tokens is in the environment."""

    url: str = setting("url", check_text, "URL with {{ token }}, for List-Unsubscribe.", default=MISSING)
    mailto: str | None = setting("mailto", check_text, "Address for requests as well.")
    one_click: bool = setting("one_click", check_flag, "Offer one-click (RFC 8058).", default=True)
    secret_file: Path | None = setting(
        "secret_file", check_path, "File of the tokens' secret; else ASYNCSMTP_UNSUBSCRIBE_SECRET."
    )


def check_unsubscribe(value: object, folder: Path) -> UnsubscribeConfig:
    if isinstance(value, Mapping) and "secret" in value:
        raise ValueError("a campaign file holds no secrets: store it in a file, and name that as secret_file")
    if isinstance(value, Mapping) and "url" not in value:
        raise ValueError('url is missing, such as url = "https://example.org/u/{{ token }}"')
    found = _check_section(UnsubscribeConfig, value, folder, "must be a section with a url")
    _check_unsubscribe_url("url", found.url)
    _check_unsubscribe_url("mailto", found.url, found.mailto)
    return found


def _check_unsubscribe_url(name: str, url: str, mailto: str | None = None) -> None:
    """Check what can be checked before the secret is read: some secret stands for it."""
    from asyncsmtp.mail.list_unsubscribe import MIN_SECRET_LENGTH, Unsubscribe

    try:
        Unsubscribe(url, bytes(MIN_SECRET_LENGTH), mailto)
    except RecipientError as error:
        raise ValueError(f"{name}: {error.reason}") from None
    except MessageError as error:
        raise ValueError(f"{name}: {str(error).removeprefix('List-Unsubscribe: ')}") from None
