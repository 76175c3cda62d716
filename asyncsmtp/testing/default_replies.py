"""Default behavior of a relay: the next step of the input to answer, and the reply of a correct server to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from asyncsmtp.testing.parser import (
    CommandSyntaxError,
    check_mail,
    check_rcpt,
    parse_chunk_size,
    parse_path,
    split_command,
)
from asyncsmtp.testing.received import MessageNotAccepted
from asyncsmtp.testing.script import Stage
from asyncsmtp.testing.state import Mode, ReceivedLine, ServerState

__all__ = ["check_bdat", "default_reply", "next_step", "violates_pipelining"]


def default_reply(state: ServerState, received: ReceivedLine) -> str:
    """Return the reply of a correct server, without its last line end; empty if it sends none."""
    if state.rejected and received.stage is not Stage.QUIT:
        return "503 5.5.1 no service here, send QUIT"
    if received.argument and received.stage in _WITHOUT_ARGUMENT:
        return f"501 5.5.4 {received.stage.upper()} takes no argument"
    reply = _DEFAULT_REPLIES.get(received.stage)
    try:
        return "" if reply is None else reply(state, received)
    except CommandSyntaxError as error:
        return f"501 5.5.4 {error}"


def check_bdat(state: ServerState) -> str | None:
    """Return the reply that refuses a chunk now; None if one is accepted."""
    if state.transaction is None or state.transaction.chunk_refused:
        return "503 5.5.1 no content now"
    return None if state.transaction.recipients else "554 5.5.1 no valid recipients"


def _greeting(state: ServerState, received: ReceivedLine) -> str:
    return f"220 {state.policy.name} {'LMTP' if state.policy.lmtp else 'ESMTP'} ready"


def _ehlo(state: ServerState, received: ReceivedLine) -> str:
    if (received.verb == b"LHLO") is not state.policy.lmtp:
        return "500 5.5.1 this is the other protocol"
    if not received.argument or b" " in received.argument:
        return "501 5.5.4 EHLO takes the client's name"
    lines = [state.policy.name, *state.policy.keywords(tls=state.tls, user=state.user)]
    return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])


def _helo(state: ServerState, received: ReceivedLine) -> str:
    if state.policy.lmtp:
        return "500 5.5.1 this is the other protocol"
    return f"250 {state.policy.name}" if received.argument else "501 5.5.4 HELO takes the client's name"


def _starttls(state: ServerState, received: ReceivedLine) -> str:
    if not state.policy.starttls:
        return "502 5.5.1 not offered"
    if state.tls or not state.is_esmtp or state.transaction is not None:
        return "503 5.5.1 not now"
    return "220 2.0.0 go ahead"


def _auth(state: ServerState, received: ReceivedLine) -> str:
    if not state.policy.users:
        return "502 5.5.1 not offered"
    if state.user is not None or not state.is_esmtp or state.transaction is not None:
        return "503 5.5.1 not now"
    if state.policy.auth_needs_tls and not state.tls:
        return "538 5.7.11 encryption required"
    return state.current_login(received).begin()


def _response(state: ServerState, received: ReceivedLine) -> str:
    return state.current_login(received).respond(received.argument)


def _mail(state: ServerState, received: ReceivedLine) -> str:
    if state.hello is None:
        return "503 5.5.1 send EHLO first"
    if state.transaction is not None:
        return "503 5.5.1 nested MAIL"
    if state.policy.needs_tls and not state.tls:
        return "530 5.7.0 send STARTTLS first"
    if state.policy.needs_auth and state.user is None:
        return "530 5.7.0 log in first"
    received.path = parse_path(received.argument, "FROM:")
    return check_mail(received.path, state.policy, is_esmtp=state.is_esmtp) or "250 2.1.0 ok"


def _rcpt(state: ServerState, received: ReceivedLine) -> str:
    transaction = state.transaction
    if transaction is None or transaction.chunks or transaction.chunk_refused:
        return "503 5.5.1 no recipients now"
    received.path = parse_path(received.argument, "TO:")
    utf8 = "SMTPUTF8" in transaction.mail.parameters
    return check_rcpt(received.path, state.policy, is_esmtp=state.is_esmtp, utf8=utf8) or "250 2.1.5 ok"


def _data(state: ServerState, received: ReceivedLine) -> str:
    transaction = state.transaction
    if transaction is None or transaction.chunks or transaction.chunk_refused:
        return "503 5.5.1 no content now"
    if (transaction.mail.parameters.get("BODY") or "").upper() == "BINARYMIME":
        return "503 5.5.1 BINARYMIME goes by BDAT"
    return "354 go ahead" if transaction.recipients else "554 5.5.1 no valid recipients"


def _end_of_data(state: ServerState, received: ReceivedLine) -> str:
    if state.early_reply is not None:
        return ""
    if not received.within_limit:
        return "552 5.3.4 the message is too big"
    return _result(state, received.content, chunked=False)


def _bdat(state: ServerState, received: ReceivedLine) -> str:
    if (fault := check_bdat(state)) is not None:
        return fault
    octets, last = parse_chunk_size(received.argument)
    assert state.transaction is not None
    content = b"".join([*state.transaction.chunks, received.content])
    if state.policy.max_size is not None and len(content) > state.policy.max_size:
        return "552 5.3.4 the message is too big"
    return _result(state, content, chunked=True) if last else f"250 2.0.0 {octets} octets"


def _result(state: ServerState, content: bytes, *, chunked: bool) -> str:
    transaction = state.transaction
    if transaction is None or not transaction.recipients:
        return "554 5.5.1 no valid recipients"
    if not content.isascii() and not {"BODY", "SMTPUTF8"} & transaction.mail.parameters.keys():
        return "554 5.6.1 eight-bit content without BODY=8BITMIME"
    try:
        reply = f"250 2.0.0 {state.accept_message(content, chunked=chunked)}"
    except MessageNotAccepted as refusal:
        reply = refusal.reply
    if state.policy.lmtp:  # RFC 2033 §4.2: one reply for each recipient that was accepted
        return "\r\n".join([reply] * len(transaction.recipients))
    return reply


def _other(state: ServerState, received: ReceivedLine) -> str:
    if received.verb == b"VRFY":
        return "252 2.1.5 send and see"
    return "214 2.0.0 RFC 5321" if received.verb == b"HELP" else "500 5.5.2 no such command"


_WITHOUT_ARGUMENT: Final = frozenset({Stage.STARTTLS, Stage.DATA, Stage.RSET, Stage.QUIT})
_DEFAULT_REPLIES: Final[Mapping[Stage, Callable[[ServerState, ReceivedLine], str]]] = {
    Stage.GREETING: _greeting,
    Stage.EHLO: _ehlo,
    Stage.HELO: _helo,
    Stage.STARTTLS: _starttls,
    Stage.AUTH: _auth,
    Stage.RESPONSE: _response,
    Stage.MAIL: _mail,
    Stage.RCPT: _rcpt,
    Stage.DATA: _data,
    Stage.END_OF_DATA: _end_of_data,
    Stage.BDAT: _bdat,
    Stage.RSET: lambda state, received: "250 2.0.0 ok",
    Stage.NOOP: lambda state, received: "250 2.0.0 ok",
    Stage.QUIT: lambda state, received: f"221 2.0.0 {state.policy.name} closes",
    Stage.OTHER: _other,
}

MAX_LINE = 12_288  # bytes of the longest line allowed, an AUTH response (RFC 4954 §4)
ENDS_GROUP = frozenset(
    {Stage.EHLO, Stage.HELO, Stage.STARTTLS, Stage.AUTH, Stage.RESPONSE, Stage.DATA, Stage.NOOP, Stage.QUIT}
)


def next_step(state: ServerState) -> ReceivedLine | None:
    """Return the next step to answer, or None until more is read. Call it again only after the answer was applied."""
    return _NEXT_STEP[state.mode](state)


def violates_pipelining(state: ServerState, received: ReceivedLine) -> bool:
    """Tell if input follows that the client was not allowed to send yet (RFC 2920 §3.1)."""
    if not len(state.input) or not (received.line or received.stage in (Stage.END_OF_DATA, Stage.RESPONSE)):
        return False
    pipelining = state.is_esmtp and state.policy.supports("PIPELINING")
    return received.stage in ENDS_GROUP or not pipelining


def _without_input(stage: Stage) -> Callable[[ServerState], ReceivedLine | None]:
    return lambda state: ReceivedLine(stage)


def _command(state: ServerState) -> ReceivedLine | None:
    line = state.input.read_line()
    if line is None:
        return _too_long(state)
    if len(line) > MAX_LINE or b"\n" in line or b"\r" in line or b"\0" in line:
        return ReceivedLine(Stage.OTHER, line)
    stage, verb, argument = split_command(line)
    received = ReceivedLine(stage, line, verb, argument)
    return _next_bdat(state, received) if stage is Stage.BDAT else received


def _next_bdat(state: ServerState, received: ReceivedLine) -> ReceivedLine | None:
    if not state.policy.supports("CHUNKING"):
        return ReceivedLine(Stage.OTHER, received.line, received.verb, received.argument)
    if state.policy.runs_refused_chunk and check_bdat(state) is not None:
        return received
    try:
        _, received.last = parse_chunk_size(received.argument)
    except CommandSyntaxError:
        return received
    state.chunk, state.mode = received, Mode.CHUNK
    return _chunk(state)


def _chunk(state: ServerState) -> ReceivedLine | None:
    received = state.chunk
    assert received is not None
    chunk = state.input.read_chunk(parse_chunk_size(received.argument)[0])
    if chunk is None:
        return None
    state.mode = Mode.COMMAND
    received.content = chunk
    return received


def _next_response(state: ServerState) -> ReceivedLine | None:
    line = state.input.read_line()
    return _too_long(state) if line is None else ReceivedLine(Stage.RESPONSE, line, argument=line)


def _too_long(state: ServerState) -> ReceivedLine | None:
    if len(state.input) <= MAX_LINE:
        return None
    state.input.clear()
    state.mode = Mode.COMMAND
    return ReceivedLine(Stage.OTHER)


def _content(state: ServerState) -> ReceivedLine | None:
    if not state.body_started:
        state.body_started = len(state.input) > 0
        return ReceivedLine(Stage.BODY) if state.body_started else None
    limit = state.policy.max_size
    read = state.input.read_content(sys.maxsize if limit is None else limit)
    return None if read is None else ReceivedLine(Stage.END_OF_DATA, content=read[0], within_limit=read[1], last=True)


_NEXT_STEP: Final[Mapping[Mode, Callable[[ServerState], ReceivedLine | None]]] = {
    Mode.CONNECT: _without_input(Stage.CONNECT),
    Mode.HANDSHAKE: _without_input(Stage.HANDSHAKE),
    Mode.GREETING: _without_input(Stage.GREETING),
    Mode.COMMAND: _command,
    Mode.RESPONSE: _next_response,
    Mode.CONTENT: _content,
    Mode.CHUNK: _chunk,
    Mode.SILENT: lambda state: None,
}
