"""File system of a folder, and the disk reserve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.sqlite import ledger_file
from asyncsmtp.bulk.ledger.sqlite.ledger_file import DISK_RESERVE_BYTES, DiskReserve, filesystem_type, refuse_network

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/local xfs rw 0 0
//nas/my\\040files /mnt/my\\040files cifs rw 0 0
host:/x /srv fuse.sshfs rw 0 0
tmpfs /srv tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/mail", "ext4"),
        ("/home/ada", "nfs4"),
        ("/home", "nfs4"),
        ("/homes", "ext4"),
        ("/home/local/x", "xfs"),
        ("/mnt/my files/news", "cifs"),
        ("/srv/x", "tmpfs"),
    ],
)
def test_the_innermost_and_last_mount_counts(folder: str, kind: str) -> None:
    """One may lie inside another, and a later one covers an earlier one; spaces are in octal."""
    assert filesystem_type(Path(folder), MOUNTS) == kind


@pytest.mark.skipif(sys.platform != "linux", reason="the table of mounts is of Linux")
def test_this_machine_has_a_table() -> None:
    """Without it a ledger would be put on any file system."""
    assert filesystem_type(Path("/proc"), ledger_file.MOUNTS.read_text("utf-8", "surrogateescape")) == "proc"


def test_without_a_table_the_type_is_unknown() -> None:
    assert filesystem_type(Path("/home"), "") == ""


def test_a_local_folder_is_accepted(tmp_path: Path) -> None:
    refuse_network(tmp_path / "news.ledger")


def test_the_disk_reserve_is_really_written(tmp_path: Path) -> None:
    """A file with a hole in it would reserve nothing."""
    reserve = DiskReserve(tmp_path / "ballast")
    reserve.allocate()
    found = (tmp_path / "ballast").stat()
    assert found.st_size == DISK_RESERVE_BYTES
    assert found.st_blocks * 512 >= DISK_RESERVE_BYTES
    reserve.allocate()
    assert (tmp_path / "ballast").stat().st_size == DISK_RESERVE_BYTES
    reserve.free()
    reserve.free()
    assert list(tmp_path.iterdir()) == []


def test_half_a_disk_reserve_is_filled_up(tmp_path: Path) -> None:
    """A crash left it."""
    (tmp_path / "ballast").write_bytes(b"half")
    DiskReserve(tmp_path / "ballast").allocate()
    assert (tmp_path / "ballast").stat().st_size == DISK_RESERVE_BYTES


def test_without_space_no_disk_reserve_is_left(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        DiskReserve(tmp_path / "gone" / "ballast").allocate()
