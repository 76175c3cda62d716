"""How a session speaks with a relay."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Dialogue"]


class Dialogue(StrEnum):
    """How far we speak ahead of the relay's replies.

    LOCKSTEP: one command at a time. PIPELINED: groups, where the relay offers PIPELINING (RFC 2920), and
    across transactions on a session that has proved it reads on behind the end of a content. STREAMED: content
    in chunks (RFC 3030), said unasked with its envelope, `window` messages ahead of their replies; only for a
    relay one runs. Each of these may be in doubt when the connection breaks.
    """

    LOCKSTEP = "lockstep"
    PIPELINED = "pipelined"
    STREAMED = "streamed"
