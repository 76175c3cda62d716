"""The message of `asyncsmtp send`, from its options or from a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from asyncsmtp.cli.campaign.places import place
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.mail.attachment import Attachment
    from asyncsmtp.mail.message import Message

__all__ = ["Parts", "built", "finished"]

MAX_OCTETS = 256 * 1024 * 1024  # of one file; what a relay takes is far less
_AGAIN = "correct the option, then run the same command again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The options as they were given. `text` and `html` may be `@FILE`, or `-` for standard input."""

    from_: str | None = None
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    attach: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    reply_to: tuple[str, ...] = ()


def built(parts: Parts) -> Message:
    """A message built from its parts.

    Raises:
        Failed: something is missing, or a file cannot be read. MessageError: a part cannot stand as it is.
    """
    from asyncsmtp.mail.address import Address
    from asyncsmtp.mail.message import build

    if parts.from_ is None:
        raise Failed("nobody to send from", "add --from ada@example.org")
    if not (parts.to or parts.cc or parts.bcc):
        raise Failed("nobody to send to", "add --to bob@example.org")
    if parts.text is None and parts.html is None and not parts.attach:
        raise Failed("there is nothing to send", "add --text 'Hello', --html @message.html or --attach FILE")
    return build(
        from_=parts.from_,
        to=parts.to,
        cc=parts.cc,
        bcc=parts.bcc,
        subject=parts.subject or "",
        text=_source("--text", parts.text),
        html=_source("--html", parts.html),
        attachments=[_attachment("--attach", path) for path in parts.attach],
        inline={name: _attachment("--inline", path) for name, path in _pairs("--inline", "=", parts.inline).items()},
        headers=_pairs("--header", ":", parts.header),
        reply_to=parts.reply_to,
        message_id=f"{uuid4().hex}@{Address.parse(parts.from_).mailbox.domain}",
        date=datetime.now(UTC),
    )


def finished(path: str, parts: Parts) -> Message:
    """A finished message from a file or standard input; --from, --to, --cc and --bcc replace its envelope.

    Raises:
        Failed: it cannot be read, or another option would change it. MessageError: it cannot be sent as it is.
    """
    from asyncsmtp.mail.address import Address
    from asyncsmtp.mail.message import Message

    changing = {"--subject": parts.subject, "--text": parts.text, "--html": parts.html, "--attach": parts.attach}
    changing |= {"--inline": parts.inline, "--header": parts.header, "--reply-to": parts.reply_to}
    for option, value in changing.items():
        if value:
            raise Failed(f"{option} cannot change a finished message (--eml)", f"leave out {option} or --eml")
    recipients = [
        address.mailbox for text in (*parts.to, *parts.cc, *parts.bcc) for address in Address.parse_list(text)
    ]
    sender = None if parts.from_ is None else _reverse_path(parts.from_)
    return Message.of(_octets("--eml", path), sender=sender, recipients=recipients or None)


def _reverse_path(text: str) -> str:
    from asyncsmtp.mail.address import Address

    return "" if text in ("", "<>") else str(Address.parse(text).mailbox)


def _source(option: str, given: str | None) -> str | None:
    """Text given outright, or read from where it says."""
    if given is None or not (given == "-" or given.startswith("@")):
        return given
    try:
        return _octets(option, given.removeprefix("@")).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failed(f"{option}: octet {error.start} is not UTF-8", "save it as UTF-8, then run it again") from error


def _attachment(option: str, path: str) -> Attachment:
    from asyncsmtp.mail.attachment import Attachment

    return Attachment(Path(path).name, _octets(option, path))


def _octets(option: str, path: str) -> bytes:
    """A file, or standard input for `-`."""
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else place(path, Path()).open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise Failed(f"{option} {safe_text(path)}: {str(error.strerror).lower()}", _AGAIN) from error
    except ValueError as error:
        raise Failed(f"{option} {error}", _AGAIN) from error
    if len(octets) > MAX_OCTETS:
        raise Failed(f"{option} {safe_text(path)}: no relay takes so much", _AGAIN)
    return octets


def _pairs(option: str, sign: str, given: tuple[str, ...]) -> Mapping[str, str]:
    pairs = [text.partition(sign) for text in given]
    for name, found, value in pairs:
        if not (name.strip() and found and value.strip()):
            wanted = "NAME=FILE" if sign == "=" else "NAME:VALUE"
            raise Failed(f"{option} “{safe_text(name, 60)}” must look like {wanted}", _AGAIN)
    return {name.strip(): value.strip() for name, _, value in pairs}
