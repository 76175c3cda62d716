"""Mail the rows of a program: checked, sent, and resumed where it was interrupted.

python examples/campaign_from_rows.py smtp://127.0.0.1:2525?security=none
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

from asyncsmtp import Campaign

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"
READERS = [
    {"email": "ann@example.com", "name": "Ann"},
    {"email": "bob@example.com", "name": "Bob"},
]


async def main(folder: str) -> None:
    campaign = Campaign(
        name="november",  # the ledger is november.ledger in the folder
        recipients=READERS,
        from_="Example News <news@example.org>",
        subject="News for {{ name }}",
        text="Hello {{ name }}",
        relay=RELAY,
        folder=folder,
    )
    checked = await campaign.check()
    print(f"{checked.report.recipients} to be mailed")
    async with campaign.run() as run:
        async for outcome in run:
            print(f"{outcome.address}: {outcome.state}")
    result = await campaign.run()  # nothing is left: nobody is mailed twice
    print(f"{result.counts['accepted']} accepted, {result.exit_reason}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
