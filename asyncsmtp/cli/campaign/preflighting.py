"""The pre-flight as people read it: what would be sent, and every row that is odd, with its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.output.progress import patience
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.preflight import PreflightReport
    from asyncsmtp.cli.campaign.assembly import Assembled
    from asyncsmtp.cli.campaign.settings import Settings
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.mail.message import Message

__all__ = ["check_campaign", "exit_of", "told"]

SHOWN = 20  # rows of each kind that are named


async def check_campaign(
    path: Path, *, as_json: bool = False, dns: bool = False, name_server: str | None = None
) -> Exit:
    """Read a campaign file and everything it names; compose every message; print what was found.

    Args:
        as_json: print what a provider would object to as NDJSON on stdout, the rest on stderr.
        dns: ask what is published of the sender; `name_server` rather than the system's.
    """
    from asyncsmtp.cli.campaign import campaignfile
    from asyncsmtp.cli.campaign.assembly import assemble
    from asyncsmtp.cli.campaign.settings import settle
    from asyncsmtp.mail.checks.rules import FindingLevel, check_message

    settings = settle(campaignfile.read(path), {}, path)
    report = await told(await assemble(settings), every=True, write=console.say if as_json else console.out)
    found = check_message(report.sample) if report.sample is not None else []
    if dns and report.sample is not None:
        found += await _published(settings, report.sample, name_server)
    for finding in found:
        _print(finding, as_json=as_json)
    if not dns:
        console.say("  what DNS says of the sender was not asked: --dns does")
    console.say(f"  next: asyncsmtp bulk {path} --sandbox")
    objected = any(finding.weight is FindingLevel.OBJECTION for finding in found)
    return Exit.SOME_FAILED if objected else exit_of(report)


async def _published(settings: Settings, sample: Message, name_server: str | None) -> list[Finding]:
    from asyncsmtp.bulk.dns_resolver import DnsResolver
    from asyncsmtp.cli.campaign.asking import sender_of
    from asyncsmtp.mail.checks.dns_rules import check_dns

    with patience("asking DNS"):
        return await DnsResolver(name_server).answer(check_dns(sender_of(settings, sample)))


def _print(finding: Finding, *, as_json: bool) -> None:
    from asyncsmtp.cli.output.records import json_line

    if as_json:
        console.out(json_line({name: str(getattr(finding, name)) for name in finding.__slots__}), harmless=False)
    else:
        console.out(f"  {finding.weight} ({finding.rule}): {finding.sentence}")
        console.out(f"    {finding.advice}")


def exit_of(report: PreflightReport) -> Exit:
    """1 where a row cannot be mailed, as it will be once the others are."""
    return Exit.SOME_FAILED if report.problems else Exit.ACCEPTED


async def told(
    assembled: Assembled, *, every: bool, strict: bool = False, write: Callable[[str], object] = console.say
) -> PreflightReport:
    """Run the pre-flight and print it.

    Args:
        every: compose each message rather than the first hundred: as slow as sending, and as sure.
        strict: a row that is odd in any way is an error.
    Raises:
        Failed: nobody would be mailed. RecipientError, TemplateError: as `run_preflight` does.
    """
    from asyncsmtp.bulk.recipients.preflight import run_preflight

    with patience(f"reading {assembled.file.name}"):
        report = await run_preflight(assembled.file, assembled.composer, compose=None if every else 100, show=SHOWN)
    for line in _lines(assembled.file.name, report):
        write(line)
    for remark in assembled.remarks:
        write(f"  {safe_text(remark)}")
    if strict:
        report.raise_for_problems()
    if not report.recipients:
        raise Failed(f"{assembled.file.name}: nobody would be mailed", "correct the rows, or name the address column")
    return report


def _lines(name: str, report: PreflightReport) -> Iterator[str]:
    counts = [console.many(report.rows, "row"), f"{report.recipients:,} to be mailed"]
    counts += [console.many(report.duplicates, "duplicate")] if report.duplicates else []
    counts += [f"{report.problems:,} cannot be mailed"] if report.problems else []
    counts += [f"{report.left_out:,} left out"] if report.left_out else []
    yield f"{name}: {' · '.join(counts)}"
    if report.header.guessed:
        yield f"  the addresses are in “{safe_text(report.header.email, 60)}” (a guess; --email-column would say it)"
    if report.header.encoding:
        yield f"  read as {report.header.encoding} (a guess; --encoding would say it)"
    yield from (f"  {problem}" for problem in report.problem_rows)
    yield from _more(report.problems, len(report.problem_rows), "rows that cannot be mailed")
    yield from (
        f"  row {row}: names the mailbox of row {earlier} again, and is left out" for row, earlier in report.repeated
    )
    yield from _more(report.duplicates, len(report.repeated), "duplicates")
    yield from (f"  row {odd.row} (line {odd.line}): {odd.remark}; mailed nevertheless" for odd in report.remarked)
    yield from _more(report.remarks, len(report.remarked), "remarks")
    if report.first is not None and report.sample is not None:
        yield f"  first: row {report.first.row}, {report.first.mailbox}, {report.sample.content.size:,} octets"


def _more(total: int, shown: int, what: str) -> Iterator[str]:
    if total > shown:
        yield f"  … and {total - shown:,} more {what}"
