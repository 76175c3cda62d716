"""Write the manual page docs/reference/asyncsmtp.1 from the commands and their options: `python docs/list_man.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from asyncsmtp.cli.main import COMMANDS, asyncsmtp, load_command

PAGE = Path(__file__).parent / "reference" / "asyncsmtp.1"
_HEAD = """\
.\\" Listed from the commands by docs/list_man.py; a test compares.
.TH ASYNCSMTP 1 "" "asyncsmtp" "User Commands"
"""
_ENVIRONMENT = {
    "ASYNCSMTP_NAME": "Every option can be given so: ASYNCSMTP_RATE is --rate. The option wins, and the variable goes "
    "before the campaign file. Several values stand on a line each.",
    "ASYNCSMTP_PASSWORD": "Password of the relay's user.",
    "ASYNCSMTP_PROXY_PASSWORD": "Password of the proxy's user.",
    "ASYNCSMTP_KEY_PASSPHRASE": "Passphrase of the key of a client certificate.",
    "ASYNCSMTP_WEBHOOK_SECRET": "Secret that signs the requests of --webhook.",
    "ASYNCSMTP_TRACEBACK": "Set to 1, a bug shows its traceback.",
}
_FILES = {
    "campaign.toml": "A campaign: message, recipients, relay, limits.",
    "NAME.ledger": "The outcome of every recipient, beside the campaign file.",
    "NAME.sandbox.ledger, NAME.sandbox.maildir": "The same of a rehearsal, and its mails.",
}


def page() -> str:
    """Return the whole manual page."""
    what = _escape((asyncsmtp.help or "").rstrip("."))
    parts = [
        _HEAD,
        ".SH NAME",
        f"asyncsmtp \\- {what}",
        ".SH SYNOPSIS",
        ".B asyncsmtp",
        "\\fICOMMAND\\fR [\\fIOPTION\\fR]...",
    ]
    parts += [".SH DESCRIPTION", *_paragraphs(asyncsmtp.help), *_paragraphs(asyncsmtp.epilog)]
    parts += [".SH COMMANDS"]
    for name, line in COMMANDS.items():
        parts += [".TP", f".B {_escape(name)}", _escape(line)]
    for name in COMMANDS:
        command = load_command(name)
        parts += [f'.SH "ASYNCSMTP {name.upper()}"', *_command(command)]
    for heading, table in (("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        parts.append(f".SH {heading}")
        for name, text in table.items():
            parts += [".TP", f".B {_escape(name)}", _escape(text)]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def _command(command: click.Command) -> Iterator[str]:
    arguments = [param.metavar or f"{param.name}".upper() for param in command.params if not _is_option(param)]
    yield f".B asyncsmtp {_escape(str(command.name))}"
    yield _escape(" ".join(["[OPTION]...", *arguments]))
    yield from _paragraphs(command.help)
    groups: dict[str, list[click.Option]] = {}
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            groups.setdefault(getattr(param, "group", "Options"), []).append(param)
    for heading, options in groups.items():
        if len(groups) > 1:
            yield f'.SS "{_escape(heading)}"'
        for option in options:
            yield ".TP"
            yield _names(option)
            yield _escape(" ".join((option.help or "").split()))
    if len(groups) > 1:
        yield '.SS "Notes"'
    yield from _paragraphs(command.epilog)


def _is_option(param: click.Parameter) -> bool:
    return isinstance(param, click.Option)


def _names(option: click.Option) -> str:
    names = ", ".join(f"\\fB{_escape(name)}\\fR" for name in sorted(option.opts, key=len))
    if option.is_flag or option.count:
        return names
    value = option.metavar or ("|".join(option.type.choices) if isinstance(option.type, click.Choice) else "N")
    return f"{names} \\fI{_escape(value)}\\fR"


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a help text; one that begins with \\b keeps its lines, as click does."""
    for paragraph in (text or "").strip("\n").split("\n\n"):
        lines = [line.rstrip() for line in paragraph.splitlines() if line.strip()]
        if not lines:
            continue
        yield ".PP"
        if lines[0].strip() == "\b":
            yield from (".nf", *map(_escape, lines[1:]), ".fi")
        else:
            yield _escape(" ".join(line.strip() for line in lines))


def _escape(text: str) -> str:
    """Return text of which roff reads nothing as a command (groff_char(7))."""
    for character, escape in {"\\": "\\e", "-": "\\-", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}.items():
        text = text.replace(character, escape)
    text = text.replace("…", "...")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
