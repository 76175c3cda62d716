"""`asyncsmtp send`: one message."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.cli.options import json_option, option, relay_options, verbose_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.parts import Parts, built, finished

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.mail.message import Message

__all__ = ["command"]

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
@json_option
@verbose_option
def command(
    relay: str | None,
    ca_file: Path | None,
    password_command: str | None,
    dialogue: str | None,
    eml: str | None,
    sandbox: bool,
    as_json: bool,
    verbose: bool,
    **parts: Any,
) -> Exit:
    """Send one message.

    What the relay answers for each recipient is printed. With -v every line of
    the dialogue is, from 220 to 221.
    """
    if relay is None and not sandbox:
        raise Failed("no relay was given", "add --relay smtp://user@host:587; to try it out: --sandbox")
    wanted = Parts(**parts)
    message = finished(eml, wanted) if eml is not None else built(wanted)
    if sandbox:
        return asyncio.run(_try_out(message, as_json=as_json, verbose=verbose))
    from asyncsmtp.cli.relays import relay_of

    where = relay_of(relay or "", ca_file=ca_file, dialogue=dialogue, password_command=password_command, watched=True)
    return asyncio.run(_send(message, where, as_json=as_json, verbose=verbose))


async def _send(message: Message, relay: Relay, *, as_json: bool, verbose: bool) -> Exit:
    from asyncsmtp.cli.output.outcomes import Tally
    from asyncsmtp.cli.output.transcript import Transcript
    from asyncsmtp.client.sending import send
    from asyncsmtp.protocol.content import Content

    write = console.say if as_json else console.out
    tally = Tally(as_json=as_json)
    if verbose:
        write(f"=== trying {relay}")
    content = message.content if isinstance(message.content, Content) else None
    tally.add(await send(message, relay=relay, trace=Transcript(write, content) if verbose else None))
    if tally.exit is not Exit.ACCEPTED and not verbose:
        console.say("  next: the same command with -v shows the dialogue")
    return tally.exit


async def _try_out(message: Message, *, as_json: bool, verbose: bool) -> Exit:
    from asyncsmtp.cli.sandboxes import sandboxed

    async with sandboxed(None) as relay:
        return await _send(message, relay, as_json=as_json, verbose=verbose)
