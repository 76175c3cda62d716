"""The rates of a run: over all messages, for each domain or provider, and as the relay's replies demand."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncsmtp.bulk.interfaces import RunTotals
from asyncsmtp.bulk.rate_limit.dns_resolver import MxProviders
from asyncsmtp.bulk.rate_limit.rate import MAX_EVEN_PERIOD, LimiterGroup, Rate
from asyncsmtp.errors import check_type
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.replies import Reply

if TYPE_CHECKING:
    from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.client.config.relay import Relay

__all__ = [
    "LOOKUP_POLL_INTERVAL",
    "PROVIDER_LOOKUP",
    "TOO_FAST",
    "RatePolicy",
    "make_rate_policy",
    "open_providers",
    "share_campaign_rates",
]

logger = logging.getLogger("asyncsmtp.campaign")

LOOKUP_POLL_INTERVAL = 0.02  # seconds after which to check again for the provider of a domain
MAX_SLOWED = 50  # domains whose slowdowns are counted
TOO_FAST, PROVIDER_LOOKUP = "too fast", "provider lookup"  # names of limits in the totals
_PROVIDER = "mx:"  # no domain begins with it
_CLOSING = 421
_BUSY = frozenset({432, 450, 451, 452, 454})
_GREYLISTED = re.compile(rb"gr[ea]y.?list", re.IGNORECASE)  # about one recipient: a slower rate does not help
_ABOUT_THE_MAILBOX = ("4.1.", "4.2.")  # RFC 3463 §3.2, §3.3: a slower rate does not help


class RatePolicy:
    """The rate limits of one run. It never sleeps: the caller does.

    Args:
        rates: for all messages of the run; each of them applies.
        domains: for messages to one domain, in lower case, in addition.
        providers: for messages to all domains whose mail one provider takes, except domains with limits of their own.
        lookup: finds the provider of a domain; needed for `providers`, and used for nothing else.
        adaptive: whether "too fast" replies of the relay slow the run down.
        clock: a monotonic clock, in seconds. wall: seconds since 1970, for quotas that outlive the process.
        make_group: makes the limiters of all messages (""), of a domain ("@example.com") or of a provider.
    Attributes:
        totals: of this run; who waits for a limit adds to it.
    """

    def __init__(
        self,
        rates: Sequence[Rate] = (),
        domains: Mapping[str, Iterable[Rate]] | None = None,
        *,
        providers: Mapping[str, Iterable[Rate]] | None = None,
        lookup: MxProviders | None = None,
        adaptive: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        make_group: Callable[[str, Iterable[Rate]], LimiterGroup] = lambda name, rates: LimiterGroup(rates),
    ) -> None:
        for rate in rates:
            check_type("rates", rate, Rate)
        self.overall = make_group("", rates)
        self._given = tuple(rates)
        self._rates = {name.lower(): tuple(domain) for name, domain in (domains or {}).items()}
        self._domains = {name: make_group(f"@{name}", domain) for name, domain in self._rates.items()}
        self._lookup = lookup if providers else None
        for name, provider in (providers or {}).items() if lookup is not None else ():
            key = f"{_PROVIDER}{name.lower()}"
            self._domains[key] = make_group(key, provider)
        self.totals = RunTotals()
        self._adaptive = adaptive
        self._clock = clock
        self._wall = wall

    @property
    def is_unlimited(self) -> bool:
        """True if no message has to wait."""
        return not self._domains and self.overall.is_unlimited

    @property
    def has_lookup_backlog(self) -> bool:
        """True if so many providers are being looked up that further rows should wait."""
        return self._lookup is not None and self._lookup.has_backlog

    def limit(self, rate: Rate) -> None:
        """Add a rate for all messages; it replaces the last one that was added so."""
        self.overall.set_rates((*self._given, rate))

    def delay(self) -> float:
        """Return the seconds until the next message, to any domain, may begin."""
        return self.overall.delay(self._clock(), self._wall())

    def limiter_key(self, domain: str) -> str:
        """Return the key of the limits of a domain: its provider's, if that is known and limited, or its own."""
        name = domain.lower()
        if self._lookup is None or name in self._rates or name.startswith(_PROVIDER):
            return name
        key = f"{_PROVIDER}{self._lookup.known(name)}"
        return key if key in self._domains else name

    def delay_for(self, domain: str) -> float:
        """Return the seconds until the next message to `domain` may begin, by its own limits or its provider's.

        Also takes a key from `limiter_key`.
        """
        name = self.limiter_key(domain)
        if self._lookup is not None and name not in self._domains and self._lookup.known(name) is None:
            return LOOKUP_POLL_INTERVAL
        group = self._domains.get(name)
        return 0.0 if group is None else group.delay(self._clock(), self._wall())

    def name_limit(self, domain: str | None = None) -> str:
        """Return the limit for which the next message waits longest, for `RunTotals.limits`.

        Args:
            domain: by its own limits or its provider's, or a key from `limiter_key`; None: by those of all messages.
        """
        key = "" if domain is None else self.limiter_key(domain)
        group = self.overall if domain is None else self._domains.get(key)
        if group is None:
            return PROVIDER_LOOKUP
        rate = group.longest(self._clock(), self._wall())
        if rate is None:
            return TOO_FAST
        to = f" to {key.removeprefix(_PROVIDER)}" if key else ""
        return f"rate {rate}{to}"

    def interval_for(self, domain: str) -> float:
        """Return the seconds from one message to `domain` to the next, where they are spaced evenly."""
        group = self._domains.get(self.limiter_key(domain))
        return 0.0 if group is None else group.interval

    def take(self, domain: str) -> None:
        """Record that a message to `domain` begins."""
        group = self._domains.get(self.limiter_key(domain))
        if group is None and self.overall.is_unlimited:
            return
        now, wall = self._clock(), self._wall()
        self.overall.take(now, wall)
        if group is not None:
            group.take(now, wall)

    def record_delivery(self, domain: str, delivery: Delivery) -> None:
        """Adapt to the relay's reply: the run may go slower from now on, or faster again."""
        if not self._adaptive:
            return
        if delivery.accepted or Outcome.DEFERRED not in delivery.outcomes:
            self._succeeded(domain)
            return
        (reply,) = delivery.replies
        if reply.code == _CLOSING:
            self._complained(self.overall, "all", explicit=True)
        elif _means_too_fast(reply):
            to_domain = delivery.mail.positive and not any(answer.positive for answer in delivery.recipients)
            group = self._domains.setdefault(self.limiter_key(domain), LimiterGroup()) if to_domain else self.overall
            self._complained(group, domain if to_domain else "all", explicit=False)
        else:
            self._succeeded(domain)

    def record_session_refusal(self) -> None:
        """Record that the relay closed a session, or did not open one, with a 421."""
        if self._adaptive:
            self._complained(self.overall, "all", explicit=True)

    def save_counts(self) -> str | None:
        """Return the counts of quotas for `restore_counts` of the next run; None: there are no quotas."""
        groups = {"": self.overall, **self._domains}
        counts = {name: counts for name, group in groups.items() if (counts := group.counts())}
        return json.dumps(counts) if counts else None

    def restore_counts(self, saved: str | None) -> None:
        """Continue with the counts of an earlier run; text that cannot be parsed counts as none."""
        if saved is None:
            return
        try:
            counts = {
                str(name): {
                    str(rate): {int(part): int(number) for part, number in parts.items()}
                    for rate, parts in rates.items()
                }
                for name, rates in json.loads(saved).items()
            }
        except (ValueError, AttributeError, TypeError):
            logger.warning("the counts of rates in the ledger cannot be read: counting begins anew")
            return
        self.overall.restore_counts(counts.get("", {}))
        for name, group in self._domains.items():
            group.restore_counts(counts.get(name, {}))

    def _succeeded(self, domain: str) -> None:
        now = self._clock()
        self.overall.adaptive.record_success(now)
        group = self._domains.get(self.limiter_key(domain))
        if group is not None:
            group.adaptive.record_success(now)

    def _complained(self, group: LimiterGroup, what: str, *, explicit: bool) -> None:
        before = group.adaptive.rate
        group.adaptive.record_complaint(self._clock(), explicit=explicit)
        after = group.adaptive.rate
        if after is not None and after != before:
            if what in self.totals.slowed or len(self.totals.slowed) < MAX_SLOWED:
                self.totals.record_slowdown(what, after)
            logger.info("the relay reports too many messages: %s limited to %.3g messages a second", what, after)


def _means_too_fast(reply: Reply) -> bool:
    if any(map(_GREYLISTED.search, reply.lines)):
        return False
    status = str(reply.status or "")
    return (reply.code in _BUSY or status.startswith("4.7.")) and not status.startswith(_ABOUT_THE_MAILBOX)


def make_rate_policy(config: CampaignConfig, left: int, providers: MxProviders | None) -> RatePolicy:
    """Make the limits of a run that has `left` messages to go."""
    chosen = list(config.rate)
    if config.spread_until is not None and left:
        now = datetime.now(UTC)
        span = (config.spread_until - max(now, config.start_at or now)).total_seconds()
        if span > 0:
            chosen.append(Rate(left / span, 1))
    return RatePolicy(
        chosen, config.domain_rates, providers=config.provider_rates, lookup=providers, adaptive=config.adaptive
    )


@asynccontextmanager
async def open_providers(config: CampaignConfig, warn: Callable[[str], object]) -> AsyncGenerator[MxProviders | None]:
    """Look up the providers of domains until the block ends, where there is a limit of one."""
    if not config.provider_rates:
        yield None
        return
    async with MxProviders(config.name_server, warn=warn) as providers:
        yield providers


@asynccontextmanager
async def share_campaign_rates(
    config: CampaignConfig,
    relays: Sequence[Relay],
    rates: Sequence[Rate],
    warn: Callable[[str], object],
    *,
    warms_up: bool,
) -> AsyncGenerator[SharedLimiter | None]:
    """Share the limits of some relays together with other campaigns, until the block ends; None: there are none.

    By `config.shared_rates` all limits are shared (True, or the path of a file), none (False), or those of long
    periods where the usual file can be used (None).
    """
    shared = config.shared_rates
    wanted = [rate for rate in rates if shared is not False and (shared or rate.seconds > MAX_EVEN_PERIOD)]
    warmup = config.warmup.make_warmup() if config.warmup is not None and warms_up else None
    if not wanted and warmup is None:
        yield None
        return
    from asyncsmtp.bulk.rate_limit.shared_store import share_rates

    async with share_rates(shared, relays, wanted, warmup, warn) as limiter:
        yield limiter
