"""A webhook: outcomes in batches, signed, again where that helps, and never in the way of the campaign."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, Decision, InDoubt, OutcomeStore, RowState
from asyncsmtp.bulk.running import webhook as hooks
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.bulk.running.webhook import SIGNATURE_HEADER, Webhook, open_webhook
from asyncsmtp.errors import InvalidArgument, LedgerError, MissingDependency
from tests.bulk.ledger.ledger_conformance import Home
from tests.bulk.ledger.ledgers import accepted, deferred, readers, states
from tests.bulk.ledger.postgres.homes import Cluster
from tests.bulk.ledger.sqlite.test_ledger import Folder
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


@pytest.mark.slow
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
    [
        "",
        "ftp://example.org/",
        "https://",
        "https://[bad/",
        "https://example.org:99999/",
        "example.org",
        "\x1b[2J",
        "https://loc\u00adalhost/",
    ],
)
async def test_an_invalid_url_is_refused(url: str) -> None:
    """FT-06: among others a host that would become another one."""
    with pytest.raises(InvalidArgument, match="is not a URL for a webhook"):
        async with open_webhook(url):
            pass


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[http\]"):
        async with open_webhook("https://example.org/"):
            pass


# Outcomes that the ledger keeps until they were posted.


async def test_what_a_killed_run_did_not_post_the_next_one_does(tmp_path: Path) -> None:
    """FT-67: outcomes that were settled, in a ledger as SIGKILL leaves it, are posted before anything else."""
    before = Folder(tmp_path)

    async def never(body: bytes, headers: dict[str, str]) -> int:
        await asyncio.Event().wait()
        return 200

    async with before.open() as ledger:
        await ledger.load(readers(300))
        async with Webhook(never, ledger=ledger) as hook:
            for claim in await ledger.claim(299):
                await ledger.mark(claim)
                ledger.settle(accepted(claim))
                hook.watch(claim, accepted(claim))
            await ledger.flush()
            before.crash()
            hook._ending.set()
            assert hook._task is not None
            hook._task.cancel()
    async with before.open() as ledger, server(200) as it:
        assert await ledger.count_outcomes() == 299
        async with open_webhook(it.url, ledger=ledger) as hook:
            pass
        assert {one["row"] for one in it.outcomes} == set(range(1, 300))
        assert {one["state"] for one in it.outcomes} == {"accepted"}
        assert (hook.delivered, hook.lost, await ledger.count_outcomes()) == (299, 0, 0)
        async with open_webhook(it.url, ledger=ledger):
            pass
        assert len(it.outcomes) == 299  # once is enough


async def test_what_a_server_refused_is_posted_by_the_next_run(tmp_path: Path) -> None:
    """FT-67: a server that was down costs no outcome, and in this run each is given up once."""
    async with server(503) as it, campaign(tmp_path, 1100) as ledger:
        async with open_webhook(it.url, ledger=ledger) as hook:
            hook._delays = ()
            await Run(Plain(), ledger, Saying(YES), watch=hook.watch).run()
        assert (hook.delivered, hook.lost) == (0, 1100)
        assert len({line for _, body in it.requests for line in body.splitlines()}) == 1100
        assert len(it.outcomes) == 1100
        it.statuses = [200]
        async with open_webhook(it.url, ledger=ledger) as hook:
            pass
        assert (hook.delivered, hook.lost) == (1100, 0)


async def test_an_outcome_is_kept_in_the_transaction_of_its_row(tmp_path: Path) -> None:
    """FT-67: whatever is settled in the ledger is known to the webhook, and nothing else is."""
    home = Folder(tmp_path)
    async with home.open() as ledger:
        await ledger.load(readers(50))
        ledger.keep_outcomes(hooks.describe_outcome)
        claims = await ledger.claim(50)
        for claim in claims[:40]:
            await ledger.mark(claim)
        for claim in claims[:20]:
            ledger.settle(accepted(claim))
        ledger.release(claims[30])
        ledger.settle(deferred(claims[45]))
        await ledger.mark(claims[46])
        home.crash()
    async with home.open() as ledger:
        kept = [json.loads(line) for _, line in await ledger.read_outcomes()]
        settled = {row for row, state in (await states(ledger)).items() if state in (2, 3)}
        assert {one["row"] for one in kept} == settled == {*range(1, 21), 46}
        assert [one["state"] for one in kept if one["row"] == 46] == ["deferred"]


async def test_each_attempt_is_an_outcome_of_its_own(tmp_path: Path) -> None:
    """FT-67: a row that was deferred and then accepted was two things, in that order."""
    home = Folder(tmp_path)
    async with home.open() as ledger:
        await ledger.load(readers(1))
        ledger.keep_outcomes(hooks.describe_outcome)
        (claim,) = await ledger.claim(1)
        ledger.settle(deferred(claim, datetime.fromtimestamp(home.now / 1e6, UTC)))
        await ledger.flush()
        home.now += 1
        (claim,) = await ledger.claim(1)
        await ledger.mark(claim)
        ledger.settle(accepted(claim))
        kept = [json.loads(line) for _, line in await ledger.read_outcomes()]
    assert [(one["state"], one["attempt"]) for one in kept] == [("deferred", 1), ("accepted", 2)]
    assert len({one["id"] for one in kept}) == 2


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A ledger of either kind."""
    return Cluster(request.getfixturevalue("postgres")) if request.param == "postgres" else Folder(tmp_path)


async def kill_half_way(home: Home, number: int = 4) -> list[Claim]:
    """Leave rows whose content was being sent; return their claims."""
    async with home.open() as ledger:
        await ledger.load(readers(6))
        claims = (await ledger.claim(6))[:number]
        for claim in claims:
            await ledger.mark(claim)
        home.crash()
    return claims


@pytest.mark.parametrize("policy", list(InDoubt))
async def test_rows_that_recovery_finds_in_doubt_are_posted(home: Home, policy: InDoubt) -> None:
    """FT-67: once, with the attempt whose reply nobody has; also where they are sent again."""
    claims = await kill_half_way(home)
    async with home.open(in_doubt=policy) as ledger, server(200) as it:
        assert isinstance(ledger, OutcomeStore)
        assert await ledger.count_outcomes() == 0, "nothing, as long as nobody wants them"
        ledger.keep_outcomes(hooks.describe_outcome)
        assert await ledger.count_outcomes() == 4
        for _ in range(2):
            async with open_webhook(it.url, ledger=ledger):
                pass
        assert [(one["row"], one["state"], one["attempt"]) for one in it.outcomes] == [
            (claim.recipient.row, "in doubt", 1) for claim in claims
        ]
        assert [one["id"] for one in it.outcomes] == [f"{claim.message_id}/1" for claim in claims]
        assert {one["reply"] for one in it.outcomes} == {"the run ended before the relay answered"}
        assert await ledger.count_outcomes() == 0


async def test_rows_in_doubt_are_posted_after_any_number_of_kills(home: Home) -> None:
    """FT-67: a run that is killed before it posts them, and a command that only opens the ledger, cost nothing."""
    await kill_half_way(home, 2)
    async with home.open() as ledger:
        (claim, *_) = await ledger.claim(1)
        await ledger.mark(claim)
        home.crash()
    async with home.open() as ledger:
        pass
    async with home.open() as ledger, server(503, 200) as it:
        async with open_webhook(it.url, ledger=ledger) as hook:
            hook._delays = ()
        assert (hook.delivered, hook.lost) == (0, 3)
        async with open_webhook(it.url, ledger=ledger) as hook:
            pass
        assert (hook.delivered, hook.lost) == (3, 0)
        assert [one["row"] for one in it.outcomes] == [1, 2, 3] * 2


async def test_rows_that_were_decided_since_are_not_posted_as_in_doubt(home: Home) -> None:
    """FT-67: a person skipped one before any run with a webhook; no doubt is left."""
    await kill_half_way(home, 2)
    async with home.open() as ledger:
        assert await ledger.resolve(Decision.SKIP, [1]) == 1
    async with home.open() as ledger, server(200) as it:
        async with open_webhook(it.url, ledger=ledger):
            pass
        assert [one["row"] for one in it.outcomes] == [2]


async def test_without_a_webhook_nothing_is_kept(tmp_path: Path) -> None:
    """FT-67: a campaign without one pays nothing."""
    async with campaign(tmp_path, 20) as ledger:
        await Run(Plain(), ledger, Saying(YES)).run()
        assert await ledger.count_outcomes() == 0


async def test_a_ledger_that_fails_ends_the_webhook_too(tmp_path: Path) -> None:
    """FT-67: without an exception of its own; the run reports the ledger's."""
    async with server(200) as it, campaign(tmp_path, 20) as ledger, open_webhook(it.url, ledger=ledger) as hook:
        claims = await ledger.claim(2)
        await ledger.mark(claims[0])
        ledger.settle(accepted(claims[0]))
        (tmp_path / "news.ledger").unlink()
        with pytest.raises(LedgerError):
            await ledger.mark(claims[1])
    assert hook.delivered <= 1


async def test_the_id_of_a_repeated_outcome_is_the_same(tmp_path: Path) -> None:
    """FT-67: the server has it, and the process dies before the ledger knows."""
    home = Folder(tmp_path)
    got: list[bytes] = []

    async def post(body: bytes, headers: dict[str, str]) -> int:
        got.append(body)
        if len(got) == 1:
            home.crash()  # what the next process finds
        return 200

    async with home.open() as ledger:
        await ledger.load(readers(1))
        async with Webhook(post, ledger=ledger) as hook:
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
            hook.watch(claim, accepted(claim))
    async with home.open() as ledger, Webhook(post, ledger=ledger):
        pass
    assert len(got) == 2
    assert got[0] == got[1]


# Answers of the server.

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(serve: Serve) -> AsyncIterator[str]:
    """A server that reads a request and goes on as `serve` does; yields its URL."""
    tasks: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
        try:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        finally:
            for task in filter(None, tasks):
                task.cancel()
                await asyncio.wait({task})


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(3)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 600000000\r\n\r\n",
    ],
    ids=["gzip", "a terabyte", "br"],
)
async def test_an_answer_is_neither_kept_nor_decompressed(answer: bytes) -> None:
    """FT-58: the status is all that matters; what follows is read up to 64 KiB, then the connection is closed."""
    block = gzip.compress(bytes(10_000_000))
    block = b"%x\r\n%b\r\n" % (len(block), block) if b"chunked" in answer else block
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(answer)
        for _ in range(2000):
            writer.write(block)
            await writer.drain()
            sent += len(block)

    tracemalloc.start()
    try:
        async with asyncio.timeout(10), answering(serve) as url, open_webhook(url) as hook:
            assert await hook._post(b"{}\n", {}) == 200
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
    assert sent < 15_000_000


async def test_a_short_answer_leaves_the_connection_open() -> None:
    """FT-58: one connection for all requests."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n")

    async with answering(serve) as url, open_webhook(url) as hook:
        assert [await hook._post(b"{}\n", {}) for _ in range(3)] == [200] * 3
    assert connections == 1


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_an_answer_that_never_ends_has_a_status(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-58: one byte a moment, for ever: what was accepted is not posted again for that."""
    monkeypatch.setattr(hooks, "ANSWER_TIMEOUT", 0.1)
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(f"HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(10), answering(serve) as url, open_webhook(url) as hook:
        hook._delays = ()
        hook._waiting.append(("", "{}\n"))
        await hook._post_batch([*hook._waiting])
    assert (hook.delivered, hook.lost, requests) == (int(status == 200), int(status != 200), 1)
