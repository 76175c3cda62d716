"""A running server in a root of its own: its files, users, ports and processes meet nobody else's.

The folder is a copy (of hard links) of what `install.py` unpacked, so a server may keep its compiled-in paths,
and its users are in a passwd file of its own. Only loopback is shared with the rest of the machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.interop.install import system

__all__ = ["Jail", "link", "wait_until"]

FIRST_USER = 64001  # nobody's on the machine outside
DEVICES = {"null": (1, 3), "urandom": (1, 9), "random": (1, 8)}
START_TIMEOUT = 20.0  # seconds


class Jail:
    """The root of one server; `stop()` ends all that runs in it and removes it.

    Args:
        name: the server's, as in `install.SERVERS`.
        users: the accounts it has inside, each with a group of its name.
    """

    def __init__(self, name: str, users: tuple[str, ...]) -> None:
        self.name = name
        self.root = Path(tempfile.mkdtemp(prefix=f"asyncsmtp-{name}-"))
        self.root.chmod(0o755)
        shutil.copytree(system(name), self.root, symlinks=True, copy_function=link, dirs_exist_ok=True)
        self._ids = {"root": 0} | {user: FIRST_USER + number for number, user in enumerate(users)}
        self._populate()
        self._server: subprocess.Popen[bytes] | None = None

    def path(self, inside: str) -> Path:
        """Return the place of a path of the server's, seen from outside."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, owner: str = "root") -> None:
        """Put a file in, and never through a link to the unpacked system's."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o640)
        os.chown(path, self._ids[owner], -1)

    def folder(self, inside: str, owner: str = "root") -> Path:
        """Make a folder that belongs to one of the users."""
        path = self.path(inside)
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, self._ids[owner], self._ids[owner])
        return path

    def run(self, *command: str, typed: bytes = b"") -> bytes:
        """Run a program inside to its end; return what it wrote."""
        done = subprocess.run(
            ["chroot", str(self.root), *command],
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed with {done.returncode}: {done.stdout.decode()}")
        return done.stdout

    def start(self, *command: str, ports: tuple[int, ...]) -> None:
        """Start the server, which must stay in the foreground; return once it listens on each of its ports."""
        with self._output.open("wb") as output:
            self._server = subprocess.Popen(
                ["chroot", str(self.root), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C"},
            )
        for port in ports:
            wait_until(partial(self._answers, port), lambda: f"{self.name} does not listen:\n{self.log}")

    @property
    def log(self) -> str:
        """Return what the server logged so far."""
        files = [self._output, *sorted(self.path("/var/log").rglob("*"))]
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file())

    def stop(self) -> None:
        """End the server, then whatever else still has its root in here; remove the folder."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(timeout=START_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        wait_until(self._is_empty, lambda: f"processes of {self.name} do not end: {self._processes()}")
        shutil.rmtree(self.root)

    def _answers(self, port: int) -> bool:
        assert self._server is not None
        if (code := self._server.poll()) is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.log}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT).close()
        except ConnectionRefusedError:
            return False
        return True

    @property
    def _output(self) -> Path:
        return self.path("/tmp/output")

    def _populate(self) -> None:
        users = [f"{user}:x:{number}:{number}::/:/bin/sh\n" for user, number in self._ids.items()]
        groups = [f"{user}:x:{number}:\n" for user, number in self._ids.items()]
        self.write("/etc/passwd", "".join(users))
        self.write("/etc/group", "".join([*groups, "mail:x:8:\n", "sasl:x:45:\n"]))
        self.write("/etc/hosts", "127.0.0.1 localhost relay.test\n")
        self.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        for file in ("passwd", "group", "hosts", "nsswitch.conf"):
            self.path(f"/etc/{file}").chmod(0o644)
        self.folder("/tmp").chmod(0o1777)
        self.folder("/dev")
        for name, (major, minor) in DEVICES.items():
            os.mknod(self.path(f"/dev/{name}"), stat.S_IFCHR, os.makedev(major, minor))
            self.path(f"/dev/{name}").chmod(0o666)

    def _processes(self) -> list[int]:
        """Those whose root is this folder, or a folder in it."""
        found = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                if Path(os.readlink(f"/proc/{process}/root")).is_relative_to(self.root):
                    found.append(int(process))
            except OSError:
                continue  # ended meanwhile
        return found

    def _is_empty(self) -> bool:
        processes = self._processes()
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not processes


def link(source: str, target: str) -> None:
    """Copy a file by a hard link where that is possible; what is inside is written anew, never changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def wait_until(condition: Callable[[], bool], explanation: Callable[[], str], seconds: float = START_TIMEOUT) -> None:
    """Ask again and again, for what tells nobody when it happens."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(explanation())
        time.sleep(0.02)
