"""Each way to speak and each policy through many kills: `ASYNCSMTP_KILLS=200 pytest -n 2 tests/kill/test_modes.py`."""

from __future__ import annotations

import os
import random
from itertools import count
from pathlib import Path

import pytest

from asyncsmtp import Relay
from tests.kill.judging import PAUSE, ROWS, SESSIONS, copies, judge, torment
from tests.kill.processes import Campaign, oracle

KILLS = int(os.environ.get("ASYNCSMTP_KILLS", "6"))  # for each of the six modes; the long form is 200
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120 + 10 * KILLS)]

DOUBTS = {  # that one kill may add on one connection: `delivery.md`'s table, in the order of what is risked
    "lockstep": 1,
    "pipelined": 1,
    "streamed": Relay("localhost").window,
}


@pytest.mark.parametrize("dialogue", DOUBTS)
@pytest.mark.parametrize("in_doubt", ["hold", "resend"])
def test_nobody_is_missing_and_no_second_copy_is_silent(tmp_path: Path, in_doubt: str, dialogue: str) -> None:
    """BL-01: nothing lost; a second copy only of what was counted as a doubt, and none at all where doubts are held."""
    chance, kills, campaigns = random.Random(f"{in_doubt} {dialogue}"), 0, count()
    while kills < KILLS:
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE, "--chunking") as server:
            campaign = Campaign(
                folder / "campaign", ROWS, server.port, sessions=SESSIONS, in_doubt=in_doubt, dialogue=dialogue
            )
            at_most = SESSIONS * DOUBTS[dialogue]
            kills += torment(campaign, server, chance, KILLS - kills, at_most)
            campaign.finish()
            judge(campaign, server, unasked=dialogue == "streamed")
            twice = {recipient for recipient, number in copies(server).items() if number > 1}
            doubted = {str(entry["email"]) for entry in campaign.results() if entry["doubts"]}
            assert twice <= (doubted if in_doubt == "resend" else set())
            assert max(copies(server).values()) <= 2
