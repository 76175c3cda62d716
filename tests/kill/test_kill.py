"""SIGKILL at random moments: nothing is lost, nothing is sent twice, and what is in doubt is few and listed."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pytest

from tests.kill.judging import PAUSE, ROWS, SESSIONS, copies, judge, torment
from tests.kill.processes import Campaign, oracle

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240)]

KILLS = 10  # for each seed; there are four


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
            assert set(copies(server).values()) == {1}


def test_a_lost_reply_is_a_doubt_as_well(tmp_path: Path) -> None:
    """BL-05: with every thirtieth reply lost on the wire, a doubt that is held is still never sent twice."""
    with oracle(tmp_path / "0", "--pause", PAUSE, "--lose", "30") as server:
        campaign = Campaign(tmp_path / "campaign", ROWS, server.port, sessions=SESSIONS)
        torment(campaign, server, random.Random(5), 4, at_most=None)
        assert campaign.finish() == 1
        judge(campaign, server)
        assert set(copies(server).values()) == {1}
        assert campaign.counts()["in doubt"] > 0


def test_resending_doubles_what_was_in_doubt_and_nothing_else(tmp_path: Path) -> None:
    """With `in_doubt = "resend"` every second copy is one that the ledger had counted as a doubt."""
    with oracle(tmp_path / "0", "--pause", PAUSE) as server:
        campaign = Campaign(tmp_path / "campaign", ROWS, server.port, sessions=SESSIONS, in_doubt="resend")
        torment(campaign, server, random.Random(6), 5, at_most=None)
        campaign.finish()
        judge(campaign, server)
        doubted = {entry["email"] for entry in campaign.results() if entry["doubts"]}
        assert {recipient for recipient, number in copies(server).items() if number > 1} <= doubted
        assert max(copies(server).values()) <= 2
