"""`report`: the file, its place, and that its numbers are those of `status` and `results`."""

from __future__ import annotations

import json
import re
import shlex
import webbrowser
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.cli.commands import report
from asyncsmtp.cli.main import main
from asyncsmtp.testing import NO_REPLY, Fin, ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import refusing, relay_at
from tests.cli.test_hints import hints
from tests.interop.postgres import Postgres
from tests.web.test_report_numbers import Sections, counted


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


def test_it_is_written_to_stdout(command: Command, campaign: Path) -> None:
    """It was a file with the name `-`; what needs a file is refused."""
    command("bulk", campaign, "--sandbox")
    ended = command("report", campaign, "--sandbox", "-o", "-")
    assert (ended.code, ended.out.startswith("<!doctype html>"), ended.out.endswith("</html>\n")) == (0, True, True)
    for option in ("--live", "--open"):
        refused = command("report", campaign, "--sandbox", "-o", "-", option)
        assert (refused.code, refused.sentence) == (2, f"{option} needs a file")
    assert not Path("-").exists()


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, campaign: Path) -> Path:
    """The campaign, with its ledger in a file or in a database."""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        campaign.write_text(f'{campaign.read_text("utf-8")}ledger = "{server.url}"\n', "utf-8")
    return campaign


def check_numbers(command: Command, campaign: Path) -> dict[str, int]:
    """Compare the report with `status` and `results`; return the number of rows in each state."""
    counts = json.loads(command("status", campaign, "--json").out)
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    assert command("report", campaign, "-o", "r.html").code == 0
    html = (campaign.parent / "r.html").read_text("utf-8")
    page = Sections(html)
    shown = {state.replace("still to send", "pending"): n for state, n in page.tiles.items() if n}
    assert shown == {state: n for state, n in counts.items() if n} == Counter(row["state"] for row in rows)

    def split(key: Callable[[Any], str]) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        for row in filter(key, rows):
            found.setdefault(key(row), Counter())[row["state"]] += 1
        return found

    by_relay, by_attempts = split(lambda row: row["host"]), split(lambda row: str(row["attempts"] or ""))
    assert counted(page["domains"].rows) == split(lambda row: row["email"].partition("@")[2])
    assert counted(page["relays"].rows) == (by_relay if len(by_relay) > 1 else {})
    assert counted(page["attempts"].rows) == (by_attempts if len(by_attempts) > 1 else {})
    tried = Counter(row["state"] for row in rows if row["attempts"] and row["state"] != "pending")
    assert sum(counted(page["time"].rows).values(), Counter()) == tried
    refused = Counter[tuple[str, str]]()
    for number, state, code, *_ in page["refusals"].rows[1:]:
        refused[state, code] += int(number)
    assert refused == Counter(
        (row["state"], f"{row['code'] or ''} {row['status'] or ''}".strip())
        for row in rows
        if row["state"] not in ("accepted", "pending")
    )
    doubts = {(row["row"], f"<{row['message_id']}>") for row in rows if row["state"] == "in doubt"}
    assert {(int(row), words) for row, _, words, _ in page["doubt"].rows[1:]} == doubts
    relays = {row[0].removeprefix("all replies of ") for row in page["replies"].rows if "all replies of" in row[0]}
    assert relays >= {row["host"] for row in rows if row["state"] == "accepted"}
    return {state: n for state, n in counts.items() if n}


def test_its_numbers_are_those_of_status_and_results(command: Command, anywhere: Path) -> None:
    """With recipients accepted, refused for two reasons, deferred, suppressed and doubled."""
    people = [*(f"ok{n}@example.org" for n in range(4)), "no1@example.net", "no2@example.net", "full@example.net"]
    people += ["later@example.com", "gone@example.com", "ok0@example.org"]
    (anywhere.parent / "people.csv").write_text("email,name\n" + "".join(f"{each},N\n" for each in people), "utf-8")
    command("suppress", "gone.db", "gone@example.com")
    anywhere.write_text(anywhere.read_text("utf-8") + 'suppression = "gone.db"\n', "utf-8")
    script = refusing(
        no1="550 5.1.1 no such user",
        no2="550 5.1.1 no such user",
        full="550 5.2.2 mailbox full",
        later="450 4.2.0 greylisted",
    )
    with serving(ScriptedRelay(script)) as relay:
        command("bulk", anywhere, *relay_at(relay), "--yes")
    assert check_numbers(command, anywhere) == {"accepted": 4, "deferred": 1, "rejected": 3, "suppressed": 2}
    html = (anywhere.parent / "r.html").read_text("utf-8")
    refused = re.findall(r'<tr><td class="number">(\d+)</td><td>(\w+)</td><td>([^<]*)</td>', html)
    assert ("2", "rejected", "550 5.1.1") in refused
    assert ("1", "rejected", "550 5.2.2") in refused
    assert sum(int(n) for n, *_ in refused) == 6


def test_its_numbers_after_retries_doubts_and_decisions(command: Command, anywhere: Path) -> None:
    """Two relays take turns, with copies; who was deferred is accepted later, and of two doubts one is sent again."""
    people = [*(f"ok{n}@example.org" for n in range(12)), "no1@example.net", "later1@example.com", "later2@example.com"]
    (anywhere.parent / "people.csv").write_text(
        "email,name,boss\n"
        + "".join(f"{each},N,{'boss@x.example' if n % 5 == 0 else ''}\n" for n, each in enumerate(people)),
        "utf-8",
    )
    text = anywhere.read_text("utf-8") + 'cc = "{{ boss }}"\n[retry]\ndelay = "1s"\n'
    later = {"later1": "451 4.3.0 come back", "later2": "451 4.3.0 come back", "no1": "550 5.1.1 no such user"}
    for round_ in range(2):
        scripts = [dict(refusing(**({} if round_ else later))) for _ in range(2)]
        if not round_:
            for script in scripts:
                script[Stage.END_OF_DATA] = {3: (NO_REPLY, Fin())}
        with serving(ScriptedRelay(scripts[0])) as one, serving(ScriptedRelay(scripts[1])) as two:
            tables = "".join(
                f'[[relays]]\nurl = "smtp://127.0.0.1:{each.port}?security=none"\nsessions = 1\n' for each in (one, two)
            )
            anywhere.write_text(text + tables, "utf-8")
            assert command("bulk", anywhere, "--yes", *(["--wait"] if round_ else [])).code in (1, 75)
        counts = check_numbers(command, anywhere)
        if not round_:
            assert counts["in doubt"] == 2
            doubts = [json.loads(each) for each in command("results", anywhere, "--json").out.splitlines()]
            (row, *_) = [each["row"] for each in doubts if each["state"] == "in doubt"]
            assert command("resolve", anywhere, "--resend", "--row", row, "--yes").code == 0
            check_numbers(command, anywhere)
    assert counts["in doubt"] == 1
    assert sum(counts.values()) == 15 + 3


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
