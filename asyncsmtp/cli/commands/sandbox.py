"""`asyncsmtp sandbox`: a relay on this machine that keeps what it gets."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import click

from asyncsmtp.cli.options import option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.sandboxes import show

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp sandbox --port 2525
"""


@click.command("sandbox", epilog=_EPILOG)
@option("--port", type=click.IntRange(0, 65535), default=2525, show_default=True, help="0 takes any free one.")
@option(
    "--maildir",
    type=click.Path(path_type=Path),
    default=Path("sandbox.maildir"),
    show_default=True,
    help="Where the mails are kept.",
)
@option(
    "--show", "number", type=click.IntRange(min=1), is_flag=False, flag_value=1, metavar="[N]", help="Print the last N."
)
def command(port: int, maildir: Path, number: int | None) -> Exit:
    """Run a relay on this machine that keeps what it gets.

    It listens on 127.0.0.1 until Ctrl-C; nothing it gets is passed on. With
    --show it does not run, but prints what arrived.
    """
    if number is not None:
        show(maildir, number)
        return Exit.ACCEPTED
    return asyncio.run(_serve(port, maildir))


async def _serve(port: int, maildir: Path) -> Exit:
    from asyncsmtp.cli.campaign.signals import interruptible
    from asyncsmtp.testing.sandbox import Sandbox

    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        box = Sandbox(maildir, port=port)
        try:
            await stack.enter_async_context(box)
        except OSError as error:
            advice = "end what listens there, or take another: --port 0"
            raise Failed(f"port {port} of 127.0.0.1 cannot be used: {_why(error)}", advice) from error
        with interruptible(over.set, over.set, "ending"):
            console.out(box.url)
            console.say(f"  the mails are kept in {maildir}; Ctrl-C ends it")
            await over.wait()
    console.say(f"kept {console.many(box.count, 'mail')} in {maildir}")
    console.say(f"  next: asyncsmtp sandbox --maildir {maildir} --show")
    return Exit.ACCEPTED


def _why(error: OSError) -> str:
    """In the system's words; asyncio's own name the address once more."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
