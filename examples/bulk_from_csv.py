"""A campaign as a library: a CSV, a template, a ledger; run it again and it resumes.

Run `asyncsmtp sandbox` in another terminal, then: python examples/bulk_from_csv.py
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import asyncsmtp

RELAY = sys.argv[1] if len(sys.argv) > 1 else "smtp://localhost:2525?security=none"
PEOPLE = "email,name,city\nann@example.com,Ann,Graz\nbob@example.com,Bob,Lyon\nnot an address,Cy,Oslo\n"

TEMPLATE = asyncsmtp.Template(
    from_="Example News <news@example.org>",
    subject="News for {{ name }}",
    text="Dear {{ name }},\nthis is the news from {{ city }}.\n",
    html="<p>Dear <b>{{ name }}</b>,<br>this is the news from {{ city }}.</p>",
)


async def campaign(folder: Path) -> None:
    people = asyncsmtp.RecipientFile(folder / "people.csv", email="email")
    composer = TEMPLATE.compile(await people.columns())  # an unknown column is an error here, before any connection
    report = await asyncsmtp.run_preflight(people, composer)
    print(f"{report.recipients} to be mailed; " + "; ".join(map(str, report.problem_rows)))

    async with await asyncsmtp.SqliteLedger.open(
        folder / "news.ledger", name="news", from_domain="example.org", fingerprint={"people.csv": report.digest}
    ) as ledger:
        if not ledger.loaded:
            await ledger.load(people.batches())
        async with asyncsmtp.Pool(asyncsmtp.Relay.from_url(RELAY), sessions=2) as pool:
            await asyncsmtp.Run(composer, ledger, pool).run()
        async for entry in ledger.entries():
            print(f"row {entry.row}: {entry.address or 'nobody'}: {entry.state}: {entry.reply}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "people.csv").write_text(PEOPLE, encoding="utf-8")
        await campaign(folder)
        await campaign(folder)  # nothing is sent twice


asyncio.run(main())
