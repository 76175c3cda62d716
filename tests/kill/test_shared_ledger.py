"""SIGKILL to the database, and to the command that has its ledger there.

The long form: `ASYNCSMTP_POSTGRES_KILLS=100 pytest tests/kill/test_shared_ledger.py`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.interop.postgres import Postgres, missing, running
from tests.interop.requiring import required
from tests.kill.judging import LINE, PAUSE, ROWS, SESSIONS, copies, judge, torment
from tests.kill.processes import Campaign, kill, oracle

ROUNDS = int(os.environ.get("ASYNCSMTP_POSTGRES_KILLS", "5"))
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120 + 10 * ROUNDS)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    required(missing())
    with running() as server:
        yield server


def test_a_database_that_dies_loses_no_outcome(tmp_path: Path, postgres: Postgres) -> None:
    """BL-18: whatever was in its hands as it died; the command lives, keeps what it heard, and leaves no doubt."""
    chance, kills, campaigns = random.Random(18), 0, count()
    while kills < ROUNDS:
        postgres.clear()
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE) as server:
            campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS, ledger=postgres.url)
            process = campaign.start()
            try:
                while kills < ROUNDS:
                    server.wait_for_more(chance.randrange(1, 150 * LINE), while_alive=process)
                    time.sleep(chance.uniform(0.0, 0.01))
                    if process.poll() is not None:
                        break
                    postgres.kill(all_at_once=chance.random() < 0.5)
                    kills += 1
                    time.sleep(chance.uniform(0.0, 0.2))
                    postgres.start()
                assert process.wait(60) == 1, campaign.complaints  # some are rejected
            finally:
                kill(process)
            judge(campaign, server)  # every answer is on its row, by its token
            assert set(copies(server).values()) == {1}
            counts = campaign.counts()
            assert (counts["accepted"], counts["rejected"]) == (ROWS * 9 // 10, ROWS // 10)


def test_a_command_that_dies_leaves_one_doubt_a_session_at_most(tmp_path: Path, postgres: Postgres) -> None:
    """BL-01, BL-19: as with a file: its rows past the mark are in doubt for the next run, and nobody gets two."""
    chance, kills, campaigns = random.Random(19), 0, count()
    while kills < ROUNDS:
        postgres.clear()
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE) as server:
            campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS, ledger=postgres.url)
            kills += torment(campaign, server, chance, ROUNDS - kills)
            assert campaign.finish() == 1, campaign.complaints
            judge(campaign, server)
            assert set(copies(server).values()) == {1}


def test_of_three_that_start_at_once_one_sends(tmp_path: Path, postgres: Postgres) -> None:
    """BL-11: whoever comes second ends with 75, and knows who has the campaign."""
    postgres.clear()
    with oracle(tmp_path / "0", "--pause", "0.1") as server:
        campaign = Campaign(tmp_path / "campaign", 60, server.port, sessions=2, ledger=postgres.url)
        processes = [campaign.start() for _ in range(3)]
        try:
            codes = sorted(process.wait(60) for process in processes)
        finally:
            for process in processes:
                kill(process)
        assert codes == [1, 75, 75], campaign.complaints
        judge(campaign, server)
        assert set(copies(server).values()) == {1}
