"""Values beyond what anybody means, ledgers that somebody edited, a machine with nothing left: one sentence, no bug."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config_types import check_moment
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("smtp://%00:25?security=none", 69),
        ("smtp://a%00b.example:25?security=none", 69),
        ("smtp://x%ff:25", 2),
        ("smtp://\udcff:25", 2),
        ("smtp://[::%00]:25?security=none", 69),
        ("smtp://h:99999999999999999999", 2),
        (f"smtp://h:{'9' * 5000}", 2),
        (f"smtp://{'a' * 70}:25?security=none", 69),
        ("smtp://h:25?source-address=%00", 2),
        ("smtp://h:25?ca-file=%00", 2),
        ("smtp://h:25?client-cert=%00", 2),
        ("smtp://h.invalid:25?security=none&proxy=socks5://%00:1080", 69),
        ("lmtp+unix:///tmp/%00", 2),
        ("lmtp+unix:///tmp/\udcff", 69),
        ("lmtp+unix:///tmp/%ff", 69),
        (f"lmtp+unix:///{'a' * 300}", 2),
    ],
)
def test_a_relay_that_nothing_can_be(command: Command, url: str, code: int) -> None:
    """FT-62: the URL is refused, or nothing answers there."""
    ended = command("check", "--relay", url)
    assert (ended.code, bool(ended.sentence)) == (code, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"x = {'[' * 5000}{']' * 5000}", "is nested too deeply"),
        (f"x = {'{a=' * 3000}1{'}' * 3000}", "is nested too deeply"),
        (f"x = {'9' * 5000}", "has a number that is too long"),
        (f"[limits]\nconcurrency = {'9' * 50}", "must be a whole number from 1 to 10000"),
        ("[relay]\nsessions = 1e999", "must be a whole number"),
        ("[limits]\nstart_at = 9999-12-31T23:59:59-12:00", "must be a time from the year 1971 to 9998"),
        ("[limits]\nstart_at = 0001-01-01T00:00:00", "must be a time from the year 1971 to 9998"),
        ("[limits]\nspread_until = 9999-12-31T23:59:59Z", "must be a time from the year 1971 to 9998"),
        (f'[limits]\nrate = "{"9" * 5000}/s"', "is not a valid rate"),
        (f'[retry]\nfor = "{"9" * 5000}d"', "must be a span of time"),
    ],
    ids=lambda text: text[:30],
)
def test_a_campaign_file_that_nobody_wrote(command: Command, campaign: Path, text: str, sentence: str) -> None:
    """FT-62: what TOML allows, and no campaign means."""
    campaign.write_text(f"{campaign.read_text('utf-8')}{text}\n", encoding="utf-8")
    ended = command("check", campaign)
    assert (ended.code, sentence in ended.sentence) == (2, True), ended.err


def test_a_time_that_every_zone_can_show() -> None:
    """FT-62: the first and the last one."""
    for text in ("1971-01-02T00:00:00+14:00", "9998-12-30T23:59:59-12:00"):
        assert check_moment(text, Path()).utcoffset() is not None


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("(" * 5000 + "1" + ")" * 5000, "nested too deeply"),
        ("not " * 5000 + "name", "nested too deeply"),
        ("name" + " and name" * 2000, "nested too deeply"),
        ("(1 + " * 300 + "1" + ")" * 300, "nested too deeply"),
        ("name[" * 1000, "nested too deeply"),
        (f"name == {'9' * 5000}", "a number that is too long"),
    ],
    ids=lambda text: text[:12],
)
def test_a_condition_and_a_template_without_end(
    command: Command, campaign: Path, expression: str, sentence: str
) -> None:
    """FT-62: neither the parser nor the compiler of Jinja2, or of Python, gives up in our name."""
    ended = command("bulk", campaign, "--dry-run", "--where", expression)
    assert (ended.code, sentence in ended.sentence) == (2, True), ended.err
    (campaign.parent / "message.txt").write_text(f"Hello {{{{ {expression} }}}}\n", encoding="utf-8")
    ended = command("check", campaign)
    assert (ended.code, "message.txt" in ended.sentence) == (2, True), ended.err


EDITS = [
    "UPDATE delivery SET next_us = 9223372036854775807, state = 0",
    "UPDATE delivery SET next_us = 253402300799999999, state = 0",
    "UPDATE delivery SET first_us = 9223372036854775807",
    "UPDATE delivery SET first_us = -9223372036854775807, state = 0",
    "UPDATE delivery SET updated_us = 'yesterday'",
    "UPDATE delivery SET attempts = 'many', state = 0, next_us = NULL",
    "UPDATE delivery SET code = 'no'",
    "UPDATE campaign SET created_us = 9223372036854775807",
    "UPDATE campaign SET created_us = 'then'",
    "UPDATE campaign SET config = '{'",
    "UPDATE recipient SET vars = '['",
    "UPDATE recipient SET vars = '[1]'",
    "UPDATE recipient SET address = 'nobody', vars = '{}'",
]


@pytest.mark.parametrize("edit", EDITS)
def test_a_ledger_that_somebody_edited(command: Command, campaign: Path, edit: str) -> None:
    """FT-62: times at the end of the calendar, words in the place of numbers: the ledger is named, not Python."""
    with serving(ScriptedRelay({Stage.RCPT: "451 4.7.1 later"})) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--concurrency", 1).code == 75
        with closing(sqlite3.connect(campaign.parent / "news.ledger")) as database:
            database.execute(edit)
            database.commit()
        for words in (
            ("status", campaign),
            ("results", campaign, "--json"),
            ("results", campaign, "--failed"),
            ("resolve", campaign, "--state", "deferred"),
            ("resolve", campaign, "--state", "deferred", "--row", "9" * 30),
            ("bulk", campaign, *relay_at(relay), "--yes"),
        ):
            ended = command(*words)
            assert ended.code in (0, 1, 2, 74, 75), f"{words}: {ended.err}"


LIMITED = """
import resource, sys
from asyncsmtp.cli.main import main
{before}
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("files", [8, 12, 16, 20, 24])
def test_few_descriptors(campaign: Path, files: int) -> None:
    """FT-62: whatever is opened last, the sentence says what there are too many of, or all is sent with fewer."""
    before = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))"
    with serving(ScriptedRelay()) as relay:
        words = ["bulk", str(campaign), *relay_at(relay), "--yes"]
        program = [sys.executable, "-c", LIMITED.format(before=before), *words]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ended.stderr
    assert ended.returncode in (0, 69, 74, 75), ended.stderr


def test_no_memory(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-62: it is nobody's bug; run again with less."""

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("asyncsmtp.mail.templates.template.Composer.compose", refuse)
    for words in (("check", campaign), ("bulk", campaign, "--dry-run"), ("bulk", campaign, "--sandbox")):
        ended = command(*words)
        assert (ended.code, ended.sentence) == (75, "there is not enough memory")
        assert "--sessions" in ended.err
