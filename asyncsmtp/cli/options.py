"""Options that several commands share; each can be given as ASYNCSMTP_NAME in the environment too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from asyncsmtp.bulk.postgres.place import SCHEMES, Database
from asyncsmtp.cli.campaign.keys import DIALOGUES
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.errors import InvalidArgument

__all__ = [
    "campaign_argument",
    "json_option",
    "ledger_option",
    "option",
    "relay_options",
    "sandbox_option",
    "verbose_option",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Option(click.Option):
    """An option whose several values stand on lines of their own in its variable: an address may hold spaces."""

    def value_from_envvar(self, ctx: click.Context) -> Any:
        given = self.resolve_envvar_value(ctx)
        return given.splitlines() if given is not None and self.multiple else super().value_from_envvar(ctx)


def option(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    """`click.option`, with the environment variable that belongs to its first long name."""
    long = next(name for name in names if name.startswith("--"))
    variable = "ASYNCSMTP_" + long.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, cls=_Option, **settings)


def relay_options(command: _Function) -> _Function:
    """Where to send, and how to log in."""
    for decorate in reversed(
        (
            option("--relay", metavar="URL", help="smtp://user@host:587, smtps://user@host, …?security=none"),
            option(
                "--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="CAs to trust beside the system's."
            ),
            option("--password-command", metavar="COMMAND", help="Prints the password, as 'pass show mail' does."),
            option("--dialogue", type=click.Choice(DIALOGUES), help="How far to speak ahead of the replies."),
        )
    ):
        command = decorate(command)
    return command


def campaign_argument(*, required: bool = False) -> Callable[[_Function], _Function]:
    """CAMPAIGN.toml."""
    return click.argument("campaign", metavar="CAMPAIGN.toml", type=click.Path(path_type=Path), required=required)


verbose_option = option("-v", "--verbose", is_flag=True, help="Show the dialogue, secrets masked.")
json_option = option("--json", "as_json", is_flag=True, help="One JSON object per result on stdout.")
sandbox_option = option("--sandbox", is_flag=True, help="The rehearsal in the sandbox, not the real campaign.")


def _place(text: str) -> Path | Database:
    """Of a ledger. Failed, not ValueError, of which click would tell with the value: there may be a password in it."""
    try:
        return Database.parse(text) if text.startswith(SCHEMES) else Path(text)
    except InvalidArgument as error:
        raise Failed(str(error)) from None


ledger_option = option(
    "--ledger", type=_place, metavar="FILE|URL", help="The ledger, where it is elsewhere: a file, postgresql://…"
)
