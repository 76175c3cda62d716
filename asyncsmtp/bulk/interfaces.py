"""Interfaces of the parts that a run is given: the composer, the sender, the way to sleep and to use threads.

`RunTotals` is what these parts count together.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Mailbox

if TYPE_CHECKING:
    from asyncsmtp.client.config.login_config import TokenSource
    from asyncsmtp.protocol.auth.auth import Secret

__all__ = [
    "TOTALS_NAME",
    "ComposerProtocol",
    "ConvertingComposer",
    "CopyingComposer",
    "LimitTotals",
    "MessageSender",
    "RateLimitedSender",
    "ReadingComposer",
    "RelayTotals",
    "RunTotals",
    "SecretSource",
    "Sleep",
    "StoppableSender",
    "ThreadRunner",
    "sleep_unless",
    "utc_now",
]

Sleep = Callable[[float, asyncio.Event], Awaitable[None]]  # as `sleep_unless`, which it can take the place of
_T = TypeVar("_T")


class ComposerProtocol(Protocol):
    """A composer, as far as a campaign uses it."""

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        """Compose the message of one row. Raises RecipientError: this row cannot have one."""


@runtime_checkable
class ConvertingComposer(Protocol):
    """A composer that may have to convert a rendered template first, which takes longer than a step of the loop may."""

    def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
        """Return the conversion that `compose` would make first for this row, or None.

        It is meant to run in a thread, one at a time: conversions hold the interpreter's lock most of the time.
        """


@runtime_checkable
class CopyingComposer(Protocol):
    """A composer of messages that also go to Cc and Bcc."""

    def compose_copy(
        self,
        to: Mailbox,
        fields: Mapping[str, str],
        *,
        recipient: Mailbox,
        token: str,
        message_id: str,
        date: datetime,
        row: int | None = None,
    ) -> Message:
        """Compose the message of one row for `recipient`, who is in Cc or Bcc. Raises RecipientError: as `compose`."""


@runtime_checkable
class ReadingComposer(Protocol):
    """A composer that may read files for each row.

    Attributes:
        reads_files: whether it does, so that messages share little of their memory; it is used by one thread at a time.
    """

    reads_files: bool


class MessageSender(Protocol):
    """A pool, as far as a run uses it."""

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message, as `Pool.send` does."""


@runtime_checkable
class RateLimitedSender(Protocol):
    """A sender with rates of its own. A run asks it before each message and waits together with its other limits."""

    async def take_turn(self) -> float:
        """Take a turn for one message; return 0, or the seconds after which to ask again."""

    async def offer(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery | None:
        """Send one message, as `Pool.send` does, in the turn that was taken first; never wait for a rate.

        None: it needs another turn; the end of its content was not written.
        """


@runtime_checkable
class StoppableSender(Protocol):
    """A sender that can give back the messages which it has not begun."""

    def stop(self) -> None:
        """Begin no further message, as `Pool.stop` does; those that have begun are answered."""


class ThreadRunner(Protocol):
    """A function that runs a blocking one outside the event loop, as `asyncio.to_thread` does."""

    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]: ...


class SecretSource(Protocol):
    """A source of the secrets that a relay needs; a token goes before a password. The command asks a person as well."""

    def password(self, username: str, host: str) -> str | Secret | None: ...
    def token(self, username: str, host: str) -> TokenSource | None: ...
    def proxy_password(self, username: str, host: str) -> str | Secret | None: ...
    def passphrase(self, key: Path) -> str | Secret | None:
        """Find the passphrase of a client certificate's private key; it may be encrypted or not."""


async def sleep_unless(seconds: float, event: asyncio.Event) -> None:
    """Sleep; return early when `event` is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)


# What the rows do not tell is added up by each run, and kept among the ledger's values: bytes, and what it waited for.

TOTALS_NAME = "run "  # begins the name of the totals of each run


@dataclass(slots=True)
class RelayTotals:
    """Totals of one relay.

    Attributes:
        messages: that it accepted. size: bytes of their content.
        reply_times: milliseconds from the mark before the end of the content to the reply after it, whatever that says,
            and number of such replies. Above 100 ms only the first two digits count.
    """

    messages: int = 0
    size: int = 0
    reply_times: dict[int, int] = field(default_factory=dict)

    def record_reply(self, seconds: float) -> None:
        """Count a reply that took so long."""
        ms = round(seconds * 1000)
        if ms >= 100:
            step = 10 ** (len(str(ms)) - 2)
            ms = ms // step * step
        self.reply_times[ms] = self.reply_times.get(ms, 0) + 1


@dataclass(slots=True)
class LimitTotals:
    """Totals of one limit.

    Attributes:
        held: how often a message had to wait for it. seconds: that the run waited for it and for nothing else.
        ended: how many runs it ended, since they were not to wait so long.
    """

    held: int = 0
    seconds: float = 0.0
    ended: int = 0


@dataclass(slots=True)
class RunTotals:
    """Totals of the runs of a campaign. A run that was killed may lack its last seconds.

    Attributes:
        runs: number of the runs. seconds: that they took together.
        relays: by the relay's name, as `Settlement.host` has it.
        limits: by the limit, such as `rate 30/s`; see docs/howto/browser.md.
        slowed: by replies "too fast" of a relay: `all`, or a domain, with the number of times the run was made
            slower and the lowest rate, in messages a second.
    """

    runs: int = 0
    seconds: float = 0.0
    relays: dict[str, RelayTotals] = field(default_factory=dict)
    limits: dict[str, LimitTotals] = field(default_factory=dict)
    slowed: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """Number of accepted messages whose bytes were counted."""
        return sum(each.messages for each in self.relays.values())

    @property
    def size(self) -> int:
        """Bytes of the content of these messages."""
        return sum(each.size for each in self.relays.values())

    def relay(self, host: str) -> RelayTotals:
        """Return the totals of a relay, to be added to."""
        return self.relays.get(host) or self.relays.setdefault(host, RelayTotals())

    def limit(self, name: str) -> LimitTotals:
        """Return the totals of a limit, to be added to."""
        return self.limits.get(name) or self.limits.setdefault(name, LimitTotals())

    def record_slowdown(self, what: str, rate: float) -> None:
        """Count a reply of a relay that made the run slower."""
        times, lowest = self.slowed.get(what, (0, rate))
        self.slowed[what] = times + 1, min(lowest, rate)

    def add(self, other: RunTotals) -> None:
        """Add the totals of another run."""
        self.runs += other.runs
        self.seconds += other.seconds
        for host, theirs in other.relays.items():
            relay = self.relay(host)
            relay.messages += theirs.messages
            relay.size += theirs.size
            for ms, number in theirs.reply_times.items():
                relay.reply_times[ms] = relay.reply_times.get(ms, 0) + number
        for name, held in other.limits.items():
            limit = self.limit(name)
            limit.held += held.held
            limit.seconds += held.seconds
            limit.ended += held.ended
        for what, (times, lowest) in other.slowed.items():
            before, rate = self.slowed.get(what, (0, lowest))
            self.slowed[what] = before + times, min(rate, lowest)

    def to_json(self) -> str:
        """Return the text that a ledger keeps; `from_json` reads it."""
        return json.dumps(
            {
                "seconds": round(self.seconds, 3),
                "relays": {host: [each.messages, each.size, each.reply_times] for host, each in self.relays.items()},
                "limits": {name: [each.held, round(each.seconds, 3), each.ended] for name, each in self.limits.items()},
                "slowed": self.slowed,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> RunTotals:
        """Read the totals of one run. Raises ValueError: it is not such a text."""
        try:
            found = json.loads(text)
            return cls(
                1,
                float(found["seconds"]),
                {
                    str(host): RelayTotals(int(n), int(size), {int(ms): int(number) for ms, number in times.items()})
                    for host, (n, size, times) in found["relays"].items()
                },
                {
                    str(name): LimitTotals(int(held), float(seconds), int(ended))
                    for name, (held, seconds, ended) in found["limits"].items()
                },
                {str(what): (int(times), float(rate)) for what, (times, rate) in found["slowed"].items()},
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from error
