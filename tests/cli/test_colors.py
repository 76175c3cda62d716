"""The summary on a terminal: colors and a bar, where it has them; elsewhere the plain lines."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.run_stats import color_outcomes, draw_bar, format_counts
from tests.cli.ended import Command
from tests.cli.terminal import converse
from tests.cli.test_hints import hints

XTERM = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "100"}


def last_lines(printed: str) -> str:
    """Return what was printed from the summary on."""
    return printed[printed.rindex("news") :]


def test_a_terminal_shows_colors_and_a_bar(campaign: Path) -> None:
    """Three quarters of the rows are accepted, and three quarters of the bar are green."""
    (campaign.parent / "people.csv").write_text("email,name\na@x.org,A\nb@x.org,B\nc@x.org,C\nnobody,D\n", "utf-8")
    code, printed = converse(campaign.parent, ["bulk", "campaign.toml", "--sandbox"], [], XTERM)
    assert code == 1
    assert "\x1b[32m3 accepted\x1b[0m" in printed
    assert "\x1b[31m1 rejected\x1b[0m" in printed
    assert f"\x1b[32m{'█' * 36}\x1b[0m\x1b[31m{'█' * 12}\x1b[0m" in printed


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "unknown"}, {"TERM": ""}])
def test_no_colors_where_none_are_wanted(campaign: Path, variables: Mapping[str, str]) -> None:
    """https://no-color.org, and a terminal that has none: the same text, without a bar."""
    code, printed = converse(campaign.parent, ["bulk", "campaign.toml", "--sandbox"], [], {**XTERM, **variables})
    assert code == 0
    assert "in all 3 rows: 3 accepted" in printed
    assert not re.search(r"\x1b\[\d+m", last_lines(printed))
    assert "█" * 20 not in last_lines(printed)


def test_a_file_gets_plain_text(command: Command, campaign: Path) -> None:
    """As before; and with --log-file the line is in the file once, without a color."""
    ended = command("bulk", campaign, "--sandbox", "--log-file", "log.txt")
    assert "\x1b" not in ended.err
    assert "news: 3 accepted, in" in ended.err
    log = (campaign.parent / "log.txt").read_text("utf-8")
    assert log.count("in all 3 rows: 3 accepted") == 1


def test_the_end_of_a_run_names_the_report(command: Command, campaign: Path) -> None:
    """The command works as printed; where nothing was sent there is nothing new to look at."""
    ended = command("bulk", campaign, "--sandbox", "--limit", "2")
    (printed,) = [each for each in hints(ended) if each.startswith("asyncsmtp report ")]
    assert printed == f"asyncsmtp report {campaign} --sandbox"
    assert command(*shlex.split(printed)[1:]).out == f"{campaign.parent / 'news.sandbox.report.html'}\n"
    command("bulk", campaign, "--sandbox")
    (campaign.parent / "people.csv").write_text("email,name\n", "utf-8")
    assert "asyncsmtp report" not in command("status", campaign, "--sandbox").err


def test_quiet_names_no_report(command: Command, campaign: Path) -> None:
    """Everybody was accepted: --quiet prints nothing."""
    assert command("bulk", campaign, "--sandbox", "--quiet").err == ""


@pytest.mark.parametrize("seed", range(20))
def test_the_bar_has_the_shares(seed: int) -> None:
    """It is as long as there is room, and each state that occurs can be seen."""
    random = Random(seed)
    states = random.sample(list(RowState), random.randint(1, 7))
    counts = Counts({state: random.choice((1, 5, 1000, 10**6)) for state in states})
    columns = random.choice((20, 40, 80, 200))
    blank, *parts = draw_bar(counts, columns)
    assert blank == ("  ", "")
    width = min(48, columns - 3)
    assert sum(len(text) for text, _ in parts) == width
    assert all(text.strip("█") == "" and text for text, _ in parts)
    largest = max(parts, key=lambda part: len(part[0]))
    assert len(largest[0]) == pytest.approx(max(counts.values()) * width / counts.total, abs=len(states))


@pytest.mark.parametrize(("counts", "columns"), [(Counts(), 80), (Counts({RowState.ACCEPTED: 3}), 2), (Counts(), 0)])
def test_no_bar_without_rows_or_room(counts: Counts, columns: int) -> None:
    """No division by nothing, and no line that wraps."""
    assert list(draw_bar(counts, columns)) == []


def test_colored_parts_are_the_line() -> None:
    """Nothing is lost or added; the words of others have no color."""
    counts = Counts({RowState.ACCEPTED: 1234, RowState.IN_DOUBT: 2, RowState.PENDING: 7})
    line = f"  in all {format_counts(counts)}"
    parts = [*color_outcomes(line)]
    assert "".join(text for text, _ in parts) == line
    assert [text for text, color in parts if color] == ["7 pending", "1,234 accepted", "2 in doubt"]
    assert [*color_outcomes("news5 accepted: v1.2 rejected")] == [("news5 accepted: v1.2 rejected", "")]


def test_styled_text_is_harmless(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A campaign's name may hold what acts on a terminal, or what rich would read as markup."""
    monkeypatch.setattr(console, "has_colors", lambda: True)
    console.print_styled([("[red]x\x1b[2J", ""), (" 3 accepted", "green")])
    printed = capsys.readouterr().err
    assert "[red]x\\x1b[2J 3 accepted" in re.sub(r"\x1b\[[\d;]*m", "", printed)


def test_a_closed_stderr_has_no_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    """`2>&-`: it is no terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", None)
    assert not console.has_colors()
