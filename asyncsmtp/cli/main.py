"""The command `asyncsmtp`: the group, and the one place where an error becomes a sentence.

A subcommand's module is imported when that subcommand is used, so `asyncsmtp --help` stays quick;
`COMMANDS` holds the line of each in the list of commands, and `_FOLDERS` the package of those that are not in
`asyncsmtp.cli.commands` itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.command_line import CommandLine
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode, explain

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "asyncsmtp", "load_command", "main"]

COMMANDS = {
    "init": "Write a sample campaign that works at once, or one of your own.",
    "login": "Log in to Gmail or Microsoft by OAuth 2.0.",
    "bulk": "Mail everyone in a CSV; run it again to resume.",
    "send": "Send one message.",
    "check": "Look at a relay or a campaign; send nothing.",
    "preview": "Show messages as they would be sent; send nothing.",
    "list": "List the campaigns of a folder, with counts.",
    "status": "Count a campaign's recipients by outcome.",
    "results": "Print every recipient's outcome as CSV or NDJSON.",
    "report": "Write a report of a campaign as one HTML file.",
    "resolve": "Decide about recipients in doubt.",
    "bounces": "Read what came back, and write it into the ledger.",
    "suppress": "Add to a suppression list, or print it.",
    "forget": "Remove a person's data from ledgers and suppression lists.",
    "campaign": "Load a campaign for workers; start, pause, resume or cancel it.",
    "work": "Send a campaign as one of several workers.",
    "sandbox": "Run a relay on this machine that keeps what it gets.",
    "completion": "Print a script that completes commands in bash, zsh or fish.",
}

_FOLDERS = {
    "init": "setup",
    "login": "setup",
    "completion": "setup",
    "bounces": "suppression",
    "suppress": "suppression",
    "forget": "suppression",
    "campaign": "workers",
    "work": "workers",
}

_MODULES = {"campaign": "control_campaign"}  # `asyncsmtp.bulk.campaign` is another one


def load_command(name: str) -> click.Command:
    """Import the module of a command, and return the command."""
    folder = f"{_FOLDERS[name]}." if name in _FOLDERS else ""
    module = _MODULES.get(name, name)
    command = import_module(f"asyncsmtp.cli.commands.{folder}{module}").command
    assert isinstance(command, click.Command)
    return command


class _Group(click.Group):
    """A group that imports a command when it is used, and lists the commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return load_command(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names of commands that begin so, without importing any."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem  # late: only a shell that completes needs it

        return [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from asyncsmtp.bulk.setup.config_types import describe_nearest  # late: only an error needs it

            raise CommandError(
                f"there is no command “{args[0]}”{describe_nearest(args[0], COMMANDS)}", "asyncsmtp --help"
            )
        return super().resolve_command(ctx, args)


_EPILOG = """\b
Exit codes: 0 all accepted, 1 some rejected or in doubt, 2 usage or pre-flight,
69 relay unreachable, 74 ledger or disk, 75 some left or ledger busy (run again),
77 authentication refused, 130 interrupted, 143 terminated (run again to go on).

\b
Example:
  asyncsmtp init demo
"""


@click.group(
    cls=_Group, invoke_without_command=True, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="asyncsmtp", message="asyncsmtp %(version)s")
@click.pass_context
def asyncsmtp(ctx: click.Context) -> ExitCode:
    """Mail everyone in a CSV, and know what happened to each."""
    if ctx.invoked_subcommand is not None:
        return ExitCode.ACCEPTED
    console.print_info("asyncsmtp: no command was given")
    console.print_info("  next: asyncsmtp init demo && asyncsmtp bulk demo/campaign.toml --sandbox")
    console.print_info("   all: asyncsmtp --help")
    return ExitCode.USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (those of the process when None); return its exit code."""
    console.configure_streams()
    line = CommandLine(tuple(sys.argv[1:] if arguments is None else arguments), asyncsmtp)
    try:
        ended = asyncsmtp.main([*line.words], prog_name="asyncsmtp", standalone_mode=False, obj=line)
        return int(ended or ExitCode.ACCEPTED)
    except BaseExceptionGroup as group:
        return _report(group, line)
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, line)
    finally:
        console.configure_info()


def _report(error: BaseException, line: CommandLine) -> ExitCode:
    """Print what `error` means on stderr; return the exit code."""
    failure = explain(error, line)
    console.print_info(f"asyncsmtp: {failure.sentence}", always=True)
    if failure.advice:
        console.print_info(f"  next: {failure.advice}", always=True)
    return failure.exit
