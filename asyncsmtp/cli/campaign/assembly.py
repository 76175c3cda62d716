"""From settings to what is sent: every file read, the template compiled, everything fingerprinted."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.campaign.bodies import Bodies, Written
from asyncsmtp.cli.campaign.mapping import EMAIL
from asyncsmtp.cli.campaign.places import place
from asyncsmtp.cli.campaign.sealing import remarks
from asyncsmtp.cli.campaign.spooling import spooled
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.file import RecipientFile
    from asyncsmtp.cli.campaign.settings import Settings
    from asyncsmtp.mail.attachment import Attachment, AttachmentPattern
    from asyncsmtp.mail.templates.template import Composer, Template

__all__ = ["Assembled", "assemble"]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A campaign that could be sent.

    Attributes:
        parts: the digest of all that must stay the same while the campaign lasts, but for the recipients.
        remarks: what could be better, one sentence each; it is sent nevertheless.
    """

    file: RecipientFile
    composer: Composer
    parts: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    async def fingerprint(self) -> dict[str, str]:
        """All the parts; reads the recipients once through."""
        from asyncsmtp.bulk.recipients.file import hash_file

        return {**self.parts, Path(self.file.path).name: await hash_file(self.file.path)}


async def assemble(settings: Settings) -> Assembled:
    """Read what the settings name, and compile it against the columns of the recipients.

    Raises:
        Failed: a file cannot be read, or a key cannot sign. RecipientError: the recipients' header.
        TemplateError: the template.
    """
    from asyncsmtp.bulk.recipients.file import RecipientFile
    from asyncsmtp.bulk.recipients.row_filter import RowFilter
    from asyncsmtp.mail.list_unsubscribe import unsubscribe_token
    from asyncsmtp.mail.signing.dkim import Signer
    from asyncsmtp.mail.templates.variables import build_columns
    from asyncsmtp.protocol.envelope import Mailbox

    recipients = await asyncio.to_thread(spooled, settings.recipients, settings.folder, settings.name)
    shelf = _Shelf(settings)
    written = Written.of(settings, shelf.text)
    file = RecipientFile(recipients, email=settings.email, delimiter=settings.delimiter, encoding=settings.encoding)
    keys = [signature.load() for signature in settings.signatures]
    signer = Signer(*keys) if keys else None
    columns = await file.columns()
    called = {name: await file.column(wanted) for name, wanted in settings.columns.items()}
    known = build_columns(columns, called, unsubscribes=settings.unsubscribe is not None)
    template = _template(settings, shelf, written.bodies(settings, known, shelf.included))
    selection = RowFilter(columns, settings.where, settings.offset, called)
    if selection:
        file.rules = replace(file.rules, row_filter=selection)
    seal = settings.sealing.load() if settings.sealing else None
    composer = template.compile(columns, read=shelf.folder.read, signer=signer, smime_signer=seal, aliases=called)
    called[EMAIL] = (await file.heading()).email
    parts = {key: _digest(value.encode("utf-8", "surrogatepass")) for key, value in _written(settings, called).items()}
    if template.unsubscribe is not None:  # its tokens stand in the messages, the secret itself nowhere
        token = unsubscribe_token(template.unsubscribe.secret, Mailbox("fingerprint", "invalid"))
        parts["the secret of [unsubscribe]"] = _digest(token.encode("ascii"))
    parts |= {f"dkim {key.name}": _digest(key.record.encode("ascii")) for key in keys}
    if seal is not None:
        parts["smime"] = _digest(seal.certificate)
    weak = tuple(f"the DKIM key {key.name} has {key.bits} bits; make one of 2048" for key in keys if key.is_weak)
    weak += tuple(remarks(seal, composer.author)) if seal is not None else ()
    return Assembled(file, composer, parts | shelf.digests, weak)


class _Shelf:
    """Reads files and remembers their digests, by the names people gave them."""

    def __init__(self, settings: Settings) -> None:
        from asyncsmtp.bulk.confined_files import ConfinedFolder

        self.digests: dict[str, str] = {}
        self.folder = ConfinedFolder(settings.folder)
        self._where = f"{settings.source}, [campaign] " if settings.source else ""

    def octets(self, path: Path, role: str) -> bytes:
        """A file that the settings name; any place will do, since whoever wrote them chose it."""
        try:
            octets = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: HTML can name an image by a path that no file has
            why = str(error.strerror if isinstance(error, OSError) else error).lower()
            why = "does not exist" if isinstance(error, FileNotFoundError) else why
            advice = "correct the name or its rights, then run the same command again"
            raise Failed(f"{self._where}{role}: {safe_text(str(path))}: {why}", advice) from error
        below = path.is_relative_to(self.folder.root)
        self.digests[str(path.relative_to(self.folder.root)) if below else path.name] = _digest(octets)
        return octets

    def text(self, path: Path, role: str) -> str:
        """A template."""
        try:
            return self.octets(path, role).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            advice = "save it as UTF-8, then run the same command again"
            raise Failed(f"{self._where}{role}: {safe_text(str(path))}, line {line}: not UTF-8", advice) from error

    def included(self, path: str) -> str:
        """A file that a template includes, below the campaign's folder."""
        octets = self.folder.read(path)
        self.digests[path] = _digest(octets)
        return octets.decode("utf-8-sig")


def _template(settings: Settings, shelf: _Shelf, bodies: Bodies) -> Template:
    from asyncsmtp.mail.templates.template import Template

    return Template(
        from_=settings.from_,
        subject=settings.subject,
        text=bodies.text,
        html=bodies.html,
        text_name=bodies.text_name,
        html_name=bodies.html_name,
        attachments=tuple(_attachment(settings, shelf, path) for path in settings.attachments),
        inline={
            cid: _image(settings, shelf, cid, path)
            for cid, path in {
                **{cid: settings.folder / path for cid, path in bodies.images.items()},
                **settings.inline,
            }.items()
        },
        headers=settings.headers,
        reply_to=settings.reply_to,
        unsubscribe=settings.unsubscribe.load() if settings.unsubscribe else None,
        return_path=settings.return_path,
        loader=shelf.included,
    )


def _attachment(settings: Settings, shelf: _Shelf, path: str) -> Attachment | AttachmentPattern:
    """A file for everyone, read now; or a pattern, read row by row from the campaign's folder only."""
    from asyncsmtp.mail.attachment import Attachment, AttachmentPattern

    if "{{" in path or "{%" in path:
        return AttachmentPattern(path)
    file = place(path, settings.folder)
    return Attachment(file.name, shelf.octets(file, "attachments"))


def _image(settings: Settings, shelf: _Shelf, cid: str, path: Path) -> Attachment | AttachmentPattern:
    """The same for an image that the HTML shows."""
    from asyncsmtp.mail.attachment import Attachment, AttachmentPattern

    if pattern := _pattern(settings, path):
        return AttachmentPattern(pattern)
    return Attachment(path.name, shelf.octets(path, f"inline {safe_text(cid)}"))


def _pattern(settings: Settings, path: Path) -> str:
    """The path below the campaign's folder, if it differs from row to row; else nothing."""
    shown = (path.relative_to(settings.folder) if path.is_relative_to(settings.folder) else path).as_posix()
    return shown if "{{" in shown or "{%" in shown else ""


def _written(settings: Settings, called: Mapping[str, str]) -> dict[str, str]:
    """The settings that a message shows, and the columns by what they are called."""
    images = [*settings.inline, *filter(None, (_pattern(settings, path) for path in settings.inline.values()))]
    lists = {"attachments": "\0".join(settings.attachments), "inline": "\0".join(images)}
    texts = {"from": settings.from_, "subject": settings.subject, "reply_to": settings.reply_to or ""}
    if settings.unsubscribe is not None:
        texts["unsubscribe"] = settings.unsubscribe.url
    if settings.where is not None:
        texts["where"] = settings.where
    made = {"inline_styles": settings.inline_styles, "text_from_html": settings.text_from_html}
    texts |= {name: "yes" for name, wanted in made.items() if wanted}
    if settings.offset:
        texts["offset"] = str(settings.offset)
    if settings.return_path is not None:
        texts["return_path"] = settings.return_path
    headers = {f"header {name}": value for name, value in settings.headers.items()}
    columns = {f"column {name}": column for name, column in called.items()}
    return texts | headers | columns | {key: value for key, value in lists.items() if value}


def _digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
