"""`--env-file FILE`: variables from a file such as `.env`, read only when asked for."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.errors import MissingDependency
from asyncsmtp.protocol.replies import safe_text

__all__ = ["env_file_option", "read_env_file"]

MAX_SIZE = 1024 * 1024  # bytes
_SECRET = ("PASSWORD", "PASSPHRASE", "SECRET", "TOKEN")
_AGAIN = "then run the same command again"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def env_file_option(command: _Function) -> _Function:
    """Add --env-file to a command: the variables are set before any other option looks for its own."""
    return click.option(
        "--env-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="ASYNCSMTP_ENV_FILE",
        help="Variables of the environment, NAME=VALUE a line; those that are set win.",
        callback=_set_variables,
        expose_value=False,
        is_eager=True,
    )(command)


def _set_variables(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Set those variables that are not set, until the command has ended."""
    if path is None or context.resilient_parsing:
        return
    given = {name: value for name, value in read_env_file(path).items() if name not in os.environ}

    def restore() -> None:
        for name in given:
            os.environ.pop(name, None)

    context.find_root().call_on_close(restore)
    os.environ.update(given)


def read_env_file(path: Path) -> dict[str, str]:
    """Read the variables of a file as python-dotenv does, but nothing is replaced in a value, and no fault passed over.

    Raises:
        CommandError: it cannot be read, or a line is not NAME=VALUE. MissingDependency: python-dotenv is not installed.
    """
    try:
        from dotenv.parser import parse_stream  # late: an extra
    except ImportError:
        raise MissingDependency("reading --env-file", "asyncsmtp[dotenv]") from None
    shown = safe_text(str(path), 120)
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read(MAX_SIZE + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CommandError(f"--env-file: {shown}: {why}", f"correct the path or its permissions, {_AGAIN}") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"--env-file: {shown}: byte {error.start} is not UTF-8", "save it as UTF-8") from None
    if len(content) > MAX_SIZE:
        raise CommandError(f"--env-file: {shown} is larger than {MAX_SIZE:,} bytes", "name the file with the variables")
    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or "\0" in binding.original.string or (binding.key and binding.value is None):
            # the line may hold a password: it is not shown
            line = binding.original.line + len(binding.original.string) - len(binding.original.string.lstrip("\n"))
            sentence = f"--env-file: {shown}, line {line}: this is not NAME=VALUE"
            raise CommandError(sentence, f"correct the line, with quotes around a value that needs them, {_AGAIN}")
        if binding.key:
            found[binding.key] = binding.value or ""
    secret = next((name for name in found if any(word in name.upper() for word in _SECRET)), "")
    if secret and mode & (stat.S_IRGRP | stat.S_IROTH) and os.name == "posix":
        console.print_warning(f"warning: {shown} holds {safe_text(secret, 60)}, and other users can read it: chmod 600")
    return found
