"""Workers on two hosts, the database on a third one; links are slow, and go away for longer than a lease."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.postgres import Postgres, running
from tests.interop.postgres import missing as missing_postgres
from tests.interop.requiring import required
from tests.kill import hosts
from tests.kill.hosts import ADDRESS, Network, Proxy
from tests.kill.judging import copies, judge
from tests.kill.processes import Campaign, OracleProcess, kill, oracle, wait_for

SESSIONS, LEASE = 10, 3.0
DATABASE, RELAY = 0, 1  # the targets of the proxy
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240)]


class Setting:
    """A campaign on the host of the database, and workers on the others, each with files of its own."""

    def __init__(
        self, folder: Path, rows: int, network: Network, postgres: Postgres, server: OracleProcess, proxy: Proxy
    ) -> None:
        self.rows = rows
        self.folder, self.network, self.postgres, self.server, self.proxy = folder, network, postgres, server, proxy
        self.campaign = Campaign(
            folder / "campaign", rows, server.port, sessions=SESSIONS, ledger=postgres.url, in_doubt="hold"
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        command = [sys.executable, "-m", "asyncsmtp", "campaign", "load", str(folder / "campaign" / "campaign.toml")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def start(self, host: str) -> subprocess.Popen[bytes]:
        """Start a worker there, with the files of the campaign but the recipients."""
        home = self.folder / host
        ignore = shutil.ignore_patterns("people.csv", "stderr")
        shutil.copytree(self.campaign.folder, home, ignore=ignore, dirs_exist_ok=True)
        database, relay = self.proxy.ports
        words = ["work", str(home / "campaign.toml"), "--until-idle", "--lease", f"{LEASE:g}s"]
        words += ["--ledger", f"postgresql://tests@{ADDRESS}:{database}/postgres"]
        words += ["--relay", f"smtp://{ADDRESS}:{relay}?security=none"]
        with self.network.on(host), (self.campaign.folder / "stderr").open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "asyncsmtp", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def accepted(self) -> int:
        return self.server.log.read_bytes().count(b"accepted ")

    def fenced(self) -> int:
        [(number,)] = self.postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 2")
        return int(str(number))

    def finish(self) -> dict[str, int]:
        """Wait until all is sent, and compare the ledger with what the server wrote down; return the counts."""
        wait_for(lambda: all(process.poll() is not None for process in self.processes), 100)
        judge(self.campaign, self.server, workers=True)
        counts = self.campaign.counts()
        assert counts["pending"] == counts["sending"] == counts["deferred"] == 0
        assert counts["in doubt"] <= SESSIONS * self.fenced()
        assert set(copies(self.server).values()) == {1}
        return counts


@pytest.fixture
def setting(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Setting]:
    required(hosts.missing() or missing_postgres())
    with ExitStack() as stack:
        network = stack.enter_context(hosts.network())
        stack.enter_context(network.on("database"))
        postgres = stack.enter_context(running())
        server = stack.enter_context(oracle(tmp_path / "oracle", "--pause", "0.01"))
        proxy = stack.enter_context(hosts.proxy(postgres.port, server.port, delay=0.002))
        made = Setting(tmp_path, request.param, network, postgres, server, proxy)
        try:
            yield made
        finally:
            print(made.campaign.complaints[-6000:])
            for process in made.processes:
                kill(process)


@pytest.mark.parametrize("setting", [5000], indirect=True)
def test_a_partition_that_is_longer_than_the_lease(setting: Setting) -> None:
    """First a host loses the database alone, and still reaches the relay; then the other one loses everything.

    Each is replaced meanwhile, and finds out when it is back: nothing is lost, and nobody gets two copies.
    """
    one, two = setting.start("one"), setting.start("two")
    wait_for(lambda: setting.accepted() > 500)
    setting.proxy.cut("one", DATABASE)
    wait_for(lambda: setting.fenced() == 1, 4 * LEASE)
    before = setting.accepted()
    time.sleep(LEASE)
    assert setting.accepted() > before  # the other one goes on
    setting.proxy.mend("one", DATABASE)
    wait_for(lambda: "was away for longer than its lease" in setting.campaign.complaints)
    wait_for(lambda: joined(setting) == 3)  # it begins anew

    setting.network.unplug("two")
    wait_for(lambda: setting.fenced() == 2, 4 * LEASE)
    time.sleep(LEASE / 2)
    setting.network.plug("two")
    counts = setting.finish()
    assert (one.returncode, two.returncode) == (1, 1)  # some were rejected
    assert counts["accepted"] + counts["rejected"] + counts["in doubt"] == setting.rows
    assert setting.fenced() == 2


@pytest.mark.parametrize("setting", [2000], indirect=True)
def test_a_host_that_is_lost_for_ever(setting: Setting) -> None:
    """Its worker can tell nobody; the other one takes over, and a short loss of its link is no reason to replace it."""
    lost, other = setting.start("one"), setting.start("two")
    wait_for(lambda: setting.accepted() > 500)
    setting.network.unplug("one")
    setting.network.unplug("two")
    time.sleep(LEASE / 3)
    setting.network.plug("two")
    assert other.wait(90) == 1
    lost.send_signal(signal.SIGKILL)
    lost.wait(20)
    setting.finish()
    assert setting.fenced() == 1


def joined(setting: Setting) -> int:
    [(number,)] = setting.postgres.execute("SELECT count(*) FROM asyncsmtp.worker")
    return int(str(number))
