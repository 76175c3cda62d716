"""Tells an observer of events; nobody is called where nobody asked.

A session and a pool hold a `Witness` or None, and ask once a message whether there is one.
"""

from __future__ import annotations

import logging
from time import monotonic
from types import TracebackType
from typing import Self

from asyncsmtp.client.observing.events import Event, MessageEnded, MessageRetried, MessageWaited, MessageWaits, OnEvent
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope

__all__ = ["Watch", "Witness"]

logger = logging.getLogger("asyncsmtp.events")


class Witness:
    """Calls the observer, and bears with it."""

    __slots__ = ("_on_event", "_said", "host")

    def __init__(self, on_event: OnEvent, host: str) -> None:
        self.host = host
        self._on_event = on_event
        self._said = False

    @classmethod
    def of(cls, on_event: OnEvent | None, host: object) -> Witness | None:
        """One, where somebody wants to know."""
        return None if on_event is None else cls(on_event, str(host))

    def tell(self, event: Event) -> None:
        """Call it; what it raises is logged the first time, and ends nothing."""
        try:
            self._on_event(event)
        except Exception:
            if not self._said:
                self._said = True
                logger.exception("the observer raised at %s: correct it; this is said once", type(event).__name__)


class Watch:
    """Keeps the time of one message, from the call of `send` to its end.

    A context manager: left with an error, that is how the message ended.
    """

    __slots__ = ("_began", "_delivery", "_octets", "_recipients", "_waited", "_waits_since", "_witness")

    def __init__(self, witness: Witness, envelope: Envelope, content: AnyContent) -> None:
        self._witness = witness
        self._recipients = len(envelope.forward_paths)
        self._octets = content.size
        self._began = monotonic()
        self._delivery: Delivery | None = None
        self._waits_since = 0.0
        self._waited = 0.0

    def waits(self) -> None:
        """Every session has its hands full."""
        self._waits_since = monotonic()
        self._witness.tell(MessageWaits(self._witness.host))

    def waited(self) -> None:
        """Not any more."""
        seconds = monotonic() - self._waits_since
        self._waited += seconds
        self._witness.tell(MessageWaited(self._witness.host, seconds))

    def retried(self, why: object) -> None:
        """It is sent again at once."""
        self._witness.tell(MessageRetried(self._witness.host, str(why)))

    def got(self, delivery: Delivery) -> Delivery:
        """The relay has answered; return its answers."""
        self._delivery = delivery
        return delivery

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The sender has its result."""
        witness, delivery = self._witness, self._delivery if error is None else None
        host = witness.host if delivery is None else delivery.host
        seconds = monotonic() - self._began
        witness.tell(MessageEnded(host, delivery, error, self._recipients, self._octets, seconds, self._waited))
