"""Tormenting a campaign, and comparing its ledger with what the server wrote down."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.kill.processes import Campaign, OracleProcess, kill, left, signal_group

if TYPE_CHECKING:
    from tests.interop.postgres import Postgres

__all__ = [
    "LEASE",
    "PAUSE",
    "ROWS",
    "SESSIONS",
    "WORKER_SESSIONS",
    "copies",
    "judge",
    "judge_workers",
    "number_fenced",
    "torment",
    "torment_workers",
]

ROWS = 400
SESSIONS = 8
PAUSE = "0.01"  # seconds that the oracle thinks, on average, before it answers a content
LEASE = 3.0  # seconds
WORKERS = 4
WORKER_SESSIONS = 10
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


def torment_workers(
    postgres: Postgres,
    chance: random.Random,
    start: Callable[[], subprocess.Popen[bytes]],
    kills: int,
    *,
    look_after: Callable[[], object] = lambda: None,
) -> tuple[Counter[str], list[subprocess.Popen[bytes]]]:
    """Keep some workers running, and torment those that have a batch; end with the last deed or the last row.

    Beside the kills some workers are frozen for two or three leases, and the database is killed some times.

    Args:
        look_after: called where no worker has a batch.
    Returns:
        The number of each deed, and the workers, which all run on.
    """
    todo = [*["kill"] * kills, *["freeze"] * (kills * 3 // 10), *["crash"] * max(1, kills // 20)]
    chance.shuffle(todo)
    alive: list[subprocess.Popen[bytes]] = []
    frozen: list[tuple[float, subprocess.Popen[bytes]]] = []
    done: Counter[str] = Counter()
    while (todo or frozen) and left(postgres):
        for item in [item for item in frozen if item[0] <= time.monotonic()]:
            signal_group(item[1], signal.SIGCONT)
            frozen.remove(item)
        alive = [process for process in alive if process.poll() is None]
        alive += [start() for _ in range(WORKERS - len(alive))]
        time.sleep(chance.uniform(0.1, 0.6))
        sending, still = _pids_of_senders(postgres), {process for _, process in frozen}
        victims = [each for each in alive if each.pid in sending and each not in still and each.poll() is None]
        if not victims:
            look_after()
        if not todo or not victims or len(still) > 2:
            continue
        deed, victim = todo.pop(), chance.choice(victims)
        done[deed] += 1
        if deed == "kill":
            assert kill(victim)
        elif deed == "freeze":
            signal_group(victim, signal.SIGSTOP)
            frozen.append((time.monotonic() + chance.uniform(2, 3) * LEASE, victim))
        else:
            postgres.kill(all_at_once=chance.random() < 0.5)
            time.sleep(chance.uniform(0.0, 1.0))
            postgres.start()
    for _, process in frozen:
        signal_group(process, signal.SIGCONT)
    return done, [process for process in alive if process.poll() is None]


def _pids_of_senders(postgres: Postgres) -> set[int]:
    """Return the processes that have a batch."""
    owners = postgres.execute(
        "SELECT DISTINCT owner FROM asyncsmtp.worker JOIN asyncsmtp.batch USING (campaign_id, run) WHERE gone = 0"
    )
    return {int(str(owner).split()[1]) for (owner,) in owners}


def number_fenced(postgres: Postgres) -> int:
    """Return the number of workers whose rows were taken over by others."""
    ((number,),) = postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 2")
    assert isinstance(number, int)
    return number


def judge_workers(campaign: Campaign, server: OracleProcess, *, fenced: int = 0, in_doubt: int | None = None) -> None:
    """Nobody is lost, nobody got two, nobody is pending, and each answer is on its row, by its token.

    Args:
        fenced: number of workers whose rows were taken over, each of which may leave all its sessions in doubt.
        in_doubt: the most rows in doubt, if that is known.
    """
    judge(campaign, server, workers=True)
    counts = campaign.counts()
    assert counts["pending"] == counts["sending"] == counts["deferred"] == 0, counts
    assert counts["in doubt"] <= (WORKER_SESSIONS * fenced if in_doubt is None else in_doubt), counts
    assert set(copies(server).values()) == {1}


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
