"""`asyncsmtp completion`: the script that completes the command in a shell."""

from __future__ import annotations

import click

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode

__all__ = ["command"]

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\b
bash: in ~/.bashrc     eval "$(asyncsmtp completion bash)"
zsh:  in ~/.zshrc      eval "$(asyncsmtp completion zsh)"
fish: once             asyncsmtp completion fish > ~/.config/fish/completions/asyncsmtp.fish

\b
Example:
  asyncsmtp completion zsh > _asyncsmtp
"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> ExitCode:
    """Print a script that completes commands in bash, zsh or fish.

    It completes commands, options, their choices and files. bash needs to be
    4.4 or newer.
    """
    from click.shell_completion import get_completion_class  # late: only this command and a shell need it

    completion = get_completion_class(shell)
    assert completion is not None
    group = click.get_current_context().find_root().command
    # click's own `source()` of bash runs bash to see its version, which an image may not have
    made = completion(group, {}, "asyncsmtp", "_ASYNCSMTP_COMPLETE")
    console.print_result((made.source_template % made.source_vars()).strip(), harmless=False)
    return ExitCode.ACCEPTED
