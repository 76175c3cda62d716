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
import ssl
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, TypeAlias

from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.script import Cue, Fin, Move, Rst, Stage, Step

__all__ = ["ClientStep", "End", "ServerStep", "Transcript", "TranscriptRelay", "TranscriptStep", "matches"]


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


_UNWRITTEN: Final = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.BODY})
_BY_THE_WAY: Final = frozenset({Stage.EHLO, Stage.HELO, Stage.QUIT})


class TranscriptRelay(ScriptedRelay):
    """Plays one transcript to one client, and fails at the end of `async with` unless the client kept to it.

        async with TranscriptRelay(Transcript.parse(text)) as relay:
            await the_client_under_test(relay.host, relay.port)

    Replies answer commands in order. EHLO, HELO and QUIT are answered as usual where the transcript does
    not speak of them. STARTTLS answered with 220 is followed by TLS, 354 by content, 334 by a response. Where
    the transcript ends with the client's word, the relay hangs up.

    Raises:
        AssertionError: at the end of `async with`: what was expected, and what was said instead.
    """

    def __init__(
        self, transcript: Transcript, *, tls: ssl.SSLContext | None = None, implicit_tls: bool = False
    ) -> None:
        super().__init__(dict.fromkeys(Stage, self._play), tls=tls, implicit_tls=implicit_tls, users={"any": "any"})
        self._expected = deque(transcript.commands)
        self._answers, self._greeting = _answers(transcript)
        self._deviations: list[str] = []

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, where)
        if error is None and (self._deviations or self._expected):
            raise AssertionError("\n".join([*(self._deviations or self._missing()), *self.dialogue]))

    def _missing(self) -> list[str]:
        return [f"the transcript goes on: C: {' | '.join(self._expected)}"]

    def _play(self, cue: Cue) -> Move | None:
        if cue.stage in _UNWRITTEN:
            return None
        if cue.stage is Stage.GREETING:
            return self._greeting or None
        said = "." if cue.stage is Stage.DOT else cue.line.decode("utf-8", "backslashreplace")
        if self._expected and matches(self._expected[0], said):
            self._expected.popleft()
            answer = self._answers.popleft()
            if answer and str(answer[0]).startswith("421"):
                self._expected.clear()  # the relay closes: what is left of the group is never read
            return answer
        if cue.stage in _BY_THE_WAY:
            return None
        expected = f"C: {self._expected[0]}" if self._expected else "the end"
        self._deviations.append(f"the transcript has {expected}, the client said C: {said}")
        return ("554 5.5.0 that is not in the transcript", Fin())


def _answers(transcript: Transcript) -> tuple[deque[list[Step]], list[Step]]:
    """The move that answers each command, and the greeting; what is said unasked goes with what was said before."""
    moves: list[list[Step]] = [[] for _ in range(len(transcript.commands) + 1)]
    asked = answered = 0
    for step in transcript.steps:
        if isinstance(step, ClientStep):
            asked += len(step.commands)
        elif isinstance(step, ServerStep):
            for reply in step.replies:
                answered += answered < asked
                moves[answered].append(reply if moves[answered] else _reply(reply))
        else:
            moves[min(answered + 1, asked)].append(Fin() if step is End.FIN else Rst())
    if answered < asked:
        moves[asked].append(Fin())
    return deque(moves[1:]), moves[0]


def _reply(octets: bytes) -> str:
    """The first answer, as a reply whose code the relay goes by."""
    return octets.removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
