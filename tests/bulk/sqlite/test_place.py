"""Which file system a folder is on, and the room that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp.bulk.sqlite.place import BALLAST, Ballast, filesystem_of, refuse_network

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
    assert filesystem_of(Path(folder), MOUNTS) == kind


def test_without_a_table_nothing_is_known() -> None:
    assert filesystem_of(Path("/home"), "") == ""


def test_a_folder_of_this_machine_is_let_pass(tmp_path: Path) -> None:
    refuse_network(tmp_path / "news.ledger")


def test_ballast_is_really_there(tmp_path: Path) -> None:
    """A file with a hole in it would keep no room free."""
    ballast = Ballast(tmp_path / "ballast")
    ballast.load()
    found = (tmp_path / "ballast").stat()
    assert found.st_size == BALLAST
    assert found.st_blocks * 512 >= BALLAST
    ballast.load()
    assert (tmp_path / "ballast").stat().st_size == BALLAST
    ballast.drop()
    ballast.drop()
    assert list(tmp_path.iterdir()) == []


def test_half_a_ballast_is_filled_up(tmp_path: Path) -> None:
    """What a crash left."""
    (tmp_path / "ballast").write_bytes(b"half")
    Ballast(tmp_path / "ballast").load()
    assert (tmp_path / "ballast").stat().st_size == BALLAST


def test_no_room_for_ballast_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Ballast(tmp_path / "gone" / "ballast").load()
