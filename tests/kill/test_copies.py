"""SIGKILL while copies are sent: each of Cc and Bcc has an outcome, its own, and one copy.

The long form: `ASYNCSMTP_COPY_KILLS=100 pytest tests/kill/test_copies.py`.
"""

from __future__ import annotations

import os
import random
from itertools import count
from pathlib import Path

import pytest

from tests.interop.postgres import missing, running
from tests.interop.requiring import required
from tests.kill.judging import PAUSE, SESSIONS, copies, judge, torment
from tests.kill.processes import Campaign, oracle

KILLS = int(os.environ.get("ASYNCSMTP_COPY_KILLS", "4"))
ROWS = 120  # three recipients each

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240 + 10 * KILLS)]


def test_no_copy_is_lost_or_sent_twice(tmp_path: Path) -> None:
    """BL-01: a doubt is held, of one recipient; at most one a session and kill."""
    chance, kills, campaigns = random.Random(14), 0, count()
    while kills < KILLS:
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE) as server:
            campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS, copies=True)
            kills += torment(campaign, server, chance, KILLS - kills)
            assert campaign.finish() == 1, campaign.complaints  # some are rejected, some in doubt
            judge(campaign, server)
            assert set(copies(server).values()) == {1}


def test_a_lost_reply_to_a_copy_is_a_doubt_of_its_own(tmp_path: Path) -> None:
    """BL-05: with every thirtieth reply lost, and the process killed as well."""
    with oracle(tmp_path / "0", "--pause", PAUSE, "--lose", "30") as server:
        campaign = Campaign(tmp_path / "campaign", ROWS, server.port, sessions=SESSIONS, copies=True)
        torment(campaign, server, random.Random(15), 2, at_most=None)
        assert campaign.finish() == 1, campaign.complaints
        judge(campaign, server)
        assert set(copies(server).values()) == {1}
        assert campaign.counts()["in doubt"] > 0


def test_a_shared_ledger_keeps_copies_apart_as_well(tmp_path: Path) -> None:
    """BL-19: the same, with the ledger in a database."""
    required(missing())
    with running() as postgres, oracle(tmp_path / "0", "--pause", PAUSE) as server:
        folder = tmp_path / "campaign"
        campaign = Campaign(folder, ROWS, server.port, sessions=SESSIONS, ledger=postgres.url, copies=True)
        torment(campaign, server, random.Random(16), 2)
        assert campaign.finish() == 1, campaign.complaints
        judge(campaign, server)
        assert set(copies(server).values()) == {1}
