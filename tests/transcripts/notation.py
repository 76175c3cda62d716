"""Transcripts with what they are about: to be played without sockets, and over them.

    === A lone dot is due when DATA is accepted without recipients
    # RFC 2920 §3.1
    to: bob@example.net
    result: rejected

    S: 220 relay.example ESMTP
    C: EHLO client.example
    S: 250-relay.example
    S: 250 PIPELINING
    C: MAIL FROM:<ann@example.org> | RCPT TO:<bob@example.net> | DATA
    S: 250 2.1.0 ok | 550 5.1.1 no such user | 354 go
    C: .

The dialogue is read by `asyncsmtp.testing.transcript`. The head, up to the first blank line, says what the
client is asked to do: each `to` is one message to those recipients, each `result` the fate of each of them.
The rest is there when it differs from nothing:

    security        none, tls, starttls, opportunistic
    login, token    user name and secret
    cleartext-login the login may go in clear
    masked          extensions that are not used though offered
    wishes          what is asked for each message; for a recipient it stands behind the address (asking.py)
    xclient         for whom the client speaks (asking.py)
    lines           the content, its lines parted by \\n
    behind-the-dot  the envelope of the next message follows the content of the one before
    one-segment     what the relay says in one line must come at once: that is the point
    error           what ends the session early: a type, and what its message holds
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asyncsmtp.testing.transcript import Transcript

__all__ = ["Scene", "scenes"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Scene:
    """A dialogue, and what the client is asked to do in it.

    Attributes:
        settings: those that are there once.
        messages: for each message its forward-paths.
        results: for each message the fate of each recipient.
    """

    title: str
    settings: dict[str, str]
    messages: tuple[tuple[str, ...], ...]
    results: tuple[tuple[str, ...], ...]
    transcript: Transcript

    def is_set(self, name: str) -> bool:
        return self.settings.get(name) == "yes"

    @property
    def content(self) -> bytes:
        """The content of each message, CRLF at the end of each line."""
        lines = self.settings.get("lines", r"Subject: hello\n\nGood morning.")
        return "".join(line + "\r\n" for line in lines.split(r"\n")).encode()


def scenes() -> list[Scene]:
    """Every scene of this folder, in the order of the files."""
    return [scene for path in sorted(HERE.glob("*.txt")) for scene in _scenes(path.read_text(encoding="utf-8"))]


def _scenes(text: str) -> Iterator[Scene]:
    for section in text.split("\n=== ")[1:]:
        title, _, rest = section.partition("\n")
        head, _, dialogue = rest.partition("\n\n")
        said = [line.split(": ", 1) for line in head.splitlines() if line and not line.startswith("#")]
        messages = tuple(tuple(value.split(", ")) for name, value in said if name == "to")
        results = tuple(tuple(value.split(", ")) for name, value in said if name == "result")
        settings = {name: value for name, value in said if name not in ("to", "result")}
        yield Scene(title, settings, messages, results, Transcript.parse(dialogue))
