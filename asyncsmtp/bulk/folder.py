"""Reading the files a template or a row asks for, from one folder and nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["Folder"]

MAX_OCTETS = 64 * 1024 * 1024

_DOWN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not make us wait for its writer


class Folder:
    """A folder whose files may be named by templates and by cells, that is by anybody.

    `read` is what `Template.compile(read=…)` takes. A path leads downwards, step by step, through no
    symbolic link; it ends at a regular file of at most `limit` octets, which is opened once and judged
    as opened, so that nothing can be put in its place in between.
    """

    def __init__(self, root: Path, limit: int = MAX_OCTETS) -> None:
        self.root = root
        self._limit = limit

    def read(self, path: str) -> bytes:
        """The octets of a file, by its path below the folder, with `/`.

        Raises:
            OSError: it is not there, not a file, too large, or not below the folder; `strerror` says which.
        """
        steps = path.split("/")
        if not {"", ".", ".."}.isdisjoint(steps) or "\0" in path:
            raise _refusal(errno.EACCES, "it is not below the folder", path)
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for step in steps[:-1]:
                here, above = _opened(step, _DOWN, here, path), here
                os.close(above)
            return self._content(_opened(steps[-1], _OPEN, here, path), path)
        finally:
            os.close(here)

    def text(self, path: str) -> str:
        """The same, as UTF-8 text; what `Template.loader` takes."""
        return self.read(path).decode("utf-8-sig")

    def _content(self, descriptor: int, path: str) -> bytes:
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refusal(errno.EINVAL, "it is not a regular file", path)
            with open(descriptor, "rb", closefd=False) as file:
                octets = file.read(self._limit + 1)
        finally:
            os.close(descriptor)
        if len(octets) > self._limit:
            raise _refusal(errno.EFBIG, f"it has more than {self._limit:,} octets", path)
        return octets


def _opened(step: str, flags: int, here: int, path: str) -> int:
    try:
        return os.open(step, flags, dir_fd=here)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _refusal(
                errno.EACCES, "a symbolic link, or a file in place of a folder, is on the way", path
            ) from None
        raise


def _refusal(number: int, why: str, path: str) -> OSError:
    return OSError(number, why, path)
