"""A campaign made from the user's own file of recipients, for `asyncsmtp init --recipients`.

What is missing is asked for on a terminal, and is an error elsewhere. Files that exist are never written over, and what
was written is removed again if the campaign cannot be used.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.bulk.setup.config import KEYS
from asyncsmtp.cli.command_line import format_command
from asyncsmtp.cli.options import load_campaign
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.errors import ConfigError, RecipientError, SMTPError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.open_campaign import CheckResult
    from asyncsmtp.bulk.recipients.column_header import ColumnHeader
    from asyncsmtp.bulk.recipients.file import RecipientFile

__all__ = ["CampaignAnswers", "make_campaign"]

SHOWN_ROWS = 3
MAX_CELL = 24  # characters shown of a cell
MAX_WIDTH = 100  # characters of a row that is shown
_GREETED = (
    *("firstname", "vorname", "givenname", "prenom", "nombre", "imie", "jmeno", "voornaam", "fornavn", "nome", "fname"),
    *("name", "fullname", "contact", "contactname", "nom", "naam", "navn"),
)
_AGAIN = "then run the same command again"


@dataclass(slots=True, kw_only=True)
class CampaignAnswers:
    """The settings of a new campaign as they were given; None for one that was not."""

    recipients: str | None = None
    from_: str | None = None
    subject: str | None = None
    html: str | None = None
    text: str | None = None
    email_column: str | None = None
    name: str | None = None
    relay: str | None = None


async def make_campaign(
    folder: Path | None, answers: CampaignAnswers, print_report: Callable[[CheckResult], object]
) -> ExitCode:
    """Make a campaign in `folder`, or beside the recipients; print the next commands.

    Args:
        print_report: prints the campaign's pre-flight; raises if the campaign cannot be used.
    Raises:
        CommandError: something is missing and nobody can be asked. SMTPError: the campaign cannot be used. OSError: a
            file cannot be written.
    """
    if answers.recipients is None:
        answers.recipients = _ask("File of the recipients (CSV, .xlsx, .jsonl)", _check_recipients)
    recipients = _check_recipients(answers.recipients)
    source, header = await _read_header(recipients, answers)
    await _show_rows(source, header)
    _complete(answers)
    folder = recipients.parent if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        path = _write_files(folder, recipients, header, answers, written)
        print_report(await _check(path))
    except (SMTPError, CommandError):
        for each in written:
            each.unlink(missing_ok=True)
        raise
    for each in written:
        console.print_info(f"  wrote {each}")
    steps = [f"look at the first message: {format_command('preview', path)}"]
    steps += [f"rehearse it: {format_command('bulk', path, '--sandbox', '--show', 1)}"]
    if answers.relay:
        steps += [f"send it: {format_command('bulk', path)}"]
    else:
        steps += [f"to send it, write the relay's url below [relay] in {path}"]
    console.print_steps(steps)
    return ExitCode.ACCEPTED


# Answers, each checked as it is given.


def _ask(question: str, check: Callable[[str], object]) -> str:
    """Ask until the answer is valid."""
    while True:
        console.print_info(f"{question}:", end=" ", always=True)
        if not (line := _read_line()):
            console.print_info(always=True)
            raise CommandError("the input has ended: nothing was written", "give the answers as options")
        try:
            check(line.strip())
        except CommandError as error:
            console.print_info(f"  {error}")
        else:
            return line.strip()


def _read_line() -> str:
    """Read a line; Ctrl-C ends the command at once, while the handler of asyncio would wait for the line."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, before)


def _check_recipients(text: str) -> Path:
    try:
        path = KEYS["campaign.recipients"].check(text, Path())
    except ValueError as error:
        raise CommandError(f"--recipients: {error}", f"correct --recipients, {_AGAIN}") from None
    assert isinstance(path, Path)
    if not path.is_file():
        raise CommandError(
            f"the recipients {safe_text(text, 120)} are not a file that is there", f"correct --recipients, {_AGAIN}"
        )
    return path


def _check_sender(text: str) -> None:
    from asyncsmtp.mail.address import Address, parse_address_list

    advice = f"correct --from, {_AGAIN}"
    try:
        found = parse_address_list(text)
    except SMTPError as error:
        raise CommandError(f"--from: {error}", advice) from None
    if len(found) != 1 or not isinstance(found[0], Address):
        raise CommandError(f"--from: “{safe_text(text, 60)}” is not one address", advice)


class _NoSecrets:
    """Secrets for a relay that is checked and not used."""

    def password(self, username: str, host: str) -> str:
        return "unused"

    def proxy_password(self, username: str, host: str) -> str:
        return "unused"

    def passphrase(self, key: Path) -> str:
        return "unused"


def _check_relay(text: str) -> None:
    """Check the URL of a relay; none is fine."""
    from asyncsmtp.bulk.open_campaign import make_relay

    try:
        if text:
            make_relay(text, _NoSecrets())
    except ConfigError as error:
        raise CommandError(error.why, error.advice) from None
    except SMTPError as error:
        raise CommandError(f"--relay: {error}", f"correct --relay, {_AGAIN}") from None


def _check_text(text: str) -> None:
    if not text:
        raise CommandError("it must not be empty")


async def _read_header(path: Path, answers: CampaignAnswers) -> tuple[RecipientFile, ColumnHeader]:
    """Read the header; ask for the column of the addresses if it cannot be detected."""
    from asyncsmtp.bulk.recipients.file import RecipientFile  # late: `--help` needs none of it

    asked = False
    while True:
        source = RecipientFile(path, email=answers.email_column)
        try:
            return source, await source.header()
        except RecipientError as error:
            if not (asked or "email_column=" in str(error)) or not console.is_interactive():
                raise
            asked = True
            console.print_info(f"  {str(error).replace('email_column=', '--email-column')}")
        answers.email_column = _ask("Column with the addresses", _check_text)


async def _show_rows(source: RecipientFile, header: ColumnHeader) -> None:
    """Print the columns, the first three rows, and where the addresses are."""
    rows: list[Sequence[str]] = [header.columns]
    async with aclosing(source.batches(SHOWN_ROWS)) as batches:
        async for batch in batches:
            rows += [[each.fields.get(column, "") for column in header.columns] for each in batch]
            break
    cells = [[_shorten(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    console.print_info(f"{source.name}: {console.pluralize(len(header.columns), 'column')}")
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print_info(f"  {safe_text(line, MAX_WIDTH)}")


def _shorten(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= MAX_CELL else f"{cell[: MAX_CELL - 1]}…"


def _complete(answers: CampaignAnswers) -> None:
    """Check what was given, and ask for the rest."""
    if not console.is_interactive():
        given = {"--from": answers.from_, "--subject": answers.subject}
        if missing := [name for name, value in given.items() if not value]:
            sentence = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            example = {"--from": "--from 'Example News <news@example.org>'", "--subject": "--subject 'News'"}
            raise CommandError(sentence, f"add {' '.join(example[name] for name in missing)}, {_AGAIN}")
    if not answers.from_:
        answers.from_ = _ask("Sender, such as Example News <news@example.org>", _check_sender)
    _check_sender(answers.from_)
    answers.subject = answers.subject or _ask("Subject", _check_text)
    if answers.relay is None and console.is_interactive():
        question = "Relay, such as smtp://user@mail.example.org:587 (Enter: later)"
        answers.relay = _ask(question, _check_relay)
    _check_relay(answers.relay or "")


# Files.


def _write_files(
    folder: Path, recipients: Path, header: ColumnHeader, answers: CampaignAnswers, written: list[Path]
) -> Path:
    """Write the campaign file, and a starter unless a template was given; return the former."""
    name = answers.name or recipients.stem
    bodies = {key: _relative(Path(given).expanduser(), folder) for key, given in _templates(answers).items()}
    if not bodies:
        for key, (suffix, content) in _starters(recipients.name, header).items():
            path = _write(folder, (f"message{suffix}", f"{name}{suffix}"), content)
            written.append(path)
            bodies[key] = path.name
    values = {"name": name, "from": answers.from_, "subject": answers.subject}
    values |= {"recipients": _relative(recipients, folder), "email_column": header.email, **bodies}
    lines = ["# Every key can also be an option: asyncsmtp bulk --help", "", "[campaign]"]
    lines += [f"{key} = {_quote(str(value))}" for key, value in values.items()]
    lines += ["", "[relay]", "# smtp://user@host:587 (STARTTLS) or smtps://user@host (TLS from the start)"]
    lines += [f"url = {_quote(answers.relay)}" if answers.relay else '# url = "smtp://user@mail.example.org:587"']
    lines += [
        "",
        "# [unsubscribe]    # of newsletters, mailbox providers expect it; {{ unsubscribe_url }} in a template",
    ]
    lines += ['# url = "https://example.org/unsubscribe/{{ token }}"', '# secret_file = "unsubscribe.secret"']
    path = _write(folder, ("campaign.toml", f"{name}.toml"), "\n".join(lines) + "\n")
    written.append(path)
    return path


def _templates(answers: CampaignAnswers) -> dict[str, str]:
    return {key: given for key, given in (("html", answers.html), ("text", answers.text)) if given}


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")


def _write(folder: Path, names: tuple[str, str], content: str) -> Path:
    """Write a new file under the first of these names that is free, or with a number."""
    stem, _, suffix = names[1].rpartition(".")
    free = (*names, *(f"{stem}-{number}.{suffix}" for number in range(2, 100)))
    for name in free:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            opened = os.open(folder / name, flags, 0o644)
        except FileExistsError:
            continue
        with open(opened, "w", encoding="utf-8") as file:
            file.write(content)
        return folder / name
    raise CommandError(f"{folder / names[0]} and many others are there already", "choose another folder: init DIR")


def _quote(text: str) -> str:
    """Return a basic string of TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _starters(name: str, header: ColumnHeader) -> Mapping[str, tuple[str, str]]:
    """Return a message for both parts, by the key: the suffix of the file, and a text that greets by these columns."""
    from asyncsmtp.mail.templates.variables import Columns

    names = Columns(header.columns).names
    spelled = {column: name for name, column in reversed([*names.items()])}
    variables = [f"{{{{ {_spell(spelled.get(column), column)} }}}}" for column in header.columns]
    folded = [re.sub(r"[\W_]", "", column.casefold()) for column in header.columns]
    greeted = next((variables[folded.index(word)] for word in _GREETED if word in folded), "")
    hello = f"Hello {greeted}," if greeted else "Hello,"
    shown = [each for each in variables if "#}" not in each and "}}" not in each[:-2]]
    about = f"{{# A line for each row; its columns: {', '.join(shown)} -#}}\n" if "#}" not in name else ""
    html = f"<html>\n<body>\n<p>{hello}</p>\n<p>Write your message here.</p>\n</body>\n</html>\n"
    return {"html": (".html", f"{about}{html}"), "text": (".txt", f"{about}{hello}\n\nWrite your message here.\n")}


def _spell(identifier: str | None, column: str) -> str:
    return identifier if identifier is not None else f"row[{json.dumps(column, ensure_ascii=False)}]"


async def _check(path: Path) -> CheckResult:
    """Run the pre-flight of the campaign, every message composed."""
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.bulk.open_campaign import check_rows

    prepared = await Campaign.from_config(load_campaign(path)).prepare()
    return await check_rows(prepared, every=True)
