"""The dialogue for people, in the marks of swaks.

===  an event                      <-   the relay, in clear      <~   the relay, under TLS
 ->  we, in clear                   ~>  we, under TLS            <**  the relay refuses
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.events.trace import Direction
    from asyncsmtp.protocol.content import Content

__all__ = ["Transcript"]

MAX_LINE = 512  # characters shown of one line


class Transcript:
    """A trace that writes each line at once; `Session(relay, trace=…)` calls it.

    Of the content, which the trace leaves out, the header section is shown and the body is cut.
    """

    def __init__(self, write: Callable[[str], object], content: Content | None = None) -> None:
        self._write = write
        self._content = content

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        """Show what was said, each of its lines with its mark."""
        mark = _mark(side.value, tls=tls, refused=refused)
        if side.value == "C" and text == "." and self._content is not None:
            for line in _shown(self._content):
                self._write(f"{mark} {line}")
        for line in text.split("\n"):
            self._write(f"{mark} {safe_text(line, MAX_LINE)}")


def _mark(side: str, *, tls: bool, refused: bool) -> str:
    if side == "S":
        return "<**" if refused else "<~ " if tls else "<- "
    return (" ~>" if tls else " ->") if side == "C" else "==="


def _shown(content: Content) -> list[str]:
    """The lines of the header section, the empty line, and how much body there is."""
    head, _, body = bytes(content).partition(b"\r\n\r\n")
    lines = [safe_text(line.decode("utf-8", "backslashreplace"), MAX_LINE) for line in head.split(b"\r\n")]
    return [*lines, "", f"[{len(body):,} octets of body]"]
