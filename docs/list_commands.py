"""Write docs/reference/commands.md from the commands and their options: `python docs/list_commands.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from asyncsmtp.bulk.setup.config import KEYS
from asyncsmtp.cli.main import COMMANDS, load_command

PAGE = Path(__file__).parent / "reference" / "commands.md"
HEAD = """\
# Commands and options

Listed from the commands by `docs/list_commands.py`; a test compares. `asyncsmtp COMMAND --help` and `man asyncsmtp` say
the same.

Every option can also be a variable of the environment: `ASYNCSMTP_RATE` is `--rate`. The option wins, and the variable
goes before the campaign file. Several values stand on a line each. Secrets are variables only: `ASYNCSMTP_PASSWORD` (of
the relay's user), `ASYNCSMTP_PROXY_PASSWORD`, `ASYNCSMTP_KEY_PASSPHRASE` (of a client certificate),
`ASYNCSMTP_CLIENT_SECRET` (of a login by OAuth), `ASYNCSMTP_WEBHOOK_SECRET` and `ASYNCSMTP_UNSUBSCRIBE_SECRET`.
"""


def page() -> str:
    """Return the whole of docs/reference/commands.md."""
    parts = [HEAD, "| command | |", "|---|---|"]
    parts += [f"| [{name}](#asyncsmtp-{name}) | {line} |" for name, line in COMMANDS.items()]
    for name in COMMANDS:
        parts += ["", f"## asyncsmtp {name}", "", *_command(load_command(name))]
    return re.sub("\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _command(command: click.Command) -> Iterator[str]:
    words = [
        param.make_metavar(click.Context(command)) for param in command.params if isinstance(param, click.Argument)
    ]
    yield f"`{' '.join(['asyncsmtp', str(command.name), '[OPTION]...', *words])}`"
    yield ""
    yield from _paragraphs(command.help)
    groups: dict[str, list[click.Option]] = {}
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            groups.setdefault(getattr(param, "group", "Options"), []).append(param)
    has_keys = command.name in ("bulk", "init")  # elsewhere an option of the same name is about one command only
    for heading, options in groups.items():
        yield from (
            f"| {heading.lower()} | |" + " key of the campaign file |" * has_keys,
            "|---|---|" + "---|" * has_keys,
        )
        for option in options:
            row = f"| {_names(option)} | {_escape(' '.join((option.help or '').split()))} |"
            yield row + f" {_key(option)} |" * has_keys
        yield ""
    yield from _paragraphs(command.epilog)


def _names(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    if option.is_flag or option.count:
        return names
    value = option.metavar or ("|".join(option.type.choices) if isinstance(option.type, click.Choice) else "N")
    return f"{names} `{value}`".replace("|", "\\|")


def _key(option: click.Option) -> str:
    """Return the key of the campaign file that says the same."""
    for key in KEYS.values():
        if set(key.options) & set(option.opts):
            section, _, name = key.name.rpartition(".")
            return f"`{name}` in `[{section}]`" if section else f"`[{name}]`"
    return ""


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a help text; one that begins with \\b keeps its lines, as click does."""
    for paragraph in (text or "").strip("\n").split("\n\n"):
        lines = [line.rstrip() for line in paragraph.splitlines() if line.strip()]
        if not lines:
            continue
        if lines[0].strip() == "\b":
            yield from ("```text", *lines[1:], "```")
        else:
            yield _escape(" ".join(line.strip() for line in lines))
        yield ""


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("{{", "\\{\\{")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
