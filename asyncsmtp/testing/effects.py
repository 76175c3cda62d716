"""What a reply changes, whoever chose it: the usual one, or a script's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

from asyncsmtp.testing.grammar import Path, Syntax, path
from asyncsmtp.testing.script import Stage
from asyncsmtp.testing.state import Mode, Said, State, Transaction

__all__ = ["Then", "apply"]


class Then(Enum):
    """What the connection must do after a reply."""

    GO_ON = auto()
    UPGRADE = auto()
    CLOSE = auto()


def apply(state: State, said: Said, code: int | None) -> Then:
    """Bring the state to where this reply tells the client it is.

    Args:
        code: what was said; 0 for the usual without words, None when a script said nothing it stands by.
    """
    then = _APPLY[said.stage](state, said, code)
    return Then.CLOSE if code == 421 else then


def _positive(code: int | None) -> bool:
    return code is not None and 200 <= code < 300


def _nothing(state: State, said: Said, code: int | None) -> Then:
    return Then.GO_ON


def _connect(state: State, said: Said, code: int | None) -> Then:
    begin = Mode.HANDSHAKE if state.implicit_tls else Mode.GREETING
    state.mode = begin if code == 0 else Mode.SILENT
    return Then.GO_ON


def _handshake(state: State, said: Said, code: int | None) -> Then:
    state.mode = Mode.SILENT
    return Then.UPGRADE if code == 0 else Then.GO_ON


def _greeting(state: State, said: Said, code: int | None) -> Then:
    state.mode = Mode.COMMAND
    state.barred = code is not None and code >= 400
    return Then.GO_ON


def _hello(state: State, said: Said, code: int | None) -> Then:
    if _positive(code):
        state.hello = said.stage
        state.transaction = None
    return Then.GO_ON


def _starttls(state: State, said: Said, code: int | None) -> Then:
    if code == 220:
        state.mode = Mode.HANDSHAKE
        state.input.clear()  # what the client sent in clear behind STARTTLS must not count (RFC 3207 §4.2)
    return Then.GO_ON


def _auth(state: State, said: Said, code: int | None) -> Then:
    login = state.this_login(said)
    state.mode = Mode.RESPONSE if code == 334 else Mode.COMMAND
    if code == 334:
        return Then.GO_ON
    state.login = None
    state.attempted(login.attempt(code == 235))
    if code == 235:
        state.user = login.user or ""
    return Then.GO_ON


def _mail(state: State, said: Said, code: int | None) -> Then:
    if _positive(code):
        state.transaction = Transaction(said.path or _as_it_is(said.argument, "FROM:"))
    return Then.GO_ON


def _rcpt(state: State, said: Said, code: int | None) -> Then:
    if _positive(code) and state.transaction is not None:
        state.transaction.recipients.append(said.path or _as_it_is(said.argument, "TO:"))
    return Then.GO_ON


def _as_it_is(argument: bytes, keyword: str) -> Path:
    """The path of a command that a script accepted: understood if it can be, word for word otherwise."""
    try:
        return path(argument, keyword)
    except Syntax:
        return Path(argument.decode("utf-8", "backslashreplace"), {})


def _data(state: State, said: Said, code: int | None) -> Then:
    if code == 354:
        state.mode, state.body_begun, state.early = Mode.CONTENT, False, None
    return Then.GO_ON


def _body(state: State, said: Said, code: int | None) -> Then:
    state.early = code or None
    return Then.GO_ON


def _dot(state: State, said: Said, code: int | None) -> Then:
    if _positive(code or state.early):
        state.keep(said.content, chunked=False)
    state.mode = Mode.COMMAND
    state.transaction = None
    return Then.GO_ON


def _bdat(state: State, said: Said, code: int | None) -> Then:
    transaction = state.transaction
    if transaction is None:
        return Then.GO_ON
    if not _positive(code):
        transaction.chunk_refused = True  # RFC 3030 §2: RSET must come before anything else
    elif said.last:
        state.keep(b"".join([*transaction.chunks, said.content]), chunked=True)
        state.transaction = None
    else:
        transaction.chunks.append(said.content)
    return Then.GO_ON


def _rset(state: State, said: Said, code: int | None) -> Then:
    if _positive(code):
        state.transaction = None
    return Then.GO_ON


def _quit(state: State, said: Said, code: int | None) -> Then:
    return Then.CLOSE if _positive(code) else Then.GO_ON


_APPLY: Final[Mapping[Stage, Callable[[State, Said, int | None], Then]]] = {
    Stage.CONNECT: _connect,
    Stage.HANDSHAKE: _handshake,
    Stage.GREETING: _greeting,
    Stage.EHLO: _hello,
    Stage.HELO: _hello,
    Stage.STARTTLS: _starttls,
    Stage.AUTH: _auth,
    Stage.RESPONSE: _auth,
    Stage.MAIL: _mail,
    Stage.RCPT: _rcpt,
    Stage.DATA: _data,
    Stage.BODY: _body,
    Stage.DOT: _dot,
    Stage.BDAT: _bdat,
    Stage.RSET: _rset,
    Stage.NOOP: _nothing,
    Stage.QUIT: _quit,
    Stage.OTHER: _nothing,
}
