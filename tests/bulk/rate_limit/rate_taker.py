"""One of several processes at one rate: takes until there is nothing left, and prints what it got as JSON.

python -m tests.bulk.rate_limit.rate_taker FILE RATES MESSAGES
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter, SharedRateStore


class Recording(SharedRateStore):
    """Keeps the slots that it reserved."""

    slots: list[int]

    def reserve(self, wanted: int):  # type: ignore[no-untyped-def]
        reserved = super().reserve(wanted)
        self.slots.extend(reserved.times)
        return reserved


async def take(path: Path, rates: str, messages: int) -> None:
    file = Recording(path, "relay", Rate.parse_all(rates))
    file.slots = []
    taken = 0
    print("ready", flush=True)
    sys.stdin.readline()  # all begin at once
    async with SharedLimiter(file) as shared:
        while taken < messages:
            if (wait := await shared.take()) > 60:
                break
            taken += not wait
            await asyncio.sleep(wait)
    print(json.dumps({"taken": taken, "slots": file.slots}))


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
