"""Write docs/explanation/states.md from the tables of the protocol's state machine: `python docs/draw_states.py`."""

from __future__ import annotations

from pathlib import Path

from asyncsmtp.protocol.client import ALLOWED_COMMANDS, ENDS_GROUP, NEXT_STATE, NEXT_STATE_IF_REFUSED, ProtocolState
from asyncsmtp.protocol.commands import Verb

PAGE = Path(__file__).parent / "explanation" / "states.md"
HEAD = """\
# States of the protocol

`docs/draw_states.py` writes this page from the tables in `asyncsmtp/protocol/client.py`; a test compares them.

A command may be sent in the states that list it. A positive reply leads to the state in the second table; a negative
one changes nothing, except for the commands with a state in the third column. 421 closes from any state; 334 leads from
AUTH, and from a response, to the state auth.

Every reply answers the oldest pending command. The machine keeps two cursors: `state`, confirmed by the server, and
`expected_state`, the state if every pending reply is positive. `expected_state` decides which commands may be sent.
"""
MEANING = {
    ProtocolState.CONNECTED: "connected; the greeting is due",
    ProtocolState.GREETED: "greeted, with or without TLS; EHLO comes next",
    ProtocolState.READY: "between transactions",
    ProtocolState.MAIL: "the reverse-path was accepted",
    ProtocolState.RCPT: "at least one forward-path was accepted",
    ProtocolState.DATA: "354: the content is due",
    ProtocolState.BDAT: "chunks are being sent",
    ProtocolState.AUTH: "a SASL challenge waits for its response",
    ProtocolState.TLS: "the TLS handshake is due; any byte from the server before it is an attack",
    ProtocolState.CLOSED: "closed",
}


def page() -> str:
    """Return the text of docs/explanation/states.md."""
    parts = [HEAD, "| state | meaning | commands allowed |", "|---|---|---|"]
    for state in ProtocolState:
        verbs = ", ".join(verb.value for verb in Verb if verb in ALLOWED_COMMANDS[state]) or "nothing"
        parts.append(f"| {state.value} | {MEANING[state]} | {verbs} |")
    parts += [
        "",
        "| command | a positive reply leads to | a negative reply leads to | ends a group |",
        "|---|---|---|---|",
    ]
    for verb in Verb:
        after = NEXT_STATE[verb].value if verb in NEXT_STATE else "no change"
        refused = NEXT_STATE_IF_REFUSED[verb].value if verb in NEXT_STATE_IF_REFUSED else "no change"
        parts.append(f"| {verb.value} | {after} | {refused} | {'yes' if verb in ENDS_GROUP else ''} |")
    parts += [
        "",
        "A group is a sequence of commands sent without waiting for replies, if PIPELINING is offered (RFC 2920).",
        "",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
