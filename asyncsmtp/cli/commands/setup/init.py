"""`asyncsmtp init`: a sample campaign that works at once, or one for the user's own recipients."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import secrets
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from asyncsmtp.cli.command_line import format_command
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import config_options
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

__all__ = ["PEOPLE", "PRIVATE", "command", "count_rows", "make_people", "sample_files"]

PEOPLE = "people.csv"
PRIVATE = "unsubscribe.secret"  # nobody but its owner may read it

_FIRST = (
    "Anna", "Björn", "Chloé", "Dmitri", "Eszter", "Fatima", "Günther", "Hana", "Íñigo", "Jürgen", "Kateřina", "Łukasz",
    "Maëlle", "Nikos", "Øystein", "Paul", "Quỳnh", "Rosalía", "Søren", "Tomáš", "Umut", "Veronika", "Wei", "Xènia",
    "Yūki", "Zoë",
)  # fmt: skip
_LAST = (
    "Ångström", "Brontë", "Čapek", "Dvořák", "Eriksson", "Fernández", "Grünwald", "Hämäläinen", "Ionescu", "Jansen",
    "Kowalczyk", "L'Hôpital", "Müller", "Núñez", "O'Brien", "Papadopoulou", "Rossi", "Šarić", "Tanaka", "van der Berg",
    "Weiß", "Yılmaz", "Zając",
)  # fmt: skip
_COMPANY = (
    "Nordlicht AG", "Müller, Söhne & Co.", "Café \"Zentral\"", "Atelier Çınar", "Blue Harbour Ltd", "Österberg & Fils",
    "Vino e Pane", "Zenit Optika", "Smörgås <Catering>",
)  # fmt: skip
_CITY = (
    "Wien", "Zürich", "København", "Kraków", "São Paulo", "Reykjavík", "München", "Athens", "Malmö", "Ljubljana",
    "Lyon",
)  # fmt: skip

_EPILOG = """\b
Examples:
  asyncsmtp init demo --rows 50
  asyncsmtp init --recipients demo/people.csv --provider gmail --from ann@gmail.com --subject 'News for {{ name }}'
"""
_OWN = (
    *("campaign.from", "campaign.subject", "campaign.html", "campaign.text", "campaign.email_column", "campaign.name"),
    *("campaign.encoding", "campaign.delimiter", "campaign.skip_lines", "campaign.sheet"),
    *("relay.provider", "relay.url", "relay.user"),
)


@click.command("init", epilog=_EPILOG)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@click.option("--rows", type=click.IntRange(1, 1_000_000), help="People in people.csv of the sample (20).")
@config_options("campaign.recipients", *_OWN)
@env_file_option
def command(folder: Path | None, rows: int | None, **answers: Any) -> ExitCode:
    """Write a sample campaign that works at once, or one of your own.

    The sample goes into DIR, or into the current folder. With --recipients, a
    campaign is made for that file, in DIR or beside the file, which stays where
    it is; on a terminal you are asked for what is missing, and without DIR for
    the file as well. Files that exist are left alone: running it again never
    loses your changes.
    """
    if answers["recipients"] is not None or (folder is None and rows is None and console.is_interactive()):
        if rows is not None:
            raise CommandError("--rows is about the sample", "leave out --rows, or --recipients")
        from asyncsmtp.cli.commands.check import print_report  # late, as below: the sample needs none of it
        from asyncsmtp.cli.commands.setup.new_campaign import CampaignAnswers, make_campaign

        return asyncio.run(make_campaign(folder, CampaignAnswers(**answers), print_report))
    context = click.get_current_context()
    for name in answers:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(param.opts[0] for param in context.command.params if param.name == name)
            raise CommandError(f"{option} is about a campaign of your own", "add --recipients people.csv")
    folder = folder or Path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CommandError(f"{folder} is a file, not a folder", "asyncsmtp init demo") from error
    for name, content in sample_files(rows or 20).items():
        _write(folder / name, content, 0o600 if name == PRIVATE else 0o644)
    if rows is not None:
        _compare_rows(folder / PEOPLE, rows)
    console.print_steps([format_command("bulk", folder / "campaign.toml", "--sandbox")])
    return ExitCode.ACCEPTED


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file; leave one that is there, of whatever kind, alone."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    except FileExistsError:
        console.print_info(f"  kept  {path}")
        return
    with open(opened, "wb") as file:
        file.write(content)
    console.print_info(f"  wrote {path}")


def _compare_rows(path: Path, rows: int) -> None:
    there = count_rows(path.read_bytes())
    if there != rows:
        console.print_info(f"{path} was there already, with {there} rows instead of {rows}")
        fresh = next(each for number in count(2) if not (each := Path(f"{path.parent.absolute()}-{number}")).exists())
        console.print_steps([f"a sample with {rows} rows: {format_command('init', fresh, '--rows', rows)}"])


def sample_files(rows: int) -> Mapping[str, bytes]:
    """Return every file of the sample, in the order in which they are written; `rows` people are in people.csv."""
    folder = files("asyncsmtp.cli") / "sample"
    return {
        "campaign.toml": (folder / "campaign.toml").read_bytes(),
        PEOPLE: make_people(rows),
        **{name: (folder / name).read_bytes() for name in ("message.html", "message.txt", "logo.png")},
        PRIVATE: secrets.token_hex(16).encode(),
    }


def make_people(rows: int) -> bytes:
    """Return a CSV of invented people at example.org; the same ones every time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("email", "name", "company", "city"))
    writer.writerows(_people(rows))
    return text.getvalue().encode()


def count_rows(content: bytes) -> int:
    """Count the records of a people.csv, header excluded."""
    return max(0, sum(1 for _ in csv.reader(io.StringIO(content.decode("utf-8", "replace"), newline=""))) - 1)


def _people(rows: int) -> Iterator[tuple[str, str, str, str]]:
    for number in range(rows):
        first, last = _FIRST[number % len(_FIRST)], _LAST[number % len(_LAST)]
        company = _COMPANY[number % len(_COMPANY)] if number % 4 else ""
        yield f"person{number + 1}@example.org", f"{first} {last}", company, _CITY[number % len(_CITY)]
