"""`[campaign] webhook`: the command tells a server each outcome, and what an earlier run could not tell."""

from __future__ import annotations

import hmac
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import refusing, relay_at


class Hook(ThreadingHTTPServer):
    """A server that keeps what is posted, and answers with `status`; None: it never answers."""

    daemon_threads = True
    status: int | None = 204

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.posted: list[dict[str, object]] = []
        self.signed: list[bool] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/outcomes"


class Request(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:  # the name that the base class calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted += map(json.loads, body.splitlines())
        digest = hmac.digest(b"hush", body, "sha256").hex()
        self.server.signed.append(self.headers["X-Asyncsmtp-Signature"] == f"sha256={digest}")
        if self.server.status is None:
            time.sleep(60)
        else:
            self.send_response(self.server.status)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def hooking() -> Iterator[Hook]:
    with Hook() as hook:
        thread = threading.Thread(target=hook.serve_forever, daemon=True)
        thread.start()
        try:
            yield hook
        finally:
            hook.shutdown()
            thread.join()


def with_webhook(campaign: Path, hook: Hook) -> None:
    campaign.write_text(f'{campaign.read_text("utf-8")}webhook = "{hook.url}"\n', encoding="utf-8")


def test_bulk_posts_each_outcome(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-80: as the campaign file says, signed with the secret of the environment, and what each row came to."""
    monkeypatch.setenv("ASYNCSMTP_WEBHOOK_SECRET", "hush")
    with hooking() as hook, serving(ScriptedRelay(refusing(bob="550 5.1.1 nobody"))) as relay:
        with_webhook(campaign, hook)
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 1, ended.err
    found = {one["email"]: (one["state"], one["code"], one["row"]) for one in hook.posted}
    assert found == {
        "ann@example.org": ("accepted", 250, 1),
        "bob@example.org": ("rejected", 550, 2),
        "cid@example.org": ("accepted", 250, 3),
    }
    assert len(hook.posted) == 3
    assert all(hook.signed)


def test_an_option_names_the_webhook_too(command: Command, campaign: Path) -> None:
    """FT-80: `--webhook`, unsigned without a secret."""
    with hooking() as hook, serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--webhook", hook.url).code == 0
    assert len(hook.posted) == 3
    assert not any(hook.signed)


def test_what_the_server_refused_is_posted_by_the_same_command(command: Command, campaign: Path) -> None:
    """FT-67: also when no row is left to be sent."""
    with hooking() as hook, serving(ScriptedRelay()) as relay:
        with_webhook(campaign, hook)
        hook.status = 404
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
        assert ended.code == 0
        assert "the webhook did not take 3 outcomes: the ledger has them, and the next run posts them" in ended.err
        hook.status = 200
        hook.posted.clear()
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
        assert {one["row"] for one in hook.posted} == {1, 2, 3}
        hook.posted.clear()
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
        assert hook.posted == []
    assert len(relay.received) == 3


@pytest.mark.slow
def test_a_killed_run_is_told_by_the_next_one(command: Command, campaign: Path) -> None:
    """FT-67: SIGKILL after the rows were settled, while the server had not answered yet."""
    (campaign.parent / "people.csv").write_text(
        "email,name\n" + "".join(f"a{row}@example.org,A\n" for row in range(40)), encoding="utf-8"
    )
    with hooking() as hook, serving(ScriptedRelay({Stage.RCPT: "250 2.1.5 ok"})) as relay:
        with_webhook(campaign, hook)
        hook.status = None
        arguments = [str(word) for word in ("bulk", campaign, *relay_at(relay), "--yes")]
        with subprocess.Popen([sys.executable, "-m", "asyncsmtp", *arguments], stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 30
            while not hook.posted:  # so they are settled, and posted without an answer
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        hook.status = 200
        hook.posted.clear()
        command("bulk", campaign, *relay_at(relay), "--yes")
    with closing(sqlite3.connect(campaign.with_name("news.ledger"))) as ledger:
        settled = {row for (row,) in ledger.execute("SELECT seq FROM delivery WHERE state = 2")}
    assert settled
    assert {one["row"] for one in hook.posted if one["state"] == "accepted"} == settled


def test_a_row_that_recovery_finds_in_doubt_is_posted_once(command: Command, campaign: Path) -> None:
    """FT-67: its run was killed before the reply; also where no row is left to be sent."""
    with hooking() as hook, serving(ScriptedRelay()) as relay:
        with_webhook(campaign, hook)
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
        with closing(sqlite3.connect(campaign.with_name("news.ledger"), isolation_level=None)) as ledger:
            ledger.execute(f"UPDATE delivery SET state = {RowState.SENDING:d} WHERE seq = 2")
        hook.posted.clear()
        for _ in range(2):
            assert command("bulk", campaign, *relay_at(relay), "--yes").code != 0
        assert [(one["row"], one["state"], one["attempt"]) for one in hook.posted] == [(2, "in doubt", 1)]
    assert len(relay.received) == 3
