"""What a relay must answer next: the input read as what the state says it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from asyncsmtp.testing.grammar import Syntax, chunk_size, split
from asyncsmtp.testing.script import Stage
from asyncsmtp.testing.state import Mode, Said, State
from asyncsmtp.testing.usual import fault_in_bdat

__all__ = ["due", "is_improper"]

MAX_LINE = 12_288  # octets; the longest line there is, an AUTH response, has as many (RFC 4954 §4)
ENDS_GROUP = frozenset(
    {Stage.EHLO, Stage.HELO, Stage.STARTTLS, Stage.AUTH, Stage.RESPONSE, Stage.DATA, Stage.NOOP, Stage.QUIT}
)


def due(state: State) -> Said | None:
    """The next thing to answer, or None until more is read. Asked again only after its answer was applied."""
    return _DUE[state.mode](state)


def is_improper(state: State, said: Said) -> bool:
    """Whether there is input behind this that the client had no right to send yet (RFC 2920 §3.1)."""
    if not len(state.input) or not (said.line or said.stage in (Stage.DOT, Stage.RESPONSE)):
        return False
    pipelining = state.extended and state.policy.obeys("PIPELINING")
    return said.stage in ENDS_GROUP or not pipelining


def _beginning(stage: Stage) -> Callable[[State], Said | None]:
    return lambda state: Said(stage)


def _command(state: State) -> Said | None:
    line = state.input.line()
    if line is None:
        return _overlong(state)
    if len(line) > MAX_LINE or b"\n" in line or b"\r" in line or b"\0" in line:
        return Said(Stage.OTHER, line)
    stage, verb, argument = split(line)
    said = Said(stage, line, verb, argument)
    return _bdat(state, said) if stage is Stage.BDAT else said


def _bdat(state: State, said: Said) -> Said | None:
    if not state.policy.obeys("CHUNKING"):
        return Said(Stage.OTHER, said.line, said.verb, said.argument)
    if state.policy.runs_refused_chunk and fault_in_bdat(state) is not None:
        return said
    try:
        _, said.last = chunk_size(said.argument)
    except Syntax:
        return said
    state.chunk, state.mode = said, Mode.CHUNK
    return _chunk(state)


def _chunk(state: State) -> Said | None:
    said = state.chunk
    assert said is not None
    chunk = state.input.chunk(chunk_size(said.argument)[0])
    if chunk is None:
        return None
    state.mode = Mode.COMMAND
    said.content = chunk
    return said


def _response(state: State) -> Said | None:
    line = state.input.line()
    return _overlong(state) if line is None else Said(Stage.RESPONSE, line, argument=line)


def _overlong(state: State) -> Said | None:
    if len(state.input) <= MAX_LINE:
        return None
    state.input.clear()
    state.mode = Mode.COMMAND
    return Said(Stage.OTHER)


def _content(state: State) -> Said | None:
    if not state.body_begun:
        state.body_begun = len(state.input) > 0
        return Said(Stage.BODY) if state.body_begun else None
    limit = state.policy.max_size
    read = state.input.content(sys.maxsize if limit is None else limit)
    return None if read is None else Said(Stage.DOT, content=read[0], fits=read[1], last=True)


_DUE: Final[Mapping[Mode, Callable[[State], Said | None]]] = {
    Mode.CONNECT: _beginning(Stage.CONNECT),
    Mode.HANDSHAKE: _beginning(Stage.HANDSHAKE),
    Mode.GREETING: _beginning(Stage.GREETING),
    Mode.COMMAND: _command,
    Mode.RESPONSE: _response,
    Mode.CONTENT: _content,
    Mode.CHUNK: _chunk,
    Mode.SILENT: lambda state: None,
}
