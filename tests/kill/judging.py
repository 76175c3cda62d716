"""Tormenting a campaign, and comparing its ledger with what the server wrote down."""

from __future__ import annotations

import random
import time
from collections import Counter

from tests.kill.processes import Campaign, OracleProcess, kill

__all__ = ["PAUSE", "ROWS", "SESSIONS", "copies", "judge", "torment"]

ROWS = 400
SESSIONS = 8
PAUSE = "0.01"  # seconds that the oracle thinks, on average, before it answers a content
LINE = 80  # octets of its log for one verdict, about


def torment(
    campaign: Campaign, server: OracleProcess, chance: random.Random, kills: int, at_most: int | None = SESSIONS
) -> int:
    """Run the command and kill it, again and again; return how many kills met it alive.

    Args:
        at_most: the doubts that one kill may add.
    """
    done = 0
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
            assert counts["sending"] <= at_most, f"kill {done}: {counts}"  # the next start finds these in doubt
    return done


def judge(campaign: Campaign, server: OracleProcess, *, unasked: bool = False, workers: bool = False) -> None:
    """Every row has an outcome, and it is the server's own word on that row.

    Args:
        unasked: the content goes with its envelope, so that a row may be in doubt whose recipient was rejected.
        workers: one that was replaced may have offered a row, before it found out, whose recipient was rejected for
            another one too: the reply is one of the two.
    """
    open_fates = {"accepted", "rejected"} if unasked else {"accepted"}
    said: dict[str, list[tuple[str, str, str]]] = {}
    for word, message_id, recipient, token in server.verdicts():
        said.setdefault(recipient, []).append((word, message_id, token))
    results = campaign.results()
    assert [entry["email"] for entry in results] == campaign.recipients
    for entry in results:
        verdicts = said.get(str(entry["email"]), [])
        words = {word for word, _, _ in verdicts}
        assert words <= {"accepted", "rejected"}, f"{entry}: {verdicts}"  # BL-07: nobody's letter to another
        if entry["state"] == "in doubt":
            assert words <= open_fates, f"{entry}: {verdicts}"
            continue
        assert verdicts, f"no result reports {entry}"
        word, message_id, token = verdicts[-1]
        assert entry["state"] == word, f"{entry}: {verdicts}"
        tokens = [each for *_, each in verdicts] if workers and word == "rejected" else [token]
        assert any(each in str(entry["reply"]) for each in tokens), f"{entry}: {verdicts}"  # BL-06: the row's own
        assert message_id in ("-", entry["message_id"])


def copies(server: OracleProcess) -> Counter[str]:
    """Return the number of copies that the server accepted for each recipient."""
    return Counter(verdict.recipient for verdict in server.verdicts() if verdict.word == "accepted")
