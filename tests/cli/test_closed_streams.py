"""Standard input, output or error closed, as cron, systemd or `<&-` leave them: nothing is a bug for that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at

ADDRESSED = ("--from", "ada@example.org", "--to", "bob@example.com", "--subject", "Hi")


def closed(streams: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell that closes these streams."""
    line = ["bash", "-c", f'exec "$0" -m asyncsmtp "$@" {streams}', sys.executable, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("send", *ADDRESSED, "--text", "-"), "--text -: standard input is closed"),
        (("send", *ADDRESSED, "--html", "-"), "--html -: standard input is closed"),
        (("send", "--eml", "-"), "--eml -: standard input is closed"),
        (("bulk", "campaign.toml", "--recipients", "-", "--name", "x"), "there are no recipients on standard input"),
        (("bulk", "campaign.toml"), "and there is no terminal to ask at"),
        (("resolve", "campaign.toml", "--resend", "--state", "rejected"), "there is no ledger"),
    ],
)
def test_standard_input_closed(
    campaign: Path, words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-85: what would be read is not there, or nobody can be asked: one sentence, and nothing is sent."""
    monkeypatch.chdir(campaign.parent)
    with serving(ScriptedRelay()) as relay:
        url = () if words[0] == "resolve" else relay_at(relay)
        ended = closed("<&-", *words, *url)
    assert (ended.returncode, sentence in ended.stderr) == (2, True), ended.stderr
    assert relay.received == []


@pytest.mark.parametrize("streams", ["<&-", "<&- >&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
@pytest.mark.slow
def test_a_campaign_is_sent_without_streams(campaign: Path, streams: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-85: from cron or a service; the ledger has what nobody reads."""
    monkeypatch.chdir(campaign.parent)
    with serving(ScriptedRelay()) as relay:
        ended = closed(streams, "bulk", campaign, *relay_at(relay), "--yes")
    assert (ended.returncode, len(relay.received)) == (0, 3), ended.stderr
    rows = [json.loads(line) for line in closed("<&-", "results", campaign, "--json").stdout.splitlines()]
    assert [row["state"] for row in rows] == ["accepted"] * 3
