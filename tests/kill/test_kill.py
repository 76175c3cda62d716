"""SIGKILL at random moments: nothing is lost, nothing is sent twice, and what is in doubt is few and listed."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from tests.kill.processes import Campaign, OracleProcess, kill, oracle

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240)]

KILLS = 10  # for each seed; there are four
ROWS = 400
SESSIONS = 8
PAUSE = "0.01"  # seconds that the oracle thinks, on average, before it answers a content
LINE = 80  # octets of its log for one verdict, about


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_or_sent_twice(tmp_path: Path, seed: int) -> None:
    """BL-01: a doubt that is held is neither; at most one a session and kill."""
    chance, kills, campaigns = random.Random(seed), 0, count()
    while kills < KILLS:
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE) as server:
            campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS)
            kills += torment(campaign, server, chance, KILLS - kills)
            assert campaign.finish() == 1  # some are rejected, some in doubt
            judge(campaign, server)
            assert doubled(server) == set()


def test_a_lost_reply_is_a_doubt_as_well(tmp_path: Path) -> None:
    """BL-05: with every thirtieth reply lost on the wire, a doubt that is held is still never sent twice."""
    with oracle(tmp_path / "0", "--pause", PAUSE, "--lose", "30") as server:
        campaign = Campaign(tmp_path / "campaign", ROWS, server.port, sessions=SESSIONS)
        torment(campaign, server, random.Random(5), 4, at_most=None)
        assert campaign.finish() == 1
        judge(campaign, server)
        assert doubled(server) == set()
        assert campaign.counts()["in doubt"] > 0


def test_resending_doubles_what_was_in_doubt_and_nothing_else(tmp_path: Path) -> None:
    """With `in_doubt = "resend"` every second copy is one that the ledger had counted as a doubt."""
    with oracle(tmp_path / "0", "--pause", PAUSE) as server:
        campaign = Campaign(tmp_path / "campaign", ROWS, server.port, sessions=SESSIONS, in_doubt="resend")
        torment(campaign, server, random.Random(6), 5, at_most=None)
        campaign.finish()
        judge(campaign, server)
        doubted = {entry["email"] for entry in campaign.results() if entry["doubts"]}
        assert doubled(server) <= doubted
        assert max(Counter(v.recipient for v in server.verdicts() if v.word == "accepted").values()) <= 2


def torment(
    campaign: Campaign, server: OracleProcess, chance: random.Random, kills: int, at_most: int | None = SESSIONS
) -> int:
    """Run the command and kill it, again and again; return how many kills met it alive."""
    done, doubts = 0, 0
    while done < kills:
        process = campaign.start()
        if chance.random() < 0.25:  # anywhere: start-up, recovery, the very first octets
            time.sleep(chance.uniform(0.0, 1.0))
        else:  # while it sends
            server.wait_for_more(chance.randrange(1, 70 * LINE), while_alive=process)
            time.sleep(chance.uniform(0.0, 0.01))
        if not kill(process):
            return done
        done += 1
        if at_most is not None:
            counts = campaign.counts()
            now = counts.get("in doubt", 0) + counts.get("sending", 0)
            assert now - doubts <= at_most, f"kill {done}: {counts}"
            doubts = now
    return done


def judge(campaign: Campaign, server: OracleProcess) -> None:
    """Compare the ledger with what the server wrote down, row by row."""
    said: dict[str, list[tuple[str, str, str]]] = {}
    for word, message_id, recipient, token in server.verdicts():
        said.setdefault(recipient, []).append((word, message_id, token))
    results = campaign.results()
    assert [entry["email"] for entry in results] == campaign.recipients  # every row has an outcome
    for entry in results:
        verdicts = said.get(str(entry["email"]), [])
        words = {word for word, _, _ in verdicts}
        assert words <= {"accepted", "rejected"}, f"{entry}: {verdicts}"  # BL-07: nobody's letter to another
        if entry["state"] == "in doubt":
            assert words <= {"accepted"}, f"{entry}: {verdicts}"
            continue
        word, message_id, token = verdicts[-1]
        assert entry["state"] == word, f"{entry}: {verdicts}"
        assert token in str(entry["reply"]), f"{entry}: {verdicts}"  # BL-06: the reply is this row's own
        assert message_id in ("-", entry["message_id"])


def doubled(server: OracleProcess) -> set[str]:
    """Who got the message more than once."""
    copies = Counter(verdict.recipient for verdict in server.verdicts() if verdict.word == "accepted")
    return {recipient for recipient, count in copies.items() if count > 1}
