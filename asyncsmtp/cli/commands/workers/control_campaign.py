"""`asyncsmtp campaign`: load a campaign for workers, and start, pause, resume or cancel it for all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.setup.config import name_ledger_campaign
from asyncsmtp.cli.command_line import format_command, typed
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import ledger_option, load_campaign, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.setup.config import CampaignConfig

__all__ = ["ACTIONS", "command"]

ACTIONS = ("load", "start", "pause", "resume", "cancel")

_EPILOG = """\b
load: check everything, and take the recipients into the ledger; nothing is sent.
start: begin a round: try those that are left once more, by the lists as they are.
pause: all workers stop within a second. resume: they go on.
cancel: all workers end; those that are left stay pending, until a start.

\b
Example:
  asyncsmtp campaign pause news --ledger postgresql://mail@db.example.com/mail
"""


@dataclass(frozen=True, slots=True)
class _Named:
    """A campaign in a database, and its configuration where its file was named."""

    place: Database
    config: CampaignConfig | None
    words: str


@click.command("campaign", epilog=_EPILOG)
@click.argument("action", type=click.Choice(ACTIONS), metavar="COMMAND")
@click.argument("name", metavar="CAMPAIGN.toml|NAME")
@ledger_option
@option("--strict", is_flag=True, help="Send nothing if any row has a problem or a remark.")
@option("--paused", is_flag=True, help="load: workers wait until it is resumed.")
@env_file_option
def command(action: str, name: str, ledger: Path | Database | None, strict: bool, paused: bool) -> ExitCode:
    """Load a campaign for workers; start, pause, resume or cancel it.

    COMMAND is load, start, pause, resume or cancel. load needs the campaign file
    and the recipients; the others need the name and the ledger.
    """
    named = _find(name, ledger)
    if action == "load":
        return asyncio.run(_load(named, strict=strict, paused=paused))
    if strict or paused:
        raise CommandError(f"--{'strict' if strict else 'paused'} is for load", "leave it out")
    return asyncio.run(_change(action, named))


def _find(name: str, ledger: Path | Database | None) -> _Named:
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        config = load_campaign(path)
        location = name_ledger_campaign(ledger, config.name) if ledger else config.ledger_location
    else:
        if ledger is None:
            raise CommandError("no ledger was given", "add --ledger postgresql://user@host/database, or name the file")
        config, location = None, name_ledger_campaign(ledger, name)
    if not isinstance(location, Database):
        raise CommandError(
            f"workers need a ledger in PostgreSQL, and {location} is a file",
            "add --ledger postgresql://user@host/database",
        )
    words = [name, *(["--ledger", ledger] if ledger else []), *typed().env_file]
    return _Named(location, config, " ".join(format_command(*words).split()[1:]))


async def _load(named: _Named, *, strict: bool, paused: bool) -> ExitCode:
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.bulk.workers.control import read_next
    from asyncsmtp.cli.output.run_stats import notify_if_slow

    if named.config is None:
        raise CommandError("load needs the campaign file", "name it: asyncsmtp campaign load CAMPAIGN.toml")
    config = replace(named.config, ledger=named.place)
    with notify_if_slow(f"reading {config.recipients}"):
        counts = await Campaign.from_config(config).load(strict=strict, paused=paused)
    shown = ", ".join(f"{number:,} {state}" for state, number in counts.items() if number)
    console.print_result(f"{config.name}: {shown}")
    console.print_info("nothing was sent: workers do that, on any host with the campaign's files")
    state = await read_next(named.place)
    if state.is_paused or state.is_cancelled:
        console.print_info(f"  the campaign is {'paused' if state.is_paused else 'cancelled'}: workers send nothing")
        console.print_steps([f"asyncsmtp campaign {'resume' if state.is_paused else 'start'} {named.words}"])
    else:
        console.print_steps([f"asyncsmtp work {named.words}"])
    return ExitCode.ACCEPTED


async def _change(action: str, named: _Named) -> ExitCode:
    from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState
    from asyncsmtp.bulk.workers.control import change_state, store_suppressions

    running, paused, cancelled = CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.CANCELLED
    if action == "start":
        if named.config is not None and named.config.suppression:
            number = await store_suppressions(named.place, named.config.suppression)
            console.print_info(
                f"  {console.pluralize(number, 'entry', 'entries')} of suppression lists for all workers"
            )
        before = await change_state(named.place, running, new_round=True)
    elif action == "resume":
        before = await change_state(named.place, running, only=paused)
    elif action == "pause":
        before = await change_state(named.place, paused, only=running)
    else:
        before = await change_state(named.place, cancelled)
    name = named.place.campaign
    if before is cancelled and action in ("pause", "resume"):
        raise CommandError(f"the campaign “{name}” was cancelled", f"asyncsmtp campaign start {named.words}")
    done = {"start": "started", "resume": "running", "pause": "paused", "cancel": "cancelled"}[action]
    console.print_result(f"{name}: {done}" + (f" (it was {before})" if str(before) != done else " already"))
    return ExitCode.ACCEPTED
