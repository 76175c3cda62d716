"""[[relays]] of a campaign file: further relays, each with its share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.campaign.pacing import rates
from asyncsmtp.cli.campaign.sharing import Sharing
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.interfaces import MessageSender
    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.client.events.trace import Trace

__all__ = ["RelayShare", "opened", "shares"]

_SESSIONS = 10
_NAMES = ("url", "weight", "sessions", "max_per_connection", "rate", "password_command")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayShare:
    """One section."""

    url: str
    weight: float = 1.0
    sessions: int = _SESSIONS
    max_per_connection: int | None = None
    rates: tuple[Rate, ...] = ()
    password_command: str | None = None


def shares(value: object, folder: Path) -> tuple[RelayShare, ...]:
    """The kind of the whole section: a table, or several as [[relays]]."""
    return tuple(_share(table, folder) for table in (value if isinstance(value, list) else [value]))


def _share(table: object, folder: Path) -> RelayShare:
    if not isinstance(table, dict) or not isinstance(table.get("url"), str):
        raise ValueError("each is a section with a url; several are [[relays]] each")
    for name in table:
        if name not in _NAMES:
            raise ValueError(f"unknown key “{safe_text(name, 60)}”; it may have {', '.join(_NAMES)}")
    weight, command = table.get("weight", 1), table.get("password_command")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise ValueError("weight must be a number above 0")
    if command is not None and not isinstance(command, str):
        raise ValueError("password_command must be text, in quotes")
    given = rates(table["rate"], folder) if "rate" in table else ()
    return RelayShare(
        url=table["url"],
        weight=weight,
        sessions=_count(table, "sessions") or _SESSIONS,
        max_per_connection=_count(table, "max_per_connection"),
        rates=given,
        password_command=command,
    )


def _count(table: Mapping[str, object], name: str) -> int | None:
    found = table.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= 10_000:
        raise ValueError(f"{name} must be a whole number from 1 to 10000")
    return found


@asynccontextmanager
async def opened(
    relays: Sequence[tuple[Relay, RelayShare]], trace: Trace | None, sharing: Sharing
) -> AsyncGenerator[MessageSender]:
    """What sends through the relays, until the block ends."""
    from asyncsmtp.bulk.running.balancer import RelayBalancer, WeightedRelay
    from asyncsmtp.client.pool.pool import Pool

    async with AsyncExitStack() as stack:
        made = [
            (Pool(relay, sessions=share.sessions, messages=share.max_per_connection, trace=trace), share)
            for relay, share in relays
        ]
        pools = [(await stack.enter_async_context(pool), share) for pool, share in made]
        if len(pools) == 1 and not pools[0][1].rates:
            yield pools[0][0]
        else:
            limits = [await stack.enter_async_context(sharing.of([relay], share.rates)) for relay, share in relays]
            yield RelayBalancer(
                WeightedRelay(pool, share.weight, share.rates, shared)
                for (pool, share), shared in zip(pools, limits, strict=True)
            )
