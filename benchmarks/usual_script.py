"""The script people write today: aiosmtplib, a semaphore, EmailMessage, Jinja2, connections kept.

python usual_script.py people.csv message.txt message.html PORT SESSIONS
"""

from __future__ import annotations

import asyncio
import csv
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

import aiosmtplib
import jinja2


async def main(people: str, text: str, html: str, port: str, sessions: str) -> None:
    """Mail everyone in `people`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    plain = jinja2.Template(Path(text).read_text(), undefined=jinja2.StrictUndefined)
    markup = environment.from_string(Path(html).read_text())
    idle: asyncio.Queue[aiosmtplib.SMTP] = asyncio.Queue()
    for _ in range(int(sessions)):
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=int(port), start_tls=False)
        await client.connect()
        idle.put_nowait(client)
    gate = asyncio.Semaphore(int(sessions))

    async def deliver(row: dict[str, str]) -> None:
        async with gate:
            message = EmailMessage()
            message["From"] = "News <news@example.org>"
            message["To"] = row["email"]
            message["Subject"] = f"News for {row['name']}"
            message["Date"] = formatdate(localtime=True)
            message["Message-ID"] = make_msgid(domain="example.org")
            message.set_content(plain.render(row))
            message.add_alternative(markup.render(row), subtype="html")
            client = await idle.get()
            try:
                await client.send_message(message)
            finally:
                idle.put_nowait(client)

    with Path(people).open(newline="") as file:
        await asyncio.gather(*(deliver(row) for row in csv.DictReader(file)))
    while not idle.empty():
        await idle.get_nowait().quit()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
