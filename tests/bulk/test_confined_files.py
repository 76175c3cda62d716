"""What a cell may make us read: regular files below one folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.source_files import ConfinedFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "campaign"
    (folder / "invoices").mkdir(parents=True)
    (folder / "invoices/1.pdf").write_bytes(b"%PDF one")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/1.pdf").write_bytes(b"outside")
    return folder


def test_a_file_below_is_read(root: Path) -> None:
    """What it is for."""
    assert ConfinedFolder(root).read("invoices/1.pdf") == b"%PDF one"


@pytest.mark.parametrize(
    "path", ["../secret", "invoices/../../secret", "/etc/passwd", "", "invoices//1.pdf", "./invoices/1.pdf", "a\0b"]
)
def test_a_path_that_leads_elsewhere_is_refused(root: Path, path: str) -> None:
    """TF-07: upwards, absolute, or with a NUL."""
    with pytest.raises(OSError, match="not below the folder"):
        ConfinedFolder(root).read(path)


def test_no_symbolic_link_is_followed_wherever_it_stands(root: Path, tmp_path: Path) -> None:
    """TF-07: neither as the file nor as a folder on the way to it."""
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    for path in ("link", "folder/1.pdf"):
        with pytest.raises(OSError, match="a symbolic link"):
            ConfinedFolder(root).read(path)


def test_what_is_not_a_regular_file_is_refused_at_once(root: Path) -> None:
    """TF-07: a FIFO would make us wait, a device would never end, a folder has no bytes."""
    os.mkfifo(root / "fifo")
    for path in ("fifo", "invoices"):
        with pytest.raises(OSError, match="not a regular file"):
            ConfinedFolder(root).read(path)
    with pytest.raises(OSError, match="not a regular file"):
        ConfinedFolder(Path("/dev")).read("zero")


def test_a_file_larger_than_the_limit_is_refused(root: Path) -> None:
    """TF-07: a mail has room for little; the memory has not for much."""
    assert len(ConfinedFolder(root, limit=8).read("invoices/1.pdf")) == 8
    with pytest.raises(OSError, match="more than 7 bytes"):
        ConfinedFolder(root, limit=7).read("invoices/1.pdf")


def test_a_missing_file_is_said_to_be_missing(root: Path) -> None:
    """The commonest mistake keeps its own words."""
    with pytest.raises(FileNotFoundError):
        ConfinedFolder(root).read("invoices/2.pdf")


def test_no_descriptor_is_left_open(root: Path) -> None:
    """RE-07: a campaign reads one attachment a row."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        ConfinedFolder(root).read("invoices/1.pdf")
        for path in ("invoices/2.pdf", "nothing/1.pdf", "invoices"):
            with pytest.raises(OSError):
                ConfinedFolder(root).read(path)
    assert len(os.listdir("/proc/self/fd")) == before
