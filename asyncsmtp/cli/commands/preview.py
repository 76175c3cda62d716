"""`asyncsmtp preview`: messages as they would be sent, to look at in the browser, on the terminal or as files.

The page is shown where --open, --no-open or --port asks for it; without one of these, where stdout is a terminal, there
is a display, and the extra `web` is installed. Otherwise, and with --output, it is the terminal form.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.cli.command_line import format_command, typed
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import (
    campaign_argument,
    load_campaign,
    make_cli_relays,
    option,
    parse_mailbox,
    relay_options,
    with_interactive_timeouts,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.browser import has_browser, open_in_browser
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode, explain
from asyncsmtp.errors import ConfigError, DeliveryInDoubt
from asyncsmtp.protocol.delivery import Outcome

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.bulk.setup.prepare import PreparedCampaign
    from asyncsmtp.mail.message import Message
    from asyncsmtp.web.live_campaign import SendResult

__all__ = ["command", "send_to_one"]

_AGAIN = "run the same command again"

_EPILOG = """\b
Examples:
  asyncsmtp preview demo/campaign.toml --row 3
  asyncsmtp preview demo/campaign.toml --output preview --limit 5
"""


@click.command("preview", epilog=_EPILOG)
@campaign_argument(required=True)
@option("--row", type=click.IntRange(min=1), metavar="N", help="Of the recipients; the first one otherwise.")
@option(
    "--output",
    "eml",
    type=click.Path(path_type=Path),
    metavar="PATH",
    former=("--eml",),
    help="Write messages as files into this folder: row-3.eml",
)
@option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of messages to write, with --output; all otherwise.",
)
@option("--open/--no-open", "opens", default=None, help="Show it in the browser, or print its address only.")
@option("--port", type=click.IntRange(0, 65535), help="Of the page; any free one otherwise.")
@relay_options
@env_file_option
def command(
    campaign: Path,
    row: int | None,
    eml: Path | None,
    limit: int | None,
    opens: bool | None,
    port: int | None,
    relay: str | None,
    **settings: Any,
) -> ExitCode:
    """Show messages as they would be sent; send nothing.

    In the browser, with the extra web and where there is a display: every row,
    with what was found in it, until Ctrl-C; the page follows when a file is
    saved. Otherwise, and where stdout is no terminal, the header of one message
    and its parts as they read. Message-IDs and dates are those of a preview.
    Rows that cannot be mailed are skipped.
    """
    if limit is not None and eml is None:
        raise CommandError("--limit needs --output", "add --output DIR, or choose one message with --row")
    asked = opens is not None or port is not None
    if asked and eml is not None:
        raise CommandError(
            "--output writes files, and --open, --no-open and --port show a page", "leave one of them out"
        )
    if asked or (eml is None and console.is_terminal() and has_browser() and _has_web()):
        given = {f"relay.{name}": value for name, value in {"url": relay, **settings}.items()}
        return asyncio.run(_serve(campaign, given, row, port or 0, opens=opens is not False))
    code = asyncio.run(_preview(campaign, row, eml, limit))
    if eml is None and console.is_terminal():
        if not _has_web():
            console.print_steps(["to look at every row in a browser: pip install 'asyncsmtp[web]'"])
        else:
            console.print_steps([typed().repeat("--no-open")])
    return code


def _has_web() -> bool:
    from asyncsmtp.errors import MissingDependency
    from asyncsmtp.web.local_app import require_web

    try:
        require_web("watchfiles")
    except MissingDependency:
        return False
    return True


async def _serve(path: Path, given: Mapping[str, object], row: int | None, port: int, *, opens: bool) -> ExitCode:
    """Show the page until Ctrl-C; `given` are settings of the relay that go before the file's."""
    from asyncsmtp.cli.commands.check import list_report_lines
    from asyncsmtp.cli.controls import handle_signals
    from asyncsmtp.web.local_app import require_web, serve_locally

    require_web("watchfiles")
    from asyncsmtp.web.live_campaign import open_live_campaign
    from asyncsmtp.web.preview import make_preview_app

    if not await asyncio.to_thread(path.exists):
        load_campaign(path)  # it says what is wrong; any other fault is shown on the page until it is corrected
    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        campaign = await stack.enter_async_context(
            open_live_campaign(path, lambda: _load(path, given), describe=list_report_lines, send=send_to_one)
        )
        try:
            url = await stack.enter_async_context(serve_locally(make_preview_app(campaign, row), port))
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            advice = "end what listens there, or take another: --port 0"
            raise CommandError(f"port {port} of 127.0.0.1 cannot be used: {why}", advice) from error
        with handle_signals(over.set, over.set, "ending"):
            console.print_result(url)
            console.print_info("  it follows when you save a file of the campaign; Ctrl-C ends it")
            if opens:
                await asyncio.to_thread(open_in_browser, url)
            await over.wait()
            campaign.end_changes()  # else the server would wait for the page
    return ExitCode.ACCEPTED


def _load(path: Path, given: Mapping[str, object]) -> CampaignConfig:
    """Read the campaign file. Raises ConfigError: it, or a variable, is not valid."""
    try:
        return load_campaign(path, given)
    except CommandError as error:
        raise ConfigError(error.failure.sentence, error.failure.advice) from error


async def send_to_one(config: CampaignConfig, prepared: PreparedCampaign, row: Recipient, address: str) -> SendResult:
    """Send the message of a row through the campaign's relay, as `bulk --only-to` does; no ledger is opened."""
    from asyncsmtp.client.session.session import Session
    from asyncsmtp.web.live_campaign import SendResult

    if not config.relay_configs:
        advice = (
            "write url = … under [relay] of the campaign file, or run the preview with --relay smtp://user@host:587"
        )
        return SendResult("failed", "the campaign has no relay to send through", advice)
    try:
        to = parse_mailbox("the address", address)
        if config.has_unresolved_provider:
            config = await config.resolve_providers()
        relays = await asyncio.to_thread(make_cli_relays, config, silent=True)
        assert not isinstance(relays[0].relay, str)
        message = await asyncio.to_thread(prepared.compose_preview, row, to)
        async with Session(with_interactive_timeouts(relays[0].relay)) as session:
            delivery = await session.send(message)
    except Exception as error:  # whatever it is: the page shows it, and the next message may be sent
        failure = explain(error, typed())
        state = "in doubt" if isinstance(error, DeliveryInDoubt) else "failed"
        return SendResult(state, failure.sentence, failure.advice.replace(_AGAIN, "press the button again"))
    outcome, reply = delivery.outcomes[0], delivery.replies[0]
    advice = "" if outcome is Outcome.ACCEPTED else "the relay's own words say why"
    return SendResult(str(outcome), f"{outcome} by {delivery.host}: {reply}", advice)


async def _preview(path: Path, row: int | None, folder: Path | None, limit: int | None) -> ExitCode:
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.cli.output.formats import list_copies

    prepared = await Campaign.from_config(load_campaign(path)).prepare()
    shown, skipped = 0, _Skipped()
    if folder is not None:
        _make(folder)
    async with aclosing(_messages(prepared, row, skipped)) as messages:
        async for recipient, message in messages:
            shown += 1
            if folder is None:
                console.print_result(f"row {recipient.row}")
                if copies := list_copies(recipient):
                    console.print_result(f"copies: {copies}")
                for line in _lines(message):
                    console.print_result(line)
                break
            await asyncio.to_thread(_write, folder / f"row-{recipient.row}.eml", message)
            if shown == limit:
                break
    skipped.print()
    if not shown:
        which = f"row {row}" if row else "row to show"
        raise CommandError(f"{prepared.file.name} has no {which}", format_command("check", path, *typed().env_file))
    if folder is not None:
        console.print_info(f"{console.pluralize(shown, 'message')} in {folder}; nothing was sent")
    return ExitCode.ACCEPTED


class _Skipped:
    """Rows that cannot be mailed, counted as the pre-flight counts them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: Problem | None = None

    def add(self, problem: Problem) -> None:
        if not problem.left_out:
            self._count += 1
            self._first = self._first or problem

    def print(self) -> None:
        if self._first is not None:
            first = f"{self._first}" if self._count == 1 else f"the first is {self._first}"
            console.print_info(f"{console.pluralize(self._count, 'row')} cannot be mailed: {first}")


async def _messages(
    prepared: PreparedCampaign, row: int | None, skipped: _Skipped
) -> AsyncGenerator[tuple[Recipient, Message]]:
    """Yield the messages with their rows: all that can be composed, or the one of `row`.

    Raises:
        CommandError: the one of `row` cannot.
    """
    from asyncsmtp.bulk.recipients.recipient import Problem

    async with aclosing(prepared.file.batches()) as batches:
        async for batch in batches:
            for one in batch:
                if row is not None and one.row != row:
                    continue
                message = _compose(prepared, one)
                if not isinstance(message, Problem) and not isinstance(one, Problem):
                    yield one, message
                elif row is not None:
                    raise CommandError(f"{prepared.file.name}, {message}", "correct the row, or choose another")
                elif isinstance(message, Problem):
                    skipped.add(message)
                if row is not None:
                    return


def _compose(prepared: PreparedCampaign, row: Recipient | Problem) -> Message | Problem:
    from asyncsmtp.bulk.recipients.recipient import Problem
    from asyncsmtp.errors import RecipientError

    if isinstance(row, Problem):
        return row
    try:
        return prepared.compose_preview(row)
    except RecipientError as error:
        return Problem(row.row, row.line, error.reason)


def _lines(message: Message) -> Iterator[str]:
    """Yield the lines of a message as a person reads it."""
    from email import message_from_bytes, policy

    parsed = message_from_bytes(_content(message), policy=policy.default)
    yield from (f"{name}: {value}" for name, value in parsed.items())
    for part in parsed.walk():
        if part.is_multipart():
            continue
        kind, name = part.get_content_type(), part.get_filename()
        yield ""
        if part.get_content_maintype() == "text" and name is None:
            yield f"--- {kind}"
            yield from str(part.get_content()).rstrip().splitlines()
        else:
            payload = part.get_payload(decode=True)
            size = len(payload) if isinstance(payload, bytes) else 0
            yield f"--- {kind}, {name or part['Content-ID'] or 'without a name'}, {size:,} bytes"


def _content(message: Message) -> bytes:
    from asyncsmtp.protocol.content import Content

    assert isinstance(message.content, Content), "a composer makes no other"
    return bytes(message.content)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder} cannot be made: {error.strerror}", "choose another folder") from error


def _write(path: Path, message: Message) -> None:
    """Write a new file, for its owner alone; what is there already is no preview of this run, and stays."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        why = "is there already" if isinstance(error, FileExistsError) else f"cannot be written: {error.strerror}"
        raise CommandError(f"{path} {why}", "remove it, or choose another folder") from error
    with open(opened, "wb") as file:
        file.write(_content(message))
