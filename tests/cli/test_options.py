"""One meaning a name: an option is the same thing in every command, in the environment and in the campaign file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from asyncsmtp.bulk.setup.config import KEYS, load_config
from asyncsmtp.cli.main import COMMANDS, load_command
from tests.cli.ended import Command

MEANINGS = {  # of every option that several commands have
    "--all": "every campaign of a folder",
    "--bcc": "further recipients whom nobody sees",
    "--ca-file": "CA certificates to trust beside the system's",
    "--cc": "further recipients whom all see",
    "--concurrency": "the most messages that are sent at once",
    "--delimiter": "the delimiter of the CSV",
    "--dialogue": "how many commands are sent before their replies arrive",
    "--email-column": "the column of the addresses",
    "--encoding": "the encoding of the CSV",
    "--env-file": "a file of variables",
    "--from": "the sender",
    "--json": "one JSON object per result on stdout",
    "--ledger": "the ledger",
    "--limit": "the most messages",
    "--maildir": "the folder where a sandbox keeps its mails",
    "--name": "the name of a campaign",
    "--open": "it is shown in the browser",
    "--output": "where it is written",
    "--password-command": "a command that prints the password",
    "--port": "the port to listen on",
    "--processes": "how many processes send",
    "--provider": "a provider instead of that URL",
    "--quiet": "only warnings, errors and a summary of failures",
    "--recipients": "the file of the recipients",
    "--relay": "the URL of a relay",
    "--reply-to": "where answers go",
    "--row": "a row of the recipients, by its number",
    "--sandbox": "a rehearsal with a relay inside the command, and its ledger",
    "--since": "a time in the past",
    "--sessions": "the most connections to the relay",
    "--sheet": "which sheet of a workbook",
    "--show": "how many of a sandbox's mails to print",
    "--skip-lines": "lines above the names of the columns",
    "--strict": "nothing is begun with a row that has a problem or a remark",
    "--subject": "the subject",
    "--suppression": "a suppression list",
    "--template": "the template of the HTML part",
    "--text-template": "the template of the text",
    "--to": "a recipient",
    "--user": "the user name of the login",
    "--verbose": "the dialogue is shown",
    "--watch": "read again and again, with this pause",
    "--yes": "nobody is asked",
}


def options() -> Iterator[tuple[str, str, click.Option]]:
    """Every long name of every option, with the command that has it."""
    for command in COMMANDS:
        for each in load_command(command).params:
            if isinstance(each, click.Option) and not each.hidden:
                yield from ((name, command, each) for name in each.opts if name.startswith("--"))


def kind(option: click.Option) -> object:
    """What may be written as the value; a path is text, and its brackets say that it may be left out."""
    word = (option.metavar or "").strip("[]")
    limits = tuple(option.type.choices) if isinstance(option.type, click.Choice) else option.type.name
    return option.is_flag, word, "text" if limits in ("path", "_parse_ledger") else limits


def test_an_option_is_the_same_in_every_command() -> None:
    """FT-76: the same name takes the same kind of value; one that several commands have, has a meaning above."""
    found: dict[str, list[tuple[str, click.Option]]] = {}
    for name, command, each in options():
        found.setdefault(name, []).append((command, each))
    shared = {name: uses for name, uses in found.items() if len(uses) > 1}
    differing = {name: uses for name, uses in shared.items() if len({kind(each) for _, each in uses}) > 1}
    assert differing == {}
    assert sorted(shared) == sorted(MEANINGS)


def test_a_key_of_the_campaign_file_is_what_its_option_is() -> None:
    """FT-76: wherever the option of a key is known, it is that key's, and the variable is named after it."""
    declared = {name: key for key in KEYS.values() for name in key.options}
    for name, command, each in options():
        key = declared.get(name)
        if key is not None:
            assert each.metavar in (key.metavar, None), f"{command} {name}"
            assert each.envvar == key.variable, f"{command} {name}"
        assert each.envvar in (
            None,
            "ASYNCSMTP_" + each.opts[-1 if each.opts[0][1] != "-" else 0].strip("-").replace("-", "_").upper(),
        )
    assert {key.name.rpartition(".")[2] for key in KEYS.values() if "--email-column" in key.options} == {"email_column"}


def test_a_variable_belongs_to_one_option() -> None:
    """FT-76: ASYNCSMTP_FROM was the sender of `bulk` and the folder of `bounces`."""
    names: dict[str, set[str]] = {}
    for name, _, each in options():
        if isinstance(each.envvar, str):
            names.setdefault(each.envvar, set()).add(name)
    assert {variable: found for variable, found in names.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("bulk", "campaign.toml", "--text", "message.txt", "--sandbox"), "--text is deprecated: use --text-template"),
        (("bulk", "campaign.toml", "--html=message.txt", "--sandbox"), "--html is deprecated: use --template"),
        (("preview", "campaign.toml", "--eml", "out"), "--eml is deprecated: use --output"),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
def test_a_former_name_is_still_understood(
    command: Command, campaign: Path, words: tuple[str, ...], advice: str
) -> None:
    """FT-76: scripts that were written for it go on, and hear what it is called now."""
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert ended.err.count(advice) == 1
    assert advice.split()[0] not in [*command(words[0], "--help").out.replace("=", " ").split()]


def test_bounces_by_their_former_names(command: Command, campaign: Path) -> None:
    """FT-76: the folder is --inbox, and the list --suppression, as in `bulk`."""
    command("bulk", campaign, "--sandbox")
    words = ("bounces", campaign, "--sandbox")
    ended = command(*words, "--from", "news.sandbox.maildir", "--suppress", "gone.db")
    assert ended.code == 0
    assert "--from is deprecated: use --inbox" in ended.err
    assert "--suppress is deprecated: use --suppression" in ended.err
    assert command(*words, "--inbox", "news.sandbox.maildir", "--suppression", "gone.db").code == 0


def test_a_key_by_its_former_name(command: Command, campaign: Path) -> None:
    """FT-76: campaign files have `email`; the key is called as the option and the parameter are."""
    text = campaign.read_text("utf-8")
    campaign.write_text(f'{text}email = "email"\n', "utf-8")
    assert load_config(campaign).email_column == "email"
    campaign.write_text(f'{text}email_column = "email"\n', "utf-8")
    assert load_config(campaign).email_column == "email"
    campaign.write_text(f'{text}email = "email"\nemail_column = "name"\n', "utf-8")
    ended = command("check", campaign)
    assert (ended.code, "email is the former name of email_column" in ended.sentence) == (2, True)


VALUES = frozenset(
    [
        "ADDRESS",
        "CAMPAIGN.toml",
        "CAMPAIGN.toml|NAME",
        "CHARACTER",
        "CODE",
        "COLUMN",
        "COMMAND",
        "CONDITION",
        "CSV",
        "DIR",
        "FILE",
        "FILE|URL",
        "FOLDER|URL",
        "HOST",
        "HOST:PORT",
        "HTML",
        "ID",
        "LIST",
        "MAILBOX",
        "N",
        "NAME",
        "NAME:VALUE",
        "NAME=COLUMN",
        "NAME=FILE",
        "PATH",
        "RATES",
        "SECONDS",
        "SPAN",
        "TEXT",
        "TIME",
        "URL",
        "WINDOW",
    ]
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_name_of_a_value_says_what_it_is(command: str) -> None:
    """A word that the manual explains; a value that may be left out is in brackets."""
    for each in load_command(command).params:
        if each.metavar is not None:
            assert each.metavar.removesuffix("...").strip("[]") in VALUES, each.name
            assert each.metavar.startswith("[") == each.metavar.removesuffix("...").endswith("]")
