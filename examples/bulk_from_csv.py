"""Send a campaign to the rows of a CSV file; run it again, and it resumes.

Run `asyncsmtp sandbox` in another terminal, then: python examples/bulk_from_csv.py
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"
PEOPLE = "email,name,city\nann@example.com,Ann,Graz\nbob@example.com,Bob,Lyon\nnot an address,Cy,Oslo\n"


async def send_campaign(people: Path) -> None:
    campaign = asyncsmtp.Campaign(
        recipients=people,  # the ledger, people.ledger, is beside it
        from_="Example News <news@example.org>",
        subject="News for {{ name }}",
        text="Dear {{ name }},\nthis is the news from {{ city }}.\n",
        html="<p>Dear <b>{{ name }}</b>,<br>this is the news from {{ city }}.</p>",
        relay=RELAY,
    )
    check = await campaign.check()  # finds unknown columns and invalid rows before anything is sent
    print(f"{check.report.recipients} recipients; " + "; ".join(map(str, check.report.problem_rows)))
    result = await campaign.run()
    print(f"{result.counts['accepted']} accepted, {result.counts['rejected']} rejected")
    async for entry in campaign.results():
        print(f"row {entry.row}: {entry.address or 'no address'}: {entry.state}: {entry.reply}")


async def main(people: Path) -> None:
    await send_campaign(people)
    await send_campaign(people)  # nothing is sent twice


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "people.csv")
    file.write_text(PEOPLE, encoding="utf-8")
    asyncio.run(main(file))
