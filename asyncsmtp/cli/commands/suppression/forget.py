"""`asyncsmtp forget`: the removal of a person's data, and of everybody's whose retention has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger import STORED
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.setup.config import CampaignConfig
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import (
    campaign_argument,
    config_options,
    find_campaign_files,
    find_ledger,
    ledger_option,
    load_campaign,
    option,
    parse_mailbox,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode, explain
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.suppression.forgetting import Forgotten

__all__ = ["command"]

MAX_SEARCHED = 64 * 1024 * 1024  # bytes of a file in which the address is looked for

_EPILOG = """\b
Examples:
  asyncsmtp forget ann@example.com --all .
  asyncsmtp forget --expired --all .
"""


@dataclass(slots=True)
class _Places:
    """Places where the data of a person may be.

    Attributes:
        ledgers: each with its retention. lists: suppression lists.
        others: files and folders that this command does not change.
    """

    ledgers: dict[Path | Database, float | None] = field(default_factory=dict)
    lists: dict[Path, None] = field(default_factory=dict)
    others: dict[Path, None] = field(default_factory=dict)

    def add(self, config: CampaignConfig) -> None:
        """Add those of a campaign, and of its rehearsal."""
        self.ledgers[config.ledger_location] = config.retention
        if config.sandbox_ledger.exists():
            self.ledgers[config.sandbox_ledger] = config.retention
        self.lists |= dict.fromkeys(path for path in config.suppression if path.exists())
        maildir = config.folder / f"{config.name}.sandbox.maildir"
        self.others |= dict.fromkeys(path for path in (config.recipients, maildir) if path is not None)


@click.command("forget", epilog=_EPILOG)
@click.argument("address", metavar="[ADDRESS]", required=False)
@campaign_argument()
@config_options("campaign.name")
@ledger_option
@option("--all", "folder", type=click.Path(path_type=Path), metavar="DIR", help="In all campaigns of a folder.")
@option(
    "--suppression",
    "lists",
    type=click.Path(path_type=Path),
    metavar="LIST",
    multiple=True,
    help="In this suppression list as well.",
)
@option("--expired", is_flag=True, help="Everybody in ledgers whose retention has passed.")
@option("--yes", is_flag=True, help="Do not ask.")
@env_file_option
def command(
    address: str | None,
    campaign: Path | None,
    name: str | None,
    ledger: Path | Database | None,
    folder: Path | None,
    lists: tuple[Path, ...],
    expired: bool,
    yes: bool,
) -> ExitCode:
    """Remove a person's data from ledgers and suppression lists.

    Rows keep their state, so all counts stay; address, cells, Message-ID and
    reply are removed, also from the bytes of the file. A row that was to be
    sent is not sent. An entry of a suppression list becomes a hash, by which
    the person stays suppressed. First it is shown what would be removed.
    """
    if expired and address is not None and campaign is None:
        campaign, address = Path(address), None
    if expired and campaign is not None and campaign.is_dir():
        campaign, folder = None, folder or campaign
    if address is None and not expired:
        raise CommandError("nobody was named", "name an address, or add --expired")
    if address is not None and expired:
        raise CommandError("--expired is about everybody", "leave out the address, or --expired")
    if folder is not None and (campaign or ledger or name):
        raise CommandError("--all is about every campaign of its folder", "leave out the campaign, or --all")
    places = _find_in_folder(folder) if folder else _find(campaign, ledger, name)
    places.lists |= dict.fromkeys(lists)
    if not places.ledgers and (expired or not places.lists):
        raise CommandError("there is no ledger", "name a campaign, --ledger, or a folder with --all")
    if expired:
        return asyncio.run(_erase_expired(places, yes=yes))
    assert address is not None
    parse_mailbox("ADDRESS", address)
    return asyncio.run(_forget(address, places, yes=yes))


def _find(campaign: Path | None, ledger: Path | Database | None, name: str | None) -> _Places:
    places = _Places()
    if campaign is None and ledger is None and name is None:
        return places
    if campaign is not None and ledger is None:
        places.add(load_campaign(campaign, {"campaign.name": name}))
        return places
    where = find_ledger(campaign, ledger, sandbox=False, name=name)
    if where.campaign is not None and ledger is None:
        places.add(load_campaign(where.campaign))
    else:
        places.ledgers[where.location] = STORED
    return places


def _find_in_folder(folder: Path) -> _Places:
    if not folder.is_dir():
        raise CommandError(f"{safe_text(str(folder), 120)} is not a folder", "name a folder with campaign files")
    places = _Places()
    for each in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for path, config in find_campaign_files(each):
            if isinstance(config, CampaignConfig):
                places.add(config)
            else:
                raise CommandError(f"{path}: {safe_text(str(config), 300)}", "correct the file, or move it away")
        for path in sorted(each.glob("*.ledger")):
            places.ledgers.setdefault(path, STORED)
    return places


async def _forget(address: str, places: _Places, *, yes: bool) -> ExitCode:
    from asyncsmtp.bulk.suppression.forgetting import forget

    ledgers, lists = [*places.ledgers], [*places.lists]
    found = await forget(address, ledgers=ledgers, suppression=lists, dry_run=True)
    _print(found, "would be removed")
    if not any(found):
        _print_others(address, places)
        if not any(each.error for each in found):
            console.print_info(f"{safe_text(address)} is in none of them")
        return _get_exit_code(found)
    numbers = sum(each.rows.rows.total() for each in found if each.rows)
    what = f"remove the data of {address} in {console.pluralize(numbers, 'row')}"
    if not yes:
        await console.confirm(f"{what[0].upper()}{what[1:]}?", f"this would {what}", "nothing was removed")
    done = await forget(address, ledgers=ledgers, suppression=lists)
    _print(done, "removed")
    _print_others(address, places)
    return _get_exit_code(done)


async def _erase_expired(places: _Places, *, yes: bool) -> ExitCode:
    from asyncsmtp.bulk.suppression.forgetting import erase_expired

    due = await erase_expired([*places.ledgers.items()], dry_run=True)
    _print(due, "would be removed: its retention has passed")
    if not any(due):
        console.print_info("no retention has passed")
        return _get_exit_code(due)
    ledgers = console.pluralize(sum(map(bool, due)), "ledger")
    if not yes:
        what = f"remove the addresses and cells of everybody in {ledgers}"
        await console.confirm(f"{what[0].upper()}{what[1:]}?", f"this would {what}", "nothing was removed")
    done = await erase_expired([*places.ledgers.items()])
    _print(done, "removed")
    return _get_exit_code(done)


def _get_exit_code(found: Sequence[Forgotten]) -> ExitCode:
    return next((explain(each.error).exit for each in found if each.error), ExitCode.ACCEPTED)


def _print(found: Sequence[Forgotten], what: str) -> None:
    for each in found:
        if each.error is not None:
            console.print_warning(f"{each.place}: {explain(each.error).sentence}")
        elif each.rows is None and each.entries:
            entries = console.pluralize(each.entries, "entry", "entries")
            console.print_info(f"{each.place}: {entries} {what.partition(':')[0]}; a hash keeps the person suppressed")
        elif each.rows is not None and (each.rows or each.rows.kept):
            for line in _describe(each, what):
                console.print_info(line)


def _describe(each: Forgotten, what: str) -> Iterator[str]:
    rows = each.rows
    assert rows is not None
    states = " · ".join(f"{number:,} {state}" for state, number in sorted(rows.rows.items()) if number)
    yield f"{each.place}: {console.pluralize(rows.rows.total(), 'row')} {what}" + (f": {states}" if states else "")
    if rows.mentions:
        yield f"  and the address in {console.pluralize(rows.mentions, 'row')} of others"
    if rows.kept:
        kept = console.pluralize(rows.kept, "row")
        yield f"  {kept} of others with the address in a cell are still to be sent: run this again after that"
    if not rows.is_clean:
        where = "the server's files and log" if isinstance(each.place, Database) else f"{each.place}-wal"
        yield f"  {where} may have the bytes for a while"


def _print_others(address: str, places: _Places) -> None:
    """Print where else the address is; these files are kept by people."""
    needle = address.lower().encode()
    for path in places.others:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        number = sum(file.is_file() and _has(file, needle) for file in files)
        if number:
            advice = "delete that folder" if path.is_dir() else "remove it there when the campaign is complete"
            console.print_info(f"  the address is still in {path}: {advice}")


def _has(file: Path, needle: bytes) -> bool:
    try:
        return file.stat().st_size <= MAX_SEARCHED and needle in file.read_bytes().lower()
    except OSError:
        return False
