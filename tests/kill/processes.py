"""The two processes of a kill test: the oracle, which stays, and the client, which does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.interop.postgres import Postgres

__all__ = [
    "Campaign",
    "OracleProcess",
    "Verdict",
    "kill",
    "left",
    "list_children",
    "oracle",
    "signal_group",
    "wait_for",
]

CAMPAIGN = """
[campaign]
name = "kill"
from = "News <news@example.org>"
subject = "For {{{{ name }}}}"
recipients = "people.csv"
email = "email"
text = "message.txt"
{ledger}{copies}
[relay]
url = "smtp://127.0.0.1:{port}?security=none"
sessions = {sessions}
dialogue = "{dialogue}"

[limits]
concurrency = {concurrency}

[retry]
in_doubt = "{in_doubt}"
"""


class Verdict(NamedTuple):
    """One line of the oracle's log: its decision, before it replied."""

    word: str
    message_id: str
    recipient: str
    token: str


@dataclass(frozen=True)
class OracleProcess:
    """A running oracle: where it listens, and its log."""

    port: int
    log: Path

    def verdicts(self) -> list[Verdict]:
        """Everything decided so far, oldest first."""
        return [Verdict(*line.split()) for line in self.log.read_text().splitlines()]

    def wait_for_more(self, octets: int, while_alive: subprocess.Popen[bytes]) -> None:
        """Wait until the log has grown by that much, or the client has ended."""
        aim = self.log.stat().st_size + octets
        while self.log.stat().st_size < aim and while_alive.poll() is None:
            time.sleep(0.0005)  # a random moment is wanted, not an event of the client's


@contextmanager
def oracle(folder: Path, *options: str) -> Iterator[OracleProcess]:
    """Start an oracle that keeps its log in `folder`; end it on the way out."""
    folder.mkdir(exist_ok=True)
    log = folder / "oracle.log"
    log.touch()
    command = [sys.executable, "-I", str(Path(__file__).with_name("oracle.py")), str(log), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield OracleProcess(int(process.stdout.readline()), log)
        finally:
            process.kill()


class Campaign:
    """A campaign of `rows` recipients, each tenth of whom the oracle rejects, and the command that runs it.

    Args:
        home: the folder that has the package to run; None for the one that is installed.
        ledger: the URL of a database; None: a file of its own.
        copies: whether each row has one in Cc and one in Bcc, so that there are three times as many recipients; of
            those in Cc each tenth is rejected as well.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        port: int,
        *,
        sessions: int,
        in_doubt: str = "hold",
        dialogue: str = "pipelined",
        home: Path | None = None,
        ledger: str | None = None,
        copies: bool = False,
    ) -> None:
        self.folder, self.home = folder, home
        self.recipients = [f"{'nobody' if row % 10 == 0 else 'somebody'}{row}@example.com" for row in range(rows)]
        folder.mkdir()
        lines = [f"{address},Name {row}" for row, address in enumerate(self.recipients)]
        header, message = "email,name", "Dear {{ name }},\nthis is\nfor {{ email }}\n"
        if copies:
            header, message = f"{header},cc,bcc", f"{message}for {{{{ cc }}}}\nfor {{{{ bcc }}}}\n"
            more = [
                (f"{'nobody' if row % 10 == 5 else 'cc'}{row}@example.net", f"bcc{row}@example.org")
                for row in range(rows)
            ]
            lines = [",".join((line, *pair)) for line, pair in zip(lines, more, strict=True)]
            self.recipients = [each for to, pair in zip(self.recipients, more, strict=True) for each in (to, *pair)]
        (folder / "people.csv").write_text("\n".join((header, *lines)) + "\n")
        (folder / "message.txt").write_text(message)
        settings = {"port": port, "sessions": sessions, "concurrency": 4 * sessions}
        settings |= {"in_doubt": in_doubt, "dialogue": dialogue}
        settings |= {"ledger": f'ledger = "{ledger}"\n' if ledger else ""}
        settings |= {"copies": 'cc = "{{ cc }}"\nbcc = "{{ bcc }}"\n' if copies else ""}
        (folder / "campaign.toml").write_text(CAMPAIGN.format(**settings))

    @property
    def complaints(self) -> str:
        """Return the stderr of the command, of all its runs."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def start(self, *under: str, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Begin, or go on with, the campaign: the same command, as a group of processes of its own.

        Args:
            under: a command that runs it, such as strace and its options.
            options: further ones, such as --add and its file.
        """
        with (self.folder / "stderr").open("ab") as stderr:
            return subprocess.Popen(
                [*under, *self._command("bulk", "--yes", *options)],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def finish(self) -> int:
        """Run the command to its end; return its exit code."""
        return self.start().wait(timeout=60)

    def counts(self) -> dict[str, int]:
        """Return the number of recipients that the ledger has in each state."""
        counts: dict[str, int] = json.loads(self._output("status", "--json"))
        return counts

    def results(self) -> list[dict[str, object]]:
        """Return the ledger's record of each recipient, in the order of the file."""
        return [json.loads(line) for line in self._output("results", "--json").splitlines()]

    def _output(self, *words: str) -> bytes:
        done = subprocess.run(
            self._command(*words), cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
        return done.stdout

    def _command(self, verb: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "asyncsmtp", verb, str(self.folder / "campaign.toml"), *options]


def kill(process: subprocess.Popen[bytes]) -> bool:
    """SIGKILL the client and whatever it started; False if it had ended by itself."""
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and whatever it started, unless it has ended by itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def list_children(parent: int) -> list[int]:
    """Return the processes that send for a run in the process `parent`, by their numbers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            is_ours = int(fields[1]) == parent and fields[0] != "Z"
            if is_ours and b"sending_process" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


def wait_for(condition: Callable[[], bool], seconds: float = 40.0) -> float:
    """Wait until something is so; return the seconds that it took. What is waited for is in other processes."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - began


def left(postgres: Postgres) -> int:
    """Return the number of batches with rows that are to be sent in this round."""
    [(number,)] = postgres.execute("SELECT count(*) FROM asyncsmtp.batch WHERE NOT done")
    return int(str(number))
