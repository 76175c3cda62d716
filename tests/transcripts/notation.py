"""Transcripts with what they are about: to be played without sockets, and over them.

    === An empty content is due when DATA is accepted without recipients
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

The dialogue is parsed by `asyncsmtp.testing.transcript`. The head, up to the first blank line, gives the client's task:
each `to` is one message to those recipients, each `result` the outcome for each of them. The other keys are optional:

    security          none, tls, starttls, opportunistic
    login, token      user name and secret
    cleartext-login   allow a login without TLS
    masked            extensions that are not used although offered
    mail_options      ESMTP options of each message; those of a recipient follow its address (asking.py)
    xclient           the client to act for (asking.py)
    lines             the content, its lines separated by \\n
    after-end-of-data  the envelope of the next message follows the content of the one before
    one-segment       replies in one line must arrive in one segment
    error             the error that ends the session early: its type and a part of its message
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
