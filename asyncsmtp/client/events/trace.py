"""The dialogue as people read it: one call a line, secrets masked, content left out."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Protocol

from asyncsmtp.protocol.replies import safe_text

__all__ = ["Direction", "Trace", "logged"]

logger = logging.getLogger("asyncsmtp.session")

MOST_LINES = 32  # of one reply in the log; EHLO's have about a dozen


class Direction(StrEnum):
    """Who spoke, as the RFC's examples mark it; EVENT for what neither said."""

    CLIENT = "C"
    SERVER = "S"
    EVENT = "="


class Trace(Protocol):
    """A hook that is given each line of the dialogue as it happens.

    Args:
        side: who spoke, or EVENT for what neither said (a handshake, a failure).
        text: what was said, one or more lines; from the server it is foreign, see `safe_text`.
        tls: whether it went under TLS. refused: whether it is a negative reply, or a failure.
    """

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None: ...


def logged(trace: Trace | None) -> Trace | None:
    """The hook, and the log where DEBUG is enabled; None when nobody wants to know."""
    if not logger.isEnabledFor(logging.DEBUG):
        return trace

    def both(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        lines = text.split("\n")
        for line in lines[:MOST_LINES]:
            logger.debug("%s: %s", side.value, safe_text(line, 512))
        if len(lines) > MOST_LINES:
            logger.debug("%s: … %d lines more", side.value, len(lines) - MOST_LINES)
        if trace is not None:
            trace(side, text, tls=tls, refused=refused)

    return both
