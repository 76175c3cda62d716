"""Server output from fuzzer input: some bytes stand for whole replies, so that a fuzzer gets far quickly."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["END", "GO_ON", "HALF_CLOSED", "HALF_CLOSES", "TOKENS", "turns"]

TOKENS = dict(
    enumerate(
        [
            b"220 relay.example ESMTP\r\n",
            b"250-relay.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n",
            b"250-relay.example\r\n250 PIPELINING\r\n",
            b"250-relay.example\r\n250-SIZE 10000000\r\n250 SMTPUTF8\r\n",
            b"250 2.0.0 ok\r\n",
            b"354 go on\r\n",
            b"550 5.1.1 no such user\r\n",
            b"451 4.7.1 later\r\n",
            b"421 4.3.2 closing\r\n",
            b"503 5.5.1 out of sequence\r\n",
            b"250-2.0.0 more\r\n",
            b"221 2.0.0 bye\r\n",
            b"552 5.5.3 too many recipients\r\n",
            b"334 \r\n",
            b"235 2.7.0 welcome\r\n",
            b"535 5.7.8 no\r\n",
            b"250-relay.example\r\n250-PIPELINING\r\n250 AUTH PLAIN LOGIN SCRAM-SHA-256\r\n",
        ],
        start=0x80,
    )
)
HALF_CLOSED = b"(end of file)"  # a turn: it says nothing more, and still listens
HALF_CLOSES = 0xFD
GO_ON = 0xFE  # what follows comes only after the client has sent something more, or its time is up
END = 0xFF  # the server hangs up


def turns(data: bytes) -> Iterator[bytes | None]:
    """Yield the server output of each turn; None if it closes the connection."""
    said = bytearray()
    for octet in data:
        if octet in (GO_ON, HALF_CLOSES, END):
            yield bytes(said)
            said.clear()
            if octet != GO_ON:
                yield None if octet == END else HALF_CLOSED
                return
        else:
            said += TOKENS.get(octet, bytes((octet,)))
    yield bytes(said)
