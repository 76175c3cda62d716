"""Servers of Debian's packages in folders of the tests' own: `python3 tests/interop/install.py [name …]`.

The packages of mail servers exclude each other, and installing one means a service, users and a configuration
that somebody may already have. So nothing is installed: for each server apt works out, from nothing, the packages
that it needs down to the C library, and they are unpacked into one folder, in which the server then runs as
under a root of its own (`jail.py`). They are of one release of Debian, whichever this machine has: OpenSMTPD
fails every TLS handshake in Debian 12, and the configuration of Dovecot differs from release to release. Done once;
a second call finds all in its place. Wants root, apt, and a Debian whose mirror and keys know that release too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["SERVERS", "absent", "install", "system"]

SERVERS = {
    "exim": ("exim4-daemon-heavy", "libsasl2-modules", "sasl2-bin"),
    "opensmtpd": ("opensmtpd", "dash"),  # it delivers through /bin/sh
    "dovecot": ("dovecot-submissiond", "dovecot-lmtpd", "dovecot-imapd"),
}
RELEASE = "trixie"
MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, as on a system since Debian 12
UNUSED = ("./usr/share/*", "./etc/cron*", "./etc/init.d/*", "./etc/systemd/*", "./usr/lib/systemd/*")
COMPLETE = ".complete"  # written last; names the packages


def system(name: str) -> Path:
    """The folder of that server."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ASYNCSMTP_INTEROP_CACHE") or Path(home) / "asyncsmtp-interop") / name


def absent(name: str) -> str | None:
    """Return why that server cannot be run here, or None if it can."""
    if os.geteuid() != 0:
        return f"{name} starts as root only"
    if not _is_complete(name):
        return f"{name} is not in {system(name)}: run tests/interop/install.py"
    return None


def install(names: tuple[str, ...] = tuple(SERVERS)) -> None:
    """Unpack the servers that are not there yet."""
    wanted = [name for name in names if not _is_complete(name)]
    if not wanted:
        return
    place = system(wanted[0]).parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=place) as folder:
        apt = Apt(Path(folder, "apt"))
        for name in wanted:
            began = time.monotonic()
            new = Path(folder, name)
            _unpack(apt.download(SERVERS[name]), new)
            (new / COMPLETE).write_text(_mark(name))
            shutil.rmtree(system(name), ignore_errors=True)
            new.rename(system(name))  # whole or not at all
            print(f"{name}: unpacked into {system(name)} in {time.monotonic() - began:.0f} s", flush=True)


def _is_complete(name: str) -> bool:
    mark = system(name) / COMPLETE
    return mark.exists() and mark.read_text() == _mark(name)


def _mark(name: str) -> str:
    return " ".join((RELEASE, *SERVERS[name]))


def _unpack(packages: list[Path], root: Path) -> None:
    for link in MERGED:
        (root / "usr" / link).mkdir(parents=True)
        (root / link).symlink_to(f"usr/{link}")
    for package in packages:
        _extract(package, root)


def _extract(package: Path, root: Path) -> None:
    excluded = [f"--exclude={pattern}" for pattern in UNUSED]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "-C", root, *excluded], stdin=archive.stdout, check=True
        )
    if archive.returncode:
        raise RuntimeError(f"{package.name} cannot be unpacked")


class Apt:
    """apt with a state of its own: the machine's mirrors, another release, and nothing installed yet."""

    def __init__(self, folder: Path) -> None:
        self._archives = folder / "archives"
        for name in ("archives/partial", "lists/partial", "sources"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        _copy_sources(folder / "sources")
        settings = {
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": folder / "sources",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Cache::archives": self._archives,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",  # another user may not pass through the folder
            "Acquire::Retries": 3,
        }
        self._command = [
            "apt-get",
            "-q",
            "-y",
            *(word for key in settings for word in ("-o", f"{key}={settings[key]}")),
        ]
        _run(*self._command, "update")

    def download(self, packages: tuple[str, ...]) -> list[Path]:
        """Fetch the packages and all that they depend on."""
        install = [*self._command, "--no-install-recommends", "install"]
        _run(*install, "--download-only", *packages)
        listed = _run(*install, "--dry-run", *packages)
        names = {line.split()[1] for line in listed.splitlines() if line.startswith("Inst ")}
        return [file for file in sorted(self._archives.glob("*.deb")) if file.name.split("_")[0] in names]


def _copy_sources(folder: Path) -> None:
    """The machine's lists of sources, speaking of the release that we want."""
    own = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    place = Path("/etc/apt")
    for file in (*place.glob("sources.list"), *(place / "sources.list.d").glob("*")):
        if own and file.suffix in (".list", ".sources"):
            (folder / file.name).write_text(file.read_text().replace(own[1], RELEASE))


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout.decode()[-4000:]}")
    return done.stdout.decode()


if __name__ == "__main__":
    install(tuple(sys.argv[1:]) or tuple(SERVERS))
