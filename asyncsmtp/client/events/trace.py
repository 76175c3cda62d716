"""Traces of the dialogue: one call for each line, secrets masked, content left out."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Protocol

from asyncsmtp.protocol.replies import safe_text

__all__ = ["Direction", "Trace", "with_debug_log"]

logger = logging.getLogger("asyncsmtp.session")

MAX_LOGGED_LINES = 32  # of one reply in the log; the reply to EHLO has about a dozen


class Direction(StrEnum):
    """The sender of a line, marked as in the RFC's examples; EVENT for what neither side sent."""

    CLIENT = "C"
    SERVER = "S"
    EVENT = "="


class Trace(Protocol):
    """A callback that receives each line of the dialogue as it happens.

    Args:
        side: the sender; EVENT for what neither side sent (a handshake, a failure).
        text: one or more lines. Lines from the server may hold anything: print them with `safe_text`.
        tls: the line was sent under TLS.
        refused: the line is a negative reply, or a failure.
    """

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None: ...


def with_debug_log(trace: Trace | None) -> Trace | None:
    """Return a trace that also logs if DEBUG is enabled; None if nobody wants the dialogue."""
    if not logger.isEnabledFor(logging.DEBUG):
        return trace

    def both(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        lines = text.split("\n")
        for line in lines[:MAX_LOGGED_LINES]:
            logger.debug("%s: %s", side.value, safe_text(line, 512))
        if len(lines) > MAX_LOGGED_LINES:
            logger.debug("%s: … %d more lines", side.value, len(lines) - MAX_LOGGED_LINES)
        if trace is not None:
            trace(side, text, tls=tls, refused=refused)

    return both
