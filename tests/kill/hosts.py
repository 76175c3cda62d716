"""Three hosts for a test: network namespaces on one bridge, and a proxy with delays and partitions between them.

Host `database` has the bridge, the database and the relay; `one` and `two` reach it at `ADDRESS`. Nothing is made
outside of these namespaces, and nothing in them reaches the network of the machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ADDRESS", "Network", "Proxy", "missing", "network", "proxy"]

ADDRESS = "10.213.0.1"  # of the host of the database, as the others see it
HOSTS = {"one": "10.213.0.2", "two": "10.213.0.3"}
CLONE_NEWNET = 0x40000000


def missing() -> str | None:
    """Return why there can be no such hosts here, or None."""
    if not sys.platform.startswith("linux"):
        return "there are no network namespaces"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip (Debian: iproute2)"
    probe = f"asyncsmtp-{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        return f"network namespaces cannot be made: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True, timeout=30)
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Network:
    """The namespaces of three hosts, by the names of the hosts."""

    def __init__(self) -> None:
        self._names = {host: f"asyncsmtp-{os.getpid()}-{host}" for host in ("database", *HOSTS)}

    def make(self) -> None:
        base = self._names["database"]
        for name in self._names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", base, "link", "add", "bridge", "type", "bridge")
        _ip("-n", base, "addr", "add", f"{ADDRESS}/24", "dev", "bridge")
        _ip("-n", base, "link", "set", "bridge", "up")
        for host, address in HOSTS.items():
            name = self._names[host]
            _ip("-n", base, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", base, "link", "set", host, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Remove the namespaces, with all interfaces in them, as far as they are there."""
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30, check=False)

    def unplug(self, host: str) -> None:
        """Take the link of a host down: nothing arrives any more, and no connection ends."""
        _ip("-n", self._names["database"], "link", "set", host, "down")

    def plug(self, host: str) -> None:
        """Take the link up again."""
        _ip("-n", self._names["database"], "link", "set", host, "up")

    @contextmanager
    def on(self, host: str) -> Iterator[None]:
        """Be on that host until the block ends: this thread, and the processes that it starts meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(descriptor: int) -> None:
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")

        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/run/netns/{self._names[host]}", os.O_RDONLY)
            try:
                enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                enter(before)
        finally:
            os.close(before)


@contextmanager
def network() -> Iterator[Network]:
    """Make the hosts; remove them on the way out, whatever happens."""
    made = Network()
    try:
        made.make()
        yield made
    finally:
        made.remove()


class Proxy:
    """The proxy's process; see delaying_proxy.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.ports = [int(word) for word in process.stdout.readline().split()]

    def cut(self, host: str, place: int) -> None:
        """Let nothing through between a host and the target of that place any more; no connection ends."""
        self._tell(f"cut {HOSTS[host]} {place}")

    def mend(self, host: str, place: int) -> None:
        """Let what has waited, and all else, through again."""
        self._tell(f"mend {HOSTS[host]} {place}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def proxy(*targets: int, delay: float) -> Iterator[Proxy]:
    """Run a proxy at `ADDRESS`, with a port for each of the targets, which are ports of 127.0.0.1."""
    program = Path(__file__).with_name("delaying_proxy.py")
    command = [sys.executable, "-I", str(program), ADDRESS, f"{delay}", *map(str, targets)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Proxy(process)
        finally:
            process.kill()
