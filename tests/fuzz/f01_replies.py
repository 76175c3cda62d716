"""F1: replies read in one piece and in any pieces are the same replies, and the same end."""

from __future__ import annotations

from asyncsmtp.errors import RemoteProtocolError
from asyncsmtp.protocol.replies import Reply, ReplyReader
from tests.fuzz.script import TOKENS

__all__ = ["target"]


def target(data: bytes) -> None:
    """The first octet says how long the pieces are; the rest is what the server says."""
    if not data:
        return
    size, said = data[0] % 16 + 1, b"".join(TOKENS.get(octet, bytes((octet,))) for octet in data[1:])
    whole = read([said])
    assert read([said[at : at + size] for at in range(0, len(said), size)]) == whole
    for reply in whole[0]:
        assert 200 <= reply.code < 600
        assert str(reply).isprintable()
        assert reply.status is None or reply.status.class_ == reply.code // 100


def read(pieces: list[bytes]) -> tuple[list[Reply], bool, bool]:
    """The replies, whether they end in an error, and whether octets are left that begin no reply."""
    reader, replies = ReplyReader(), []
    try:
        for piece in pieces:
            for reply in reader.receive(piece):
                replies.append(reply)  # those before the error count
    except RemoteProtocolError:
        return replies, True, False
    return replies, False, reader.receive_eof() is not None
