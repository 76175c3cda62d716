"""A relay that plays the S: side of a transcript over loopback, and holds the client to its C: side."""

from __future__ import annotations

import ssl
from collections import deque
from types import TracebackType
from typing import Final

from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.script import Cue, Fin, Move, Rst, Stage, Step
from asyncsmtp.testing.transcript import ClientStep, End, ServerStep, Transcript, matches

__all__ = ["TranscriptRelay"]

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
