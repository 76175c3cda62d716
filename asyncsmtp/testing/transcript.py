"""Dialogues as the RFCs print them, to be read and to be played.

    S: 220 relay.example ESMTP
    C: MAIL FROM:<a@example.org> | RCPT TO:<…> | DATA
    S: 250 2.1.0 ok | 550 5.1.1 no such user | 354 go
    C: .
    S: 554 5.5.1 no valid recipients

`|` joins what belongs to one pipelined group, and the replies to it. A reply of several lines has an `S:`
for each, all but the last with the hyphen. `…` stands for anything. `C: .` is content and its end of data;
`C: BDAT … LAST` includes its chunk. In an `S:` line `\\r`, `\\n`, `\\t`, `\\0`, `\\xNN` and `\\\\` are
octets. `FIN` or `RST` on a line of its own is how the relay ends the connection. Blank lines, and what
follows ` # `, are for the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

__all__ = ["ClientStep", "End", "ServerStep", "Transcript", "TranscriptStep", "matches"]


class End(StrEnum):
    """How the relay ends the connection."""

    FIN = "FIN"
    RST = "RST"


@dataclass(frozen=True, slots=True)
class ServerStep:
    """What the relay says at once: whole replies, each with its line ends."""

    replies: tuple[bytes, ...]

    @property
    def octets(self) -> bytes:
        return b"".join(self.replies)


@dataclass(frozen=True, slots=True)
class ClientStep:
    """What the client says as one group: patterns of command lines, for `matches`."""

    commands: tuple[str, ...]


TranscriptStep: TypeAlias = ServerStep | ClientStep | End


@dataclass(frozen=True, slots=True)
class Transcript:
    """A dialogue, step by step."""

    steps: tuple[TranscriptStep, ...]

    @classmethod
    def parse(cls, text: str) -> Transcript:
        """Read the notation.

        Raises:
            ValueError: with the number of the line that is none of it.
        """
        return cls(tuple(_steps(text)))

    @property
    def commands(self) -> tuple[str, ...]:
        """All that the client says, in order."""
        return tuple(command for step in self.steps if isinstance(step, ClientStep) for command in step.commands)


def matches(pattern: str, line: str) -> bool:
    """Whether a command line fits a pattern, `…` standing for anything. Verbs and letters are compared as they are."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line, re.DOTALL) is not None


_LINE: Final = re.compile(r"([SC]):(?: (.*))?")
_CONTINUED: Final = re.compile(r"[0-9]{3}-")
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|[rnt0\\])")
_OCTETS: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def _steps(text: str) -> Iterator[TranscriptStep]:
    begun = b""  # a reply whose last line is still to come
    for number, written in enumerate(text.splitlines(), start=1):
        line = written.partition(" # ")[0].strip()
        if not line:
            continue
        if line in End.__members__:
            yield End(line)
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} of the transcript begins with neither S: nor C:, nor is it FIN or RST")
        said = match[2] or ""
        if match[1] == "C":
            yield ClientStep(tuple(word.strip() for word in said.split(" | ")))
        elif _CONTINUED.match(said) and " | " not in said:
            begun += _octets(said)
        else:
            first, *others = map(_octets, said.split(" | "))
            yield ServerStep((begun + first, *others))
            begun = b""
    if begun:
        yield ServerStep((begun,))


def _octets(said: str) -> bytes:
    parts = _ESCAPE.split(said)
    octets = [part.encode("utf-8") if index % 2 == 0 else _escaped(part) for index, part in enumerate(parts)]
    return b"".join(octets) + b"\r\n"


def _escaped(name: str) -> bytes:
    return bytes.fromhex(name[1:]) if name[0] == "x" else _OCTETS[name]
