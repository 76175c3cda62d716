"""Summary of a run as one JSON object, for --summary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from asyncsmtp.cli.command_line import typed
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode, explain
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Counts
    from asyncsmtp.bulk.rate_limit.warmup import WarmupDay
    from asyncsmtp.cli.output.run_stats import RunStats
    from asyncsmtp.errors import SMTPError

__all__ = ["RunSummary", "write_summary"]

MAX_REPLIES = 50  # different replies in the summary


def _format_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class RunSummary:
    """Summary of a call of `asyncsmtp bulk`. Every field is always there; it is null if it is not known.

    Attributes:
        campaign: the campaign's name.
        ledger: the location of its ledger.
        started_at: when the command began (UTC).
        ended_at: when it ended.
        seconds: how long it took.
        exit_code: its exit code.
        error: why it ended, if it ended with an error.
        run: recipients by outcome in this run.
        rows: rows of the whole campaign by state.
        total: number of its rows.
        relays: rows by state for each relay that replied.
        failed_relays: relays that cannot be used, each with the reason.
        replies: the most frequent refusals of this run, each with `reply` and `number`.
        next_due_at: when the first of the rows that are left may be tried.
        halted: rows that were rejected before a run was halted.
        warmup: how far the warm-up of each relay is: `relay`, `day`, `limit`, `sent`, `resumes_at`.
    """

    campaign: str | None = None
    ledger: str | None = None
    started_at: str = field(default_factory=_format_now)
    ended_at: str | None = None
    seconds: float | None = None
    exit_code: int | None = None
    error: str | None = None
    run: dict[str, int] | None = None
    rows: dict[str, int] | None = None
    total: int | None = None
    relays: dict[str, dict[str, int]] | None = None
    failed_relays: dict[str, str] | None = None
    replies: list[dict[str, object]] | None = None
    next_due_at: str | None = None
    halted: int | None = None
    warmup: list[dict[str, object]] | None = None

    def record(
        self,
        counts: Counts,
        by_relay: Mapping[str, Counts],
        failed: Mapping[str, SMTPError],
        stats: RunStats,
        due: datetime | None,
        halted: int,
        warmup: Sequence[WarmupDay] = (),
    ) -> None:
        """Take down the figures of a run and of its ledger."""
        self.run = {str(outcome): number for outcome, number in stats.counts.items()}
        self.rows, self.total = _to_numbers(counts), counts.total
        self.relays = {host: _to_numbers(each) for host, each in by_relay.items()}
        self.failed_relays = {host: str(error) for host, error in failed.items()}
        most = stats.reasons.most_common(MAX_REPLIES)
        self.replies = [{"reply": reply, "number": number} for reply, number in most]
        self.next_due_at = due.astimezone(UTC).isoformat(timespec="milliseconds") if due else None
        self.halted = halted
        if warmup:
            self.warmup = [
                {
                    **{name: getattr(day, name) for name in ("relay", "day", "limit", "sent")},
                    "resumes_at": day.resumes_at.isoformat(timespec="milliseconds"),
                }
                for day in warmup
            ]


def _to_numbers(counts: Counts) -> dict[str, int]:
    return {str(state): number for state, number in counts.items()}


@contextmanager
def write_summary(path: Path) -> Iterator[RunSummary]:
    """Write what the block makes of the summary to a file when it ends, also with an error.

    The file of an earlier run is removed first: after `kill -9` there is none, rather than a wrong one. The new one
    appears as a whole; only its owner may read it.

    Raises:
        OSError: the file cannot be made; nothing was done. CommandError: it could not be written at the end.
    """
    _prepare(path)
    summary, begun = RunSummary(), monotonic()
    try:
        yield summary
    except BaseException as error:
        failure = explain(error, typed())
        summary.exit_code, summary.error = failure.exit, failure.sentence
        with suppress(OSError):
            _write(path, summary, begun)
        raise
    try:
        _write(path, summary, begun)
    except OSError as error:
        why = f"{safe_text(str(path), 120)}: {(error.strerror or str(error)).lower()}"
        advice = "make space or correct the path; the run has ended, and the ledger has every outcome"
        raise CommandError(why, advice, ExitCode.LEDGER) from error


def _prepare(path: Path) -> None:
    if not path.exists() or path.is_file():
        new = _open_new(path)
        os.close(new)
        _new_path(path).unlink()
        path.unlink(missing_ok=True)


def _write(path: Path, summary: RunSummary, begun: float) -> None:
    import json  # late: `bulk --help` needs none of it

    summary.ended_at, summary.seconds = _format_now(), round(monotonic() - begun, 3)
    text = json.dumps(asdict(summary), ensure_ascii=True) + "\n"
    if path.exists() and not path.is_file():  # a pipe, /dev/fd/3
        path.write_text(text, encoding="ascii")
        return
    with open(_open_new(path), "w", encoding="ascii") as file:
        file.write(text)
    _new_path(path).replace(path)


def _new_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _open_new(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    return os.open(_new_path(path), flags, 0o600)
