"""From a URL and the options beside it to a relay, its password found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from asyncsmtp.cli import console
from asyncsmtp.cli.failures import Failed
from asyncsmtp.cli.secrets import password

if TYPE_CHECKING:
    from asyncsmtp.client.relay import Relay

__all__ = ["relay_of"]


def relay_of(
    url: str,
    *,
    ca_file: Path | None = None,
    dialogue: str | None = None,
    password_command: str | None = None,
    watched: bool = False,
) -> Relay:
    """Make a relay; ask for its password when the URL names a user.

    Args:
        watched: someone waits at a terminal, so what is slow before the content is sent fails sooner.
    Raises:
        Failed: there is a password in the URL (it is not repeated), or none to be found.
        BadArgument: the URL is no relay's.
    """
    from asyncsmtp.client.hosts import has_password, split_url
    from asyncsmtp.client.relay import Dialogue, Relay
    from asyncsmtp.client.timeouts import Timeouts

    if has_password(url):
        raise Failed(
            "there is a password in the relay's URL, where others can read it: change it",
            "leave it out of the URL; set ASYNCSMTP_PASSWORD, or use --password-command",
        )
    if ca_file is not None and not ca_file.is_file():
        raise Failed(f"there is no CA file {ca_file}", "correct --ca-file, or ca_file in [relay]")
    if "SSLKEYLOGFILE" in os.environ:  # the standard library honours it: whoever has that file can read the session
        console.say("warning: SSLKEYLOGFILE is set, so the keys of this session are written to a file")
    parts = split_url(url)
    found = password(unquote(parts.username), parts.hostname or "", password_command) if parts.username else None
    relay = Relay.from_url(url, password=found)
    return replace(
        relay,
        ca_file=ca_file or relay.ca_file,
        dialogue=Dialogue(dialogue) if dialogue else relay.dialogue,
        timeouts=Timeouts.interactive() if watched else relay.timeouts,
    )
