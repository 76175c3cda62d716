"""What a relay must answer next: the input read as what the state says it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from asyncsmtp.testing.parser import CommandSyntaxError, chunk_size, fault_in_mail, fault_in_rcpt, path, split
from asyncsmtp.testing.received import MessageNotAccepted
from asyncsmtp.testing.script import Stage
from asyncsmtp.testing.state import Mode, ReceivedLine, ServerState

__all__ = ["fault_in_bdat", "is_improper", "next_step", "usual_reply"]


def usual_reply(state: ServerState, said: ReceivedLine) -> str:
    """What a correct server says, without the last line end; "" where it says nothing."""
    if state.barred and said.stage is not Stage.QUIT:
        return "503 5.5.1 no service here, say QUIT"
    return _USUAL[said.stage](state, said)


def fault_in_bdat(state: ServerState) -> str | None:
    """Why no chunk is taken now; None when one is."""
    if state.transaction is None or state.transaction.chunk_refused:
        return "503 5.5.1 no content now"
    return None if state.transaction.recipients else "554 5.5.1 no valid recipients"


def _greeting(state: ServerState, said: ReceivedLine) -> str:
    return f"220 {state.policy.name} {'LMTP' if state.policy.lmtp else 'ESMTP'} ready"


def _ehlo(state: ServerState, said: ReceivedLine) -> str:
    if (said.verb == b"LHLO") is not state.policy.lmtp:
        return "500 5.5.1 this is the other protocol"
    if not said.argument or b" " in said.argument:
        return "501 5.5.4 EHLO takes the client's name"
    lines = [state.policy.name, *state.policy.keywords(tls=state.tls, user=state.user)]
    return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])


def _helo(state: ServerState, said: ReceivedLine) -> str:
    if state.policy.lmtp:
        return "500 5.5.1 this is the other protocol"
    return f"250 {state.policy.name}" if said.argument else "501 5.5.4 HELO takes the client's name"


def _starttls(state: ServerState, said: ReceivedLine) -> str:
    if said.argument:
        return "501 5.5.4 STARTTLS takes no argument"
    if not state.policy.starttls:
        return "502 5.5.1 not offered"
    if state.tls or not state.extended or state.transaction is not None:
        return "503 5.5.1 not now"
    return "220 2.0.0 go ahead"


def _auth(state: ServerState, said: ReceivedLine) -> str:
    if not state.policy.users:
        return "502 5.5.1 not offered"
    if state.user is not None or not state.extended or state.transaction is not None:
        return "503 5.5.1 not now"
    if state.policy.auth_needs_tls and not state.tls:
        return "538 5.7.11 encryption required"
    return state.this_login(said).begin()


def _response(state: ServerState, said: ReceivedLine) -> str:
    return state.this_login(said).respond(said.argument)


def _mail(state: ServerState, said: ReceivedLine) -> str:
    if state.hello is None:
        return "503 5.5.1 say EHLO first"
    if state.transaction is not None:
        return "503 5.5.1 nested MAIL"
    if state.policy.needs_tls and not state.tls:
        return "530 5.7.0 say STARTTLS first"
    if state.policy.needs_auth and state.user is None:
        return "530 5.7.0 log in first"
    try:
        said.path = path(said.argument, "FROM:")
    except CommandSyntaxError as error:
        return f"501 5.5.4 {error}"
    return fault_in_mail(said.path, state.policy, extended=state.extended) or "250 2.1.0 ok"


def _rcpt(state: ServerState, said: ReceivedLine) -> str:
    transaction = state.transaction
    if transaction is None or transaction.chunks or transaction.chunk_refused:
        return "503 5.5.1 no recipients now"
    try:
        said.path = path(said.argument, "TO:")
    except CommandSyntaxError as error:
        return f"501 5.5.4 {error}"
    utf8 = "SMTPUTF8" in transaction.mail.parameters
    return fault_in_rcpt(said.path, state.policy, extended=state.extended, utf8=utf8) or "250 2.1.5 ok"


def _data(state: ServerState, said: ReceivedLine) -> str:
    transaction = state.transaction
    if said.argument:
        return "501 5.5.4 DATA takes no argument"
    if transaction is None or transaction.chunks or transaction.chunk_refused:
        return "503 5.5.1 no content now"
    if (transaction.mail.parameters.get("BODY") or "").upper() == "BINARYMIME":
        return "503 5.5.1 BINARYMIME goes by BDAT"
    return "354 go ahead" if transaction.recipients else "554 5.5.1 no valid recipients"


def _dot(state: ServerState, said: ReceivedLine) -> str:
    if state.early is not None:
        return ""
    return "552 5.3.4 the message is too big" if not said.fits else _judge(state, said.content, chunked=False)


def _bdat(state: ServerState, said: ReceivedLine) -> str:
    if (fault := fault_in_bdat(state)) is not None:
        return fault
    try:
        octets, last = chunk_size(said.argument)
    except CommandSyntaxError as error:
        return f"501 5.5.4 {error}"
    assert state.transaction is not None
    content = b"".join([*state.transaction.chunks, said.content])
    if state.policy.max_size is not None and len(content) > state.policy.max_size:
        return "552 5.3.4 the message is too big"
    return _judge(state, content, chunked=True) if last else f"250 2.0.0 {octets} octets"


def _judge(state: ServerState, content: bytes, *, chunked: bool) -> str:
    transaction = state.transaction
    if transaction is None or not transaction.recipients:
        return "554 5.5.1 no valid recipients"
    if not content.isascii() and not {"BODY", "SMTPUTF8"} & transaction.mail.parameters.keys():
        return "554 5.6.1 eight-bit content without BODY=8BITMIME"
    try:
        reply = f"250 2.0.0 {state.keep(content, chunked=chunked)}"
    except MessageNotAccepted as refusal:
        reply = refusal.reply
    if state.policy.lmtp:  # RFC 2033 §4.2: one reply for each recipient that was accepted
        return "\r\n".join([reply] * len(transaction.recipients))
    return reply


def _rset(state: ServerState, said: ReceivedLine) -> str:
    return "501 5.5.4 RSET takes no argument" if said.argument else "250 2.0.0 ok"


def _quit(state: ServerState, said: ReceivedLine) -> str:
    return "501 5.5.4 QUIT takes no argument" if said.argument else f"221 2.0.0 {state.policy.name} closes"


def _other(state: ServerState, said: ReceivedLine) -> str:
    if said.verb == b"VRFY":
        return "252 2.1.5 send and see"
    return "214 2.0.0 RFC 5321" if said.verb == b"HELP" else "500 5.5.2 no such command"


def _nothing(state: ServerState, said: ReceivedLine) -> str:
    return ""


_USUAL: Final[Mapping[Stage, Callable[[ServerState, ReceivedLine], str]]] = {
    Stage.CONNECT: _nothing,
    Stage.HANDSHAKE: _nothing,
    Stage.GREETING: _greeting,
    Stage.EHLO: _ehlo,
    Stage.HELO: _helo,
    Stage.STARTTLS: _starttls,
    Stage.AUTH: _auth,
    Stage.RESPONSE: _response,
    Stage.MAIL: _mail,
    Stage.RCPT: _rcpt,
    Stage.DATA: _data,
    Stage.BODY: _nothing,
    Stage.DOT: _dot,
    Stage.BDAT: _bdat,
    Stage.RSET: _rset,
    Stage.NOOP: lambda state, said: "250 2.0.0 ok",
    Stage.QUIT: _quit,
    Stage.OTHER: _other,
}

MAX_LINE = 12_288  # octets; the longest line there is, an AUTH response, has as many (RFC 4954 §4)
ENDS_GROUP = frozenset(
    {Stage.EHLO, Stage.HELO, Stage.STARTTLS, Stage.AUTH, Stage.RESPONSE, Stage.DATA, Stage.NOOP, Stage.QUIT}
)


def next_step(state: ServerState) -> ReceivedLine | None:
    """The next thing to answer, or None until more is read. Asked again only after its answer was applied."""
    return _DUE[state.mode](state)


def is_improper(state: ServerState, said: ReceivedLine) -> bool:
    """Whether there is input behind this that the client had no right to send yet (RFC 2920 §3.1)."""
    if not len(state.input) or not (said.line or said.stage in (Stage.DOT, Stage.RESPONSE)):
        return False
    pipelining = state.extended and state.policy.obeys("PIPELINING")
    return said.stage in ENDS_GROUP or not pipelining


def _beginning(stage: Stage) -> Callable[[ServerState], ReceivedLine | None]:
    return lambda state: ReceivedLine(stage)


def _command(state: ServerState) -> ReceivedLine | None:
    line = state.input.line()
    if line is None:
        return _overlong(state)
    if len(line) > MAX_LINE or b"\n" in line or b"\r" in line or b"\0" in line:
        return ReceivedLine(Stage.OTHER, line)
    stage, verb, argument = split(line)
    said = ReceivedLine(stage, line, verb, argument)
    return _next_bdat(state, said) if stage is Stage.BDAT else said


def _next_bdat(state: ServerState, said: ReceivedLine) -> ReceivedLine | None:
    if not state.policy.obeys("CHUNKING"):
        return ReceivedLine(Stage.OTHER, said.line, said.verb, said.argument)
    if state.policy.runs_refused_chunk and fault_in_bdat(state) is not None:
        return said
    try:
        _, said.last = chunk_size(said.argument)
    except CommandSyntaxError:
        return said
    state.chunk, state.mode = said, Mode.CHUNK
    return _chunk(state)


def _chunk(state: ServerState) -> ReceivedLine | None:
    said = state.chunk
    assert said is not None
    chunk = state.input.chunk(chunk_size(said.argument)[0])
    if chunk is None:
        return None
    state.mode = Mode.COMMAND
    said.content = chunk
    return said


def _next_response(state: ServerState) -> ReceivedLine | None:
    line = state.input.line()
    return _overlong(state) if line is None else ReceivedLine(Stage.RESPONSE, line, argument=line)


def _overlong(state: ServerState) -> ReceivedLine | None:
    if len(state.input) <= MAX_LINE:
        return None
    state.input.clear()
    state.mode = Mode.COMMAND
    return ReceivedLine(Stage.OTHER)


def _content(state: ServerState) -> ReceivedLine | None:
    if not state.body_begun:
        state.body_begun = len(state.input) > 0
        return ReceivedLine(Stage.BODY) if state.body_begun else None
    limit = state.policy.max_size
    read = state.input.content(sys.maxsize if limit is None else limit)
    return None if read is None else ReceivedLine(Stage.DOT, content=read[0], fits=read[1], last=True)


_DUE: Final[Mapping[Mode, Callable[[ServerState], ReceivedLine | None]]] = {
    Mode.CONNECT: _beginning(Stage.CONNECT),
    Mode.HANDSHAKE: _beginning(Stage.HANDSHAKE),
    Mode.GREETING: _beginning(Stage.GREETING),
    Mode.COMMAND: _command,
    Mode.RESPONSE: _next_response,
    Mode.CONTENT: _content,
    Mode.CHUNK: _chunk,
    Mode.SILENT: lambda state: None,
}
