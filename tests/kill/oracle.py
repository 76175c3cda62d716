"""A server that cannot forget: each verdict is in its log before the client receives it.

    python oracle.py LOG [--pause SECONDS] [--lose EVERY] [--defer EVERY]

prints its port and serves until it is ended. One line a verdict: `word message-id recipient token`, where
word is `accepted`, `rejected`, or `mixed-up` for a letter whose body names somebody else; the
token is in the text of the reply, so that a ledger which booked a reply on the wrong recipient is found out.
A recipient is rejected when its local part begins with `nobody`. `--pause` is the mean wait before the reply to
the content, so that a moment picked at random is likely to lie inside a transaction; `--lose N` drops the
connection instead of every Nth reply to a content, after the verdict was written down. `--defer N` says 451 to every
Nth content, a verdict `deferred`. `--chunking` offers CHUNKING, and takes content by BDAT too.

It runs as a process of its own, with the standard library alone, so that it survives its clients.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
from itertools import count

MESSAGE_ID = re.compile(rb"^message-id:\s*<([^>\r\n]+)>", re.IGNORECASE | re.MULTILINE)
PATH = re.compile(rb"<([^>]*)>")
EHLO = b"250-oracle.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
CHUNKING = EHLO.replace(b"250-8BITMIME", b"250-CHUNKING\r\n250-8BITMIME")
CHUNK = re.compile(rb"BDAT (\d+)( LAST)?\r\n", re.IGNORECASE)


class Oracle:
    """The log, and the dialogue that fills it."""

    def __init__(self, log: str, pause: float, lose: int, defer: int, *, chunking: bool) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.pause, self.lose, self.defer = pause, lose, defer
        self.ehlo = CHUNKING if chunking else EHLO
        self.tokens, self.contents = count(1), count(1)
        self.chance = random.Random(2821)

    def verdict(self, word: str, message_id: str, recipient: str) -> str:
        """Write one line, whole, and return its token; only then may the client get the reply."""
        token = f"token-{next(self.tokens)}-"
        os.write(self.log, f"{word} {message_id} {recipient} {token}\n".encode())
        return token

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        try:
            writer.write(b"220 oracle.test ESMTP\r\n")
            await self.dialogue(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client was killed: what this server is for
        finally:
            writer.transport.abort()

    async def dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each command in turn; a whole group may have come in one packet."""
        recipients: list[str] = []
        chunks: list[bytes] = []
        reply: bytes | None
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                reply = self.ehlo
            elif verb == b"RCPT":
                reply = self.recipient(PATH.findall(line)[0].decode(), recipients)
            elif verb == b"DATA" and not recipients:
                reply = b"554 5.5.1 no valid recipients\r\n"
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
                if (reply := await self.content(await reader.readuntil(b"\r\n.\r\n"), recipients)) is None:
                    return
            elif verb == b"BDAT" and (chunk := CHUNK.fullmatch(line)):
                chunks.append(await reader.readexactly(int(chunk[1])))  # read, whatever the reply will be
                if not recipients:
                    reply = b"554 5.5.1 no valid recipients\r\n"
                elif not chunk[2]:
                    reply = b"250 2.0.0 go on\r\n"
                elif (reply := await self.content(b"".join(chunks), recipients)) is None:
                    return
                if chunk[2]:
                    recipients.clear()
            elif verb == b"QUIT":
                writer.write(b"221 2.0.0 bye\r\n")
                await writer.drain()
                return
            else:
                reply = b"250 2.0.0 ok\r\n"
            if verb in (b"MAIL", b"RSET", b"DATA"):
                recipients.clear()
                chunks.clear()
            writer.write(reply)
            await writer.drain()

    def recipient(self, address: str, recipients: list[str]) -> bytes:
        """Take a recipient, or reject it."""
        if address.startswith("nobody"):
            token = self.verdict("rejected", "-", address)
            return f"550 5.1.1 no such user {token}\r\n".encode()
        recipients.append(address)
        return b"250 2.1.5 ok\r\n"

    async def content(self, content: bytes, recipients: list[str]) -> bytes | None:
        """Write the verdict on a content down, and return the reply, or None for one that gets lost."""
        found = MESSAGE_ID.search(content.partition(b"\r\n\r\n")[0])
        message_id = found[1].decode() if found else "-"
        number = next(self.contents)
        deferred = bool(self.defer) and number % self.defer == 0
        for recipient in recipients:
            mine = f"for {recipient}\r\n".encode() in content  # the body says whose it is
            word = "mixed-up" if not mine else "deferred" if deferred else "accepted"
            token = self.verdict(word, message_id, recipient)
        if self.lose and number % self.lose == 0:
            return None
        if deferred:
            return f"451 4.3.0 later {token}\r\n".encode()
        if self.pause:
            await asyncio.sleep(self.chance.expovariate(1 / self.pause))
        return f"250 2.0.0 queued as {token}\r\n".encode()


async def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--lose", type=int, default=0)
    parser.add_argument("--defer", type=int, default=0)
    parser.add_argument("--chunking", action="store_true")
    options = parser.parse_args()
    oracle = Oracle(options.log, options.pause, options.lose, options.defer, chunking=options.chunking)
    server = await asyncio.start_server(oracle.serve, "127.0.0.1", 0, limit=2**22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
