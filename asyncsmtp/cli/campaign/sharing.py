"""Which rates a campaign shares with others through the same relay, and in which file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.failures import Failed

if TYPE_CHECKING:
    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
    from asyncsmtp.client.config.relay import Relay

__all__ = ["Sharing", "usual_file"]


def usual_file() -> Path:
    """Where campaigns of one user share their rates (XDG Base Directory Specification: user-specific state).

    Raises:
        Failed: the user has no home.
    """
    given = os.environ.get("XDG_STATE_HOME", "")  # a relative one is invalid, and to be ignored
    try:
        home = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    except RuntimeError:
        why = "there is no home to keep the rates in that campaigns share"
        raise Failed(why, "set HOME or XDG_STATE_HOME; or name a file, or false, as shared in [limits]") from None
    return home / "asyncsmtp" / "rates.db"


class Sharing:
    """What `shared` in [limits] means.

    Args:
        shared: True for all rates, a path for all rates in that file, False for none; None for those of long times,
            where the usual file can be used.
    """

    def __init__(self, shared: bool | Path | None) -> None:
        self._shared = shared

    @asynccontextmanager
    async def of(self, relays: Sequence[Relay], rates: Sequence[Rate]) -> AsyncGenerator[SharedLimiter | None]:
        """The shared rates of some relays together, until the block ends; None: there are none."""
        from asyncsmtp.bulk.rate_limit.rate import MAX_EVEN_PERIOD

        wanted = [rate for rate in rates if self._shared or rate.seconds > MAX_EVEN_PERIOD]
        if self._shared is False or not wanted:
            yield None
            return
        from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter, SharedRateStore

        try:
            path = self._shared if isinstance(self._shared, Path) else usual_file()
        except Failed as failed:
            if self._shared:
                raise
            console.say(f"rates are not shared with other campaigns: {failed}")
            yield None
            return
        name = " ".join(sorted(map(_name, relays)))
        store = SharedRateStore(path, name, wanted)
        async with SharedLimiter(store, required=bool(self._shared), warn=console.say) as shared:
            yield shared


def _name(relay: Relay) -> str:
    user = f"{relay.login.username}@" if relay.login is not None else ""
    return f"{user}{relay}".lower()
