"""The circuit breaker: a stop for a run whose relay refuses everyone, before it has used up the list of recipients.

A refusal is recorded as a permanent one of its recipient. A relay whose quota is used up, that does not know the login,
or that has another idea of the dialogue refuses everyone, and a campaign of 100,000 rows would be over in minutes, with
nobody to be mailed left. So the breaker looks at every outcome and distinguishes:

*About the mailbox*: 5.1.1, 5.1.2, 5.1.3, 5.1.6, 5.1.10, 5.2.1. A stale list is full of them; they never count.

*About the sender or the relay*, by the code alone: any refusal of MAIL, 500-504 and 5.5.x (the dialogue), 5.7.x
(policy), 5.1.7 and 5.1.8 (the sender's address), 5.2.252 (it may not send as this author), 5.3.x (the relay) and 5.4.5
(quota). A lost reply counts with them: it leaves a doubt that a person must decide. They count by their share of the
last outcomes and not in a row, since a few recipients are accepted also while a relay refuses nearly all.

*Anything else*, by repetition: the same code with the same words, for recipients at several domains, with nothing
accepted by the same relay in between. That finds the refusals that have no enhanced code ("relay not permitted"), in
any language. A message that had begun before the first of them may still be accepted after it; that shows nothing
about the relay now.

Refusals after the stop, of messages that were in flight, are deferred: the next run tries them again. Those before it
stay as the relay reported them; `rows` names them, so that a person can make them pending again.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from asyncsmtp.bulk.ledger.interfaces import RowState, Settlement
from asyncsmtp.bulk.ledger.transitions import reply_words
from asyncsmtp.bulk.running.row_sender import InFlight
from asyncsmtp.errors import CampaignHalted
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["MAX_FAILURES", "OUTCOME_WINDOW", "CircuitBreaker"]

OUTCOME_WINDOW = 50  # outcomes that are considered
MAX_FAILURES = 20  # of these, or of the same refusal in a row, before the run stops
MAX_KINDS = 100  # different refusals that are remembered
MAX_ROWS = 1000  # rows of one refusal that are remembered: those at a single domain do not stop the run

_ABOUT_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})  # RFC 3463 §3.2, 7505, 3886
_ABOUT_SENDER = re.compile(r"5\.(?:[357]\.\d+|1\.[78]|2\.252|4\.5)")
_DIALOGUE = range(500, 505)  # RFC 5321 §4.2.2: syntax error, not implemented, bad sequence
_UNAVAILABLE = (550, "5.5.0")  # Outlook.com says "mailbox unavailable" with it


class _Refusals:
    """Refusals with the same words, in a row: their rows, and the domains of the last of them."""

    def __init__(self) -> None:
        self.number = 0
        self.rows: deque[int] = deque(maxlen=MAX_ROWS)
        self.domains: deque[str] = deque(maxlen=MAX_FAILURES)

    def add(self, row: int, domain: str) -> None:
        self.number += 1
        self.rows.append(row)
        self.domains.append(domain)

    @property
    def is_of_relay(self) -> bool:
        return self.number >= MAX_FAILURES and len(set(self.domains)) > 1


@dataclass(slots=True)
class _Streak:
    """Refusals by one relay since it last accepted a message, by code and words.

    Attributes:
        begun: how many messages had begun at the first of them.
    """

    begun: int
    kinds: dict[tuple[int, str], _Refusals] = field(default_factory=dict)


_NO_STREAK = _Streak(0)


class CircuitBreaker:
    """A stop for a run in which the outcomes say that the sender, or the relay, has a problem.

    Args:
        keep_going: never stop; what would have been the reason is in `error` all the same.
    Attributes:
        error: why the campaign must stop; None: it may go on. Once set it stays.
        rows: those that were rejected for that reason.
    """

    def __init__(self, *, keep_going: bool = False) -> None:
        self.error: CampaignHalted | None = None
        self.rows: frozenset[int] = frozenset()
        self._keep_going = keep_going
        self._last: deque[int] = deque(maxlen=OUTCOME_WINDOW)  # rows of failures; of doubts negative; 0: none
        self._failures = 0
        self._streaks: dict[str, _Streak] = {}  # by relay

    def admit(self, settlement: Settlement, row: InFlight, begun: int) -> bool:
        """Count an outcome; return False for a refusal that must not be held against the recipient.

        Args:
            begun: how many messages of the run have begun by now.
        """
        state = settlement.state
        if state is RowState.ACCEPTED:
            if self._streaks and row.number > self._streaks.get(settlement.host, _NO_STREAK).begun:
                self._streaks.pop(settlement.host, None)
            if self._failures:  # while all goes well there is nothing to count
                self._count(0)
            return True
        refused = state is RowState.REJECTED and (row.at_mail or settlement.status not in _ABOUT_MAILBOX)
        if self.error is not None:
            return self._keep_going or not refused
        alike = self._add_refusal(settlement, row.claim.recipient.mailbox, begun) if refused else None
        if state is RowState.IN_DOUBT:
            self._count(-settlement.row)
        elif refused and (row.at_mail or _is_about_sender(settlement)):
            self._count(settlement.row)
        elif state is RowState.DEFERRED and self._failures:
            self._count(0)
        what = f"{settlement.code} {settlement.reply}" if settlement.code else settlement.reply
        if self._failures >= MAX_FAILURES:
            self.error = CampaignHalted(self._failures, len(self._last), settlement.host, what)
        elif alike is not None and alike.is_of_relay:
            why = "were refused with the same words, for recipients at several domains"
            self.error = CampaignHalted(alike.number, alike.number, settlement.host, what, why)
        if self.error is not None:
            same = alike.rows if alike is not None and alike.is_of_relay else ()
            self.rows = frozenset(row for row in (*self._last, *same) if row > 0)
        return True

    def _count(self, failure: int) -> None:
        if len(self._last) == OUTCOME_WINDOW:
            self._failures -= self._last[0] != 0
        self._last.append(failure)
        self._failures += failure != 0

    def _add_refusal(self, settlement: Settlement, mailbox: Mailbox, begun: int) -> _Refusals:
        streak = self._streaks.setdefault(settlement.host, _Streak(begun))
        kind = settlement.code or 0, reply_words(settlement.reply, mailbox.local)
        if kind not in streak.kinds and len(streak.kinds) == MAX_KINDS:
            del streak.kinds[next(iter(streak.kinds))]
        refusals = streak.kinds.setdefault(kind, _Refusals())
        refusals.add(settlement.row, mailbox.domain.lower())
        return refusals


def _is_about_sender(settlement: Settlement) -> bool:
    """Return whether a refusal is about the sender, the relay or the dialogue, by its code."""
    code, status = settlement.code, settlement.status or ""
    if (code, status) == _UNAVAILABLE:
        return False
    return code in _DIALOGUE or _ABOUT_SENDER.fullmatch(status) is not None
