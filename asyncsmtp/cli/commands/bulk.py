"""`asyncsmtp bulk`: the main job."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli import looping
from asyncsmtp.cli.campaign.keys import IN_DOUBT
from asyncsmtp.cli.campaign.onlyto import send_to_one
from asyncsmtp.cli.campaign.plan import Plan
from asyncsmtp.cli.campaign.rehearsal import dry, rehearse
from asyncsmtp.cli.campaign.running import run
from asyncsmtp.cli.campaign.settings import Settings, settle
from asyncsmtp.cli.campaign.whose import of_campaign
from asyncsmtp.cli.options import campaign_argument, json_option, ledger_option, option, relay_options, verbose_option
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.sandboxes import sandboxed

__all__ = ["command"]

KEY_OF = {
    "recipients": "campaign.recipients",
    "template": "campaign.html",
    "text": "campaign.text",
    "from_": "campaign.from",
    "subject": "campaign.subject",
    "reply_to": "campaign.reply_to",
    "return_path": "campaign.return_path",
    "webhook": "campaign.webhook",
    "suppression": "campaign.suppression",
    "name": "campaign.name",
    "email_column": "campaign.email",
    "column": "columns",
    "delimiter": "campaign.delimiter",
    "encoding": "campaign.encoding",
    "where": "campaign.where",
    "offset": "campaign.offset",
    "relay": "relay.url",
    "ca_file": "relay.ca_file",
    "password_command": "relay.password_command",
    "dialogue": "relay.dialogue",
    "sessions": "relay.sessions",
    "max_per_connection": "relay.max_per_connection",
    "concurrency": "limits.concurrency",
    "rate": "limits.rate",
    "window": "limits.window",
    "time_zone_column": "limits.time_zone_column",
    "start_at": "limits.start_at",
    "spread_until": "limits.spread_until",
    "in_doubt": "retry.in_doubt",
    "retry_for": "retry.for",
    "retry_delay": "retry.delay",
    "attempts": "retry.attempts",
}

_EPILOG = """\b
Every option can also be ASYNCSMTP_NAME in the environment, or a key of the
campaign file. Ctrl-C finishes what is under way; a second one breaks it off.

\b
Example:
  asyncsmtp bulk demo/campaign.toml --sandbox
"""


@click.command("bulk", epilog=_EPILOG)
@campaign_argument()
@option("--recipients", metavar="CSV", help="Who is mailed.")
@option("--template", "--html", "template", metavar="HTML", help="The HTML part, Jinja2.")
@option("--text", metavar="FILE", help="The plain text part, Jinja2.")
@option("--from", "from_", metavar="MAILBOX", help="'Example News <news@example.org>'")
@option("--subject", metavar="TEXT", help="Jinja2 too.")
@option("--reply-to", metavar="MAILBOX", help="Where answers go.")
@option("--return-path", metavar="MAILBOX", help="Where bounces go: 'bounces+{{ token }}@example.org'")
@option("--webhook", metavar="URL", help="Tell it each outcome; ASYNCSMTP_WEBHOOK_SECRET signs what is told.")
@option("--suppression", multiple=True, metavar="LIST", help="Who gets nothing: see asyncsmtp suppress.")
@option("--name", metavar="NAME", help="The campaign's, and its ledger's.")
@option("--email-column", metavar="COLUMN", help="Which column has the addresses.")
@option("--column", multiple=True, metavar="NAME=COLUMN", help="What templates call a column: name='Full name'")
@option("--delimiter", metavar="CHARACTER", help="Of the CSV: , ; | or tab.")
@option("--where", metavar="CONDITION", help='Only such rows: \'country == "AT" and plan != "free"\'')
@option("--offset", type=click.IntRange(min=0), metavar="N", help="Leave the first N rows out.")
@option("--encoding", metavar="NAME", help="Of the CSV, such as cp1252; found out, and said aloud, if not given.")
@relay_options
@option("--sessions", type=click.IntRange(1, 10_000), help="Connections at once (10).")
@option("--max-per-connection", type=click.IntRange(1, 10_000), metavar="N", help="Messages, then a new connection.")
@option("--concurrency", type=click.IntRange(1, 10_000), help="Messages in hand at once (100).")
@option("--in-doubt", type=click.Choice(IN_DOUBT), help="What becomes of rows whose reply was lost (hold).")
@option("--rate", metavar="RATES", help="'30/s, 2000/day': each of them holds; a day's is remembered.")
@option("--window", metavar="WINDOW", help="'Mon-Fri 09:00-17:00 Europe/Vienna'; several by semicolons.")
@option("--time-zone-column", metavar="COLUMN", help="Whose cells say for whom the window is when.")
@option("--start-at", metavar="TIME", help="Nothing before: '2026-12-01 09:00', or '09:00'.")
@option("--spread-until", metavar="TIME", help="Evenly, so that the last goes out then.")
@option("--wait", is_flag=True, help="Stay for what comes later: quotas, windows, second attempts.")
@option("--retry-for", metavar="SPAN", help="Give up what is refused for the moment after this long (4d).")
@option("--retry-delay", metavar="SPAN", help="Before the second attempt; doubled for each further one (5m).")
@option("--attempts", type=click.IntRange(1, 10_000), metavar="N", help="For each recipient at the most.")
@ledger_option
@option("--dry-run", is_flag=True, help="Compose every message, send none.")
@option("--limit", type=click.IntRange(min=1), metavar="N", help="This many rows, then stop.")
@option("--add", type=click.Path(path_type=Path), metavar="CSV", help="Further recipients, for one that was begun.")
@option("--only-to", metavar="ADDRESS", help="The first row's message (or --limit N) to ADDRESS instead.")
@option("--row", type=click.IntRange(min=1), metavar="N", help="That row's message, for --only-to.")
@option("--sandbox", is_flag=True, help="To a relay inside the command: nothing leaves this machine.")
@option("--maildir", type=click.Path(path_type=Path), metavar="DIR", help="Where the sandbox keeps what it gets.")
@option("--show", type=click.IntRange(min=1), metavar="N", help="Print N of the messages the sandbox got.")
@option("--strict", is_flag=True, help="Send nothing if any row is odd.")
@option("--yes", is_flag=True, help="Do not ask before sending.")
@json_option
@verbose_option
def command(
    campaign: Path | None,
    ledger: Path | Database | None,
    dry_run: bool,
    limit: int | None,
    add: Path | None,
    only_to: str | None,
    row: int | None,
    sandbox: bool,
    maildir: Path | None,
    show: int | None,
    strict: bool,
    wait: bool,
    yes: bool,
    as_json: bool,
    verbose: bool,
    **options: object,
) -> Exit:
    """Mail everyone in a CSV; run it again to resume.

    Everything is checked before the first message leaves. Each recipient's
    outcome is in the ledger, NAME.ledger beside the campaign or a database,
    whatever happens.
    """
    if not sandbox and (maildir or show):
        raise Failed("--maildir and --show are about the sandbox", "add --sandbox")
    if sandbox and ledger:
        raise Failed("a rehearsal has a ledger of its own", "leave out --ledger, or --sandbox")
    if row and not only_to:
        raise Failed("--row is about --only-to", "add --only-to me@example.org")
    settings = _settings(campaign, options)
    place = of_campaign(ledger, settings.name) if ledger else settings.ledger(sandbox=sandbox)
    plan = Plan(
        settings=settings,
        ledger=place,
        reference=_reference(campaign, place, sandbox=sandbox),
        limit=limit,
        strict=strict,
        wait=wait,
        add=add,
        rehearses=sandbox,
        confirmed=yes or sandbox,
        as_json=as_json,
        verbose=verbose,
    )
    if dry_run:
        return asyncio.run(dry(plan))
    if only_to is not None:
        return asyncio.run(_only_to(plan, only_to, row, sandbox=sandbox))
    if sandbox:
        return looping.run(rehearse(plan, maildir, show))
    return looping.run(run(plan, plan.relays()))


async def _only_to(plan: Plan, address: str, row: int | None, *, sandbox: bool) -> Exit:
    if not sandbox:
        return await send_to_one(plan, address, plan.relay(), row)
    async with sandboxed(None) as relay:
        return await send_to_one(plan, address, relay, row)


def _settings(campaign: Path | None, options: dict[str, object]) -> Settings:
    """What the file says and what was given instead."""
    from asyncsmtp.cli.campaign import campaignfile

    given = {KEY_OF[name]: value for name, value in options.items()}
    return settle(campaignfile.read(campaign) if campaign else {}, given, campaign)


def _reference(campaign: Path | None, ledger: Path | Database, *, sandbox: bool) -> str:
    if campaign is None:
        return f"--ledger {ledger}"
    return f"{campaign} --sandbox" if sandbox else str(campaign)
