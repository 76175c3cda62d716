"""The delay of other tasks in the process while a campaign is composed, signed and sent."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.opening_handshake import Security
from benchmarks import campaigns
from benchmarks.measure import Row
from benchmarks.sink import sink

__all__ = ["measure"]

SESSIONS = 20
PAUSE = 0.002  # seconds between two looks


async def measure(folder: Path, rows: int = 10_000) -> list[Row]:
    """Measure how late a task runs that asks for a turn every 2 ms."""
    lags: list[float] = []
    with sink() as port:
        watcher = asyncio.create_task(_watch(lags))
        try:
            await _campaign(folder, rows, port)
        finally:
            watcher.cancel()
    lags.sort()
    late, worst = lags[len(lags) * 99 // 100] * 1e3, lags[-1] * 1e3
    return [
        Row(
            f"others on the loop, while {rows:,} are composed, signed and sent: ms late, p99",
            f"{late:.1f}",
            f"worst {worst:.1f}",
            "-",
            "<= 20",
            late <= 20,
        )
    ]


async def _campaign(folder: Path, rows: int, port: int) -> None:
    campaigns.write(folder, rows, port, sessions=SESSIONS, octets=8_000)
    text, html = ((folder / name).read_text() for name in ("message.txt", "message.html"))
    template = Template(from_="News <news@example.org>", subject="For {{ name }}", text=text, html=html)
    key = rsa.generate_private_key(65_537, 2_048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signer = Signer(DkimKey.from_pem("example.org", "s1", pem))
    file = RecipientFile(folder / "people.csv")
    composer = template.compile(await file.columns(), signer=signer)
    async with await SqliteLedger.open(folder / "ledger", name="lag", from_domain="example.org") as ledger:
        await ledger.load(file.batches())
        async with Pool(Relay("127.0.0.1", port, Security.PLAINTEXT), sessions=SESSIONS) as pool:
            await Run(composer, ledger, pool).run()


async def _watch(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + PAUSE
        await asyncio.sleep(PAUSE)
        lags.append(time.perf_counter() - due)
