"""`asyncsmtp work`: one worker of a campaign, or several."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.setup.config import KEYS, name_ledger_campaign
from asyncsmtp.bulk.setup.config_types import parse_duration
from asyncsmtp.cli.command_line import typed
from asyncsmtp.cli.controls import SIGNALS, run_on_fast_loop
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import (
    OUTPUT,
    GroupedCommand,
    campaign_argument,
    config_options,
    json_option,
    ledger_option,
    load_campaign,
    make_cli_relays,
    option,
    relay_options,
    resolve_cli_provider,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Claim, Settlement
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.bulk.workers.metrics import ProcessMetrics, WorkerMetrics

__all__ = ["command"]

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where the workers of one command write theirs; the client library's name
DRAIN_TIMEOUT = 60.0  # seconds for what is under way after the first signal
RESTART_DELAY = 1.0  # seconds before a worker that was killed is started again
_OPTIONS = {key.field: key.name for key in KEYS.values()}
_WORST = (ExitCode.BUG, ExitCode.LEDGER, ExitCode.AUTHENTICATION, ExitCode.UNREACHABLE, ExitCode.USAGE)

_EPILOG = """\b
SIGTERM and Ctrl-C finish what is under way, and free the rest for other workers
at once. After a kill, or a crash of the host, they take it over after the lease.

\b
Example:
  asyncsmtp work news.toml --ledger postgresql://mail@db.example.com/mail --processes 4
"""


def _parse_lease(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise CommandError(f"--lease: “{text[:40]}” is not a span of time", "give one such as 30s or 2m") from None


@click.command("work", cls=GroupedCommand, epilog=_EPILOG)
@campaign_argument(required=True)
@ledger_option
@relay_options
@config_options("relay.sessions", "limits.concurrency")
@option("--processes", type=click.IntRange(1, 256), default=1, metavar="N", help="Workers on this host.")
@option("--until-idle", is_flag=True, help="End when nothing can be sent for a minute.")
@option(
    "--lease",
    type=_parse_lease,
    default="30s",
    metavar="SPAN",
    help="Time without a commit after which others take over.",
)
@option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there, of all processes of this command.")
@env_file_option
@option("--quiet", is_flag=True, help="Print warnings and errors; the summary unless all were accepted.", group=OUTPUT)
@json_option
def command(
    campaign: Path,
    ledger: Path | Database | None,
    processes: int,
    until_idle: bool,
    lease: float,
    metrics: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> ExitCode:
    """Send a campaign as one of several workers.

    For a campaign that campaign load has loaded into PostgreSQL. The host needs
    the campaign file, templates and keys, but not the recipients. Ends when
    every row has a final outcome.
    """
    console.configure_info(quiet=quiet)
    given = {name: options.pop(field) for field, name in _OPTIONS.items() if field in options}
    config = load_campaign(campaign, given)
    config = replace(config, ledger=name_ledger_campaign(ledger, config.name) if ledger else config.ledger_location)
    address = None if metrics is None else _parse_metrics(metrics)
    if processes > 1:
        if address is None:
            return asyncio.run(_supervise(processes))
        with TemporaryDirectory(prefix="asyncsmtp-metrics-") as folder, _serve(config, address, Path(folder)) as served:
            return asyncio.run(_supervise(processes, served, {METRICS_FOLDER: folder}))
    config = resolve_cli_provider(config)
    with nullcontext(_measure()) if address is None else _serve(config, address) as measured:
        return run_on_fast_loop(_work(config, until_idle=until_idle, lease=lease, as_json=as_json, metrics=measured))


def _parse_metrics(text: str) -> tuple[str, int]:
    from asyncsmtp.bulk.workers.metrics import parse_address
    from asyncsmtp.errors import InvalidArgument

    try:
        return parse_address(text)
    except InvalidArgument as error:
        raise CommandError(f"--metrics: {error}", "127.0.0.1:9464 is for this host alone") from None


def _measure() -> WorkerMetrics | None:
    """Return what measures a worker whose parent serves its figures; None for another one."""
    if not os.environ.get(METRICS_FOLDER):
        return None
    from asyncsmtp.bulk.workers.metrics import WorkerMetrics

    return WorkerMetrics()


@contextmanager
def _serve(config: CampaignConfig, address: tuple[str, int], folder: Path | None = None) -> Iterator[Any]:
    """Serve metrics until the block ends, of this process, or of those that write theirs to a folder."""
    from asyncsmtp.bulk.workers.metrics import CampaignMetrics, ProcessMetrics, WorkerMetrics, serve_metrics
    from asyncsmtp.bulk.workers.work import find_database

    database = replace(find_database(config), campaign=config.name)
    metrics = WorkerMetrics() if folder is None else ProcessMetrics(folder)
    with serve_metrics(*address, metrics.registry, CampaignMetrics(database)) as port:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        console.print_info(f"metrics: http://{host}:{port}/metrics")
        yield metrics


async def _work(
    config: CampaignConfig, *, until_idle: bool, lease: float, as_json: bool, metrics: WorkerMetrics | None
) -> ExitCode:
    from asyncsmtp.bulk.ledger.interfaces import Counts, RowState, settlement_record
    from asyncsmtp.bulk.running.results import ExitReason
    from asyncsmtp.bulk.workers.work import Worker
    from asyncsmtp.cli.controls import handle_signals
    from asyncsmtp.cli.output.formats import format_json_line
    from asyncsmtp.cli.output.run_stats import exit_code_for

    outcomes: Counter[str] = Counter()

    def watch(claim: Claim, settlement: Settlement) -> None:
        outcomes[str(settlement.state)] += 1
        if metrics is not None:
            metrics.on_outcome(claim, settlement)
        if as_json:
            console.print_result(format_json_line(settlement_record(claim, settlement)), harmless=False)

    worker = Worker(
        config,
        make_cli_relays(config),
        until_idle=until_idle,
        lease=lease,
        watch=watch,
        observer=metrics,
        warn=console.print_warning,
    )

    def drain() -> None:
        worker.stop()
        asyncio.get_running_loop().call_later(DRAIN_TIMEOUT, worker.abort)

    with handle_signals(drain, worker.abort) as interruption:
        try:
            result = await worker.run()
        finally:
            shown = ", ".join(f"{number:,} {state}" for state, number in sorted(outcomes.items()))
            if shown:
                console.print_info(f"this worker of {config.name}: {shown}")
    counts = Counts({state: result.counts[str(state)] for state in RowState})
    code = exit_code_for(counts)
    if interruption.exit is not None and (counts[RowState.PENDING] or counts[RowState.SENDING]):
        return interruption.exit
    is_wrong = code is not ExitCode.ACCEPTED
    shown = ", ".join(f"{number:,} {state}" for state, number in result.counts.items() if number)
    console.print_info(f"  in all {shown or 'no rows'}", always=is_wrong)
    if result.exit_reason is ExitReason.STOPPED and interruption.exit is None:  # nobody is to start it again
        named = shlex.join(["asyncsmtp", "campaign", "start", config.name, "--ledger", f"{config.ledger_location}"])
        raise CommandError(f"the campaign “{safe_text(config.name, 60)}” was cancelled", named)
    if result.resumes_at is not None:
        console.print_info(f"  the next row may be tried at {result.resumes_at.astimezone():%Y-%m-%d %H:%M:%S}")
    return code


async def _supervise(
    number: int, metrics: ProcessMetrics | None = None, environment: dict[str, str] | None = None
) -> ExitCode:
    """Run so many processes of this command; start one again that was killed; end them all at a signal."""
    words = shlex.split(typed().repeat(without=("--processes", "--metrics")))[1:]
    variables = {**os.environ, **(environment or {})}
    arguments = [sys.executable, "-m", "asyncsmtp", *words]
    stopping = asyncio.Event()
    processes: set[asyncio.subprocess.Process] = set()

    async def run_one(place: int) -> int:
        while True:
            process = await asyncio.create_subprocess_exec(*arguments, env=variables)
            processes.add(process)
            if stopping.is_set():  # while it started
                process.terminate()
            code = await process.wait()
            processes.discard(process)
            if code >= 0 or stopping.is_set():
                return code
            console.print_warning(f"worker {place} was killed by {signal.Signals(-code).name}: it is started again")
            if metrics is not None:
                metrics.on_restart()
            await asyncio.sleep(RESTART_DELAY)

    def stop(name: signal.Signals) -> None:
        stopping.set()
        if name is not signal.SIGINT:  # which the terminal has sent to all of them
            for process in processes:
                process.send_signal(name)

    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, stop, name)
    codes = await asyncio.gather(*(run_one(place) for place in range(1, number + 1)))
    by_signal = {-number: code for number, code in SIGNALS.items()}  # of those that had not begun
    ended = [by_signal.get(code) or (ExitCode(code) if code in set(ExitCode) else ExitCode.BUG) for code in codes]
    return next((code for code in _WORST if code in ended), max(ended))
