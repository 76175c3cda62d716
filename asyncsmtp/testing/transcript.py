"""Transcripts: dialogues in the notation of the RFCs, and a relay that plays them.

    S: 220 relay.example ESMTP
    C: MAIL FROM:<a@example.org> | RCPT TO:<…> | DATA
    S: 250 2.1.0 ok | 550 5.1.1 no such user | 354 go
    C: .
    S: 554 5.5.1 no valid recipients

`|` joins the commands of one pipelined group, and the replies to it. A reply of several lines has an `S:` for each,
all but the last with the hyphen. `…` stands for anything. `C: .` is content and its end of data; `C: BDAT … LAST`
includes its chunk. In an `S:` line `\\r`, `\\n`, `\\t`, `\\0`, `\\xNN` and `\\\\` are bytes. `FIN` or `RST` on a line
of its own ends the connection. Blank lines and text after ` # ` are comments.
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
from asyncsmtp.testing.script import Action, Fin, Rst, Stage, StageContext, Step

__all__ = ["ClientStep", "ConnectionEnd", "ServerStep", "Transcript", "TranscriptRelay", "TranscriptStep", "matches"]


class ConnectionEnd(StrEnum):
    """The way in which the relay ends the connection."""

    FIN = "FIN"
    RST = "RST"


@dataclass(frozen=True, slots=True)
class ServerStep:
    """Replies that the relay sends at once, each complete with its line ends."""

    replies: tuple[bytes, ...]

    @property
    def octets(self) -> bytes:
        return b"".join(self.replies)


@dataclass(frozen=True, slots=True)
class ClientStep:
    """Commands that the client sends as one group, as patterns for `matches`."""

    commands: tuple[str, ...]


TranscriptStep: TypeAlias = ServerStep | ClientStep | ConnectionEnd


@dataclass(frozen=True, slots=True)
class Transcript:
    """A dialogue, step by step."""

    steps: tuple[TranscriptStep, ...]

    @classmethod
    def parse(cls, text: str) -> Transcript:
        """Parse the notation.

        Raises:
            ValueError: a line that is not valid, with its number.
        """
        return cls(tuple(_steps(text)))

    @property
    def commands(self) -> tuple[str, ...]:
        """All commands of the client, in order."""
        return tuple(command for step in self.steps if isinstance(step, ClientStep) for command in step.commands)


def matches(pattern: str, line: str) -> bool:
    """Tell if a command line matches a pattern, in which `…` stands for anything. Case is significant."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line, re.DOTALL) is not None


_LINE: Final = re.compile(r"([SC]):(?: (.*))?")
_CONTINUED: Final = re.compile(r"[0-9]{3}-")
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|[rnt0\\])")
_OCTETS: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def _steps(text: str) -> Iterator[TranscriptStep]:
    begun = b""  # the first lines of a reply of several lines
    for number, written in enumerate(text.splitlines(), start=1):
        line = written.partition(" # ")[0].strip()
        if not line:
            continue
        if line in ConnectionEnd.__members__:
            yield ConnectionEnd(line)
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} of the transcript must begin with S: or C:, or be FIN or RST")
        line_text = match[2] or ""
        if match[1] == "C":
            yield ClientStep(tuple(word.strip() for word in line_text.split(" | ")))
        elif _CONTINUED.match(line_text) and " | " not in line_text:
            begun += _octets(line_text)
        else:
            first, *others = map(_octets, line_text.split(" | "))
            yield ServerStep((begun + first, *others))
            begun = b""
    if begun:
        yield ServerStep((begun,))


def _octets(line_text: str) -> bytes:
    parts = _ESCAPE.split(line_text)
    octets = [part.encode("utf-8") if index % 2 == 0 else _escaped(part) for index, part in enumerate(parts)]
    return b"".join(octets) + b"\r\n"


def _escaped(name: str) -> bytes:
    return bytes.fromhex(name[1:]) if name[0] == "x" else _OCTETS[name]


_UNSCRIPTED_STAGES: Final = frozenset({Stage.CONNECT, Stage.HANDSHAKE, Stage.BODY})
_OPTIONAL_STAGES: Final = frozenset({Stage.EHLO, Stage.HELO, Stage.QUIT})


class TranscriptRelay(ScriptedRelay):
    """A relay that plays one transcript to one client; `async with` fails at its end if the client deviated.

        async with TranscriptRelay(Transcript.parse(text)) as relay:
            await the_client_under_test(relay.host, relay.port)

    Replies answer commands in order. EHLO, HELO and QUIT get the default reply if the transcript does not mention them.
    A 220 to STARTTLS is followed by TLS, 354 by content, 334 by a response. If the transcript ends with a command, the
    relay closes the connection.

    Raises:
        AssertionError: at the end of `async with`, with the expected and the actual commands.
    """

    def __init__(
        self, transcript: Transcript, *, tls: ssl.SSLContext | None = None, implicit_tls: bool = False
    ) -> None:
        super().__init__(dict.fromkeys(Stage, self._rule), tls=tls, implicit_tls=implicit_tls, users={"any": "any"})
        self._expected = deque(transcript.commands)
        self._actions, self._greeting = _actions(transcript)
        self._deviations: list[str] = []

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, where)
        if error is None and (self._deviations or self._expected):
            missing = f"the transcript continues: C: {' | '.join(self._expected)}"
            raise AssertionError("\n".join([*(self._deviations or [missing]), *self.dialogue]))

    def _rule(self, context: StageContext) -> Action | None:
        if context.stage in _UNSCRIPTED_STAGES:
            return None
        if context.stage is Stage.GREETING:
            return self._greeting or None
        line_text = "." if context.stage is Stage.END_OF_DATA else context.line.decode("utf-8", "backslashreplace")
        if self._expected and matches(self._expected[0], line_text):
            self._expected.popleft()
            answer = self._actions.popleft()
            if answer and str(answer[0]).startswith("421"):
                self._expected.clear()  # the relay closes: the rest of the group is never read
            return answer
        if context.stage in _OPTIONAL_STAGES:
            return None
        expected = f"C: {self._expected[0]}" if self._expected else "the end"
        self._deviations.append(f"the transcript has {expected}, the client sent C: {line_text}")
        return ("554 5.5.0 not in the transcript", Fin())


def _actions(transcript: Transcript) -> tuple[deque[list[Step]], list[Step]]:
    """Return the action for each command, and the greeting; an unsolicited reply is sent with the one before."""
    actions: list[list[Step]] = [[] for _ in range(len(transcript.commands) + 1)]
    asked = answered = 0
    for step in transcript.steps:
        if isinstance(step, ClientStep):
            asked += len(step.commands)
        elif isinstance(step, ServerStep):
            for reply in step.replies:
                answered += answered < asked
                text = reply.removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
                actions[answered].append(reply if actions[answered] else text)  # the relay acts on the first one's code
        else:
            actions[min(answered + 1, asked)].append(Fin() if step is ConnectionEnd.FIN else Rst())
    if answered < asked:
        actions[asked].append(Fin())
    return deque(actions[1:]), actions[0]
