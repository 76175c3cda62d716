"""What is said of a session as it opens and closes: in the log, and to an observer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from asyncsmtp.client.events.types import EventEmitter, SessionClosed, SessionFailed, SessionOpened
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.delivery import TlsInfo

__all__ = ["Lifetime"]

logger = logging.getLogger("asyncsmtp.session")


class Lifetime:
    """Of one session; says of a session that never opened only that it did not.

    Attributes:
        messages: how many it was given.
        left: whether it ends as it should, after a QUIT.
    """

    __slots__ = ("_began", "_host", "_opened_at", "_witness", "left", "messages")

    def __init__(self, host: str, witness: EventEmitter | None) -> None:
        self.messages = 0
        self.left = False
        self._host = host
        self._witness = witness
        self._began = 0.0
        self._opened_at: float | None = None

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Around connecting; tells of what it raises."""
        self._began = monotonic()
        try:
            yield
        except BaseException as error:
            if self._witness is not None:
                self._witness.tell(SessionFailed(self._host, monotonic() - self._began, error))
            raise

    def opened(self, host: str, facts: TlsInfo | None) -> None:
        """It may send."""
        self._host, self._opened_at = host, monotonic()
        seconds = self._opened_at - self._began
        tls, verified = (facts.version, facts.verified) if facts is not None else (None, False)
        if logger.isEnabledFor(logging.INFO):
            how = "in clear" if tls is None else f"{tls}, certificate {'verified' if verified else 'not verified'}"
            logger.info("session with %s opened in %.3f s: %s", self._host, seconds, how)
        if self._witness is not None:
            self._witness.tell(SessionOpened(self._host, seconds, tls, verified))

    def closed(self, error: SMTPError) -> None:
        """Its connection is gone."""
        if self._opened_at is None:
            return
        seconds, self._opened_at = monotonic() - self._opened_at, None
        logger.info("session with %s closed: %d messages in %.1f s", self._host, self.messages, seconds)
        if self._witness is not None:
            self._witness.tell(SessionClosed(self._host, seconds, self.messages, None if self.left else error))
