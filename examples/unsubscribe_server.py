"""Serve the URL of List-Unsubscribe: a page for people, and one-click unsubscription for mail programs (RFC 8058).

A GET shows a button and changes nothing, because scanners follow every link in a mail. A POST adds the address to a
suppression list, which takes effect at once in every campaign that names it.
Run: python examples/unsubscribe_server.py people.csv
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

import asyncsmtp

SECRET = os.environ.get("ASYNCSMTP_UNSUBSCRIBE_SECRET", "a secret for this example").encode()
PAGE = "<!doctype html><title>Unsubscribe</title><form method=post><button>Unsubscribe</button></form>"


class Unsubscriptions:
    """The addresses by their tokens, and the list of those that unsubscribed."""

    def __init__(self, suppressed: asyncsmtp.SuppressionList, addresses: Mapping[str, str]) -> None:
        self.suppressed = suppressed
        self.addresses = addresses

    @classmethod
    async def load(cls, people: asyncsmtp.RecipientFile, suppressed: asyncsmtp.SuppressionList) -> "Unsubscriptions":
        addresses = {}
        async for batch in people.batches():
            for row in batch:
                if isinstance(row, asyncsmtp.Recipient):
                    addresses[asyncsmtp.unsubscribe_token(SECRET, row.mailbox)] = str(row.mailbox)
        return cls(suppressed, addresses)

    async def answer(self, method: str, path: str) -> tuple[str, str]:
        address = self.addresses.get(path.rpartition("/")[2])
        if address is None:
            return "404 Not Found", "this link is not valid"
        if method == "POST":
            await asyncio.to_thread(self.suppressed.add, [asyncsmtp.Suppressed(address, "unsubscribed")])
            return "200 OK", "you are unsubscribed"
        return "200 OK", PAGE

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split("\r\n", 1)[0].split(" ", 2)
                status, text = await self.answer(method, path)
                body = text.encode()
                kind = "text/html" if text is PAGE else "text/plain"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n".encode())
                writer.write(b"Connection: close\r\n\r\n" + body)
                await writer.drain()
        except (ValueError, OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # not a valid request, or the client is gone
        finally:
            writer.close()


async def main(people: str, port: int) -> None:
    pages = await Unsubscriptions.load(asyncsmtp.RecipientFile(people), asyncsmtp.SuppressionList("suppressed.db"))
    async with await asyncio.start_server(pages.serve, "127.0.0.1", port) as server:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/u/TOKEN", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8080))
