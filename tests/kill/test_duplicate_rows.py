"""SIGKILL in campaigns in which a mailbox has several rows: each message once, each row with its outcome."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.kill.judging import PAUSE, SESSIONS, torment
from tests.kill.processes import Campaign, kill, oracle

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240)]

KILLS = 4
MAILBOXES = 120
ROWS = 3 * MAILBOXES  # three rows of each mailbox, far apart
GROUP = "Dear {{ name }},\n{% for each in rows %}{{ each.name }};{% endfor %}\nthis is\nfor {{ email }}\n"


def make(folder: Path, port: int, duplicates: str) -> Campaign:
    """A campaign in which each tenth mailbox is rejected; equal rows are among them."""
    campaign = Campaign(folder, MAILBOXES, port, sessions=SESSIONS)
    campaign.recipients = [campaign.recipients[row % MAILBOXES] for row in range(ROWS)]
    names = [f"Name {row if row % 4 else row % MAILBOXES}" for row in range(ROWS)]
    lines = [f"{address},{name}" for address, name in zip(campaign.recipients, names, strict=True)]
    (folder / "people.csv").write_text("\n".join(["email,name", *lines]) + "\n")
    file = folder / "campaign.toml"
    file.write_text(file.read_text().replace("[campaign]", f'[campaign]\nduplicates = "{duplicates}"'))
    if duplicates == "group":
        (folder / "message.txt").write_text(GROUP)
    return campaign


@pytest.mark.parametrize("duplicates", ["send", "group"])
def test_each_message_is_sent_once_and_each_row_has_its_outcome(tmp_path: Path, duplicates: str) -> None:
    """BL-01: by Message-ID, since a mailbox may get several; the server's word is the row's own."""
    with oracle(tmp_path / "0", "--pause", PAUSE) as server:
        campaign = make(tmp_path / "campaign", server.port, duplicates)
        torment(campaign, server, random.Random(f"{duplicates} 14"), KILLS)
        assert campaign.finish() == 1  # some are rejected, some in doubt
        verdicts = server.verdicts()
        accepted = Counter(verdict.message_id for verdict in verdicts if verdict.word == "accepted")
        assert set(accepted.values()) == {1}
        assert {verdict.word for verdict in verdicts} <= {"accepted", "rejected"}
        results = campaign.results()
    assert [entry["email"] for entry in results] == campaign.recipients
    messages = {str(entry["message_id"]) for entry in results}
    assert len(messages) == (ROWS if duplicates == "send" else MAILBOXES)
    words = {"accepted": accepted.keys(), "rejected": messages - accepted.keys(), "in doubt": messages}
    for entry in results:
        assert str(entry["message_id"]) in words[str(entry["state"])], entry
    tokens = {verdict.token for verdict in verdicts}
    answered = [entry for entry in results if entry["state"] != "in doubt"]
    assert all(any(word in tokens for word in str(entry["reply"]).split()) for entry in answered)
    assert accepted.keys() <= messages


def test_a_file_that_is_added_while_it_is_killed_is_sent_once(tmp_path: Path) -> None:
    """The same command again and again: `--add` with `send` adds the rows once."""
    with oracle(tmp_path / "0", "--pause", PAUSE) as server:
        campaign = make(tmp_path / "campaign", server.port, "send")
        assert campaign.finish() == 1
        before = len(server.verdicts())
        more = tmp_path / "campaign" / "more.csv"
        more.write_text("email,name\n" + "".join(f"somebody{row % 30}@example.com,More {row}\n" for row in range(90)))
        chance = random.Random(15)
        for _ in range(KILLS):
            process = campaign.start(options=("--add", str(more)))
            server.wait_for_more(chance.randrange(1, 2000), while_alive=process)
            kill(process)
        assert campaign.start(options=("--add", str(more))).wait(timeout=60) in (0, 1)
        assert before <= len(server.verdicts()) <= before + 90
        accepted = Counter(verdict.message_id for verdict in server.verdicts() if verdict.word == "accepted")
        assert set(accepted.values()) == {1}
        states = Counter(str(entry["state"]) for entry in campaign.results()[ROWS:])
        assert states["accepted"] + states["in doubt"] + states["rejected"] == 90
        assert set(states) <= {"accepted", "in doubt", "rejected", "suppressed"}
