"""Where a ledger may live: on a disk of this machine, private, with some room kept for the end."""

from __future__ import annotations

import os
import re
from pathlib import Path

from asyncsmtp.errors import LedgerError

__all__ = ["Ballast", "filesystem_of", "refuse_network"]

MOUNTS = Path("/proc/self/mounts")
BALLAST = 1 << 20  # octets

_NETWORK = re.compile(
    r"(?:fuse\.)?(?:nfs[34]?|cifs|smb[23]?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ocfs2|gfs2|ncpfs|coda"
    r"|davfs2?|sshfs|rclone|s3fs|gcsfuse|vboxsf|vmhgfs|vmhgfs-fuse|prl_fs)"
)


def filesystem_of(folder: Path, mounts: str) -> str:
    """The type of the file system that holds `folder`, as a table of mounts says; "" when it does not.

    Args:
        folder: absolute, without symbolic links.
        mounts: as in /proc/mounts: device, place, type; later lines cover earlier ones.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, place, found = line.split(" ")[:3]
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)
        if folder.is_relative_to(place) and len(place) >= best:
            best, kind = len(place), found
    return kind


def refuse_network(path: Path) -> None:
    """Refuse a file system over a network: its locks and its shared memory are not those of one machine.

    Raises:
        LedgerError: with the type. Where the system has no table of mounts, nothing is refused.
    """
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return
    kind = filesystem_of(path.parent.resolve(), mounts)
    if _NETWORK.fullmatch(kind):
        raise LedgerError(
            f"{path} is on a network file system ({kind}), where a ledger is not safe: put it on a local disk"
        )


class Ballast:
    """A file that takes up room until the disk is full; then it makes way for the last outcomes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> None:
        """Take the room; it is really written, so that no file system only promises it.

        Raises:
            OSError: there is none.
        """
        try:
            with open(self._path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(os.urandom(BALLAST - file.tell()))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.drop()
            raise

    def drop(self) -> None:
        """Give the room back."""
        self._path.unlink(missing_ok=True)
