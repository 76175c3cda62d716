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
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from asyncsmtp.bulk.setup.config import KEYS
from asyncsmtp.cli.command_line import format_command, typed
from asyncsmtp.cli.options import load_campaign, make_cli_relays, with_interactive_timeouts
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode, explain
from asyncsmtp.cli.output.provider_advice import describe_quota
from asyncsmtp.cli.secret_sources import VARIABLE, CommandSecrets, Keyring
from asyncsmtp.errors import ConfigError, InvalidArgument, RecipientError, SMTPError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.open_campaign import CheckResult
    from asyncsmtp.bulk.recipients.column_header import ColumnHeader
    from asyncsmtp.bulk.recipients.file import RecipientFile
    from asyncsmtp.client.config.provider_presets import Provider

__all__ = ["CampaignAnswers", "make_campaign"]

SHOWN_ROWS = 3
MAX_CELL = 24  # characters shown of a cell
MAX_WIDTH = 100  # characters of a row that is shown
MAX_FILES = 5  # names of files that are shown
_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".jsonl", ".ndjson")
_MARKDOWN = (".md", ".markdown")  # which makes both parts
_MESSAGES = {".html": "html", ".htm": "html", ".txt": "text", **dict.fromkeys(_MARKDOWN, "html")}
_GREETED = (
    *("firstname", "vorname", "givenname", "prenom", "nombre", "imie", "jmeno", "voornaam", "fornavn", "nome", "fname"),
    *("name", "fullname", "contact", "contactname", "nom", "naam", "navn"),
)
_QUESTIONS = {
    "encoding": "Encoding of the file, such as cp1252",
    "sheet": "Sheet with the recipients",
    "email_column": "Column with the addresses",
}
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
    encoding: str | None = None
    delimiter: str | None = None
    skip_lines: int | None = None
    sheet: str | None = None
    name: str | None = None
    relay: str | None = None
    provider: str | None = None
    user: str | None = None

    def relay_url(self) -> str:
        """Return the URL of the relay as a run will have it; "" if there is none, or it has to be looked up."""
        from asyncsmtp.bulk.setup.provider_relay import UNRESOLVED, complete_relay_url

        if self.relay is None and self.provider is None:
            return ""
        url = complete_relay_url(self.relay, self.provider, self.user, self.from_)
        return "" if url.startswith(UNRESOLVED) else url


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
        answers.recipients = _ask_recipients()
    recipients = _check_recipients(answers.recipients)
    source, header = await _read_header(recipients, answers)
    await _show_rows(source, header)
    await _complete(answers)
    folder = recipients.parent if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        path = _write_files(folder, recipients, header, answers, written)
        result = await _check(path)
        print_report(result)
    except (SMTPError, CommandError):
        for each in written:
            each.unlink(missing_ok=True)
        raise
    for each in written:
        console.print_info(f"  wrote {each}")
    if len(written) > 1:
        console.print_info(f"  write your message in {' and '.join(str(each) for each in written[:-1])}")
    if (quota := describe_quota(answers.provider, (), result.report.recipients)) is not None:
        console.print_info(f"  {quota}")
    if console.is_interactive() and (url := answers.relay_url()):
        await _offer_login(path, url, answers)
    steps = [f"look at the first message: {format_command('preview', path)}"]
    steps += [f"rehearse it: {format_command('bulk', path, '--sandbox', '--show', 1)}"]
    if answers.relay or answers.provider:
        steps += [f"send it: {format_command('bulk', path)}"]
    else:
        steps += [f"to send it, write the relay's url or provider below [relay] in {path}"]
    console.print_steps(steps)
    return ExitCode.ACCEPTED


# Answers, each checked as it is given.


def _ask(question: str, check: Callable[[str], object], default: str = "") -> str:
    """Ask until the answer is valid; Enter alone is the default."""
    while True:
        if not (line := _read_line(f"{question}:")):
            console.print_info(always=True)
            raise CommandError("the input has ended: nothing was written", "give the answers as options")
        answer = line.strip() or default
        try:
            check(answer)
        except CommandError as error:
            console.print_info(f"  {error}" if answer else "  this needs an answer")
        else:
            return answer


def _ask_yes(question: str) -> bool:
    return _read_line(f"{question} [y/N]").strip().lower() in console.YES


def _read_line(prompt: str) -> str:
    """Read a line; Ctrl-C ends the command at once, while the handler of asyncio would wait for the line."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        console.print_info(prompt, end=" ", always=True)
        return sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, before)


def _ask_recipients() -> str:
    """Ask for the file; the only one of this folder is the default."""
    found = sorted(each.name for each in Path().iterdir() if each.suffix.lower() in _SUFFIXES and each.is_file())
    shown = ", ".join(found[:MAX_FILES]) + (", …" if len(found) > MAX_FILES else "")
    default = found[0] if len(found) == 1 else ""
    here = f"Enter: {safe_text(default, 60)}" if default else f"here: {safe_text(shown, 120)}" if found else ""
    kinds = "CSV, .xlsx, .ods, .jsonl"
    return _ask(f"File of the recipients ({'; '.join(filter(None, (kinds, here)))})", _check_recipients, default)


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

    def token(self, username: str, host: str) -> None:
        return None

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


def _find_preset(name: str | None) -> Provider | None:
    from asyncsmtp.client.config.provider_presets import find_preset

    try:
        return find_preset(name)
    except InvalidArgument as error:
        raise CommandError(f"--provider: {error}", f"correct --provider, {_AGAIN}") from None


def _check_provider_or_relay(text: str) -> None:
    """Check an answer that is either; none is fine."""
    if "://" in text:
        _check_relay(text)
    elif text:
        _find_preset(text)


def _guess_provider(sender: str) -> str:
    """Return the provider that the domain of an address belongs to; "" if none is known."""
    from asyncsmtp.client.config.provider_presets import find_provider
    from asyncsmtp.mail.address import Address

    try:
        return find_provider(Address.parse(sender).mailbox.domain).name
    except (InvalidArgument, RecipientError):
        return ""


def _check_text(text: str) -> None:
    if not text:
        raise CommandError("it must not be empty")


def _check_message(text: str) -> None:
    """Check the file of a message; none is fine."""
    path = Path(text).expanduser()
    if text and path.suffix.lower() not in _MESSAGES:
        raise CommandError(f"{safe_text(text, 60)} does not end in {', '.join(_MESSAGES)}")
    if text and not path.is_file():
        raise CommandError(f"{safe_text(text, 120)} is not a file that is there")


async def _read_header(path: Path, answers: CampaignAnswers) -> tuple[RecipientFile, ColumnHeader]:
    """Read the header; ask for the encoding, and for the column of the addresses, if they cannot be detected."""
    from asyncsmtp.bulk.recipients.file import RecipientFile  # late: `--help` needs none of it

    asked: set[str] = set()
    while True:
        source = RecipientFile(
            path,
            email=answers.email_column,
            delimiter=_parse_delimiter(answers.delimiter),
            encoding=answers.encoding,
            skip_lines=answers.skip_lines,
            sheet=answers.sheet,
        )
        try:
            header = await source.header()
        except RecipientError as error:
            sentence = str(error)
            missing = next((name for name in _QUESTIONS if f"{name}=" in sentence or name in asked), "")
            if not missing or not console.is_interactive():
                raise
            asked.add(missing)
            for name in _QUESTIONS:
                sentence = sentence.replace(f"{name}=", f"--{name.replace('_', '-')}")
            console.print_info(f"  {sentence}")
            setattr(answers, missing, _ask_setting(missing, getattr(error, "values", ())))
        else:
            answers.encoding = answers.encoding or header.encoding or None
            answers.sheet = answers.sheet or header.sheet or None
            if header.found_line and answers.skip_lines is None:
                answers.skip_lines = header.skipped_lines
            return source, header


def _ask_setting(name: str, values: Sequence[str]) -> str:
    """Ask for a setting that the file needs; Enter takes the most likely value."""
    default = values[0] if values else ""
    question = f"{_QUESTIONS[name]} (Enter: {safe_text(default, 60)})" if default else _QUESTIONS[name]
    return _ask(question, _check_text, default)


def _parse_delimiter(text: str | None) -> str | None:
    try:
        return None if text is None else str(KEYS["campaign.delimiter"].check(text, Path()))
    except ValueError as error:
        raise CommandError(f"--delimiter {error}", f"correct it, {_AGAIN}") from None


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


async def _complete(answers: CampaignAnswers) -> None:
    """Check what was given, and ask for the rest."""
    asks = console.is_interactive()
    if not asks:
        given = {"--from": answers.from_, "--subject": answers.subject}
        if missing := [name for name, value in given.items() if not value]:
            sentence = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            example = {"--from": "--from 'Example News <news@example.org>'", "--subject": "--subject 'News'"}
            raise CommandError(sentence, f"add {' '.join(example[name] for name in missing)}, {_AGAIN}")
    if not answers.from_:
        answers.from_ = _ask("Sender, such as Example News <news@example.org>", _check_sender)
    _check_sender(answers.from_)
    if asks and answers.relay is None and answers.provider is None:
        await _ask_relay(answers, answers.from_)
    _check_relay(answers.relay or "")
    preset = _find_preset(answers.provider)
    if preset is not None:
        _complete_user(answers, preset, asks=asks)
    answers.subject = answers.subject or _ask("Subject", _check_text)
    if asks and not _templates(answers):
        message = _ask("Message, a file (.html, .md, .txt; Enter: a starter that you edit)", _check_message)
        if message:
            setattr(answers, _MESSAGES[Path(message).suffix.lower()], message)


async def _ask_relay(answers: CampaignAnswers, sender: str) -> None:
    """Ask through whom it is sent; a domain must have a server in DNS."""
    from asyncsmtp.bulk.setup.provider_relay import find_submission_url

    default = _guess_provider(sender)
    question = f"Provider, such as gmail, or relay, such as smtp://user@host:587 (Enter: {default or 'later'})"
    while True:
        answer = _ask(question, _check_provider_or_relay, default)
        if not answer or "://" in answer:
            answers.relay = answer or None
            return
        try:
            if _find_preset(answer) is None:
                await find_submission_url(answer)
            answers.provider = answer
            return
        except SMTPError as error:
            console.print_info(f"  {error}")


def _complete_user(answers: CampaignAnswers, preset: Provider, *, asks: bool) -> None:
    """Have the user name of a provider, where it is neither the same for everybody nor the address of the sender."""
    named = answers.user or preset.username or preset.is_address or "@" in (answers.relay or "")
    if not named and not asks:
        raise CommandError(f"{preset.title} needs a login: {preset.login}", "add --user NAME")
    if not named:
        answers.user = _ask(f"User name at {preset.title} ({preset.login})", _check_text)
    if asks:
        console.print_info(f"  {preset.title}: log in with {preset.login}")


async def _offer_login(path: Path, url: str, answers: CampaignAnswers) -> None:
    """Offer to keep the password in the keyring, and to try the login; neither stops anything."""
    from asyncsmtp.cli.commands.check import check_relay
    from asyncsmtp.client.config.hostport import parse_host_port, split_url

    user, _, hosts = split_url(url).netloc.rpartition("@")
    try:
        if user:
            _offer_keyring(unquote(user), parse_host_port(hosts.partition(",")[0])[0], answers.provider)
        if not _ask_yes(f"Try the {'login' if user else 'relay'} now? Nothing is sent"):
            return
        for each in make_cli_relays(load_campaign(path)):
            if not isinstance(each.relay, str):
                await check_relay(with_interactive_timeouts(each.relay))
    except (SMTPError, CommandError, OSError) as error:
        failure = explain(error, typed())
        console.print_warning(f"  {failure.sentence}")
        if failure.advice:
            console.print_warning(f"  {failure.advice}")


def _offer_keyring(user: str, host: str, provider: str | None) -> None:
    if VARIABLE in os.environ or (keyring := Keyring.find()) is None:
        return
    if keyring.read(host, user) is not None or CommandSecrets().token(user, host) is not None:
        return
    preset = _find_preset(provider)
    if preset is not None and (known := preset.find_refusal("535 5.7.8 Username and Password not accepted")):
        console.print_info(f"  {known.advice}")
    import getpass

    who = f"{safe_text(user, 80)} at {safe_text(host, 80)}"
    if password := getpass.getpass(f"Password of {who}, for the keyring (Enter: ask each time): "):
        keyring.write(host, user, password)
        console.print_info("  the keyring keeps it")


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
    values |= {"encoding": answers.encoding, "delimiter": answers.delimiter, "sheet": answers.sheet}
    makes_text = "text" not in bodies and Path(bodies["html"]).suffix.lower() not in _MARKDOWN
    lines = ["# Every key can also be an option: asyncsmtp bulk --help", "", "[campaign]"]
    lines += [f"{key} = {_quote(str(value))}" for key, value in values.items() if value]
    lines += [f"skip_lines = {answers.skip_lines}"] if answers.skip_lines is not None else []
    if makes_text and find_spec("inscriptis") is not None:
        lines += ["text_from_html = true"]
    elif makes_text:
        console.print_info("  the message has no text part: name one with --text-template, or install asyncsmtp[html]")
    lines += ["", "[relay]", *_relay_lines(answers)]
    lines += [
        "",
        "# [unsubscribe]    # of newsletters, mailbox providers expect it; {{ unsubscribe_url }} in a template",
    ]
    lines += ['# url = "https://example.org/unsubscribe/{{ token }}"', '# secret_file = "unsubscribe.secret"']
    path = _write(folder, ("campaign.toml", f"{name}.toml"), "\n".join(lines) + "\n")
    written.append(path)
    return path


def _relay_lines(answers: CampaignAnswers) -> list[str]:
    given = {"provider": answers.provider, "url": answers.relay, "user": answers.user}
    lines = [f"{key} = {_quote(value)}" for key, value in given.items() if value]
    preset = _find_preset(answers.provider)
    if preset is not None and preset.rate:
        lines += ["", f"# [limits]    # {preset.title}: {preset.limits}", f"# rate = {_quote(preset.rate)}"]
    forms = "# smtp://user@host:587 (STARTTLS) or smtps://user@host (TLS from the start)"
    return lines or [forms, '# url = "smtp://user@mail.example.org:587"', '# provider = "gmail"']


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
    from asyncsmtp.mail.checks.rules import STARTER_TEXT
    from asyncsmtp.mail.templates.variables import Columns

    names = Columns(header.columns).names
    spelled = {column: name for name, column in reversed([*names.items()])}
    variables = [f"{{{{ {_spell(spelled.get(column), column)} }}}}" for column in header.columns]
    folded = [re.sub(r"[\W_]", "", column.casefold()) for column in header.columns]
    greeted = next((variables[folded.index(word)] for word in _GREETED if word in folded), "")
    hello = f"Hello {greeted}," if greeted else "Hello,"
    shown = [each for each in variables if "#}" not in each and "}}" not in each[:-2]]
    about = f"{{# A line for each row; its columns: {', '.join(shown)} -#}}\n" if "#}" not in name else ""
    html = f"<html>\n<body>\n<p>{hello}</p>\n<p>{STARTER_TEXT}</p>\n</body>\n</html>\n"
    return {"html": (".html", f"{about}{html}"), "text": (".txt", f"{about}{hello}\n\n{STARTER_TEXT}\n")}


def _spell(identifier: str | None, column: str) -> str:
    return identifier if identifier is not None else f"row[{json.dumps(column, ensure_ascii=False)}]"


async def _check(path: Path) -> CheckResult:
    """Run the pre-flight of the campaign, every message composed."""
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.bulk.open_campaign import check_rows

    prepared = await Campaign.from_config(load_campaign(path)).prepare()
    return await check_rows(prepared, every=True)
