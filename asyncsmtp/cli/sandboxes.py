"""The relay inside a command, and the mails it kept."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.failures import Failed

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay

__all__ = ["sandboxed", "show"]


@asynccontextmanager
async def sandboxed(maildir: Path | None) -> AsyncIterator[Relay]:
    """A relay on a free port of this machine, until the block ends; None keeps nothing."""
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.protocol.opening_handshake import Security
    from asyncsmtp.testing.sandbox import Sandbox

    async with Sandbox(maildir) as box:
        yield Relay(box.host, box.port, Security.PLAINTEXT)


def show(maildir: Path, number: int, tell: Callable[[str], object] = console.out) -> None:
    """Print the mails that came last, by `tell`.

    Raises:
        Failed: there is no such Maildir, or nothing in it.
    """
    from asyncsmtp.testing.received import Maildir, render

    found = deque(Maildir(maildir).mails() if maildir.is_dir() else (), maxlen=number)
    if not found:
        advice = "asyncsmtp bulk CAMPAIGN.toml --sandbox, or: asyncsmtp sandbox"
        raise Failed(f"no mail has arrived in {maildir}", advice)
    for mail in found:
        tell(f"--- {mail.path}")
        tell(render(mail))
