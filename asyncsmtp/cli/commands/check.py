"""`asyncsmtp check`: a relay step by step, or a campaign's whole pre-flight. Sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.cli.command_line import format_command, typed
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import (
    campaign_argument,
    json_option,
    load_campaign,
    make_cli_relay,
    make_cli_relays,
    option,
    parse_mailbox,
    relay_options,
    resolve_cli_provider,
    verbose_option,
    with_interactive_timeouts,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.campaign import CheckResult
    from asyncsmtp.bulk.recipients.preflight import PreflightReport
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.client.events.types import Trace
    from asyncsmtp.client.session.session import Session
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.protocol.envelope import Mailbox

__all__ = [
    "check_input",
    "check_relay",
    "command",
    "exit_code_of_report",
    "list_report_lines",
    "print_findings",
    "print_report",
]

PHASES = ("ehlo", "tls", "login", "mail", "rcpt")

_EPILOG = """\b
Examples:
  asyncsmtp check --relay smtp://127.0.0.1:2525?security=none
  asyncsmtp check demo/campaign.toml
"""


@click.command("check", epilog=_EPILOG)
@campaign_argument()
@relay_options
@option("--quit-after", type=click.Choice(PHASES), help="How far to go with the relay (login); also a campaign's own.")
@option(
    "--from", "from_", metavar="MAILBOX", help="Sender, for --quit-after mail and rcpt, and the login of a provider."
)
@option("--to", metavar="MAILBOX", help="Recipient, for --quit-after rcpt: whether the relay would take it.")
@option("--dns", is_flag=True, help="Look up the sender in DNS: SPF, DKIM, DMARC, MX, PTR.")
@option("--name-server", metavar="ADDRESS", help="Name server for --dns: 192.0.2.1:53.")
@env_file_option
@json_option
@verbose_option
def command(
    campaign: Path | None,
    relay: str | None,
    provider: str | None,
    user: str | None,
    ca_file: str | None,
    password_command: str | None,
    dialogue: str | None,
    quit_after: str | None,
    from_: str | None,
    to: str | None,
    dns: bool,
    name_server: str | None,
    as_json: bool,
    verbose: bool,
) -> ExitCode:
    """Look at a relay or a campaign; send nothing.

    With --relay: connect, TLS, what the relay offers, login. With a campaign:
    every row of the recipients and every template, and what a provider would
    object to in the first message, and with --dns in what is published of the
    sender; then the exit code is 1. With --json: one object for the relay, and
    one for each objection.
    """
    if campaign is None and relay is None and provider is None:
        raise CommandError(
            "there is nothing to check: neither a relay nor a campaign was given",
            "asyncsmtp check --relay smtp://user@host:587, or: asyncsmtp check demo/campaign.toml",
        )
    paths = _paths(quit_after or "login", from_, to)
    settings = {"ca_file": ca_file, "password_command": password_command, "dialogue": dialogue}
    settings |= {"provider": provider, "user": user}
    for where in _relays(campaign, relay, quit_after, from_, settings):
        asyncio.run(check_relay(where, quit_after or "login", *paths, as_json=as_json, verbose=verbose))
    if campaign is not None:
        return asyncio.run(
            _check_campaign(campaign, as_json=as_json, dns=dns or name_server is not None, name_server=name_server)
        )
    return ExitCode.ACCEPTED


def _relays(
    campaign: Path | None, url: str | None, quit_after: str | None, from_: str | None, settings: Mapping[str, Any]
) -> Iterator[Relay]:
    """Yield the relays to look at: the one that was named, or with --quit-after those of the campaign."""
    if campaign is None or quit_after is None:
        if url is not None or settings["provider"] is not None:
            yield make_cli_relay(url, sender=from_, interactive=True, **settings)
        return
    given = {f"relay.{name}": value for name, value in {"url": url, **settings}.items()}
    for each in make_cli_relays(resolve_cli_provider(load_campaign(campaign, given))):
        if not isinstance(each.relay, str):
            yield with_interactive_timeouts(each.relay)


def _paths(quit_after: str, from_: str | None, to: str | None) -> tuple[Mailbox | None, Mailbox | None]:
    """Return the two addresses, as far as the phase needs them."""
    if quit_after == "rcpt" and to is None:
        raise CommandError("--quit-after rcpt asks about an address, and none was given", "add --to bob@example.org")
    return parse_mailbox("--from", from_) if from_ else None, parse_mailbox("--to", to) if to else None


async def check_relay(
    relay: Relay,
    quit_after: str = "login",
    from_: Mailbox | None = None,
    to: Mailbox | None = None,
    *,
    as_json: bool = False,
    verbose: bool = False,
) -> None:
    """Open a session as far as `quit_after`, and print what the relay offers."""
    from asyncsmtp.cli.output.formats import format_json_line
    from asyncsmtp.client.session.session import Session
    from asyncsmtp.protocol.opening_handshake import Security

    write = console.print_info if as_json else console.print_result
    trace: Trace | None = console.TranscriptPrinter(write) if verbose else None
    if quit_after == "ehlo" and relay.security is not Security.IMPLICIT_TLS:
        relay = replace(relay, security=Security.PLAINTEXT, pins=())
    if quit_after in ("ehlo", "tls"):
        relay = replace(relay, login=None)
    if verbose:
        write(f"=== trying {relay}")
    async with Session(relay, trace=trace) as session:
        facts = list(_facts(session))
        if quit_after in ("mail", "rcpt"):
            facts += await _probe(session, from_, to if quit_after == "rcpt" else None)
    if as_json:
        console.print_result(format_json_line(dict(facts)), harmless=False)
        return
    for name, fact in facts:
        console.print_result(f"{name:<10} {safe_text(fact)}")


def _facts(session: Session) -> Iterator[tuple[str, str]]:
    yield "relay", str(session.relay)
    yield "greeting", str(session.greeting)
    yield "TLS", _tls(session)
    if session.tls_info is not None:
        yield "pin", session.tls_info.fingerprint
    words = (" ".join((keyword, *parameters)) for keyword, parameters in session.extensions.items())
    yield "offers", ", ".join(words) or "nothing"
    login = session.relay.login
    if login is not None:
        yield "login", f"accepted, as {login.username or login.authzid or 'whom the certificate names'}"


def _tls(session: Session) -> str:
    facts = session.tls_info
    if facts is None or session.tls is None:
        return "none: everything can be read on the way"
    certificate: dict[str, Any] = session.tls.getpeercert() or {}  # empty where nobody verified it
    if not certificate:
        return f"{facts.version} · {facts.cipher} · certificate {'pinned' if facts.verified else 'not verified'}"
    names = ", ".join(name for _, name in certificate.get("subjectAltName", ()))
    issuer = ", ".join(value for part in certificate.get("issuer", ()) for _, value in part)
    about = f"certificate of {names}, by {issuer}, until {certificate.get('notAfter')}"
    return f"{facts.version} · {facts.cipher} · {about}"


async def _probe(session: Session, from_: Mailbox | None, to: Mailbox | None) -> list[tuple[str, str]]:
    """Ask with MAIL, and RCPT, what the relay would do; RSET takes it back before QUIT."""
    from asyncsmtp.errors import Refused
    from asyncsmtp.protocol.commands import RSET, mail, rcpt

    commands = [mail(from_)] if to is None else [mail(from_), rcpt(to)]
    replies = []
    for command in commands:
        reply = await session.ask(command)
        if not reply.positive:
            raise Refused(command, reply)
        replies.append((command.verb.value.lower(), str(reply)))
    await session.ask(RSET)
    return replies


# The pre-flight of a campaign: what would be sent, and every row with a problem or a remark, with its number.


async def _check_campaign(path: Path, *, as_json: bool, dns: bool, name_server: str | None) -> ExitCode:
    """Read a campaign file and everything it names; compose every message; print what was found.

    Args:
        as_json: print what a provider would object to as NDJSON on stdout, the rest on stderr.
        dns: ask what is published of the sender; `name_server` rather than the system's.
    """
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.cli.output.run_stats import notify_if_slow
    from asyncsmtp.mail.checks.rules import FindingLevel

    campaign = Campaign.from_config(load_campaign(path))
    with notify_if_slow(f"reading {campaign.config.recipients}{' and asking DNS' if dns else ''}"):
        result = await campaign.check(dns=dns, name_server=name_server)
    print_report(result, write=console.print_info if as_json else console.print_result)
    print_findings(result.findings, as_json=as_json)
    if not dns:
        console.print_info("  the DNS records of the sender were not checked; --dns checks them")
    console.print_steps([format_command("bulk", path, "--sandbox", *typed().env_file)])
    objected = any(finding.weight is FindingLevel.OBJECTION for finding in result.findings)
    return ExitCode.SOME_FAILED if objected else exit_code_of_report(result.report)


def print_findings(
    findings: Iterable[Finding], *, as_json: bool = False, write: Callable[[str], object] = console.print_result
) -> None:
    """Print what was found in the first message, in DNS and in the templates."""
    from asyncsmtp.cli.output.formats import format_json_line

    for finding in findings:
        if as_json:
            record = {name: str(getattr(finding, name)) for name in finding.__slots__}
            console.print_result(format_json_line(record), harmless=False)
        else:
            write(f"  {finding.weight} ({finding.rule}): {finding.sentence}")
            write(f"    {finding.advice}")


def exit_code_of_report(report: PreflightReport) -> ExitCode:
    """Return 1 where a row cannot be mailed, as it will be once the others are."""
    return ExitCode.SOME_FAILED if report.problems else ExitCode.ACCEPTED


def print_report(
    result: CheckResult, *, strict: bool = False, write: Callable[[str], object] = console.print_info
) -> None:
    """Print a pre-flight.

    Args:
        strict: a row with a problem or a remark is an error.
    Raises:
        CommandError: nobody would be mailed. RecipientError: with `strict`, the first row with a problem or a remark.
    """
    for line in list_report_lines(result.file, result.report):
        write(line)
    for remark in result.remarks:
        write(f"  {safe_text(remark)}")
    if result.report.repairable:
        console.print_steps([typed().repair()])
    if strict:
        result.report.raise_for_problems()
    if not result.report.recipients:
        advice = "correct the rows, or name the address column"
        raise CommandError(f"{result.file}: nobody would be mailed", advice)


async def check_input(config: CampaignConfig, *, strict: bool) -> None:
    """Check what a run would load, as the run does again; nothing is printed unless it cannot begin.

    Raises:
        CommandError, SMTPError: it cannot.
    """
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.bulk.open_campaign import check_rows
    from asyncsmtp.bulk.setup.source_files import refuse_merge_tags

    prepared = await Campaign.from_config(config).prepare()
    refuse_merge_tags(prepared.findings)
    checked = await check_rows(prepared, every=False, suppression=config.suppression)
    if not checked.report.recipients or (strict and not checked.report.clean):
        print_findings(checked.findings, write=console.print_info)
        print_report(checked, strict=strict)


def list_report_lines(name: str, report: PreflightReport) -> Iterator[str]:
    """Yield the lines of a pre-flight: the numbers, then the first few rows of each kind."""
    counts = [console.pluralize(report.rows, "row"), f"{report.recipients:,} to be mailed"]
    counts += [f"{console.pluralize(report.copies, 'copy', 'copies')} for Cc and Bcc"] if report.copies else []
    counts += [console.pluralize(report.duplicates, "duplicate")] if report.duplicates else []
    counts += [f"{report.grouped:,} in the message of another row"] if report.grouped else []
    counts += [f"{report.problems:,} cannot be mailed"] if report.problems else []
    counts += [f"{report.left_out:,} left out"] if report.left_out else []
    yield f"{name}: {' · '.join(counts)}"
    if report.header.guessed:
        yield f"  the addresses are in “{safe_text(report.header.email, 60)}” (detected; set it with --email-column)"
    if report.header.found_line:
        skipped = report.header.skipped_lines
        yield f"  the names of the columns are on line {skipped + 1} (detected; set it with --skip-lines {skipped})"
    if report.header.sheet:
        yield f"  they are on the sheet “{safe_text(report.header.sheet, 60)}” (detected; set it with --sheet)"
    if report.header.encoding:
        yield f"  read as {report.header.encoding} (detected; set it with --encoding)"
    yield from _repair_lines(report)
    yield from (f"  {problem}" for problem in (*report.footer, *report.problem_rows))
    yield from _rest_line(report.problems, len(report.problem_rows), "rows that cannot be mailed")
    if report.repairable:
        yield f"  {console.pluralize(report.repairable, 'of these addresses', 'of these addresses')} can be repaired"
    fate = "is in its message" if report.grouped else "gets a message too" if report.separate else "is left out"
    yield from (
        f"  row {row}: names the mailbox of row {earlier} again, and {fate}" for row, earlier in report.repeated
    )
    repeated = report.duplicates if not report.grouped else 0
    yield from _rest_line(repeated + report.grouped + report.separate, len(report.repeated), "duplicates")
    yield from (f"  row {odd.row} (line {odd.line}): {odd.remark}; will be mailed anyway" for odd in report.remarked)
    yield from _rest_line(report.remarks, len(report.remarked), "remarks")
    for kind, address, number in report.copied:
        yield f"  {safe_text(address, 80)} is {kind.title()} of {number:,} rows, and gets as many copies"
    if report.first is not None and report.sample is not None:
        yield f"  first: row {report.first.row}, {report.first.mailbox}, {report.sample.content.size:,} bytes"


def _repair_lines(report: PreflightReport) -> Iterator[str]:
    """Yield what was repaired: the number, and the first few."""
    if not report.repaired:
        return
    further = f", {console.pluralize(report.further, 'further row')}" if report.further else ""
    yield f"  {console.pluralize(report.repaired, 'address cell')} repaired{further}:"
    for repair in report.repairs:
        addresses = ", ".join(repair.addresses)
        yield f"    row {repair.row} (line {repair.line}): “{safe_text(repair.cell, 60)}” is read as {addresses}"
    yield from _rest_line(report.repaired, len(report.repairs), "repaired cells")


def _rest_line(total: int, printed: int, what: str) -> Iterator[str]:
    if total > printed:
        yield f"  … and {total - printed:,} more {what}"
