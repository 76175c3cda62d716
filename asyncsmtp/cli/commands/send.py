"""`asyncsmtp send`: one message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.bulk.setup.config_types import resolve_path
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import json_option, make_cli_relay, option, relay_options, verbose_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.mail.attachment import Attachment
    from asyncsmtp.mail.message import Message

__all__ = ["command"]

MAX_SIZE = 256 * 1024 * 1024  # bytes of one file; what a relay takes is far less
_AGAIN = "correct the option, then run the same command again"

_EPILOG = """\b
Example:
  asyncsmtp send --sandbox -v --from ada@example.org --to bob@example.com --subject Hello --text 'Hello, Bob'
"""


@click.command("send", epilog=_EPILOG)
@relay_options
@option("--from", "from_", metavar="MAILBOX", help="'Ada <ada@example.org>'")
@option("--to", multiple=True, metavar="MAILBOX", help="Repeatable, as --cc and --bcc are.")
@option("--cc", multiple=True, metavar="MAILBOX", help="Recipients who are shown as such.")
@option("--bcc", multiple=True, metavar="MAILBOX", help="Recipients whom the message does not mention.")
@option("--subject", metavar="TEXT", help="The subject.")
@option("--text", metavar="TEXT", help="The text itself, or @FILE, or - for standard input.")
@option("--html", metavar="HTML", help="The same for HTML.")
@option("--attach", multiple=True, metavar="FILE", help="Repeatable.")
@option("--inline", multiple=True, metavar="NAME=FILE", help='An image: <img src="cid:NAME">. Repeatable.')
@option("--header", multiple=True, metavar="NAME:VALUE", help="A further header field. Repeatable.")
@option("--reply-to", multiple=True, metavar="MAILBOX", help="Where answers go.")
@option("--eml", metavar="FILE", help="A finished message, or - for standard input; --from and --to readdress it.")
@option("--sandbox", is_flag=True, help="To a relay inside the command, which forgets it.")
@env_file_option
@json_option
@verbose_option
def command(
    relay: str | None,
    provider: str | None,
    user: str | None,
    ca_file: str | None,
    password_command: str | None,
    dialogue: str | None,
    eml: str | None,
    sandbox: bool,
    as_json: bool,
    verbose: bool,
    **parts: Any,
) -> ExitCode:
    """Send one message.

    What the relay answers for each recipient is printed. With -v every line of
    the dialogue is, from 220 to 221.
    """
    if relay is None and provider is None and not sandbox:
        advice = "add --relay smtp://user@host:587 or --provider gmail; to try it out: --sandbox"
        raise CommandError("no relay was given", advice)
    options = MessageOptions(**parts)
    message = load_message(eml, options) if eml is not None else build_message(options)
    if sandbox:
        return asyncio.run(_try_out(message, as_json=as_json, verbose=verbose))
    where = make_cli_relay(
        relay,
        provider=provider,
        user=user,
        sender=options.from_,
        ca_file=ca_file,
        dialogue=dialogue,
        password_command=password_command,
        interactive=True,
    )
    return asyncio.run(_send(message, where, provider, as_json=as_json, verbose=verbose))


async def _send(
    message: Message, relay: Relay, provider: str | None = None, *, as_json: bool, verbose: bool
) -> ExitCode:
    from asyncsmtp.cli.output.formats import DeliveryPrinter
    from asyncsmtp.cli.output.provider_advice import explain_reply
    from asyncsmtp.client.api import send
    from asyncsmtp.protocol.content import Content

    write = console.print_info if as_json else console.print_result
    printer = DeliveryPrinter(as_json=as_json)
    if verbose:
        write(f"=== trying {relay}")
    content = message.content if isinstance(message.content, Content) else None
    trace = console.TranscriptPrinter(write, content) if verbose else None
    delivery = await send(message, relay=relay, trace=trace)
    printer.add(delivery)
    for reply in dict.fromkeys(str(each) for each in delivery.replies if not each.positive):
        if (known := explain_reply(reply, delivery.host, provider)) is not None:
            console.print_info(f"  {known}")
    if printer.exit is not ExitCode.ACCEPTED and not verbose:
        console.print_info("  next: the same command with -v shows the dialogue")
    return printer.exit


async def _try_out(message: Message, *, as_json: bool, verbose: bool) -> ExitCode:
    from asyncsmtp.cli.commands.sandbox import run_sandbox

    async with run_sandbox(None) as relay:
        return await _send(message, relay, as_json=as_json, verbose=verbose)


# The message, from its options or from a file.


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOptions:
    """Options of one message as they were given. `text` and `html` may be `@FILE`, or `-` for standard input."""

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


def build_message(options: MessageOptions) -> Message:
    """Build a message from its options.

    Raises:
        CommandError: something is missing, or a file cannot be read. MessageError: a part cannot stand as it is.
    """
    from asyncsmtp.client.compose import build

    if options.from_ is None:
        raise CommandError("nobody to send from", "add --from ada@example.org")
    if not (options.to or options.cc or options.bcc):
        raise CommandError("nobody to send to", "add --to bob@example.org")
    if options.text is None and options.html is None and not options.attach:
        raise CommandError("there is nothing to send", "add --text 'Hello', --html @message.html or --attach FILE")
    return build(
        from_=options.from_,
        to=list(options.to),  # a tuple of two would be a name and an address
        cc=list(options.cc),
        bcc=list(options.bcc),
        subject=options.subject or "",
        text=_source("--text", options.text),
        html=_source("--html", options.html),
        attachments=[_attachment("--attach", path) for path in options.attach],
        inline={name: _attachment("--inline", path) for name, path in _pairs("--inline", "=", options.inline).items()},
        headers=_pairs("--header", ":", options.header),
        reply_to=list(options.reply_to),
    )


def load_message(path: str, options: MessageOptions) -> Message:
    """Load a finished message from a file or standard input; --from, --to, --cc and --bcc replace its envelope.

    Raises:
        CommandError: it cannot be read, or another option would change it. MessageError: it cannot be sent as it is.
    """
    from asyncsmtp.mail.address import Address
    from asyncsmtp.mail.message import Message

    for field in ("subject", "text", "html", "attach", "inline", "header", "reply_to"):
        if getattr(options, field):
            name = f"--{field.replace('_', '-')}"
            raise CommandError(f"{name} cannot change a finished message (--eml)", f"leave out {name} or --eml")
    recipients = [
        address.mailbox for text in (*options.to, *options.cc, *options.bcc) for address in Address.parse_list(text)
    ]
    sender = None if options.from_ is None else _reverse_path(options.from_)
    return Message.of(_read("--eml", path), sender=sender, recipients=recipients or None)


def _reverse_path(text: str) -> str:
    from asyncsmtp.mail.address import Address

    return "" if text in ("", "<>") else str(Address.parse(text).mailbox)


def _source(option: str, given: str | None) -> str | None:
    """Return text given outright, or read it from where it says."""
    if given is None or not (given == "-" or given.startswith("@")):
        return given
    try:
        return _read(option, given.removeprefix("@")).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        advice = "save it as UTF-8, then run it again"
        raise CommandError(f"{option}: byte {error.start} is not UTF-8", advice) from error


def _attachment(option: str, path: str) -> Attachment:
    from asyncsmtp.mail.attachment import Attachment

    return Attachment(Path(path).name, _read(option, path))


def _read(option: str, path: str) -> bytes:
    """Read a file, or standard input for `-`."""
    if path == "-" and (sys.stdin is None or sys.stdin.closed):  # as `<&-` leaves it
        raise CommandError(f"{option} -: standard input is closed", "name a file, or give it one: < FILE")
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else resolve_path(path, Path()).open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise CommandError(f"{option} {safe_text(path)}: {str(error.strerror).lower()}", _AGAIN) from error
    except ValueError as error:
        raise CommandError(f"{option} {error}", _AGAIN) from error
    if len(content) > MAX_SIZE:
        raise CommandError(f"{option} {safe_text(path)}: no relay takes so much", _AGAIN)
    return content


def _pairs(option: str, sign: str, given: tuple[str, ...]) -> Mapping[str, str]:
    pairs = [text.partition(sign) for text in given]
    for name, found, value in pairs:
        if not (name.strip() and found and value.strip()):
            wanted = "NAME=FILE" if sign == "=" else "NAME:VALUE"
            raise CommandError(f"{option} “{safe_text(name, 60)}” must look like {wanted}", _AGAIN)
    return {name.strip(): value.strip() for name, _, value in pairs}
