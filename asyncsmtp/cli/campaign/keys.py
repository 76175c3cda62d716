"""What a campaign file may hold in this version: a table of keys, and the kinds of their values.

A kind takes a value as TOML or the command line gave it, and the folder that relative paths start
from; it returns the value to use, or raises ValueError with what the value must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asyncsmtp.bulk.postgres.place import SCHEMES, Database
from asyncsmtp.cli.campaign.mapping import mapping
from asyncsmtp.cli.campaign.pacing import domain_rates, moment, rates, taken, windows
from asyncsmtp.cli.campaign.places import place
from asyncsmtp.cli.campaign.sealing import sealing
from asyncsmtp.cli.campaign.shares import shares
from asyncsmtp.cli.campaign.signing import signatures
from asyncsmtp.cli.campaign.spooling import STDIN
from asyncsmtp.cli.campaign.unsubscribing import unsubscribing
from asyncsmtp.cli.durations import seconds
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DIALOGUES", "IN_DOUBT", "KEYS", "Key"]

DIALOGUES = ("lockstep", "pipelined", "streamed")
IN_DOUBT = ("hold", "resend")

_NOT_CSV = {".json": "JSON, not JSON lines", ".zip": "an archive", ".gz": "compressed", ".pdf": "a PDF"}


def _text(value: object, folder: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text, in quotes")
    return value


def _path(value: object, folder: Path) -> Path:
    return place(value if isinstance(value, Path) else _text(value, folder), folder)


def _count(value: object, folder: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
        raise ValueError("must be a whole number from 1 to 10000")
    return value


def _number(value: object, folder: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("must be a whole number from 0")
    return value


def _texts(value: object, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of texts, such as ["terms.pdf"]')
    return tuple(_text(item, folder) for item in value)


def _attachments(value: object, folder: Path) -> tuple[str, ...]:
    paths = _texts(value, folder)
    for path in paths:
        place(path, folder)
    return paths


def _text_or_texts(value: object, folder: Path) -> tuple[str, ...]:
    return (_text(value, folder),) if isinstance(value, str) else _texts(value, folder)


def _path_or_paths(value: object, folder: Path) -> tuple[Path, ...]:
    return tuple(_path(item, folder) for item in (value if isinstance(value, list | tuple) else (value,)))


def _table(value: object, folder: Path) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError('must be a table of texts, such as { logo = "logo.png" }')
    return {name: _text(item, folder) for name, item in value.items()}


def _paths(value: object, folder: Path) -> dict[str, Path]:
    return {name: _path(item, folder) for name, item in _table(value, folder).items()}


def _one_of(*choices: str) -> Callable[[object, Path], str]:
    def check(value: object, folder: Path) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return check


def _name(value: object, folder: Path) -> str:
    name = _text(value, folder)
    if len(name) > 100 or name.startswith((".", " ")) or not all(c.isalnum() or c in "-_. " for c in name):
        raise ValueError(
            f"“{safe_text(name, 60)}” must be letters, digits, - and _ only, since the ledger's file has it"
        )
    return name


def _csv(value: object, folder: Path) -> Path:
    if str(value) == STDIN:
        return Path(STDIN)
    path = _path(value, folder)
    if kind := _NOT_CSV.get(path.suffix.lower()):
        raise ValueError(f"{path} is {kind}, which this version cannot read: save it as CSV (UTF-8)")
    return path


def _delimiter(value: object, folder: Path) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(str(value), value)
    if not isinstance(text, str) or text not in (",", ";", "\t", "|"):
        raise ValueError("must be one of , ; | tab")
    return text


def _ledger(value: object, folder: Path) -> Path | Database:
    text = str(value)
    if not text.startswith(SCHEMES):
        return _path(value, folder)
    return taken(Database.parse, text)


def _webhook(value: object, folder: Path) -> str:
    from asyncsmtp.bulk.webhook import check_url

    url = _text(value, folder)
    taken(check_url, url)
    return url


def _flag(value: object, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _flag_or_path(value: object, folder: Path) -> bool | Path:
    return value if isinstance(value, bool) else _path(value, folder)


def _seconds(value: object, folder: Path) -> float:
    return seconds(value)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a campaign file: the field of Settings it fills, its kind, the option that goes before it."""

    field: str
    kind: Callable[[object, Path], object]
    option: str = ""


KEYS: Mapping[str, Key] = {
    "campaign.name": Key("name", _name, "--name"),
    "campaign.from": Key("from_", _text, "--from"),
    "campaign.subject": Key("subject", _text, "--subject"),
    "campaign.recipients": Key("recipients", _csv, "--recipients"),
    "campaign.email": Key("email", _text, "--email-column"),
    "campaign.encoding": Key("encoding", _text, "--encoding"),
    "campaign.where": Key("where", _text, "--where"),
    "campaign.offset": Key("offset", _number, "--offset"),
    "campaign.delimiter": Key("delimiter", _delimiter, "--delimiter"),
    "campaign.html": Key("html", _path, "--template"),
    "campaign.text": Key("text", _path, "--text"),
    "campaign.inline_styles": Key("inline_styles", _flag),
    "campaign.text_from_html": Key("text_from_html", _flag),
    "campaign.attachments": Key("attachments", _attachments),
    "campaign.inline": Key("inline", _paths),
    "campaign.headers": Key("headers", _table),
    "campaign.return_path": Key("return_path", _text, "--return-path"),
    "campaign.suppression": Key("suppressions", _path_or_paths, "--suppression"),
    "campaign.reply_to": Key("reply_to", _text, "--reply-to"),
    "campaign.ledger": Key("kept_in", _ledger, "--ledger"),
    "campaign.webhook": Key("webhook", _webhook, "--webhook"),
    "relay.url": Key("relay", _text, "--relay"),
    "relay.sessions": Key("sessions", _count, "--sessions"),
    "relay.max_per_connection": Key("max_per_connection", _count, "--max-per-connection"),
    "relay.dialogue": Key("dialogue", _one_of(*DIALOGUES), "--dialogue"),
    "relay.ca_file": Key("ca_file", _path, "--ca-file"),
    "relay.password_command": Key("password_command", _text, "--password-command"),
    "relay.source_address": Key("source_address", _text),
    "relay.proxy": Key("proxy", _text),
    "relay.pin": Key("pins", _text_or_texts),
    "relay.client_cert": Key("client_cert", _path),
    "relay.client_key": Key("client_key", _path),
    "limits.concurrency": Key("concurrency", _count, "--concurrency"),
    "limits.rate": Key("rates", rates, "--rate"),
    "limits.domain": Key("domain_rates", domain_rates),
    "limits.shared": Key("shared", _flag_or_path),
    "limits.provider": Key("provider_rates", domain_rates),
    "limits.name_server": Key("name_server", _text),
    "limits.adapt": Key("adapts", _flag),
    "limits.window": Key("windows", windows, "--window"),
    "limits.time_zone_column": Key("zone_column", _text, "--time-zone-column"),
    "limits.start_at": Key("start_at", moment, "--start-at"),
    "limits.spread_until": Key("spread_until", moment, "--spread-until"),
    "relays": Key("shares", shares),  # the whole section, which may be there several times
    "columns": Key("columns", mapping, "--column"),  # the whole section
    "unsubscribe": Key("unsubscribe", unsubscribing),  # the whole section
    "smime": Key("sealing", sealing),  # the whole section
    "dkim": Key("signatures", signatures),  # the whole section, which may be there several times
    "retry.for": Key("retry_for", _seconds, "--retry-for"),
    "retry.delay": Key("retry_delay", _seconds, "--retry-delay"),
    "retry.attempts": Key("attempts", _count, "--attempts"),
    "retry.in_doubt": Key("in_doubt", _one_of(*IN_DOUBT), "--in-doubt"),
}
