"""`asyncsmtp init`: a sample campaign that works at once."""

from __future__ import annotations

import os
from pathlib import Path

import click

from asyncsmtp.cli.campaign import sample
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp init demo --rows 50
"""


@click.command("init", epilog=_EPILOG)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@click.option("--rows", type=click.IntRange(1, 1_000_000), help="People in people.csv (20).")
def command(folder: Path, rows: int | None) -> Exit:
    """Write a sample campaign that works at once.

    It goes into DIR, or into the current folder. Files that exist are left
    alone: running it again never loses your changes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise Failed(f"{folder} is a file, not a folder", "asyncsmtp init demo") from error
    for name, octets in sample.files(rows or 20).items():
        _write(folder / name, octets, 0o600 if name == sample.OF_THE_OWNER else 0o644)
    if rows is not None:
        _compare_rows(folder / sample.PEOPLE, rows)
    console.say(f"  next: asyncsmtp bulk {folder / 'campaign.toml'} --sandbox")
    return Exit.ACCEPTED


def _write(path: Path, octets: bytes, mode: int) -> None:
    """Write a new file; leave one that is there, of whatever kind, alone."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    except FileExistsError:
        console.say(f"  kept  {path}")
        return
    with open(opened, "wb") as file:
        file.write(octets)
    console.say(f"  wrote {path}")


def _compare_rows(path: Path, rows: int) -> None:
    there = sample.rows_in(path.read_bytes())
    if there != rows:
        console.say(f"{path} was there already, with {there} rows instead of {rows}")
        console.say(
            f" fresh: rm {path} and the *.ledger files beside it, then: asyncsmtp init {path.parent} --rows {rows}"
        )
