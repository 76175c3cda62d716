"""A webhook: outcomes in batches, signed, again where that helps, and never in the way of the campaign."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncsmtp.bulk import webhook as hooks
from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.bulk.webhook import SIGNATURE_HEADER, Webhook, open_webhook
from asyncsmtp.errors import InvalidArgument, MissingDependency
from tests.bulk.ledger.ledgers import states
from tests.bulk.running.test_runner import Plain, campaign
from tests.bulk.running.test_storms import YES, Saying


class Server:
    """An HTTP server that answers with the next of `statuses`, the last one for ever, and keeps what it got."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    @property
    def outcomes(self) -> list[dict[str, object]]:
        return [json.loads(line) for _, body in self.requests for line in body.splitlines()]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                self.requests.append((fields, await reader.readexactly(int(fields["content-length"]))))
                status = self.statuses[min(len(self.requests), len(self.statuses)) - 1]
                writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
        except asyncio.IncompleteReadError:
            writer.close()


@asynccontextmanager
async def server(*statuses: int) -> AsyncIterator[Server]:
    it = Server(*statuses)
    async with await asyncio.start_server(it.serve, "127.0.0.1", 0) as listening:
        it.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/outcomes"
        yield it


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "BATCH_DELAY", 0.01)
    monkeypatch.setattr(hooks, "TIMEOUT", 2.0)


async def test_every_outcome_is_posted_in_batches_and_signed(tmp_path: Path) -> None:
    async with server(204) as it, campaign(tmp_path, 1200) as ledger, open_webhook(it.url, b"secret") as hook:
        await Run(Plain(), ledger, Saying(YES), watch=hook.watch).run()
    assert hook.delivered == len(it.outcomes) == 1200
    assert {one["row"] for one in it.outcomes} == set(range(1, 1201))
    assert len({one["id"] for one in it.outcomes}) == 1200
    assert 3 <= len(it.requests) <= 60
    for fields, body in it.requests:
        assert len(body.splitlines()) <= hooks.BATCH
        assert fields[SIGNATURE_HEADER.lower()] == f"sha256={hmac.digest(b'secret', body, 'sha256').hex()}"
        assert fields["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize(
    ("statuses", "requests", "told"), [((503, 429, 200), 3, 5), ((500,), 3, 0), ((404, 200), 1, 0), ((301, 200), 2, 5)]
)
async def test_what_may_pass_is_tried_again(
    tmp_path: Path, statuses: tuple[int, ...], requests: int, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The campaign is not affected; what is given up is counted, and logged once it is."""
    async with server(*statuses) as it, campaign(tmp_path, 5) as ledger:
        async with open_webhook(it.url) as hook:
            hook._delays = (0.01, 0.01)
            await Run(Plain(), ledger, Saying(YES), watch=hook.watch).run()
        assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
    assert (len(it.requests), hook.delivered, hook.lost) == (requests, told, 5 - told)
    assert len({body for _, body in it.requests}) == 1  # the same ids, so that who got it twice can tell
    assert ("the ledger has them" in caplog.text) == (told == 0)


async def test_a_server_that_does_not_answer_costs_the_campaign_nothing(tmp_path: Path) -> None:
    """And its end a bounded time."""

    async def never(body: bytes, headers: dict[str, str]) -> int:
        await asyncio.Event().wait()
        return 200

    async with asyncio.timeout(10), campaign(tmp_path, 50) as ledger, Webhook(never) as hook:
        async with asyncio.timeout(5):
            await Run(Plain(), ledger, Saying(YES), watch=hook.watch).run()
        assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
    assert (hook.delivered, hook.lost) == (0, 50)


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "MAX_WAITING", 10)

    async def taken(body: bytes, headers: dict[str, str]) -> int:
        return 200

    monkeypatch.setattr(hooks, "BATCH_DELAY", 60)
    async with campaign(tmp_path, 50) as ledger, Webhook(taken) as hook:
        await Run(Plain(), ledger, Saying(YES), watch=hook.watch).run()
    assert (hook.delivered, hook.lost) == (10, 40)


@pytest.mark.parametrize(
    "url",
    ["", "ftp://example.org/", "https://", "https://[bad/", "https://example.org:99999/", "example.org", "\x1b[2J"],
)
async def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a URL for a webhook"):
        async with open_webhook(url):
            pass


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[http\]"):
        async with open_webhook("https://example.org/"):
            pass
