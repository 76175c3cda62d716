"""`report`: the file, its place, and that its numbers are those of `status` and `results`."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import webbrowser
from collections import Counter
from pathlib import Path

import pytest

from asyncsmtp.cli.commands import report
from asyncsmtp.cli.main import main
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import refusing, relay_at
from tests.cli.test_hints import hints


def test_it_is_written_beside_the_ledger(command: Command, campaign: Path) -> None:
    """The path is printed; a second report replaces the first."""
    command("bulk", campaign, "--sandbox")
    for _ in range(2):
        ended = command("report", campaign, "--sandbox")
        assert (ended.code, ended.out) == (0, f"{campaign.parent / 'news.sandbox.report.html'}\n")
    html = (campaign.parent / "news.sandbox.report.html").read_text("utf-8")
    assert "3 recipients" in html
    assert "rehearsal in the sandbox" in html
    assert not [path for path in campaign.parent.iterdir() if path.name.startswith(".news")]


def test_its_numbers_are_those_of_status_and_results(command: Command, campaign: Path) -> None:
    """With recipients accepted, refused for two reasons, deferred, suppressed and doubled."""
    people = [*(f"ok{n}@example.org" for n in range(4)), "no1@example.net", "no2@example.net", "full@example.net"]
    people += ["later@example.com", "gone@example.com", "ok0@example.org"]
    (campaign.parent / "people.csv").write_text("email,name\n" + "".join(f"{each},N\n" for each in people), "utf-8")
    command("suppress", "gone.db", "gone@example.com")
    campaign.write_text(campaign.read_text("utf-8") + 'suppression = "gone.db"\n', "utf-8")
    script = refusing(
        no1="550 5.1.1 no such user",
        no2="550 5.1.1 no such user",
        full="550 5.2.2 mailbox full",
        later="450 4.2.0 greylisted",
    )
    with serving(ScriptedRelay(script)) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes")
    counts = json.loads(command("status", campaign, "--json").out)
    rows = [*csv.DictReader(io.StringIO(command("results", campaign).out))]
    assert command("report", campaign, "-o", "r.html").code == 0
    html = (campaign.parent / "r.html").read_text("utf-8")
    shown = {state: int(n) for state, n in re.findall(r"<dt>([^<]+)</dt><dd>(\d+)</dd>", html)}
    assert shown == {state.replace("pending", "still to send"): n for state, n in counts.items() if n}
    assert shown == Counter(row["state"] for row in rows)
    domains = Counter(row["email"].partition("@")[2] for row in rows)
    for domain, number in domains.items():
        (cells,) = re.findall(rf'<th scope="row">{domain}</th>(.*)</tr>', html)
        assert sum(map(int, re.findall(r'"number">(\d+)<', cells))) == number
    refused = re.findall(r'<tr><td class="number">(\d+)</td><td>(\w+)</td><td>([^<]*)</td>', html)
    assert ("2", "rejected", "550 5.1.1") in refused
    assert ("1", "rejected", "550 5.2.2") in refused
    assert sum(int(n) for n, *_ in refused) == sum(row["state"] != "accepted" for row in rows)


def test_a_file_that_is_no_report_is_kept(command: Command, campaign: Path) -> None:
    """A template that is called like that, say, or a folder."""
    command("bulk", campaign, "--sandbox")
    mine = campaign.parent / "mine.html"
    mine.write_text("<p>mine</p>", "utf-8")
    for path in (mine, campaign.parent):
        ended = command("report", campaign, "--sandbox", "--output", path)
        assert ended.code == 2
    ended = command("report", campaign, "--sandbox", "--output", mine)
    assert ended.sentence == f"{mine} is there, and is not a report"
    assert mine.read_text("utf-8") == "<p>mine</p>"


def test_a_file_that_cannot_be_written(command: Command, campaign: Path) -> None:
    command("bulk", campaign, "--sandbox")
    ended = command("report", campaign, "--sandbox", "--output", campaign.parent / "nowhere" / "r.html")
    assert ended.code == 2
    assert "r.html cannot be written: No such file or directory" in ended.sentence


def test_a_campaign_that_has_not_begun(command: Command, campaign: Path) -> None:
    """As `status` and `results`: one sentence."""
    ended = command("report", campaign)
    assert ended.code in (2, 74)
    assert "there is no ledger" in ended.sentence
    assert not [*campaign.parent.glob("*.html")]


def test_it_opens_in_a_browser_that_has_windows(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that would take the terminal is not started; then the address of the file is printed."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    command("bulk", campaign, "--sandbox")
    address = (campaign.parent / "news.sandbox.report.html").as_uri()
    ended = command("report", campaign, "--sandbox", "--open")
    assert (ended.code, opened) == (0, [])
    assert address in ended.err
    monkeypatch.setenv("DISPLAY", ":0")
    assert command("report", campaign, "--sandbox", "--open").err == ""
    assert opened == [address]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert address in command("report", campaign, "--sandbox", "--open").err


def test_live_until_everyone_has_an_outcome(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written again and again, to be read again by the browser; the last one is not."""
    command("bulk", campaign, "--sandbox", "--limit", "1")
    path = campaign.parent / "news.sandbox.report.html"
    seen: list[bool] = []

    def sleep(seconds: float) -> None:
        seen.append('http-equiv="refresh"' in path.read_text("utf-8"))
        assert seconds == 2
        if len(seen) == 2:
            assert main(["bulk", str(campaign), "--sandbox"]) == 0

    monkeypatch.setattr(report.time, "sleep", sleep)
    assert command("report", campaign, "--sandbox", "--live").code == 0
    assert seen == [True, True]
    assert 'http-equiv="refresh"' not in path.read_text("utf-8")


def test_ctrl_c_ends_it(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left then is a report that no browser reads again."""
    command("bulk", campaign, "--sandbox", "--limit", "1")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", interrupt)
    assert command("report", campaign, "--sandbox", "--live").code == 0
    html = (campaign.parent / "news.sandbox.report.html").read_text("utf-8")
    assert 'http-equiv="refresh"' not in html
    assert "asyncsmtp bulk" in html


def test_the_commands_in_it_work_as_printed(command: Command, campaign: Path) -> None:
    """They are those of `status`."""
    command("bulk", campaign, "--sandbox", "--limit", "1")
    command("report", campaign, "--sandbox")
    html = (campaign.parent / "news.sandbox.report.html").read_text("utf-8")
    commands = re.findall(r'<code class="command">([^<]+)</code>', html)
    assert commands == hints(command("status", campaign, "--sandbox"))
    assert [command(*shlex.split(each)[1:]).code for each in commands] == [0]
