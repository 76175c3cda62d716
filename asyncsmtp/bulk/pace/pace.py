"""How fast a run may go: over all, for each domain, and as the relay lets it."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from asyncsmtp.bulk.pace.lane import Lane
from asyncsmtp.bulk.pace.providers import Providers
from asyncsmtp.bulk.pace.rates import Rate
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.replies import Reply

__all__ = ["MOMENT", "Pace"]

logger = logging.getLogger("asyncsmtp.campaign")

MOMENT = 0.02  # seconds after which it is looked again whether a domain's provider is known
_PROVIDER = "mx:"  # begins no domain
_CLOSING = 421
_BUSY = frozenset({450, 451, 452})
_GREYLISTED = re.compile(rb"gr[ea]y.?list", re.IGNORECASE)  # each recipient by itself: going slower helps nobody
_ABOUT_THE_MAILBOX = ("4.1.", "4.2.")  # RFC 3463 §3.2, §3.3: nothing that going slower would help


class Pace:
    """Says when the next message may begin. Nothing here waits: whoever asks does.

    Args:
        rates: for all messages of the run, each of them.
        domains: for those to one domain, in lower case, beside that.
        providers: for those to all domains whose mail one provider takes, but for domains with a limit of their own.
        groups: says which provider a domain has; needed for `providers`, and asked for nothing else.
        adapts: whether complaints of the relay slow the run down.
        clock: a monotonic clock, in seconds. wall: seconds since 1970: what is counted by the day outlives the process.
    """

    def __init__(
        self,
        rates: Sequence[Rate] = (),
        domains: Mapping[str, Iterable[Rate]] | None = None,
        *,
        providers: Mapping[str, Iterable[Rate]] | None = None,
        groups: Providers | None = None,
        adapts: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.overall = Lane(rates)
        self._given = tuple(rates)
        self._rates = {name.lower(): tuple(domain) for name, domain in (domains or {}).items()}
        self._domains = {name: Lane(domain) for name, domain in self._rates.items()}
        self._groups = groups if providers else None
        for name, provider in (providers or {}).items() if groups is not None else ():
            self._domains[f"{_PROVIDER}{name.lower()}"] = Lane(provider)
        self._adapts = adapts
        self._clock = clock
        self._wall = wall

    @property
    def is_open(self) -> bool:
        """Whether nothing holds any message back."""
        return not self._domains and self.overall.is_open

    def limit(self, rate: Rate) -> None:
        """A further rate for all messages; it takes the place of the last one that was set so."""
        self.overall.change((*self._given, rate))

    def wait(self) -> float:
        """Seconds until the next message, to whomever, may begin."""
        return self.overall.wait(self._clock(), self._wall())

    @property
    def crowded(self) -> bool:
        """Whether the providers of so many domains are not known yet that further rows had better wait."""
        return self._groups is not None and self._groups.crowded

    def lane_of(self, domain: str) -> str:
        """What the limits of a domain go by: itself, or its provider; while that is not known yet, itself."""
        name = domain.lower()
        if self._groups is None or name in self._rates or name.startswith(_PROVIDER):
            return name
        lane = f"{_PROVIDER}{self._groups.known(name)}"
        return lane if lane in self._domains else name

    def wait_for(self, domain: str) -> float:
        """Seconds until the next message to `domain` may begin, as far as that domain, or its provider, is concerned.

        Also takes what `lane_of` returns.
        """
        name = self.lane_of(domain)
        if self._groups is not None and name not in self._domains and self._groups.known(name) is None:
            return MOMENT
        lane = self._domains.get(name)
        return 0.0 if lane is None else lane.wait(self._clock(), self._wall())

    def spacing_of(self, domain: str) -> float:
        """Seconds from one message to `domain` to the next, where that is even."""
        lane = self._domains.get(self.lane_of(domain))
        return 0.0 if lane is None else lane.spacing

    def take(self, domain: str) -> None:
        """A message to `domain` begins."""
        lane = self._domains.get(self.lane_of(domain))
        if lane is None and self.overall.is_open:
            return
        now, wall = self._clock(), self._wall()
        self.overall.take(now, wall)
        if lane is not None:
            lane.take(now, wall)

    def heard(self, domain: str, delivery: Delivery) -> None:
        """Take the relay's answer to notice: it may go slower from now on, or faster again."""
        if not self._adapts:
            return
        if delivery.accepted or Outcome.DEFERRED not in delivery.outcomes:
            self._well(domain)
            return
        (reply,) = delivery.replies
        if reply.code == _CLOSING:
            self._complained(self.overall, "all", plain=True)
        elif _is_busy(reply):
            to_domain = delivery.mail.positive and not any(answer.positive for answer in delivery.recipients)
            lane = self._domains.setdefault(self.lane_of(domain), Lane()) if to_domain else self.overall
            self._complained(lane, domain if to_domain else "all", plain=False)
        else:
            self._well(domain)

    def turned_away(self) -> None:
        """The relay closed the session, or did not open one, with a 421."""
        if self._adapts:
            self._complained(self.overall, "all", plain=True)

    def remember(self) -> str | None:
        """What the next run must know, for `recall`; None: nothing is counted."""
        lanes = {"": self.overall, **self._domains}
        counted = {name: lane.counted() for name, lane in lanes.items() if lane.counts}
        return json.dumps(counted) if counted else None

    def recall(self, remembered: str | None) -> None:
        """Go on counting where an earlier run ended; what cannot be read counts as nothing."""
        if remembered is None:
            return
        try:
            said = {
                str(lane): {
                    str(rate): {int(part): int(number) for part, number in parts.items()}
                    for rate, parts in rates.items()
                }
                for lane, rates in json.loads(remembered).items()
            }
        except (ValueError, AttributeError, TypeError):
            logger.warning("the ledger's memory of rates cannot be read: counting begins anew")
            return
        self.overall.recall(said.get("", {}))
        for name, lane in self._domains.items():
            lane.recall(said.get(name, {}))

    def _well(self, domain: str) -> None:
        now = self._clock()
        self.overall.throttle.well(now)
        lane = self._domains.get(self.lane_of(domain))
        if lane is not None:
            lane.throttle.well(now)

    def _complained(self, lane: Lane, what: str, *, plain: bool) -> None:
        before = lane.throttle.rate
        lane.throttle.complaint(self._clock(), plain=plain)
        after = lane.throttle.rate
        if after is not None and after != before:
            logger.info("the relay complains: %s at %.3g messages a second from now on", what, after)


def _is_busy(reply: Reply) -> bool:
    if any(map(_GREYLISTED.search, reply.lines)):
        return False
    status = str(reply.status or "")
    return (reply.code in _BUSY or status.startswith("4.7.")) and not status.startswith(_ABOUT_THE_MAILBOX)
