"""The rows of the wire and of its threats: what must hold, and which tests show it.

    python -m tests.rows            prints the rows that no test names; 1 if there is one
    python -m tests.rows WI-06 W-40 prints the tests that name these

A test names a row in its name, its docstring, or the comment of a transcript: `WI-06`, `W-40`; `row 40` and
`rows 40, 41 and 43` are W-40 … in the folders of the wire (elsewhere a row is one of a CSV).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROWS", "main", "missing", "named", "unknown"]

TESTS = Path(__file__).parent
OF_THE_WIRE = {"client", "interop", "mail", "protocol", "transcripts"}

_TABLE = """
W-01 220, QUIT, 221: connected, then disconnected
W-02 nothing listens: an error of connecting
W-03 closed before the greeting: an error of connecting, again and again
W-04 a greeting of 421, 554 or 199: an error with code and text
W-05 half a greeting, then silence: a timeout
W-06 connecting twice: an error, the connection untouched
W-07 a connect that is cancelled: nothing is locked
W-08 QUIT, then another connection: nothing is known of the first
W-09 the old connection's end harms no new one
W-10 any answer to QUIT: the session is closed
W-11 a hang-up at QUIT, without close_notify: closed at once
W-12 an error of the caller: QUIT is said, the error passes
W-13 a broken connection: no QUIT
W-14 a port that is no number: an error
W-15 Unix sockets and the caller's own, with TLS too
W-16 EHLO's lines: keywords with their parameters, in any case
W-17 AUTH= and AUTH: the union of both
W-18 EHLO not known: HELO, and no extension
W-19 both refused: no session
W-20 421 to EHLO: no HELO
W-21 EHLO twice: the second counts
W-22 a refused EHLO offers nothing
W-23 421 to NOOP: closed
W-24 a hang-up at NOOP: closed, and another connects
W-25 a hang-up while idle is noticed
W-26 octets above 127 in a reply are kept
W-27 what is no reply is an error, not a wait
W-28 half a line, then the end: disconnected
W-29 endless lines and replies: bounded
W-30 a reply to nothing is paired with nothing
W-31 a reply cut anywhere is the same reply
W-32 a reply too late: a timeout, and the connection is over
W-33 commands at once: each its own reply
W-34 messages at once: each sent
W-35 STARTTLS where offered: a new EHLO
W-36 STARTTLS not offered and not needed: plain
W-37 STARTTLS not offered and needed: an error
W-38 STARTTLS refused: no TLS, an error where needed
W-39 a hang-up at the handshake: an error
W-40 octets behind the 220 to STARTTLS never count
W-41 an unknown authority or a wrong name: refused
W-42 client certificates, contexts and CA files of the caller's
W-43 STARTTLS under TLS: an error, nothing written
W-44 TLS to a port that speaks none: an error
W-45 a handshake that stalls: a timeout
W-46 AUTH PLAIN with and without an initial response
W-47 AUTH LOGIN and its prompts
W-48 CRAM-MD5: the digest, never an initial response
W-49 a challenge that is no base64: cancelled
W-50 XOAUTH2: an empty answer to the reason, then the refusal
W-51 several mechanisms, the first refused: by policy
W-52 endless challenges: bounded
W-53 AUTH not offered: an error with a hint
W-54 any other reply to AUTH is no success
W-55 MAIL refused: RSET, and the session goes on
W-56 MAIL refused, then a hang-up: the refusal counts
W-57 all recipients refused: each with its reply
W-58 one of three refused: the others have the message
W-59 421 to the second recipient: named, and closed
W-60 421 anywhere in a transaction: closed, no RSET
W-61 250 instead of 354: no content
W-62 354, then the end: an error
W-63 a refusal and a hang-up: the refusal counts
W-64 dots doubled, CRLF, one end
W-65 an end inside the content smuggles nothing
W-66 SIZE is what is transmitted
W-67 the null reverse-path
W-68 postmaster without a domain
W-69 control characters in any argument: nothing is written
W-70 parameters smuggled into a path: nothing is written
W-71 a name for EHLO with a space, or none: nothing is written
W-72 quoted local parts as they are
W-73 SMTPUTF8 where offered and needed
W-74 SMTPUTF8 needed and missing: said before MAIL
W-75 a display name beyond ASCII needs no SMTPUTF8
W-76 8BITMIME missing: encoded again, or refused
W-77 To, Cc and Bcc are recipients, Bcc is not transmitted
W-78 one Resent block counts, two are an error
W-79 Sender wins over several authors
W-80 no author or no recipient: an error
W-81 wishes for each recipient
W-82 the lines of VRFY and EXPN
W-83 what the caller gave is left as it is
NP-01 cancelled while a reply is due: in step, or gone
NP-02 cancelled between DATA and 354: never used again
NP-03 a message that cannot be encoded opens no envelope
NP-04 a 421 while idle is the next one's reason
NP-05 a 421 to DATA closes
NP-06 slow but moving is no timeout
NP-07 over the SIZE limit: refused before MAIL
NP-08 a login that fails halfway is cancelled with *
NP-09 a domain beyond ASCII goes as A-labels
NP-10 the limit of connecting has the name's lookup in it
NP-11 a code has three digits, the same in each line
PC-a some recipients refused, 354: the content goes
PC-b all recipients refused, 354: a lone dot, booked on nobody
PC-c MAIL refused for now, the rest out of sequence: the first is the reason
PC-d MAIL refused, 354: a lone dot
PC-e 421 amid the replies: the reason for the rest
PC-f too many recipients: the rest is for later
PC-g a last chunk in the group with a refused recipient
PC-h a chunk is not said before the envelope is known, but to a relay one trusts
TV transparency: the vectors
SV SASL: the vectors of each mechanism
WI-01 a line without end
WI-02 a reply without end
WI-03 a reply that drips
WI-04 two codes in one reply
WI-05 lines that are no reply
WI-06 a reply too many
WI-07 a reply after our timeout
WI-08 garbage between replies
WI-09 bare CR, LF and NUL in replies
WI-10 control characters in the text of replies
WI-11 421 at any time
WI-12 the end of the connection at any stage
WI-13 a reply of the wrong class
WI-14 a final reply before the end of the content
WI-15 greetings of all kinds
WI-16 EHLO's reply gone mad
WI-17 EHLO refused: HELO once, or never where TLS or a login is needed
WI-18 PIPELINING offered and not kept
WI-19 354 though all recipients were refused
WI-20 a chunk refused halfway
WI-21 an enhanced code that contradicts its reply
WI-22 552 to RCPT is for later
WI-23 both sides write and neither reads
WI-24 a session used again is dead
WO-01 control characters in arguments
WO-02 characters that truncate to CR or LF
WO-03 the name for EHLO
WO-04 parameters in a quoted local part
WO-05 xtext
WO-06 bare CR and LF in content
WO-07 one end of mail data, at the end
WO-08 dots at the edges of pieces
WO-09 one CRLF at the end
WO-10 lines over 998 octets
WO-11 the count of a chunk
WO-12 eight bits to a relay that takes seven
WO-13 SIZE
WO-14 cancelled in the content: aborted, not closed
WO-15 writes after the connection is gone
WO-16 limits of length
WO-17 no program is ever started to send
TL-01 octets behind the 220, in the same segment
TL-02 the same, a moment later
TL-03 STARTTLS stripped or refused
TL-04 what was offered before TLS is forgotten
TL-05 certificates that prove nothing
TL-06 old versions of TLS
TL-07 no verification: loud, and no password
TL-08 a handshake that stalls
TL-09 a close that stalls
TL-10 an end without close_notify
TL-11 no way back to clear text
TL-12 MTA-STS is left to an MTA
TL-13 DANE is left to an MTA
TL-14 REQUIRETLS
TL-15 SSLKEYLOGFILE
TL-16 both event loops
AU-01 no password in clear
AU-02 one attempt
AU-03 a hostile SCRAM server
AU-04 channel binding
AU-05 weak mechanisms are not chosen
AU-06 endless or odd challenges
AU-07 235 before the proof
AU-08 the secret is nowhere
AU-09 a relay that echoes the secret
AU-10 tokens: one refresh at a time
AU-11 where secrets come from
AU-12 a pool logs in once first
AU-13 NUL in a user name or password
AU-14 keyrings that keep nothing secret
RE-01 a peer that does not read
RE-02 no descriptors left
RE-03 a peer that is gone without a word
RE-04 accept, close, and again
RE-05 the event loop is not held up
RE-06 a million rows in bounded memory
RE-07 nothing is left over
RE-08 names with many addresses
RE-09 a relay that floods the log
RE-10 sessions that are idle too long
"""

ROWS = dict(line.split(" ", 1) for line in _TABLE.split("\n") if line)
_ID = re.compile(r"\b(?:W|NP|PC|WI|WO|TL|AU|RE)-(?:\d{2}|[a-h])\b|\b[TS]V\b")
_OWN = re.compile(r"\b(?:WI|WO|TL|AU|RE)-\d\d\b")
_WIRE_ROWS = re.compile(r"\brows? ((?:\d+(?:, | and | to )?)+)", re.IGNORECASE)


def named(folder: Path = TESTS) -> Iterator[tuple[str, str]]:
    """Each row that a test names, and the test."""
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder)
        for name, text in _tests(path):
            yield from ((row, f"{place}::{name}") for row in _rows(text, place))
    for path in sorted(folder.rglob("*.txt")):
        place = path.relative_to(folder)
        comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        yield from ((row, str(place)) for row in _rows("\n".join(comments), place))


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    """The tests of a file: their names, with what is said of each; what a module says of itself is no test."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, f"{node.name.replace('_', ' ')}\n{ast.get_docstring(node) or ''}"


def _rows(text: str, place: Path) -> set[str]:
    rows = set(_ID.findall(text))
    if place.parts[0] in OF_THE_WIRE:
        for listed in _WIRE_ROWS.findall(text):
            first, *ends = listed.split(" to ")
            numbers = [int(number) for number in re.findall(r"\d+", first)]
            if ends:
                numbers += range(numbers[-1], int(re.findall(r"\d+", ends[0])[0]) + 1)
            rows |= {f"W-{number:02d}" for number in numbers if number <= 83}
    return rows


def missing(folder: Path = TESTS) -> list[str]:
    """The rows that no test names."""
    found = {row for row, _ in named(folder)}
    return [row for row in ROWS if row not in found]


def unknown(folder: Path = TESTS) -> list[str]:
    """The rows that a test names and that are none: a slip of the pen."""
    return sorted(f"{row} in {test}" for row, test in named(folder) if row not in ROWS)


def main(words: list[str]) -> int:
    """Print what is asked for."""
    if words:
        for row, test in named():
            if row in words:
                print(row, test)
        return 0
    lacking = missing()
    for row in lacking:
        print(f"{row}  {ROWS[row]}: no test names it")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
