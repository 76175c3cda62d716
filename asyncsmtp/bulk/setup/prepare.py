"""Preparation of a campaign: files are read and fingerprinted, the template is compiled, arguments are sorted.

The fingerprint is a digest of everything that a message shows. A ledger keeps it, and a campaign that has begun refuses
to go on with another one. So the names and the bytes that go into a digest must never change: they are compared with
what earlier versions wrote.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.bulk.setup.config import EMAIL, CampaignConfig
from asyncsmtp.bulk.setup.config_types import STDIN, DkimConfig, SmimeConfig, UnsubscribeConfig
from asyncsmtp.bulk.setup.source_files import (
    INCLUDED,
    LEDGER,
    MAX_FILE_SIZE,
    TEMPLATE,
    ConfinedFolder,
    MessageBodies,
    check_pattern,
    check_recipients,
    find_merge_tags,
    find_unsupported,
    find_written_columns,
    is_pattern,
    list_own_files,
    list_sources,
    make_bodies,
    read_and_close,
)
from asyncsmtp.errors import ConfigError, MessageError, RecipientError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.file import RecipientFile
    from asyncsmtp.bulk.recipients.preflight import PreflightReport
    from asyncsmtp.bulk.recipients.recipient import Recipient, RowRules
    from asyncsmtp.mail.attachment import Attachment, AttachmentPattern
    from asyncsmtp.mail.checks.empty_cells import WrittenColumn
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.mail.list_unsubscribe import Unsubscribe
    from asyncsmtp.mail.message import Message
    from asyncsmtp.mail.signing.dkim import DkimKey
    from asyncsmtp.mail.signing.smime import SmimeSigner
    from asyncsmtp.mail.templates.environment import Delimiters
    from asyncsmtp.mail.templates.template import Composer, Template
    from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["FileReader", "PreparedCampaign", "load_dkim_key", "load_unsubscribe", "prepare", "prepare_file"]

MAX_KEY_SIZE = 64 * 1024  # bytes
UNSUBSCRIBE_SECRET = "ASYNCSMTP_UNSUBSCRIBE_SECRET"  # noqa: S105  # the name of the variable
_READING = ("delimiter", "encoding", "skip_lines", "trim", "repair", "duplicates")  # how recipients are read
_BLOCK = 1024 * 1024  # bytes of one read
_SOON = timedelta(days=14)
_ROWS_PER_WRITE = 500
_ROWS = "recipients"  # the name of rows that a program passed
_AGAIN = "correct it, then run the same command again"
_RIGHTS = "correct the name or its rights, then run the same command again"


@dataclass(frozen=True, slots=True)
class PreparedCampaign:
    """A campaign that could be sent.

    Attributes:
        parts: the digest of all that must stay the same while the campaign lasts, but for the recipients.
        recipients_name: the name of the recipients in the fingerprint.
        remarks: what could be better, one sentence each; it is sent nevertheless.
        findings: merge tags of other programs in the templates; with an objection no campaign begins.
        domain: of the Message-IDs: that of the sender.
        describe_rows: returns further remarks, about the rows.
        find_unsupported: returns what mail programs do not support of the HTML; a note each.
        find_written: returns the columns that the templates write whether a cell is empty or not.
        sources: every file that was read, but for keys and the recipients.
    """

    file: RecipientFile
    composer: Composer
    parts: Mapping[str, str]
    recipients_name: str
    remarks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    domain: str = "localhost"
    describe_rows: Callable[[PreflightReport], Iterable[str]] = lambda report: ()
    find_unsupported: Callable[[], list[Finding]] = list
    find_written: Callable[[], dict[str, WrittenColumn]] = dict
    sources: tuple[Path, ...] = ()

    def compose_preview(self, row: Recipient, to: Mailbox | None = None) -> Message:
        """Return the message of a row as it would be sent, with a Message-ID and a date of its own.

        Args:
            to: who gets it instead.
        Raises:
            RecipientError: the row cannot be composed.
        """
        name = f"preview.{row.row}" if to is None else os.urandom(16).hex()
        message_id, now = f"{name}@{self.domain}", datetime.now(UTC)
        return self.composer.compose(to or row.mailbox, row.fields, message_id=message_id, date=now, row=row.row)

    async def fingerprint(self) -> dict[str, str]:
        """Return all the parts; reads the recipients once through, unless that was done."""
        return await asyncio.to_thread(self.read_fingerprint)

    def read_fingerprint(self) -> dict[str, str]:
        """Do the same, and block meanwhile."""
        from asyncsmtp.bulk.recipients.file import read_digest

        return {**self.parts, self.recipients_name: self.file.digest or read_digest(self.file.path)}

    async def describe_columns(self) -> str:
        """Return what a process without the recipients' file must know of it, as JSON; see `StoredRecipients`."""
        header = await self.file.header()
        columns = {"columns": header.columns, "email": header.email, "sheet": self.file.sheet}
        return json.dumps({**columns, "name": self.recipients_name, "name_column": self.file.name_column})


async def prepare(
    config: CampaignConfig,
    rows: Path | None = None,
    *,
    ledger: object = None,
    add: Path | None = None,
    stored: RecipientFile | None = None,
    former: PreparedCampaign | None = None,
) -> PreparedCampaign:
    """Read what the configuration names, and compile it against the columns of the recipients.

    Args:
        rows: recipients that a program passed, as `save_rows` saved them, instead of the configuration's file.
        ledger: location of the ledger, if it is not the configuration's. add: a further file of recipients.
        stored: recipients that are in a ledger, instead of any file.
        former: an earlier reading of the same recipients, whose header is used.
    Raises:
        ConfigError: a file cannot be read, or a key cannot sign. RecipientError: the recipients' header.
        TemplateError: the template.
    """
    # Late: a wrong campaign file is reported without loading templates and signing.
    from asyncsmtp.bulk.recipients.recipient import RowFilter
    from asyncsmtp.mail.signing.dkim import Signer
    from asyncsmtp.mail.templates.variables import build_columns

    if stored is not None:
        path = Path(stored.path)
    else:
        path = rows if rows is not None else await asyncio.to_thread(_save_input, config)
    reader = FileReader(config, None if stored is not None else path, add)
    if isinstance(ledger, Path):
        reader.own.add_database(ledger, LEDGER)
    text = reader.read_template(config.text, "text") if config.text else None
    html = reader.read_template(config.html, "html") if config.html else None
    if stored is None:
        check_recipients(path, reader.own)
    file = stored or _open_file(config, path, config.email_column)
    if former is not None:
        file.share_header(former.file)
    if rows is not None:
        file.name, file.all_keys = _ROWS, True
    keys = [load_dkim_key(each) for each in config.dkim]
    signer = Signer(*keys) if keys else None
    columns = await file.columns()
    names = {name: await file.find_column(wanted) for name, wanted in config.columns.items()}
    has_rows = config.duplicates == "group"
    known = build_columns(
        columns, names, unsubscribes=config.unsubscribe is not None, delimiters=config.delimiters, has_rows=has_rows
    )
    bodies = make_bodies(config, text, html, known, reader.read_included)
    files: Sequence[Attachment | AttachmentPattern] = ()
    search = None
    if config.attachments or config.optional_attachments:
        from asyncsmtp.bulk.setup.file_search import load_attachments  # late: most campaigns attach nothing

        files, search = load_attachments(config, reader.folder, reader.read, known.delimiters)
    template = _make_template(config, reader, files, bodies, known.delimiters)
    if file.name_column and template.to_name is None:
        template = replace(template, to_name=known.delimiters.write(f'row["{file.name_column}"]'))
    row_filter = RowFilter(columns, config.where, config.offset, names)
    seal = _load_smime(config.smime) if config.smime else None
    composer = template.compile(
        columns,
        read=reader.folder.read,
        find=search,
        signer=signer,
        smime_signer=seal,
        aliases=names,
        has_rows=has_rows,
    )
    needed = (composer.used_columns | row_filter.used_columns) - {file.name_column}
    if config.time_zone_column:
        needed |= {await file.find_column(config.time_zone_column)}
    file.rules = replace(file.rules, needed=needed, row_filter=row_filter if row_filter else None)
    if composer.formats:
        from asyncsmtp.bulk.recipients.preflight import read_column_formats  # late: few templates show dates or amounts

        await read_column_formats(file, composer, composer.formats)
    names[EMAIL] = (await file.header()).email
    settings = _digested_settings(config, names)
    parts = {name: _digest(value.encode("utf-8", "surrogatepass")) for name, value in settings.items()}
    if file.sheet:  # of a workbook; the first sheet has no part, as in ledgers of older versions
        parts["sheet"] = _digest(file.sheet.encode())
    parts |= _digest_secrets(template.unsubscribe, keys, seal)
    texts = list_sources(template, reader.included)
    unsupported = partial(
        find_unsupported,
        {bodies.html_name: html, **reader.included},
        known.delimiters,
        are_styles_inlined=config.inline_styles,
    )
    prepared = PreparedCampaign(
        file,
        composer,
        parts | reader.digests,
        _ROWS if rows is not None else path.name,
        tuple(_describe_keys(keys, seal, composer.author)),
        find_merge_tags(texts, known),
        find_unsupported=unsupported,
        find_written=partial(find_written_columns, texts, known),
        sources=tuple(reader.sources),
    )
    if composer.author is not None and not composer.has_copies:
        return replace(prepared, domain=composer.author.domain)
    from asyncsmtp.bulk.setup.row_addresses import prepare_rows

    domain, describe = await prepare_rows(file, composer, config, () if seal is None else seal.addresses)
    return replace(prepared, domain=domain, describe_rows=describe)


async def prepare_file(path: Path, prepared: PreparedCampaign, config: CampaignConfig) -> PreparedCampaign:
    """Prepare a further file of recipients for a campaign that has begun; it is read and checked as the first one is.

    Raises:
        ConfigError: it lacks columns of the first one, which templates and conditions use. RecipientError: its header.
    """
    from asyncsmtp.bulk.recipients.column_header import match_columns

    check_recipients(path, list_own_files(config))
    first, rules = await prepared.file.header(), prepared.file.rules
    if rules.row_filter is not None:
        rules = replace(rules, row_filter=rules.row_filter.for_added_file())
    file = _open_file(config, path, first.email, rules)
    file.renames = match_columns(file.name, await file.columns(), await prepared.file.columns())
    if (formats := prepared.composer.formats) is not None:
        from asyncsmtp.bulk.recipients.preflight import read_column_formats  # late, as above

        await read_column_formats(file, prepared.composer, formats, is_further=True)
    return replace(prepared, file=file)


def _open_file(config: CampaignConfig, path: Path, email: str | None, rules: RowRules | None = None) -> RecipientFile:
    from asyncsmtp.bulk.recipients.file import RecipientFile, is_workbook

    sheet = config.sheet if rules is None or is_workbook(path) else None  # a further file may be a CSV
    settings = {name: getattr(config, name) for name in _READING}
    return RecipientFile(path, email=email, sheet=sheet, rules=rules, **settings)


# Recipients that are no file: standard input, and rows that a program passes. They are read more than once, so they
# are saved to a file first, which also keeps the memory constant.


def _save_input(config: CampaignConfig) -> Path:
    """Return the file of the recipients; blocks until standard input, where that is meant, is saved to one.

    It stands beside the ledger, its owner's alone. Without input, as when a campaign goes on, the last one serves.

    Raises:
        ConfigError: there is neither input nor such a file, or it cannot be written.
    """
    assert config.recipients is not None, "rows of a program are saved by save_rows"
    if config.recipients.name != STDIN:
        return config.recipients
    path = config.folder / f"{config.name}.recipients.csv"
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if _copy_input(new):
            new.replace(path)
        elif not path.exists():
            raise ConfigError("there are no recipients on standard input", "give it a CSV: < people.csv")
    except OSError as error:
        advice = "make space, or correct the rights of its folder"
        raise ConfigError(f"{path} cannot be written: {error.strerror}", advice) from error
    finally:
        new.unlink(missing_ok=True)
    return path


def _copy_input(path: Path) -> bool:
    """Write what there is on standard input; return whether there is anything."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return False
    first = sys.stdin.buffer.read(_BLOCK)
    if not first:
        return False
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600), "wb") as file:
        file.write(first)
        while block := sys.stdin.buffer.read(_BLOCK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return True


# The template and its files.


class FileReader:
    """Files of a campaign, with their digests by the names that people gave them; `included` are those of templates."""

    def __init__(self, config: CampaignConfig, *recipients: Path | None) -> None:
        self.digests: dict[str, str] = {}
        self.included: dict[str, str] = {}
        self.sources: list[Path] = []
        self.own = list_own_files(config, *recipients)
        self.folder = ConfinedFolder(config.folder, own=self.own)
        self._where = f"{config.source}, [campaign] " if config.source else ""

    def read(self, path: Path, role: str, *, allowed: Collection[str] = (INCLUDED,)) -> bytes:
        """Read a file that the configuration names; any place will do, since whoever wrote it chose the place.

        Args:
            allowed: uses of the campaign's own files that do not matter.
        """
        try:
            content = read_and_close(self.own.open(path, allowed=allowed), path, MAX_FILE_SIZE)
        except (OSError, ValueError) as error:  # ValueError: HTML can name an image by a path that no file has
            raise ConfigError(f"{self._where}{role}: {safe_text(str(path))}: {_reason(error)}", _RIGHTS) from error
        self.sources.append(path)
        below = path.is_relative_to(self.folder.root)
        self.digests[str(path.relative_to(self.folder.root)) if below else path.name] = _digest(content)
        return content

    def read_template(self, source: Path | str, role: str) -> str:
        """Read a template; a `str` is the template itself."""
        if isinstance(source, str):
            self.digests[f"{role}="] = _digest(source.encode("utf-8", "surrogatepass"))
            return source
        try:
            return self.read(source, role, allowed=(INCLUDED, TEMPLATE)).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            advice = "save it as UTF-8, then run the same command again"
            shown = safe_text(str(source))
            raise ConfigError(f"{self._where}{role}: {shown}, line {line}: not UTF-8", advice) from error

    def read_included(self, path: str) -> str:
        """Read a file that a template includes, below the campaign's folder."""
        content = self.folder.read(path, allowed=(INCLUDED, TEMPLATE))
        self.own.add(self.folder.root / path, INCLUDED)
        self.sources.append(self.folder.root / path)
        self.digests[path] = _digest(content)
        self.included[path] = content.decode("utf-8-sig")
        return self.included[path]


def _make_template(
    config: CampaignConfig,
    reader: FileReader,
    files: Sequence[Attachment | AttachmentPattern],
    bodies: MessageBodies,
    delimiters: Delimiters,
) -> Template:
    from asyncsmtp.mail.templates.template import Template

    images = {name: config.folder / path for name, path in bodies.images.items()} | dict(config.inline)
    return Template(
        from_=config.from_,
        subject=config.subject,
        text=bodies.text,
        html=bodies.html,
        text_name=bodies.text_name,
        html_name=bodies.html_name,
        text_conversion=bodies.text_conversion,
        html_conversion=bodies.html_conversion,
        attachments=files,
        inline={name: _make_image(config, reader, name, path, delimiters) for name, path in images.items()},
        headers=config.headers,
        reply_to=config.reply_to,
        to_name=config.to_name,
        cc=config.cc,
        bcc=config.bcc,
        unsubscribe=load_unsubscribe(config.unsubscribe) if config.unsubscribe else None,
        return_path=config.return_path,
        loader=bodies.include,
        delimiters=config.delimiters,
    )


def _make_image(
    config: CampaignConfig, reader: FileReader, name: str, path: Path, delimiters: Delimiters
) -> Attachment | AttachmentPattern:
    """Do the same for an image that the HTML shows."""
    from asyncsmtp.mail.attachment import Attachment, AttachmentPattern

    if pattern := _pattern(config, path, delimiters):
        return AttachmentPattern(check_pattern(pattern, f"inline {safe_text(name)}", delimiters))
    return Attachment(path.name, reader.read(path, f"inline {safe_text(name)}"))


def _pattern(config: CampaignConfig, path: Path, delimiters: Delimiters) -> str:
    """Return the path below the campaign's folder, if it differs from row to row; else ""."""
    shown = (path.relative_to(config.folder) if path.is_relative_to(config.folder) else path).as_posix()
    return shown if is_pattern(shown, delimiters) else ""


def _digested_settings(config: CampaignConfig, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that a message shows, and the columns by their names in templates."""
    from asyncsmtp.mail.templates.environment import DELIMITERS, Delimiters

    marks = Delimiters.parse(config.delimiters) if config.delimiters else DELIMITERS
    images = [*config.inline, *filter(None, (_pattern(config, path, marks) for path in config.inline.values()))]
    lists = {"attachments": "\0".join(config.attachments), "inline": "\0".join(images)}
    lists |= {name: "\0".join(getattr(config, name)) for name in ("optional_attachments", "delimiters")}
    texts = {"from": config.from_, "subject": config.subject, "reply_to": config.reply_to or ""}
    texts |= {name: value for name in ("to_name", "cc", "bcc") if (value := getattr(config, name)) is not None}
    if config.unsubscribe is not None:
        texts["unsubscribe"] = config.unsubscribe.url
    if config.where is not None:
        texts["where"] = config.where
    made = {"inline_styles": config.inline_styles, "text_from_html": config.text_from_html}
    texts |= {name: "yes" for name, wanted in made.items() if wanted}
    if config.duplicates != "first":
        texts["duplicates"] = config.duplicates
    texts |= {"repair": "yes"} if config.repair else {}
    texts |= {} if config.trim else {"trim": "no"}
    if config.offset:
        texts["offset"] = str(config.offset)
    if config.return_path is not None:
        texts["return_path"] = config.return_path
    headers = {f"header {name}": value for name, value in config.headers.items()}
    named = {f"column {name}": column for name, column in columns.items()}
    return texts | headers | named | {name: value for name, value in lists.items() if value}


def _digest_secrets(
    unsubscribe: Unsubscribe | None, keys: Iterable[DkimKey], seal: SmimeSigner | None
) -> dict[str, str]:
    """Return digests of what is made with the secrets, which stand nowhere themselves."""
    from asyncsmtp.mail.list_unsubscribe import unsubscribe_token
    from asyncsmtp.protocol.envelope import Mailbox

    parts: dict[str, str] = {}
    if unsubscribe is not None:
        token = unsubscribe_token(unsubscribe.secret, Mailbox("fingerprint", "invalid"))
        parts["the secret of [unsubscribe]"] = _digest(token.encode("ascii"))
    parts |= {f"dkim {each.name}": _digest(each.record.encode("ascii")) for each in keys}
    if seal is not None:
        parts["smime"] = _digest(seal.certificate)
    return parts


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Keys, certificates and secrets.


def load_dkim_key(config: DkimConfig) -> DkimKey:
    """Read a DKIM key.

    Raises:
        ConfigError: it is not there, others can read it, or it cannot sign.
    """
    from asyncsmtp.mail.signing.dkim import DkimKey

    if config.key is not None:
        pem = _read_private(config.key, "[dkim] key")
    else:
        assert config.key_env is not None
        pem = os.environ.get(config.key_env, "").encode("utf-8", "surrogateescape")
        if not pem:
            advice = f"set {config.key_env} to the key in PEM"
            raise ConfigError(f"[dkim] key_env: the variable {config.key_env} is not set", advice)
    try:
        return DkimKey.from_pem(config.domain, config.selector, pem)
    except MessageError as error:
        where = f"the variable {config.key_env}" if config.key is None else safe_text(str(config.key))
        raise ConfigError(f"[dkim] of {safe_text(config.domain, 80)}, {where}: {error}", _AGAIN) from error


def _load_smime(config: SmimeConfig) -> SmimeSigner:
    """Read certificate and key.

    Raises:
        ConfigError: one is not there, others can read the key, it does not fit, or the certificate has expired.
    """
    from asyncsmtp.mail.signing.smime import SmimeSigner

    certificate = _read_public(config.certificate, "[smime] certificate")
    chain = _read_public(config.chain, "[smime] chain") if config.chain else b""
    try:
        seal = SmimeSigner(certificate, _read_private(config.key, "[smime] key"), chain)
    except MessageError as error:
        raise ConfigError(f"[smime]: {error}", _AGAIN) from error
    if seal.expires_at <= datetime.now(UTC):
        raise ConfigError(
            f"[smime]: the certificate {safe_text(str(config.certificate))} ended on {seal.expires_at:%Y-%m-%d}",
            "get a new one, then run the same command again",
        )
    return seal


def _describe_keys(keys: Iterable[DkimKey], seal: SmimeSigner | None, author: Mailbox | None) -> Iterator[str]:
    """Yield what could be better about the keys, one sentence each."""
    for each in keys:
        if each.is_weak:
            yield f"the DKIM key {each.name} has {each.bits} bits; make one of 2048"
    if seal is None:
        return
    if author is not None and str(author).lower() not in seal.addresses:
        addresses = ", ".join(seal.addresses) or "nobody's address"
        yield f"the certificate of [smime] is for {addresses}, and From is {author}: readers are warned"
    if seal.expires_at - datetime.now(UTC) < _SOON:
        yield f"the certificate of [smime] ends on {seal.expires_at:%Y-%m-%d}"


def load_unsubscribe(config: UnsubscribeConfig) -> Unsubscribe:
    """Read the secret of the tokens.

    Raises:
        ConfigError: it is not there, others can read it, or the section cannot make a header.
    """
    from asyncsmtp.mail.list_unsubscribe import Unsubscribe

    if config.secret_file is not None:
        secret = _read_private(config.secret_file, "[unsubscribe] secret_file").strip()
    elif not (secret := os.environ.get(UNSUBSCRIBE_SECRET, "").encode("utf-8", "surrogateescape")):
        raise ConfigError(
            "[unsubscribe]: there is no secret for the tokens",
            f"name a file as secret_file, or set {UNSUBSCRIBE_SECRET}; to make one: openssl rand -hex 16",
        )
    try:
        return Unsubscribe(config.url, secret, config.mailto, config.one_click)
    except (MessageError, RecipientError) as error:
        raise ConfigError(f"[unsubscribe]: {error}", _AGAIN) from error


def _read_public(path: Path, role: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{role}: {safe_text(str(path))}: {_reason(error)}", _RIGHTS) from error


def _read_private(path: Path, role: str) -> bytes:
    """Read a file that nobody but its owner can read; `role` names what it is for.

    Raises:
        ConfigError: it cannot be read, others can read it, or it is too large for a key.
    """
    shown = safe_text(str(path))
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_KEY_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"{role}: {shown}: {_reason(error)}", _RIGHTS) from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise ConfigError(f"{role}: other users of this machine can read {shown}", f"chmod 600 {shown}")
    if len(content) > MAX_KEY_SIZE:
        advice = "name the file that holds the key and nothing else"
        raise ConfigError(f"{role}: {shown} is too large for a key", advice)
    return content


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return str(error.strerror if isinstance(error, OSError) else error).lower()
