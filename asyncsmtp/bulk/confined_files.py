"""Files named by templates and rows, read from one folder and nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["MAX_FILE_SIZE", "ConfinedFolder"]

MAX_FILE_SIZE = 64 * 1024 * 1024  # bytes

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a FIFO must not wait for its writer


class ConfinedFolder:
    """A folder whose files may be named by templates and by cells, that is by anybody.

    Pass `read` to `Template.compile(read=…)`. A path leads downwards, step by step, through no symbolic link. It ends
    at a regular file of at most `limit` bytes, which is opened once and checked after opening, so that nothing can be
    put in its place in between.
    """

    def __init__(self, root: Path, limit: int = MAX_FILE_SIZE) -> None:
        self.root = root
        self._limit = limit

    def read(self, path: str) -> bytes:
        """Return the content of a file, by its path below the folder, with `/`.

        Raises:
            OSError: missing, not a regular file, too large, or not below the folder; see `strerror`.
        """
        steps = path.split("/")
        if not {"", ".", ".."}.isdisjoint(steps) or "\0" in path:
            raise OSError(errno.EACCES, "it is not below the folder", path)
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for step in steps[:-1]:
                here, above = _open_step(step, _DIRECTORY_FLAGS, here, path), here
                os.close(above)
            return self._content(_open_step(steps[-1], _FILE_FLAGS, here, path), path)
        finally:
            os.close(here)

    def read_text(self, path: str) -> str:
        """Return the content as UTF-8 text; pass it as `Template(loader=…)`."""
        return self.read(path).decode("utf-8-sig")

    def _content(self, descriptor: int, path: str) -> bytes:
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(self._limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > self._limit:
            raise OSError(errno.EFBIG, f"it has more than {self._limit:,} bytes", path)
        return data


def _open_step(step: str, flags: int, here: int, path: str) -> int:
    try:
        return os.open(step, flags, dir_fd=here)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(
                errno.EACCES, "a symbolic link, or a file in place of a folder, is on the way", path
            ) from None
        raise
