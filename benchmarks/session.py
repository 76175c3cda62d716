"""One session and finished messages of 1 KB, against aiosmtplib on one connection."""

from __future__ import annotations

from benchmarks.measure import Cost, Row, in_turn
from benchmarks.sending import sent
from benchmarks.sink import sink

__all__ = ["measure"]

WAITING = 8  # messages that wait for the session, as in a campaign
MIN_RATIO = 5.0


async def measure(messages: int = 8_000, turns: int = 7) -> list[Row]:
    """Messages a second and CPU a message of each, to the same sink; see `sending` for what was freed before."""
    with sink() as port:

        async def costs(waiting: int, *options: str) -> tuple[Cost, Cost]:
            async def ours() -> Cost:
                return sent("asyncsmtp", port, messages, *options, waiting=waiting)

            async def theirs() -> Cost:
                return sent("aiosmtplib", port, messages // 4, *options)

            return await in_turn(ours, theirs, turns)

        together, alone, kind = await costs(WAITING), await costs(1), await costs(WAITING, "--after-large")
    return [
        *rows(f"one session, 1 KB, {WAITING} messages waiting", *together, at_least=MIN_RATIO),
        *rows("the same, each message awaited", *alone, at_least=None),
        *rows(f"the same, {WAITING} waiting, where something large was freed before", *kind, at_least=None),
    ]


def rows(work: str, mine: Cost, theirs: Cost, at_least: float | None) -> list[Row]:
    """Two lines of the table; without a target they are for orientation."""
    speed, cost = mine.rate / theirs.rate, theirs.each / mine.each
    target, cpu_target = ("-", "-") if at_least is None else (f">= {at_least:g} x", f"<= 1/{at_least:g}")
    least = at_least or 0.0
    return [
        Row(
            f"{work}: messages/s",
            f"{mine.rate:,.0f}",
            f"{theirs.rate:,.0f} (aiosmtplib)",
            f"{speed:.1f} x",
            target,
            speed >= least,
        ),
        Row(
            f"{work}: CPU µs a message",
            f"{mine.each * 1e6:,.0f}",
            f"{theirs.each * 1e6:,.0f} (aiosmtplib)",
            f"1/{cost:.1f}",
            cpu_target,
            cost >= least,
        ),
    ]
