"""Draw docs/states.md from the tables of the client machine: `python docs/draw_states.py`."""

from __future__ import annotations

from pathlib import Path

from asyncsmtp.protocol.client import AFTER, ALLOWED, ENDS_GROUP, REFUSED, ProtocolState
from asyncsmtp.protocol.commands import Verb

PAGE = Path(__file__).with_name("states.md")
HEAD = """\
# The states of a dialogue

Drawn from the tables in `asyncsmtp/protocol/client.py` by `docs/draw_states.py`; a test compares.

A command may be said in the states that list it. A positive reply leads where the table says; a negative one
leaves the state as it is, but for the commands with an entry in the last column. 421 closes from any state;
334 leads from AUTH, and from a response, to the state auth.

Every reply answers the oldest command that is pending. The machine keeps two cursors: `state`, what the server has
confirmed, and `ahead`, what it will be if every pending reply is positive. What may be said is looked up at `ahead`.
"""
TOLD = {
    ProtocolState.CONNECTED: "the connection is there, the greeting is due",
    ProtocolState.GREETED: "greeted, in clear or under TLS; EHLO comes next",
    ProtocolState.READY: "between transactions",
    ProtocolState.MAIL: "the reverse-path was taken",
    ProtocolState.RCPT: "at least one forward-path was taken",
    ProtocolState.DATA: "354: the content is due",
    ProtocolState.BDAT: "chunks are being sent",
    ProtocolState.AUTH: "a SASL challenge is due for its response",
    ProtocolState.TLS: "the handshake is due; any octet from the server now is an attack",
    ProtocolState.CLOSED: "over",
}


def page() -> str:
    """The whole of docs/states.md."""
    parts = [HEAD, "| state | means | may be said |", "|---|---|---|"]
    for state in ProtocolState:
        verbs = ", ".join(verb.value for verb in Verb if verb in ALLOWED[state]) or "nothing"
        parts.append(f"| {state.value} | {TOLD[state]} | {verbs} |")
    parts += ["", "| command | a positive reply leads to | a negative one to | ends a group |", "|---|---|---|---|"]
    for verb in Verb:
        after = AFTER[verb].value if verb in AFTER else "where it was"
        refused = REFUSED[verb].value if verb in REFUSED else "where it was"
        parts.append(f"| {verb.value} | {after} | {refused} | {'yes' if verb in ENDS_GROUP else ''} |")
    parts += [
        "",
        "A group is what may be written without waiting for a reply, where PIPELINING is offered (RFC 2920).",
        "",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
