"""Deliveries as lines, one for each recipient, and the exit code they add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.records import json_line
from asyncsmtp.protocol.delivery import Outcome

if TYPE_CHECKING:
    from asyncsmtp.protocol.delivery import Delivery

__all__ = ["Tally"]


class Tally:
    """Prints each outcome on stdout as it comes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._seen: set[Outcome] = set()

    @property
    def exit(self) -> Exit:
        """75 where running again helps, else 1 where someone was rejected."""
        if Outcome.DEFERRED in self._seen:
            return Exit.RUN_AGAIN
        return Exit.SOME_FAILED if Outcome.REJECTED in self._seen else Exit.ACCEPTED

    def add(self, delivery: Delivery, about: str = "") -> None:
        """Print a delivery: who, what became of it, and the relay's words."""
        for path, outcome, reply in zip(
            delivery.envelope.forward_paths, delivery.outcomes, delivery.replies, strict=True
        ):
            self._seen.add(outcome)
            if not self._as_json:
                console.out(f"{about}{path}: {outcome} by {delivery.host}: {reply}")
                continue
            facts = {"email": str(path), "state": str(outcome), "code": reply.code, "reply": reply.text}
            status = str(reply.status) if reply.status else None
            tls = delivery.tls
            facts |= {"status": status, "host": delivery.host, "tls": tls.version if tls else None}
            facts |= {"cipher": tls.cipher if tls else None, "verified": tls is not None and tls.verified}
            console.out(json_line(facts), harmless=False)
