"""Send a campaign to rows from a program, such as the result of a query; run it again, and it resumes.

Run `asyncsmtp sandbox` in another terminal, then: python examples/campaign_from_rows.py
"""

import asyncio
import sys
import tempfile

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"
READERS = [{"email": "ann@example.com", "name": "Ann"}, {"email": "bob@example.com", "name": "Bob"}]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        campaign = asyncsmtp.Campaign(
            name="november",  # the ledger is november.ledger in the folder
            recipients=READERS,  # or an async iterable
            from_="Example News <news@example.org>",
            subject="News for {{ name }}",
            text="Hello {{ name }}",
            relay=RELAY,
            folder=folder,
        )
        async with campaign.run() as run:
            async for outcome in run:
                print(f"{outcome.address}: {outcome.state}: {outcome.reply}")
        result = await campaign.run()  # nothing is left, so nothing is sent twice
        print(f"{result.counts['accepted']} accepted, {result.exit_reason}")


asyncio.run(main())
