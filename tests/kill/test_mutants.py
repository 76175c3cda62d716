"""The kill tests can fail: each of these small mistakes, put into a copy of the package, is found out."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import asyncsmtp
from tests.kill.judging import PAUSE, ROWS, SESSIONS, copies, judge, torment
from tests.kill.processes import Campaign, oracle

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240)]

SOURCE = Path(asyncsmtp.__file__).parent
TRIES = 12  # campaigns of eight kills each; one is usually enough
MUTANTS = {
    "M1: the content ends before its mark is durable": (
        "bulk/running/row_sender.py",
        "        return row.mark\n",
        "        return asyncio.sleep(0)\n",
    ),
    "M4: a lost reply is taken for a message that was not sent": (
        "bulk/running/row_sender.py",
        "                return _failure(claim, RowState.IN_DOUBT, error)\n",
        "                continue\n",
    ),
    "M8: recovery takes a marked row for one that was not sent": (
        "bulk/ledger/queries.py",
        "SET state = {RowState.IN_DOUBT:d}, doubts",
        "SET state = {RowState.PENDING:d}, doubts",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_found_out(tmp_path: Path, mutant: str) -> None:
    """Its campaigns lose a row, send one twice, or disagree with the server."""
    home = mutate(tmp_path / "home", *MUTANTS[mutant])
    chance = random.Random(mutant)
    for number in range(TRIES):
        try:
            suffer(tmp_path / str(number), home, chance)
        except AssertionError:
            return
    pytest.fail("every campaign passed")


def test_the_copy_without_a_mistake_passes(tmp_path: Path) -> None:
    """Otherwise the mutants might be found out for being copies."""
    home = mutate(
        tmp_path / "home", "bulk/running/row_sender.py", "        return row.mark\n", "        return row.mark\n"
    )
    suffer(tmp_path / "0", home, random.Random(7))


def mutate(home: Path, file: str, right: str, wrong: str) -> Path:
    """Copy the package and make the mistake; a mutant that no longer fits the source is an error."""
    shutil.copytree(SOURCE, home / "asyncsmtp", ignore=shutil.ignore_patterns("__pycache__"))
    source = (home / "asyncsmtp" / file).read_text(encoding="utf-8")
    if source.count(right) != 1:
        raise LookupError(f"{file} has changed: find another way to make this mistake")
    (home / "asyncsmtp" / file).write_text(source.replace(right, wrong), encoding="utf-8")
    return home


def suffer(folder: Path, home: Path, chance: random.Random) -> None:
    """One campaign with the mistake in it, through kills and lost replies."""
    with oracle(folder, "--pause", PAUSE, "--lose", "40") as server:
        campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS, home=home)
        torment(campaign, server, chance, 8, at_most=None)
        campaign.finish()
        judge(campaign, server)
        assert set(copies(server).values()) == {1}
