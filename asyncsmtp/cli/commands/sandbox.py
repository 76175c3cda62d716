"""`asyncsmtp sandbox`: a relay on this machine that keeps what it gets."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.command_line import format_command
from asyncsmtp.cli.options import open_option, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.browser import open_in_browser
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay

__all__ = ["command", "print_mails", "remove_rehearsal", "run_sandbox", "show_mailbox"]

_EPILOG = """\b
Example:
  asyncsmtp sandbox --port 2525
"""


@click.command("sandbox", epilog=_EPILOG)
@option("--port", type=click.IntRange(0, 65535), default=2525, show_default=True, help="0 takes any free one.")
@option(
    "--maildir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("sandbox.maildir"),
    show_default=True,
    help="Where the mails are kept.",
)
@option(
    "--show", "number", type=click.IntRange(1), is_flag=False, flag_value=1, metavar="[N]", help="Print the last N."
)
@option("--web", is_flag=True, help="Show the mails in the browser, as they arrive.")
@option(
    "--web-port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Of the page; any free one otherwise."
)
@open_option
def command(port: int, maildir: Path, number: int | None, web: bool, web_port: int, opens: bool) -> ExitCode:
    """Run a relay on this machine that keeps what it gets.

    It listens on 127.0.0.1 until Ctrl-C; nothing it gets is passed on. With
    --show it does not run, but prints what arrived. With --web the mails can be
    looked at in a browser, and by programs as JSON.
    """
    if number is not None:
        print_mails(maildir, number)
        return ExitCode.ACCEPTED
    return asyncio.run(_serve(port, maildir, web_port if web or opens else None, opens=opens))


async def _serve(port: int, maildir: Path, web_port: int | None, *, opens: bool) -> ExitCode:
    from asyncsmtp.cli.controls import handle_signals
    from asyncsmtp.testing.relay import Sandbox

    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        box = Sandbox(maildir, port=port)
        try:
            await stack.enter_async_context(box)
        except OSError as error:
            advice = "end what listens there, or take another: --port 0"
            raise CommandError(f"port {port} of 127.0.0.1 cannot be used: {_why(error)}", advice) from error
        with handle_signals(over.set, over.set, "ending"):
            console.print_result(box.url)
            console.print_info(f"  the mails are kept in {maildir}; Ctrl-C ends it")
            if web_port is not None:
                await stack.enter_async_context(show_mailbox(maildir, "sandbox", web_port, opens=opens))
            await over.wait()
    console.print_info(f"kept {console.pluralize(box.count, 'mail')} in {maildir}")
    console.print_steps([format_command("sandbox", "--maildir", maildir, "--show")])
    return ExitCode.ACCEPTED


def _why(error: OSError) -> str:
    """Return the reason in the system's words; asyncio's own name the address once more."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


@asynccontextmanager
async def show_mailbox(maildir: Path, name: str, port: int = 0, *, opens: bool) -> AsyncIterator[None]:
    """Serve the mails of a Maildir to a browser until the block ends, and print the address.

    Raises:
        CommandError: the port cannot be used. MissingDependency: the extra `web` is not installed.
    """
    from asyncsmtp.web.local_app import require_web, serve_locally

    require_web()
    from asyncsmtp.web.mailbox import make_mailbox_app

    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serve_locally(make_mailbox_app(maildir, name), port))
        except OSError as error:
            advice = "end what listens there, or leave out --web-port"
            raise CommandError(f"port {port} of 127.0.0.1 cannot be used: {_why(error)}", advice) from error
        console.print_info(f"  look at them: {url}", always=True)
        if opens:
            await asyncio.to_thread(open_in_browser, url)
        yield


@asynccontextmanager
async def run_sandbox(maildir: Path | None) -> AsyncIterator[Relay]:
    """Run a relay on a free port of this machine until the block ends; None keeps nothing."""
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.protocol.opening_handshake import Security
    from asyncsmtp.testing.relay import Sandbox

    async with Sandbox(maildir) as box:
        yield Relay(box.host, box.port, Security.PLAINTEXT)


def print_mails(maildir: Path, number: int, write: Callable[[str], object] = console.print_result) -> None:
    """Print the mails that came last, by `write`.

    Raises:
        CommandError: there is no such Maildir, or nothing in it.
    """
    from asyncsmtp.testing.received import Maildir, render

    found = deque(Maildir(maildir).mails() if maildir.is_dir() else (), maxlen=number)
    if not found:
        advice = f"run a relay that keeps what it gets: {format_command('sandbox', '--maildir', maildir)}"
        raise CommandError(f"no mail has arrived in {maildir}", advice)
    for mail in found:
        write(f"--- {mail.path}")
        write(render(mail))


def remove_rehearsal(ledger: Path, maildir: Path | None) -> None:
    """Remove a rehearsal, under its ledger's lock: no other process may be in it."""
    from asyncsmtp.bulk.ledger.sqlite.ledger_file import LedgerLock

    lock = LedgerLock.acquire(ledger.with_name(f"{ledger.name}.lock"))
    try:
        for ending in ("", "-wal", "-shm", ".ballast"):
            ledger.with_name(ledger.name + ending).unlink(missing_ok=True)
        lock.write_stamp(None)
    finally:
        lock.release()
    for folder in ("new", "cur"):
        for path in (maildir / folder).glob("*") if maildir else ():
            path.unlink()
